r"""
==============================================================
How many states of illness do epileptic patients pass through?
==============================================================

59 patients of a clinical trial counted their seizures over four visits, two weeks each (Thall and
Vail 1990). Each patient is one sequence, and the hidden state says how ill he is:

.. math::

    p(x_1, \dots, x_n) = \sum_{s} \prod_t p(s_t \mid s_{t-1})\, \mathrm{Poisson}(x_t; \lambda_{s_t})

The number of states is chosen by cross-validation over whole patients: a list of sequences goes
into ``GridSearchCV`` as it is, and no patient is ever cut in two.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import BoundaryNorm
from sklearn.model_selection import GridSearchCV, KFold

from sklseq import PoissonHMM
from sklseq.datasets import load_seizures

seizures = load_seizures()
patients = seizures.sequences  # a list of 59 arrays of shape (4, 1)

# %%
# Choose the number of states. ``score`` is the mean log-likelihood per visit, in nats, of patients
# that the model has not seen.

search = GridSearchCV(
    PoissonHMM(max_iter=1000, random_state=0),
    {"n_components": [1, 2, 3, 4, 5, 6]},
    cv=KFold(10, shuffle=True, random_state=0),
).fit(patients)

print("states   held-out log-likelihood per visit (nats)")
for n_states, mean in zip(range(1, 7), search.cv_results_["mean_test_score"]):
    best = "  <- best" if n_states == search.best_params_["n_components"] else ""
    print(f"{n_states:6d}   {mean:8.3f}{best}")

# %%
# Decode: the most probable path of each patient, states ordered by their rate.

model = search.best_estimator_
n_states = model.n_components
order = np.argsort(model.rates_[:, 0])
rank = np.argsort(order)
paths = np.array([rank[path] for path in model.predict(patients)])

print("\nstate   seizures in two weeks   visits   stays there")
for place, state in enumerate(order):
    print(
        f"{place:5d}   {model.rates_[state, 0]:21.1f}   {np.sum(paths == place):6d}"
        f"   {model.transmat_[state, state]:11.0%}"
    )
print(f"\nend in another state: {np.mean(paths[:, 0] != paths[:, -1]):.0%} of the patients")

# %%
# One row a patient, sorted by path: colour is the decoded state, the number what was counted.

counts = np.concatenate(patients)[:, 0].reshape(59, 4)
rows = np.lexsort([*counts.T, *paths.T[::-1]])
figure, axis = plt.subplots(figsize=(4.5, 10), layout="constrained")
colours = plt.get_cmap("viridis", n_states)
image = axis.imshow(
    paths[rows], aspect="auto", cmap=colours, norm=BoundaryNorm(np.arange(n_states + 1), n_states)
)
for place, patient in enumerate(rows):
    for visit, count in enumerate(counts[patient]):
        shade = "black" if paths[patient, visit] > n_states / 2 else "white"
        axis.text(visit, place, f"{count:.0f}", ha="center", va="center", color=shade, fontsize=7)
axis.set(title="Seizures and decoded state", xlabel="visit", ylabel="patient")
axis.set_xticks(range(4), range(1, 5))
axis.set_yticks(range(59), rows + 1, fontsize=6)
bar = figure.colorbar(image, ticks=np.arange(n_states) + 0.5, label="seizures in two weeks")
bar.ax.set_yticklabels([f"{rate:.1f}" for rate in model.rates_[order, 0]])
figure.savefig("seizures.png", dpi=120)
print("The picture is in seizures.png.")
