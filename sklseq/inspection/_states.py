"""StatePathDisplay: a series coloured by hidden state, with the posterior below."""

from __future__ import annotations

import numpy as np

from sklseq.inspection._display import (
    MARKERS,
    MUTED,
    check_rows,
    import_pyplot,
    label_missing,
    legend_above,
    require,
    state_colors,
    track_of,
)


class StatePathDisplay:
    """A series whose points are coloured by hidden state, above the state probabilities.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    series : ndarray of shape (n_steps,)
        The column to draw; NaN is a missing observation.
    states : ndarray of int of shape (n_steps,)
        Hidden path.
    posteriors : ndarray of shape (n_steps, n_components) or None
        State probabilities; None leaves the lower panel out.
    time : ndarray of shape (n_steps,), default=None
        Positions on the horizontal axis; None counts steps.
    state_names : list of str, default=None
        Names for the legend; default: "state 0" and so on.
    time_name, value_name : str
        Labels of the axes.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
        The series.
    posterior_ax_ : matplotlib Axes or None
        The state probabilities.
    points_ : list of matplotlib collections
        One a state.

    See Also
    --------
    TransitionDisplay : How the states follow one another.

    Examples
    --------
    >>> from sklseq import PoissonHMM
    >>> from sklseq.datasets import load_earthquakes
    >>> from sklseq.inspection import StatePathDisplay
    >>> X = load_earthquakes().data
    >>> hmm = PoissonHMM(n_components=2, random_state=0).fit(X)
    >>> display = StatePathDisplay.from_estimator(hmm, X)
    >>> display.ax_.get_ylabel()
    'feature 0'
    """

    def __init__(
        self,
        series,
        states,
        posteriors=None,
        *,
        time=None,
        state_names=None,
        time_name="step",
        value_name="feature 0",
    ):
        self.series = series
        self.states = states
        self.posteriors = posteriors
        self.time = time
        self.state_names = state_names
        self.time_name = time_name
        self.value_name = value_name

    @classmethod
    def from_estimator(
        cls, estimator, X, *, feature=0, time=None, state_names=None, ax=None
    ) -> StatePathDisplay:
        """Draw what a fitted hidden Markov model makes of one sequence.

        Parameters
        ----------
        estimator : fitted estimator
            Has ``predict`` (a state for each step) and ``predict_proba``.
        X : array-like or DataFrame of shape (n_steps, n_features)
            One sequence.
        feature : int or str, default=0
            The column to draw.
        time : array-like of shape (n_steps,), default=None
            Default: the index of a DataFrame, else the number of the step.
        state_names : list of str, default=None
        ax : matplotlib Axes, default=None
            Filled by both panels; default: a new figure.

        Returns
        -------
        StatePathDisplay

        Raises
        ------
        TypeError
            If the estimator lacks a method that is needed.
        ValueError
            For several sequences or an unknown column.
        ImportError
            Without matplotlib.
        """
        import_pyplot(f"{cls.__name__}.from_estimator")
        require(cls.__name__, estimator, "predict", "predict_proba")
        track_of(cls.__name__, X, feature, time)  # bad arguments are refused before the work
        return cls.from_predictions(
            X, estimator.predict_proba(X), states=estimator.predict(X),
            feature=feature, time=time, state_names=state_names, ax=ax,
        )  # fmt: skip

    @classmethod
    def from_predictions(
        cls, X, posteriors=None, *, states=None, feature=0, time=None, state_names=None, ax=None
    ) -> StatePathDisplay:
        """Draw a path and probabilities that are at hand.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_steps, n_features)
            One sequence.
        posteriors : array-like of shape (n_steps, n_components), default=None
            State probabilities; without them there is one panel.
        states : array-like of int of shape (n_steps,), default=None
            Default: the most probable state of each step.
        feature : int or str, default=0
            The column to draw.
        time : array-like of shape (n_steps,), default=None
            Default: the index of a DataFrame, else the number of the step.
        state_names : list of str, default=None
        ax : matplotlib Axes, default=None
            Filled by both panels; default: a new figure.

        Returns
        -------
        StatePathDisplay

        Raises
        ------
        ValueError
            For several sequences, shapes that do not agree, or neither states nor posteriors.
        ImportError
            Without matplotlib.
        """
        track = track_of(cls.__name__, X, feature, time)
        n_steps = len(track.values)
        if posteriors is not None:
            posteriors = check_rows("posteriors", posteriors, (n_steps, None))
        elif states is None:
            raise ValueError(f"{cls.__name__} needs posteriors, states or both.")
        states = posteriors.argmax(axis=1) if states is None else states
        states = check_rows("states", states, (n_steps,)).astype(np.intp)
        display = cls(
            track.values, states, posteriors, time=track.time, state_names=state_names,
            time_name=track.time_name, value_name=track.value_name,
        )  # fmt: skip
        return display.plot(ax=ax)

    def plot(self, ax=None) -> StatePathDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Filled by both panels; default: a new figure.

        Returns
        -------
        StatePathDisplay
            With ``figure_``, ``ax_`` and ``posterior_ax_``.
        """
        n_states = int(self.states.max()) + 1
        if self.posteriors is not None:
            n_states = max(n_states, self.posteriors.shape[1])
        names = self.state_names or [f"state {k}" for k in range(n_states)]
        if len(names) != n_states:
            raise ValueError(f"state_names must name {n_states} states, got {len(names)}.")
        time = np.arange(len(self.series)) if self.time is None else self.time
        self.ax_, self.posterior_ax_ = self._panels(ax)
        self.figure_ = self.ax_.figure
        self._draw_series(time, names)
        if self.posterior_ax_ is not None:
            self._draw_posteriors(time, names)
        (self.posterior_ax_ or self.ax_).set_xlabel(self.time_name)
        return self

    def _panels(self, ax):
        plt = import_pyplot(f"{type(self).__name__}.plot")
        two = self.posteriors is not None
        if ax is None:
            if not two:
                return plt.subplots(figsize=(8, 3.4), layout="constrained")[1], None
            return plt.subplots(
                2, 1, sharex=True, figsize=(8, 4.6), layout="constrained",
                gridspec_kw={"height_ratios": (3, 1.2)},
            )[1]  # fmt: skip
        if not two:
            return ax, None
        ax.set_axis_off()
        upper = ax.inset_axes((0.0, 0.36, 1.0, 0.64))
        lower = ax.inset_axes((0.0, 0.0, 1.0, 0.28), sharex=upper)
        upper.tick_params(labelbottom=False)
        return upper, lower

    def _draw_series(self, time, names) -> None:
        ax, colors = self.ax_, state_colors(len(names))
        ax.plot(time, self.series, color="0.8", linewidth=0.8, zorder=1)
        size = float(np.clip(9000 / len(self.series), 3, 30))  # points of a long series are small
        self.points_ = []
        for k, name in enumerate(names):
            here = self.states == k
            self.points_.append(ax.scatter(
                time[here], self.series[here], s=size, color=colors[k],
                marker=MARKERS[k % len(MARKERS)], label=name, zorder=2,
            ))  # fmt: skip
        if self.series.dtype.kind == "f":
            label_missing(ax, time, np.isnan(self.series))
        ax.set_ylabel(self.value_name)
        legend_above(ax, len(names))

    def _draw_posteriors(self, time, names) -> None:
        ax, colors = self.posterior_ax_, state_colors(len(names))
        floor = np.zeros(len(time))
        for k in range(len(names)):
            top = floor + self.posteriors[:, k]
            ax.fill_between(time, floor, top, color=colors[k], linewidth=0)
            floor = top
        ax.set(ylim=(0, 1), ylabel="probability", yticks=(0, 0.5, 1))
        ax.spines[["top", "right"]].set_color(MUTED)
