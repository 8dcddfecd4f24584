"""Parameters with a leading time axis, as they come in: entry t belongs to step t of a sequence.

Entry t of a transition leads into step t, so that its entry 0 is not used.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from sklseq._covariance import reshaped_covariance
from sklseq._validation import as_array, check_parameter_array, check_squares
from sklseq.state_space._base import check_covariance
from sklseq.state_space._linear_gaussian import LinearGaussianModel
from sklseq.state_space._observation import GaussianObservation
from sklseq.state_space._timed_observation import TimedObservation

MAY_VARY = (
    "transition_matrix", "transition_covariance", "observation_matrix", "observation_covariance",
)  # fmt: skip


def make_observation(matrix, covariance, *others, **named) -> GaussianObservation:
    """A ``GaussianObservation``, of the kind that its arrays ask for."""
    timed = matrix.ndim == 3 or covariance.ndim == 3
    return (TimedObservation if timed else GaussianObservation)(
        matrix, covariance, *others, **named
    )


def check_timed(value, name: str, shape: tuple) -> np.ndarray:
    """A parameter of `shape`, or with a time axis before it where it may have one."""
    timed = name.removesuffix("_init") in MAY_VARY and as_array(value, name).ndim == 3
    if name.removesuffix("_init").endswith("covariance"):
        return check_covariance(value, name, shape[0], times=timed)
    shape = (None, *shape) if timed else shape
    return check_squares(check_parameter_array(value, name, shape), name)


def shaped_covariance(covariance, covariance_type: str, name: str) -> np.ndarray:
    """A covariance in the form of its type, at every time."""
    if covariance.ndim == 2:
        return reshaped_covariance(covariance, covariance_type, name)
    return np.stack([reshaped_covariance(one, covariance_type, name) for one in covariance])


def check_known(model: LinearGaussianModel) -> None:
    """A time axis is for what is known: covariances as a whole, of matrices the entries that
    change; and no coefficient is learned in an equation that has no noise at some step."""
    held = {**model.chain.held, **model.observation.held}
    for name, value in model.time_varying_parameters().items():
        mask = np.broadcast_to(held.get(name, False), value.shape[1:])
        is_covariance = name.endswith("covariance")
        moves = True if is_covariance else (value != value[:1]).any(axis=0)
        if name not in held or np.any(moves & ~mask):
            parts = "" if is_covariance else ", or hold by a mask the entries that change in time"
            raise ValueError(
                f"{name} has a time axis, which fit takes as known: name it in fixed{parts}."
            )
    if not model.time_varying and not model.tied:
        return
    chain, observation = model.chain, model.observation
    _refuse_noiseless(
        chain, "transition_covariance", chain.transition_covariance,
        {"transition_matrix": chain.transition_matrix, "input_matrix": chain.input_matrix},
    )  # fmt: skip
    _refuse_noiseless(
        observation, "observation_covariance", observation.covariance,
        {"observation_matrix": observation.matrix, "observation_offset": observation.offset,
         "input_matrix": observation.input_matrix},
    )  # fmt: skip
    _refuse_noiseless(
        chain, "initial_state_covariance", chain.initial_covariance,
        {"initial_state_mean": chain.initial_mean},
    )  # fmt: skip


def _refuse_noiseless(part, covariance: str, noise, coefficients: dict) -> None:
    """EM has nothing to say of coefficients in an equation without noise."""
    stack = noise.reshape(-1, *noise.shape[-2:])
    variances = np.diagonal(stack, axis1=1, axis2=2)
    scale = np.sqrt(np.where(variances > 0, variances, 1.0))
    values, vectors = np.linalg.eigh(stack / scale[:, :, None] / scale[:, None, :])
    dead = np.einsum("tij,tj->ti", vectors**2, values <= 1e-13) > 1e-9  # (times, equations)
    if covariance == "transition_covariance" and len(stack) > 1:
        dead[0] = False  # leads into no step
    for name, value in coefficients.items():
        if value is None:
            continue
        shape = value.shape[1:] if value.ndim == 3 else value.shape
        learned = ~np.broadcast_to(part.held.get(name, False), shape).reshape(shape[0], -1)
        times = np.flatnonzero(dead[:, learned.any(axis=1)].any(axis=1))
        if len(times):
            when = f" at step {times[0]}" if noise.ndim == 3 else ""
            raise ValueError(
                f"{name} is to be learned where {covariance} has no noise{when}, in a model with "
                f"a time axis or ties: hold those entries of {name} by fixed, or give the equation "
                "noise."
            )


def at_step(model: LinearGaussianModel, starts: bool, given: dict) -> LinearGaussianModel:
    """The model of one step, whose matrices are `given` where not None.

    `starts`: it is the first of a sequence, into which no transition leads.
    """
    chain, observation = model.chain, model.observation
    p, d = observation.matrix.shape[-2:]
    shapes = {
        "transition_matrix": (d, d), "transition_covariance": (d, d),
        "observation_matrix": (p, d), "observation_covariance": (p, p),
    }  # fmt: skip
    values = {
        "transition_matrix": chain.transition_matrix,
        "transition_covariance": chain.transition_covariance,
        "observation_matrix": observation.matrix,
        "observation_covariance": observation.covariance,
    }
    for name, value in values.items():
        if given[name] is not None:
            shape = shapes[name]
            values[name] = (
                check_covariance(given[name], name, shape[0])
                if name.endswith("covariance")
                else check_parameter_array(given[name], name, shape)
            )
        elif value.ndim == 3:
            if not (starts and name.startswith("transition")):
                raise ValueError(
                    f"{name} has a time axis and filter_update does not know the step: give that "
                    f"of the step as {name}=."
                )
            values[name] = value[0]
    Sigma = values["observation_covariance"]
    correlated = bool(np.any(Sigma[~np.eye(p, dtype=bool)]))
    options = {item.name: getattr(observation, item.name) for item in fields(GaussianObservation)}
    options |= {
        "matrix": values["observation_matrix"],
        "covariance": Sigma,
        "covariance_type": "full" if correlated else observation.covariance_type,
    }
    return replace(
        model,
        chain=replace(
            chain,
            transition_matrix=values["transition_matrix"],
            transition_covariance=values["transition_covariance"],
        ),
        observation=GaussianObservation(**options),
    )
