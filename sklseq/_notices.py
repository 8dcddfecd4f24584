"""Warnings of a fit that is a part of another fit, without `warnings.catch_warnings`.

That changes the filters of the whole process: of fits in several threads the first to end would
take away what the others had set, and leave a process without warnings.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_part: ContextVar[str] = ContextVar("part", default="")


@contextmanager
def part_of_a_fit(name: str) -> Iterator[None]:
    """Warnings of the fit inside begin with `name`, and Ctrl-C ends the whole, not this part."""
    token = _part.set(name)
    try:
        yield
    finally:
        _part.reset(token)


def keeps_what_it_has() -> bool:
    """Whether a fit that is interrupted ends as a fit; a part would leave the others to come."""
    return not _part.get()


def warn(
    message: str, category: type[Warning] = UserWarning, *, stacklevel: int = 1
) -> None:
    """``warnings.warn``, with the name of the part that the fit is."""
    part = _part.get()
    warnings.warn(f"{part}: {message}" if part else message, category, stacklevel=stacklevel + 1)
