"""ConvergenceDisplay: what learning gained, iteration by iteration."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklseq.inspection._display import FORECAST, LINE, MUTED, check_rows, make_axes

# attribute of a fitted estimator -> label of the vertical axis, in the order they are looked for
HISTORIES = {
    "objectives_": "objective per step (nats)",
    "log_likelihoods_": "log-likelihood per step (nats)",
    "lower_bounds_": "lower bound per step (nats)",
    "loss_curve_": "loss (nats)",
}

STYLES = ((LINE, "-"), (FORECAST, "--"), ("0.6", "-"), ("0.2", ":"))  # apart in grey, too


class ConvergenceDisplay:
    """The objective after each iteration of learning.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    history : ndarray of shape (n_iter + 1,)
        The objective at the start and after each iteration.
    epochs : bool, default=False
        The entries are passes over the data, the first of them number 1, and not iterations, of
        which number 0 is the starting values.
    name : str, default=None
        For the legend.
    history_name : str, default="objective per step (nats)"
        Label of the vertical axis.
    converged : bool, default=None
        Told in the legend where it is known.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    line_ : matplotlib Line2D

    Examples
    --------
    >>> from sklseq import PoissonHMM
    >>> from sklseq.datasets import load_earthquakes
    >>> from sklseq.inspection import ConvergenceDisplay
    >>> hmm = PoissonHMM(n_components=2, random_state=0).fit(load_earthquakes().data)
    >>> display = ConvergenceDisplay.from_estimator(hmm)
    >>> display.ax_.get_ylabel()
    'objective per step (nats)'
    """

    def __init__(
        self,
        history,
        *,
        epochs=False,
        name=None,
        history_name="objective per step (nats)",
        converged=None,
    ):
        self.history = history
        self.epochs = epochs
        self.name = name
        self.history_name = history_name
        self.converged = converged

    @classmethod
    def from_estimator(cls, estimator, *, name=None, ax=None, **line_kw) -> ConvergenceDisplay:
        """Draw how a fitted estimator got there.

        Parameters
        ----------
        estimator : fitted estimator
            Has ``objectives_``, ``log_likelihoods_``, ``lower_bounds_`` or ``loss_curve_``; the
            first of these is drawn.
        name : str, default=None
            For the legend; default: the class of the estimator.
        ax : matplotlib Axes, default=None
            Pass the ``ax_`` of another display to compare.
        **line_kw
            For matplotlib's ``plot``.

        Returns
        -------
        ConvergenceDisplay

        Raises
        ------
        TypeError
            If the estimator keeps no history.
        ImportError
            Without matplotlib.
        """
        check_is_fitted(estimator)
        found = next((key for key in HISTORIES if hasattr(estimator, key)), None)
        if found is None:
            raise TypeError(
                f"{cls.__name__} draws estimators that have one of {', '.join(HISTORIES)}; "
                f"{type(estimator).__name__} has none."
            )
        display = cls(
            np.asarray(getattr(estimator, found)),
            epochs=found == "loss_curve_",
            name=type(estimator).__name__ if name is None else name,
            history_name=HISTORIES[found],
            converged=None if found == "loss_curve_" else getattr(estimator, "converged_", None),
        )
        return display.plot(ax=ax, **line_kw)

    @classmethod
    def from_predictions(
        cls, history, *, name=None, history_name="objective per step (nats)", ax=None, **line_kw
    ) -> ConvergenceDisplay:
        """Draw a history that is at hand.

        Parameters
        ----------
        history : array-like of shape (n_iter + 1,)
        name : str, default=None
            For the legend.
        history_name : str, default="objective per step (nats)"
            Label of the vertical axis.
        ax : matplotlib Axes, default=None
            Pass the ``ax_`` of another display to compare.
        **line_kw
            For matplotlib's ``plot``.

        Returns
        -------
        ConvergenceDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        history = check_rows("history", history, (None,))
        return cls(history, name=name, history_name=history_name).plot(ax=ax, **line_kw)

    def plot(self, ax=None, **line_kw) -> ConvergenceDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
        **line_kw
            For matplotlib's ``plot``.

        Returns
        -------
        ConvergenceDisplay
            With ``figure_``, ``ax_`` and ``line_``.
        """
        self.ax_ = make_axes(f"{type(self).__name__}.plot", ax, figsize=(6.4, 3.6))
        self.figure_ = self.ax_.figure
        label = self.name or ""
        if self.converged is not None:
            label += ": converged" if self.converged else ": stopped at max_iter"
        color, dashes = STYLES[len(self.ax_.lines) % len(STYLES)]
        style = {"marker": ".", "color": color, "linestyle": dashes}
        iterations = np.arange(len(self.history)) + self.epochs
        (self.line_,) = self.ax_.plot(
            iterations, self.history, **{**style, "label": label, **line_kw}
        )
        self.ax_.set(xlabel="epoch" if self.epochs else "iteration", ylabel=self.history_name)
        self.ax_.xaxis.get_major_locator().set_params(integer=True)
        self.ax_.grid(color=MUTED, alpha=0.3, linewidth=0.6)
        if label:
            self.ax_.legend(frameon=False)
        return self
