"""
========================================
How much faster is it than hmmlearn?
========================================

The same model, the same data, the same answer, in one process: this compares the CPU time of
:class:`~sklseq.GaussianHMM` with that of hmmlearn, both with its default implementation
(logarithms) and its faster one (scaling). The machine is whatever built this page, and it may have
been busy; the ratios are steadier than the times, and :doc:`/benchmarks` has more of them.
"""

import statistics
import time

import hmmlearn.hmm
import matplotlib.pyplot as plt
import numpy as np

from sklseq import GaussianHMM

SHAPES = {"one sequence of\n50,000 steps": (5, 3, 1, 50_000),
          "500 sequences of\n100 steps": (10, 5, 500, 100)}  # fmt: skip


def same_model(n_components, n_features, n_sequences, n_steps):
    """Data and the model behind them, as an estimator of either package."""
    rng = np.random.default_rng(0)
    transmat = (rng.dirichlet(np.ones(n_components), n_components) + np.eye(n_components)) / 2
    startprob = np.full(n_components, 1 / n_components)
    means = 2 * rng.normal(size=(n_components, n_features))
    covars = np.ones((n_components, n_features))
    ours = GaussianHMM.from_parameters(
        startprob=startprob, transmat=transmat, means=means, covars=covars, random_state=0
    )
    theirs = []
    for implementation in ("log", "scaling"):
        model = hmmlearn.hmm.GaussianHMM(n_components, implementation=implementation)
        model.startprob_, model.transmat_, model.means_ = startprob, transmat, means
        model.covars_ = covars
        theirs.append(model)
    sequences, _ = ours.sample(n_steps, n_sequences=n_sequences)
    return np.concatenate(sequences), [n_steps] * n_sequences, ours, theirs


def cpu_time(function, repeats=3):
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


# %%
# ``score`` of hmmlearn is the total, ours the mean per step. They must agree before time is taken.
ratios = {}
for name, shape in SHAPES.items():
    X, lengths, ours, theirs = same_model(*shape)
    for model in theirs:
        assert abs(model.score(X, lengths) / len(X) - ours.score(X, lengths=lengths)) < 1e-9
    for task in ("score", "predict"):
        mine = cpu_time(lambda: getattr(ours, task)(X, lengths=lengths))
        ratios[name, task] = [cpu_time(lambda: getattr(m, task)(X, lengths)) / mine for m in theirs]

# %%
# Times faster, on a logarithmic axis; 1 would be a draw.
fig, ax = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
place = np.arange(len(ratios))
for shift, (implementation, color) in enumerate([("log", "#30638e"), ("scaling", "#d9b08c")]):
    bars = ax.bar(place + 0.4 * shift - 0.2, [both[shift] for both in ratios.values()], 0.38,
                  color=color, edgecolor="0.3", label=f"hmmlearn, {implementation}")  # fmt: skip
    ax.bar_label(bars, fmt="{:.0f}x", padding=2)
ax.set_xticks(place, [f"{task}\n{name}" for name, task in ratios])
ax.set(yscale="log", ylabel="CPU time of hmmlearn / of sklseq")
ax.axhline(1, color="0.3", linewidth=0.8)
ax.margins(y=0.15)
ax.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
plt.show()
