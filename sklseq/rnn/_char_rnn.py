"""The face that both character models share: parameters, training, running, drawing."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklseq._documentation import DocumentationLink
from sklseq._pickles import VersionedPickle
from sklseq._sequences import n_workers
from sklseq._validation import check_choice, check_entries, check_n_jobs
from sklseq.rnn import _recurrence as kernels
from sklseq.rnn._batches import SequenceBatch, chunks_by_length
from sklseq.rnn._cells import POOLINGS
from sklseq.rnn._network import CHUNK_ROWS, Architecture, Network, PackedNetwork, Workspace
from sklseq.rnn._objective import SequenceObjective
from sklseq.rnn._trainer import Optimiser, Settings, run_epoch, train
from sklseq.rnn._vocabulary import (
    END,
    EncodedTexts,
    Vocabulary,
    check_analyzer,
    check_texts,
    check_vocabulary,
    count_symbols,
    frequent_symbols,
    settled,
    tokenize,
)

CHUNK_STEPS = 32  # steps drawn before finished texts are put aside; then twice as many, and so on
AUTO_EPOCHS, AUTO_UPDATES = 20, 300
BELOW_ONE = 0.999999  # as messages print it

# name: (kind, least, least is allowed, greatest)
NUMBERS: dict[str, tuple[type, float, bool, float]] = {
    "hidden_size": (Integral, 1, True, np.inf),
    "n_layers": (Integral, 1, True, np.inf),
    "dropout": (Real, 0, True, 0.99),
    "next_char_weight": (Real, 0, True, np.inf),
    "alpha": (Real, 0, True, np.inf),
    "batch_size": (Integral, 1, True, np.inf),
    "bptt_steps": (Integral, 1, True, np.inf),
    "learning_rate_init": (Real, 0, False, 1e100),
    "beta_1": (Real, 0, True, BELOW_ONE),
    "beta_2": (Real, 0, True, BELOW_ONE),
    "epsilon": (Real, 0, False, np.inf),
    "momentum": (Real, 0, True, BELOW_ONE),
    "average_decay": (Real, 0, True, BELOW_ONE),
    "max_grad_norm": (Real, 0, False, np.inf),
    "validation_fraction": (Real, 0, False, BELOW_ONE),
    "n_iter_no_change": (Integral, 1, True, np.inf),
    "tol": (Real, 0, True, np.inf),
}
CHOICES = {
    "cell": ("rnn", "gru", "lstm"),
    "pooling": tuple(POOLINGS),
    "solver": ("adam", "adamw", "sgd"),
    "learning_rate": ("constant", "cosine"),
    "handle_unknown": ("ignore", "error"),
}
FLAGS = (
    "reset_after", "shuffle", "nesterovs_momentum", "early_stopping", "warm_start",
)  # fmt: skip


def check_number(
    name: str, value: Any, kind: type, least: float, closed: bool, greatest: float = np.inf
) -> None:
    """Raise a ValueError that names the parameter, the rule and the value."""
    fits = isinstance(value, kind) and not isinstance(value, bool | np.bool_)
    if not fits or not (least <= value if closed else least < value) or not value <= greatest:
        word = "an integer" if kind is Integral else "a number"
        rule = f" {'at least' if closed else 'above'} {least:g}" if least > -np.inf else ""
        rule += f" and at most {greatest:g}" if greatest < np.inf else ""
        raise ValueError(f"{name} must be {word}{rule}; got {value!r}.")


@contextmanager
def workers(n_jobs: int | None) -> Iterator[ThreadPoolExecutor | None]:
    """Threads for shards, or None for one."""
    n = n_workers(n_jobs)
    if n == 1:
        yield None
    else:
        with ThreadPoolExecutor(n) as pool:
            yield pool


class BaseCharRNN(
    DocumentationLink, VersionedPickle, ClassNamePrefixFeaturesOutMixin, TransformerMixin,
    BaseEstimator,
):  # fmt: skip
    """What CharRNNClassifier and CharRNNLanguageModel share."""

    _head: str  # the head of output_weights_
    _automatic = ("max_iter",)  # parameters that may be "auto"
    _hidden_share: float  # a whole input symbol is hidden with this share of `dropout`

    def fit_transform(self, X, y=None, **fit_params):
        """``fit``, then ``transform`` of the same texts, which an iterator gives but once.

        Parameters
        ----------
        X : array-like of str, or of lists of tokens; for a classifier also numbers
        y : array-like of shape (n_samples,), default=None
        **fit_params : dict
            For ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, hidden_size)
        """
        return super().fit_transform(settled(X), y, **fit_params)

    # ---------------------------------------------------------------- parameters

    def _check_parameters(self) -> None:
        parameters = self.get_params(deep=False)
        for name, allowed in CHOICES.items():
            value = parameters.get(name, allowed[0])
            if not isinstance(value, str) or value not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(map(repr, allowed))}; "
                    f"got {parameters[name]!r}."
                )
        for name, bounds in NUMBERS.items():
            if name in parameters and not self._is_automatic(name):
                check_number(name, parameters[name], *bounds)
        check_n_jobs(self.n_jobs)
        for name in FLAGS:
            if not isinstance(parameters[name], bool | np.bool_):
                raise ValueError(f"{name} must be True or False; got {parameters[name]!r}.")
        if not isinstance(self.verbose, Integral | np.bool_):
            raise ValueError(f"verbose must be True or False; got {self.verbose!r}.")
        if not self._is_automatic("max_iter"):
            check_number("max_iter", self.max_iter, Integral, 1, True)
        if self.reset_after and self.cell != "gru":
            raise ValueError(
                f"reset_after=True is a variant of cell='gru'; got cell={self.cell!r}."
            )
        check_analyzer(self.analyzer)
        self._check_choice_of_symbols()

    def _check_choice_of_symbols(self) -> None:
        if self.max_symbols is not None:
            check_number("max_symbols", self.max_symbols, Integral, 1, True)
        if isinstance(self.min_frequency, Integral):
            check_number("min_frequency", self.min_frequency, Integral, 1, True)
        elif self.min_frequency is not None:  # a share of all
            check_number("min_frequency", self.min_frequency, Real, 0, False, BELOW_ONE)
        if self.min_frequency is self.max_symbols is None:
            return
        for name, clash, why in (
            ("vocabulary", self.vocabulary is not None, "leaves them nothing to choose"),
            ("handle_unknown", self.handle_unknown == "error", "refuses what they leave out"),
        ):
            if clash:
                raise ValueError(
                    f"min_frequency and max_symbols must be None where {name}="
                    f"{getattr(self, name)!r} {why}; got {self.min_frequency!r} and "
                    f"{self.max_symbols!r}."
                )

    def _is_automatic(self, name: str) -> bool:
        value = getattr(self, name)
        return name in self._automatic and isinstance(value, str) and value == "auto"

    def _alpha(self, n_samples: int) -> float:
        return self.alpha

    def _settings(self, n_samples: int, learning_rate: str | None = None) -> Settings:
        return Settings(
            solver=self.solver,
            alpha=self._alpha(n_samples),
            learning_rate=learning_rate or self.learning_rate,
            learning_rate_init=self.learning_rate_init,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            momentum=self.momentum,
            nesterovs_momentum=self.nesterovs_momentum,
            max_grad_norm=self.max_grad_norm,
            average_decay=self.average_decay,
            tol=self.tol,
            n_iter_no_change=self.n_iter_no_change,
            early_stopping=self.early_stopping,
            verbose=self.verbose,
        )

    def _architecture(
        self, n_symbols: int, n_labels: int, next_symbol: bool, pooling: str
    ) -> Architecture:
        cell = "gru_reset_after" if self.reset_after else self.cell
        return Architecture(
            cell,
            int(self.hidden_size),
            int(self.n_layers),
            n_symbols,
            n_labels,
            next_symbol,
            pooling,
            "float32" if n_symbols else "float64",
        )

    # ---------------------------------------------------------------- texts

    def _tokens(self, X: object) -> tuple[np.ndarray | list[str], np.ndarray]:
        return tokenize(check_texts(X), self.analyzer)

    def _learn_vocabulary(self, tokens, n_tokens, weights, in_lists: bool) -> Vocabulary:
        """The symbols of tokenized texts that are frequent enough, or those the user gives."""
        if self.vocabulary is not None:
            symbols = check_vocabulary(self.vocabulary, self.analyzer)
            return Vocabulary(symbols, in_lists, self.handle_unknown != "error")
        symbols, counts = count_symbols(tokens, n_tokens, weights)
        if self.min_frequency is self.max_symbols is None:
            return Vocabulary(tuple(symbols), in_lists)
        chosen = frequent_symbols(symbols, counts, self.min_frequency, self.max_symbols)
        return Vocabulary(chosen, in_lists, True)

    def _encode(self, X: object) -> EncodedTexts:
        check_choice(self, "handle_unknown", CHOICES["handle_unknown"])
        return self._vocabulary.encode(*self._tokens(X), self.handle_unknown)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_network")

    @property
    def vocabulary_(self) -> dict[str, int]:
        """Row of the input table by symbol; row 0 is a hidden or unknown one, row 1 start and end.

        With ``min_frequency``, ``max_symbols`` or ``vocabulary`` the last row is that of all
        other symbols.
        """
        if self._vocabulary is None:
            raise AttributeError("vocabulary_: this model was fitted on numbers.")
        return self._vocabulary.codes

    # ---------------------------------------------------------------- training

    def _train(
        self,
        architecture: Architecture,
        initial: np.ndarray,
        objective: SequenceObjective,
        random: np.random.RandomState,
    ) -> None:
        """All of fit's minimising; sets the network and what is told of the run."""
        settings = self._settings(len(objective.starts))
        optimiser = Optimiser(settings, initial, architecture.n_weights)
        n_epochs = self.max_iter
        if n_epochs == "auto":
            n_epochs = max(AUTO_EPOCHS, -(-AUTO_UPDATES // objective.n_minibatches()))
        with workers(self.n_jobs) as pool:
            objective.pool = pool
            history = train(
                optimiser, objective, n_epochs, random, type(self).__name__,
                int(objective.lengths.sum()),
            )  # fmt: skip
        self._network = Network(architecture, history.kept)
        self._optimiser = None
        self.loss_curve_ = history.loss_curve
        self.loss_ = history.loss_curve[-1] if history.loss_curve else np.nan
        self.n_iter_ = max(len(history.loss_curve), 1)
        self.converged_ = history.converged
        self.validation_scores_ = history.validation_scores if self.early_stopping else None
        self.best_validation_score_ = history.best_validation_score

    def _train_more(
        self, architecture: Architecture, initial: np.ndarray, objective: SequenceObjective
    ) -> None:
        """partial_fit: one pass at a constant rate, the optimiser kept between calls."""
        settings = self._settings(len(objective.starts), "constant")
        kept = getattr(self, "_optimiser", None)
        if kept is None or kept.settings.solver != settings.solver:
            optimiser = Optimiser(settings, initial, architecture.n_weights)
            random = check_random_state(self.random_state)
        else:  # copies, so that a pass that fails leaves nothing behind
            optimiser, random = copy.deepcopy((self._optimiser, self._random))
            if not optimiser.settings.average_decay:  # the average stood still
                optimiser.average[:] = optimiser.parameters
            optimiser.settings = settings
        with workers(self.n_jobs) as pool:
            objective.pool = pool
            loss = run_epoch(optimiser, objective, random, 0, 1)
        if not (np.isfinite(loss) and np.isfinite(optimiser.parameters).all()):
            raise ValueError(
                "partial_fit: the loss is not finite; the weights are those of before the call. "
                "Lower learning_rate_init or max_grad_norm."
            )
        self._optimiser, self._random = optimiser, random
        self._network = Network(architecture, optimiser.result.copy())
        self.loss_curve_ = [*getattr(self, "loss_curve_", []), loss]
        self.loss_ = loss
        self.n_iter_ = len(self.loss_curve_)

    def _objective(self, architecture: Architecture, **arguments) -> SequenceObjective:
        texts = architecture.n_symbols > 0
        return SequenceObjective(
            architecture,
            batch_size=min(int(self.batch_size), sys.maxsize),
            shuffle=self.shuffle,
            # Numbers are trained without dropout, so that an integer weight is a repetition.
            dropout=self.dropout if texts else 0.0,
            symbol_dropout=self.dropout * self._hidden_share if texts else 0.0,
            **arguments,
        )

    # ---------------------------------------------------------------- running

    def _packed(self) -> PackedNetwork:
        """The network ready to run."""
        architecture = self._network.architecture
        check_entries(self, "vocabulary_", architecture.n_symbols, self._vocabulary or ())
        if architecture.n_labels:
            check_entries(self, "classes_", architecture.n_labels)
        return self._network.packed

    def _map_chunks(
        self,
        function: Callable[[PackedNetwork, SequenceBatch, Workspace], Any],
        starts: np.ndarray,
        lengths: np.ndarray,
        network: PackedNetwork | None = None,
    ) -> Iterable[tuple[SequenceBatch, Any]]:
        """function on chunks of all sequences, by threads if there are; with the chunks."""
        packed = self._packed() if network is None else network
        chunks = chunks_by_length(starts, lengths, CHUNK_ROWS)
        n = min(n_workers(self.n_jobs), len(chunks))
        if n == 1:
            workspace = Workspace()
            return [(chunk, function(packed, chunk, workspace)) for chunk in chunks]
        with ThreadPoolExecutor(n) as pool:
            results = pool.map(lambda chunk: function(packed, chunk, Workspace()), chunks)
            return list(zip(chunks, results))

    def _collect(
        self,
        function: Callable[[PackedNetwork, SequenceBatch, Workspace], np.ndarray],
        sequences: EncodedTexts,
        network: PackedNetwork | None = None,
    ) -> np.ndarray:
        """Rows that function gives for each sequence, in the order of the sequences."""
        result = None
        for chunk, rows in self._map_chunks(
            function, sequences.starts, sequences.lengths, network
        ):
            if result is None:
                shape = (len(sequences.starts), *rows.shape[1:])
                result = np.empty(shape, rows.dtype)
            result[chunk.rows] = rows
        return result

    def _last_states(self, sequences: EncodedTexts) -> np.ndarray:
        def last(packed, batch, workspace):
            result = np.empty(
                (len(batch.rows), packed.architecture.hidden_size), packed.architecture.dtype
            )
            for window, outputs in packed.scan(batch, sequences.codes, workspace):
                result[: window.n_sequences] = outputs[window.last_rows()]
            return result

        return self._collect(last, sequences)

    # ---------------------------------------------------------------- drawing

    def _draw(
        self,
        prefixes: list[list[int]],
        max_length: int,
        temperature: float,
        top_k: int | None,
        top_p: float,
        random: np.random.RandomState,
    ) -> list[list[int]]:
        """Codes drawn after each prefix of codes, until the end symbol or max_length."""
        packed, n_samples = self._packed(), len(prefixes)
        after = {
            prefix: self._states_after(packed, list(prefix[:-1]))
            for prefix in {tuple(prefix) for prefix in prefixes}
        }
        states, memory = (
            np.concatenate(parts, axis=2)
            for parts in zip(*(after[tuple(prefix)] for prefix in prefixes))
        )
        layers = draw_layers(packed)
        head, bias, _ = packed.heads["next"]
        if self._vocabulary.learns_unknown:  # predicted, but what should be drawn for it?
            bias = bias.copy()
            bias[self._vocabulary.unknown - 1] = -np.inf
        codes = np.array([prefix[-1] for prefix in prefixes], dtype=np.int32)
        drawn: list[list[int]] = [[] for _ in range(n_samples)]
        alive = np.arange(n_samples)
        first, steps = 0, CHUNK_STEPS
        while first < max_length:
            steps = min(steps, max_length - first)
            symbols = np.empty((len(alive), steps), dtype=np.int32)
            uniforms = random.random_sample(symbols.shape)
            kernels.draw_symbols(
                layers, head, bias, uniforms, temperature, top_k or 0, top_p, states, memory,
                codes, symbols,
            )  # fmt: skip
            ended = symbols == END - 1
            lengths = np.where(ended.any(axis=1), ended.argmax(axis=1), steps)
            for i, row, length in zip(alive, symbols, lengths):
                drawn[i].extend((row[:length] + 1).tolist())
            going = np.flatnonzero(~ended.any(axis=1))
            if not len(going):
                break
            if len(going) < len(alive):
                alive, codes = alive[going], codes[going]
                states = np.ascontiguousarray(states[:, :, going])
                memory = np.ascontiguousarray(memory[:, :, going])
            first, steps = first + steps, min(2 * steps, 16 * CHUNK_STEPS)
        return drawn

    def _states_after(self, packed: PackedNetwork, codes: list) -> tuple[np.ndarray, np.ndarray]:
        """States and memories (n_layers, 2, 1, H) after reading codes from a zero start."""
        architecture = packed.architecture
        shape = (architecture.n_layers, 2, 1, architecture.hidden_size)
        states = np.zeros(shape, architecture.dtype)
        memory = np.zeros(
            shape if architecture.cell_spec.has_memory else (0, 2, 1, 1), architecture.dtype
        )
        if codes:
            inputs = np.array(codes, dtype=np.int32)
            batch = SequenceBatch(np.zeros(1, int), np.zeros(1, int), np.array([len(codes)]))
            final = packed.final_states(batch, inputs, Workspace())
            for layer, (state, cell) in enumerate(final):
                states[layer, 0] = state
                if len(memory):
                    memory[layer, 0] = cell
        return states, memory

    @property
    def _draws_lists(self) -> bool:
        """Whether draws are lists of tokens: what no string would be read back as."""
        return callable(self.analyzer) or self._vocabulary.in_lists

    def _written(self, tokens: list[str], joiner: str | None) -> str | list[str]:
        """Drawn symbols as ``score`` reads them back, or as the user would have them joined."""
        if joiner is None and self._draws_lists:
            return tokens
        if joiner is None:
            joiner = "" if self.analyzer == "char" else " "
        return joiner.join(tokens)

    def _check_read_back(self, texts: list, tokens: list[list[str]]) -> None:
        """A warning for texts, joined as the user would have it, that are read differently."""
        for i, (text, expected) in enumerate(zip(texts, tokens)):
            read, _ = tokenize([text], self.analyzer)
            read = list(map(chr, read)) if isinstance(read, np.ndarray) else read
            if read != expected:
                warnings.warn(
                    f"sample: draw {i}, {text!r}, is read back by analyzer as {len(read)} symbols "
                    f"and not as the {len(expected)} drawn; without joiner draws are lists.",
                    UserWarning,
                    stacklevel=3,
                )
                return

    def _check_drawing(
        self, n_samples: int, max_length: int, temperature: float, top_k: int | None,
        top_p: float = 1.0, joiner: str | None = None,
    ) -> None:  # fmt: skip
        check_number("n_samples", n_samples, Integral, 1, True)
        check_number("max_length", max_length, Integral, 0, True)
        check_number("temperature", temperature, Real, 0, True)
        if top_k is not None:
            check_number("top_k", top_k, Integral, 1, True)
        check_number("top_p", top_p, Real, 0, False, 1)
        if not (joiner is None or isinstance(joiner, str)):
            raise ValueError(f"joiner must be a str or None; got {joiner!r}.")

    # ---------------------------------------------------------------- fitted weights

    def _weights(self, kind: str) -> list[np.ndarray]:
        check_is_fitted(self)
        views = self._network.views
        return [views[f"{kind}_{layer}"] for layer in range(self._network.architecture.n_layers)]

    @property
    def input_weights_(self) -> list[np.ndarray]:
        return self._weights("input_weights")

    @property
    def recurrent_weights_(self) -> list[np.ndarray]:
        return self._weights("recurrent_weights")

    @property
    def biases_(self) -> list[np.ndarray]:
        return self._weights("bias")

    @property
    def output_weights_(self) -> np.ndarray:
        check_is_fitted(self)
        return self._network.views[f"{self._head}_weights"]

    @property
    def output_bias_(self) -> np.ndarray:
        check_is_fitted(self)
        return self._network.views[f"{self._head}_bias"]

    @property
    def _n_features_out(self) -> int:
        return self._network.architecture.hidden_size


def draw_layers(packed: PackedNetwork) -> list[tuple]:
    """The layers as ``draw_symbols`` takes them."""
    cell = packed.architecture.cell_spec
    return [
        (cell.number, cell.n_gates, cell.n_stored, layer.recurrent, layer.candidate,
         layer.recurrent_bias, layer.inputs.reshape(-1), layer.bias)
        for layer in packed.layers
    ]  # fmt: skip


def transfer(
    source: Network, known: Vocabulary, target: Architecture, vocabulary: Vocabulary,
    parameters: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """parameters with all that a trained network has for the same layers and symbols."""
    result = parameters.copy()
    old, new = source.views, target.views(result)
    both = [symbol for symbol in vocabulary.symbols if symbol in known.codes]
    rows = np.array([0, 1] + [vocabulary.codes[s] for s in both])
    from_rows = np.array([0, 1] + [known.codes[s] for s in both])
    if vocabulary.learns_unknown and known.learns_unknown:
        rows, from_rows = np.append(rows, vocabulary.unknown), np.append(from_rows, known.unknown)
    for name, value in new.items():
        if name == "input_weights_0":
            value[rows] = old[name][from_rows]
        elif name == "next_weights" and name in old:
            value[:, rows[1:] - 1] = old[name][:, from_rows[1:] - 1]
        elif name == "next_bias" and name in old:
            value[rows[1:] - 1] = old[name][from_rows[1:] - 1]
        elif not name.startswith(("label", "next")):
            value[...] = old[name]
    return result
