"""E-steps on workers of dask.distributed and Ray: the same bits, data sent once, no fit lost."""

import os
import signal
import threading
import time
import warnings
from functools import partial

import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

import sklseq._em as em
import sklseq._sequences as door
import sklseq._workers as staff
from sklseq import GaussianHMM, KalmanSmoother, SoftmaxStateSpace
from sklseq._sequences import Sequences
from sklseq._workers import Workers

N_PIECES = 6


@pytest.fixture(scope="module")
def dask_client():
    distributed = pytest.importorskip("distributed", reason="needs dask[distributed]")
    with distributed.LocalCluster(
        # two threads each: with one core left joblib would work here, see the test of that
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None
    ) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def ray_session():
    ray = pytest.importorskip("ray", reason="needs ray")
    from ray.util.joblib import register_ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    register_ray()
    yield ray
    ray.shutdown()


@pytest.fixture(params=["dask", "ray"])
def backend(request):
    """A function: the configuration holds from where it is made."""
    engine = request.getfixturevalue({"dask": "dask_client", "ray": "ray_session"}[request.param])
    if request.param == "dask":
        engine.wait_for_workers(2)  # one may have been killed by the last test
    return partial(joblib.parallel_config, request.param, n_jobs=2)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """So that little data makes several pieces, and several pieces a task."""
    monkeypatch.setattr(door, "SHARD_STEPS", 500)
    monkeypatch.setattr("sklseq.hmm._chain.SOURCE_SHARD_STEPS", 500)
    monkeypatch.setattr(staff, "TASKS_PER_CORE", 1)


