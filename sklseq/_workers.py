"""Workers: who makes the E-steps of one fit, and how the data get to them once.

Threads of this process by default.  Where the user has chosen a joblib backend, its workers: every
piece of the data is sent when the fit begins and stays there, each E-step sends the parameters and
gets statistics back, and a worker that is lost costs its E-step, which is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from typing import Any, NamedTuple

import joblib

from sklseq._sequences import (
    Sequences,
    iterate_pieces,
    limit_threads,
    remote_backend,
    run_threads,
)

ATTEMPTS = 3  # at one E-step, each after a worker was lost


class Workers(AbstractContextManager):
    """Threads, or the workers of the joblib backend in force, for the length of a ``with`` block.

    Parameters
    ----------
    sequences : Sequences
    n_jobs : int or None
    """

    def __init__(self, sequences: Sequences, n_jobs: int | None = None):
        self.sequences, self.n_jobs = sequences, n_jobs
        self.pieces = list(iterate_pieces(sequences))
        self._remote = False
        self._parallel = None
        self._sent: list = []

    def __enter__(self) -> Workers:
        self._remote = len(self.pieces) > 1 and remote_backend() is not None
        return self

    def __exit__(self, *error) -> None:
        self._close()
        self._sent = []

    def _open(self) -> None:
        """Send the pieces; where there is but one core joblib works here, and so do we."""
        if joblib.effective_n_jobs(self.n_jobs) == 1:
            return
        # one task a piece: statistics come back piece by piece, to be added in a fixed order
        parallel = joblib.Parallel(n_jobs=self.n_jobs, batch_size=1, pre_dispatch="all")
        self._parallel = parallel.__enter__()
        self._sent = _send(remote_backend(), self.pieces, self._sent)

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
            except Exception:  # a worker is lost
                failures += 1
                if failures == ATTEMPTS:
                    raise
                self._close()
        return run_threads(function, list(zip(models, self.pieces)), self.n_jobs)

    def _map_remotely(self, function, models) -> list:
        work = joblib.delayed(_at_worker)
        results = self._parallel(
            work(function, model, sent) for model, sent in zip(models, self._sent)
        )
        for result in results:
            if result.error is not None:
                raise _ModelError from result.error
        return [result.value for result in results]


class _ModelError(Exception):
    """Of the function itself, not of the engine."""


class _Result(NamedTuple):
    value: Any
    error: Exception | None


def _at_worker(function, model, sent) -> _Result:
    piece = sent.result() if isinstance(sent, _RayPiece) else sent
    if not isinstance(piece, Sequences):  # a future of dask: joblib runs this at home, see _open
        raise RuntimeError("The cluster has but one core left.")
    try:
        with limit_threads():
            return _Result(function(model, piece), None)
    except Exception as error:
        return _Result(None, error)


# ---------------------------------------------------------------------------------------------
# How data stay at workers, engine by engine


def _send(backend, pieces: list[Sequences], before: list) -> list:
    """What a worker gets its piece from: sent already and still there, or sent now."""
    if hasattr(backend, "client"):  # joblib's for dask
        return _send_by_dask(backend.client, pieces, before)
    if type(backend).__module__.split(".")[0] == "ray":
        return before or [_RayPiece.of(piece) for piece in pieces]
    return pieces  # processes of this machine: joblib maps large arrays into memory, once


def _send_by_dask(client, pieces, before) -> list:
    """Futures, which dask replaces by their data where a task runs: it goes to where they are."""
    before = before or [None] * len(pieces)
    lost = [i for i, future in enumerate(before) if future is None or future.status != "finished"]
    if lost:  # scatter refuses to send nothing
        for i, future in zip(lost, client.scatter([pieces[i] for i in lost], hash=False)):
            before[i] = future
    return before


class _RayPiece(NamedTuple):
    """A piece in Ray's object store, which outlives the workers and which those of a node share."""

    reference: Any

    @classmethod
    def of(cls, piece: Sequences) -> _RayPiece:
        import ray

        return cls(ray.put(piece))

    def result(self) -> Sequences:
        import ray

        return ray.get(self.reference)
