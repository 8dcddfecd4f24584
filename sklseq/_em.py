"""The EM loop: starting values, convergence, history, progress; adds statistics over shards.

A model is a value with ``e_step(X, offsets, *aligned) -> (statistics, log_likelihood)``,
``m_step(statistics) -> model`` and ``log_prior() -> float``.  Statistics are nested tuples of
arrays that add, so several sequences, cores or machines need nothing more.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any, NamedTuple, Protocol

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklseq._notices import keeps_what_it_has, warn
from sklseq._progress import Progress
from sklseq._sequences import Sequences, iterate_shards, limit_threads
from sklseq._workers import Workers, WorkersLost

SHORT_RUN = 10  # iterations of each of several starting values, before the better half goes on
ROUNDING = 1e-10  # relative fall of the objective that is rounding, not a fault


class Model(Protocol):
    """What the EM loop asks of a model."""

    def e_step(self, X, offsets, *aligned) -> tuple[Any, float]: ...

    def m_step(self, statistics) -> Model: ...

    def log_prior(self) -> float: ...

    def why_impossible(self, sequences: Sequences) -> str: ...

    def part(self, rows: slice) -> Model:
        """What an E-step of these rows of the training data needs of the model."""


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
    fell : bool
        The next iteration would have lowered the objective.
    """

    model: Any
    statistics: Any
    objectives: list[float]
    log_likelihoods: list[float]
    n_iter: int
    converged: bool
    fell: bool = False


def add_statistics(left, right):
    """Sum of two equal trees of (named) tuples with arrays or numbers at the leaves."""
    if not isinstance(left, tuple):
        return left + right
    parts = [add_statistics(a, b) for a, b in zip(left, right)]
    return type(left)(*parts) if hasattr(left, "_fields") else tuple(parts)


def map_statistics(function, tree):
    """The tree with `function` applied to every leaf."""
    if not isinstance(tree, tuple):
        return function(tree)
    parts = [map_statistics(function, part) for part in tree]
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


def expect(model: Model, sequences: Sequences, n_jobs: int | None = None):
    """E-step over all shards: (statistics, log-likelihood), added in a fixed order."""
    with Workers(sequences, n_jobs, _shard_steps(model)) as workers:
        try:
            return _expect(model, workers)
        except ImpossibleStart as error:  # a name for this module only
            raise ValueError(str(error)) from None


def _expect(model: Model, workers: Workers):
    statistics, log_likelihood = _add_up(model, workers)
    if not np.isfinite(log_likelihood):
        raise ImpossibleStart(f"Cannot fit: {model.why_impossible(workers.sequences)}")
    return statistics, log_likelihood


def _add_up(model: Model, workers: Workers):
    # what overflows makes an objective that is no number, which ends the run with a word
    with np.errstate(over="ignore", invalid="ignore"):
        parts = workers.map(_e_step, _parts(model, workers.pieces))
    return reduce(add_statistics, (part[0] for part in parts)), sum(part[1] for part in parts)


def _e_step(model: Model, piece: Sequences):
    """E-step of a piece, shard by shard."""
    if piece.n_sequences == 1:
        return model.e_step(piece.X, piece.offsets, *piece.aligned)
    shards = list(iterate_shards(piece, _shard_steps(model)))
    parts = [
        part.e_step(shard.X, shard.offsets, *shard.aligned)
        for part, shard in zip(_parts(model, shards), shards)
    ]
    return reduce(add_statistics, (part[0] for part in parts)), sum(part[1] for part in parts)


def _log_likelihood(model: Model, piece: Sequences) -> float:
    return float(model.sequence_scores(piece.X, piece.offsets, *piece.aligned)[0].sum())


def _shard_steps(model: Model) -> int | None:
    return getattr(model, "shard_steps", None)


def _parts(model: Model, pieces: list[Sequences]) -> list[Model]:
    """The model for each of successive pieces."""
    ends = np.cumsum([piece.n_steps for piece in pieces])
    return [model.part(slice(end - piece.n_steps, end)) for end, piece in zip(ends, pieces)]


class _Reached(NamedTuple):
    """How far a run has come; replaced as a whole, so that Ctrl-C finds it complete."""

    model: Any
    statistics: Any
    objectives: tuple[float, ...]
    log_likelihoods: tuple[float, ...]


