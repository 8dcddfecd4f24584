"""
================================================================
Can one search tune PCA, a hidden Markov model and a classifier?
================================================================

A handwritten digit is a short sequence: eight rows of eight pixels, read from top to bottom. Here a
:class:`~sklseq.GaussianHMM` is a *feature step*: its ``transform`` turns each row of pixels into
the probabilities of its hidden states given the whole digit, :math:`p(s_t | x_1..x_8)`, and a
linear classifier reads the digit off them. The number of principal components of the first step and
the number of states of the second are chosen together, by the accuracy of the third on digits that
no step has seen. ``X`` is a collection (a 3-D array), so ``GridSearchCV`` holds out whole digits.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from sklseq import GaussianHMM, Stepwise

digits = load_digits()
alike = np.isin(digits.target, [3, 5, 8])  # those that are confused most
X, y = digits.images[alike], digits.target[alike]
print("digits, rows, pixels:", X.shape)

# %%
# :class:`~sklseq.Stepwise` runs PCA, which knows rows only, on a collection. The last but one step
# lays the probabilities of the eight rows side by side.
pipeline = Pipeline(
    [
        ("rows", Stepwise(PCA())),
        ("states", GaussianHMM(n_init=1, tol=1e-3, random_state=0)),
        ("flatten", FunctionTransformer(lambda proba: proba.reshape(len(proba), -1))),
        ("classify", LogisticRegression(max_iter=1000)),
    ]
)
grid = {"rows__transformer__n_components": [2, 4, 6], "states__n_components": [2, 4, 8]}
search = GridSearchCV(pipeline, grid, cv=3).fit(X, y)
print(f"best: {search.best_params_}, held-out accuracy {search.best_score_:.3f}")

# %%
# Two states are too few to tell three digits apart, whatever PCA keeps. (The classifier alone has
# 0.97 on all 64 pixels as well: this is about how to search, not about how to read digits.)
accuracy = search.cv_results_["mean_test_score"].reshape(3, 3)  # the last name varies fastest
fig, ax = plt.subplots(figsize=(4.6, 3.6), layout="constrained")
image = ax.imshow(accuracy, cmap="viridis", vmin=0.5, vmax=1)
for (i, j), value in np.ndenumerate(accuracy):
    dark = value < 0.8
    ax.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black")
ax.set_xticks(range(3), grid["states__n_components"])
ax.set_yticks(range(3), grid["rows__transformer__n_components"])
ax.set(xlabel="hidden states", ylabel="principal components of a row")
fig.colorbar(image, label="accuracy on held-out digits")
plt.show()

# %%
# The fitted search as a notebook shows it: click a step to see its parameters and fitted
# attributes; the question mark leads to its page.
search
