"""Sequence models for scikit-learn: everything with a hidden state that evolves."""

from importlib.util import find_spec as _find_spec

if _find_spec("sklseq._gaussian_density") is None:
    raise ImportError(
        f"The kernels of sklseq are not compiled in {__path__[0]}: this is a clone, whose folder "
        "stands before an installed sklseq on the path. Run Python from another folder to use the "
        "installed one, or compile in place (two to four minutes): "
        "python setup.py build_ext --inplace"
    )

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

__version__ = "0.2.0"

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
