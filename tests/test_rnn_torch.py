"""The same weights in torch: outputs, gradients, and fifty steps of Adam in lockstep."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch (2.13.0, CPU) is not installed")

from references_rnn_torch import Twin, in_torch_order  # noqa: E402

from sklseq.rnn._batches import SequenceBatch  # noqa: E402
from sklseq.rnn._network import Architecture, Network, Targets, Workspace  # noqa: E402
from sklseq.rnn._trainer import Optimiser, Settings  # noqa: E402

torch.set_num_threads(1)

CELLS = ("rnn", "gru_reset_after", "lstm")
LENGTHS = np.array([9, 1, 4, 9, 17, 2, 5])
SYMBOLS, HIDDEN = 11, 24


def case(cell, n_layers, dtype, labels=0):
    random = np.random.RandomState(0)
    architecture = Architecture(cell, HIDDEN, n_layers, SYMBOLS, labels, not labels, "last", dtype)
    network = Network(architecture, architecture.initial_parameters(random))
    starts = np.cumsum(LENGTHS) - LENGTHS
    batch = SequenceBatch.sorted(np.arange(len(LENGTHS)), starts, LENGTHS)
    codes = random.randint(SYMBOLS, size=LENGTHS.sum()).astype(np.int32)
    return network, batch, codes, batch.window(0, 99)


def torch_packed(batch, codes, twin):
    columns = [codes[s : s + n] for s, n in zip(batch.starts, batch.lengths)]
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(c).long() for c in columns])
    return torch.nn.utils.rnn.pack_padded_sequence(
        twin.one_hot(padded), torch.tensor(batch.lengths)
    )


def compare_gradients(network, gradient, twin, head, tolerance):
    cell = network.architecture.cell
    views = network.architecture.views(gradient)
    for layer in range(network.architecture.n_layers):
        for ours, theirs in [
            ("input_weights", "weight_ih"), ("recurrent_weights", "weight_hh"), ("bias", "bias_ih"),
        ]:  # fmt: skip
            found = in_torch_order(cell, views[f"{ours}_{layer}"]).numpy()
            expected = getattr(twin.layers, f"{theirs}_l{layer}").grad.numpy()
            error = np.abs(found - expected).max() / np.abs(expected).max()
            assert error < tolerance, (ours, layer)
    expected = twin.head.weight.grad.numpy().T
    error = np.abs(views[f"{head}_weights"] - expected).max() / np.abs(expected).max()
    assert error < tolerance


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_next_symbols_of_ragged_texts(cell, n_layers, dtype, tolerance):
    network, batch, codes, window = case(cell, n_layers, dtype)
    targets = np.random.RandomState(1).randint(SYMBOLS - 1, size=len(codes)).astype(np.int32)
    n = len(codes)
    result = network.pack(True).loss_and_gradient(
        window, codes[window.index],
        Targets(symbols=targets[window.index], symbol_weights=np.full(n, 1 / n, dtype)),
        Workspace(),
    )  # fmt: skip
    twin = Twin(cell, SYMBOLS, HIDDEN, SYMBOLS - 1, n_layers).to(getattr(torch, dtype))
    twin.load(network)
    outputs, _ = twin.layers(torch_packed(batch, codes, twin))
    # a PackedSequence is in our packed order
    loss = torch.nn.functional.cross_entropy(
        twin.head(outputs.data), torch.tensor(targets[window.index]).long()
    )
    loss.backward()
    np.testing.assert_allclose(result.symbol_loss, loss.item(), rtol=tolerance)
    ours = network.pack().forward(window, codes[window.index], Workspace())[-1].outputs
    np.testing.assert_allclose(ours, outputs.data.detach().numpy(), atol=tolerance)
    compare_gradients(network, result.gradient, twin, "next", tolerance)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("cell", CELLS)
def test_labels_of_ragged_texts(cell, dtype, tolerance):
    network, batch, codes, window = case(cell, 1, dtype, labels=4)
    labels = np.random.RandomState(1).randint(4, size=len(LENGTHS)).astype(np.int32)
    result = network.pack(True).loss_and_gradient(
        window, codes[window.index],
        Targets(labels=labels, label_weights=np.full(len(labels), 1 / len(labels), dtype)),
        Workspace(),
    )  # fmt: skip
    twin = Twin(cell, SYMBOLS, HIDDEN, 4).to(getattr(torch, dtype)).load(network, "label")
    _, state = twin.layers(torch_packed(batch, codes, twin))
    last = (state[0] if isinstance(state, tuple) else state)[-1]
    loss = torch.nn.functional.cross_entropy(twin.head(last), torch.tensor(labels).long())
    loss.backward()
    np.testing.assert_allclose(result.label_loss, loss.item(), rtol=tolerance)
    compare_gradients(network, result.gradient, twin, "label", tolerance)


@pytest.mark.parametrize("cell", CELLS)
def test_fifty_steps_of_adam_in_lockstep(cell):
    """Random text, clipped gradients, the state carried from window to window."""
    network, *_ = case(cell, 1, "float32")
    steps, rows = 20, 8
    text = np.random.RandomState(2).randint(2, SYMBOLS, size=rows * (50 * steps + 1))
    text = text.astype(np.int32).reshape(rows, -1)
    batch = SequenceBatch(np.arange(rows), np.arange(rows) * text.shape[1],
                          np.full(rows, 50 * steps))  # fmt: skip
    settings = Settings(
        solver="adam", alpha=0.0, learning_rate="constant", learning_rate_init=5e-3, beta_1=0.9,
        beta_2=0.999, epsilon=1e-8, momentum=0.9, nesterovs_momentum=True, max_grad_norm=0.3,
        average_decay=0.0, tol=0.0, n_iter_no_change=1, early_stopping=False, verbose=False,
    )  # fmt: skip
    optimiser = Optimiser(settings, network.parameters, network.architecture.n_weights)
    twin = Twin(cell, SYMBOLS, HIDDEN, SYMBOLS - 1).load(network)
    twin.layers.bias_hh_l0.requires_grad_(False)  # ours has one bias, and d_c for the GRU
    theirs = torch.optim.Adam([p for p in twin.parameters() if p.requires_grad], lr=5e-3)
    if cell == "gru_reset_after":
        rows_of_d = slice(2 * HIDDEN, 3 * HIDDEN)
        d = torch.nn.Parameter(torch.zeros(HIDDEN))
        theirs.add_param_group({"params": [d]})
    workspace, states, state = Workspace(), None, None
    for k in range(50):
        window = batch.window(k * steps, (k + 1) * steps)
        target = text.reshape(-1)[window.index + 1] - 1
        ours = Network(network.architecture, optimiser.parameters).pack(True).loss_and_gradient(
            window, text.reshape(-1)[window.index],
            Targets(symbols=target, symbol_weights=np.full(len(target), 1 / len(target), "f4")),
            workspace, states, carry=True,
        )  # fmt: skip
        optimiser.update(ours.gradient, 5e-3)
        states = ours.final_states
        inputs = torch.tensor(text[:, k * steps : (k + 1) * steps].T.copy()).long()
        if cell == "gru_reset_after":
            with torch.no_grad():
                twin.layers.bias_hh_l0[rows_of_d] = d
            twin.layers.bias_hh_l0.requires_grad_(True)
        logits, state = twin(inputs, state)
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, SYMBOLS - 1), torch.tensor(target).long()
        )
        np.testing.assert_allclose(ours.symbol_loss, loss.item(), atol=1e-4)
        theirs.zero_grad()
        twin.layers.bias_hh_l0.grad = None
        loss.backward()
        clipped = [p for group in theirs.param_groups for p in group["params"]]
        if cell == "gru_reset_after":
            d.grad = twin.layers.bias_hh_l0.grad[rows_of_d].clone()
        torch.nn.utils.clip_grad_norm_(clipped, 0.3)
        theirs.step()
        twin.layers.bias_hh_l0.requires_grad_(False)
