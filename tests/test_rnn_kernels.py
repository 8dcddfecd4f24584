"""The kernels of the recurrent networks, on every instruction set that this machine has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklseq.rnn import _recurrence as kernels
from sklseq.rnn._batches import SequenceBatch, chunks_by_length

WIDEST = kernels.use_instruction_set(9)


@pytest.fixture(params=range(WIDEST + 1), ids=lambda n: ("baseline", "avx2", "avx512")[n])
def instruction_set(request):
    kernels.use_instruction_set(request.param)
    yield request.param
    kernels.use_instruction_set(WIDEST)


def pack(weights, transposed=False):
    depth, columns = weights.shape[::-1] if transposed else weights.shape
    packed = np.empty(kernels.packed_size(depth, columns, weights[0, :0]), weights.dtype)
    kernels.pack(weights, transposed, packed)
    return packed


SHAPES = [(1, 1, 1), (7, 13, 65), (25, 40, 160), (6, 3, 64), (13, 128, 33), (64, 65, 200)]


@pytest.mark.parametrize("dtype, tolerance", [("float32", 3e-6), ("float64", 5e-15)])
@pytest.mark.parametrize("rows, depth, columns", SHAPES)
def test_product(instruction_set, rows, depth, columns, dtype, tolerance):
    random = np.random.RandomState(0)
    a = random.standard_normal((rows, depth)).astype(dtype)
    b = random.standard_normal((depth, columns)).astype(dtype)
    expected = a.astype(float) @ b
    scale = np.abs(a.astype(float)) @ np.abs(b) + 1
    for packed in (pack(b), pack(np.ascontiguousarray(b.T), transposed=True)):
        out = np.full((rows, columns), 7, dtype)
        kernels.product(a, packed, False, out)
        assert (np.abs(out - expected) / scale).max() < tolerance
        kernels.product(a, packed, True, out)
        assert (np.abs(out - 2 * expected) / scale).max() < 2 * tolerance


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_has_the_same_bits_alone_and_in_a_batch(instruction_set, dtype):
    random = np.random.RandomState(0)
    a = random.standard_normal((23, 70)).astype(dtype)
    packed = pack(random.standard_normal((70, 90)).astype(dtype))
    together = np.empty((23, 90), dtype)
    kernels.product(a, packed, False, together)
    for row in range(23):
        alone = np.empty((1, 90), dtype)
        kernels.product(a[row : row + 1].copy(), packed, False, alone)
        np.testing.assert_array_equal(alone[0], together[row])


@pytest.mark.parametrize("dtype, tolerance", [("float32", 3e-6), ("float64", 5e-15)])
@pytest.mark.parametrize("rows, m, n", [(1, 1, 1), (300, 20, 70), (129, 128, 33)])
def test_weight_gradient(instruction_set, rows, m, n, dtype, tolerance):
    random = np.random.RandomState(0)
    left = random.standard_normal((rows, m + 3)).astype(dtype)[:, 2 : 2 + m]
    right = random.standard_normal((rows, n + 5)).astype(dtype)[:, 1 : 1 + n]
    out = np.ones((m, n + 2), dtype)
    kernels.add_weight_gradient(left, right, out[:, 1 : n + 1])
    expected = left.astype(float).T @ right
    scale = np.abs(left.astype(float)).T @ np.abs(right) + 1
    assert (np.abs(out[:, 1 : n + 1] - 1 - expected) / scale).max() < tolerance
    assert (out[:, [0, -1]] == 1).all()


@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-7), ("float64", 4e-16)])
@pytest.mark.parametrize("width", [1, 3, 16, 65, 200])
def test_softmax_and_cross_entropy(instruction_set, width, dtype, tolerance):
    random = np.random.RandomState(0)
    logits = (8 * random.standard_normal((9, width))).astype(dtype)
    logits[0] *= 10  # most of this row's exponentials underflow
    shifted = logits.astype(float) - logits.max(axis=1, keepdims=True).astype(float)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    soft = logits.copy()
    kernels.softmax(soft)
    np.testing.assert_allclose(soft, np.exp(log_p), atol=10 * tolerance)
    targets = random.randint(width, size=9).astype(np.int32)
    targets[4] = -1  # no such symbol
    weights = random.uniform(size=9).astype(dtype)
    gradient, found = logits.copy(), np.empty(9)
    kernels.cross_entropy(targets, weights, gradient, found)
    known = targets >= 0
    np.testing.assert_allclose(
        found[known], log_p[known, targets[known]], rtol=20 * tolerance, atol=200 * tolerance
    )
    assert found[4] == -np.inf
    expected = np.exp(log_p) * weights[:, None]
    expected[np.arange(9), targets] -= weights
    expected[4] = 0
    np.testing.assert_allclose(gradient, expected, atol=10 * tolerance)


def test_dropout_keeps_its_share_and_repeats_its_mask(instruction_set):
    x = np.ones((500, 200), np.float32)
    out = np.empty_like(x)
    kernels.dropout(x, 12345, 0.3, out)
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((out == 0).mean() - 0.3) < 0.006  # four standard deviations
    again, other = np.empty_like(x), np.empty_like(x)
    kernels.dropout(x, 12345, 0.3, again)
    kernels.dropout(x, 54321, 0.3, other)
    np.testing.assert_array_equal(out, again)
    assert abs(((out == 0) & (other == 0)).mean() - 0.09) < 0.004


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", [3, 16, 37])
def test_pooling(instruction_set, hidden, dtype):
    random = np.random.RandomState(0)
    lengths = np.array([5, 3, 3, 1])
    batch = SequenceBatch.sorted(np.arange(4), np.cumsum(lengths) - lengths, lengths)
    window = batch.window(0, 9)
    flat = random.standard_normal((lengths.sum(), hidden)).astype(dtype)
    outputs = flat[window.index]
    features = np.empty((4, 3 * hidden), dtype)
    where = np.empty((4, hidden), np.int32)
    kernels.pool_forward(window.counts, 7, outputs, features, where)
    for row, (start, length) in enumerate(zip(batch.starts, batch.lengths)):
        h = flat[start : start + length]
        expected = np.concatenate([h[-1], h.mean(axis=0), h.max(axis=0)])
        np.testing.assert_allclose(features[row], expected, rtol=1e-6)
    # <d, pool(h)> is linear where the maxima stay: its gradient is what the backward pass gives
    d = random.standard_normal(features.shape).astype(dtype)
    gradient = np.zeros_like(outputs)
    kernels.pool_backward(window.counts, 7, d, where, gradient)
    np.testing.assert_allclose((gradient * outputs).sum(), (d * features).sum(), rtol=1e-4)


def test_adam_step_is_the_published_one(instruction_set):
    random = np.random.RandomState(0)
    theta, mean, square = random.standard_normal((3, 37))
    square = np.abs(square)
    gradient = random.standard_normal(37)
    t, rate, b1, b2, epsilon, alpha = 3, 0.01, 0.9, 0.999, 1e-8, 0.1
    for decoupled in (True, False):
        g = 0.5 * gradient + (0 if decoupled else alpha * theta)
        m, v = b1 * mean + (1 - b1) * g, b2 * square + (1 - b2) * g**2
        expected = theta * (1 - rate * alpha) if decoupled else theta
        step = rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + epsilon)
        # the last seven are not penalised
        free = slice(30, None)
        if decoupled:
            expected[free] = theta[free]
        else:
            g[free] = 0.5 * gradient[free]
            m[free] = b1 * mean[free] + (1 - b1) * g[free]
            v[free] = b2 * square[free] + (1 - b2) * g[free] ** 2
            step = rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + epsilon)
        found, m_found, v_found = theta.copy(), mean.copy(), square.copy()
        kernels.adam_step(
            30, 0.5, 0.0 if decoupled else alpha, rate * alpha if decoupled else 0.0,
            rate / (1 - b1**t), 1 / np.sqrt(1 - b2**t), b1, b2, epsilon, gradient, found, m_found,
            v_found,
        )  # fmt: skip
        np.testing.assert_allclose(found, expected - step, rtol=1e-12)
        np.testing.assert_allclose(m_found, m, rtol=1e-12)
        np.testing.assert_allclose(v_found, v, rtol=1e-12)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 5))
def test_windows_hold_every_step_once_in_time_order(lengths, steps):
    lengths = np.array(lengths)
    starts = np.cumsum(lengths) - lengths
    batch = SequenceBatch.sorted(np.arange(len(lengths)), starts, lengths)
    seen = []
    for first in range(0, batch.n_steps, steps):
        window = batch.window(first, first + steps)
        assert (np.diff(window.counts) <= 0).all()
        assert window.counts.sum() == len(window.index)
        last = window.last_rows()
        ends = np.minimum(batch.lengths[: window.n_sequences], first + steps) - 1
        np.testing.assert_array_equal(
            window.index[last], batch.starts[: window.n_sequences] + ends
        )
        seen.extend(window.index.tolist())
    assert sorted(seen) == list(range(lengths.sum()))
    parts = batch.shards(3)
    assert sorted(np.concatenate([p.rows for p in parts])) == list(range(len(lengths)))
    assert max(len(p.rows) for p in parts) <= 3
    chunks = chunks_by_length(starts, lengths, 3)
    assert sorted(np.concatenate([c.rows for c in chunks])) == list(range(len(lengths)))
