"""Working arrays that outlive one call.

Touching fresh memory costs a page fault for every 4 kB, which is more than the kernels need to fill
it.  An array that has been given back is therefore handed out again; what is kept is bounded, and
nothing that reaches the user ever lies in it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np

KEPT_DOUBLES = 8_000_000  # at most 64 MB are kept between calls

_free: list[np.ndarray] = []
_lock = threading.Lock()


def _start_anew() -> None:
    """In a forked child: another thread may have held the lock, which nobody there gives back."""
    global _lock
    _lock = threading.Lock()
    _free.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


@contextmanager
def scratch(*shape: int) -> Iterator[np.ndarray]:
    """A float64 array of `shape` with any content, for the length of the ``with`` block."""
    size = prod(shape)
    whole = _take(size)
    try:
        yield whole[:size].reshape(shape)
    finally:
        _give_back(whole)


def _take(size: int) -> np.ndarray:
    """The smallest kept array that is large enough, or a new one."""
    with _lock:
        fitting = [i for i, one in enumerate(_free) if size <= len(one) <= 4 * size + 4096]
        if fitting:
            return _free.pop(min(fitting, key=lambda i: len(_free[i])))
    return np.empty(size)


def _give_back(whole: np.ndarray) -> None:
    """Keep it, and let go of the oldest where that is too much."""
    with _lock:
        _free.append(whole)
        while sum(map(len, _free)) > KEPT_DOUBLES:
            _free.pop(0)
