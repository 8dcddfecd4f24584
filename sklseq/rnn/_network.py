"""The network as a value: an architecture and one flat vector of parameters.

``forward`` runs the hidden states of a window of steps; the label head reads pooled states, the
next-symbol head reads every state; ``loss_and_gradient`` is the loss of one shard of a minibatch
and its gradient by back-propagation through time.  All loops over time are in the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sklseq.rnn import _recurrence as kernels
from sklseq.rnn._batches import SequenceBatch, Window
from sklseq.rnn._cells import CELLS, POOLINGS, Cell

INFERENCE_STATES = 2**19  # numbers of a layer's states run at once: longer texts come in windows
CHUNK_ROWS = 256  # sequences run together at inference
LOGITS = 2**20  # logits of a head over all symbols made at once


@dataclass(frozen=True)
class Architecture:
    """The shape of a network.

    n_symbols : rows of the input table (row 0: unknown, row 1: start and end); 0 for numbers.
    n_labels : columns of the label head; 0 without it.
    next_symbol : whether there is a next-symbol head; its column s is the symbol of code s + 1.
    """

    cell: str
    hidden_size: int
    n_layers: int
    n_symbols: int
    n_labels: int
    next_symbol: bool
    pooling: str
    dtype: str

    @property
    def cell_spec(self) -> Cell:
        return CELLS[self.cell]

    @cached_property
    def slots(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        """Where each parameter lies in the flat vector: weights first, then biases."""
        hidden, cell = self.hidden_size, self.cell_spec
        width = cell.n_gates * hidden
        weights: dict[str, tuple[int, ...]] = {}
        biases: dict[str, tuple[int, ...]] = {}
        for layer in range(self.n_layers):
            depth = hidden if layer else max(self.n_symbols, 1)
            weights[f"input_weights_{layer}"] = (depth, width)
            weights[f"recurrent_weights_{layer}"] = (hidden, width)
            biases[f"bias_{layer}"] = (width,)
            if cell.has_recurrent_bias:
                biases[f"recurrent_bias_{layer}"] = (hidden,)
        if self.n_labels:
            weights["label_weights"] = (self.n_features, self.n_labels)
            biases["label_bias"] = (self.n_labels,)
        if self.next_symbol:
            weights["next_weights"] = (hidden, self.n_symbols - 1)
            biases["next_bias"] = (self.n_symbols - 1,)
        slots, first = {}, 0
        for name, shape in (*weights.items(), *biases.items()):
            size = math.prod(shape)
            slots[name] = (slice(first, first + size), shape)
            first += size
        return slots

    @property
    def n_parameters(self) -> int:
        return max(where.stop for where, _ in self.slots.values())

    @property
    def n_weights(self) -> int:
        """Parameters that a penalty acts on: all but the biases."""
        return self.slots["bias_0"][0].start

    @property
    def n_features(self) -> int:
        """Columns of the pooled features that the label head sees."""
        return POOLINGS[self.pooling][1] * self.hidden_size

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        return {name: flat[where].reshape(shape) for name, (where, shape) in self.slots.items()}

    def initial_parameters(self, random: np.random.RandomState) -> np.ndarray:
        """Rows of the symbol table N(0, 1), all else uniform in ± 1/sqrt(rows); biases zero.

        The scale of the table matters more than the cell: at the usual ± 1/sqrt(hidden_size) a
        character language model learns several times more slowly.
        """
        flat = np.zeros(self.n_parameters, dtype=self.dtype)
        for name, value in self.views(flat).items():
            if name == "input_weights_0" and self.n_symbols:
                value[...] = random.standard_normal(value.shape)
            elif value.ndim == 2:
                bound = 1.0 / np.sqrt(value.shape[0])
                value[...] = random.uniform(-bound, bound, value.shape)
        return flat


class Workspace:
    """Buffers that grow and are used again, one set per shard: no page faults in the loop."""

    def __init__(self) -> None:
        self._buffers: dict[object, np.ndarray] = {}
        self._gradient: tuple[np.ndarray, dict[str, np.ndarray]] | None = None

    def take(self, name: object, rows: int, columns: int, dtype: object) -> np.ndarray:
        """A (rows, columns) array; what it holds is left over from earlier."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < rows or buffer.shape[1] != columns:
            buffer = self._buffers[name] = np.empty((rows, columns), dtype=dtype)
        return buffer[:rows]

    def gradient(self, architecture: Architecture) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """A flat gradient of zeros and its views."""
        if self._gradient is None or len(self._gradient[0]) != architecture.n_parameters:
            flat = np.empty(architecture.n_parameters, dtype=architecture.dtype)
            self._gradient = flat, architecture.views(flat)
        self._gradient[0].fill(0.0)
        return self._gradient


