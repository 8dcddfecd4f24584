"""Workers: who makes the E-steps of one fit, and how the data get to them once.

Threads of this process by default.  Where the user has chosen a joblib backend, its workers: every
piece of the data is sent when the fit begins and stays there, each E-step sends the parameters and
gets statistics back, and a worker that is lost costs its E-step, which is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from itertools import pairwise
from typing import Any, NamedTuple

import joblib
import numpy as np

from sklseq._sequences import (
    Sequences,
    iterate_pieces,
    limit_threads,
    n_workers,
    remote_backend,
    run_threads,
)
from sklseq._validation import check_n_jobs

ATTEMPTS = 3  # at one E-step, each after a worker was lost
TASKS_PER_CORE = 4  # an engine takes some milliseconds over each, but workers may differ in speed


class WorkersLost(RuntimeError):
    """No worker is left that could make the E-step."""


class Workers(AbstractContextManager):
    """Threads, or the workers of the joblib backend in force, for the length of a ``with`` block.

    Parameters
    ----------
    sequences : Sequences
    n_jobs : int or None
    shard_steps : int or None
        About the fewest steps of a piece.
    """

    def __init__(
        self, sequences: Sequences, n_jobs: int | None = None, shard_steps: int | None = None
    ):
        self.sequences, self.n_jobs = sequences, n_jobs
        self.pieces = list(iterate_pieces(sequences, shard_steps))
        self._remote = False
        self._parallel = None
        self._groups: list[list[Sequences]] = []
        self._sent: list = []

    def __enter__(self) -> Workers:
        self._remote = len(self.pieces) > 1 and remote_backend() is not None
        return self

    def __exit__(self, *error) -> None:
        self._close()
        self._sent = []

    def _open(self) -> None:
        """Send the pieces; where there is but one core joblib works here, and so do we.

        Several go together as a task, whose results come back piece by piece all the same: how they
        are added up must not depend on the number of workers.
        """
        n_cores = n_workers(self.n_jobs)
        if n_cores == 1:
            return
        if not self._groups:
            self._groups = _split(self.pieces, TASKS_PER_CORE * n_cores)
        n_jobs = check_n_jobs(self.n_jobs)
        parallel = joblib.Parallel(n_jobs=n_jobs, batch_size=1, pre_dispatch="all")
        self._parallel = parallel.__enter__()
        self._sent = _send(remote_backend(), self._groups, self._sent)

    def _close(self) -> None:
        if self._parallel is not None:
            parallel, self._parallel = self._parallel, None
            with suppress(Exception):  # a broken pool may not close in peace
                parallel.__exit__(None, None, None)

    def map(self, function: Callable[[Any, Sequences], Any], models: Iterable) -> list:
        """``function(model, piece)`` of each piece with its model, in the order of the pieces."""
        models = list(models)
        failures = 0
        while self._remote:
            if self._parallel is None:
                self._open()
            if self._parallel is None:
                break
            try:
                return self._map_remotely(function, models)
            except _ModelError as error:
                raise error.__cause__ from None
            except Exception as error:  # a worker is lost
                failures += 1
                self._close()
                if failures == ATTEMPTS:
                    raise WorkersLost(
                        f"The workers of the joblib backend were lost {ATTEMPTS} times in one "
                        f"E-step ({type(error).__name__}: {error})."
                    ) from error
        return run_threads(function, list(zip(models, self.pieces)), self.n_jobs)

    def _map_remotely(self, function, models) -> list:
        work = joblib.delayed(_at_worker)
        results = self._parallel(
            work(function, group, sent)
            for group, sent in zip(_split(models, len(self._groups)), self._sent)
        )
        for result in results:
            if result.error is not None:
                raise _ModelError from result.error
        return [value for result in results for value in result.values]


def _split(items: list, n_groups: int) -> list[list]:
    """At most so many runs of successive items, of about one length."""
    ends = np.linspace(0, len(items), min(n_groups, len(items)) + 1).astype(int)
    return [items[start:end] for start, end in pairwise(ends)]


class _ModelError(Exception):
    """Of the function itself, not of the engine."""


class _Result(NamedTuple):
    values: list
    error: Exception | None


def _at_worker(function, models: list, sent) -> _Result:
    pieces = sent.result() if isinstance(sent, _InRay) else sent
    if not isinstance(pieces, list):  # a future of dask: joblib runs this at home, see _open
        raise RuntimeError("The cluster has but one core left.")
    try:
        with limit_threads():
            return _Result([function(*one) for one in zip(models, pieces)], None)
    except Exception as error:
        return _Result([], error)


# ---------------------------------------------------------------------------------------------
# How data stay at workers, engine by engine


def _send(backend, groups: list[list[Sequences]], before: list) -> list:
    """What workers get each group of pieces from: sent already and still there, or sent now."""
    if hasattr(backend, "client"):  # joblib's for dask
        return _send_by_dask(backend.client, groups, before)
    if type(backend).__module__.split(".")[0] == "ray":
        return before or [_InRay.of(group) for group in groups]
    return groups  # processes of this machine: joblib maps large arrays into memory, once


def _send_by_dask(client, groups, before) -> list:
    """Futures, which dask replaces by their data where a task runs: it goes to where they are."""
    before = before or [None] * len(groups)
    lost = [i for i, future in enumerate(before) if future is None or future.status != "finished"]
    if lost:  # scatter refuses to send nothing
        for i, future in zip(lost, client.scatter([groups[i] for i in lost], hash=False)):
            before[i] = future
    return before


class _InRay(NamedTuple):
    """Pieces in Ray's object store, which outlives the workers and which those of a node share."""

    reference: Any

    @classmethod
    def of(cls, pieces: list[Sequences]) -> _InRay:
        import ray

        return cls(ray.put(pieces))

    def result(self) -> list[Sequences]:
        import ray

        return ray.get(self.reference)
