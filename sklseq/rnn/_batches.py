"""From sequences to the ragged, time-major batches of the kernels.

Sequences lie end to end in one flat array of inputs (codes of symbols, or numbers), each given by
its start and length.  A ``SequenceBatch`` is some of them sorted by falling length; its ``window``
is a run of time steps of all of them in packed order: step after step, the sequences that have it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sklseq.rnn import _recurrence as kernels


@dataclass(frozen=True)
class Window:
    """Steps of a batch: counts (T,) sequences alive at each; in packed order (N,) the index into
    the flat inputs and the row, the sequence's place in the batch."""

    counts: np.ndarray
    index: np.ndarray
    rows: np.ndarray

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
            SequenceBatch(*(np.ascontiguousarray(part[i::n])
                            for part in (self.rows, self.starts, self.lengths)))
            for i in range(n)
        ]  # fmt: skip

    def window(self, first: int, last: int) -> Window:
        """Steps first, ..., last - 1 of the sequences that have them."""
        counts = np.empty(min(last, self.n_steps) - first, np.int64)
        n = kernels.count_alive(self.lengths, first, counts)
        index, rows = np.empty(n, np.intp), np.empty(n, np.intp)
        kernels.fill_window(self.starts, first, counts, index, rows)
        return Window(counts, index, rows)


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
