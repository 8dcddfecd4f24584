"""CharRNNClassifier: text in, label out."""

from __future__ import annotations

import warnings
from numbers import Integral

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from sklseq._base import unchanged_on_error
from sklseq._sequences import Sequences, refuse_overflow
from sklseq._validation import as_array, check_sample_weight
from sklseq.rnn import _recurrence as kernels
from sklseq.rnn._char_rnn import BaseCharRNN, check_number, transfer
from sklseq.rnn._network import Architecture, Network
from sklseq.rnn._vocabulary import (
    END,
    EncodedTexts,
    Vocabulary,
    check_one_length,
    check_texts,
    has_integer_lists,
    has_lists,
    is_text,
    settled,
    tokenize,
)


class CharRNNClassifier(ClassifierMixin, BaseCharRNN):
    """Label of a text, by a recurrent network that reads it character by character.

    The network reads a start symbol and the characters one after another; one head sees the pooled
    hidden states and gives the label's distribution, another sees each state and predicts the next
    character. Both are trained together, so that p(x) p(y | x) is a joint model that can be drawn
    from (:meth:`sample`); the second is a regulariser as well.

    Parameters
    ----------
    cell : {"rnn", "gru", "lstm"}, default="gru"
        The recurrent cell; equations under Notes.
    hidden_size : int, default=128
        Units H of each layer.
    n_layers : int, default=1
        Layers, each reading the states of the one below.
    dropout : float in [0, 0.99], default=0.5
        Share of the hidden states that is zeroed in training, between layers and before the
        output. Besides, a whole input symbol is hidden (read as the unknown symbol) with
        probability 0.4 times that; it is this that trains the row of unknown symbols.
    pooling : {"last", "mean", "max", "all"}, default="all"
        What of the hidden states over time the label head sees; "all" is the three side by side.
    reset_after : bool, default=False
        For the GRU: the reset gate acts after the matrix product (torch's and cuDNN's variant).
    next_char_weight : float, default=1.0
        Weight of the next-character loss beside the label's. 0: no such head, no :meth:`sample`.
    analyzer : {"char", "word"} or callable, default="char"
        How a text is split into symbols: characters; words and punctuation marks; or a function
        from str to a list of str. A text that is already a list of tokens is taken as it is.
    handle_unknown : {"ignore", "error"}, default="ignore"
        Symbols at predict that fit did not see: read as the unknown symbol, or a ValueError.
    min_frequency : int or float, default=None
        Symbols that occur less often in the training texts (a float in (0, 1): less than this
        share of all symbols) are one, "any other symbol", as is what fit did not see.
    max_symbols : int, default=None
        Likewise those that are not among the most frequent so many.
    vocabulary : iterable of str or mapping, default=None
        The symbols (of a mapping the keys); all others are one. For streams,
        whose first batch does not have all symbols.
    class_weight : dict, "balanced" or None, default=None
        Factors of the samples' weights by label.
    init : fitted CharRNNLanguageModel or None, default=None
        Start from its recurrent weights, the table rows of common symbols and its next-character
        head. ``clone`` unfits it: wrap it in ``sklearn.frozen.FrozenEstimator`` for searches.
    solver : {"adamw", "adam", "sgd"}, default="adamw"
        Adam with decoupled weight decay, Adam with an L2 penalty, or gradient descent with
        momentum.
    alpha : float or "auto", default="auto"
        Weight decay of all weights but the biases: with ``"adamw"`` each update shrinks them by
        ``learning rate * alpha``, with the other solvers ``alpha * weight`` is added to the
        gradient (there, values a hundred times smaller are usual).
        "auto": 0.15 up to 4,500 samples of a call, and as much less as there are more (0.075 for
        9,000); a hundredth of it with the other solvers.
    batch_size : int, default=32
        Texts of a minibatch.
    learning_rate : {"cosine", "constant"}, default="cosine"
        Half a cosine from ``learning_rate_init`` to zero over all epochs, or constant.
    learning_rate_init : float, default=0.01
        Initial step size.
    max_iter : int or "auto", default="auto"
        Epochs. "auto": 20, or as many as make 300 updates of the weights (small data).
    shuffle : bool, default=True
        Whether to draw the minibatches anew in each epoch.
    average_decay : float in [0, 1), default=0.999
        The weights kept are an exponential average of those of the updates, with decay
        ``min(average_decay, (1 + t) / (10 + t))`` at update t; 0: the last ones.
    max_grad_norm : float, default=5.0
        The norm of a minibatch's gradient is clipped at this value.
    beta_1 : float, default=0.9
        Decay of Adam's mean of the gradient.
    beta_2 : float, default=0.999
        Decay of Adam's mean of the squared gradient.
    epsilon : float, default=1e-8
        Adam's guard against a division by zero.
    momentum : float, default=0.9
    nesterovs_momentum : bool, default=True
        Of ``solver="sgd"``.
    early_stopping : bool, default=False
        Hold out a stratified share, stop when the mean log-probability of its labels no longer
        rises, and keep the best weights.
    validation_fraction : float, default=0.1
        Share that is held out by early stopping.
    n_iter_no_change : int, default=10
        Epochs without an improvement by ``tol`` after which training ends, under early stopping or
        a constant learning rate.
    tol : float, default=1e-4
        In nats.
    warm_start : bool, default=False
        Whether ``fit`` goes on from the last weights; vocabulary and labels stay.
    verbose : bool, default=False
        Print loss, validation score and time, every ten seconds and at the end.
    n_jobs : int, default=None
        Threads, for shards of 32 sequences of a minibatch: in training of use with a larger
        `batch_size` only. Results do not depend on it.
    random_state : int, RandomState or None, default=None
        Of the initial weights, the minibatches and the dropout.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
        The labels.
    vocabulary_ : dict
        Row of the input table by symbol; row 0 is the unknown symbol, row 1 start and end of text,
        the last one that of any other symbol, where `min_frequency`, `max_symbols` or
        `vocabulary` make it one.
    input_weights_, recurrent_weights_, biases_ : list of ndarray
        Per layer, (inputs, gates * H), (H, gates * H) and (gates * H,): the gates side by side.
    output_weights_, output_bias_ : ndarray
        Of the label head, (features, n_classes) and (n_classes,).
    loss_curve_ : list of float
        Mean loss of each epoch, as met on the way: nats per label, plus next_char_weight times nats
        per character.
    loss_ : float
        The last of them.
    validation_scores_ : list of float or None
        Under early stopping: mean log-probability of the labels held out, in nats, after each
        epoch.
    best_validation_score_ : float or None
        The largest of them, that of the weights kept.
    n_iter_ : int
        Epochs run.
    converged_ : bool
        Whether ``fit`` completed its schedule or met the criterion of ``tol``.
    n_features_in_ : int
        Columns of a numeric X.
    feature_names_in_ : ndarray of str (n_features_in_,)
        Their names, where X is a table that has such.

    See Also
    --------
    CharRNNLanguageModel : The same networks as a distribution of texts.
    SequenceClassifier : One generative model for each class.
    sklearn.feature_extraction.text.TfidfVectorizer : Counts of n-grams, the usual alternative.

    Notes
    -----
    With one-hot x_t, σ the logistic function and ⊙ the product entry by entry:

    - ``"rnn"``: h_t = tanh(W_hh h_{t-1} + W_xh x_t + b)
    - ``"gru"``: Γ_u = σ(W_u h_{t-1} + V_u x_t + b_u), Γ_r = σ(W_r h_{t-1} + V_r x_t + b_r),
      c_t = tanh(W_c (Γ_r ⊙ h_{t-1}) + V_c x_t + b_c), h_t = Γ_u ⊙ h_{t-1} + (1 − Γ_u) ⊙ c_t;
      with ``reset_after=True`` c_t = tanh(Γ_r ⊙ (W_c h_{t-1} + d_c) + V_c x_t + b_c)
    - ``"lstm"``: F, I, O = σ(W h_{t-1} + V x_t + b) each with its own weights,
      c̃_t = tanh(W_c h_{t-1} + V_c x_t + b_c), c_t = F ⊙ c_{t-1} + I ⊙ c̃_t, h_t = O ⊙ tanh(c_t)

    Fitted arrays hold the transposes: ``recurrent_weights_[0]`` is [W_u', W_r', W_c'] for the GRU
    (update, reset, candidate), [W_f', W_i', W_c', W_o'] for the LSTM (forget, include, candidate,
    output), W_hh' for the RNN; ``input_weights_[0]`` likewise of V, one row per symbol.

    A 2-D numeric X is taken as **one short sequence of scalar steps per row**; it is computed in
    float64 and without dropout.  Numbers should be of the order of 1 (``StandardScaler``): far from
    it ``fit`` warns.  Lists of integers are numbers, too, with a warning: tokens must be strings.
    Texts are computed in float32; a text's output does not depend on the others in the call, to the
    bit. A sample of integer weight w is w samples, one of weight 0 none, and the order of the
    samples has no effect (with ``shuffle``).

    References
    ----------
    .. [1] Hochreiter, S. & Schmidhuber, J. (1997). Long short-term memory. Neural Computation.
    .. [2] Cho, K. et al. (2014). Learning phrase representations using RNN encoder-decoder for
       statistical machine translation. EMNLP, section 2.3.
    .. [3] Loshchilov, I. & Hutter, F. (2019). Decoupled weight decay regularization. ICLR.

    Examples
    --------
    >>> from sklseq.rnn import CharRNNClassifier
    >>> names = ["Nguyen", "Tran", "Pham", "Rossi", "Bianchi", "Ricci"] * 5
    >>> origin = ["Vietnam", "Vietnam", "Vietnam", "Italy", "Italy", "Italy"] * 5
    >>> model = CharRNNClassifier(hidden_size=16, random_state=0).fit(names, origin)
    >>> model.predict(["Phan", "Rocci"]).tolist()
    ['Vietnam', 'Italy']
    >>> texts, labels = model.sample(2, "Italy", random_state=0)
    >>> labels.tolist()
    ['Italy', 'Italy']
    """

    _head = "label"
    _automatic = ("max_iter", "alpha")
    _hidden_share = 0.4

    def __init__(
        self,
        cell="gru",
        hidden_size=128,
        *,
        n_layers=1,
        dropout=0.5,
        pooling="all",
        reset_after=False,
        next_char_weight=1.0,
        analyzer="char",
        handle_unknown="ignore",
        min_frequency=None,
        max_symbols=None,
        vocabulary=None,
        class_weight=None,
        init=None,
        solver="adamw",
        alpha="auto",
        batch_size=32,
        learning_rate="cosine",
        learning_rate_init=0.01,
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
        self.min_frequency = min_frequency
        self.max_symbols = max_symbols
        self.vocabulary = vocabulary
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
        # Texts come one per sample.  one_d_array and string would tell scikit-learn that *numbers*
        # come one per sample, and that strings may stand in a table of features.
        tags.input_tags.sparse = False
        return tags

    # ---------------------------------------------------------------- fitting

    def fit(self, X, y, sample_weight=None):
        """Learn from texts (or rows of numbers) and their labels.

        Parameters
        ----------
        X : list, array or Series of str (n,), lists of tokens, or numbers (n, n_steps)
        y : array-like (n,)
            Labels.
        sample_weight : array-like (n,), default=None
            Not negative; an integer weight is a repetition, zero an absence.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For a bare string, a missing text (named by its index), NaN, or bad parameters.

        Warns
        -----
        ConvergenceWarning
            When max_iter ends a training at a constant rate, the loss is no longer finite (the
            weights are then those of the last good epoch), or Ctrl-C was pressed (the last weights,
            or under early stopping the best so far, are kept).
        """
        self._check_parameters()
        with unchanged_on_error(self):
            self._fit(X, y, sample_weight)
        return self

    def _fit(self, X, y, sample_weight) -> None:
        random = check_random_state(self.random_state)
        again = self.warm_start and hasattr(self, "_network")
        X, y, weights = self._check_training(X, y, sample_weight, reset=not again)
        classes = np.unique(y[weights > 0])
        if again and not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"warm_start needs the labels of the first fit, {self.classes_.tolist()}; got "
                f"{classes.tolist()}."
            )
        X, labels, weights, counts = self._arrange(X, np.searchsorted(classes, y), weights, classes)
        vocabulary, sequences = self._learn(X, counts, self._vocabulary if again else None)
        architecture = self._classifier_architecture(vocabulary, len(classes))
        initial = self._initial_parameters(architecture, vocabulary, random, again)
        rows, held = np.arange(len(labels)), None
        if self.early_stopping:
            rows, held = self._split(labels, random)
        objective = self._label_objective(architecture, sequences, labels, weights, rows)
        if held is not None:
            objective.score_parameters = self._validator(
                architecture, sequences, held, labels, weights
            )
        self.classes_ = classes
        self._vocabulary = vocabulary
        self._train(architecture, initial, objective, random)

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """One epoch over these samples at a constant rate; the optimiser is kept between calls.

        The vocabulary is that of the first call (or of ``fit``): symbols that first come later are
        unknown ones.

        Parameters
        ----------
        X : list, array or Series of str (n,), lists of tokens, or numbers (n, n_steps)
            As in ``fit``.
        y : array-like (n,)
            Labels.
        classes : array-like, default=None
            All labels that will come; needed in the first call.
        sample_weight : array-like (n,), default=None
            As in ``fit``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For what ``fit`` refuses, no `classes` in the first call, and a label outside them.
        """
        self._check_parameters()
        first = not hasattr(self, "_network")
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' is not supported by partial_fit; pass a dict of weights."
            )
        with unchanged_on_error(self):
            self._partial_fit(X, y, classes, sample_weight, first)
        return self

    def _partial_fit(self, X, y, classes, sample_weight, first: bool) -> None:
        X, y, weights = self._check_training(X, y, sample_weight, reset=first)
        known = np.unique(classes) if first else self.classes_
        if not first and classes is not None and not np.array_equal(np.unique(classes), known):
            raise ValueError(
                f"classes={list(classes)!r} differs from that of the first call, {known.tolist()}."
            )
        unseen = np.setdiff1d(y, known)
        if len(unseen):
            raise ValueError(f"y has labels that are not in classes: {unseen.tolist()}.")
        X, labels, weights, counts = self._arrange(X, np.searchsorted(known, y), weights, known)
        vocabulary, sequences = self._learn(X, counts, None if first else self._vocabulary)
        architecture = self._classifier_architecture(vocabulary, len(known))
        random = check_random_state(self.random_state)
        initial = self._initial_parameters(architecture, vocabulary, random, not first)
        objective = self._label_objective(
            architecture, sequences, labels, weights, np.arange(len(labels))
        )
        self._train_more(architecture, initial, objective)
        self.classes_ = known
        self._vocabulary = vocabulary

    def _alpha(self, n_samples: int) -> float:
        if not self._is_automatic("alpha"):
            return self.alpha
        share = 1.0 if self.solver == "adamw" else 0.01
        return share * AUTO_ALPHA * min(1.0, AUTO_SAMPLES / max(n_samples, 1))

    def _check_training(self, X, y, sample_weight, reset):
        """X as a list of texts or a float64 table, y as a vector, a weight for each sample."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None."
            )
        X = settled(X)
        texts = is_text(X)
        if not reset and texts != (self._vocabulary is not None):
            kinds = ("numbers", "texts")
            raise ValueError(
                f"X holds {kinds[texts]}, but this model was fitted on {kinds[not texts]}."
            )
        if texts:
            X = check_texts(X)
            self._refuse_unknown(X, reset)
            if reset:
                for name in ("n_features_in_", "feature_names_in_"):
                    self.__dict__.pop(name, None)
        else:
            integers = has_integer_lists(X)
            check_one_length(X)
            X = validate_data(self, X, dtype=np.float64, order="C", reset=reset)
            refuse_overflow(Sequences(X, np.array([0, len(X)])))
            if reset:
                warn_of_numbers(X, integers)
        y = column_or_1d(y, warn=True)
        check_consistent_length(X, y)
        check_classification_targets(y)
        return X, y, check_sample_weight(sample_weight, len(y))

    def _refuse_unknown(self, X, reset: bool) -> None:
        """handle_unknown="error" where symbols are known before training: by the order of X."""
        if self.handle_unknown == "error" and not (reset and self.vocabulary is None):
            tokens, lengths = tokenize(X, self.analyzer)
            known = self._vocabulary
            if reset:
                known = self._learn_vocabulary(tokens, lengths, np.ones(len(X)), False)
            known.encode(tokens, lengths, "error")

    def _arrange(self, X, labels, weights, classes):
        """Samples with a weight above zero, sorted, small integer weights as repetitions.

        Then the weights are multiplied by those of the labels.  So an integer weight is a
        repetition, a zero weight an absence and the order of the samples without effect, to the
        bit, minibatches and dropout notwithstanding.  Without shuffle the given order stays.
        Returns the weights with and without those of the labels.
        """
        rows = np.flatnonzero(weights > 0)
        counts = weights[rows].astype(np.int64)
        if (counts == weights[rows]).all() and counts.sum() <= MOST_REPETITIONS * len(weights):
            rows = np.repeat(rows, counts)
            weights = np.ones(len(weights))
        if self.shuffle and isinstance(X, list):
            rows = rows[np.argsort(labels[rows], kind="stable")].tolist()
            same = len(set(map(type, X))) == 1
            rows.sort(key=X.__getitem__ if same else lambda i: (isinstance(X[i], list), X[i]))
            rows = np.array(rows)
        elif self.shuffle:
            rows = rows[np.lexsort((labels[rows], *X[rows].T))]
        labels, counts = labels[rows].astype(np.int32), weights[rows]
        weights = counts * self._class_weights(classes, labels, counts)[labels]
        used = weights > 0
        if not used.any():
            raise ValueError(f"class_weight leaves no sample a weight; got {self.class_weight!r}.")
        rows = rows[used]
        X = [X[i] for i in rows] if isinstance(X, list) else X[rows]
        return X, labels[used], weights[used], counts[used]

    def _learn(self, X, counts, vocabulary) -> tuple[Vocabulary | None, EncodedTexts]:
        """The vocabulary (None: learn it; stays None for numbers) and the coded sequences."""
        if not isinstance(X, list):
            return None, as_sequences(X)
        tokens, lengths = tokenize(X, self.analyzer)
        if vocabulary is None:
            vocabulary = self._learn_vocabulary(tokens, lengths, counts, has_lists(X))
        return vocabulary, vocabulary.encode(tokens, lengths, self.handle_unknown)

    def _class_weights(self, classes, labels, weights) -> np.ndarray:
        if self.class_weight is None:
            return np.ones(len(classes))
        if self.class_weight == "balanced":
            totals = np.bincount(labels, weights=weights, minlength=len(classes))
            return totals.sum() / (len(classes) * np.maximum(totals, 1e-300))
        if not isinstance(self.class_weight, dict):
            raise ValueError(
                f"class_weight must be a dict, 'balanced' or None; got {self.class_weight!r}."
            )
        factors = compute_class_weight(self.class_weight, classes=classes, y=classes[labels])
        if not (np.isfinite(factors).all() and (factors >= 0).all()):
            raise ValueError(
                f"class_weight must be finite and not negative; got {self.class_weight!r}."
            )
        return factors

    def _label_objective(self, architecture, sequences, labels, weights, rows):
        chosen = sequences.take(rows)
        return self._objective(
            architecture,
            inputs=chosen.codes,
            starts=chosen.starts,
            lengths=chosen.lengths,
            weights=weights[rows],
            labels=labels[rows],
            next_weight=self.next_char_weight,
        )

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

    def _split(self, labels, random):
        """Rows to train on and rows held out: a share of each label, of which one stays."""
        order = random.permutation(len(labels))
        order = order[np.argsort(labels[order], kind="stable")]
        stays = np.append(True, np.diff(labels[order]) > 0)  # the first of each label
        rest = order[~stays]
        n_held = max(1, round(self.validation_fraction * len(labels)))
        if n_held > len(rest):
            raise ValueError(
                f"early_stopping cannot hold out validation_fraction={self.validation_fraction} "
                f"of {len(labels)} samples and keep one of each of {stays.sum()} labels."
            )
        # evenly spaced among rows in the order of their labels: of each label its share
        places = (np.arange(n_held) + random.random_sample()) * len(rest) / n_held
        held = rest[np.minimum(places.astype(np.intp), len(rest) - 1)]
        return np.setdiff1d(order, held), np.sort(held)

    def _validator(self, architecture, sequences, held, labels, weights):
        """Mean log-probability of the labels held out, as a function of parameters."""
        part = sequences.take(held)

        def score(parameters: np.ndarray) -> float:
            packed = Network(architecture, parameters).pack()
            chosen = self._label_probabilities(part, packed)[np.arange(len(held)), labels[held]]
            return float(np.average(np.log(np.maximum(chosen, 1e-300)), weights=weights[held]))

        return score

    # ---------------------------------------------------------------- predicting

    def _check_input(self, X) -> EncodedTexts:
        check_is_fitted(self)
        X = settled(X)
        texts = is_text(X)
        if texts != (self._vocabulary is not None):
            kinds = ("numbers", "texts (strings or lists of tokens)")
            raise ValueError(
                f"X holds {kinds[texts]}, but this model was fitted on {kinds[not texts]}."
            )
        if texts:
            return self._encode(X)
        check_one_length(X)
        return as_sequences(validate_data(self, X, dtype=np.float64, order="C", reset=False))

    def _logits(self, sequences: EncodedTexts, network=None) -> np.ndarray:
        def logits(packed, batch, workspace):
            return packed.head("label", packed.features(batch, sequences.codes, workspace))

        return self._collect(logits, sequences, network).astype(np.float64)

    def _label_probabilities(self, sequences: EncodedTexts, network=None) -> np.ndarray:
        logits = self._logits(sequences, network)
        kernels.softmax(logits)
        return logits

    def decision_function(self, X):
        """Logits of the labels.

        Parameters
        ----------
        X : list, array or Series of str (n,), lists of tokens, or numbers (n, n_steps)
            As in ``fit``.

        Returns
        -------
        ndarray (n, n_classes)
            For two labels their difference, (n,).
        """
        logits = self._logits(self._check_input(X))
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X):
        """Probabilities of the labels.

        Parameters
        ----------
        X : list, array or Series of str (n,), lists of tokens, or numbers (n, n_steps)
            As in ``fit``.

        Returns
        -------
        ndarray (n, n_classes), float64
            Columns as in ``classes_``.
        """
        return self._label_probabilities(self._check_input(X))

    def predict_log_proba(self, X):
        """Logarithms of the probabilities of the labels.

        Parameters
        ----------
        X : list, array or Series of str (n,), lists of tokens, or numbers (n, n_steps)
            As in ``fit``.

        Returns
        -------
        ndarray (n, n_classes)
            In nats.
        """
        logits = self._logits(self._check_input(X))
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def predict(self, X):
        """The most probable label of each sample.

        Parameters
        ----------
        X : list, array or Series of str (n,), lists of tokens, or numbers (n, n_steps)
            As in ``fit``.

        Returns
        -------
        ndarray (n,)
        """
        logits = self._logits(self._check_input(X))
        return self.classes_[logits.argmax(axis=1)]

    def transform(self, X):
        """Hidden state of the top layer after each sample.

        Parameters
        ----------
        X : list, array or Series of str (n,), lists of tokens, or numbers (n, n_steps)
            As in ``fit``.

        Returns
        -------
        ndarray (n, hidden_size)
        """
        return self._last_states(self._check_input(X))

    # ---------------------------------------------------------------- drawing

    def sample(
        self, n_samples=1, label=None, *, max_length=100, temperature=1.0, max_tries=1000,
        joiner=None, random_state=None,
    ):  # fmt: skip
        """Draw texts and labels from the joint model p(text) p(label | text).

        Texts are read back by :meth:`predict` as the symbols drawn: strings from a model of
        strings, lists of tokens from a model fitted on such, and with a callable analyzer.

        Parameters
        ----------
        n_samples : int, default=1
        label : label or None, default=None
            Keep the draws with this label (rejection sampling).
        max_length : int, default=100
            Symbols after which a text is cut off.
        temperature : float, default=1.0
            Divides the logits of the next character; 0 takes the most probable one.
        max_tries : int, default=1000
            Texts drawn at most per text asked for; then a UserWarning and fewer texts.
        joiner : str or None, default=None
            Joins the drawn tokens to strings, for a callable analyzer or a model of lists of
            tokens; None: as above.  A text that is read back otherwise is warned of.
        random_state : int, RandomState or None, default=None

        Returns
        -------
        texts : list of str or list of list of str
        labels : ndarray (n_samples,)

        Raises
        ------
        ValueError
            When fitted on numbers, or without a next-character head (next_char_weight=0).
        """
        check_is_fitted(self)
        self._check_drawing(n_samples, max_length, temperature, None, joiner=joiner)
        check_number("max_tries", max_tries, Integral, 1, True)
        if self._vocabulary is None:
            raise ValueError("sample needs a model of texts; this one was fitted on numbers.")
        if "next" not in self._packed().heads:
            raise ValueError("sample needs the next-character head: next_char_weight > 0.")
        if label is not None and (as_array(label, "label").ndim or label not in self.classes_):
            raise ValueError(f"label must be one of {self.classes_.tolist()}; got {label!r}.")
        random = check_random_state(random_state)
        texts: list = []
        labels: list = []
        tries = 0
        while len(texts) < n_samples and tries < max_tries * n_samples:
            # Draws are made in rounds of a fixed size, so that the first k of n are the k of k.
            drawn = self._draw(
                [[END]] * SAMPLE_ROUND, max_length, temperature, None, 1.0, random
            )
            found = self._draw_labels(drawn, random)
            tries += len(drawn)
            for codes, got in zip(drawn, found):
                if label is None or got == label:
                    texts.append(self._vocabulary.decode(codes))
                    labels.append(got)
        if len(texts) < n_samples:
            warnings.warn(
                f"sample: only {len(texts)} of {n_samples} texts with label {label!r} in {tries} "
                "draws; raise max_tries.",
                UserWarning,
                stacklevel=2,
            )
        tokens, labels = texts[:n_samples], labels[:n_samples]
        texts = [self._written(text, joiner) for text in tokens]
        if joiner is not None:
            self._check_read_back(texts, tokens)
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


AUTO_ALPHA, AUTO_SAMPLES = 0.15, 4500  # weight decay, and from where more samples need less
FAR, WIDE, NARROW = 20.0, 300.0, 1e-3  # numbers that a fresh network does not tell apart
SAMPLE_ROUND = 64  # texts drawn at once
MOST_REPETITIONS = 10  # times the number of samples: beyond, integer weights stay weights


def as_sequences(X: np.ndarray) -> EncodedTexts:
    """Rows of a table as sequences of numbers."""
    n, steps = X.shape
    return EncodedTexts(X.reshape(-1), np.arange(n) * steps, np.full(n, steps))


def warn_of_numbers(X: np.ndarray, integers: bool) -> None:
    """Numbers that were meant as tokens, or that are far from the order of 1."""
    if integers:
        warnings.warn(
            "X holds lists of integers, which are taken as numbers on a scale. Tokens must be "
            "strings: [[str(token) for token in text] for text in X]; an array is numbers.",
            UserWarning,
            stacklevel=5,
        )
    center, spread = abs(X.mean()), X.std()
    if center > max(FAR, 3.0 * spread) or spread > WIDE or 0.0 < spread < NARROW:
        warnings.warn(
            f"X has mean {X.mean():.3g} and standard deviation {spread:.3g}, but the network reads "
            "numbers of the order of 1. Scale them: make_pipeline(StandardScaler(), model).",
            UserWarning,
            stacklevel=5,
        )
