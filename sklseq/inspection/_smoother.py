"""SmootherDisplay: data, smoothed mean, its band, and the fan of a forecast."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from sklseq.inspection._display import (
    BAND,
    FORECAST,
    LINE,
    check_rows,
    label_missing,
    legend_above,
    make_axes,
    require,
    track_of,
)

FAN = (0.5, 0.8, 0.95)  # coverage of the nested bands of a forecast


class SmootherDisplay:
    """Observations, what the model takes their mean to be, and where they may go.

    The band around the smoothed mean is that of the *mean*, without the observation noise; the fan
    of the forecast is that of future *observations*, noise and all, at 50, 80 and 95 %.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    series : ndarray of shape (n_steps,)
        NaN is a missing observation.
    mean, standard_deviation : ndarray of shape (n_steps,)
        Of the smoothed mean of the observations.
    forecast_mean, forecast_standard_deviation : ndarray of shape (n_ahead,), default=None
        Of the observations that come next.
    coverage : float, default=0.95
        Of the band around the smoothed mean.
    time : ndarray of shape (n_steps,), default=None
        Positions on the horizontal axis; a forecast goes on at the last spacing.
    time_name, value_name : str
        Labels of the axes.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    line_ : matplotlib Line2D
        The smoothed mean.
    band_ : matplotlib collection
        Around the smoothed mean.
    fan_ : list of matplotlib collections
        Around the forecast, widest first.

    Examples
    --------
    >>> import numpy as np
    >>> from sklseq.inspection import SmootherDisplay
    >>> X = np.array([[1.0], [np.nan], [2.0]])
    >>> display = SmootherDisplay.from_predictions(X, [1.1, 1.5, 1.9], [0.2, 0.4, 0.2])
    >>> len(display.fan_)
    0
    """

    def __init__(
        self,
        series,
        mean,
        standard_deviation,
        *,
        forecast_mean=None,
        forecast_standard_deviation=None,
        coverage=0.95,
        time=None,
        time_name="step",
        value_name="feature 0",
    ):
        self.series = series
        self.mean = mean
        self.standard_deviation = standard_deviation
        self.forecast_mean = forecast_mean
        self.forecast_standard_deviation = forecast_standard_deviation
        self.coverage = coverage
        self.time = time
        self.time_name = time_name
        self.value_name = value_name

    @classmethod
    def from_estimator(
        cls, estimator, X, *, n_ahead=0, feature=0, time=None, coverage=0.95, ax=None, inputs=None,
        future_inputs=None,
    ) -> SmootherDisplay:
        """Draw what a fitted Kalman smoother makes of one sequence.

        Parameters
        ----------
        estimator : fitted estimator
            Of Gaussian observations: has ``smooth``, ``inverse_transform``,
            ``observation_matrix_`` and ``observation_covariance_``, and ``forecast`` where
            `n_ahead` is positive.
        X : array-like or DataFrame of shape (n_steps, n_features)
            One sequence.
        n_ahead : int, default=0
            Steps to forecast after its end.
        feature : int or str, default=0
            The column to draw.
        time : array-like of shape (n_steps,), default=None
            Default: the index of a DataFrame, else the number of the step.
        coverage : float, default=0.95
            Of the band around the smoothed mean.
        ax : matplotlib Axes, default=None
        inputs : array-like of shape (n_steps, n_inputs), default=None
            Needed by a model fitted with inputs.
        future_inputs : array-like of shape (n_ahead, n_inputs), default=None
            Those of the steps ahead.

        Returns
        -------
        SmootherDisplay

        Raises
        ------
        TypeError
            If the estimator lacks a method that is needed.
        ValueError
            For several sequences or an unknown column.
        ImportError
            Without matplotlib.
        """
        needed = ["smooth", "inverse_transform", "observation_matrix_", "observation_covariance_"]
        require(cls.__name__, estimator, *needed, *(["forecast"] if n_ahead else []))
        column = track_of(cls.__name__, X, feature, time).column
        given = {} if inputs is None else {"inputs": inputs}
        means, covariances = estimator.smooth(X, **given)[:2]
        loading = np.asarray(estimator.observation_matrix_)[column]
        variance = np.einsum("i,nij,j->n", loading, covariances, loading)
        forecast = {}
        if n_ahead:
            future = {} if future_inputs is None else {"future_inputs": future_inputs}
            ahead = estimator.forecast(X, n_ahead, **given, **future)
            forecast["forecast_mean"] = ahead.means[:, column]
            forecast["forecast_standard_deviation"] = np.sqrt(ahead.covariances[:, column, column])
        return cls.from_predictions(
            X, estimator.inverse_transform(means, **given)[:, column],
            np.sqrt(np.maximum(variance, 0.0)),
            feature=feature, time=time, coverage=coverage, ax=ax, **forecast,
        )  # fmt: skip

    @classmethod
    def from_predictions(
        cls,
        X,
        mean,
        standard_deviation,
        *,
        forecast_mean=None,
        forecast_standard_deviation=None,
        feature=0,
        time=None,
        coverage=0.95,
        ax=None,
    ) -> SmootherDisplay:
        """Draw means and standard deviations that are at hand.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_steps, n_features)
            One sequence.
        mean, standard_deviation : array-like of shape (n_steps,)
            Of the smoothed mean of the column.
        forecast_mean, forecast_standard_deviation : array-like of shape (n_ahead,), default=None
            Of its observations after the end.
        feature : int or str, default=0
            The column to draw.
        time : array-like of shape (n_steps,), default=None
            Default: the index of a DataFrame, else the number of the step.
        coverage : float, default=0.95
            Of the band around the smoothed mean.
        ax : matplotlib Axes, default=None

        Returns
        -------
        SmootherDisplay

        Raises
        ------
        ValueError
            For several sequences, or shapes that do not agree.
        ImportError
            Without matplotlib.
        """
        track = track_of(cls.__name__, X, feature, time)
        n_steps = len(track.values)
        if forecast_mean is not None:
            forecast_mean = check_rows("forecast_mean", forecast_mean, (None,))
            forecast_standard_deviation = check_rows(
                "forecast_standard_deviation", forecast_standard_deviation, forecast_mean.shape
            )
        display = cls(
            track.values.astype(float),
            check_rows("mean", mean, (n_steps,)),
            check_rows("standard_deviation", standard_deviation, (n_steps,)),
            forecast_mean=forecast_mean,
            forecast_standard_deviation=forecast_standard_deviation,
            coverage=coverage,
            time=track.time,
            time_name=track.time_name,
            value_name=track.value_name,
        )
        return display.plot(ax=ax)

    def plot(self, ax=None) -> SmootherDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None

        Returns
        -------
        SmootherDisplay
            With ``figure_``, ``ax_``, ``line_``, ``band_`` and ``fan_``.
        """
        if not 0 < self.coverage < 1:
            raise ValueError(f"coverage must lie between 0 and 1, got {self.coverage}.")
        self.ax_ = ax = make_axes(f"{type(self).__name__}.plot", ax, figsize=(8, 3.8))
        self.figure_ = ax.figure
        time = np.arange(len(self.series)) if self.time is None else self.time
        ax.plot(time, self.series, "o", color="0.35", markersize=3, label="observed", zorder=3)
        label_missing(ax, time, np.isnan(self.series))
        (self.line_,) = ax.plot(time, self.mean, color=LINE, label="smoothed mean", zorder=4)
        width = _normal_width(self.coverage) * self.standard_deviation
        self.band_ = ax.fill_between(
            time, self.mean - width, self.mean + width, color=BAND, alpha=0.6, linewidth=0,
            label=f"{self.coverage:.0%} band of the mean", zorder=1,
        )  # fmt: skip
        self.fan_ = [] if self.forecast_mean is None else self._draw_fan(time)
        ax.set(xlabel=self.time_name, ylabel=self.value_name)
        legend_above(ax, 5, n_columns=3)
        return self

    def _draw_fan(self, time) -> list:
        if len(time) < 2:
            raise ValueError("A forecast needs at least two steps, which set the spacing of time.")
        ahead = time[-1] + (time[-1] - time[-2]) * np.arange(1, len(self.forecast_mean) + 1)
        mean, deviation = self.forecast_mean, self.forecast_standard_deviation
        self.ax_.plot(ahead, mean, "--", color=FORECAST, label="forecast", zorder=4)
        fan = []
        for coverage in sorted(FAN, reverse=True):
            width = _normal_width(coverage) * deviation
            fan.append(self.ax_.fill_between(
                ahead, mean - width, mean + width, color=FORECAST, alpha=0.22, linewidth=0,
                label="50, 80, 95 % of observations" if coverage == max(FAN) else None, zorder=1,
            ))  # fmt: skip
        self.ax_.axvline(time[-1], color="0.7", linewidth=0.8, zorder=0)
        return fan


def _normal_width(coverage: float) -> float:
    """Half the width, in standard deviations, of a central interval of a normal distribution."""
    return float(ndtri(0.5 + coverage / 2))
