"""The slope of the log-likelihood of a linear-Gaussian model, and the search that climbs by it.

What this room gives:

``slope(model, statistics)``
    Derivatives of the log-likelihood by every entry of every parameter, in the shapes of the
    parameters.  Fisher's identity: they are the derivatives of EM's expected log-density at the
    parameters of the E-step, so that an E-step is all they cost.
``without_noise(model)``
    Where that fails: coefficients of an equation without noise.  The density has no derivative by
    them, EM no equation for them; of the likelihood, which has one, differences are taken.
``Coordinates(model, statistics)``
    The free entries as one vector without constraints, in units of about a standard error.
``Climb``
    What EM hands over to where it is blind or slow: quasi-Newton steps on these coordinates.

Differences of the exact likelihood, and not the score of the disturbances (Koopman and Shephard
1992): they cost two filter passes an entry, of which such models have few, and need no moments of a
smoother where covariances are singular.

Sources: R. A. Fisher (1925), Proc. Cambridge Phil. Soc. 22; J. H. Koopman and N. Shephard (1992),
Biometrika 79(4); M. Segal and E. Weinstein (1989), IEEE Trans. Information Theory 35(3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError
from scipy.optimize import minimize

from sklseq.state_space._estimate import SINGULAR, is_covariance, noiseless_rows, spectrum
from sklseq.state_space._linear_gaussian import LinearGaussianModel
from sklseq.state_space._stationary import covariance_coordinates, lyapunov_by_doubling

PATIENCE = 20  # iterations of EM before a search by the slope takes over
MOST_FREE = 300  # coordinates of a search: beyond, EM is left alone
MOST_DIFFERENCES = 40  # coordinates whose slope may be taken by differences throughout
SMALL_NOISE = 1e-2  # of what the states move a feature: below, larger noise is tried as well
RESTARTS = 5  # of EM from larger noise
MOST_CONDITIONED = 24  # coordinates whose curvature is found before a round
TRACE = 1e-14  # of the largest variance: no more than rounding
LATE = 10  # evaluations without a gain to speak of, after which running out of them is no matter
STEP = 1e-3  # of a difference, in standard errors
LEAST_OBSERVED = 1e-6  # share of the information that is taken to be observed, at least
OUTSIDE = 1e6  # how far below its start the likelihood is called where there is no model


class Equation(NamedTuple):
    """Coefficients that are learned together: m equations in r regressors."""

    names: tuple  # (parameter, number of its columns), in order
    value: np.ndarray  # (m, r)
    held: np.ndarray  # (m, r)
    gram: np.ndarray  # (r, r), or (m, r, r)
    cross: np.ndarray  # (m, r) sum of E[residual regressor']
    noise: np.ndarray  # (m, m) covariance of the residuals


class Spread(NamedTuple):
    """A covariance of residuals."""

    name: str
    value: np.ndarray
    held: np.ndarray
    covariance_type: str
    counts: np.ndarray  # (m,) residuals that were summed
    second: np.ndarray  # (m, m) sum of E[residual residual'], of a diagonal one its diagonal
    floor: np.ndarray | None  # (m,) least variances


# -- what the model is made of


def equations(model: LinearGaussianModel, statistics) -> list[Equation]:
    """Of the transition, the observation and, where it has parameters of its own, the start."""
    chain, observation = model.chain, model.observation
    moves, seen = statistics
    d = chain.n_components

    def stacked(parts):
        names, values, held = [], [], []
        for name, value in parts:
            if value is None:
                continue
            value = value.reshape(len(value), -1)
            mask = np.asarray(model.held_entries(name))
            mask = mask.reshape(len(value), -1) if mask.ndim else np.broadcast_to(mask, value.shape)
            names.append((name, value.shape[1]))
            values.append(value)
            held.append(mask)
        return tuple(names), np.hstack(values), np.hstack(held)

    transition = stacked([
        ("transition_matrix", chain.transition_matrix), ("input_matrix", chain.input_matrix),
    ])  # fmt: skip
    reading = stacked([
        ("observation_matrix", observation.matrix), ("observation_offset", observation.offset),
        ("observation_input_matrix", observation.input_matrix),
    ])  # fmt: skip
    reading[2][seen.counts == 0] = True  # a feature never seen says nothing
    result = [
        Equation(*transition, moves.gram, moves.cross, chain.transition_covariance),
        Equation(*reading, seen.gram, seen.cross, observation.covariance),
    ]
    if not chain.stationary:
        start = stacked([("initial_state_mean", chain.initial_mean)])
        gram = np.array([[moves.n_sequences]])
        first = moves.first.reshape(d, 1)
        result.append(Equation(*start, gram, first, chain.initial_covariance))
    return result


def spreads(model: LinearGaussianModel, statistics) -> list[Spread]:
    chain, observation = model.chain, model.observation
    moves, seen = statistics

    def spread(name, value, covariance_type, counts, second, floor=None):
        counts = np.broadcast_to(counts, len(value))
        held = np.broadcast_to(model.held_entries(name), value.shape)
        variances = None
        if floor is not None:
            variances = floor.variances
            if covariance_type == "spherical":
                variances = np.full(len(value), variances.max())
        return Spread(name, value, held, covariance_type, counts, second, variances)

    result = [
        spread(
            "transition_covariance", chain.transition_covariance, chain.covariance_type,
            moves.n_transitions, moves.second, chain.floor,
        ),
        spread(
            "observation_covariance", observation.covariance, observation.covariance_type,
            seen.counts, seen.second, observation.floor,
        ),
    ]  # fmt: skip
    if not chain.stationary and chain.start_ratio is None:
        result.append(
            spread(
                "initial_state_covariance", chain.initial_covariance, "full", moves.n_sequences,
                moves.first_second,
            )
        )  # fmt: skip
    return result


def without_noise(model: LinearGaussianModel) -> dict[str, np.ndarray]:
    """Parameter -> mask of the free coefficients that stand in an equation without noise."""
    seen = {
        "observation_input_matrix" if name == "input_matrix" else name: mask
        for name, mask in model.observation.without_noise().items()
    }
    return model.chain.without_noise() | seen


def zero_variances(model: LinearGaussianModel) -> tuple[np.ndarray, float]:
    """Variances of the transition (their numbers) that are 0 and not held, which EM never leaves,
    and how large one would be that explains the data."""
    chain, observation = model.chain, model.observation
    variances = np.diag(chain.transition_covariance)
    held = np.broadcast_to(model.held_entries("transition_covariance"), (len(variances),) * 2)
    reading = np.diag(observation.covariance).mean() / max(
        np.square(observation.matrix).mean(), 1e-300)  # fmt: skip
    largest = max(variances.max(), reading) or np.diag(chain.initial_covariance).min()
    return np.flatnonzero((variances <= TRACE * largest) & ~np.diag(held)), largest


def small_noises(model: LinearGaussianModel) -> tuple[np.ndarray, np.ndarray]:
    """Features whose noise is free and far below what one step of the states adds to them, and
    that size of each feature.

    By its logarithm a variance near 0 has hardly a slope or a curvature, and EM hardly a step.
    """
    R, nothing = model.observation.covariance, np.empty(0, dtype=np.intp)
    if R.ndim == 3 or "observation_covariance" in model.tied:
        return nothing, np.empty(0)
    B, Gamma = model.observation.matrix, model.chain.transition_covariance
    B = B if B.ndim == 3 else B[None]
    Gamma = Gamma.mean(axis=0) if Gamma.ndim == 3 else Gamma
    size = np.einsum("tpi,ij,tpj->p", B, Gamma, B) / len(B)
    held = np.diag(np.broadcast_to(model.held_entries("observation_covariance"), R.shape))
    return np.flatnonzero((np.diag(R) < SMALL_NOISE * size) & ~held), size


def try_larger_noise(run) -> float:
    """Small variances of the observation made larger where the likelihood rises; the gain in
    nats per step."""
    begin = run.objective
    name = "observation_covariance"
    small, size = small_noises(run.reached.model)
    for i in small:
        model = run.reached.model
        values, best, highest = model.parameters(), None, run.reached.log_likelihoods[-1]
        for share in (0.3, 0.1, 0.01):
            lifted = values[name].copy()
            lifted[i, i] = share * size[i]
            if model.observation.covariance_type == "spherical":
                lifted = share * size[i] * np.eye(len(lifted))
            moved = model.with_parameters(values | {name: lifted})
            if moved is None:
                continue
            reached = run.log_likelihood(moved) / run.workers.sequences.n_steps
            if np.isfinite(reached) and reached > highest:
                best, highest = moved, reached
        if best is not None:
            statistics, value = run.evaluate(best)
            if np.isfinite(value) and value > run.objective * run.workers.sequences.n_steps:
                run.record(best, statistics, value)
    return run.objective - begin


# -- the slope


def slope(model: LinearGaussianModel, statistics) -> dict[str, np.ndarray]:
    """Derivatives of the log-likelihood, by Fisher's identity.

    Parameters
    ----------
    model : LinearGaussianModel
    statistics : tuple
        Of an E-step made at this model.

    Returns
    -------
    dict of str -> ndarray
        For each parameter an array of its shape.  Of a covariance C it is G with
        d(log-likelihood) = tr(G dC), symmetric.  In directions without noise it is 0, which is not
        the derivative (see ``without_noise``).
    """
    result = {}
    for equation in equations(model, statistics):
        by_value = _inverse(equation.noise) @ equation.cross
        start = 0
        for name, width in equation.names:
            part = by_value[:, start : start + width]
            result[name] = part if name.endswith("matrix") else part[:, 0]
            start += width
    for spread in spreads(model, statistics):
        result[spread.name] = _slope_of_covariance(spread.value, spread.counts, spread.second)
    return _with_tied_start(model, statistics[0], result)


def _with_tied_start(model, moves, result) -> dict[str, np.ndarray]:
    """With the part of a start that moves with (A, Gamma)."""
    chain = model.chain
    tied = chain.stationary or chain.start_ratio is not None
    if not tied:
        return result
    counts = np.full(chain.n_components, moves.n_sequences)
    by_start = _slope_of_covariance(chain.initial_covariance, counts, moves.first_second)
    if chain.start_ratio is not None:
        result["transition_covariance"] += chain.start_ratio * by_start
        return result
    # P = A P A' + Gamma, by the adjoint equation L = A' L A + G: d/dGamma = L, d/dA = 2 L A P
    A, P = chain.transition_matrix, chain.initial_covariance
    adjoint = lyapunov_by_doubling(A.T, by_start)
    result["transition_covariance"] += adjoint
    result["transition_matrix"] = result["transition_matrix"] + 2 * adjoint @ A @ P
    return result


def _slope_of_covariance(covariance, counts, second) -> np.ndarray:
    """Of -(n log|C| + tr(C^-1 S)) / 2, by each entry."""
    precision = _inverse(covariance)
    if second.ndim == 1:
        second = np.diag(second)
        precision = np.diag(np.diag(precision))
    return (precision @ second @ precision - np.sqrt(np.outer(counts, counts)) * precision) / 2


def _inverse(covariance) -> np.ndarray:
    """C^-1; on the range of a singular C."""
    values, vectors, scale = spectrum(covariance)
    inverse = np.where(values > SINGULAR, 1.0 / np.where(values > SINGULAR, values, 1.0), 0.0)
    return (vectors * inverse) @ vectors.T / np.outer(scale, scale)


# -- the free entries as a vector


@dataclass(frozen=True)
class _Rows:
    """Free coefficients of one equation: value + units v."""

    equation: Equation
    units: list  # for each row the matrix (r_free, r_free) from coordinates to coefficients
    blind: np.ndarray  # (m,) rows whose slope is taken by differences

    @classmethod
    def of(cls, equation: Equation, blind) -> _Rows:
        variances = np.diag(equation.noise)
        units = []
        for i, held in enumerate(equation.held):
            free = ~held
            gram = (equation.gram[i] if equation.gram.ndim == 3 else equation.gram)[free][:, free]
            if blind[i] or not free.any():
                units.append(np.eye(int(free.sum())))
                continue
            scale = np.sqrt(np.where(np.diag(gram) > 0, np.diag(gram), 1.0))
            correlation = gram / np.outer(scale, scale)
            correlation = correlation + 1e-9 * np.eye(len(scale))
            root = np.linalg.inv(np.linalg.cholesky(correlation)).T
            units.append(np.sqrt(variances[i]) * root / scale[:, None])
        return cls(equation, units, blind)

    @property
    def size(self) -> int:
        return int(np.sum(~self.equation.held))

    @property
    def by_differences(self) -> np.ndarray:
        free = ~self.equation.held
        return np.broadcast_to(self.blind[:, None], free.shape)[free]

    def values(self, vector) -> dict[str, np.ndarray]:
        moved = self.equation.value.copy()
        start = 0
        for i, units in enumerate(self.units):
            moved[i, ~self.equation.held[i]] += units @ vector[start : start + len(units)]
            start += len(units)
        result, start = {}, 0
        for name, width in self.equation.names:
            part = moved[:, start : start + width]
            result[name] = part if name.endswith("matrix") else part[:, 0].copy()
            start += width
        return result

    def vector_slope(self, _, slopes) -> np.ndarray:
        columns = [slopes[name].reshape(len(self.units), -1) for name, _ in self.equation.names]
        whole = np.hstack(columns)
        parts = [
            units.T @ whole[i, ~self.equation.held[i]] for i, units in enumerate(self.units)
        ]
        return np.concatenate(parts)

    bounds = None


class _Covariance:
    """A covariance in coordinates of its type (see ``_stationary``), in standard errors."""

    def __init__(self, spread: Spread):
        self.name, value, held = spread.name, spread.value, spread.held
        alive = np.diag(value) > 0
        self.inner = covariance_coordinates(value, alive, held, spread.covariance_type)
        self.unit = np.sqrt(2.0 / max(spread.counts[alive].max(initial=1.0), 1.0))
        self.size = len(self.inner.origin)
        self.by_differences = np.zeros(self.size, dtype=bool)
        self.floor, self.bounds = spread.floor, None
        if self.floor is not None and hasattr(self.inner, "groups"):
            variances = np.where(alive, np.diag(value), 1.0)
            lowest = np.log(np.maximum(self.floor, 1e-300) / variances)
            self.bounds = [
                min(lowest[group > 0].max(initial=-np.inf), 0.0) / self.unit
                for group in self.inner.groups
            ]

    def values(self, vector) -> dict[str, np.ndarray]:
        return {self.name: self.inner.to_matrix(self.unit * vector)}

    def vector_slope(self, vector, slopes) -> np.ndarray:
        return self.unit * self.inner.to_slope(self.unit * vector, slopes[self.name])


class Coordinates:
    """The free entries of a model as one vector, 0 at the model, in about standard errors.

    The units are those of EM's expected log-density, whose curvature is known; coefficients of
    equations without noise have the unit 1 until ``units`` is told better.

    A covariance that stands on its floor, and singular ones but for states without noise, are left
    as they are.
    """

    def __init__(self, model: LinearGaussianModel, statistics):
        self.model = model
        every = self._start_is_singular()
        self.blocks = []
        for equation in equations(model, statistics):
            blind = noiseless_rows(equation.noise)
            if every and equation.names[0][0] == "transition_matrix":
                blind = np.ones_like(blind)
            self.blocks.append(_Rows.of(equation, blind))
        for spread in spreads(model, statistics):
            if _on_floor(spread):
                continue
            try:
                block = _Covariance(spread)
            except LinAlgError:
                continue
            if every and spread.name == "transition_covariance":
                block.by_differences[:] = True
            self.blocks.append(block)
        size = sum(block.size for block in self.blocks)
        self.units, self.mixture = np.ones(size), np.eye(size)
        self.by_differences = np.concatenate([block.by_differences for block in self.blocks])

    def _start_is_singular(self) -> bool:
        """A stationary start that is: its derivatives by A and Gamma are not to be had."""
        chain = self.model.chain
        return chain.stationary and bool(noiseless_rows(chain.initial_covariance).any())

    def __len__(self) -> int:
        return len(self.units)

    def _parts(self, vector):
        vector, start = self.units * (self.mixture @ vector), 0
        for block in self.blocks:
            yield block, vector[start : start + block.size]
            start += block.size

    def bounds(self) -> list:
        result = []
        for block in self.blocks:
            lowest = [None] * block.size if block.bounds is None else block.bounds
            result += [(low, None) for low in lowest]
        return result

    def to_model(self, vector) -> LinearGaussianModel | None:
        """The model there, or None where there is none."""
        values = self.model.parameters()
        for name in ("transition_covariance", "observation_covariance", "initial_state_covariance"):
            values.pop(name, None)
        with np.errstate(over="ignore", invalid="ignore"):
            for block, part in self._parts(vector):
                values |= block.values(part)
        if not all(np.all(np.isfinite(value)) for value in values.values()):
            return None
        for block in self.blocks:
            if isinstance(block, _Covariance) and not is_covariance(values[block.name]):
                return None
        return self.model.with_parameters(values, clip=False)

    def vector_slope(self, vector, slopes) -> np.ndarray:
        """Derivatives by the coordinates, from those by the parameters."""
        parts = [block.vector_slope(part, slopes) for block, part in self._parts(vector)]
        return self.mixture.T @ (self.units * np.concatenate(parts))

    def condition(self, curvature) -> None:
        """Mix the coordinates so that this `curvature` (k, k) of theirs becomes 1; those with a
        bound keep to themselves."""
        bounded = np.array([low is not None for low, _ in self.bounds()], dtype=bool)
        free = np.flatnonzero(~bounded)
        values, vectors = np.linalg.eigh(curvature[np.ix_(free, free)])
        size = np.maximum(np.abs(values), LEAST_OBSERVED)
        self.mixture[np.ix_(free, free)] = vectors / np.sqrt(size)


def _on_floor(spread: Spread) -> bool:
    """A full covariance whose least eigenvalue the floor holds up: it moves by EM's rules only."""
    if spread.floor is None or spread.covariance_type != "full":
        return False
    scale = np.sqrt(np.maximum(spread.floor, 1e-300))
    return bool(np.linalg.eigvalsh(spread.value / np.outer(scale, scale))[0] < 1.01)


