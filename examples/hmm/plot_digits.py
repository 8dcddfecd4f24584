r"""
Can digits be read row by row?
==============================

scikit-learn's digits are 8 rows of 8 pixels. Read from top to bottom, an image is a sequence of
eight steps, and a left-right model, :math:`s_t \in \{s_{t-1}, s_{t-1} + 1\}`, says for each digit
which rows follow which: a stroke may be longer or shorter, but not out of order.
``SequenceClassifier`` fits one such model to the images of each class and decides by Bayes' rule,
:math:`P(c | x) \propto \pi_c\, p_c(x_1..x_8)`.

Eight pixels of a row have 36 variances and covariances in every state, for about 135 images of a
class: the prior keeps them from being fitted to noise. It counts as ``covars_weight`` rows of
variance 4, and is part of the objective.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklseq import GaussianHMM, SequenceClassifier

X, y = load_digits(return_X_y=True)
images = X.reshape(-1, 8, 8)  # a 3-D array: sequences, steps, features
train, test, y_train, y_test = train_test_split(images, y, random_state=0, stratify=y)


def reader(n_states, covariance_type):
    """A left-right model of each digit."""
    left_right = (np.eye(n_states) + np.eye(n_states, k=1)) / 2
    left_right[-1, -1] = 1.0
    return SequenceClassifier(
        GaussianHMM(
            n_states, covariance_type=covariance_type, covars_prior=4.0, covars_weight=20.0,
            startprob_init=np.eye(n_states)[0], transmat_init=left_right, n_init=1, tol=1e-4,
            random_state=0,
        )
    )  # fmt: skip


# %%
# One state sees the rows in no order. With more states the order tells digits apart, and the
# covariances between neighbouring pixels of a row help throughout.

print("states   diagonal   full covariances      (accuracy on images held out)")
for n_states in (1, 2, 4, 8):
    diag, full = (
        reader(n_states, kind).fit(train, y_train).score(test, y_test) for kind in ("diag", "full")
    )
    print(f"{n_states:6d}   {diag:8.3f}   {full:16.3f}")

# %%
# What the models have learned: the mean row of the state of each step, on the path that is most
# common among the images of the class. Below, the image of each class that its model finds least
# likely.

classifier = reader(8, "full").fit(train, y_train)
figure, axes = plt.subplots(2, 10, figsize=(9, 2.4), layout="constrained")
for digit, hmm in enumerate(classifier.estimators_):
    own = train[y_train == digit]
    paths, counts = np.unique(hmm.predict(own), axis=0, return_counts=True)
    learned = hmm.means_[paths[counts.argmax()]]
    strange = own[hmm.score_sequences(own).argmin()]
    for axis, image in zip(axes[:, digit], (learned, strange)):
        axis.imshow(image, cmap="gray_r", vmin=0, vmax=16)
        axis.set(xticks=[], yticks=[])
    axes[0, digit].set_title(str(digit))
axes[0, 0].set_ylabel("learned")
axes[1, 0].set_ylabel("strangest")
figure.savefig("digits.png", dpi=120)
print("The picture is in digits.png.")
