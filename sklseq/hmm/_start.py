"""Starting values of the chain: rough labels of the rows, and the moves between them."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin

from sklseq._covariance import column_mean, column_scale

LEAST_VARIANCE = 1e-10  # of a part of the rows, in units of the whole: equal rows are a cluster
CLUSTER_ROWS = 10_000  # enough rows to place the centres; all rows are labelled


def label_rows(rows, n_states: int, random_state, *, way: str) -> np.ndarray:
    """A state for each row: its "kmeans" cluster, its part after "split"s that each find a scale of
    their own (`_split_rows`), or the nearest of some "random" rows.

    Columns are scaled by their standard deviation; a missing entry counts as its column's mean.
    Too few distinct rows for clusters fall back on random rows.
    """
    scaled = _standardise(rows)
    sample = _some_of(scaled, random_state)
    if way != "random" and len(np.unique(sample, axis=0)) > n_states:
        if way == "split":
            return _split_rows(scaled, n_states, random_state)
        clusters = KMeans(n_states, n_init=1, random_state=random_state).fit(sample)
        return clusters.predict(scaled)
    chosen = random_state.choice(len(scaled), n_states, replace=len(scaled) < n_states)
    return pairwise_distances_argmin(scaled, scaled[chosen])


def _some_of(rows, random_state) -> np.ndarray:
    if len(rows) <= CLUSTER_ROWS:
        return rows
    return rows[random_state.choice(len(rows), CLUSTER_ROWS, replace=False)]


def _split_rows(rows, n_parts: int, random_state) -> np.ndarray:
    """One part is halved at a time, by k-means in its own scale: the one whose halves gain the most
    likelihood as Gaussians.

    k-means puts its centres where the squares are: to it, levels of 0 and 1.5 beside 3000 +- 15 are
    one cluster.  A gain in likelihood knows no units.
    """

    def cost(part):
        variances = np.maximum(rows[part].var(axis=0), LEAST_VARIANCE)
        return len(part) * np.log(variances).sum()

    def split(part):
        scaled = _standardise(rows[part])
        if len(part) < 2 or not np.ptp(scaled, axis=0).any():
            return -np.inf, part, ()
        two = KMeans(2, n_init=1, random_state=random_state).fit(_some_of(scaled, random_state))
        second = two.predict(scaled) == 1
        halves = part[~second], part[second]
        if not all(map(len, halves)):  # rows whose squared distances underflow
            return -np.inf, part, ()
        return cost(part) - sum(map(cost, halves)), part, halves

    parts = [split(np.arange(len(rows)))]
    while len(parts) < n_parts:
        most = int(np.argmax([gain for gain, _, _ in parts]))
        if parts[most][0] == -np.inf:  # nothing that could be told apart is left
            break
        _, _, halves = parts.pop(most)
        parts += map(split, halves)
    labels = np.empty(len(rows), dtype=np.intp)
    for k, (_, part, _) in enumerate(parts):
        labels[part] = k
    return labels


def nearest_labels(rows, centres) -> np.ndarray:
    """The state of the nearest of the `centres` (K, M, D) for each row, columns scaled as above."""
    mean, scale = column_mean(rows), column_scale(rows)
    flat = (centres.reshape(-1, rows.shape[1]) - mean) / scale
    return pairwise_distances_argmin(_standardise(rows), flat) // centres.shape[1]


# ---------------------------------------------------------------------------------------------
# States that start alike


def tied_states(model, free_chain: bool) -> list[np.ndarray]:
    """Groups of states that EM has no way to tell apart: of one emission, and exchangeable.

    Where all states have one emission the data say nothing about the chain; with a `free_chain`,
    which the data may number anew, every group counts.
    """
    groups = groups_alike(model.emission.signature())
    if free_chain or any(len(states) == model.n_components for states in groups):
        return groups
    return [part for states in groups for part in _exchangeable(model, states)]


def _exchangeable(model, states) -> list[np.ndarray]:
    """Those of the `states` that can change places with the first, the second ... of them."""
    found, left = [], list(states)
    while left:
        first, *others = left
        alike = [first]
        for other in others:
            order = np.arange(model.n_components)
            order[[first, other]] = other, first
            same_start = model.startprob[first] == model.startprob[other]
            if same_start and np.array_equal(model.transmat, model.transmat[np.ix_(order, order)]):
                alike.append(other)
        found.append(np.array(alike))
        left = [state for state in left if state not in alike]
    return [states for states in found if len(states) > 1]


def groups_alike(signature) -> list[np.ndarray]:
    """The rows of a signature that are equal, two or more at a time."""
    _, group = np.unique(signature, axis=0, return_inverse=True)
    groups = [np.flatnonzero(group.reshape(-1) == i) for i in range(group.max() + 1)]
    return [alike for alike in groups if len(alike) > 1]


def part_states(emission, X, rows, weights, states, random_state, way: str):
    """(emission whose `states` the data have parted, posteriors of the rows), or None.

    `weights` (n_rows, K) say how much of each row belongs to each state so far.  The best of some
    ways to deal out the rows, by their likelihood as a mixture.
    """
    mass = weights[:, states].sum(axis=1, keepdims=True)
    theirs = np.flatnonzero(mass[:, 0] >= 0.5)
    if not np.isfinite(mass).all() or len(theirs) < len(states):
        return None
    rows = None if rows is None else rows[theirs]
    best, largest = None, -np.inf
    for shares in _deal_out(emission, X[theirs], rows, states, random_state, way):
        posteriors = weights.copy()
        posteriors[:, states] = mass / len(states)
        # a tenth for all: a probability of zero could never rise again
        posteriors[np.ix_(theirs, states)] = mass[theirs] * (0.9 * shares + 0.1 / len(states))
        parted = emission.m_step(emission.statistics(X, posteriors))
        if len(np.unique(parted.signature()[states], axis=0)) < len(states):
            continue
        joint = np.zeros_like(posteriors)
        parted.log_prob(X, joint)
        joint += np.log(np.maximum(posteriors.mean(axis=0), np.finfo(float).tiny))
        value = mass[:, 0] @ logsumexp(joint, axis=1)
        if value > largest:
            best, largest = (parted, posteriors), value
    return best


def _deal_out(emission, X, rows, states, random_state, way: str) -> list[np.ndarray]:
    """Ways (n_rows, len(states)) to deal rows out to states that have one emission.

    By clusters of the rows, and by how well the emission that they share explains them, which
    parts states that differ in their spread.  Codes have no clusters: there equal rows are dealt
    out alike, at random.
    """
    n_states = len(states)
    if rows is None:
        _, which = np.unique(X, axis=0, return_inverse=True)
        shares = random_state.gamma(2.0, size=(which.max() + 1, n_states))
        return [(shares / shares.sum(axis=1, keepdims=True))[which.reshape(-1)]]
    log_prob = np.zeros((len(X), len(emission.signature())))
    emission.log_prob(X, log_prob)
    ranks = np.argsort(np.argsort(-log_prob[:, states[0]], kind="stable")) / len(X)
    edges = np.arange(1, n_states) / n_states
    if way == "random":
        edges = np.sort(random_state.uniform(size=n_states - 1))
    by_rows = label_rows(rows, n_states, random_state, way=way)
    return [np.eye(n_states)[labels] for labels in (by_rows, np.digitize(ranks, edges))]


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
