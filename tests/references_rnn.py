"""Slow oracles of the recurrent networks: one text at a time, float64, straight from the equations.

Written before the kernels and apart from them: nothing here uses ``sklseq``.  Parameters are a dict
with the names of the network's slots; gates lie side by side as the table of cells says.
"""

import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def rnn_step(h, c, x, W, d):
    return np.tanh(h @ W + x), c


def gru_step(h, c, x, W, d):
    H = len(h)
    update = sigmoid(h @ W[:, :H] + x[:H])
    reset = sigmoid(h @ W[:, H : 2 * H] + x[H : 2 * H])
    candidate = np.tanh((reset * h) @ W[:, 2 * H :] + x[2 * H :])
    return update * h + (1 - update) * candidate, c


def gru_reset_after_step(h, c, x, W, d):
    H = len(h)
    update = sigmoid(h @ W[:, :H] + x[:H])
    reset = sigmoid(h @ W[:, H : 2 * H] + x[H : 2 * H])
    candidate = np.tanh(reset * (h @ W[:, 2 * H :] + d) + x[2 * H :])
    return update * h + (1 - update) * candidate, c


def lstm_step(h, c, x, W, d):
    H = len(h)
    a = h @ W + x
    forget, include = sigmoid(a[:H]), sigmoid(a[H : 2 * H])
    candidate, output = np.tanh(a[2 * H : 3 * H]), sigmoid(a[3 * H :])
    c = forget * c + include * candidate
    return output * np.tanh(c), c


STEPS = {
    "rnn": rnn_step,
    "gru": gru_step,
    "gru_reset_after": gru_reset_after_step,
    "lstm": lstm_step,
}


def hidden_states(cell, parameters, n_layers, inputs, initial=None):
    """States (T, H) of the top layer; inputs: codes (T,) int, or numbers (T,)."""
    p = {name: np.asarray(value, dtype=float) for name, value in parameters.items()}
    symbols = np.asarray(inputs).dtype.kind == "i"
    below = inputs
    for layer in range(n_layers):
        W, V = p[f"recurrent_weights_{layer}"], p[f"input_weights_{layer}"]
        b, d = p[f"bias_{layer}"], p.get(f"recurrent_bias_{layer}")
        H = len(W)
        h, c = (np.zeros(H), np.zeros(H)) if initial is None else initial[layer]
        outputs = []
        for x in below:
            entered = ((V[x] if symbols else x * V[0]) if layer == 0 else x @ V) + b
            h, c = STEPS[cell](h, c, entered, W, d)
            outputs.append(h)
        below = np.array(outputs)
    return below


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def pool(h, pooling):
    parts = {"last": [h[-1]], "mean": [h.mean(0)], "max": [h.max(0)]}
    parts["all"] = parts["last"] + parts["mean"] + parts["max"]
    return np.concatenate(parts[pooling])


def loss(cell, parameters, n_layers, texts, pooling=None, labels=None, label_weights=None,
         targets=None, target_weights=None, initial=None):
    """Weighted negative log-likelihood of labels and next symbols of all texts."""
    total = 0.0
    for i, text in enumerate(texts):
        h = hidden_states(cell, parameters, n_layers, text, None if initial is None else initial[i])
        if labels is not None:
            z = pool(h, pooling) @ parameters["label_weights"] + parameters["label_bias"]
            total -= label_weights[i] * log_softmax(z)[labels[i]]
        if targets is not None:
            z = log_softmax(h @ parameters["next_weights"] + parameters["next_bias"])
            total -= target_weights[i] @ z[np.arange(len(text)), targets[i]]
    return total


def numeric_gradient(function, parameters, step=1e-6):
    """Central differences of function(parameters), entry by entry."""
    result = {}
    for name, value in parameters.items():
        gradient = np.zeros_like(value, dtype=float)
        for index in np.ndindex(value.shape):
            moved = dict(parameters)
            for sign in (1, -1):
                moved[name] = value.copy()
                moved[name][index] += sign * step
                gradient[index] += sign * function(moved)
            gradient[index] /= 2 * step
        result[name] = gradient
    return result
