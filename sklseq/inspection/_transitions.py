"""TransitionDisplay: the transition matrix as a table with shades."""

from __future__ import annotations

import numpy as np

from sklseq.inspection._display import check_rows, import_pyplot, make_axes, require


class TransitionDisplay:
    """The transition matrix: row, where a step comes from; column, where it goes.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    transmat : ndarray of shape (n_components, n_components)
        Rows sum to 1.
    state_names : list of str, default=None
        Default: 0, 1 and so on.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    image_ : matplotlib AxesImage
    text_ : ndarray of matplotlib Text of shape (n_components, n_components), or None
        The numbers; None above 12 states, where they do not fit.

    See Also
    --------
    StatePathDisplay : Which state each step is in.

    Examples
    --------
    >>> from sklseq.inspection import TransitionDisplay
    >>> display = TransitionDisplay.from_predictions([0, 0, 0, 1, 1, 0])
    >>> display.transmat.round(2).tolist()
    [[0.67, 0.33], [0.5, 0.5]]
    """

    def __init__(self, transmat, *, state_names=None):
        self.transmat = transmat
        self.state_names = state_names

    @classmethod
    def from_estimator(cls, estimator, *, state_names=None, ax=None) -> TransitionDisplay:
        """Draw the transition matrix of a fitted hidden Markov model.

        Parameters
        ----------
        estimator : fitted estimator
            Has ``transmat_``.
        state_names : list of str, default=None
        ax : matplotlib Axes, default=None

        Returns
        -------
        TransitionDisplay

        Raises
        ------
        TypeError
            If the estimator has no ``transmat_``.
        ImportError
            Without matplotlib.
        """
        require(cls.__name__, estimator, "transmat_")
        return cls(estimator.transmat_, state_names=state_names).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls, states, *, n_components=None, state_names=None, ax=None
    ) -> TransitionDisplay:
        """Draw the share of each move in a path, predicted or known.

        Parameters
        ----------
        states : array-like of int of shape (n_steps,), or a collection of such
            States from 0 on; moves between sequences are not counted.
        n_components : int, default=None
            Number of states; default: the largest that occurs, plus one.
        state_names : list of str, default=None
        ax : matplotlib Axes, default=None

        Returns
        -------
        TransitionDisplay
            A row without any move is NaN and left white.

        Raises
        ------
        ValueError
            For states that are negative, or not below `n_components`.
        ImportError
            Without matplotlib.
        """
        paths = list(states) if _is_list_of_paths(states) else [states]
        paths = [check_rows("states", path, (None,)).astype(np.intp) for path in paths]
        top = max(int(path.max()) for path in paths if len(path)) + 1
        n_components = top if n_components is None else n_components
        if min(int(path.min()) for path in paths if len(path)) < 0 or top > n_components:
            raise ValueError(
                f"states must lie in 0..{n_components - 1}, got "
                f"{sorted(set(np.concatenate(paths).tolist()))}."
            )
        counts = np.zeros((n_components, n_components))
        for path in paths:
            np.add.at(counts, (path[:-1], path[1:]), 1)
        totals = counts.sum(axis=1, keepdims=True)
        transmat = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
        return cls(transmat, state_names=state_names).plot(ax=ax)

    def plot(self, ax=None) -> TransitionDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None

        Returns
        -------
        TransitionDisplay
            With ``figure_``, ``ax_``, ``image_`` and ``text_``.
        """
        transmat = check_rows("transmat", self.transmat, (len(self.transmat),) * 2)
        n_states = len(transmat)
        names = self.state_names or [str(k) for k in range(n_states)]
        if len(names) != n_states:
            raise ValueError(f"state_names must name {n_states} states, got {len(names)}.")
        import_pyplot(f"{type(self).__name__}.plot")
        side = float(np.clip(1.6 + 0.6 * n_states, 3.2, 9))
        self.ax_ = make_axes(f"{type(self).__name__}.plot", ax, figsize=(side + 0.8, side))
        self.figure_ = self.ax_.figure
        self.image_ = self.ax_.imshow(transmat, cmap="Blues", vmin=0, vmax=1)
        self.figure_.colorbar(self.image_, ax=self.ax_, label="probability of the move", shrink=0.8)
        self.ax_.set_xticks(range(n_states), names)
        self.ax_.set_yticks(range(n_states), names)
        self.ax_.set(xlabel="to state", ylabel="from state")
        self.text_ = None if n_states > 12 else self._write(transmat)
        return self

    def _write(self, transmat) -> np.ndarray:
        text = np.empty(transmat.shape, dtype=object)
        for (i, j), value in np.ndenumerate(transmat):
            if value in (0.0, 1.0):
                word = f"{value:.0f}"  # exactly: the move is impossible, or certain
            else:
                word = "" if np.isnan(value) else _short(value)
            text[i, j] = self.ax_.text(
                j, i, word, ha="center", va="center", color="white" if value > 0.55 else "black",
                fontsize="medium" if len(transmat) <= 6 else "small",
            )  # fmt: skip
        return text


def _short(value: float) -> str:
    """Three places, but never a rounded 0 or 1: those are claims of impossibility."""
    if value < 0.0005:
        return "<.001"
    return ">.999" if value > 0.9995 else f"{value:.3f}".lstrip("0")


def _is_list_of_paths(states) -> bool:
    return np.ndim(next(iter(states), None)) == 1
