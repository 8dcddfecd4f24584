"""BaseStateSpace: what every estimator over a linear-Gaussian chain says of its states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_array

from sklseq._base import BaseSequenceModel
from sklseq._covariance import mend_covariance
from sklseq._sequences import (
    Sequences,
    as_list,
    in_order_of,
    is_collection,
    labels_of,
    map_rows,
)
from sklseq._validation import (
    as_array,
    as_fitted,
    check_choice,
    check_em_parameters,
    check_parameter_array,
    check_squares,
)
from sklseq.state_space._chain import LinearGaussianChain, Moments
from sklseq.state_space._start import state_variances
from sklseq.state_space._stationary import stationary_covariance

DIFFUSE = 1e10  # variance of a diffuse start, in variances of the state
UNKNOWN = 1e6  # the same where nothing was said about the start and the chain has none


class Forecast(NamedTuple):
    """Future observations.

    Attributes
    ----------
    means : ndarray of shape (n_steps, n_features), or (n_sequences, n_steps, n_features)
    covariances : ndarray of shape (n_steps, n_features, n_features), or with n_sequences before
        The observation noise included.
    """

    means: np.ndarray
    covariances: np.ndarray


class BaseStateSpace(BaseSequenceModel):
    """The chain's parameters, fitted attributes and start; an observation family adds the rest."""

    # ---- parameters of the chain

    def _check_chain_parameters(self) -> None:
        check_em_parameters(self)
        check_choice(self, "transition_covariance_type", ("full", "diag", "spherical"))
        check_choice(self, "initial_state", ("learn", "stationary", "diffuse"))
        if not isinstance(self.acceleration, str | None) or self.acceleration not in (
            "squarem", None,
        ):  # fmt: skip
            raise ValueError(f"acceleration must be 'squarem' or None, got {self.acceleration!r}.")
        if self.initial_state != "learn":
            for name in ("initial_state_mean", "initial_state_covariance"):
                if getattr(self, f"{name}_init") is not None:
                    raise ValueError(
                        f"initial_state={self.initial_state!r} says where states start, so "
                        f"{name}_init must be None."
                    )

    def _chain_shapes(self) -> dict[str, tuple | None]:
        d = self.n_components
        return {
            "transition_matrix": (d, d),
            "transition_covariance": (d, d),
            "initial_state_mean": (d,),
            "initial_state_covariance": (d, d),
        }

    def _given(self, name: str, shape: tuple) -> np.ndarray | None:
        value = getattr(self, f"{name}_init")
        if value is None:
            return None
        if name.endswith("covariance"):
            return check_covariance(value, f"{name}_init", shape[0])
        return check_squares(check_parameter_array(value, f"{name}_init", shape), f"{name}_init")

    def _chain_held(self, held: Mapping, n_starts: int) -> dict:
        """The user's masks, and P0 where fewer starts than that were seen cannot tell it."""
        chain_held = {name: held[name] for name in self._chain_shapes() if name in held}
        if self.initial_state == "diffuse":
            chain_held["initial_state_mean"] = np.array(True)
        learns = self.initial_state == "learn" and n_starts > self.n_components
        if not learns:
            chain_held["initial_state_covariance"] = np.array(True)
        return chain_held

    def _start_chain(self, A, Gamma, B, X, input_matrix=None) -> LinearGaussianChain:
        """A chain with a start: given, stationary, diffuse, or wide enough for what is learned."""
        d = self.n_components
        mean = self._given("initial_state_mean", (d,))
        covariance = self._given("initial_state_covariance", (d, d))
        chain = LinearGaussianChain(
            A, Gamma, np.zeros(d) if mean is None else mean, np.eye(d), input_matrix,
            self.transition_covariance_type,
        )  # fmt: skip
        if self.initial_state == "stationary":
            return at_stationary_start(chain)
        if covariance is None:
            covariance = None if chain.time_varying else stationary_covariance(A, Gamma)
            variances = state_variances(A, Gamma, B, X)
            if self.initial_state == "diffuse":
                covariance = np.diag(DIFFUSE * variances)
            elif covariance is None:
                covariance = np.diag(UNKNOWN * variances)
        return replace(chain, initial_covariance=covariance)

    def _tied_start(
        self, chain: LinearGaussianChain, held: Mapping, settled: bool
    ) -> LinearGaussianChain:
        """Where P0 is neither given nor learned it keeps its size relative to Gamma, unless what is
        known has `settled` the units of the state."""
        given = self.initial_state_covariance_init is not None
        learned = "initial_state_covariance" not in held
        elsewhere = given or learned or "transition_covariance" in held
        if self.initial_state != "learn" or elsewhere or settled:
            return chain
        unit = np.diag(chain.transition_covariance)
        if not np.all(unit > 0):
            return chain
        ratio = float(np.max(np.diag(chain.initial_covariance) / unit))
        return replace(
            chain, start_ratio=ratio, initial_covariance=ratio * chain.transition_covariance
        )

    # ---- value <-> fitted attributes

    def _set_chain(self, chain: LinearGaussianChain) -> None:
        self.transition_matrix_ = chain.transition_matrix
        self.transition_covariance_ = chain.transition_covariance
        self.initial_state_mean_ = chain.initial_mean
        self.initial_state_covariance_ = chain.initial_covariance

    def _chain(self, *, times: bool = False) -> LinearGaussianChain:
        d = self.n_components
        return LinearGaussianChain(
            as_fitted(self, "transition_matrix_", (d, d), times=times),
            as_fitted(self, "transition_covariance_", (d, d), "covariance", times=times),
            as_fitted(self, "initial_state_mean_", (d,)),
            as_fitted(self, "initial_state_covariance_", (d, d), "covariance"),
            covariance_type=self.transition_covariance_type,
        )

    def _continued(self, chain: LinearGaussianChain, sequences, inputs=None):
        """The chain, started where training ended if ``continues`` says so."""
        if not self.continues:
            return chain
        if getattr(self, "final_state_mean_", None) is None:
            raise ValueError(
                "continues=True needs a model fitted on one sequence, whose end it goes on from; "
                "this one was not."
            )
        if sequences.form != "flat" or sequences.n_sequences > 1:
            return chain
        d = self.n_components
        end = Moments(
            as_fitted(self, "final_state_mean_", (d,))[None],
            as_fitted(self, "final_state_covariance_", (d, d), "covariance")[None],
        )
        return chain.continued(end, inputs)

    def _set_final(self, moments: Moments | None) -> None:
        """The state at the end of training, or None after several sequences."""
        self.final_state_mean_ = None if moments is None else moments.means[0]
        self.final_state_covariance_ = None if moments is None else moments.covariances[0]

    def _of_states(self, X, function, inputs=None):
        """``function(states, inputs)`` of states in any form that X may have."""

        def one(states, u):
            states = check_array(states, dtype=np.float64, input_name="X")
            if states.shape[1] != self.n_components:
                raise ValueError(
                    f"X must have n_components={self.n_components} columns, got {states.shape[1]}."
                )
            if u is not None:
                u = check_array(u, dtype=np.float64, input_name="inputs")
                if len(u) != len(states):
                    raise ValueError(
                        f"inputs must have one row for each step of X: got {len(u)} rows for "
                        f"{len(states)} steps."
                    )
            return function(states, u)

        inputs = in_order_of(labels_of(X), inputs, "inputs")
        X = as_list(X)
        if not is_collection(X):
            return one(X, inputs)
        if inputs is not None and len(inputs) != len(X):
            raise ValueError(
                f"inputs must hold one array for each sequence of X: got {len(inputs)} for "
                f"{len(X)} sequences."
            )
        parts = [one(states, None if inputs is None else inputs[i]) for i, states in enumerate(X)]
        if isinstance(X, np.ndarray) and X.ndim == 3:
            return np.stack(parts)
        result = np.empty(len(parts), dtype=object)
        for i, part in enumerate(parts):
            result[i] = part
        return result

    def _run(self, method, sequences: Sequences) -> list[np.ndarray]:
        with self._limit_threads(sequences):
            return map_rows(method, sequences, self.n_jobs)


