r"""
======================================================
Can a topic be followed through two hundred documents?
======================================================

A dynamic topic model: one document a day, and what is written about wanders,

.. math::

    S_t \sim N(S_{t-1}, I), \qquad W_{t1}, \dots, W_{tn} \mid S_t \sim \mathrm{Softmax}(B S_t + b).

It is ``SoftmaxStateSpace`` with :math:`A = I` held fixed. The documents here are simulated, so that
the estimate can be laid beside the truth: an interest in weather that fades, and a fever of sports
in between. Some days nothing appeared; their rows are zero.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklseq import SoftmaxStateSpace

WORDS = np.array(
    ["rain", "wind", "cloud", "storm"]
    + ["goal", "match", "team", "coach"]
    + ["bank", "price", "trade", "market", "the", "and", "said"]
)
rng = np.random.default_rng(0)
days = np.arange(200)
weather = 1.5 - 3.0 * days / 200 + 0.05 * np.cumsum(rng.normal(size=200))
sports = 2.2 * np.exp(-(((days - 110) / 25) ** 2)) - 0.7 + 0.05 * np.cumsum(rng.normal(size=200))
truth = np.column_stack([weather, sports])
B = np.zeros((15, 2))
B[:4, 0], B[4:8, 1] = [1.0, 0.9, 0.7, 1.1], [1.1, 0.8, 1.0, 0.9]
b = np.r_[np.zeros(12), 1.5, 1.4, 1.0]
odds = np.exp(truth @ B.T + b)
probabilities = odds / odds.sum(axis=1, keepdims=True)
X = np.array([rng.multinomial(30, p) for p in probabilities], dtype=float)
X[rng.uniform(size=200) < 0.1] = 0.0  # no document that day
X[140:155] = 0.0  # a strike

# %%
# One sequence of 200 documents. :math:`A = I` is held; B, b and the size of the steps are learned.

model = SoftmaxStateSpace(
    n_components=2, alpha=0.1, transition_matrix_init=np.eye(2), fixed="transition_matrix", tol=1e-5
).fit(X)
smoothed = model.smooth(X)
shares = model.inverse_transform(smoothed.means)

for name, column in (("weather", slice(0, 4)), ("sports", slice(4, 8))):
    error = np.abs(shares[:, column].sum(axis=1) - probabilities[:, column].sum(axis=1)).mean()
    print(f"share of {name} words: mean error {error:.3f}")
for direction in range(2):
    top = WORDS[np.argsort(-model.observation_matrix_[:, direction])[:4]]
    print(f"direction {direction}: {', '.join(top)}")

# %%
# Bands by drawing whole paths of the state given all documents, and turning each into words.

paths = model.sample_posterior(X, n_draws=200, random_state=0)
figure, axes = plt.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
for axis, name, column in zip(axes, ("weather", "sports"), (slice(0, 4), slice(4, 8))):
    drawn = np.array([model.inverse_transform(path)[:, column].sum(axis=1) for path in paths])
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    seen = X.sum(axis=1) > 0
    share = X[seen, column].sum(axis=1) / X[seen].sum(axis=1)
    axis.plot(days[seen], share, "k.", ms=3, label="in the day's document")
    axis.fill_between(days, low, high, alpha=0.3, label="90 % of the posterior")
    axis.plot(days, probabilities[:, column].sum(axis=1), "k--", lw=1, label="truth")
    axis.set(ylabel=f"share of {name} words", ylim=(0, 1))
axes[0].legend(loc="upper right")
axes[1].set_xlabel("day")
figure.savefig("softmax_dynamic_topics.png", dpi=120)
print("The picture is in softmax_dynamic_topics.png.")
