"""Every estimator with ``n_jobs``: the same bits for every number of threads."""

import inspect
import threading
import warnings

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info

import sklseq
import sklseq._sequences as door
from sklseq._em import _e_step
from sklseq._sequences import Sequences, iterate_pieces, limit_threads, run_calls
from sklseq._workers import Workers
from sklseq.topics import TopicMixture


def estimators():
    """The public classes with the parameter."""
    classes = [getattr(sklseq, name) for name in sklseq.__all__] + [TopicMixture]
    return sorted(
        {
            one
            for one in classes
            if inspect.isclass(one)
            and issubclass(one, BaseEstimator)
            and "n_jobs" in inspect.signature(one).parameters
        },
        key=lambda one: one.__name__,
    )


ESTIMATORS = estimators()


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(door, "SHARD_STEPS", 100)
    monkeypatch.setattr("sklseq.hmm._chain.SOURCE_SHARD_STEPS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def data_for(make, rng):
    """(X, y)"""
    if "CharRNN" in make.__name__:
        texts = ["".join(rng.choice(list("abcd"), size=n)) for n in rng.integers(2, 12, size=90)]
        return texts, [len(text) % 2 for text in texts] if "Classifier" in make.__name__ else None
    if make is TopicMixture:
        return rng.poisson(0.8, size=(70, 12)), None
    level = np.where(np.arange(60)[:, None] // 10 % 2, 0.75, 0.25)
    return [rng.binomial(4, level, size=(60, 2)).astype(float) for _ in range(15)], None


def everything(make, X, y, n_jobs):
    """What a fit and the methods after it say, with so many threads."""
    model = make(n_jobs=n_jobs, random_state=0)
    model.set_params(max_iter=3, **{"hidden_size": 8} if "CharRNN" in make.__name__ else {})
    model.fit(X, y)
    results = []

    def collect():
        results.extend(getattr(model, name, None) for name in (
            "objectives_", "loss_curve_", "lower_bounds_", "transmat_", "transition_matrix_",
        ))  # fmt: skip
        results.append(model.score(X) if y is None else model.score(X, y))
        for name in ("predict", "transform", "predict_proba", "score_samples", "decode"):
            if hasattr(model, name):
                results.append(getattr(model, name)(X))

    collect()
    if hasattr(model, "partial_fit"):
        model.partial_fit(X) if y is None else model.partial_fit(X, y)
        collect()
    return results


def assert_same_bits(actual, expected):
    ragged = isinstance(expected, np.ndarray) and expected.dtype.kind == "O"
    if ragged or isinstance(expected, tuple | list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected):
            assert_same_bits(one, other)
    else:
        np.testing.assert_array_equal(actual, expected)


def test_the_estimators_are_found():
    assert len(ESTIMATORS) == 10


@pytest.mark.parametrize("make", ESTIMATORS, ids=lambda make: make.__name__)
def test_n_jobs_changes_no_bit(make, rng):
    X, y = data_for(make, rng)
    serial = everything(make, X, y, None)
    for n_jobs in (1, 2, 3, -1):
        assert_same_bits(everything(make, X, y, n_jobs), serial)


def test_more_data_make_larger_pieces_and_not_more(monkeypatch, rng):
    """A piece of several shards is added up shard by shard, here and at a worker."""
    monkeypatch.setattr(door, "MOST_PIECES", 4)
    X = rng.normal(size=(3000, 1))
    sequences = Sequences(X, np.arange(0, 3001, 50))
    pieces = list(iterate_pieces(sequences))
    assert len(pieces) <= 5
    np.testing.assert_array_equal(np.concatenate([piece.X for piece in pieces]), X)
    model = sklseq.GaussianHMM(2, random_state=0, max_iter=1).fit([X])._learning_model()
    with Workers(sequences) as workers:
        parts = workers.map(_e_step, [model] * len(pieces))
    total = sum(part[1] for part in parts)
    whole = model.e_step(sequences.X, sequences.offsets)[1]
    assert total == pytest.approx(whole, rel=1e-12)


def test_the_blas_limit_ends_with_the_last_who_is_inside():
    """Two threads, as of a search: the first to leave must not end the limit of the other."""

    def n_threads():
        return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]

    before = n_threads()
    inside, leave = threading.Event(), threading.Event()

    def other():
        with limit_threads():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    with limit_threads():
        assert set(n_threads()) == {1}
    assert set(n_threads()) == {1}
    leave.set()
    thread.join()
    assert n_threads() == before


def test_a_call_that_fails_keeps_others_from_beginning():
    begun = []

    def work(i):
        begun.append(i)
        if i == 0:
            raise ZeroDivisionError
        threading.Event().wait(0.05)

    with pytest.raises(ZeroDivisionError):
        run_calls(work, [(i,) for i in range(40)], 2)
    assert len(begun) < 20
