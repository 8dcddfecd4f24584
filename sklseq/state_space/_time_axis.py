"""Parameters with a leading time axis, as they come in: entry t belongs to step t of a sequence.

Entry t of a transition leads into step t, so that its entry 0 is not used.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from sklseq._validation import check_parameter_array
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
    timed = name in MAY_VARY and np.ndim(value) == 3
    if name.endswith("covariance"):
        return check_covariance(value, name, shape[0], times=timed)
    return check_parameter_array(value, name, (None, *shape) if timed else shape)


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
