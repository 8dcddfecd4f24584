"""Displays: what is drawn is what the model says; wrong use is told in words."""

import builtins
import inspect

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

import sklseq.inspection as inspection
from sklseq import GaussianHMM, KalmanSmoother, PoissonHMM
from sklseq.datasets import load_earthquakes, load_nile
from sklseq.inspection import (
    ConvergenceDisplay,
    SmootherDisplay,
    StatePathDisplay,
    TextProbabilityDisplay,
    TransitionDisplay,
)

matplotlib = pytest.importorskip("matplotlib", reason="displays draw with matplotlib")
matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(scope="module")
def earthquakes():
    return load_earthquakes().data


@pytest.fixture(scope="module")
def poisson(earthquakes):
    return PoissonHMM(n_components=3, random_state=0).fit(earthquakes)


class Fake(BaseEstimator):
    """Known answers in the place of a model."""

    def fit(self, X, y=None):
        return self


class Walk(Fake):
    """A smoother: s_t = t with variance 4, two columns x_t = (s_t, -2 s_t)."""

    def __init__(self):
        self.observation_matrix_ = np.array([[1.0], [-2.0]])
        self.observation_covariance_ = np.eye(2)

    def smooth(self, X):
        n_steps = len(X)
        return np.arange(n_steps, dtype=float)[:, None], np.full((n_steps, 1, 1), 4.0), None

    def inverse_transform(self, states):
        return states @ self.observation_matrix_.T

    def forecast(self, X, n_steps):
        from collections import namedtuple

        covariances = np.zeros((n_steps, 2, 2))
        covariances[:, 0, 0], covariances[:, 1, 1] = 9.0, 16.0
        return namedtuple("Forecast", "means covariances")(np.ones((n_steps, 2)), covariances)


class Letters(Fake):
    """A language model for which every character has probability 1/2, the end of text 1/4."""

    def __init__(self):
        self.vocabulary_ = "ab"

    def char_log_proba(self, texts):
        return [np.log(np.append(np.full(len(text), 0.5), 0.25)) for text in texts]


def test_every_display_has_the_shape_of_scikit_learn():
    for name in inspection.__all__:
        display = getattr(inspection, name)
        assert name.endswith("Display")
        for method in ("from_estimator", "from_predictions"):
            function = inspect.getattr_static(display, method)
            assert isinstance(function, classmethod), (name, method)
            assert "ax" in inspect.signature(getattr(display, method)).parameters
        assert inspect.signature(display.plot).parameters["ax"].default is None


# ---- StatePathDisplay


def test_points_are_split_by_the_predicted_state(poisson, earthquakes):
    display = StatePathDisplay.from_estimator(poisson, earthquakes)
    states = poisson.predict(earthquakes)
    for k, points in enumerate(display.points_):
        expected = np.column_stack([np.flatnonzero(states == k), earthquakes[states == k, 0]])
        np.testing.assert_array_equal(points.get_offsets(), expected)
    assert display.figure_ is display.ax_.figure
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["state 0", "state 1", "state 2"]


def test_areas_are_the_posterior(poisson, earthquakes):
    display = StatePathDisplay.from_estimator(poisson, earthquakes)
    proba = poisson.predict_proba(earthquakes)
    tops = [area.get_paths()[0].vertices[:, 1].max() for area in display.posterior_ax_.collections]
    np.testing.assert_allclose(tops, np.cumsum(proba, axis=1).max(axis=0), atol=1e-12)


def test_a_frame_brings_its_index_and_names(poisson, earthquakes):
    pandas = pytest.importorskip("pandas", reason="frames need pandas")
    years = pandas.Index(np.arange(1900, 2007), name="year")
    frame = pandas.DataFrame(earthquakes, columns=["count"], index=years)
    model = PoissonHMM(n_components=2, random_state=0).fit(frame)
    display = StatePathDisplay.from_estimator(model, frame, feature="count")
    assert display.ax_.get_ylabel() == "count"
    assert display.posterior_ax_.get_xlabel() == "year"
    assert display.points_[0].get_offsets()[:, 0].min() >= 1900


def test_path_without_posteriors_has_one_panel(earthquakes):
    states = np.arange(len(earthquakes)) % 2
    display = StatePathDisplay.from_predictions(earthquakes, states=states)
    assert display.posterior_ax_ is None
    assert len(display.points_) == 2


def test_path_fills_the_axes_that_are_given(poisson, earthquakes):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2)
    display = StatePathDisplay.from_estimator(poisson, earthquakes, ax=axes[1])
    assert display.figure_ is figure
    assert display.ax_ in axes[1].child_axes
    figure.draw_without_rendering()


