"""The same networks in torch, for the tests and benchmarks that compare with it.

Needs ``torch==2.13.0`` (the CPU build); nothing else of the project does.
"""

import numpy as np
import torch

# Position of each of torch's gate blocks (i, f, g, o; r, z, n) among ours.
ORDER = {
    "rnn": [0],
    "gru_reset_after": [1, 0, 2],
    "lstm": [1, 0, 2, 3],
}


def in_torch_order(cell, weights):
    """Our (rows, gates * H) or (gates * H,) as torch's (gates * H, rows) or (gates * H,)."""
    blocks = np.split(np.asarray(weights), len(ORDER[cell]), axis=-1)
    joined = np.concatenate([blocks[k] for k in ORDER[cell]], axis=-1)
    return torch.tensor(np.ascontiguousarray(joined.T))


class Twin(torch.nn.Module):
    """One-hot symbols -> nn.RNN, nn.GRU or nn.LSTM -> a linear layer."""

    def __init__(self, cell, n_inputs, hidden, n_outputs, n_layers=1, features=1):
        super().__init__()
        kind = {"rnn": "RNN", "gru": "GRU", "gru_reset_after": "GRU", "lstm": "LSTM"}[cell]
        self.n_inputs = n_inputs
        self.layers = getattr(torch.nn, kind)(n_inputs, hidden, n_layers, batch_first=False)
        self.head = torch.nn.Linear(features * hidden, n_outputs)

    def one_hot(self, codes):
        return torch.nn.functional.one_hot(codes, self.n_inputs).to(self.head.weight.dtype)

    def forward(self, codes, state=None):
        """codes (T, B) -> logits (T, B, n_outputs), state."""
        outputs, state = self.layers(self.one_hot(codes), state)
        return self.head(outputs), state

    def load(self, network, head="next"):
        """Take over the weights of one of our networks (bias of the inputs; the other zero)."""
        cell = network.architecture.cell
        views = network.views
        with torch.no_grad():
            for layer in range(network.architecture.n_layers):
                put = {
                    "weight_ih": in_torch_order(cell, views[f"input_weights_{layer}"]),
                    "weight_hh": in_torch_order(cell, views[f"recurrent_weights_{layer}"]),
                    "bias_ih": in_torch_order(cell, views[f"bias_{layer}"]),
                }
                zero = torch.zeros_like(put["bias_ih"])
                if f"recurrent_bias_{layer}" in views:
                    hidden = network.architecture.hidden_size
                    zero[2 * hidden :] = torch.tensor(views[f"recurrent_bias_{layer}"])
                put["bias_hh"] = zero
                for name, value in put.items():
                    getattr(self.layers, f"{name}_l{layer}").copy_(value)
            self.head.weight.copy_(torch.tensor(np.ascontiguousarray(views[f"{head}_weights"].T)))
            self.head.bias.copy_(torch.tensor(views[f"{head}_bias"]))
        return self