# -- the search


class Climb:
    """Goes on where EM stops, by L-BFGS on the likelihood itself.

    EM gains little where much of the information is missing, and nothing for coefficients without
    noise, so that its gains do not tell how far the maximum is.

    Parameters
    ----------
    always : bool
        False: only for models some of whose coefficients EM cannot move.
    """

    def __init__(self, always: bool):
        self.always = always

    def patience(self, model: LinearGaussianModel, max_iter: int, tol: float) -> int:
        """The number of iterations that EM gets."""
        return min(max_iter, PATIENCE) if self._wanted(model, tol) else max_iter

    def _wanted(self, model, tol) -> bool:
        if model.time_varying or model.tied:
            return False
        blind = any(mask.any() for mask in without_noise(model).values())
        return blind or len(zero_variances(model)[0]) > 0 or (self.always and tol > 0)

    def __call__(self, run, max_iter: int, tol: float) -> None:
        model = run.reached.model
        if run.fell:
            return
        if not self._wanted(model, tol):
            if self.always and tol > 0:
                self._restart(run, max_iter, tol)
            return
        search = _Search(run, max_iter, tol)
        if len(search.coordinates) > MOST_FREE:
            run.advance(max_iter, tol)
        else:
            search.go()


    def _restart(self, run, max_iter: int, tol: float) -> None:
        """EM again, from larger noise where that is better."""
        for _ in range(RESTARTS):
            if not run.converged or try_larger_noise(run) <= tol:
                return
            run.converged = False
            run.advance(max_iter, tol)


