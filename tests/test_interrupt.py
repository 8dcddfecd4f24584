"""Long fits can be watched, stopped by Ctrl-C (a real signal), and gone on with."""

import os
import re
import signal
import threading
import time

import joblib
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import sklseq._em as em
import sklseq._sequences as door
from sklseq import (
    CharRNNClassifier,
    CharRNNLanguageModel,
    GaussianHMM,
    KalmanSmoother,
    SoftmaxStateSpace,
)
from sklseq.rnn import _trainer as trainer
from sklseq.topics import TopicMixture


def series(rng):
    return [rng.normal(size=(300, 2)) + (np.arange(300)[:, None] // 30 % 2) for _ in range(8)]


def words(rng):
    return [np.eye(4)[rng.integers(0, 4, 300)] for _ in range(8)]


EM = {
    "hmm": (lambda **p: GaussianHMM(3, random_state=0, n_init=1, tol=0.0, **p), series),
    "kalman": (lambda **p: KalmanSmoother(2, tol=0.0, acceleration=None, **p), series),
    "squarem": (lambda **p: KalmanSmoother(2, tol=0.0, **p), series),
    "softmax": (lambda **p: SoftmaxStateSpace(1, random_state=0, tol=0.0, **p), words),
}


@pytest.fixture(params=EM)
def case(request, rng):
    make, data = EM[request.param]
    return make, data(rng)


@pytest.fixture
def press_in_e_step(monkeypatch):
    """Ctrl-C in the middle of the n-th E-step of a fit."""

    def arrange(n):
        count = [0]

        def pressing(model, piece):
            count[0] += 1
            if count[0] == n:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)  # here it arrives, or at the main thread that waits
            return e_step(model, piece)

        e_step = em._e_step
        monkeypatch.setattr(em, "_e_step", pressing)

    return arrange


def parameters(model):
    return {
        name: value
        for name, value in vars(model).items()
        if name.endswith("_") and isinstance(value, np.ndarray) and "s_" not in name[-9:]
    }


def test_ctrl_c_leaves_a_fitted_estimator_that_can_go_on(case, press_in_e_step):
    make, X = case
    whole = 6
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        reference = make(max_iter=whole).fit(X)
    press_in_e_step(5)
    model = make(max_iter=whole, warm_start=True)
    with pytest.warns(ConvergenceWarning, match=r"interrupted after \d iterations") as record:
        assert model.fit(X) is model
    assert record[0].filename == __file__  # it points at the call of fit
    assert not model.converged_
    assert 2 <= model.n_iter_ <= 3  # a leap that is not taken is an E-step and no iteration
    history = model.objectives_
    np.testing.assert_array_equal(history, reference.objectives_[: model.n_iter_ + 1])
    assert np.isfinite(model.score(X))
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        model.set_params(max_iter=2).fit(X)
    assert model.objectives_[0] == pytest.approx(history[-1], rel=1e-6)  # from where it was
    assert model.objectives_[-1] > history[-1]


def test_ctrl_c_with_threads_at_work(press_in_e_step, monkeypatch, rng):
    monkeypatch.setattr(door, "SHARD_STEPS", 300)
    monkeypatch.setattr("sklseq.hmm._chain.SOURCE_SHARD_STEPS", 300)
    press_in_e_step(8 * 4 + 3)  # in the fifth E-step, of eight shards
    model = GaussianHMM(3, random_state=0, n_init=1, tol=0.0, n_jobs=2)
    with pytest.warns(ConvergenceWarning, match="interrupted after 3 iterations"):
        model.fit(series(rng))
    assert model.n_iter_ == 3 and not model.converged_
    assert not [t for t in threading.enumerate() if "ThreadPool" in t.name]


def test_ctrl_c_with_processes_at_work(press_in_e_step, monkeypatch, rng):
    """The signal comes to the waiting parent."""
    monkeypatch.setattr(door, "SHARD_STEPS", 300)
    monkeypatch.setattr("sklseq.hmm._chain.SOURCE_SHARD_STEPS", 300)
    record = em._Run.record

    def pressing(run, *reached):
        record(run, *reached)
        if run.n_iter == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(em._Run, "record", pressing)
    model = GaussianHMM(3, random_state=0, n_init=1, tol=0.0)
    warning = pytest.warns(ConvergenceWarning, match="interrupted after 2 iterations")
    with joblib.parallel_config("loky", n_jobs=2), warning:
        model.fit(series(rng))
    assert model.n_iter_ == 2 and not model.converged_


def test_ctrl_c_among_several_starts_keeps_the_best(press_in_e_step, rng):
    press_in_e_step(11 + 5)  # in the second start
    model = GaussianHMM(3, random_state=0, n_init=3, tol=0.0)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        model.fit(series(rng))
    assert not model.converged_


@pytest.mark.parametrize("fitted", [False, True])
def test_ctrl_c_before_there_is_anything_to_keep_changes_nothing(case, press_in_e_step, fitted):
    make, X = case
    model = make(max_iter=1)
    if fitted:
        with pytest.warns(ConvergenceWarning):
            model.fit(X[:4])
    before = dict(vars(model))
    press_in_e_step(1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert vars(model) == before


def test_ctrl_c_in_a_chunk_takes_it_back(press_in_e_step, rng):
    X = series(rng)
    model = GaussianHMM(2, random_state=0).partial_fit(X[:4])
    before = dict(vars(model))
    press_in_e_step(1)
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(X[4:])
    assert vars(model) == before


def test_ctrl_c_once_a_run_has_converged_is_still_no_convergence(monkeypatch, rng):
    """All iterations of the only start may be done when it comes."""
    advance = em._Run.advance

    def pressing(run, *limits):
        advance(run, *limits)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(em._Run, "advance", pressing)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        model = GaussianHMM(1, random_state=0).fit(series(rng))
    assert not model.converged_


# --- The others that iterate --------------------------------------------------------------------


TEXTS = ["abcabcabc", "cbacba", "aabbcc", "bca"] * 20


@pytest.fixture
def press_in_epoch(monkeypatch):
    """Ctrl-C after some updates of the n-th epoch."""

    def arrange(n):
        epochs, updates = [0], [0]

        def counting(*arguments):
            epochs[0] += 1
            updates[0] = 0
            return run_epoch(*arguments)

        def pressing(optimiser, *arguments):
            update(optimiser, *arguments)
            updates[0] += 1
            if epochs[0] == n and updates[0] == 2:
                signal.raise_signal(signal.SIGINT)

        run_epoch, update = trainer.run_epoch, trainer.Optimiser.update
        monkeypatch.setattr(trainer, "run_epoch", counting)
        monkeypatch.setattr(trainer.Optimiser, "update", pressing)

    return arrange


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("make", [CharRNNLanguageModel, CharRNNClassifier])
def test_ctrl_c_in_a_character_network(make, early_stopping, n_jobs, press_in_epoch):
    y = None if make is CharRNNLanguageModel else [len(text) for text in TEXTS]
    model = make(
        hidden_size=8, max_iter=6, batch_size=8, random_state=0, warm_start=True, n_jobs=n_jobs,
        early_stopping=early_stopping,
    )  # fmt: skip
    press_in_epoch(3)
    with pytest.warns(ConvergenceWarning, match="interrupted after 2 epochs"):
        model.fit(TEXTS, y)
    assert not model.converged_
    assert model.n_iter_ == len(model.loss_curve_) == 2
    before = model.score(TEXTS, y)
    assert np.isfinite(before)
    model.set_params(early_stopping=False)
    press_in_epoch(0)
    model.fit(TEXTS, y)
    assert model.loss_curve_[0] < 1.1 * np.log(10) and model.score(TEXTS, y) >= before - 0.05


def test_ctrl_c_in_a_topic_mixture(monkeypatch, rng):
    from sklearn.decomposition import LatentDirichletAllocation

    calls = [0]
    partial_fit = LatentDirichletAllocation.partial_fit

    def pressing(lda, X):
        calls[0] += 1
        if calls[0] == 4:
            if hasattr(lda, "components_"):
                lda.components_ *= np.nan  # half way through a pass
            signal.raise_signal(signal.SIGINT)
        return partial_fit(lda, X)

    monkeypatch.setattr(LatentDirichletAllocation, "partial_fit", pressing)
    X = rng.poisson(1.0, size=(30, 8))
    model = TopicMixture(2, random_state=0, tol=0.0)
    with pytest.warns(ConvergenceWarning, match="interrupted after 3 passes"):
        model.fit(X)
    assert not model.converged_ and model.n_iter_ == 3
    assert np.isfinite(model.score(X))
    calls[0] = 3
    before = dict(vars(model))
    with pytest.raises(KeyboardInterrupt):  # in its first pass: nothing to keep
        model.fit(X)
    assert vars(model) == before


# --- The line -------------------------------------------------------------------------------------


def seconds(line, label):
    return float(re.search(rf"{label} ([\d.e+-]+) s", line)[1])


def test_progress_has_rate_elapsed_time_and_a_guess_of_the_rest(case, capsys):
    make, X = case
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        make(max_iter=4, verbose=2).fit(X)
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert re.search(r"stopped after 4 iterations.*[\d.e+-]+ steps/s", last)
    for line in lines:
        assert seconds(line, "elapsed") > 0
    assert all(seconds(line, "about") > 0 for line in lines[:-1])
    elapsed = [seconds(line, "elapsed") for line in lines]
    assert elapsed == sorted(elapsed)


def test_the_guess_follows_the_gains(rng):
    """Gains that halve: 10 more halvings from 2^-3 to below 2^-12.5."""

    class Reached:
        objectives = tuple(np.cumsum([-10.0, 1.0, 0.5, 0.25, 0.125]))

    class Run:
        converged, n_iter, reached = False, 4, Reached

    assert em._iterations_left(Run, 200, 2.0**-12.5) == 10
    assert em._iterations_left(Run, 9, 2.0**-12.5) == 5  # max_iter comes first
    assert em._iterations_left(Run, 200, 0.0) == 196
    Run.converged = True
    assert em._iterations_left(Run, 200, 1e-6) == 0


def test_progress_counts_the_starts_that_are_to_come(capsys, rng):
    model = GaussianHMM(3, random_state=0, n_init=3, max_iter=12, verbose=2, tol=0.0)
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        model.fit(series(rng))
    lines = capsys.readouterr().out.splitlines()
    starts = [line for line in lines if "start" in line]
    assert [f"start {i} of 3" in line for i, line in enumerate(starts, 1)] == [True] * 3
    assert "to go" in lines[0]
    assert "start" not in lines[-1]


def test_progress_of_the_others(capsys, rng):
    CharRNNLanguageModel(hidden_size=4, max_iter=2, verbose=True, random_state=0).fit(TEXTS)
    TopicMixture(2, random_state=0, verbose=1, max_iter=10).fit(rng.poisson(1.0, size=(30, 8)))
    for line in capsys.readouterr().out.splitlines():
        assert re.match(r"\[\w+\] (converged|stopped) after \d+ (epochs|passes): ", line)
        assert re.search(r"nats per word|loss", line) and re.search(r"elapsed .* s, .*/s$", line)