def lively(rng, n_features=2):
    """Sequences that switch between two regimes, one to a piece."""
    level = (np.arange(500)[:, None] // 50 % 2) * 3.0
    return [level + rng.normal(size=(500, n_features)) for _ in range(N_PIECES)]


def words(rng):
    return [
        sparse.csr_array(np.eye(4)[rng.integers(0, 4, 500) // (1 + (i % 2))])
        for i in range(N_PIECES)
    ]


CASES = {
    "hmm": (lambda: GaussianHMM(2, n_init=2, random_state=0, max_iter=6, tol=0.0), lively),
    "kalman": (lambda: KalmanSmoother(2, max_iter=6), lively),
    "softmax": (lambda: SoftmaxStateSpace(1, max_iter=6, random_state=0), words),
}


@pytest.fixture(params=CASES)
def case(request, rng):
    make, data = CASES[request.param]
    return make, data(rng)


def quietly(model, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X)


def fitted(model):
    """Everything numeric that a fit leaves."""
    return {
        name: value
        for name, value in vars(model).items()
        if name.endswith("_") and isinstance(value, np.ndarray | float | int | bool)
    }


def assert_same_bits(actual, expected):
    actual, expected = fitted(actual), fitted(expected)
    assert actual.keys() == expected.keys() and len(actual) > 5
    for name in expected:
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)


def work(kind):
    """A function that workers get by value: they cannot import this file."""

    def process_id(model, piece):
        return os.getpid()

    def slow_sum(model, piece):
        time.sleep(0.3)
        return model * piece.X.sum()

    def divide(model, piece):
        return 1 // model

    return {"process_id": process_id, "slow_sum": slow_sum, "divide": divide}[kind]


def test_a_fit_has_the_bits_of_a_serial_fit_also_when_a_worker_is_killed(
    backend, case, request, monkeypatch
):
    """And the data are pickled once for each piece, not once an iteration."""
    make, X = case
    here = quietly(make(), X)
    in_store = "ray" in request.node.name  # Ray's, which outlives the workers
    kills = not in_store or isinstance(here, GaussianHMM)  # a new pool takes Ray seconds
    pickled, killed, before = [], [], []

    def count(sequences):
        pickled.append(sequences.n_steps)
        return tuple(sequences)

    def killing(run, model):
        """After the second iteration at the earliest."""
        if kills and not killed and run.n_iter >= 2:
            before.extend(pickled)
            killed.append(run.workers.map(work("process_id"), [None] * N_PIECES)[0])
            threading.Thread(target=_kill_soon, args=killed).start()
            time.sleep(0.3)
        return step(run, model)

    step = em._Run._step
    monkeypatch.setattr(em._Run, "_step", killing)
    monkeypatch.setattr(Sequences, "__getnewargs__", count)
    with backend():
        there = quietly(make(), X)
    assert_same_bits(there, here)
    assert there.n_iter_ > 3
    if kills:
        assert killed and killed[0] != os.getpid()
        assert before == [500] * N_PIECES
    assert len(pickled) == N_PIECES if in_store else N_PIECES < len(pickled) < 2 * N_PIECES


def test_scores_have_the_same_bits(dask_client, case):
    make, X = case
    model = quietly(make(), X)
    here = model.score(X)
    with joblib.parallel_config("dask"):
        assert model.score(X) == here


def test_a_worker_killed_during_an_e_step_is_replaced(dask_client, rng):
    """The piece that it held is sent again, the E-step made again."""
    X = np.concatenate(lively(rng))
    sequences = Sequences(X, np.arange(0, len(X) + 1, 500))
    dask_client.wait_for_workers(2)
    with joblib.parallel_config("dask"), Workers(sequences) as workers:
        pids = workers.map(work("process_id"), [None] * N_PIECES)
        assert len(set(pids)) == 2 and os.getpid() not in pids
        threading.Thread(target=_kill_soon, args=(pids[0],)).start()
        sums = workers.map(work("slow_sum"), [2.0] * N_PIECES)
        again = workers.map(work("process_id"), [None] * N_PIECES)
    assert pids[0] not in again
    expected = [2.0 * piece.X.sum() for piece in workers.pieces]
    assert sums == expected


def test_with_one_core_left_the_work_is_done_here(dask_client, rng, monkeypatch):
    """Joblib would; the data need not go anywhere then."""
    X = np.concatenate(lively(rng))
    sequences = Sequences(X, np.arange(0, len(X) + 1, 500))
    with joblib.parallel_config("dask"), Workers(sequences) as workers:
        there = workers.map(work("slow_sum"), [2.0] * N_PIECES)
        monkeypatch.setattr(type(dask_client), "ncores", lambda self: {"the last one": 1})
        assert set(workers.map(work("process_id"), [None] * N_PIECES)) == {os.getpid()}
        assert workers.map(work("slow_sum"), [2.0] * N_PIECES) == there
        monkeypatch.undo()
        assert os.getpid() not in workers.map(work("process_id"), [None] * N_PIECES)


def test_an_error_of_the_model_is_raised_as_it_is(dask_client, rng):
    X = np.concatenate(lively(rng))
    sequences = Sequences(X, np.arange(0, len(X) + 1, 500))
    refused = pytest.raises(ZeroDivisionError)
    with joblib.parallel_config("dask"), Workers(sequences) as workers, refused:
        workers.map(work("divide"), [1, 0, 1, 1, 1, 1])


def test_grid_search_over_dask_on_a_list_of_sequences(dask_client, rng):
    X = [sequence[:60] for sequence in lively(rng)]
    grid = {"n_components": [1, 2]}
    here = GridSearchCV(GaussianHMM(random_state=0, n_init=1), grid, cv=3).fit(X)
    with joblib.parallel_config("dask"):
        there = GridSearchCV(GaussianHMM(random_state=0, n_init=1), grid, cv=3).fit(X)
    np.testing.assert_array_equal(
        there.cv_results_["mean_test_score"], here.cv_results_["mean_test_score"]
    )
    assert there.best_params_ == {"n_components": 2}
    assert_same_bits(there.best_estimator_, here.best_estimator_)


def _kill_soon(pid):
    time.sleep(0.1)
    assert pid != os.getpid()
    os.kill(pid, signal.SIGKILL)
