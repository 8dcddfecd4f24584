"""The one list of the package's estimators: each with cheap settings and data it can learn from.

Tests that run over every class take it from here; ``tests/house/test_registry.py`` holds it against
``sklseq.__all__``, so a public class without an entry fails the suite.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.preprocessing import StandardScaler

import sklseq


@dataclass(frozen=True)
class Entry:
    """One way to use a public class.

    Attributes
    ----------
    name : str
        Label in test ids and golden results.
    make : callable () -> estimator
        Unfitted, with cheap settings and a fixed seed.
    data : callable () -> (X, y)
        A collection of ragged sequences (texts for text models), y None where none is taken.
    flat : callable () -> X, or None
        One sequence, rows are steps.
    beside : dict
        Arguments that ``fit`` and inference take beside X (``states`` for HMMs).
    """

    name: str
    make: object
    data: object
    flat: object = None
    beside: dict = field(default_factory=dict)


LENGTHS = (37, 1, 60, 24)


def levels(rng, n):
    """Two regimes in turn."""
    return np.where(np.arange(n) // 9 % 2, 3.0, 0.0)


def vectors(missing=False):
    rng = np.random.default_rng(1)
    X = [
        levels(rng, n)[:, None] * [1.0, -0.5, 0.2] + rng.normal(size=(n, 3))
        for n in LENGTHS
    ]
    if missing:
        for one in X:
            one[rng.uniform(size=one.shape) < 0.1] = np.nan
    return X


def counts(n_columns=3):
    rng = np.random.default_rng(2)
    rates = np.linspace(0.5, 2.0, n_columns)
    return [rng.poisson((1.0 + levels(rng, n))[:, None] * rates).astype(float) for n in LENGTHS]


def codes():
    rng = np.random.default_rng(3)
    return [rng.binomial(4, 0.2 + 0.2 * levels(rng, n))[:, None] for n in LENGTHS]


def texts(n=24):
    rng = np.random.default_rng(4)
    return ["".join(rng.choice(list("abcde"), size=k)) for k in rng.integers(2, 12, size=n)]


def labels(n):
    return np.array(["odd", "even"])[np.arange(n) % 2]


def _gaussian(**params):
    return lambda: sklseq.GaussianHMM(3, max_iter=6, n_init=2, random_state=0, **params)


def _kalman(**params):
    return lambda: sklseq.KalmanSmoother(2, max_iter=6, random_state=0, **params)


def _network(make, **params):
    return lambda: make(hidden_size=8, max_iter=2, random_state=0, **params)


def _of(sequences):
    return lambda: (sequences, None)


def _entries():
    dense, gaps = vectors(), vectors(missing=True)
    yield from (
        Entry(f"GaussianHMM-{kind}", _gaussian(covariance_type=kind), _of(gaps), lambda: gaps[2])
        for kind in ("diag", "full", "tied", "spherical")
    )
    yield Entry(
        "GaussianHMM-stationary", _gaussian(initial_state="stationary"), _of(dense),
        lambda: dense[0],
    )  # fmt: skip
    yield Entry(
        "GaussianHMM-many", lambda: sklseq.GaussianHMM(20, max_iter=3, n_init=1, random_state=0),
        _of(dense), lambda: dense[2],
    )  # fmt: skip
    for kind in ("diag", "full"):
        yield Entry(
            f"GaussianMixtureHMM-{kind}",
            lambda kind=kind: sklseq.GaussianMixtureHMM(
                2, max_iter=5, n_init=1, random_state=0, covariance_type=kind
            ),
            _of(gaps), lambda: gaps[2],
        )  # fmt: skip
    for make, sequences in (
        (sklseq.CategoricalHMM, codes()), (sklseq.PoissonHMM, counts()),
        (sklseq.MultinomialHMM, counts(4)),
    ):  # fmt: skip
        yield Entry(
            make.__name__,
            lambda make=make: make(3, max_iter=6, n_init=2, random_state=0),
            _of(sequences), lambda sequences=sequences: sequences[2],
        )  # fmt: skip
    yield Entry("KalmanSmoother-diag", _kalman(), _of(gaps), lambda: gaps[2])
    yield Entry(
        "KalmanSmoother-full", _kalman(observation_covariance_type="full"), _of(dense),
        lambda: dense[2],
    )  # fmt: skip
    yield Entry(
        "KalmanSmoother-stationary", _kalman(initial_state="stationary"), _of(dense),
        lambda: dense[0],
    )  # fmt: skip
    yield Entry(
        "SoftmaxStateSpace",
        lambda: sklseq.SoftmaxStateSpace(2, max_iter=3, n_particles=40, random_state=0),
        _of(counts(5)), lambda: counts(5)[0],
    )  # fmt: skip
    yield Entry(
        "TopicMixture", lambda: sklseq.TopicMixture(3, max_iter=4, random_state=0),
        lambda: (np.concatenate(counts(8)), None),
    )  # fmt: skip
    yield Entry(
        "CharRNNLanguageModel", _network(sklseq.CharRNNLanguageModel), lambda: (texts(), None)
    )
    for cell in ("rnn", "gru", "lstm"):
        yield Entry(
            f"CharRNNClassifier-{cell}", _network(sklseq.CharRNNClassifier, cell=cell),
            lambda: (texts(), labels(24)),
        )  # fmt: skip
    yield Entry(
        "SequenceClassifier",
        lambda: sklseq.SequenceClassifier(
            sklseq.GaussianHMM(2, max_iter=4, n_init=1, random_state=0)
        ),
        lambda: ([one for one in dense for _ in range(2)], labels(2 * len(dense))),
    )
    yield Entry("Stepwise", lambda: sklseq.Stepwise(StandardScaler()), _of(dense), lambda: dense[0])


ENTRIES = list(_entries())


def public_estimators() -> dict:
    """name -> class of every estimator in ``sklseq.__all__``."""
    found = {name: getattr(sklseq, name) for name in sklseq.__all__}
    return {
        name: item
        for name, item in found.items()
        if inspect.isclass(item) and issubclass(item, BaseEstimator)
    }