def seen_rows(X) -> np.ndarray:
    """Which rows say anything about their states, (n_steps,): some entry is there, some word."""
    if issparse(X):
        return np.asarray(X.sum(axis=1)).reshape(-1) > 0
    return ~np.isnan(X).all(axis=1)


def n_seen(sequences: Sequences) -> int:
    """How many sequences say anything: the others are no starts to learn from."""
    return int(np.logical_or.reduceat(seen_rows(sequences.X), sequences.offsets[:-1]).sum())


def check_observation_matrix(value) -> np.ndarray:
    if as_array(value, "observation_matrix").ndim != 2:
        raise ValueError(
            "observation_matrix must have shape (n_features, n_components), got "
            f"{np.shape(value)}."
        )
    return check_parameter_array(value, "observation_matrix", (None, None))


def check_covariance(value, name: str, n: int | None, *, times: bool = False) -> np.ndarray:
    """A positive semi-definite (n, n) from a square matrix, n variances, or one variance, rounding
    taken out.

    With `times` a leading time axis is let through.
    """
    array = as_array(value, name, np.float64)
    if array.ndim == 0 or (array.ndim == 1 and n is not None):
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} must be finite, got {value!r}.")
        if array.ndim == 1 and array.shape != (n,):
            raise ValueError(f"{name} must have {n} variances, got {len(array)}.")
        array = np.diag(np.broadcast_to(array, (n,)))
    shape = (None, n, n) if times and array.ndim == 3 else (n, n)
    array = check_parameter_array(array, name, shape)
    return np.ascontiguousarray(mend_covariance(array, name))


def at_stationary_start(chain: LinearGaussianChain) -> LinearGaussianChain:
    """The chain, started in its stationary distribution; an error where it has none."""
    if chain.time_varying:
        raise ValueError(
            "initial_state='stationary' needs a transition without a time axis: a chain that "
            "changes has no stationary distribution."
        )
    started = chain.at_stationary_start()
    if started is None:
        radius = np.abs(np.linalg.eigvals(chain.transition_matrix)).max()
        raise ValueError(
            "initial_state='stationary' needs a transition matrix whose eigenvalues are "
            f"smaller than 1 in size, got {radius}."
        )
    return started
