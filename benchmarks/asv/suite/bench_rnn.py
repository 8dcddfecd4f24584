"""Character networks, from commit to commit: an epoch, a prediction, a drawing."""

import warnings

import numpy as np

from sklseq import CharRNNClassifier, CharRNNLanguageModel

LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))


def words(n, rng):
    return ["".join(rng.choice(LETTERS, size)) for size in rng.integers(4, 12, n)]


def fitted(model, *data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one epoch does not converge
        return model.fit(*data)


class Cells:
    """Every cell at the hidden size of the examples."""

    params = ["rnn", "gru", "lstm"]
    param_names = ("cell",)

    def setup(self, cell):
        rng = np.random.default_rng(0)
        self.names, self.labels = words(2000, rng), rng.integers(0, 5, 2000)
        self.text = [" ".join(words(4000, rng))]
        self.classifier = CharRNNClassifier(cell=cell, max_iter=1, random_state=0)
        self.language_model = CharRNNLanguageModel(cell=cell, max_iter=1, random_state=0)
        fitted(self.classifier, self.names, self.labels)
        fitted(self.language_model, self.text)

    def time_fit_classifier(self, cell):
        fitted(self.classifier, self.names, self.labels)

    def time_fit_language_model(self, cell):
        fitted(self.language_model, self.text)

    def time_predict_proba(self, cell):
        self.classifier.predict_proba(self.names)

    def time_sample(self, cell):
        self.language_model.sample(1, max_length=500, random_state=0)
