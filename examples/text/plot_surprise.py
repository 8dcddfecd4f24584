"""
====================================
What surprises a language model?
====================================

A :class:`~sklseq.CharRNNLanguageModel` gives each character a probability, given those before it:
with hidden state :math:`h_t = f(h_{t-1}, x_t)`,

.. math:: p(x_{t+1} | x_1..x_t) = \\mathrm{softmax}(W_{hy} h_t).

Minus its logarithm is the *surprise* in nats, and its mean is the loss that training lowers. Here
the model reads the first paragraphs of scikit-learn's own docstrings, and then a sentence that
begins like one of them and does not go on like one.
"""

import re
from inspect import getdoc

import matplotlib.pyplot as plt
from sklearn.utils.discovery import all_estimators

from sklseq import CharRNNLanguageModel
from sklseq.inspection import ConvergenceDisplay, TextProbabilityDisplay

docstrings = [getdoc(estimator).split("Parameters\n---")[0] for _, estimator in all_estimators()]
texts = [re.sub(r"\s+", " ", text).strip() for text in docstrings]
held_out, train = texts[::10], [text for i, text in enumerate(texts) if i % 10]
print(f"{len(train)} texts, {sum(map(len, train))} characters to learn from")

# %%
# Ten passes over the text take a few seconds.
model = CharRNNLanguageModel(hidden_size=96, max_iter=10, random_state=0).fit(train)
print(f"surprise per character, held-out docstrings: {-model.score(held_out):.2f} nats")

# %%
# The darker, the less expected. The first letter of a word is the hard one: once it is known, the
# rest often follows. "quick brown fox" is English, but not the English of scikit-learn, and the
# model says so letter by letter; at "estimator" it is at home again.
sentence = (
    "This estimator implements linear regression with the quick brown fox as its base estimator "
    "and has been fitted by the lazy dog."
)
display = TextProbabilityDisplay.from_estimator(model, sentence, width=44)
plt.show()

# %%
# The same in figures: nats per character of each word and the space or stop after it.
place = 0
for word in re.findall(r"\S+\s?", sentence):
    surprise = display.surprise[place : place + len(word)].mean()
    place += len(word)
    print(f"{word.strip():12s} {surprise:5.2f} {'#' * round(8 * surprise)}")

# %%
# How the loss came down.
ConvergenceDisplay.from_estimator(model, name="training loss")
plt.show()
