"""Character RNNs: a classifier and a language model, without a framework."""

from sklseq.rnn._classifier import CharRNNClassifier
from sklseq.rnn._language_model import CharRNNLanguageModel

__all__ = ["CharRNNClassifier", "CharRNNLanguageModel"]
