"""Sequence models for scikit-learn: everything with a hidden state that evolves."""

from sklseq.classification import SequenceClassifier
from sklseq.hmm import (
    CategoricalHMM,
    GaussianHMM,
    GaussianMixtureHMM,
    MultinomialHMM,
    PoissonHMM,
)
from sklseq.preprocessing import Stepwise, concat_sequences, split_sequences
from sklseq.rnn import CharRNNClassifier, CharRNNLanguageModel
from sklseq.state_space import KalmanSmoother, SoftmaxStateSpace
from sklseq.topics import TopicMixture

__version__ = "0.1.0"

__all__ = [
    "CategoricalHMM",
    "CharRNNClassifier",
    "CharRNNLanguageModel",
    "GaussianHMM",
    "GaussianMixtureHMM",
    "KalmanSmoother",
    "MultinomialHMM",
    "PoissonHMM",
    "SequenceClassifier",
    "SoftmaxStateSpace",
    "Stepwise",
    "TopicMixture",
    "concat_sequences",
    "split_sequences",
]
