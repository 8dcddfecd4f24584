"""What every display shares: matplotlib on demand, one sequence, colours that survive greyscale."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklseq._sequences import is_collection

MARKERS = "os^DvPX*<>"  # shape tells states apart where colour does not
LINE = "#30638e"
BAND = "#8db4d3"
FORECAST = "#b5541c"
MUTED = "0.55"


def import_pyplot(caller: str):
    """matplotlib.pyplot, or an error that says what to install and who asked."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{caller} draws with matplotlib, which is not installed: pip install matplotlib"
        ) from error
    return plt


def make_axes(caller: str, ax, **size):
    """`ax`, or the axes of a new figure."""
    plt = import_pyplot(caller)
    return plt.subplots(layout="constrained", **size)[1] if ax is None else ax


def state_colors(n_states: int) -> np.ndarray:
    """One colour a state, evenly spaced in lightness, so that a grey copy tells them apart."""
    import matplotlib

    return matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, n_states))


def require(display: str, estimator, *names: str) -> None:
    """An estimator that cannot be drawn is told what it lacks; one that can must be fitted."""
    for wanted in (
        [name for name in names if not name.endswith("_")],
        [name for name in names if name.endswith("_")],  # there after fit only
    ):
        missing = [name for name in wanted if not hasattr(estimator, name)]
        if missing:
            raise TypeError(
                f"{display} draws estimators that have {', '.join(names)}; "
                f"{type(estimator).__name__} has no {', '.join(missing)}."
            )
        check_is_fitted(estimator)


class Track(NamedTuple):
    """One column of one sequence, as a series over time."""

    time: np.ndarray
    values: np.ndarray
    column: int
    time_name: str
    value_name: str


def track_of(display: str, X, feature: int | str = 0, time=None) -> Track:
    """The series to draw; a frame brings its index and its column names.

    Raises
    ------
    ValueError
        For several sequences, an unknown column, or a `time` of another length.
    """
    if is_collection(X):
        raise ValueError(
            f"{display} draws one sequence, got a collection of {len(X)}: pass one item of it."
        )
    value_name, time_name = f"feature {feature}", "step"
    names = [str(name) for name in X.columns] if hasattr(X, "columns") else None
    if time is None and hasattr(X, "index") and not callable(X.index):
        time = np.asarray(X.index)
        time_name = str(X.index.name or "step")
    rows = np.asarray(X)
    if rows.ndim == 1:
        rows = rows[:, None]
    if rows.ndim != 2:
        raise ValueError(
            f"{display} draws one sequence (n_steps, n_features), got shape {rows.shape}."
        )
    if names is not None:
        column = _column(display, names, feature)
        value_name = names[column]
    else:
        column = _column(display, list(range(rows.shape[1])), feature)
    time = np.arange(len(rows)) if time is None else np.asarray(time)
    if time.shape != (len(rows),):
        raise ValueError(
            f"time must have one value for each of the {len(rows)} steps, got shape {time.shape}."
        )
    return Track(time, rows[:, column], column, time_name, value_name)


def _column(display: str, names: list, feature) -> int:
    if feature in names:
        return names.index(feature)
    if isinstance(feature, int | np.integer) and 0 <= feature < len(names):
        return int(feature)
    raise ValueError(f"{display}: feature must be one of the columns {names}, got {feature!r}.")


def check_rows(name: str, values, shape: tuple) -> np.ndarray:
    """An array of a given shape; None in `shape` lets any size through."""
    array = np.asarray(values)
    if array.ndim != len(shape) or any(
        want not in (None, got) for want, got in zip(shape, array.shape)
    ):
        wanted = str(shape).replace("None", "any")
        raise ValueError(f"{name} must have shape {wanted}, got {array.shape}.")
    return array


def label_missing(ax: Any, time: np.ndarray, missing: np.ndarray) -> None:
    """Ticks at the foot of the axes where an observation is missing."""
    if missing.any():
        ax.plot(
            time[missing], np.zeros(missing.sum()), "|", color=MUTED, markersize=7,
            transform=ax.get_xaxis_transform(), clip_on=False, label="missing",
        )  # fmt: skip


def legend_above(ax: Any, n_entries: int, n_columns: int = 6) -> None:
    """In rows above the axes, out of the way of the data; where they are many, beside."""
    if n_entries <= 2 * n_columns:
        ax.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=n_columns, frameon=False,
            borderaxespad=0.2,
        )  # fmt: skip
    else:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
