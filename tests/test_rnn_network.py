"""The network against the NumPy reference: losses and gradients of every cell."""

import itertools

import numpy as np
import pytest
import references_rnn as reference

from sklseq.rnn import _recurrence as kernels
from sklseq.rnn._batches import SequenceBatch
from sklseq.rnn._cells import CELLS, POOLINGS
from sklseq.rnn._network import Architecture, Network, Targets, Workspace, final_states

LENGTHS = np.array([4, 1, 6, 3, 6, 2])


def make_case(cell, n_layers=1, pooling="all", dtype="float64", hidden=5, symbols=7, seed=0,
              same_start=False):  # fmt: skip
    """A small network with random biases, a ragged batch and targets for both heads."""
    random = np.random.RandomState(seed)
    architecture = Architecture(cell, hidden, n_layers, symbols, 3, symbols > 0, pooling, dtype)
    parameters = architecture.initial_parameters(random)
    parameters += 0.3 * random.standard_normal(parameters.shape).astype(dtype)
    n = int(LENGTHS.sum())
    starts = np.cumsum(LENGTHS) - LENGTHS
    if symbols:
        inputs = random.randint(symbols, size=n).astype(np.int32)
        if same_start:
            inputs[starts] = 1
    else:
        inputs = random.standard_normal(n).astype(dtype)
    targets = random.randint(max(symbols - 1, 1), size=n).astype(np.int32)
    labels = random.randint(3, size=len(LENGTHS)).astype(np.int32)
    weights = random.uniform(0.5, 1.5, size=len(LENGTHS)).astype(dtype)
    symbol_weights = random.uniform(0.5, 1.5, size=n).astype(dtype)
    batch = SequenceBatch.sorted(np.arange(len(LENGTHS)), starts, LENGTHS)
    window = batch.window(0, 100)
    used = Targets(labels[batch.rows], weights[batch.rows])
    if symbols:
        used.symbols, used.symbol_weights = targets[window.index], symbol_weights[window.index]
    texts = [inputs[s : s + m] for s, m in zip(starts, LENGTHS)]

    def reference_loss(p):
        cut = [slice(s, s + m) for s, m in zip(starts, LENGTHS)]
        return reference.loss(
            cell, p, n_layers, texts, pooling, labels, weights.astype(float),
            [targets[c] for c in cut] if symbols else None,
            [symbol_weights[c].astype(float) for c in cut],
        )  # fmt: skip

    return Network(architecture, parameters), batch, inputs, used, reference_loss


def packed(inputs, window):
    rows = inputs[window.index]
    return rows if rows.dtype == np.int32 else rows[:, None]


CASES = [
    *itertools.product(CELLS, (1, 2), POOLINGS, (7,)),
    *itertools.product(CELLS, (1, 2), ("all",), (0,)),
]


@pytest.mark.parametrize("cell, n_layers, pooling, symbols", CASES)
def test_gradient_is_that_of_the_reference(cell, n_layers, pooling, symbols):
    network, batch, inputs, targets, loss = make_case(cell, n_layers, pooling, hidden=3,
                                                      symbols=symbols and 5)
    window = batch.window(0, 100)
    result = network.pack(training=True).loss_and_gradient(
        window, packed(inputs, window), targets, Workspace()
    )
    views = {name: value.copy() for name, value in network.views.items()}
    np.testing.assert_allclose(result.label_loss + result.symbol_loss, loss(views), rtol=1e-12)
    expected = reference.numeric_gradient(loss, views)
    found = network.architecture.views(result.gradient)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=2e-8, err_msg=name)


def run(network, batch, inputs, targets, window=None):
    window = batch.window(0, 100) if window is None else window
    return network.pack(training=True).loss_and_gradient(
        window, packed(inputs, window), targets, Workspace()
    )


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_gradient_of_texts_that_start_alike(cell, n_layers):
    """All texts start with the same symbol; then the first steps are worked out but once."""
    network, batch, inputs, targets, loss = make_case(
        cell, n_layers, "all", hidden=3, symbols=5, same_start=True
    )
    gradient = run(network, batch, inputs, targets).gradient
    assert len(set(inputs[batch.starts])) == 1
    views = {name: value.copy() for name, value in network.views.items()}
    expected = reference.numeric_gradient(loss, views)
    for name, value in network.architecture.views(gradient).items():
        np.testing.assert_allclose(value, expected[name], atol=2e-8, err_msg=name)


