"""Hidden Markov models."""

from sklseq.hmm._categorical import CategoricalHMM
from sklseq.hmm._gaussian import GaussianHMM
from sklseq.hmm._gaussian_mixture import GaussianMixtureHMM
from sklseq.hmm._multinomial import MultinomialHMM
from sklseq.hmm._poisson import PoissonHMM

__all__ = ["CategoricalHMM", "GaussianHMM", "GaussianMixtureHMM", "MultinomialHMM", "PoissonHMM"]
