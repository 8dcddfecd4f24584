"""Stepwise EM: learning from one chunk of data after another, with sums that forget.

    S_t = (1 - g_t) S_{t-1} + g_t s_t,   g_t = t^-decay,   then an M-step at S_t

where s_t are the expected statistics of chunk t under the parameters before it (Cappé and Moulines
2009, eq. 11, for chunks as in Liang and Klein 2009).  What is mixed are sums and the numbers of
steps behind them, so that a chunk weighs by its length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sklseq._em import EMResult, add_statistics, map_statistics


class Stream(NamedTuple):
    """What is carried from chunk to chunk, as a value.

    Attributes
    ----------
    model : Model
        Has ``moved(statistics, model) -> statistics`` besides what EM asks for.
    statistics : nested tuple of arrays, or None
        The sums, in the form that an E-step at `model` has; None before the first chunk.
    n_steps : float
        The number of steps that they count as.
    n_seen : int
        The number of steps of all chunks.
    n_chunks : int
    end : object
        The state at the end of the last chunk, for what goes on from there; None: not known.
    """

    model: Any
    statistics: Any = None
    n_steps: float = 0.0
    n_seen: int = 0
    n_chunks: int = 0
    end: Any = None

    @classmethod
    def after(cls, result: EMResult, n_steps: int, end=None) -> Stream:
        """After a fit, which counts as the first chunk."""
        return cls(result.model, result.statistics, float(n_steps), n_steps, 1, end)

    def learn(self, statistics, n_steps: int, decay: float) -> Stream:
        """After one more chunk with these statistics at `model`."""
        weight = float(self.n_chunks + 1) ** -decay
        counted = weight * n_steps
        statistics = map_statistics(lambda leaf: weight * leaf, statistics)
        if self.statistics is not None:
            kept = map_statistics(lambda leaf: (1.0 - weight) * leaf, self.statistics)
            statistics = add_statistics(kept, statistics)
            counted += (1.0 - weight) * self.n_steps
        n_seen = self.n_seen + n_steps
        # on the scale of all that was seen: that is what the counts of a prior are added to
        scale = n_seen / counted
        model = self.model.m_step(map_statistics(lambda leaf: scale * leaf, statistics))
        return Stream(
            model, self.model.moved(statistics, model), counted, n_seen, self.n_chunks + 1
        )


def record_chunk(estimator, stream: Stream, log_likelihood: float, n_steps: int) -> None:
    """What ``partial_fit`` leaves besides the parameters; the log-likelihood is the chunk's.

    It belongs to the parameters before the chunk was learned from, so that it is a score of data
    not seen yet.
    """
    value = log_likelihood / n_steps
    prior = stream.model.log_prior() / stream.n_seen
    estimator._stream = stream
    estimator.n_iter_ = getattr(estimator, "n_iter_", -1) + 1
    estimator.converged_ = False
    estimator.log_likelihood_ = value
    for name, number in (("log_likelihoods_", value), ("objectives_", value + prior)):
        setattr(estimator, name, np.append(getattr(estimator, name, ()), number))
