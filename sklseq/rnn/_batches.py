"""From sequences to the ragged, time-major batches of the kernels.

Sequences lie end to end in one flat array of inputs (codes of symbols, or numbers), each given by
its start and length.  A ``SequenceBatch`` is some of them sorted by falling length; its ``window``
is a run of time steps of all of them in packed order: step after step, the sequences that have it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Window:
    """Steps of a batch: counts (T,) sequences alive at each; index (N,) into the flat inputs."""

    counts: np.ndarray
    index: np.ndarray

    @property
    def n_sequences(self) -> int:
        return int(self.counts[0])

    def last_rows(self) -> np.ndarray:
        """Packed row of each sequence's last step within the window."""
        offsets = np.concatenate(([0], np.cumsum(self.counts)))
        lengths = np.searchsorted(-self.counts, -np.arange(1, self.n_sequences + 1), side="right")
        return offsets[lengths - 1] + np.arange(self.n_sequences)


@dataclass(frozen=True)
class SequenceBatch:
    """Sequences sorted by falling length: rows (B,) of the caller, starts (B,), lengths (B,)."""

    rows: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def sorted(cls, rows: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> SequenceBatch:
        order = np.argsort(-lengths, kind="stable")
        return cls(rows[order], starts[order], lengths[order])

    @property
    def n_steps(self) -> int:
        return int(self.lengths[0])

    def shards(self, size: int) -> list[SequenceBatch]:
        """Cut into shards of at most ``size`` sequences of similar lengths, still sorted.

        The number of shards depends on the batch alone, so results do not depend on n_jobs.
        """
        n = -(-len(self.rows) // size)
        if n == 1:
            return [self]
        return [
            SequenceBatch(self.rows[i::n], self.starts[i::n], self.lengths[i::n]) for i in range(n)
        ]

    def window(self, first: int, last: int) -> Window:
        """Steps first, ..., last - 1 of the sequences that have them."""
        last = min(last, self.n_steps)
        # alive at step t: lengths > t; lengths fall, so -lengths is sorted
        counts = np.searchsorted(-self.lengths, -np.arange(first, last), side="left")
        ends = counts.cumsum()
        step = np.repeat(np.arange(last - first), counts)
        row = np.arange(ends[-1]) - (ends - counts)[step]
        return Window(counts.astype(np.int64, copy=False), self.starts[row] + (step + first))


def chunks_by_length(
    starts: np.ndarray, lengths: np.ndarray, max_rows: int
) -> list[SequenceBatch]:
    """All sequences, sorted by falling length, in batches of at most ``max_rows``."""
    everything = SequenceBatch.sorted(np.arange(len(lengths)), starts, lengths)
    return [
        SequenceBatch(
            everything.rows[i : i + max_rows],
            everything.starts[i : i + max_rows],
            everything.lengths[i : i + max_rows],
        )
        for i in range(0, len(lengths), max_rows)
    ]