class _Run:
    """One starting value on its way to a fixed point."""

    def __init__(self, start, workers: Workers, progress: Progress, acceleration: str | None):
        self.workers, self.progress, self.acceleration = workers, progress, acceleration
        self.converged = self.fell = False
        self.stalled = False  # a climb ended with iterations left
        self.fell_to = np.nan
        self.reached = _Reached(start, None, (), ())
        self.record(start, *_expect(start, workers))

    @property
    def n_iter(self) -> int:
        return len(self.reached.objectives) - 1

    @property
    def objective(self) -> float:
        return self.reached.objectives[-1]

    def _objective_of(self, model, log_likelihood) -> float:
        return (log_likelihood + model.log_prior()) / self.workers.sequences.n_steps

    def record(self, model, statistics, log_likelihood) -> None:
        before = self.reached
        self.reached = _Reached(
            model,
            statistics,
            (*before.objectives, self._objective_of(model, log_likelihood)),
            (*before.log_likelihoods, log_likelihood / self.workers.sequences.n_steps),
        )

    def evaluate(self, model):
        """(statistics, log-likelihood) of an E-step that is no iteration yet."""
        return _add_up(model, self.workers)

    def log_likelihood(self, model) -> float:
        """Without statistics."""
        return sum(self.workers.map(_log_likelihood, _parts(model, self.workers.pieces)))

    def advance(self, max_iter: int, tol: float) -> None:
        """Iterate until `max_iter` in all, convergence, or a fall of the objective."""
        while not (self.converged or self.fell) and self.n_iter < max_iter:
            start = self.reached.model
            gain = self._step(start.m_step(self.reached.statistics))
            if self.acceleration and not self.fell and self.n_iter < max_iter:
                _report(self.progress, self, max_iter, tol)
                gain = max(gain, self._leap(start))
            if self.fell:
                return
            self.converged = gain < tol
            _report(self.progress, self, max_iter, tol)

    def _step(self, model) -> float:
        """Go on to what an M-step gave; returns the gain per step."""
        statistics, log_likelihood = _expect(model, self.workers)
        before = self.objective
        now = self._objective_of(model, log_likelihood)
        if not now >= before and not now >= before - self._rounding(model):
            self.fell, self.fell_to = True, now
            return 0.0
        self.record(model, statistics, log_likelihood)
        return now - before

    def _rounding(self, model) -> float:
        """Fall of the objective, in nats per step, that is rounding.

        Posterior probabilities are differences of log-likelihoods, so their relative error is the
        last digit of the total.  It moves the M-step away from its maximum, which costs its square.
        A model may know more of its own densities.
        """
        total = self.objective * self.workers.sequences.n_steps
        with np.errstate(over="ignore"):  # of counts beyond all sense: nothing is a fall
            relative = ROUNDING + (np.finfo(float).eps * total) ** 2
        return relative * max(1.0, abs(self.objective)) + getattr(model, "rounding", 0.0)

    def _leap(self, start) -> float:
        """Squared extrapolation along two EM steps from `start`, of which the first was taken.

        Varadhan and Roland (2008), scheme S3.  A leap that does not raise the objective is left
        for the second EM step, so the objective never falls.
        """
        following = self.reached.model.m_step(self.reached.statistics)
        model = _extrapolate(start, self.reached.model, following)
        if model is not None:
            statistics, log_likelihood = _add_up(model, self.workers)
            before = self.objective
            now = self._objective_of(model, log_likelihood)
            if np.isfinite(now) and now >= before:
                self.record(model, statistics, log_likelihood)
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


def _objective(run: _Run) -> str:
    return f"objective {run.objective:.8g} nats per step"


def _report(progress: Progress, run: _Run, max_iter: int, tol: float) -> None:
    gain = run.objective - run.reached.objectives[-2]
    what = f"{_objective(run)}, gain {gain:.2e}"
    progress.step(run.n_iter, max_iter, what, _iterations_left(run, max_iter, tol))


