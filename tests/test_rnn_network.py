"""The network against the NumPy reference: losses and gradients of every cell."""

import itertools

import numpy as np
import pytest
import references_rnn as reference

from sklseq.rnn._batches import SequenceBatch
from sklseq.rnn._cells import CELLS, POOLINGS
from sklseq.rnn._network import Architecture, Network, Targets, Workspace

LENGTHS = np.array([4, 1, 6, 3, 6, 2])


def make_case(cell, n_layers=1, pooling="all", dtype="float64", hidden=5, symbols=7, seed=0):
    """A small network with random biases, a ragged batch and targets for both heads."""
    random = np.random.RandomState(seed)
    architecture = Architecture(cell, hidden, n_layers, symbols, 3, symbols > 0, pooling, dtype)
    parameters = architecture.initial_parameters(random)
    parameters += 0.3 * random.standard_normal(parameters.shape).astype(dtype)
    n = int(LENGTHS.sum())
    starts = np.cumsum(LENGTHS) - LENGTHS
    if symbols:
        inputs = random.randint(symbols, size=n).astype(np.int32)
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
    network, batch, inputs, targets, loss = make_case(cell, n_layers, pooling, hidden=4,
                                                      symbols=symbols)
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
