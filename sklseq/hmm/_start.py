"""Starting values of the chain: rough labels of the rows, and the moves between them."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin

from sklseq._covariance import column_mean, column_scale

CLUSTER_ROWS = 10_000  # enough rows to place the centres; all rows are labelled


def label_rows(rows, n_states: int, random_state, *, kmeans: bool) -> np.ndarray:
    """A state for each row: nearest k-means centre, or nearest of some random rows.

    Columns are scaled by their standard deviation; a missing entry counts as its column's mean.
    Too few distinct rows for k-means fall back on random rows.
    """
    scaled = _standardise(rows)
    if len(scaled) > CLUSTER_ROWS:
        sample = scaled[random_state.choice(len(scaled), CLUSTER_ROWS, replace=False)]
    else:
        sample = scaled
    if kmeans and len(np.unique(sample, axis=0)) > n_states:
        clusters = KMeans(n_states, n_init=1, random_state=random_state).fit(sample)
        return clusters.predict(scaled)
    chosen = random_state.choice(len(scaled), n_states, replace=len(scaled) < n_states)
    return pairwise_distances_argmin(scaled, scaled[chosen])


def is_left_right(transmat) -> bool:
    """Whether states can only be left for later ones, and some can."""
    return not np.any(np.tril(transmat, -1)) and bool(np.any(np.triu(transmat, 1)))


def segment_labels(offsets, n_states: int) -> np.ndarray:
    """Each sequence in as many equal parts as there are states, for left-right models.

    Rabiner (1989), sec. V.C: clusters would number the states in an order that the zeros forbid.
    """
    lengths = np.diff(offsets)
    step = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    return step * n_states // np.repeat(lengths, lengths)


def with_known_labels(labels, known, n_states: int) -> np.ndarray:
    """Rename labels to agree with the known states where they can, then put those in."""
    seen = known >= 0
    agreement = np.zeros((n_states, n_states))
    np.add.at(agreement, (labels[seen], known[seen]), 1.0)
    _, names = linear_sum_assignment(-agreement)
    return np.where(seen, known, names[labels])


def _standardise(rows) -> np.ndarray:
    return np.nan_to_num((rows - column_mean(rows)) / column_scale(rows))


def transmat_of_labels(labels, offsets, n_states: int) -> np.ndarray:
    """Relative frequencies of the moves within sequences, one added to each count."""
    inside = np.ones(len(labels), dtype=bool)
    inside[offsets[:-1]] = False
    pairs = labels[:-1] * n_states + labels[1:]
    counts = np.bincount(pairs[inside[1:]], minlength=n_states**2).reshape(n_states, n_states)
    return (counts + 1.0) / (counts + 1.0).sum(axis=1, keepdims=True)


def random_transmat(n_states: int, random_state) -> np.ndarray:
    """Random rows, in half of the draws with the weight on staying.

    Chains that take turns (vowels and consonants) are never found from sticky starts alone.
    """
    rows = random_state.dirichlet(np.ones(n_states), size=n_states)
    return (rows + np.eye(n_states)) / 2 if random_state.uniform() < 0.5 else rows