def test_missing_observations_are_marked():
    X = np.array([[0.0], [np.nan], [1.0]])
    display = StatePathDisplay.from_predictions(X, states=[0, 0, 1])
    labels = display.ax_.get_legend_handles_labels()[1]
    assert "missing" in labels


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"states": [0, 1]}, "states must have shape"),
        ({"posteriors": np.ones((2, 2))}, "posteriors must have shape"),
        ({}, "needs posteriors, states or both"),
        ({"states": [0, 1, 0], "state_names": ["one"]}, "state_names must name 2"),
        ({"states": [0, 1, 0], "feature": 3}, "feature must be one of"),
        ({"states": [0, 1, 0], "time": [1, 2]}, "time must have one value"),
    ],
)
def test_path_errors(arguments, words):
    with pytest.raises(ValueError, match=words):
        StatePathDisplay.from_predictions(np.zeros((3, 1)), **arguments)


def test_several_sequences_are_refused(poisson, earthquakes):
    with pytest.raises(ValueError, match="one sequence, got a collection of 2"):
        StatePathDisplay.from_estimator(poisson, [earthquakes, earthquakes])


def test_an_estimator_is_told_what_it_lacks(poisson, earthquakes):
    with pytest.raises(TypeError, match="has no predict, predict_proba"):
        StatePathDisplay.from_estimator(Walk(), earthquakes)
    with pytest.raises(TypeError, match="PoissonHMM has no smooth"):
        SmootherDisplay.from_estimator(poisson, earthquakes)
    with pytest.raises(NotFittedError):
        StatePathDisplay.from_estimator(PoissonHMM(), earthquakes)


# ---- TransitionDisplay


def test_matrix_is_drawn_and_written(poisson):
    display = TransitionDisplay.from_estimator(poisson)
    np.testing.assert_array_equal(display.image_.get_array(), poisson.transmat_)
    assert display.text_.shape == (3, 3)
    assert display.ax_.get_xlabel() == "to state"
    assert display.ax_.get_ylabel() == "from state"


def test_moves_are_counted_within_sequences_only():
    display = TransitionDisplay.from_predictions([[0, 0, 1], [1, 1]])
    np.testing.assert_allclose(display.transmat, [[0.5, 0.5], [0.0, 1.0]])
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.array([0, 0, 1]), np.array([1, 1])]
    again = TransitionDisplay.from_predictions(ragged)
    np.testing.assert_array_equal(again.transmat, display.transmat)


def test_zero_is_written_only_where_a_move_is_impossible():
    display = TransitionDisplay(np.array([[1.0, 0.0], [1e-9, 1 - 1e-9]])).plot()
    assert [text.get_text() for text in display.text_.ravel()] == ["1", "0", "<.001", ">.999"]


def test_state_without_moves_is_nan():
    display = TransitionDisplay.from_predictions([0, 0, 2])
    assert np.isnan(display.transmat[1]).all()
    assert display.text_[1, 1].get_text() == ""


def test_transition_errors():
    with pytest.raises(ValueError, match=r"states must lie in 0\.\.1"):
        TransitionDisplay.from_predictions([0, 2], n_components=2)
    with pytest.raises(ValueError, match=r"states must lie in"):
        TransitionDisplay.from_predictions([-1, 1])
    with pytest.raises(ValueError, match="state_names must name 2"):
        TransitionDisplay.from_predictions([0, 1], state_names=["a"])
    with pytest.raises(TypeError, match="Walk has no transmat_"):
        TransitionDisplay.from_estimator(Walk())


# ---- SmootherDisplay


@pytest.mark.parametrize(
    ("feature", "mean", "deviation", "ahead"), [(0, 3.0, 2.0, 3.0), (1, -6.0, 4.0, 4.0)]
)
def test_band_and_fan_are_the_models(feature, mean, deviation, ahead):
    X = np.zeros((4, 2))
    display = SmootherDisplay.from_estimator(Walk(), X, n_ahead=3, feature=feature)
    assert display.line_.get_ydata()[3] == mean
    top = display.band_.get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(max(0.0, mean) + 1.959964 * deviation, abs=1e-5)
    widest = display.fan_[0].get_paths()[0].vertices
    assert widest[:, 1].max() == pytest.approx(1.0 + 1.959964 * ahead, abs=1e-5)
    assert (widest[:, 0].min(), widest[:, 0].max()) == (4.0, 6.0)
    assert len(display.fan_) == 3


def test_band_and_fan_of_a_kalman_smoother():
    X = load_nile().data[:40].astype(float)
    X[10:15] = np.nan
    model = KalmanSmoother(tol=1.0).fit(X)
    display = SmootherDisplay.from_estimator(model, X, n_ahead=4, coverage=0.9)
    means, covariances = model.smooth(X)[:2]
    loading = model.observation_matrix_[0]
    np.testing.assert_allclose(
        display.standard_deviation, np.sqrt(np.einsum("i,nij,j->n", loading, covariances, loading))
    )
    np.testing.assert_allclose(display.mean, means @ loading + model.observation_offset_[0])
    ahead = model.forecast(X, 4)
    np.testing.assert_array_equal(display.forecast_mean, ahead.means[:, 0])
    np.testing.assert_array_equal(
        display.forecast_standard_deviation, np.sqrt(ahead.covariances[:, 0, 0])
    )


