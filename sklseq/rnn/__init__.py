"""Character RNNs: a classifier and a language model, without a framework."""

from ._classifier import CharRNNClassifier
from ._language_model import CharRNNLanguageModel

__all__ = ["CharRNNClassifier", "CharRNNLanguageModel"]
