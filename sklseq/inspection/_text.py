"""TextProbabilityDisplay: each character of a text on the shade of its surprise."""

from __future__ import annotations

import numpy as np

from sklseq.inspection._display import check_rows, make_axes, require

VISIBLE = {" ": "\N{OPEN BOX}", "\n": "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}", "\t": "→"}
END = "\N{END OF PROOF}"


class TextProbabilityDisplay:
    """A text in which the darker a character, the more it surprised the model.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    text : str
    surprise : ndarray of shape (n_characters,) or (n_characters + 1,)
        Minus the log-probability of each character given those before it, in nats; the last of
        n_characters + 1 is that of the end of the text.
    width : int, default=40
        Characters in a line.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    image_ : matplotlib AxesImage
    text_ : list of matplotlib Text
        One a character.

    Examples
    --------
    >>> from sklseq.inspection import TextProbabilityDisplay
    >>> display = TextProbabilityDisplay.from_predictions("abba", [-1.0, -0.1, -0.2, -3.0])
    >>> display.surprise.tolist()
    [1.0, 0.1, 0.2, 3.0]
    """

    def __init__(self, text, surprise, *, width=40):
        self.text = text
        self.surprise = surprise
        self.width = width

    @classmethod
    def from_estimator(cls, estimator, text, *, width=40, ax=None) -> TextProbabilityDisplay:
        """Draw what surprises a fitted language model in a text.

        Parameters
        ----------
        estimator : fitted estimator
            Has ``char_log_proba(texts)``, the log-probability of each character of each text.
        text : str
        width : int, default=40
            Characters in a line.
        ax : matplotlib Axes, default=None

        Returns
        -------
        TextProbabilityDisplay

        Raises
        ------
        TypeError
            If the estimator has no ``char_log_proba``, or `text` is no str.
        ImportError
            Without matplotlib.
        """
        require(cls.__name__, estimator, "char_log_proba")
        if not isinstance(text, str):
            raise TypeError(f"{cls.__name__} draws one text, got a {type(text).__name__}.")
        log_proba = np.asarray(estimator.char_log_proba([text])[0], dtype=float)
        return cls.from_predictions(text, log_proba, width=width, ax=ax)

    @classmethod
    def from_predictions(cls, text, log_proba, *, width=40, ax=None) -> TextProbabilityDisplay:
        """Draw log-probabilities that are at hand.

        Parameters
        ----------
        text : str
        log_proba : array-like of shape (n_characters,) or (n_characters + 1,)
            Log-probability of each character given those before it, in nats, and perhaps that of
            the end of the text.
        width : int, default=40
            Characters in a line.
        ax : matplotlib Axes, default=None

        Returns
        -------
        TextProbabilityDisplay

        Raises
        ------
        ValueError
            If the lengths do not agree.
        ImportError
            Without matplotlib.
        """
        with_end = len(log_proba) == len(text) + 1
        surprise = -check_rows("log_proba", log_proba, (len(text) + with_end,))
        return cls(text, surprise, width=width).plot(ax=ax)

    def plot(self, ax=None) -> TextProbabilityDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None

        Returns
        -------
        TextProbabilityDisplay
            With ``figure_``, ``ax_``, ``image_`` and ``text_``.
        """
        characters = list(self.text) + [END] * (len(self.surprise) - len(self.text))
        width = max(1, min(self.width, len(characters)))
        n_lines = -(-len(characters) // width)
        self.ax_ = make_axes(
            f"{type(self).__name__}.plot", ax,
            figsize=(min(0.24 * width + 1.6, 12), 0.34 * n_lines + 0.7),
        )  # fmt: skip
        self.figure_ = self.ax_.figure
        grid = np.full(n_lines * width, np.nan)
        grid[: len(characters)] = self.surprise
        finite = self.surprise[np.isfinite(self.surprise)]
        top = max(float(finite.max(initial=0.0)), 1.0)
        self.image_ = self.ax_.imshow(
            np.minimum(grid, top).reshape(n_lines, width), cmap="Oranges", vmin=0, vmax=top,
            aspect="auto",
        )  # fmt: skip
        self.text_ = [
            self.ax_.text(
                i % width, i // width, VISIBLE.get(character, character), ha="center", va="center",
                family="monospace", color="white" if self.surprise[i] > 0.75 * top else "black",
            )
            for i, character in enumerate(characters)
        ]  # fmt: skip
        self.ax_.set_axis_off()
        self.figure_.colorbar(
            self.image_, ax=self.ax_, label="surprise (nats)", aspect=max(4, 4 * n_lines),
        )
        return self