@pytest.mark.parametrize("hidden", [16, 40])
@pytest.mark.parametrize("cell", CELLS)
def test_directional_derivative_at_sizes_beyond_one_vector(cell, hidden):
    network, batch, inputs, targets, loss = make_case(cell, 2, hidden=hidden, symbols=9)
    gradient = run(network, batch, inputs, targets).gradient.copy()
    random = np.random.RandomState(1)
    for _ in range(3):
        direction = random.standard_normal(gradient.shape)
        ends = [
            loss(network.architecture.views(network.parameters + sign * 1e-6 * direction))
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(gradient @ direction, slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("number", range(kernels.use_instruction_set(9) + 1))
@pytest.mark.parametrize("cell", CELLS)
def test_float32_and_every_instruction_set_agree_with_float64(cell, number):
    exact = make_case(cell, 2, hidden=40)
    expected = run(*exact[:4])
    single = make_case(cell, 2, hidden=40, dtype="float32")
    single[0].parameters[:] = exact[0].parameters
    for name in ("label_weights", "symbol_weights"):
        setattr(single[3], name, getattr(exact[3], name).astype("float32"))
    widest = kernels.use_instruction_set(9)
    try:
        kernels.use_instruction_set(number)
        found = run(*single[:4])
    finally:
        kernels.use_instruction_set(widest)
    np.testing.assert_allclose(found.symbol_loss, expected.symbol_loss, rtol=1e-6)
    np.testing.assert_allclose(found.label_loss, expected.label_loss, rtol=2e-6)
    error = np.abs(found.gradient - expected.gradient).max() / np.abs(expected.gradient).max()
    assert error < 1e-6


@pytest.mark.parametrize("cell", CELLS)
def test_windows_with_carried_states_are_one_long_window(cell):
    network, batch, inputs, _, _ = make_case(cell, 2)
    whole = network.pack().forward(batch.window(0, 100), inputs[batch.window(0, 100).index],
                                   Workspace())[-1].outputs
    at = {k: row for row, k in enumerate(batch.window(0, 100).index)}
    ready, workspace, initial = network.pack(), Workspace(), None
    for first in range(0, batch.n_steps, 2):
        window = batch.window(first, first + 2)
        n = window.n_sequences
        if initial is not None:
            initial = [(state[:n], memory[:n]) for state, memory in initial]
        passes = ready.forward(window, inputs[window.index], workspace, initial)
        rows = [at[k] for k in window.index]
        np.testing.assert_array_equal(passes[-1].outputs, whole[rows])
        initial = final_states(passes, window)


@pytest.mark.parametrize("cell", CELLS)
def test_gradient_of_a_later_window_takes_its_initial_states_as_constants(cell):
    network, batch, inputs, targets, _ = make_case(cell, 1, hidden=4, symbols=5)
    random = np.random.RandomState(3)
    window = batch.window(0, 100)
    n = window.n_sequences
    has_memory = CELLS[cell].has_memory
    state = random.standard_normal((n, 4))
    memory = random.standard_normal((n, 4)) if has_memory else np.empty((0, 0))
    found = network.pack(training=True).loss_and_gradient(
        window, inputs[window.index], targets, Workspace(), [(state, memory)]
    )
    row_of = {int(r): k for k, r in enumerate(batch.rows)}
    cuts = [slice(s, s + m) for s, m in zip(np.cumsum(LENGTHS) - LENGTHS, LENGTHS)]
    symbol, weight = np.zeros(len(inputs), int), np.zeros(len(inputs))
    symbol[window.index], weight[window.index] = targets.symbols, targets.symbol_weights
    labels, label_weights = np.zeros(n, int), np.zeros(n)
    labels[batch.rows], label_weights[batch.rows] = targets.labels, targets.label_weights
    initial = [
        [(state[row_of[i]], memory[row_of[i]] if has_memory else np.zeros(4))] for i in range(n)
    ]

    def loss(p):
        return reference.loss(
            cell, p, 1, [inputs[c] for c in cuts], "all", labels, label_weights,
            [symbol[c] for c in cuts], [weight[c] for c in cuts], initial,
        )  # fmt: skip

    views = {name: value.copy() for name, value in network.views.items()}
    np.testing.assert_allclose(found.label_loss + found.symbol_loss, loss(views), rtol=1e-12)
    expected = reference.numeric_gradient(loss, views)
    for name, value in network.architecture.views(found.gradient).items():
        np.testing.assert_allclose(value, expected[name], atol=2e-8, err_msg=name)


def test_gradient_with_dropout_is_that_of_the_same_masks():
    network, batch, inputs, targets, _ = make_case("gru", 2, hidden=8)
    window = batch.window(0, 100)
    seeds = np.array([1, 2, 3, 4], np.uint32)

    def evaluate(parameters):
        return Network(network.architecture, parameters).pack(True).loss_and_gradient(
            window, inputs[window.index], targets, Workspace(), None, 0.4, seeds
        )

    def loss(parameters):
        result = evaluate(parameters)
        return result.label_loss + result.symbol_loss

    gradient = evaluate(network.parameters).gradient.copy()
    for seed in range(3):
        direction = np.random.RandomState(seed).standard_normal(gradient.shape)
        step = 1e-6 * direction
        slope = (loss(network.parameters + step) - loss(network.parameters - step)) / 2e-6
        np.testing.assert_allclose(gradient @ direction, slope, rtol=1e-5)


def test_pooled_features_of_long_sequences_are_those_of_one_window(monkeypatch):
    for pooling in POOLINGS:
        network, batch, inputs, _, _ = make_case("gru", 1, pooling)
        whole = network.pack().features(batch, inputs, Workspace())
        monkeypatch.setattr("sklseq.rnn._network.PackedNetwork.window_steps", 2)
        np.testing.assert_allclose(
            network.pack().features(batch, inputs, Workspace()), whole, rtol=1e-13
        )
        monkeypatch.undo()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_texts_that_start_alike_take_a_shorter_way_to_the_same_bits(cell, dtype):
    """The product of the second step is formed once where all read the same first symbol."""
    network, _, _, _, _ = make_case(cell, 2, hidden=21, dtype=dtype)
    lengths = np.array([6, 6, 4, 2, 1])
    starts = np.cumsum(lengths) - lengths
    codes = np.random.RandomState(0).randint(5, size=lengths.sum()).astype(np.int32)
    codes[starts] = 1
    alike = SequenceBatch.sorted(np.arange(4), starts[:4], lengths[:4])
    mixed = SequenceBatch.sorted(np.arange(5), starts, lengths)
    codes[starts[4]] = 2  # the last one starts otherwise: no short way in this batch
    outputs = []
    for batch in (alike, mixed):
        window = batch.window(0, 9)
        done = network.pack().forward(window, codes[window.index], Workspace())
        outputs.append({k: done[-1].outputs[row] for row, k in enumerate(window.index)})
    for k, value in outputs[0].items():
        np.testing.assert_array_equal(value, outputs[1][k])
