"""The minibatch loop: epochs, optimisers, averaged weights, early stopping.  It knows no network.

What is minimised comes as an ``Objective``: something that yields minibatches and gives each one's
loss and gradient at a flat vector of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklseq._notices import keeps_what_it_has, warn
from sklseq._progress import Progress
from sklseq.rnn import _recurrence as kernels

BLOWN_UP = 1.2  # times the loss of the first epoch, or of a uniform guess: more is no noise
UNTRAINED = 0.5  # nats by which random weights may be worse than a uniform guess


class Objective(Protocol):
    def n_minibatches(self) -> int: ...

    def minibatches(self, random: np.random.RandomState) -> Iterable[Any]: ...

    def loss_and_gradient(
        self, parameters: np.ndarray, minibatch: Any, random: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(sums of losses, their weights, gradient of the mean loss)."""

    def mean_loss(self, sums: np.ndarray, weights: np.ndarray) -> float: ...

    def uniform_loss(self, validation: bool) -> float:
        """The mean loss, or minus the validation score, of a guess that knows nothing."""

    def validation_score(self, parameters: np.ndarray) -> float | None: ...


@dataclass(frozen=True)
class Settings:
    """The words of MLPClassifier, and what it lacks; see the estimators' docstrings."""

    solver: str
    alpha: float
    learning_rate: str
    learning_rate_init: float
    beta_1: float
    beta_2: float
    epsilon: float
    momentum: float
    nesterovs_momentum: bool
    max_grad_norm: float
    average_decay: float
    tol: float
    n_iter_no_change: int
    early_stopping: bool
    verbose: bool


class Optimiser:
    """Parameters on their way: the raw ones, the optimiser's moments, and their average.

    Adam (Kingma & Ba 2015, with the bias corrections), with decoupled weight decay as ``"adamw"``
    (Loshchilov & Hutter 2019), or gradient descent with (Nesterov) momentum.  The average is
    exponential with decay min(average_decay, (1 + t)/(10 + t)): the ramp is its bias correction.
    """

    def __init__(self, settings: Settings, parameters: np.ndarray, n_weights: int) -> None:
        self.settings = settings
        self.parameters = parameters.copy()
        self.average = parameters.copy()
        self.n_weights = n_weights
        self.n_updates = 0
        self.mean = np.zeros_like(parameters)
        self.square = np.zeros_like(parameters if settings.solver != "sgd" else parameters[:0])

    def update(self, gradient: np.ndarray, rate: float) -> None:
        """One step along a gradient, its norm clipped at max_grad_norm."""
        settings = self.settings
        self.n_updates += 1
        norm = math.sqrt(kernels.sum_of_squares(gradient))
        scale = min(1.0, settings.max_grad_norm / max(norm, 1e-30))
        step = self._sgd_step if settings.solver == "sgd" else self._adam_step
        step(gradient, rate, scale)
        if settings.average_decay:
            t = self.n_updates
            decay = min(settings.average_decay, (1.0 + t) / (10.0 + t))
            kernels.move_average(1.0 - decay, self.parameters, self.average)

    def _adam_step(self, gradient, rate, scale) -> None:
        s, t = self.settings, self.n_updates
        decoupled = s.solver == "adamw"
        kernels.adam_step(
            self.n_weights,
            scale,
            0.0 if decoupled else s.alpha,
            rate * s.alpha if decoupled else 0.0,
            rate / (1.0 - s.beta_1**t),
            1.0 / math.sqrt(1.0 - s.beta_2**t),
            s.beta_1,
            s.beta_2,
            s.epsilon,
            gradient,
            self.parameters,
            self.mean,
            self.square,
        )

    def _sgd_step(self, gradient, rate, scale) -> None:
        s, parameters, velocity = self.settings, self.parameters, self.mean
        with np.errstate(over="ignore", invalid="ignore"):  # the loss tells of weights that blow up
            step = (rate * scale) * gradient
            step[: self.n_weights] += (rate * s.alpha) * parameters[: self.n_weights]
            velocity *= s.momentum
            velocity -= step
            parameters += s.momentum * velocity - step if s.nesterovs_momentum else velocity

    @property
    def result(self) -> np.ndarray:
        """The weights to predict with."""
        return self.average if self.settings.average_decay else self.parameters


@dataclass
class History:
    """What a training run leaves; ``kept`` are the parameters to predict with."""

    kept: np.ndarray
    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    converged: bool = False

    @property
    def best_validation_score(self) -> float | None:
        return max(self.validation_scores, default=None)


def rate_at(settings: Settings, update: int, n_planned: int) -> float:
    """Learning rate of an update: constant, or half a cosine from the initial rate to zero."""
    if settings.learning_rate == "constant":
        return settings.learning_rate_init
    done = min(update / max(n_planned, 1), 1.0)
    return settings.learning_rate_init * 0.5 * (1.0 + math.cos(math.pi * done))


