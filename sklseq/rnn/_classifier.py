"""CharRNNClassifier: text in, label out."""

from __future__ import annotations

import warnings
from numbers import Integral

import numpy as np
from sklearn.base import ClassifierMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from . import _recurrence as kernels
from ._char_rnn import BaseCharRNN, check_number, transfer
from ._network import Architecture, Network
from ._vocabulary import END, EncodedTexts, Vocabulary, is_text


class CharRNNClassifier(ClassifierMixin, TransformerMixin, BaseCharRNN):
    def __init__(
        self,
        cell="gru",
        hidden_size=128,
        *,
        n_layers=1,
        dropout=0.3,
        pooling="all",
        reset_after=False,
        next_char_weight=0.3,
        analyzer="char",
        handle_unknown="ignore",
        class_weight=None,
        init=None,
        solver="adamw",
        alpha=0.01,
        batch_size=64,
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
        self.pooling = pooling
        self.reset_after = reset_after
        self.next_char_weight = next_char_weight
        self.analyzer = analyzer
        self.handle_unknown = handle_unknown
        self.class_weight = class_weight
        self.init = init
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
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
        tags.input_tags.one_d_array = True  # texts; in a table of features strings are refused
        tags.input_tags.sparse = False
        return tags

    # ---------------------------------------------------------------- fitting

    def fit(self, X, y, sample_weight=None):
        self._check_parameters()
        random = check_random_state(self.random_state)
        again = self.warm_start and hasattr(self, "_network")
        X, y, weights = self._check_training(X, y, sample_weight, reset=not again)
        encoder = LabelEncoder().fit(y)
        if again and not np.array_equal(encoder.classes_, self.classes_):
            raise ValueError(
                f"warm_start needs the labels of the first fit, {self.classes_.tolist()}; got "
                f"{encoder.classes_.tolist()}."
            )
        labels = encoder.transform(y).astype(np.int32)
        weights = weights * self._class_weights(encoder.classes_, y)[labels]
        present = weights > 0
        if not present.any():
            raise ValueError("sample_weight must have a positive entry; all are zero.")
        vocabulary = self._vocabulary if again else self._learn_vocabulary(X, present)
        sequences = self._sequences(X, vocabulary)
        architecture = self._classifier_architecture(vocabulary, len(encoder.classes_))
        initial = self._initial_parameters(architecture, vocabulary, random, again)
        rows = np.flatnonzero(present)
        held = None
        if self.early_stopping:
            rows, held = self._split(rows, labels, random)
        objective = self._objective(
            architecture,
            inputs=sequences.codes,
            starts=sequences.starts[rows],
            lengths=sequences.lengths[rows],
            weights=weights[rows],
            labels=labels[rows],
            next_weight=self.next_char_weight,
        )
        if held is not None:
            objective.score_parameters = self._validator(
                architecture, sequences, held, labels, weights
            )
        self.classes_ = encoder.classes_
        self._vocabulary = vocabulary
        self._train(architecture, initial, objective, random)
        return self

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        self._check_parameters()
        first = not hasattr(self, "_network")
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        X, y, weights = self._check_training(X, y, sample_weight, reset=first)
        known = np.unique(classes) if first else self.classes_
        if not first and classes is not None and not np.array_equal(np.unique(classes), known):
            raise ValueError(
                f"classes={list(classes)!r} differs from that of the first call, {known.tolist()}."
            )
        unseen = np.setdiff1d(y, known)
        if len(unseen):
            raise ValueError(f"y has labels that are not in classes: {unseen.tolist()}.")
        labels = np.searchsorted(known, y).astype(np.int32)
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' is not supported by partial_fit; pass a dict of weights."
            )
        weights = weights * self._class_weights(known, y)[labels]
        vocabulary = self._learn_vocabulary(X, weights > 0) if first else self._vocabulary
        sequences = self._sequences(X, vocabulary)
        architecture = self._classifier_architecture(vocabulary, len(known))
        random = check_random_state(self.random_state)
        initial = self._initial_parameters(architecture, vocabulary, random, not first)
        rows = np.flatnonzero(weights > 0)
        objective = self._objective(
            architecture,
            inputs=sequences.codes,
            starts=sequences.starts[rows],
            lengths=sequences.lengths[rows],
            weights=weights[rows],
            labels=labels[rows],
            next_weight=self.next_char_weight,
        )
        self.classes_ = known
        self._vocabulary = vocabulary
        if len(rows):
            self._train_more(architecture, initial, objective)
        return self

    def _check_training(self, X, y, sample_weight, reset):
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None."
            )
        if is_text(X):
            X = self._tokens(X)
            n = len(X[1])
            if reset:
                for name in ("n_features_in_", "feature_names_in_"):
                    self.__dict__.pop(name, None)
            elif self._vocabulary is None:
                raise ValueError("X holds texts, but this model was fitted on numbers.")
        else:
            if not reset and self._vocabulary is not None:
                raise ValueError("X holds numbers, but this model was fitted on texts.")
            X = validate_data(self, X, dtype=np.float64, order="C", reset=reset)
            n = len(X)
        y = column_or_1d(y, warn=True)
        if len(y) != n:
            raise ValueError(
                f"Found input variables with inconsistent numbers of samples: {[n, len(y)]}"
            )
        check_classification_targets(y)
        if sample_weight is None:
            weights = np.ones(n)
        else:
            weights = np.asarray(sample_weight, dtype=float)
            if weights.ndim == 0:
                weights = np.full(n, float(weights))
            if weights.shape != (n,):
                raise ValueError(
                    f"sample_weight must have one entry per sample, ({n},); got {weights.shape}."
                )
            if not np.isfinite(weights).all() or (weights < 0).any():
                raise ValueError("sample_weight must be finite and not negative.")
        return X, y, weights

    def _learn_vocabulary(self, X, present) -> Vocabulary | None:
        """Symbols of the texts that count; None for numbers."""
        if isinstance(X, np.ndarray):
            return None
        tokens, lengths = X
        used = np.repeat(present, lengths)
        if isinstance(tokens, np.ndarray):
            return Vocabulary.of(tokens[used])
        return Vocabulary.of([token for token, use in zip(tokens, used) if use])

    def _sequences(self, X, vocabulary: Vocabulary | None) -> EncodedTexts:
        if vocabulary is not None:
            return vocabulary.encode(*X, self.handle_unknown)
        n, steps = X.shape
        return EncodedTexts(X.reshape(-1), np.arange(n) * steps, np.full(n, steps))

    def _class_weights(self, classes, y) -> np.ndarray:
        if self.class_weight is None:
            return np.ones(len(classes))
        return compute_class_weight(self.class_weight, classes=classes, y=y)

    def _classifier_architecture(self, vocabulary, n_labels) -> Architecture:
        if vocabulary is None:
            return self._architecture(0, n_labels, False, self.pooling)
        return self._architecture(
            len(vocabulary), n_labels, self.next_char_weight > 0, self.pooling
        )

    def _initial_parameters(self, architecture, vocabulary, random, again) -> np.ndarray:
        """Fresh ones, those of the last fit, or fresh ones with the layers of a language model."""
        fresh = architecture.initial_parameters(random)
        if again:
            if self._network.architecture != architecture:
                raise ValueError(
                    "warm_start and partial_fit need the shape of the first fit; it was "
                    f"{self._network.architecture}, now {architecture}."
                )
            return self._network.parameters
        if self.init is None:
            return fresh
        source = getattr(self.init, "_network", None)
        if source is None:
            raise NotFittedError(
                "init must be a fitted CharRNNLanguageModel; clone (so every search and every "
                "ensemble) unfits a plain one: pass sklearn.frozen.FrozenEstimator(model)."
            )
        if vocabulary is None:
            raise ValueError("init is a model of texts, but X holds numbers.")
        for name in ("cell", "hidden_size", "n_layers"):
            ours, theirs = getattr(architecture, name), getattr(source.architecture, name)
            if ours != theirs:
                raise ValueError(f"{name} must be that of init, {theirs!r}; got {ours!r}.")
        return transfer(source, self.init._vocabulary, architecture, vocabulary, fresh)

    def _split(self, rows, labels, random):
        """Rows to train on and rows held out, stratified where every label occurs twice."""
        counts = np.bincount(labels[rows])
        stratify = labels[rows] if counts[counts > 0].min() > 1 else None
        train_rows, held = train_test_split(
            rows, test_size=self.validation_fraction, random_state=random, stratify=stratify
        )
        return np.sort(train_rows), np.sort(held)

    def _validator(self, architecture, sequences, held, labels, weights):
        """Mean log-probability of the labels held out, as a function of parameters."""
        part = EncodedTexts(sequences.codes, sequences.starts[held], sequences.lengths[held])

        def score(parameters: np.ndarray) -> float:
            packed = Network(architecture, parameters).pack()
            chosen = self._label_probabilities(part, packed)[np.arange(len(held)), labels[held]]
            return float(np.average(np.log(np.maximum(chosen, 1e-300)), weights=weights[held]))

        return score

    # ---------------------------------------------------------------- predicting

    def _check_input(self, X) -> EncodedTexts:
        check_is_fitted(self)
        if self._vocabulary is None:
            if is_text(X):
                raise ValueError("X holds texts, but this model was fitted on numbers.")
            X = validate_data(self, X, dtype=np.float64, order="C", reset=False)
            return self._sequences(X, None)
        if not is_text(X):
            raise ValueError(
                "X must hold texts (strings or lists of tokens): this model was fitted on texts."
            )
        return self._sequences(self._tokens(X), self._vocabulary)

    def _logits(self, sequences: EncodedTexts, network=None) -> np.ndarray:
        def logits(packed, batch, workspace):
            return packed.head("label", packed.features(batch, sequences.codes, workspace))

        return self._collect(logits, sequences, network).astype(np.float64)

    def _label_probabilities(self, sequences: EncodedTexts, network=None) -> np.ndarray:
        logits = self._logits(sequences, network)
        kernels.softmax(logits)
        return logits

    def decision_function(self, X):
        logits = self._logits(self._check_input(X))
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X):
        return self._label_probabilities(self._check_input(X))

    def predict_log_proba(self, X):
        logits = self._logits(self._check_input(X))
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def predict(self, X):
        return self.classes_[self._logits(self._check_input(X)).argmax(axis=1)]

    def transform(self, X):
        return self._last_states(self._check_input(X))

    # ---------------------------------------------------------------- drawing

    def sample(
        self, n_samples=1, label=None, *, max_length=100, temperature=1.0, max_tries=1000,
        random_state=None,
    ):  # fmt: skip
        check_is_fitted(self)
        self._check_drawing(n_samples, max_length, temperature, None)
        check_number("max_tries", max_tries, Integral, 1, True)
        if self._vocabulary is None:
            raise ValueError("sample needs a model of texts; this one was fitted on numbers.")
        if "next" not in self._packed().heads:
            raise ValueError("sample needs the next-character head: next_char_weight > 0.")
        if label is not None and label not in self.classes_:
            raise ValueError(f"label must be one of {self.classes_.tolist()}; got {label!r}.")
        random = check_random_state(random_state)
        texts: list = []
        labels: list = []
        tries = 0
        while len(texts) < n_samples and tries < max_tries * n_samples:
            # Draws are made in rounds of a fixed size, so that the first k of n are the k of k.
            drawn = self._draw(SAMPLE_ROUND, [END], max_length, temperature, None, random)
            found = self._draw_labels(drawn, random)
            tries += len(drawn)
            for codes, got in zip(drawn, found):
                if label is None or got == label:
                    texts.append(self._vocabulary.decode(codes, self._joiner))
                    labels.append(got)
        if len(texts) < n_samples:
            warnings.warn(
                f"sample: only {len(texts)} of {n_samples} texts with label {label!r} in {tries} "
                "draws; raise max_tries.",
                UserWarning,
                stacklevel=2,
            )
        texts, labels = texts[:n_samples], labels[:n_samples]
        return texts, np.array(labels, dtype=self.classes_.dtype)

    def _draw_labels(self, drawn: list[list[int]], random) -> np.ndarray:
        """A label for each text drawn, from p(label | text)."""
        lengths = np.array([len(codes) + 1 for codes in drawn])
        flat = np.array([code for codes in drawn for code in (END, *codes)] + [END], np.int32)
        probabilities = self._label_probabilities(
            EncodedTexts(flat, np.cumsum(lengths) - lengths, lengths)
        )
        below = probabilities.cumsum(axis=1)
        chosen = (random.random_sample((len(drawn), 1)) * below[:, -1:] > below).sum(axis=1)
        return self.classes_[np.minimum(chosen, len(self.classes_) - 1)]


SAMPLE_ROUND = 64  # texts drawn at once