@pytest.mark.parametrize("inputs_to", ["state", "observation"])
def test_smoother_of_a_model_with_inputs(inputs_to):
    X = load_nile().data[:40].astype(float)
    U, ahead = np.sin(np.arange(40.0))[:, None], np.ones((3, 1))
    model = KalmanSmoother(tol=1.0, inputs_to=inputs_to).fit(X, inputs=U)
    display = SmootherDisplay.from_estimator(
        model, X, n_ahead=3, inputs=U, future_inputs=ahead
    )
    means = model.smooth(X, inputs=U).means
    np.testing.assert_allclose(display.mean, model.inverse_transform(means, inputs=U)[:, 0])
    forecast = model.forecast(X, 3, inputs=U, future_inputs=ahead)
    np.testing.assert_array_equal(display.forecast_mean, forecast.means[:, 0])


def test_forecast_goes_on_in_the_spacing_of_time():
    X = np.zeros((3, 2))
    display = SmootherDisplay.from_estimator(Walk(), X, n_ahead=2, time=[1990, 1995, 2000])
    assert display.fan_[0].get_paths()[0].vertices[:, 0].max() == 2010


def test_smoother_errors():
    with pytest.raises(ValueError, match="coverage must lie between 0 and 1, got 95"):
        SmootherDisplay.from_predictions(np.zeros(3), [0] * 3, [1] * 3, coverage=95)
    with pytest.raises(ValueError, match="mean must have shape"):
        SmootherDisplay.from_predictions(np.zeros(3), [0] * 2, [1] * 3)
    with pytest.raises(ValueError, match="at least two steps"):
        SmootherDisplay.from_estimator(Walk(), np.zeros((1, 2)), n_ahead=1)


# ---- ConvergenceDisplay


def test_convergence_draws_the_objective(poisson):
    display = ConvergenceDisplay.from_estimator(poisson)
    np.testing.assert_array_equal(display.line_.get_ydata(), poisson.objectives_)
    np.testing.assert_array_equal(display.line_.get_xdata(), np.arange(poisson.n_iter_ + 1))
    assert display.line_.get_label() == "PoissonHMM: converged"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_runs_can_be_compared(earthquakes, poisson):
    short = GaussianHMM(max_iter=2, n_init=1, random_state=0).fit(earthquakes)
    display = ConvergenceDisplay.from_estimator(poisson)
    other = ConvergenceDisplay.from_estimator(short, name="short", ax=display.ax_)
    assert other.ax_ is display.ax_
    assert other.line_.get_label() == "short: stopped at max_iter"
    assert other.line_.get_linestyle() != display.line_.get_linestyle()


def test_epochs_are_counted_from_one():
    class Net(Fake):
        def __init__(self):
            self.loss_curve_, self.converged_ = [2.0, 1.0], True

    display = ConvergenceDisplay.from_estimator(Net())
    np.testing.assert_array_equal(display.line_.get_xdata(), [1, 2])
    assert display.ax_.get_xlabel() == "epoch"
    assert display.line_.get_label() == "Net"


def test_convergence_errors():
    with pytest.raises(TypeError, match="Walk has none"):
        ConvergenceDisplay.from_estimator(Walk())
    with pytest.raises(ValueError, match="history must have shape"):
        ConvergenceDisplay.from_predictions([[1.0]])


# ---- TextProbabilityDisplay


def test_surprise_of_each_character_and_of_the_end():
    display = TextProbabilityDisplay.from_estimator(Letters(), "a b\n", width=3)
    np.testing.assert_allclose(display.surprise, np.log([2, 2, 2, 2, 4]))
    shades = display.image_.get_array()
    assert shades.shape == (2, 3)
    np.testing.assert_allclose(np.asarray(shades)[0], np.log(2))
    assert [text.get_text() for text in display.text_] == ["a", "␣", "b", "↵", "∎"]


def test_impossible_characters_are_darkest():
    display = TextProbabilityDisplay.from_predictions("ab", [-0.5, -np.inf])
    assert np.asarray(display.image_.get_array()).max() == display.image_.norm.vmax


def test_text_errors():
    with pytest.raises(ValueError, match="log_proba must have shape"):
        TextProbabilityDisplay.from_predictions("abc", [-1.0])
    with pytest.raises(TypeError, match="draws one text, got a list"):
        TextProbabilityDisplay.from_estimator(Letters(), ["abc"])


# ---- matplotlib is optional


@pytest.mark.parametrize(
    "draw",
    [
        lambda: StatePathDisplay.from_predictions(np.zeros(2), states=[0, 1]),
        lambda: TransitionDisplay.from_predictions([0, 1]),
        lambda: SmootherDisplay.from_predictions(np.zeros(2), [0, 0], [1, 1]),
        lambda: ConvergenceDisplay.from_predictions([0.0, 1.0]),
        lambda: TextProbabilityDisplay.from_predictions("a", [-1.0]),
    ],
)
def test_without_matplotlib_the_error_says_what_to_install(draw, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        draw()
