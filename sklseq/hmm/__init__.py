"""Hidden Markov models."""

from sklseq.hmm._categorical import CategoricalHMM
from sklseq.hmm._gaussian import GaussianHMM
from sklseq.hmm._poisson import PoissonHMM

__all__ = ["CategoricalHMM", "GaussianHMM", "PoissonHMM"]