@dataclass
class PackedLayer:
    """One layer's weights in the kernels' form; the transposes only for training."""

    recurrent: np.ndarray
    candidate: np.ndarray
    recurrent_bias: np.ndarray
    inputs: np.ndarray  # layer 0: the table with the bias added; above: packed input weights
    bias: np.ndarray
    recurrent_back: np.ndarray
    candidate_back: np.ndarray
    inputs_back: np.ndarray


@dataclass
class LayerPass:
    """What the forward pass of a layer leaves for the backward pass."""

    states: np.ndarray
    memory: np.ndarray
    gates: np.ndarray
    reset: np.ndarray
    inputs: np.ndarray  # the rows that entered, (N, depth); empty for the symbol table
    n_initial: int
    alike: bool  # all start from zero and read the same symbol first

    @property
    def outputs(self) -> np.ndarray:
        return self.states[self.n_initial :]


@dataclass
class Targets:
    """What a shard is to predict, each with its weight; None: that head has no part in the loss."""

    labels: np.ndarray | None = None
    label_weights: np.ndarray | None = None
    symbols: np.ndarray | None = None
    symbol_weights: np.ndarray | None = None


@dataclass
class Evaluation:
    label_loss: float
    symbol_loss: float
    gradient: np.ndarray
    final_states: list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Network:
    architecture: Architecture
    parameters: np.ndarray

    @cached_property
    def views(self) -> dict[str, np.ndarray]:
        return self.architecture.views(self.parameters)

    @cached_property
    def packed(self) -> PackedNetwork:
        """Ready for inference; made when first needed, never pickled."""
        self.check()
        return self.pack()

    def check(self) -> None:
        """The parameters are those of the architecture: the kernels take the sizes on trust."""
        wanted, parameters = self.architecture, self.parameters
        if parameters.shape != (wanted.n_parameters,) or parameters.dtype != wanted.dtype:
            raise ValueError(
                f"The weights of this network, {parameters.shape} {parameters.dtype}, do not fit "
                f"its architecture, which has {wanted.n_parameters} {wanted.dtype}: fit again."
            )
        if not np.isfinite(parameters).all():
            raise ValueError("The weights of this network are not finite: fit again.")

    def __getstate__(self) -> dict:
        return {"architecture": self.architecture, "parameters": self.parameters}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)

    def pack(self, training: bool = False) -> PackedNetwork:
        """The weights in the kernels' form (it depends on the machine: made anew, never kept)."""
        architecture, views = self.architecture, self.views
        packing = Packing(self.parameters[:0])
        layers = [
            self._pack_layer(packing, layer, training) for layer in range(architecture.n_layers)
        ]
        heads = {}
        for head in ("label", "next"):
            if f"{head}_weights" in views:
                weights = views[f"{head}_weights"]
                back = packing.add(weights, True) if training else packing.none
                heads[head] = (packing.add(weights), views[f"{head}_bias"], back)
        packing.renew()
        return PackedNetwork(architecture, layers, heads, packing)

    def _pack_layer(self, packing: Packing, layer: int, training: bool) -> PackedLayer:
        architecture, views, none = self.architecture, self.views, packing.none
        cell = architecture.cell_spec
        recurrent = views[f"recurrent_weights_{layer}"]
        inputs, bias = views[f"input_weights_{layer}"], views[f"bias_{layer}"]
        split = 2 * architecture.hidden_size if cell.splits_candidate else recurrent.shape[1]
        gates, candidate = recurrent[:, :split], recurrent[:, split:]
        table = layer == 0 and architecture.n_symbols > 0
        splits = cell.splits_candidate
        return PackedLayer(
            recurrent=packing.add(gates),
            candidate=packing.add(candidate) if splits else none,
            recurrent_bias=views.get(f"recurrent_bias_{layer}", none),
            inputs=packing.add_sum(inputs, bias) if table else packing.add(inputs),
            bias=bias,
            recurrent_back=packing.add(gates, True) if training else none,
            candidate_back=packing.add(candidate, True) if training and splits else none,
            inputs_back=packing.add(inputs, True) if training and layer else none,
        )


