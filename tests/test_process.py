"""What concerns the whole process: forks, threads, warnings, Ctrl-C, numbers of workers."""

import ast
import os
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info

import sklseq
import sklseq._em as em
from sklseq import _scratch, _sequences, _workers
from sklseq._notices import part_of_a_fit, warn

ROOT = Path(sklseq.__file__).parent


# ---- forks


def in_child(work) -> int:
    """Exit code of a forked child that does `work`; -14 where it hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork: the very case
        pid = os.fork()
    if not pid:
        signal.alarm(10)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def held_by_another_thread(enter):
    """A thread that is inside `enter` until the event is set."""
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with enter:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    return thread, leave


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_forked_while_another_thread_holds_a_lock_does_not_hang(rng):
    X = np.round(np.abs(rng.normal(size=(50, 2))))
    model = sklseq.PoissonHMM(2, max_iter=1, n_init=1, random_state=0)
    with pytest.warns(ConvergenceWarning):
        model.fit(X)
    expected = model.predict_proba(X)

    def use():
        with _sequences.limit_threads():
            assert np.array_equal(model.predict_proba(X), expected)

    for lock in (_scratch._lock, _sequences._one_thread.lock):
        thread, leave = held_by_another_thread(lock)
        try:
            assert in_child(use) == 0
        finally:
            leave.set()
            thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_has_its_threads_back_that_another_thread_had_limited():
    def threads():
        return [pool["num_threads"] for pool in threadpool_info()]

    def free():
        assert not _sequences._one_thread.inside
        assert threads() == before
        with _sequences.limit_threads():
            assert max(threads(), default=1) == 1
        assert threads() == before

    before = threads()
    thread, leave = held_by_another_thread(_sequences.limit_threads())
    try:
        assert in_child(free) == 0
    finally:
        leave.set()
        thread.join()
    with _sequences.limit_threads():  # the thread that forks is inside: so is the child
        assert in_child(lambda: 1 / sum(_sequences._one_thread.inside.values())) == 0
    assert threads() == before


# ---- warnings


def test_no_library_code_changes_the_filters_of_the_process():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "attr", None) or getattr(node, "id", None)
            assert name not in ("catch_warnings", "simplefilter", "filterwarnings"), path


def test_fits_in_threads_leave_the_process_its_warnings(rng):
    P, X = rng.poisson(1.0, (60, 4)), rng.normal(size=(60, 4))
    L = [rng.normal(size=(20, 2)) for _ in range(4)]
    hmm = sklseq.GaussianHMM(1, n_init=1, random_state=0)
    fits = {
        "softmax": lambda _: sklseq.SoftmaxStateSpace(max_iter=2).fit(P),
        "kalman": lambda _: sklseq.KalmanSmoother(max_iter=2).fit(X),
        "classifier": lambda _: sklseq.SequenceClassifier(hmm).fit(L, [0, 1, 0, 1]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        before = list(warnings.filters), warnings.showwarning
        for fit in fits.values():
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(fit, range(12)))
            assert (list(warnings.filters), warnings.showwarning) == before


def test_warnings_of_a_part_have_its_name_in_its_own_thread_only():
    seen = []

    def other():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn("told", UserWarning, stacklevel=1)
        seen.extend(str(one.message) for one in caught)

    with part_of_a_fit("Class a"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        other()
    other()
    assert seen == ["told", "Class a: told", "told"]


# ---- Ctrl-C and lost workers


def test_ctrl_c_ends_the_whole_fit_of_a_classifier(rng, monkeypatch):
    L = [rng.normal(size=(60, 2)) for _ in range(6)]
    hmm = sklseq.GaussianHMM(2, tol=0.0, max_iter=50, n_init=1, random_state=0)
    classifier = sklseq.SequenceClassifier(hmm)
    calls, e_step = [], em._e_step

    def pressing(model, piece):
        calls.append(1)
        if len(calls) == 60:  # in the second class
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        return e_step(model, piece)

    monkeypatch.setattr(em, "_e_step", pressing)
    with pytest.warns(ConvergenceWarning, match="Class 0: "), pytest.raises(KeyboardInterrupt):
        classifier.fit(L, [0, 1, 2] * 2)
    assert len(calls) == 60
    assert not hasattr(classifier, "estimators_")


def test_a_fit_whose_workers_are_all_lost_keeps_what_it_has_reached(rng, monkeypatch):
    X = [rng.normal(size=(200, 2)) for _ in range(4)]
    hmm = sklseq.GaussianHMM(2, tol=0.0, max_iter=9, n_init=1, random_state=0)
    maps = []

    def lose(self, function, models):
        maps.append(1)
        if len(maps) > 4:
            raise RuntimeError("the last one is gone")
        return [function(*one) for one in zip(models, self.pieces)]

    monkeypatch.setattr("sklseq.hmm._chain.SOURCE_SHARD_STEPS", 100)
    monkeypatch.setattr(_workers.Workers, "_map_remotely", lose)
    with joblib.parallel_config("loky", n_jobs=2):
        with pytest.warns(ConvergenceWarning, match="after 3 iterations.*the last one is gone"):
            hmm.fit(X)
        assert len(maps) == 4 + _workers.ATTEMPTS
        assert hmm.n_iter_ == 3
        assert not hmm.converged_
        fresh = sklseq.GaussianHMM(2, random_state=0)
        with pytest.raises(_workers.WorkersLost, match="3 times"):  # nothing to keep
            fresh.fit(X)
    assert not hasattr(fresh, "means_")


# ---- numbers of workers


TEXTS, LABELS = ["ab", "cd"] * 4, [0, 1] * 4
FITS = {
    "hmm": lambda n: sklseq.PoissonHMM(1, max_iter=1, n_jobs=n).fit(np.ones((9, 1))),
    "kalman": lambda n: sklseq.KalmanSmoother(max_iter=1, n_jobs=n).fit(np.eye(9, 1)),
    "softmax": lambda n: sklseq.SoftmaxStateSpace(max_iter=1, n_jobs=n).fit(np.eye(9, 3)),
    "topics": lambda n: sklseq.TopicMixture(2, max_iter=1, n_jobs=n).fit(np.ones((100, 3))),
    "classifier": lambda n: sklseq.CharRNNClassifier(hidden_size=4, max_iter=1, n_jobs=n).fit(
        TEXTS, LABELS
    ),
    "language": lambda n: sklseq.CharRNNLanguageModel(hidden_size=4, max_iter=1, n_jobs=n).fit(
        TEXTS
    ),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", FITS)
def test_numbers_of_workers_are_checked_in_fit_and_after_it(name):
    for wrong in (float("nan"), "2", 1.5, [1], np.nan):
        with pytest.raises(TypeError, match="n_jobs must be None or an integer"):
            FITS[name](wrong)
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        FITS[name](0)
    model = FITS[name](np.int8(1))
    model.set_params(n_jobs=float("nan"))
    method = model.predict if hasattr(model, "predict") else model.score_samples
    if name in ("classifier", "language", "topics"):
        with pytest.raises(TypeError, match="n_jobs must be None or an integer"):
            method(TEXTS if name != "topics" else np.ones((100, 3)))


# ---- values whose squares overflow


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("value", [1e308, 1e200])
def test_values_whose_squares_overflow_are_named_at_the_door(value, rng):
    X = rng.normal(size=(9, 2))
    kalman = sklseq.KalmanSmoother(2, max_iter=2)
    bad = X.copy()
    bad[4, 1] = value
    told = r"X is too large to be squared: 1e\+.* at row 4, column 1.*Divide the column"
    with pytest.raises(ValueError, match=told):
        kalman.fit(bad)
    kalman.fit(X)
    for method in (kalman.score, kalman.filter, kalman.smooth, kalman.aic, kalman.partial_fit):
        with pytest.raises(ValueError, match=told):
            method(bad)
    for what in ("inputs", "states"):
        beside = np.zeros((9, 2))
        beside[4, 1] = -value
        with pytest.raises(ValueError, match=f"{what} is too large to be squared: -1e"):
            sklseq.KalmanSmoother(2).fit(X, **{what: beside})
    counts = np.ones((9, 2))
    counts[4, 1] = value
    for make in (sklseq.SoftmaxStateSpace, sklseq.TopicMixture):
        with pytest.raises(ValueError, match=told):
            make(2, max_iter=2).fit(counts)
        model = make(2, max_iter=2).fit(np.ones((9, 2)))
        with pytest.raises(ValueError, match=told):
            model.score(counts)


# ---- draws of topics


@pytest.mark.parametrize("prior", [1e-100, 1e-3, 0.01, 0.3])
def test_topics_are_drawn_for_every_legal_prior(prior):
    model = sklseq.TopicMixture.from_parameters(
        topic_word=[[0.5, 0.5], [0.1, 0.9]], doc_topic_prior=prior
    )
    counts, topics = model.sample(4000, n_words=3, random_state=0)
    assert (counts.sum(axis=1) == 3).all()
    np.testing.assert_allclose(topics.sum(axis=1), 1.0)
    # Var(theta_k) = m (1 - m) / (K a + 1), m = 1 / K: five standard errors
    assert abs(topics[:, 0].mean() - 0.5) < 5 * 0.5 / np.sqrt(4000)
    expected = 0.25 / (2 * prior + 1)
    assert abs(topics[:, 0].var() - expected) < 5 * 0.25 / np.sqrt(4000)
