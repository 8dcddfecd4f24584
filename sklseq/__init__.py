"""Sequence models for scikit-learn: everything with a hidden state that evolves."""

from sklseq.hmm import CategoricalHMM, GaussianHMM, PoissonHMM
from sklseq.preprocessing import Stepwise, concat_sequences, split_sequences
from sklseq.state_space import KalmanSmoother, SoftmaxStateSpace

__version__ = "0.1.0"

__all__ = [
    "CategoricalHMM",
    "GaussianHMM",
    "KalmanSmoother",
    "PoissonHMM",
    "SoftmaxStateSpace",
    "Stepwise",
    "concat_sequences",
    "split_sequences",
]
