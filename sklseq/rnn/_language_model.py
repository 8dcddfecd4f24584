"""CharRNNLanguageModel: the distribution of texts, one character after another."""

from __future__ import annotations

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from . import _recurrence as kernels
from ._char_rnn import BaseCharRNN, check_weights
from ._network import Architecture, Network
from ._vocabulary import EncodedTexts, Vocabulary, check_texts, tokenize

STREAM_WINDOWS = 4  # a stream cut from a long text is at least so many windows long


class CharRNNLanguageModel(BaseCharRNN):
    _head = "next"
    _hidden_share = 0.2

    def __init__(
        self,
        cell="gru",
        hidden_size=256,
        *,
        n_layers=1,
        dropout=0.0,
        reset_after=False,
        analyzer="char",
        handle_unknown="ignore",
        solver="adamw",
        alpha=0.01,
        batch_size=32,
        bptt_steps=64,
        learning_rate="cosine",
        learning_rate_init=3e-3,
        max_iter="auto",
        shuffle=True,
        average_decay=0.999,
        max_grad_norm=5.0,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        warm_start=False,
        verbose=False,
        n_jobs=None,
        random_state=None,
    ):
        self.cell = cell
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.dropout = dropout
        self.reset_after = reset_after
        self.analyzer = analyzer
        self.handle_unknown = handle_unknown
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.bptt_steps = bptt_steps
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.average_decay = average_decay
        self.max_grad_norm = max_grad_norm
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    # ---------------------------------------------------------------- fitting

    def fit(self, X, y=None, sample_weight=None):
        self._check_parameters()
        random = check_random_state(self.random_state)
        again = self.warm_start and hasattr(self, "_network")
        tokens, n_tokens = self._tokens(X)
        weights = check_weights(sample_weight, len(n_tokens))
        vocabulary = self._vocabulary if again else self._learn(tokens, n_tokens, weights)
        sequences = vocabulary.encode(tokens, n_tokens, self.handle_unknown)
        rows = np.flatnonzero(weights > 0)
        kept = EncodedTexts(sequences.codes, sequences.starts[rows], sequences.lengths[rows])
        held = None
        if self.early_stopping:
            kept, held, rows = self._split(kept, rows, random)
        architecture = self._architecture(len(vocabulary), 0, True, "last")
        initial = self._start(architecture, again, random)
        objective = self._stream_objective(architecture, kept, weights[rows])
        if held is not None:
            objective.score_parameters = lambda parameters: self._mean_log_probability(
                held, Network(architecture, parameters).pack()
            )
        self._vocabulary = vocabulary
        self._train(architecture, initial, objective, random)
        return self

    def partial_fit(self, X, y=None, sample_weight=None):
        self._check_parameters()
        first = not hasattr(self, "_network")
        tokens, n_tokens = self._tokens(X)
        weights = check_weights(sample_weight, len(n_tokens))
        vocabulary = self._learn(tokens, n_tokens, weights) if first else self._vocabulary
        sequences = vocabulary.encode(tokens, n_tokens, self.handle_unknown)
        rows = np.flatnonzero(weights > 0)
        kept = EncodedTexts(sequences.codes, sequences.starts[rows], sequences.lengths[rows])
        architecture = self._architecture(len(vocabulary), 0, True, "last")
        initial = self._start(architecture, not first, check_random_state(self.random_state))
        self._vocabulary = vocabulary
        self._train_more(
            architecture, initial, self._stream_objective(architecture, kept, weights[rows])
        )
        return self

    @staticmethod
    def _learn(tokens, n_tokens, weights) -> Vocabulary:
        used = np.repeat(weights > 0, n_tokens)
        if isinstance(tokens, np.ndarray):
            return Vocabulary.of(tokens[used])
        return Vocabulary.of([token for token, use in zip(tokens, used) if use])

    def _start(self, architecture: Architecture, again: bool, random) -> np.ndarray:
        if not again:
            return architecture.initial_parameters(random)
        if self._network.architecture != architecture:
            raise ValueError(
                "warm_start and partial_fit need the shape of the first fit; it was "
                f"{self._network.architecture}, now {architecture}."
            )
        return self._network.parameters

    def _split(self, texts: EncodedTexts, rows, random):
        """Texts to train on and texts held out; the end of the text where there is but one."""
        n = len(texts.starts)
        if n > 1:
            n_held = min(max(1, round(self.validation_fraction * n)), n - 1)
            order = random.permutation(n)
            out, stay = np.sort(order[:n_held]), np.sort(order[n_held:])
            part = [
                EncodedTexts(texts.codes, texts.starts[i], texts.lengths[i]) for i in (stay, out)
            ]
            return part[0], part[1], rows[stay]
        length = int(texts.lengths[0])
        n_held = max(1, round(self.validation_fraction * length))
        if n_held >= length:
            raise ValueError(
                f"early_stopping needs a text of more than {length - 1} symbols to hold out "
                f"validation_fraction={self.validation_fraction} of it."
            )
        start, cut = texts.starts, texts.starts + length - n_held
        return (
            EncodedTexts(texts.codes, start, texts.lengths - n_held),
            EncodedTexts(texts.codes, cut, np.array([n_held])),
            rows,
        )

    def _stream_objective(self, architecture, texts: EncodedTexts, weights):
        """Long texts are cut into streams, so that a minibatch is full; short ones stay whole."""
        total = int(texts.lengths.sum())
        longest = max(-(-total // self.batch_size), STREAM_WINDOWS * self.bptt_steps)
        pieces = -(-texts.lengths // longest)
        row = np.repeat(np.arange(len(pieces)), pieces)
        number = np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        first = texts.lengths[row] * number // pieces[row]
        last = texts.lengths[row] * (number + 1) // pieces[row]
        return self._objective(
            architecture,
            inputs=texts.codes,
            starts=texts.starts[row] + first,
            lengths=last - first,
            weights=weights[row],
            labels=None,
            next_weight=1.0,
            bptt_steps=int(self.bptt_steps),
        )

    # ---------------------------------------------------------------- scoring

    def _check_input(self, X) -> EncodedTexts:
        check_is_fitted(self)
        return self._encode(X)

    def _log_probabilities(self, texts: EncodedTexts, network=None) -> list[np.ndarray]:
        """Of each symbol of each text, the end symbol last; −inf for an unknown symbol."""

        def evaluate(packed, batch, workspace):
            parts = [[] for _ in batch.rows]
            for window, outputs in packed.scan(batch, texts.codes, workspace):
                logits = packed.head("next", outputs).astype(np.float64)
                target = texts.codes[window.index + 1] - 1
                values = np.empty(len(target))
                kernels.cross_entropy(target, np.ones(len(target)), logits, values)
                offsets = np.cumsum(window.counts) - window.counts
                lengths = np.searchsorted(
                    -window.counts, -np.arange(1, window.n_sequences + 1), side="right"
                )
                for row, length in enumerate(lengths):
                    parts[row].append(values[offsets[:length] + row])
            return [np.concatenate(part) for part in parts]

        result: list = [None] * len(texts.starts)
        for chunk, values in self._map_chunks(evaluate, texts.starts, texts.lengths, network):
            for row, value in zip(chunk.rows, values):
                result[row] = value
        return result

    def _mean_log_probability(self, texts: EncodedTexts, network=None) -> float:
        values = self._log_probabilities(texts, network)
        return float(sum(v.sum() for v in values) / sum(map(len, values)))

    def score_samples(self, X):
        return np.array([v.sum() for v in self._log_probabilities(self._check_input(X))])

    def score(self, X, y=None, sample_weight=None):
        texts = self._check_input(X)
        weights = check_weights(sample_weight, len(texts.starts))
        totals = np.array([v.sum() for v in self._log_probabilities(texts)])
        used = weights > 0
        return float(
            (weights[used] @ totals[used]) / (weights[used] @ texts.lengths[used])
        )

    def perplexity(self, X):
        return float(np.exp(-self.score(X)))

    def bits_per_char(self, X):
        return -self.score(X) / np.log(2.0)

    def char_log_proba(self, X):
        values = self._log_probabilities(self._check_input(X))
        result = np.empty(len(values), dtype=object)
        for i, value in enumerate(values):
            result[i] = value[:-1]
        return result

    @property
    def symbols_(self) -> np.ndarray:
        """Columns of predict_proba: "" (the end of the text), then the symbols in sorted order."""
        check_is_fitted(self)
        return np.array(["", *self._vocabulary.symbols], dtype=object)

    def predict_proba(self, X):
        states = self._last_states(self._check_input(X))
        logits = self._packed().head("next", states).astype(np.float64)
        kernels.softmax(logits)
        return logits

    def predict(self, X):
        return self.symbols_[self.predict_proba(X).argmax(axis=1)]

    def transform(self, X):
        return self._last_states(self._check_input(X))

    # ---------------------------------------------------------------- drawing

    def sample(
        self, n_samples=1, *, max_length=200, prefix="", temperature=1.0, top_k=None,
        random_state=None,
    ):  # fmt: skip
        check_is_fitted(self)
        self._check_drawing(n_samples, max_length, temperature, top_k)
        tokens = tokenize(check_texts([prefix]), self.analyzer)
        start = self._vocabulary.encode(*tokens, self.handle_unknown).codes[:-1]
        drawn = self._draw(
            n_samples, start.tolist(), max_length, temperature, top_k,
            check_random_state(random_state),
        )  # fmt: skip
        return [self._continued(prefix, codes) for codes in drawn]

    def _continued(self, prefix, codes: list[int]) -> str:
        head = prefix if isinstance(prefix, str) else self._joiner.join(prefix)
        tail = self._vocabulary.decode(codes, self._joiner)
        return head + (self._joiner if head and tail else "") + tail
