"""What a newcomer does in the first hour, and what the package says to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

import sklseq
from sklseq import (
    CategoricalHMM,
    GaussianHMM,
    KalmanSmoother,
    PoissonHMM,
    SoftmaxStateSpace,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
QUICK = {"max_iter": 2, "random_state": 0}
RNG = np.random.default_rng(0)
MODELS = [GaussianHMM, KalmanSmoother, PoissonHMM, CategoricalHMM, SoftmaxStateSpace]


# --- labels of steps as y -------------------------------------------------------------------------


@pytest.mark.parametrize("make", [GaussianHMM, KalmanSmoother, SoftmaxStateSpace])
def test_labels_of_steps_given_as_y_are_not_ignored_in_silence(make):
    X = RNG.integers(0, 3, size=(12, 2)).astype(float)
    parts = [X[:5], X[5:]]
    tags = np.array(["noun", "verb", "noun"] * 4)
    for data, y in (
        (X, tags), (X, tags.tolist()), (X, np.arange(12) % 3),
        (parts, tags), (parts, [tags[:5], tags[5:]]), (parts, [tags[:5].tolist(), [1] * 7]),
    ):  # fmt: skip
        with pytest.warns(UserWarning, match=f"{make.__name__} learns from X alone"):
            make(1, **QUICK).fit(data, y)
    for data, y in ((X, None), (X, X[:, 0] + 0.5), (X, X), (parts, ["a", "b"]), (parts, "ab")):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            warnings.filterwarnings("ignore", ".*(converge|floor|particles|start).*")
            make(1, **QUICK).fit(data, y)


# --- columns that are no numbers ------------------------------------------------------------------


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_text_and_dates_in_frames_are_named(make, library):
    frames = pytest.importorskip(library)
    numbers, dates = [1, 0, 2], np.array(["2024-01-01"] * 3, dtype="datetime64[us]")
    for values, message in (
        (["a", "b", "c"], r"could not convert string to float: 'a', in column 'other'"),
        (dates, r"column 'other'.* holds (datetime64|Datetime)"),
    ):
        frame = frames.DataFrame({"x": numbers, "other": values})
        with pytest.raises(ValueError, match=message):
            make(1, **QUICK).fit(frame)
        good = frames.DataFrame({"x": numbers, "other": numbers})
        with pytest.raises(ValueError, match=r"'other' in sequence 1 of X"):
            make(1, **QUICK).fit([good, frame])


# --- names of columns -----------------------------------------------------------------------------


def named_frames():
    pandas = pytest.importorskip("pandas")
    return [pandas.DataFrame(RNG.normal(size=(n, 2)), columns=["x", "y"]) for n in (9, 4, 6)]


def updates(model, rows):
    state = None
    for row in rows:
        if isinstance(model, KalmanSmoother):
            state = model.filter_update(*(state or (None, None)), row)
        else:
            state = model.filter_update(state, row)
    return state[0] if isinstance(model, KalmanSmoother) else state


@pytest.mark.parametrize("make", [GaussianHMM, KalmanSmoother])
def test_updates_of_a_model_of_a_frame_are_quiet(make):
    frame = named_frames()[0]
    model = make(2, **QUICK).fit(frame)
    expected = model.filter(frame)
    expected = expected[0][-1] if make is KalmanSmoother else expected[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rows in (
            frame.to_numpy(),
            frame.to_numpy().tolist(),
            [frame.iloc[i] for i in range(len(frame))],
            [frame.iloc[i : i + 1] for i in range(len(frame))],
        ):
            np.testing.assert_allclose(updates(model, rows), expected, atol=1e-9)
    with pytest.raises(ValueError, match=r"names of the fit, \['x', 'y'\], got \['y', 'x'\]"):
        updates(model, [frame[["y", "x"]].iloc[0]])
    with pytest.raises(ValueError, match="3 features"):
        updates(model, [[1.0, 2.0, 3.0]])


@pytest.mark.parametrize("fitted_on", ["frames", "arrays"])
def test_a_collection_warns_of_names_once_at_most(fitted_on):
    frames = named_frames()
    arrays = [frame.to_numpy() for frame in frames]
    one, other = (frames, arrays) if fitted_on == "frames" else (arrays, frames)
    for model in (GaussianHMM(2, **QUICK), KalmanSmoother(1, **QUICK)):
        model.fit(one)
        for X, most in ((one, 0), (other, 1)):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model.predict(X)
            assert len([w for w in caught if "feature names" in str(w.message)]) <= most


# --- a clone, and Ctrl-C --------------------------------------------------------------------------


def test_a_clone_that_is_not_compiled_says_what_to_do(tmp_path):
    """Its folder stands first on the path of whoever runs Python there."""
    shutil.copytree(
        Path(sklseq.__file__).parent, tmp_path / "sklseq",
        ignore=shutil.ignore_patterns("*.so", "*.pyd", "*.c", "*.cpp", "*.pyc"),
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "import sklseq"], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: The kernels of sklseq are not compiled in")
    assert str(tmp_path) in last and "setup.py build_ext --inplace" in last


def test_ctrl_c_reaches_the_tests_wherever_they_run():
    """conftest.py has put its handler back, which nohup and cron take away."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- arrays with the axes of others ---------------------------------------------------------------


@pytest.mark.parametrize("make", [GaussianHMM, KalmanSmoother])
def test_channels_before_time_are_told(make):
    cases = RNG.normal(size=(4, 2, 30))  # (case, channel, time)
    with pytest.warns(UserWarning, match=r"2 steps with 30 features.*np\.swapaxes"):
        make(1, **QUICK).fit(cases)
    model = make(1, **QUICK).fit(np.swapaxes(cases, 1, 2))
    with pytest.raises(ValueError, match=r"expecting 2 features as input.*np\.swapaxes"):
        model.predict(cases)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", ".*(converge|floor|parameters).*")
        make(1, **QUICK).fit(RNG.normal(size=(9, 5, 10)))


def test_odd_collections_are_refused_in_words():
    """Arrays of no sequences, which have no -1 in reshape."""
    stepwise = sklseq.Stepwise(StandardScaler()).fit(np.ones((2, 3, 2)))
    with pytest.raises(ValueError, match=r"sequence|sample"):
        stepwise.transform(np.empty((0, 3, 2)))
    with pytest.raises(ValueError, match=r"sequence|sample|feature"):
        stepwise.transform(np.empty((3, 2, 0)))
