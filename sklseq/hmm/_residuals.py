"""Normal pseudo-residuals of a hidden Markov model (Zucchini, MacDonald & Langrock 2016, ch. 6)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, ndtri_exp

from sklseq._sequences import Sequences
from sklseq.hmm._chain import HMM

BLOCK = 8_192  # steps whose distribution functions exist at a time


class PseudoResiduals(NamedTuple):
    """Standard normal quantiles of the probability levels of the observations.

    Attributes
    ----------
    residuals : ndarray of shape (n_steps, n_features)
        Of the middle of the level's interval for discrete families.
    lower, upper : ndarray of shape (n_steps, n_features)
        Of its ends; equal to `residuals` for continuous families.
    """

    residuals: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def pseudo_residuals(model: HMM, sequences: Sequences, *, ordinary: bool) -> PseudoResiduals:
    """Residuals given the steps before, or given all other steps (`ordinary`)."""
    log_weights = _log_state_weights(model, sequences, ordinary)
    result = PseudoResiduals(*(np.empty(sequences.X.shape) for _ in range(3)))
    for start in range(0, sequences.n_steps, BLOCK):
        rows = slice(start, start + BLOCK)
        block = _of_rows(model, sequences.X[rows], log_weights[rows, :, None])
        for whole, part in zip(result, block):
            whole[rows] = part
    return result


def _of_rows(model: HMM, X, log_weights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(middle, lower, upper), (n, D); log_weights (n, K, 1)."""
    below, upto, beyond, onward = (
        logsumexp(log_weights + tail, axis=1) for tail in model.emission.log_tails(X)
    )
    halved = np.log(0.5)
    with np.errstate(invalid="ignore"):  # NaN where X is missing
        middle = _normal_quantile(np.logaddexp(below, upto) + halved,
                                  np.logaddexp(beyond, onward) + halved)  # fmt: skip
    return middle, _normal_quantile(below, onward), _normal_quantile(upto, beyond)


def _log_state_weights(model: HMM, sequences: Sequences, ordinary: bool) -> np.ndarray:
    """log P(s_t = k | the other observations), (n, K); ibid. sec. 5.2."""
    X, offsets = sequences[:2]
    filtered, log_increments = model.filter(X, offsets)
    if np.isneginf(log_increments).any():
        raise ValueError(f"No residuals: {model.why_impossible(sequences)}")
    predicted = np.empty_like(filtered)
    predicted[1:] = filtered[:-1] @ model.transmat
    predicted[offsets[:-1]] = model.startprob
    with np.errstate(divide="ignore"):
        log_weights = np.log(predicted)
    if ordinary:
        log_weights = log_weights + model.log_backward(X, offsets)
    return log_weights - logsumexp(log_weights, axis=1, keepdims=True)


def _normal_quantile(log_below, log_above) -> np.ndarray:
    """From the smaller of the two tails, which has all its digits."""
    return np.where(log_below <= log_above, ndtri_exp(np.minimum(log_below, 0.0)),
                    -ndtri_exp(np.minimum(log_above, 0.0)))  # fmt: skip
