r"""
===============================================
What are the pages of scikit-learn's API about?
===============================================

Every public class of scikit-learn has a docstring, and these are our documents. In a
logistic-normal topic model each document has a hidden state, and its words follow a softmax of it:

.. math::

    S \sim N(0, I), \qquad W_1, \dots, W_n \mid S \sim \mathrm{Softmax}(B S + b)

It is the static case of ``SoftmaxStateSpace``: a document is a sequence of one step, whose row of
counts is all its words. Topics may go together or exclude each other, which the Dirichlet of
latent Dirichlet allocation cannot say.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from sklearn.utils.discovery import all_estimators

from sklseq import SoftmaxStateSpace

KINDS = ("linear_model", "cluster", "decomposition", "ensemble", "preprocessing", "neighbors")
pages = [
    (name, cls.__module__.split(".")[1], cls.__doc__)
    for name, cls in all_estimators()
    if cls.__module__.split(".")[1] in KINDS
]
names, kinds, texts = (np.array(column) for column in zip(*pages))

# %%
# Counts of words, and one sequence of one step for each document. The counts stay sparse.

vectorizer = CountVectorizer(
    stop_words=list(ENGLISH_STOP_WORDS), token_pattern=r"[a-z]{4,}", min_df=8, max_df=0.6
)
counts = vectorizer.fit_transform(texts)
documents = [counts[[i]] for i in range(len(texts))]
print(f"{counts.shape[0]} documents, {counts.shape[1]} words, {counts.nnz} of their pairs occur")

# %%
# Four directions of the state; ``alpha`` shrinks the words' places towards nowhere.

model = SoftmaxStateSpace(n_components=4, alpha=5.0, tol=1e-2).fit(documents)
states = np.concatenate(list(model.transform(documents)))

# %%
# The words at both ends of each direction, weighed by how often they occur.

words = vectorizer.get_feature_names_out()
weight = np.exp(model.observation_offset_ / 2)[:, None] * model.observation_matrix_
for direction in range(4):
    order = np.argsort(weight[:, direction])
    low, high = order[:6], order[::-1][:6]
    print(f"{direction}:  {', '.join(words[high])}\n    {', '.join(words[low])}")

# %%
# Where the modules lie: nobody told the model about them.

figure, axis = plt.subplots(figsize=(6.5, 5), layout="constrained")
for colour, kind in enumerate(KINDS):
    at = states[kinds == kind]
    marker = "os^DvP"[colour % 6]  # tells them apart in grey
    axis.scatter(*at[:, :2].T, s=18, color=f"C{colour}", marker=marker, label=kind)
for name in ("KMeans", "Ridge", "PCA", "RandomForestClassifier", "StandardScaler"):
    axis.annotate(name, states[names == name][0, :2], fontsize=8)
axis.set(title="Documents by the state of their words", xlabel="direction 0", ylabel="direction 1")
axis.legend(fontsize=8)
figure.savefig("softmax_topics.png", dpi=120)
print("The picture is in softmax_topics.png.")