class Packing:
    """What is to be packed and where to, so that it can be done again after each update."""

    def __init__(self, none: np.ndarray) -> None:
        self.none = none  # an empty array of the parameters' type
        self._products: list[tuple[np.ndarray, bool, np.ndarray]] = []
        self._sums: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, weights: np.ndarray, transposed: bool = False) -> np.ndarray:
        depth, columns = weights.shape[::-1] if transposed else weights.shape
        packed = np.empty(kernels.packed_size(depth, columns, self.none), self.none.dtype)
        self._products.append((weights, transposed, packed))
        return packed

    def add_sum(self, table: np.ndarray, bias: np.ndarray) -> np.ndarray:
        self._sums.append((table, bias, np.empty_like(table)))
        return self._sums[-1][2]

    def renew(self) -> None:
        """Pack the weights as they are now."""
        for weights, transposed, packed in self._products:
            kernels.pack(weights, transposed, packed)
        for table, bias, out in self._sums:
            np.add(table, bias, out=out)


@dataclass
class PackedNetwork:
    """A network ready to run; ``packing.renew()`` after its parameters have changed in place."""

    architecture: Architecture
    layers: list[PackedLayer]
    heads: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    packing: Packing

    # ---------------------------------------------------------------- forward

    def forward(
        self,
        window: Window,
        inputs: np.ndarray,
        workspace: Workspace,
        initial: list[tuple[np.ndarray, np.ndarray]] | None = None,
        dropout: float = 0.0,
        seeds: np.ndarray | None = None,
    ) -> list[LayerPass]:
        """Hidden states of a window of steps.

        inputs : codes (N,) int32, or numbers (N, 1), in packed order.
        initial : states and memories per layer to start from, None for zeros.
        seeds : seeds of the dropout masks; ``seeds[layer]`` for what enters a layer above.
        """
        passes: list[LayerPass] = []
        below = inputs
        for number, layer in enumerate(self.layers):
            if number and dropout:
                dropped = workspace.take(("dropped", number), *below.shape, below.dtype)
                kernels.dropout(below, seeds[number], dropout, dropped)
                below = dropped
            start = None if initial is None else initial[number]
            done = self._layer_forward(number, layer, window, below, workspace, start)
            passes.append(done)
            below = done.outputs
        return passes

    def _layer_forward(self, number, layer, window, below, workspace, initial) -> LayerPass:
        architecture = self.architecture
        cell, hidden, dtype = architecture.cell_spec, architecture.hidden_size, architecture.dtype
        n, n_initial = len(window.index), window.n_sequences
        none = np.empty((0, 0), dtype)

        def take(name, rows, columns):
            return workspace.take((name, number), rows, columns, dtype)

        states = take("states", n_initial + n, hidden)
        memory = take("memory", n_initial + n, hidden) if cell.has_memory else none
        gates = take("gates", n_initial + n, cell.n_stored * hidden)
        reset = take("reset", n_initial + n, hidden) if cell.splits_candidate else none
        # The buffers hold an earlier batch: a start from zero must say so.
        for buffer, start in zip((states, memory), initial or (0.0, 0.0)):
            buffer[:n_initial] = start
        codes, rows, entered = below, layer.inputs, none
        alike = initial is None and below.ndim == 1 and bool((below[:n_initial] == below[0]).all())
        if below.ndim == 2:
            codes, entered = np.empty(0, np.int32), below
            rows = take("inputs", n, cell.n_gates * hidden)
            rows[...] = layer.bias
            kernels.product(below, layer.inputs, True, rows)
        kernels.layer_forward(
            cell.number, window.counts, initial is None, alike, codes, rows, layer.recurrent,
            layer.candidate, layer.recurrent_bias, states, memory, gates, reset,
        )  # fmt: skip
        return LayerPass(states, memory, gates, reset, entered, n_initial, alike)

    def head(self, name: str, features: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Logits (rows, columns) of a head."""
        packed, bias, _ = self.heads[name]
        if out is None:
            out = np.empty((len(features), len(bias)), bias.dtype)
        out[...] = bias
        kernels.product(features, packed, True, out)
        return out

    def next_logits(self, outputs: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Logits of the next symbol in float64, some rows at a time: memory whatever the symbols.

        A row's logits do not depend on the rows beside it.
        """
        rows = max(1, LOGITS // len(self.heads["next"][1]))
        for first in range(0, len(outputs), rows):
            part = slice(first, first + rows)
            yield part, self.head("next", outputs[part]).astype(np.float64)

    def pool(self, window: Window, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (sequences, blocks H) of the label head, and where the maxima were."""
        kinds, blocks = POOLINGS[self.architecture.pooling]
        hidden = outputs.shape[1]
        features = np.empty((window.n_sequences, blocks * hidden), outputs.dtype)
        where = np.empty((window.n_sequences if kinds & 4 else 0, hidden), np.int32)
        kernels.pool_forward(window.counts, kinds, outputs, features, where)
        return features, where

    # ---------------------------------------------------------------- inference

    @property
    def window_steps(self) -> int:
        """Steps of a window, by the architecture alone: results do not depend on the company."""
        return max(1, INFERENCE_STATES // (CHUNK_ROWS * self.architecture.hidden_size))

    def scan(
        self, batch: SequenceBatch, inputs: np.ndarray, workspace: Workspace
    ) -> Iterator[tuple[Window, np.ndarray]]:
        """Windows of a batch with their outputs (N, H), the state carried from each to the next."""
        initial, steps = None, self.window_steps
        for first in range(0, batch.n_steps, steps):
            window = batch.window(first, first + steps)
            if initial is not None:
                initial = [
                    (state[: window.n_sequences], memory[: window.n_sequences])
                    for state, memory in initial
                ]
            passes = self.forward(window, _rows(inputs, window), workspace, initial)
            if first + steps < batch.n_steps:
                initial = final_states(passes, window)
            yield window, passes[-1].outputs

    def final_states(
        self, batch: SequenceBatch, inputs: np.ndarray, workspace: Workspace
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """State and memory per layer after the last step of one sequence."""
        initial, steps = None, self.window_steps
        for first in range(0, batch.n_steps, steps):
            window = batch.window(first, first + steps)
            passes = self.forward(window, _rows(inputs, window), workspace, initial)
            initial = final_states(passes, window)
        return initial

    def features(
        self, batch: SequenceBatch, inputs: np.ndarray, workspace: Workspace
    ) -> np.ndarray:
        """Pooled features (sequences, blocks H) of whole sequences."""
        kinds, _ = POOLINGS[self.architecture.pooling]
        hidden = self.architecture.hidden_size
        total: np.ndarray | None = None
        first = 0
        for window, outputs in self.scan(batch, inputs, workspace):
            part, _ = self.pool(window, outputs)
            n, steps = window.n_sequences, len(window.counts)
            if total is None:
                total, first = part, steps
                continue
            lengths = np.minimum(batch.lengths[:n], first + steps)[:, None]
            column = 0
            for bit in (1, 2, 4):
                if not kinds & bit:
                    continue
                old = total[:n, column : column + hidden]
                new = part[:, column : column + hidden]
                if bit == 2:  # means of the steps so far and of the steps here
                    old += (new - old) * ((lengths - first) / lengths).astype(new.dtype)
                else:
                    old[...] = new if bit == 1 else np.maximum(old, new)
                column += hidden
            first += steps
        return total

    # ---------------------------------------------------------------- backward

    def loss_and_gradient(
        self,
        window: Window,
        inputs: np.ndarray,
        targets: Targets,
        workspace: Workspace,
        initial: list[tuple[np.ndarray, np.ndarray]] | None = None,
        dropout: float = 0.0,
        seeds: np.ndarray | None = None,
        carry: bool = False,
    ) -> Evaluation:
        """Weighted negative log-likelihood of a shard's targets and its gradient.

        The gradient is truncated at the window's start: initial states are constants.
        inputs : codes (N,) or numbers (N, 1) in packed order.
        seeds : (n_layers + 2,) uint32 of the masks: inputs of the layers, then the two heads.
        carry : whether to hand back the states at the end of the window.
        """
        architecture = self.architecture
        passes = self.forward(window, inputs, workspace, initial, dropout, seeds)
        flat, gradient = workspace.gradient(architecture)
        outputs = passes[-1].outputs
        d_outputs = workspace.take("d_outputs", *outputs.shape, outputs.dtype)
        d_outputs.fill(0.0)
        symbol_loss = label_loss = 0.0
        if targets.symbols is not None:
            symbol_loss = self._symbol_loss(
                outputs, targets, gradient, d_outputs, workspace, dropout, seeds
            )
        if targets.labels is not None:
            label_loss = self._label_loss(
                window, outputs, targets, gradient, d_outputs, dropout, seeds
            )
        for number in reversed(range(architecture.n_layers)):
            d_inputs = self._layer_backward(
                number, window, inputs, passes[number], d_outputs, gradient, workspace,
                initial is None,
            )  # fmt: skip
            if number:
                kernels.product(d_inputs, self.layers[number].inputs_back, False, d_outputs)
                if dropout:
                    kernels.dropout(d_outputs, seeds[number], dropout, d_outputs)
        final = final_states(passes, window) if carry else []
        return Evaluation(label_loss, symbol_loss, flat, final)

    def _symbol_loss(
        self, outputs, targets, gradient, d_outputs, workspace, dropout, seeds
    ) -> float:
        """Loss of the next-symbol head over all rows; adds to gradient and d_outputs."""
        if dropout:
            dropped = workspace.take("dropped outputs", *outputs.shape, outputs.dtype)
            kernels.dropout(outputs, seeds[-2], dropout, dropped)
            outputs = dropped
        packed_back = self.heads["next"][2]
        width = len(self.heads["next"][1])
        logits = workspace.take("logits", len(outputs), width, outputs.dtype)
        self.head("next", outputs, logits)
        log_probabilities = np.empty(len(outputs))
        loss = kernels.cross_entropy(
            targets.symbols, targets.symbol_weights, logits, log_probabilities
        )
        kernels.add_weight_gradient(outputs, logits, gradient["next_weights"])
        kernels.add_rows(logits, gradient["next_bias"])
        kernels.product(logits, packed_back, True, d_outputs)
        if dropout:
            kernels.dropout(d_outputs, seeds[-2], dropout, d_outputs)
        return loss

    def _label_loss(
        self, window, outputs, targets, gradient, d_outputs, dropout, seeds
    ) -> float:
        """Loss of the label head; adds to gradient and d_outputs."""
        features, where = self.pool(window, outputs)
        if dropout:
            kernels.dropout(features, seeds[-1], dropout, features)
        logits = self.head("label", features)
        log_probabilities = np.empty(len(features))
        loss = kernels.cross_entropy(
            targets.labels, targets.label_weights, logits, log_probabilities
        )
        kernels.add_weight_gradient(features, logits, gradient["label_weights"])
        kernels.add_rows(logits, gradient["label_bias"])
        d_features = np.empty_like(features)
        kernels.product(logits, self.heads["label"][2], False, d_features)
        if dropout:
            kernels.dropout(d_features, seeds[-1], dropout, d_features)
        kinds, _ = POOLINGS[self.architecture.pooling]
        kernels.pool_backward(window.counts, kinds, d_features, where, d_outputs)
        return loss

    def _layer_backward(
        self, number, window, rows, done, d_outputs, gradient, workspace, start
    ) -> np.ndarray | None:
        """Gradients of a layer's parameters; returns that of dense inputs, (N, n_gates H)."""
        architecture, layer = self.architecture, self.layers[number]
        cell, hidden, dtype = architecture.cell_spec, architecture.hidden_size, architecture.dtype
        n_initial = done.n_initial

        def take(name, rows, columns=hidden):
            return workspace.take((name, number), rows, columns, dtype)

        d_state = take("d_state", n_initial)
        d_memory = take("d_memory", n_initial) if cell.has_memory else done.memory
        d_state.fill(0.0)
        d_memory.fill(0.0)
        kernels.layer_backward(
            cell.number, cell.n_gates, window.counts, start, done.alike, d_outputs,
            layer.recurrent_back, layer.candidate_back, done.states, done.memory, done.gates,
            d_state, d_memory, take("scratch", n_initial),
        )  # fmt: skip
        self._recurrent_gradient(number, window, done, gradient, start)
        d_weights = gradient[f"input_weights_{number}"]
        d_bias = gradient[f"bias_{number}"]
        if rows.ndim == 1 and number == 0:
            kernels.input_gradient(
                cell.number, window.counts, rows, done.gates, hidden, d_weights
            )
            kernels.add_rows(d_weights, d_bias)  # every step has one symbol
            return None
        d_inputs = take("inputs", len(window.index), cell.n_gates * hidden)
        kernels.input_gradient(
            cell.number, window.counts, np.empty(0, np.int32), done.gates, hidden, d_inputs
        )
        kernels.add_weight_gradient(done.inputs, d_inputs, d_weights)
        kernels.add_rows(d_inputs, d_bias)
        return d_inputs

    def _recurrent_gradient(self, number, window, done, gradient, start) -> None:
        """Gradient of a layer's recurrent weights: states before each step, and its gates."""
        cell, hidden = self.architecture.cell_spec, self.architecture.hidden_size
        d_recurrent = gradient[f"recurrent_weights_{number}"]
        split = 2 * hidden if cell.splits_candidate else d_recurrent.shape[1]
        # From a zero start the first block of rows adds nothing.
        first = done.n_initial if start else 0
        end = len(done.states) - int(window.counts[-1])
        if cell.splits_candidate:
            kernels.add_weight_gradient(
                done.reset[first:end], done.gates[first:end, split:], d_recurrent[:, split:]
            )
        if cell.has_recurrent_bias:
            kernels.add_rows(
                done.gates[:end, 2 * hidden : 3 * hidden], gradient[f"recurrent_bias_{number}"]
            )
        if done.alike and len(window.counts) > 1:  # the states before step 1 are all one
            total = np.zeros((1, split), done.gates.dtype)
            alike = slice(first, first + done.n_initial)
            kernels.add_rows(done.gates[alike, :split], total[0])
            kernels.add_weight_gradient(
                done.states[first : first + 1], total, d_recurrent[:, :split]
            )
            first = alike.stop
        kernels.add_weight_gradient(
            done.states[first:end], done.gates[first:end, :split], d_recurrent[:, :split]
        )


def _rows(inputs: np.ndarray, window: Window) -> np.ndarray:
    """A window's inputs in packed order: codes (N,) or numbers (N, 1)."""
    rows = inputs[window.index]
    return rows if inputs.dtype == np.int32 else rows[:, None]


def final_states(
    passes: list[LayerPass], window: Window
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Copies of each sequence's state and memory after its last step, per layer."""
    last = window.last_rows()
    return [
        (
            done.outputs[last],
            done.memory[done.n_initial :][last] if done.memory.size else done.memory,
        )
        for done in passes
    ]
