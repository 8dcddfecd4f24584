"""The EM loop: starting values, convergence, history, progress; adds statistics over shards.

A model is a value with ``e_step(X, offsets, *aligned) -> (statistics, log_likelihood)``,
``m_step(statistics) -> model`` and ``log_prior() -> float``.  Statistics are nested tuples of
arrays that add, so several sequences, cores or machines need nothing more.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NamedTuple, Protocol

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklseq._sequences import Sequences, limit_threads, map_shards

SHORT_RUN = 10  # iterations given to each of several starting values; the best is finished
ROUNDING = 1e-10  # relative fall of the objective that is rounding, not a fault


class Model(Protocol):
    """What the EM loop asks of a model."""

    def e_step(self, X, offsets, *aligned) -> tuple[Any, float]: ...

    def m_step(self, statistics) -> Model: ...

    def log_prior(self) -> float: ...

    def why_impossible(self, sequences: Sequences) -> str: ...


class ImpossibleStart(ValueError):
    """A sequence has probability zero under a starting value."""


class EMResult(NamedTuple):
    """The best run.

    Attributes
    ----------
    model : Model
    statistics : nested tuple of arrays
        Of the last E-step, which was made at `model`.
    objectives, log_likelihoods : list of float
        Per step, in nats: at the start, then after each iteration.
    n_iter : int
    converged : bool
    """

    model: Any
    statistics: Any
    objectives: list[float]
    log_likelihoods: list[float]
    n_iter: int
    converged: bool


def add_statistics(left, right):
    """Sum of two equal trees of (named) tuples with arrays or numbers at the leaves."""
    if not isinstance(left, tuple):
        return left + right
    parts = [add_statistics(a, b) for a, b in zip(left, right)]
    return type(left)(*parts) if hasattr(left, "_fields") else tuple(parts)


def expect(model: Model, sequences: Sequences, n_jobs: int | None = None):
    """E-step over all shards: (statistics, log-likelihood), added in a fixed order."""
    statistics, log_likelihood = _add_up(model, sequences, n_jobs)
    if not np.isfinite(log_likelihood):
        raise ImpossibleStart(f"Cannot fit: {model.why_impossible(sequences)}")
    return statistics, log_likelihood


def _add_up(model: Model, sequences: Sequences, n_jobs: int | None = None):
    parts = map_shards(model.e_step, sequences, n_jobs, getattr(model, "shard_steps", None))
    return reduce(add_statistics, (part[0] for part in parts)), sum(part[1] for part in parts)


@dataclass
class _Run:
    """One starting value on its way to a fixed point."""

    model: Any
    sequences: Sequences
    n_jobs: int | None
    progress: _Progress
    acceleration: str | None = None
    statistics: Any = None
    objectives: list[float] = field(default_factory=list)
    log_likelihoods: list[float] = field(default_factory=list)
    converged: bool = False
    fell: bool = False

    def __post_init__(self):
        self._record(self.model, *expect(self.model, self.sequences, self.n_jobs))

    @property
    def n_iter(self) -> int:
        return len(self.objectives) - 1

    def _record(self, model, statistics, log_likelihood) -> None:
        n_steps = self.sequences.n_steps
        self.model, self.statistics = model, statistics
        self.log_likelihoods.append(log_likelihood / n_steps)
        self.objectives.append((log_likelihood + model.log_prior()) / n_steps)

    def advance(self, max_iter: int, tol: float) -> None:
        """Iterate until `max_iter` in all, convergence, or a fall of the objective."""
        while not (self.converged or self.fell) and self.n_iter < max_iter:
            start = self.model
            gain = self._step(self.model.m_step(self.statistics))
            if self.acceleration and not self.fell and self.n_iter < max_iter:
                self.progress.report(self)
                gain = max(gain, self._leap(start))
            if self.fell:
                return
            self.converged = gain < tol
            self.progress.report(self)

    def _step(self, model) -> float:
        """Go on to what an M-step gave; returns the gain per step."""
        statistics, log_likelihood = expect(model, self.sequences, self.n_jobs)
        before = self.objectives[-1]
        now = (log_likelihood + model.log_prior()) / self.sequences.n_steps
        if not now >= before - ROUNDING * max(1.0, abs(before)):
            warnings.warn(
                f"The objective fell from {before} to {now} nats per step in iteration "
                f"{self.n_iter + 1}, which EM cannot do: the parameters before it are kept. "
                "Please report this as a bug of sklseq.",
                ConvergenceWarning,
                stacklevel=5,
            )
            self.fell = True
            return 0.0
        self._record(model, statistics, log_likelihood)
        return now - before

    def _leap(self, start) -> float:
        """Squared extrapolation along two EM steps from `start`, of which the first was taken.

        Varadhan and Roland (2008), scheme S3.  A leap that does not raise the objective is left
        for the second EM step, so the objective never falls.
        """
        following = self.model.m_step(self.statistics)
        model = _extrapolate(start, self.model, following)
        if model is not None:
            statistics, log_likelihood = _add_up(model, self.sequences, self.n_jobs)
            before = self.objectives[-1]
            now = (log_likelihood + model.log_prior()) / self.sequences.n_steps
            if np.isfinite(now) and now >= before:
                self._record(model, statistics, log_likelihood)
                return now - before
        return self._step(following)


def _extrapolate(start, second, third):
    """The model that three successive EM iterates point to, or None where they point nowhere."""
    path = [model.to_vector() for model in (start, second, third)]
    if len({len(vector) for vector in path}) > 1:  # a covariance has become singular
        return None
    change = path[1] - path[0]
    curvature = path[2] - path[1] - change
    size = np.linalg.norm(curvature)
    if not size > 0.0:
        return None
    length = max(np.linalg.norm(change) / size, 1.0)
    return third.from_vector(path[0] + 2 * length * change + length**2 * curvature)


class _Progress:
    """Prints a line per iteration, or nothing."""

    def __init__(self, name: str, verbose: int, max_iter: int):
        self.name, self.verbose, self.max_iter = name, verbose, max_iter
        self.start = self.last = time.monotonic()
        self.run = ""

    def report(self, run: _Run) -> None:
        if not self.verbose:
            return
        now = time.monotonic()
        took, self.last = now - self.last, now
        if run.n_iter % self.verbose and not run.converged:
            return
        gain = run.objectives[-1] - run.objectives[-2]
        end = ", converged" if run.converged else f" (at most {self.max_iter})"
        print(
            f"[{self.name}]{self.run} iteration {run.n_iter}{end}: objective "
            f"{run.objectives[-1]:.8g} nats per step, gain {gain:.2e}, {took:.3g} s, "
            f"{run.sequences.n_steps / max(took, 1e-9):.3g} steps/s, "
            f"total {now - self.start:.3g} s",
            flush=True,
        )


def run_em(
    starts: Iterable[Model],
    sequences: Sequences,
    *,
    max_iter: int,
    tol: float,
    n_jobs: int | None = None,
    verbose: int = 0,
    name: str = "EM",
    acceleration: str | None = None,
) -> EMResult:
    """Fit by EM from one or several starting values and keep the best.

    Parameters
    ----------
    starts : iterable of Model
        Each of several gets a short run; the one of largest objective is finished.
    sequences : Sequences
    max_iter : int
    tol : float
        A run has converged when the objective gains less than this, in nats per step.
    n_jobs : int or None
    verbose : int
        Print every so many iterations; 0: silent.
    name : str
        Of the estimator, for messages.
    acceleration : {"squarem", None}
        "squarem" extrapolates over pairs of EM steps; it needs models with ``to_vector() ->
        ndarray`` and ``from_vector(vector) -> model or None``.  Each E-step is an iteration.

    Returns
    -------
    EMResult
        With several maxima equal, of the first start.

    Raises
    ------
    ImpossibleStart
        Every start gives some sequence probability zero; a single one is passed over.

    Warns
    -----
    ConvergenceWarning
        `max_iter` was reached, the objective fell by more than rounding, or Ctrl-C was pressed:
        told apart by their texts.
    """
    starts = list(starts)
    progress = _Progress(name, verbose, max_iter)
    best: _Run | None = None
    impossible: ImpossibleStart | None = None
    interrupted = False
    with limit_threads(sequences.n_steps):
        try:
            for i, start in enumerate(starts):
                if len(starts) > 1:
                    progress.run = f" start {i + 1} of {len(starts)},"
                try:
                    run = _Run(start, sequences, n_jobs, progress, acceleration)
                except ImpossibleStart as error:  # another start may do
                    impossible = error
                    continue
                best = run if best is None else best
                run.advance(min(SHORT_RUN, max_iter) if len(starts) > 1 else max_iter, tol)
                best = max(best, run, key=lambda one: one.objectives[-1])
            if best is None:
                raise impossible
            progress.run = ""
            best.advance(max_iter, tol)
        except KeyboardInterrupt:
            if best is None:
                raise
            interrupted = True
    _warn_unfinished(best, name, max_iter, tol, interrupted)
    return EMResult(
        best.model, best.statistics, best.objectives, best.log_likelihoods, best.n_iter,
        best.converged,
    )  # fmt: skip


def _warn_unfinished(run: _Run, name: str, max_iter: int, tol: float, interrupted: bool) -> None:
    if interrupted:
        message = (
            f"Fitting {name} was interrupted after {run.n_iter} iterations: the best parameters so "
            "far are kept; fit with warm_start=True goes on from there."
        )
    elif not run.converged and run.n_iter >= max_iter > 0:
        gain = np.diff(run.objectives[-2:])[0]
        message = (
            f"{name} did not converge in max_iter={max_iter} iterations: the last one gained "
            f"{gain:.2e} nats per step, tol is {tol:g}. Raise max_iter or tol, or start from other "
            "values."
        )
    else:
        return
    warnings.warn(message, ConvergenceWarning, stacklevel=4)