def run_epoch(
    optimiser: Optimiser,
    objective: Objective,
    random: np.random.RandomState,
    first_update: int,
    n_planned: int,
) -> float:
    """One pass over the data; the mean loss, as met on the way."""
    sums = weights = 0.0
    for update, minibatch in enumerate(objective.minibatches(random), first_update):
        loss, weight, gradient = objective.loss_and_gradient(
            optimiser.parameters, minibatch, random
        )
        if not np.isfinite(loss).all():
            return np.nan
        optimiser.update(gradient, rate_at(optimiser.settings, update, n_planned))
        sums = sums + loss
        weights = weights + weight
    return objective.mean_loss(sums, weights)


def train(
    optimiser: Optimiser,
    objective: Objective,
    n_epochs: int,
    random: np.random.RandomState,
    name: str,
    n_symbols: int,
) -> History:
    """Minimise for at most n_epochs passes; with the parameters to keep.

    Ends when the epochs of the schedule are done, when the validation score (early_stopping) or,
    at a constant rate, the loss has not improved by tol for n_iter_no_change epochs, when the loss
    is no longer finite (then with the weights of the last good epoch), or by Ctrl-C once there was
    an update; each of the last two, and a constant rate to the end, with a warning of its own.
    """
    history = History(optimiser.result.copy())
    try:
        warning = _run_epochs(optimiser, objective, n_epochs, random, name, n_symbols, history)
    except KeyboardInterrupt:
        if not (optimiser.n_updates and keeps_what_it_has()):
            raise
        which = "best" if history.validation_scores else "last"
        if which == "last" and np.isfinite(optimiser.parameters).all():
            history.kept = optimiser.result.copy()
        warning = (
            f"Fitting {name} was interrupted after {len(history.loss_curve)} epochs: the {which} "
            "weights so far are kept; fit with warm_start=True goes on from there."
        )
    if warning:
        warn(warning, ConvergenceWarning, stacklevel=5)
    return history


def _run_epochs(
    optimiser, objective, n_epochs, random, name, n_symbols, history: History
) -> str | None:
    """Passes over the data until training ends; the history as it goes, and what to warn of."""
    settings = optimiser.settings
    per_epoch = objective.n_minibatches()
    best, stale = np.inf, 0
    progress = Progress(name, settings.verbose, "epoch")
    for epoch in range(n_epochs):
        loss = run_epoch(optimiser, objective, random, epoch * per_epoch, n_epochs * per_epoch)
        if not (np.isfinite(loss) and np.isfinite(optimiser.parameters).all()):
            return (
                f"{name}: the loss is not finite in epoch {epoch + 1}; training stops with the "
                "weights of the last good epoch. Lower learning_rate_init or max_grad_norm."
            )
        criterion = float(loss)
        if settings.early_stopping:
            criterion = -objective.validation_score(optimiser.result)
        if not settings.early_stopping or criterion < best:
            history.kept = optimiser.result.copy()
        history.loss_curve.append(float(loss))
        if settings.early_stopping:
            history.validation_scores.append(-criterion)
        progress.step(epoch + 1, n_epochs, _reached(history), n_epochs - epoch - 1)
        stale = 0 if criterion < best - settings.tol else stale + 1
        best = min(best, criterion)
        waits = settings.early_stopping or settings.learning_rate == "constant"
        if waits and stale >= settings.n_iter_no_change:
            history.converged = True
            break
    blown_up = _blown_up(history, objective, settings.early_stopping)
    if blown_up:
        history.converged = False
        return f"{name}: {blown_up}. Lower learning_rate_init or max_grad_norm."
    history.converged = history.converged or settings.learning_rate != "constant"
    n_epochs_done = len(history.loss_curve)
    progress.summary(history.converged, n_epochs_done, _reached(history), n_symbols, "characters")
    if history.converged:
        return None
    return f"{name}: max_iter ({n_epochs}) reached and the training has not converged yet."


def _blown_up(history: History, objective: Objective, early_stopping: bool) -> str | None:
    """What tells that a training ended worse than it began, or than a guess that knows nothing."""
    first, last = history.loss_curve[0], history.loss_curve[-1]
    if last > BLOWN_UP * first and not early_stopping:
        return f"the loss rose from {first:.3g} in the first epoch to {last:.3g} in the last"
    reached = -history.best_validation_score if early_stopping else last
    uniform = objective.uniform_loss(early_stopping)
    if reached > BLOWN_UP * uniform + UNTRAINED:
        return f"the loss ended at {reached:.3g}, but a uniform guess has {uniform:.3g}"
    return None


def _reached(history: History) -> str:
    """Loss and validation score, for a line of progress."""
    line = f"loss {history.loss_curve[-1]:.4f}"
    if history.validation_scores:
        line += f", validation {history.validation_scores[-1]:.4f}"
    return line
