"""What the recurrent networks minimise: minibatches of sequences, cut into shards for the threads.

A minibatch is up to ``batch_size`` sequences.  With ``bptt_steps`` it is run in windows of so many
steps, one update each, the states carried from window to window but not the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from sklseq.rnn._batches import SequenceBatch
from sklseq.rnn._network import Architecture, Evaluation, Network, PackedNetwork, Targets, Workspace
from sklseq.rnn._vocabulary import UNKNOWN

SHARD_ROWS = 32  # sequences of a shard: fixed, so that results do not depend on n_jobs


@dataclass
class Shard:
    """A part of a minibatch, with the states it has reached."""

    batch: SequenceBatch
    states: list[tuple[np.ndarray, np.ndarray]] | None = None


@dataclass
class Minibatch:
    shards: list[Shard]
    first: int
    last: int


@dataclass
class SequenceObjective:
    """Mean label loss + next_weight * mean next-symbol loss over weighted sequences.

    inputs : flat codes (int32, as ``_vocabulary`` lays them out) or numbers.
    starts, lengths, weights : of the sequences.  labels : (n,) or None for no label loss.
    """

    architecture: Architecture
    inputs: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    weights: np.ndarray
    labels: np.ndarray | None
    next_weight: float
    batch_size: int
    shuffle: bool
    dropout: float
    symbol_dropout: float = 0.0
    bptt_steps: int | None = None
    pool: ThreadPoolExecutor | None = None
    score_parameters: Callable[[np.ndarray], float] | None = None
    _workspaces: list[Workspace] = field(default_factory=list)
    _network: Network | None = None
    _packed: PackedNetwork | None = None

    def n_minibatches(self) -> int:
        if self.bptt_steps is None:
            return -(-len(self.starts) // self.batch_size)
        ordered = np.sort(self.lengths)[::-1]
        return int(sum(-(-ordered[:: self.batch_size] // self.bptt_steps)))

    def minibatches(self, random: np.random.RandomState) -> Iterator[Minibatch]:
        order = self._epoch_order(random)
        starts, lengths = self.starts[order], self.lengths[order]
        firsts = range(0, len(order), self.batch_size)
        if self.bptt_steps is not None and self.shuffle:
            firsts = [firsts[i] for i in random.permutation(len(firsts))]
        for first in firsts:
            part = slice(first, first + self.batch_size)
            batch = SequenceBatch(order[part], starts[part], lengths[part])
            shards = [Shard(part) for part in batch.shards(SHARD_ROWS)]
            steps = self.bptt_steps or batch.n_steps
            for begin in range(0, batch.n_steps, steps):
                yield Minibatch(shards, begin, begin + steps)

    def _epoch_order(self, random: np.random.RandomState) -> np.ndarray:
        """The sequences, minibatch after minibatch, in each by falling length.

        With windows, sequences of like length go together.
        """
        n = len(self.starts)
        order = random.permutation(n) if self.shuffle else np.arange(n)
        if self.bptt_steps is not None:
            return order[np.argsort(-self.lengths[order], kind="stable")]
        return order[np.lexsort((-self.lengths[order], np.arange(n) // self.batch_size))]

    def loss_and_gradient(
        self, parameters: np.ndarray, minibatch: Minibatch, random: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        packed = self._packed_for(parameters)
        alive = [s for s in minibatch.shards if s.batch.n_steps > minibatch.first]
        while len(self._workspaces) < len(alive):
            self._workspaces.append(Workspace())
        jobs, totals = self._prepare(alive, minibatch, random)

        def evaluate(job) -> Evaluation:
            shard, window, inputs, targets, seeds, workspace = job
            initial = shard.states
            if initial is not None:
                n = window.n_sequences
                initial = [(state[:n], memory[:n]) for state, memory in initial]
            return packed.loss_and_gradient(
                window, inputs, targets, workspace, initial, self.dropout, seeds,
                carry=self.bptt_steps is not None,
            )  # fmt: skip

        jobs = [(*job, workspace) for job, workspace in zip(jobs, self._workspaces)]
        run = map if self.pool is None or len(jobs) == 1 else self.pool.map
        results = list(run(evaluate, jobs))
        gradient = results[0].gradient
        for shard, result in zip(alive, results):
            if result is not results[0]:
                gradient += result.gradient
            if self.bptt_steps is not None:
                shard.states = result.final_states
        losses = np.array(
            [sum(r.label_loss for r in results), sum(r.symbol_loss for r in results)]
        )
        return losses * totals, totals, gradient

    def _packed_for(self, parameters: np.ndarray) -> PackedNetwork:
        """The network, its buffers kept while the optimiser updates one array in place."""
        if self._network is None or self._network.parameters is not parameters:
            self._network = Network(self.architecture, parameters)
            self._packed = self._network.pack(training=True)
        else:
            self._packed.packing.renew()
        return self._packed

    def _prepare(self, shards, minibatch, random) -> tuple[list, np.ndarray]:
        """Jobs (shard, window, inputs, targets, seeds), and the total weights of both losses."""
        windows = [s.batch.window(minibatch.first, minibatch.last) for s in shards]
        dtype = self.architecture.dtype
        n_seeds = self.architecture.n_layers + 2
        seeds = [None for _ in shards]
        if self.dropout:
            seeds = [random.randint(0, 2**32, size=n_seeds, dtype=np.uint32) for _ in shards]
        weights = [self.weights[s.batch.rows] for s in shards]
        totals = np.zeros(2)
        if self.labels is not None:
            totals[0] = sum([weight.sum() for weight in weights])
        symbols, symbol_weights = [], []
        if self.architecture.next_symbol and self.next_weight:
            for window, weight in zip(windows, weights):
                target = self.inputs[window.index + 1] - 1
                symbols.append(target)
                symbol_weights.append(weight[window.rows] * (target >= 0))
            totals[1] = max(sum([weight.sum() for weight in symbol_weights]), 1e-300)
        jobs = []
        for i, (shard, window, seed, weight) in enumerate(zip(shards, windows, seeds, weights)):
            targets = Targets()
            if self.labels is not None:
                targets.labels = self.labels[shard.batch.rows]
                targets.label_weights = (weight * (1.0 / totals[0])).astype(dtype)
            if symbols:
                targets.symbols = symbols[i]
                targets.symbol_weights = (
                    symbol_weights[i] * (self.next_weight / totals[1])
                ).astype(dtype)
            inputs = self.inputs[window.index]
            if inputs.dtype != np.int32:
                inputs = inputs[:, None]
            elif self.symbol_dropout:
                inputs[random.random_sample(len(inputs)) < self.symbol_dropout] = UNKNOWN
            jobs.append((shard, window, inputs, targets, seed))
        return jobs, totals

    def mean_loss(self, sums: np.ndarray, weights: np.ndarray) -> float:
        """Mean label loss plus the weighted mean next-symbol loss (its weight is in the sums)."""
        return float(sum(s / w for s, w in zip(sums, weights) if w > 0))

    def uniform_loss(self, validation: bool) -> float:
        """That of equal probabilities; validation scores labels alone where there are labels."""
        architecture = self.architecture
        label_loss = np.log(max(architecture.n_labels, 1))
        if not architecture.next_symbol or (validation and self.labels is not None):
            return float(label_loss)
        return float(label_loss + self.next_weight * np.log(architecture.n_symbols - 1))

    def validation_score(self, parameters: np.ndarray) -> float | None:
        return None if self.score_parameters is None else self.score_parameters(parameters)