def _iterations_left(run: _Run, max_iter: int, tol: float) -> int:
    """A guess: gains go on shrinking as they did over the last iterations, until one is below tol.

    EM converges linearly (Dempster, Laird and Rubin 1977, theorem 4).
    """
    if run.converged:
        return 0
    left = max_iter - run.n_iter
    gains = np.diff(run.reached.objectives[-5:])
    if len(gains) > 1 and tol > 0 and 0 < gains[-1] < gains[0]:
        log_rate = np.log(gains[-1] / gains[0]) / (len(gains) - 1)
        left = min(left, max(1, int(np.ceil(np.log(tol / gains[-1]) / log_rate))))
    return left


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
    finish: bool = True,
    fall_is_a_fault: bool = True,
    climb=None,
) -> EMResult:
    """Fit by EM from one or several starting values and keep the best.

    Parameters
    ----------
    starts : iterable of Model
        Several run a race (`_race`); the first one is finished in any case, so that more starts
        are never worse.
    sequences : Sequences
    max_iter : int
    tol : float
        A run has converged when the objective gains less than this, in nats per step.
    n_jobs : int or None
    verbose : int
        As of `Progress`.
    name : str
        Of the estimator, for messages.
    acceleration : {"squarem", None}
        "squarem" extrapolates over pairs of EM steps; it needs models with ``to_vector() ->
        ndarray`` and ``from_vector(vector) -> model or None``.  Each E-step is an iteration.
    finish : bool
        False ends with the short runs, without a warning.
    fall_is_a_fault : bool
        False: the objective is not exact and may fall; the caller says what that means.
    climb : object or None
        Takes over after ``patience(model, max_iter, tol)`` iterations: ``climb(run, max_iter,
        tol)`` calls ``run.evaluate``, ``run.record`` and sets ``run.converged``.  EM moves by what
        is missing, and not at all where an equation has no noise.

    Returns
    -------
    EMResult
        With several maxima equal, of the first start.

    Raises
    ------
    ValueError
        Every start gives some sequence probability zero; a single one is passed over.

    Warns
    -----
    ConvergenceWarning
        `max_iter` was reached, the objective fell by more than rounding, Ctrl-C was pressed or all
        workers were lost: told apart by their texts.
    """
    starts, max_iter = list(starts), int(max_iter)  # which may be one of NumPy's small integers
    progress = Progress(name, verbose)
    runs: list[_Run] = []
    impossible: ImpossibleStart | None = None
    interrupted: str | None = None  # why, beside Ctrl-C
    alone = len(starts) == 1 and finish
    short = _patience(climb, starts[0], max_iter, tol) if alone else min(SHORT_RUN, max_iter)
    workers = Workers(sequences, n_jobs, _shard_steps(starts[0]))
    with limit_threads(sequences.n_steps), workers:
        try:
            for i, start in enumerate(starts):
                if len(starts) > 1:
                    progress.later = short * (len(starts) - i - 1)
                try:
                    runs.append(_Run(start, workers, progress, acceleration))
                except ImpossibleStart as error:  # another start may do
                    impossible = error
                    continue
                runs[-1].advance(short, tol)
                if len(starts) > 1:
                    progress.line(
                        f"start {i + 1} of {len(starts)}: {_objective(runs[-1])} after "
                        f"{runs[-1].n_iter} iterations"
                    )
            if not runs:
                raise ValueError(str(impossible)) from None
            progress.later = 0
            if finish:
                _race(runs, _patience(climb, starts[0], max_iter, tol), tol)
                if climb is not None:
                    best = _best(runs)
                    for run in [best] if best is runs[0] else [best, runs[0]]:
                        climb(run, max_iter, tol)
        except (KeyboardInterrupt, WorkersLost) as error:
            if not runs or (isinstance(error, KeyboardInterrupt) and not keeps_what_it_has()):
                raise
            interrupted = "" if isinstance(error, KeyboardInterrupt) else f" {error}"
    best = _best(runs)
    fallen = next((run for run in runs if run.fell), None)
    if fallen is not None and fall_is_a_fault:
        warn(
            f"The objective fell from {fallen.objective} to {fallen.fell_to} nats per step in "
            f"iteration {fallen.n_iter + 1}, which EM cannot do: the parameters before it are "
            "kept. Please report this as a bug of sklseq.",
            ConvergenceWarning,
            stacklevel=5,
        )
    if finish or interrupted is not None:
        converged = best.converged and interrupted is None
        progress.summary(converged, best.n_iter, _objective(best), sequences.n_steps, "steps")
        _warn_unfinished(best, name, max_iter, tol, interrupted)
    return EMResult(
        best.reached.model,
        best.reached.statistics,
        list(best.reached.objectives),
        list(best.reached.log_likelihoods),
        best.n_iter,
        best.converged and interrupted is None,
        best.fell,
    )


def _race(runs: list[_Run], max_iter: int, tol: float) -> None:
    """Successive halving: the better half goes on for twice as many iterations, the last one to its
    end; so does the first of all.

    A start that rises slowly at first is not lost to those that are soon at their end (Karnin,
    Koren & Somekh 2013, "Almost optimal exploration in multi-armed bandits", ICML).
    """
    left, budget = list(runs), SHORT_RUN
    while len(left) > 1 and budget < max_iter:
        left = sorted(left, key=lambda run: run.objective, reverse=True)[: (len(left) + 1) // 2]
        budget = min(2 * budget, max_iter)
        for run in left:
            run.advance(budget, tol)
    _best(left).advance(max_iter, tol)
    runs[0].advance(max_iter, tol)


def _patience(climb, model, max_iter: int, tol: float) -> int:
    return max_iter if climb is None else climb.patience(model, max_iter, tol)


def _best(runs: list[_Run]) -> _Run:
    """Of largest objective; the first of equals."""
    return max(runs, key=lambda run: run.objective)


def _warn_unfinished(
    run: _Run, name: str, max_iter: int, tol: float, interrupted: str | None
) -> None:
    if interrupted is not None:
        message = (
            f"Fitting {name} was interrupted after {run.n_iter} iterations: the best parameters so "
            f"far are kept; fit with warm_start=True goes on from there.{interrupted}"
        )
    elif run.stalled and not run.fell:
        message = (
            f"{name} did not converge: the search ended after {run.n_iter} of max_iter={max_iter} "
            f"iterations on a flat ridge, where a gain of tol={tol:g} nats per step cannot be told "
            "from rounding. Raise tol, or start from other values."
        )
    elif not run.converged and not run.fell and run.n_iter > 0:
        gain = np.diff(run.reached.objectives[-2:])[0]
        message = (
            f"{name} did not converge in max_iter={max_iter} iterations: the last one gained "
            f"{gain:.2e} nats per step, tol is {tol:g}. Raise max_iter or tol, or start from other "
            "values."
        )
    else:
        return
    warn(message, ConvergenceWarning, stacklevel=5)  # who called fit