class _Spent(Exception):
    """No iterations are left."""


class _Search:
    """Rounds of L-BFGS, each in coordinates and units of where it begins."""

    def __init__(self, run, max_iter: int, tol: float):
        self.run, self.left = run, max_iter - run.n_iter
        self.n_steps = run.workers.sequences.n_steps
        self.small = max(tol, 1e-12) * self.n_steps  # nats
        self.round, self.all_differences = 0, False
        self.totals: list[float] = []  # log-likelihood reached before each evaluation of a round
        self._begin()

    def _begin(self) -> None:
        reached = self.run.reached
        self.coordinates = Coordinates(reached.model, reached.statistics)
        self.start = self.total

    @property
    def total(self) -> float:
        """The log-likelihood reached."""
        return self.run.objective * self.n_steps

    def go(self) -> None:
        """Until a round gains nothing to speak of, or iterations are spent."""
        run, begin = self.run, self.total
        believed = run.converged
        if not len(self.coordinates) and not len(zero_variances(run.reached.model)[0]):
            return
        try:
            self._lift()
            if try_larger_noise(run) > 0:
                self._begin()
            flat = self._rounds_end_flat(believed)
            while flat and try_larger_noise(run) * self.n_steps > self.small:
                self.all_differences = False
                self._begin()
                flat = self._rounds_end_flat(False)
            run.converged = flat
        except _Spent:
            late = len(self.totals) > LATE and self.total - self.totals[-LATE] < 0.1 * self.small
            run.converged = late or (believed and self.total - begin < self.small)
            if run.converged:
                run.converged = try_larger_noise(run) * self.n_steps <= self.small
        else:
            run.stalled = not run.converged

    def _lift(self) -> None:
        """Variances off 0, where the likelihood rises."""
        name = "transition_covariance"
        zero, largest = zero_variances(self.run.reached.model)
        for i in zero:
            model = self.run.reached.model
            value = model.parameters()[name]
            for share in (1e-1, 1e-3, 1e-5):
                lifted = value.copy()
                lifted[i] = lifted[:, i] = 0.0
                lifted[i, i] = share * largest
                if model.chain.covariance_type == "spherical":
                    lifted = share * largest * np.eye(len(value))
                moved = model.with_parameters(model.parameters() | {name: lifted})
                if moved is not None:
                    self._try(moved)
        if len(zero):
            self._begin()

    def _try(self, model) -> None:
        statistics, value = self.run.evaluate(model)
        if np.isfinite(value) and value > self.total:
            self.run.record(model, statistics, value)

    def _rounds_end_flat(self, believed: bool) -> bool:
        for number in range(1 + max(self.left, 0)):  # a round that gains spends some of them
            self.round = number
            hidden = self._round()
            if not self.total - self.start > self.small:
                if hidden <= self.enough:
                    return True
                at, many = self.coordinates, len(self.coordinates) > MOST_CONDITIONED
                if many and believed and not at.by_differences.any():
                    return True  # two ways up end here
                if self.all_differences or len(at) > MOST_DIFFERENCES:
                    return believed or hidden <= 0.1 * self.small
                self.all_differences = True  # the slope does not fit: the smoother lost digits
            self._begin()
        return False

    def _round(self) -> float:
        """L-BFGS from where the run is; the gain that the slope at the end promises, in nats."""
        at, origin = self.coordinates, np.zeros(len(self.coordinates))
        self._find_units()
        if self.all_differences:
            at.by_differences[:] = True
        # a slope that hides less than tol even where no more is observed than is thought least
        self.enough = LEAST_OBSERVED * self.small
        far = not self.round and at.by_differences.any()  # EM has not come near
        if not far and len(at) <= min(MOST_CONDITIONED, self.left):
            slopes = self._condition()
            self.enough = 1e-2 * self.small
            hidden = self._hidden(origin, slopes)
            if hidden <= self.enough:
                return hidden
        last = self.total
        self.totals.clear()

        def stop_when_slow(_):
            nonlocal last
            gain, last = self.total - last, self.total
            if gain < 1e-3 * self.small:
                raise StopIteration

        found = minimize(
            self._loss, origin, jac=True, method="L-BFGS-B", bounds=at.bounds(),
            callback=stop_when_slow,
            options={"maxiter": 1000, "ftol": 0.0, "maxcor": 20,
                     "gtol": np.sqrt(2 * self.enough / len(at))},
        )  # fmt: skip
        return self._hidden(found.x, found.jac)

    def _hidden(self, vector, slopes) -> float:
        """What is left to gain where the curvature is 1, in nats; nothing against a bound."""
        lowest = np.array([-np.inf if low is None else low for low, _ in self.coordinates.bounds()])
        slopes = np.where((vector <= lowest) & (slopes > 0), 0.0, slopes)
        return 0.5 * float(slopes @ slopes)

    def _loss(self, vector):
        """Minus the log-likelihood, from that of the start on, and its derivatives."""
        nothing = np.zeros_like(vector)
        model = self.coordinates.to_model(vector)
        if model is None:
            return OUTSIDE * (1 + abs(self.start)), nothing
        if self.left <= 0:
            raise _Spent
        self.left -= 1
        self.totals.append(self.total)
        statistics, value = self.run.evaluate(model)
        if not np.isfinite(value):
            return OUTSIDE * (1 + abs(self.start)), nothing
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            slopes = self.coordinates.vector_slope(vector, slope(model, statistics))
        for j in np.flatnonzero(self.coordinates.by_differences):
            up, down = (self._value(vector, j, step) for step in (STEP, -STEP))
            slopes[j] = (up - down) / (2 * STEP)
        if value > self.total:
            self.run.record(model, statistics, value)
        if not np.all(np.isfinite(slopes)):
            return OUTSIDE * (1 + abs(self.start)), nothing
        return self.start - value, -slopes

    def _condition(self) -> np.ndarray:
        """Coordinates of equal curvature, by differences of the slope, which is returned."""
        size, step = len(self.coordinates), 0.05
        origin = np.zeros(size)
        left, totals = self.left, self.totals
        self.left, self.totals = size + 1, []  # these are no iterations
        _, at_origin = self._loss(origin)
        curvature = np.empty((size, size))
        for j in range(size):
            curvature[j] = (self._loss(step * np.eye(size)[j])[1] - at_origin) / step
        self.left, self.totals = left, totals
        self.coordinates.condition((curvature + curvature.T) / 2)
        return self.coordinates.mixture.T @ at_origin

    def _value(self, vector, j: int, step: float) -> float:
        """The log-likelihood with coordinate j moved."""
        moved = vector.copy()
        moved[j] += step
        model = self.coordinates.to_model(moved)
        return -np.inf if model is None else self.run.log_likelihood(model)

    def _find_units(self) -> None:
        """About a standard error of each coefficient of an equation without noise: where half a nat
        is lost, by the curvature."""
        at = self.coordinates
        origin = np.zeros(len(at))
        for j in np.flatnonzero(at.by_differences):
            step = 1e-3
            for _ in range(40):
                up, down = (self._value(origin, j, size) - self.start for size in (step, -step))
                change = abs(up) + abs(down)
                if np.isfinite(change) and 1e-4 <= change <= 1.0:
                    break
                step = step * 8 if change < 1e-4 else step / 8
            if not np.isfinite(change) or change == 0:
                continue
            curvature, steepness = -(up + down) / step**2, abs(up - down) / (2 * step)
            at.units[j] = 1.0 / max(np.sqrt(max(curvature, 0.0)), steepness / 30)
