"""The table of recurrent cells: what the network must know of each, and the equations.

With x_t the input, h_{t-1} the state before the step, σ the logistic function and ⊙ the product
entry by entry (Γ, F, I, O are the notes' gates):

``rnn``
    h_t = tanh(W_hh h_{t-1} + W_xh x_t + b)

``gru``
    Γ_u = σ(W_u h_{t-1} + V_u x_t + b_u)                 update gate
    Γ_r = σ(W_r h_{t-1} + V_r x_t + b_r)                 reset gate
    c_t = tanh(W_c (Γ_r ⊙ h_{t-1}) + V_c x_t + b_c)      candidate
    h_t = Γ_u ⊙ h_{t-1} + (1 − Γ_u) ⊙ c_t                an open update gate keeps the memory

``gru_reset_after``, the variant of cuDNN and its users: the reset gate acts after the product,
    c_t = tanh(Γ_r ⊙ (W_c h_{t-1} + d_c) + V_c x_t + b_c)

``lstm``
    F = σ(W_f h_{t-1} + V_f x_t + b_f)                   forget
    I = σ(W_i h_{t-1} + V_i x_t + b_i)                   include
    c̃_t = tanh(W_c h_{t-1} + V_c x_t + b_c)              candidate
    O = σ(W_o h_{t-1} + V_o x_t + b_o)                   output
    c_t = F ⊙ c_{t-1} + I ⊙ c̃_t,   h_t = O ⊙ tanh(c_t)

Arrays hold the transposes: with the gates side by side in the order of ``Cell.gates``, the
pre-activations of a batch of rows are ``h @ recurrent_weights + x @ input_weights + bias``, so gate
number k of the recurrent weights is ``recurrent_weights[:, k * H:(k + 1) * H]`` = W_k'.

A cell is added here, with its step in ``_cell_steps.h``.  Gates and memory: Hochreiter &
Schmidhuber (1997), Gers et al. (2000) for the forget gate, Cho et al. (2014) for the GRU.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """What the network must know of a cell.

    number : the kernel's name for it (``_layer_weights.h``).
    gates : names of the blocks of columns of its weights.
    n_stored : blocks in a row of the kernel's gate buffer.
    has_memory : a second state c_t beside h_t.
    splits_candidate : the candidate has a product of its own, after the reset.
    has_recurrent_bias : a bias d_c inside the reset.
    """

    number: int
    gates: tuple[str, ...]
    n_stored: int
    has_memory: bool = False
    splits_candidate: bool = False
    has_recurrent_bias: bool = False

    @property
    def n_gates(self) -> int:
        return len(self.gates)


CELLS = {
    "rnn": Cell(0, ("hidden",), 1),
    "gru": Cell(1, ("update", "reset", "candidate"), 3, splits_candidate=True),
    "gru_reset_after": Cell(2, ("update", "reset", "candidate"), 4, has_recurrent_bias=True),
    "lstm": Cell(3, ("forget", "include", "candidate", "output"), 4, has_memory=True),
}

# What of the hidden states the label head sees: the kernel's bits, and blocks of H features.
POOLINGS = {"last": (1, 1), "mean": (2, 1), "max": (4, 1), "all": (7, 3)}
