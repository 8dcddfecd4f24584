"""CharRNNLanguageModel: the distribution of texts, one character after another."""

from __future__ import annotations

import numpy as np
from sklearn.base import DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklseq._base import unchanged_on_error
from sklseq._validation import check_sample_weight
from sklseq.rnn import _recurrence as kernels
from sklseq.rnn._char_rnn import BaseCharRNN
from sklseq.rnn._network import Architecture, Network
from sklseq.rnn._vocabulary import EncodedTexts, check_texts, has_lists, tokenize

STREAM_WINDOWS = 4  # a stream cut from a long text is at least so many windows long


class CharRNNLanguageModel(DensityMixin, BaseCharRNN):
    """Distribution of texts, one character after another, by a recurrent network.

    x_{t+1} ~ Multinomial(softmax(W_hy h_t + b)) with h_t the state of the cell; the end of a text
    is a symbol, and what a text starts from. A long text is cut into at most ``batch_size`` streams
    (each at least four windows long) that are read side by side in windows of ``bptt_steps``, the
    state carried from window to window.

    Parameters
    ----------
    cell : {"rnn", "gru", "lstm"}, default="gru"
        The recurrent cell; equations under Notes.
    hidden_size : int, default=256
        Units H of each layer.
    n_layers : int, default=1
        Layers, each reading the states of the one below.
    dropout : float in [0, 0.99], default=0.0
        Share of the hidden states that is zeroed in training, between layers and before the
        output. Besides, a whole input symbol is hidden (read as the unknown symbol) with
        probability 0.2 times that; it is this that trains the row of unknown symbols.
    reset_after : bool, default=False
        For the GRU: the reset gate acts after the matrix product (torch's and cuDNN's variant).
    analyzer : {"char", "word"} or callable, default="char"
        How a text is split into symbols: characters; words and punctuation marks; or a function
        from str to a list of str. A text that is already a list of tokens is taken as it is.
    handle_unknown : {"ignore", "error"}, default="ignore"
        Symbols that fit did not see: probability 0 (a log-probability of -inf; a learned one with
        `min_frequency`, `max_symbols` or `vocabulary`) and read as the unknown symbol in what
        follows, or a ValueError.
    min_frequency : int or float, default=None
        Symbols that occur less often in the training texts (a float in (0, 1): less than this
        share of all symbols) are one, "any other symbol", as is what fit did not see: it has a
        learned probability, and no score is -inf.
    max_symbols : int, default=None
        Likewise those that are not among the most frequent so many.
    vocabulary : iterable of str or mapping, default=None
        The symbols (of a mapping the keys); all others are one, or a
        ValueError with ``handle_unknown="error"``. For streams,
        whose first batch does not have all symbols.
    solver : {"adamw", "adam", "sgd"}, default="adamw"
        Adam with decoupled weight decay, Adam with an L2 penalty, or gradient descent with
        momentum.
    alpha : float, default=0.01
        Weight decay of all weights but the biases: with ``"adamw"`` each update shrinks them by
        ``learning rate * alpha``, with the other solvers ``alpha * weight`` is added to the
        gradient (there, values a hundred times smaller are usual).
    batch_size : int, default=32
        Texts, or streams of long texts, of a minibatch.
    bptt_steps : int, default=64
        Steps of a window: how far back the gradient reaches.
    learning_rate : {"cosine", "constant"}, default="cosine"
        Half a cosine from ``learning_rate_init`` to zero over all epochs, or constant.
    learning_rate_init : float, default=3e-3
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
        Hold out texts (of a single text, its end), stop when their mean log-probability per
        character no longer rises, and keep the best weights.
    validation_fraction : float, default=0.1
        Share that is held out by early stopping.
    n_iter_no_change : int, default=10
        Epochs without an improvement by ``tol`` after which training ends, under early stopping or
        a constant learning rate.
    tol : float, default=1e-4
        In nats.
    warm_start : bool, default=False
        Whether ``fit`` goes on from the last weights; the vocabulary stays.
    verbose : bool, default=False
        Print loss, validation score and time, every ten seconds and at the end.
    n_jobs : int, default=None
        Threads, for shards of 32 sequences of a minibatch. Results do not depend on it.
    random_state : int, RandomState or None, default=None
        Of the initial weights, the minibatches and the dropout.

    Attributes
    ----------
    symbols_ : ndarray of str
        Columns of :meth:`predict_proba`: "" for the end of the text, then the symbols in order,
        and None for any other symbol, where that has a learned probability.
    vocabulary_ : dict
        Row of the input table by symbol; row 0 is the unknown symbol, row 1 start and end of text,
        the last one that of any other symbol, where `min_frequency`, `max_symbols` or
        `vocabulary` make it one.
    input_weights_, recurrent_weights_, biases_ : list of ndarray
        Per layer, (inputs, gates * H), (H, gates * H) and (gates * H,): the gates side by side.
    output_weights_, output_bias_ : ndarray
        Of the next-character head, (H, symbols) and (symbols,).
    loss_curve_ : list of float
        Mean loss of each epoch, as met on the way: nats per character. Without dropout it is the
        notes' Loss = −(1/T) Σ log p(x_t | h_t), −score.
    loss_ : float
        The last of them.
    validation_scores_ : list of float or None
        Under early stopping: mean log-probability per character of what was held out, in nats,
        after each epoch.
    best_validation_score_ : float or None
        The largest of them, that of the weights kept.
    n_iter_ : int
        Epochs run.
    converged_ : bool
        Whether ``fit`` completed its schedule or met the criterion of ``tol``.

    See Also
    --------
    CharRNNClassifier : Labels of texts, by the same networks.
    CategoricalHMM : A hidden state that is one of a few.
    SoftmaxStateSpace : A hidden state that is a Gaussian vector.

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

    Rows of the symbol table start as N(0, 1): at the usual scale of 1/sqrt(H) a model is much
    slower to learn. Computed in float32, log-probabilities normalised in float64; a text's scores
    do not depend on the others in the call, to the bit.

    References
    ----------
    .. [1] Hochreiter, S. & Schmidhuber, J. (1997). Long short-term memory. Neural Computation.
    .. [2] Cho, K. et al. (2014). Learning phrase representations using RNN encoder-decoder for
       statistical machine translation. EMNLP, section 2.3.
    .. [3] Loshchilov, I. & Hutter, F. (2019). Decoupled weight decay regularization. ICLR.
    .. [4] Holtzman, A. et al. (2020). The curious case of neural text degeneration. ICLR.

    Examples
    --------
    >>> from sklseq.rnn import CharRNNLanguageModel
    >>> model = CharRNNLanguageModel(hidden_size=32, random_state=0).fit(["hello world"] * 30)
    >>> model.sample(1, prefix="he", temperature=0.0)
    ['hello world']
    >>> bool(model.score(["hello world"]) > model.score(["dlrow olleh"]))
    True
    """

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
        min_frequency=None,
        max_symbols=None,
        vocabulary=None,
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
        self.min_frequency = min_frequency
        self.max_symbols = max_symbols
        self.vocabulary = vocabulary
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
        """Learn from texts.

        Parameters
        ----------
        X : list, array or Series of str (n,), or lists of tokens
            The texts; the empty one is legal.
        y : ignored
            For the scikit-learn interface.
        sample_weight : array-like (n,), default=None
            Not negative; an integer weight is a repetition, zero an absence.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For a bare string, a missing text (named by its index), or bad parameters.

        Warns
        -----
        ConvergenceWarning
            When max_iter ends a training at a constant rate, the loss is no longer finite (the
            weights are then those of the last good epoch), or Ctrl-C was pressed (the last weights,
            or under early stopping the best so far, are kept).
        """
        self._check_parameters()
        with unchanged_on_error(self):
            self._fit(X, sample_weight)
        return self

    def _fit(self, X, sample_weight) -> None:
        random = check_random_state(self.random_state)
        again = self.warm_start and hasattr(self, "_network")
        vocabulary, texts, weights = self._check_training(X, sample_weight, again)
        held = None
        if self.early_stopping:
            texts, weights, held, held_weights = self._split(texts, weights, random)
        architecture = self._architecture(len(vocabulary), 0, True, "last")
        initial = self._start(architecture, again, random)
        objective = self._stream_objective(architecture, texts, weights)
        if held is not None:
            objective.score_parameters = lambda parameters: self._validation_score(
                held, held_weights, Network(architecture, parameters).pack()
            )
        self._vocabulary = vocabulary
        self._train(architecture, initial, objective, random)

    def partial_fit(self, X, y=None, sample_weight=None):
        """One epoch over these texts at a constant rate; the optimiser is kept between calls.

        The vocabulary is that of the first call (or of ``fit``).

        Parameters
        ----------
        X : list, array or Series of str (n,), or lists of tokens
            The texts; the empty one is legal.
        y : ignored
            For the scikit-learn interface.
        sample_weight : array-like (n,), default=None
            As in ``fit``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For what ``fit`` refuses.
        """
        self._check_parameters()
        with unchanged_on_error(self):
            self._partial_fit(X, sample_weight)
        return self

    def _partial_fit(self, X, sample_weight) -> None:
        again = hasattr(self, "_network")
        vocabulary, texts, weights = self._check_training(X, sample_weight, again)
        architecture = self._architecture(len(vocabulary), 0, True, "last")
        initial = self._start(architecture, again, check_random_state(self.random_state))
        self._vocabulary = vocabulary
        self._train_more(
            architecture, initial, self._stream_objective(architecture, texts, weights)
        )

    def _check_training(self, X, sample_weight, again: bool):
        """The vocabulary (the fitted one when `again`), and the texts that have a weight."""
        texts = check_texts(X)
        tokens, n_tokens = tokenize(texts, self.analyzer)
        weights = check_sample_weight(sample_weight, len(n_tokens), "text")
        if again:
            vocabulary = self._vocabulary
        else:
            vocabulary = self._learn_vocabulary(tokens, n_tokens, weights, has_lists(texts))
        texts = vocabulary.encode(tokens, n_tokens, self.handle_unknown)
        used = np.flatnonzero(weights > 0)
        return vocabulary, texts.take(used), weights[used]

    def _with_symbols_of(self, texts: list) -> CharRNNLanguageModel:
        """Itself, told to know the symbols of these texts, be they in those of ``fit`` or not."""
        self._check_parameters()
        tokens, n_tokens = tokenize(texts, self.analyzer)
        known = self._learn_vocabulary(tokens, n_tokens, np.ones(len(texts)), False)
        if not known.symbols:  # all texts are empty
            return self
        return self.set_params(min_frequency=None, max_symbols=None, vocabulary=known.symbols)

    def _start(self, architecture: Architecture, again: bool, random) -> np.ndarray:
        if not again:
            return architecture.initial_parameters(random)
        if self._network.architecture != architecture:
            raise ValueError(
                "warm_start and partial_fit need the shape of the first fit; it was "
                f"{self._network.architecture}, now {architecture}."
            )
        return self._network.parameters

    def _split(self, texts: EncodedTexts, weights, random):
        """Texts to train on and texts held out; the end of the text where there is but one."""
        n = len(texts.starts)
        if n > 1:
            n_held = min(max(1, round(self.validation_fraction * n)), n - 1)
            order = random.permutation(n)
            out, stay = np.sort(order[:n_held]), np.sort(order[n_held:])
            return texts.take(stay), weights[stay], texts.take(out), weights[out]
        length = int(texts.lengths[0])
        n_held = max(1, round(self.validation_fraction * length))
        if n_held >= length:
            raise ValueError(
                f"early_stopping needs a text of more than {length - 1} symbols to hold out "
                f"validation_fraction={self.validation_fraction} of it."
            )
        begin = EncodedTexts(texts.codes, texts.starts, texts.lengths - n_held)
        end = EncodedTexts(texts.codes, begin.starts + begin.lengths, np.array([n_held]))
        return begin, weights, end, weights

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

        values = np.empty(len(texts.codes))  # by the position of what is read

        def evaluate(packed, batch, workspace):
            for window, outputs in packed.scan(batch, texts.codes, workspace):
                target = texts.codes[window.index + 1] - 1
                found, ones = np.empty(len(target)), np.ones(len(target))
                for part, logits in packed.next_logits(outputs):
                    kernels.cross_entropy(target[part], ones[part], logits, found[part])
                values[window.index] = found

        self._map_chunks(evaluate, texts.starts, texts.lengths, network)
        return [values[start : start + n] for start, n in zip(texts.starts, texts.lengths)]

    def _validation_score(self, texts: EncodedTexts, weights, network) -> float:
        """Mean log-probability per known symbol: an unknown one (warm_start) would be -inf."""
        values = self._log_probabilities(texts, network)
        weight = np.repeat(weights, texts.lengths)
        flat = np.concatenate(values)
        known = np.isfinite(flat)
        return float(np.average(flat[known], weights=weight[known]))

    def score_samples(self, X):
        """Log-probability of each text, its end counted.

        Parameters
        ----------
        X : list, array or Series of str (n,), or lists of tokens
            The texts; the empty one is legal.

        Returns
        -------
        ndarray (n,)
            In nats.
        """
        return np.array([v.sum() for v in self._log_probabilities(self._check_input(X))])

    def score(self, X, y=None, sample_weight=None):
        """Mean log-probability per character; each text's end counts as one.

        Parameters
        ----------
        X : list, array or Series of str (n,), or lists of tokens
            The texts; the empty one is legal.
        y : ignored
            For the scikit-learn interface.
        sample_weight : array-like (n,), default=None
            Weights of the texts.

        Returns
        -------
        float
            In nats.
        """
        texts = self._check_input(X)
        weights = check_sample_weight(sample_weight, len(texts.starts), "text")
        totals = np.array([v.sum() for v in self._log_probabilities(texts)])
        used = weights > 0
        return float(
            (weights[used] @ totals[used]) / (weights[used] @ texts.lengths[used])
        )

    def perplexity(self, X):
        """exp(-score): among how many equally probable characters the model chooses.

        Parameters
        ----------
        X : list, array or Series of str (n,), or lists of tokens
            The texts; the empty one is legal.

        Returns
        -------
        float
        """
        with np.errstate(over="ignore"):  # inf, as for a text of probability zero
            return float(np.exp(-self.score(X)))

    def bits_per_char(self, X):
        """-score in bits.

        Parameters
        ----------
        X : list, array or Series of str (n,), or lists of tokens
            The texts; the empty one is legal.

        Returns
        -------
        float
        """
        return -self.score(X) / np.log(2.0)

    def char_log_proba(self, X):
        """Log-probability of each character given those before it, for a map of surprise.

        Parameters
        ----------
        X : list, array or Series of str (n,), or lists of tokens
            The texts; the empty one is legal.

        Returns
        -------
        ndarray (n,) of object
            Of each text a float array, one number per character, in nats; with the end's
            log-probability they sum to :meth:`score_samples`.
        """
        values = self._log_probabilities(self._check_input(X))
        result = np.empty(len(values), dtype=object)
        for i, value in enumerate(values):
            result[i] = value[:-1]
        return result

    @property
    def symbols_(self) -> np.ndarray:
        """Columns of predict_proba: "" (the end of the text), then the symbols in sorted order.

        With ``min_frequency``, ``max_symbols`` or ``vocabulary``, None (any other symbol) is last.
        """
        check_is_fitted(self)
        others = [None] * self._vocabulary.learns_unknown
        return np.array(["", *self._vocabulary.symbols, *others], dtype=object)

    def predict_proba(self, X):
        """Distribution of the next character after each text.

        Parameters
        ----------
        X : list, array or Series of str (n,), or lists of tokens
            The texts; the empty one is legal.

        Returns
        -------
        ndarray (n, n_symbols)
            Columns as in ``symbols_``.
        """
        states = self._last_states(self._check_input(X))
        packed = self._packed()
        result = np.empty((len(states), len(packed.heads["next"][1])))
        for part, logits in packed.next_logits(states):
            kernels.softmax(logits)
            result[part] = logits
        return result

    def predict(self, X):
        """The most probable next character after each text, None for any other symbol.

        Parameters
        ----------
        X : list, array or Series of str (n,), or lists of tokens
            The texts; the empty one is legal.

        Returns
        -------
        ndarray (n,) of str
            "" for the end of the text.
        """
        states = self._last_states(self._check_input(X))
        best = [logits.argmax(axis=1) for _, logits in self._packed().next_logits(states)]
        return self.symbols_[np.concatenate(best)]

    def transform(self, X):
        """Hidden state of the top layer after each text.

        Parameters
        ----------
        X : list, array or Series of str (n,), or lists of tokens
            The texts; the empty one is legal.

        Returns
        -------
        ndarray (n, hidden_size)
        """
        return self._last_states(self._check_input(X))

    # ---------------------------------------------------------------- drawing

    def sample(
        self, n_samples=1, *, max_length=200, prefix="", temperature=1.0, top_k=None, top_p=1.0,
        joiner=None, random_state=None,
    ):  # fmt: skip
        """Draw texts, character by character, until their end or ``max_length`` characters.

        Only known symbols are drawn, where any other symbol has a probability of its own.
        What is drawn is read back by :meth:`score` as the same symbols: strings from a model of
        strings, lists of tokens from a model fitted on such, and with a callable analyzer.

        Parameters
        ----------
        n_samples : int, default=1
        max_length : int, default=200
            Characters drawn at most, the prefix not counted.
        prefix : str, list of tokens, or list of these of length n_samples, default=""
            What the texts begin with, all the same or each its own. A list of strings is the
            tokens of one prefix where draws are lists, one prefix for each draw where they are
            strings. What follows a list of tokens is a list of tokens.
        temperature : float, default=1.0
            Divides the logits; 0 takes the most probable character.
        top_k : int or None, default=None
            Draw among so many most probable characters.
        top_p : float in (0, 1], default=1.0
            Draw among the fewest most probable characters that have this probability together,
            at this temperature and after ``top_k`` (nucleus sampling,
            Holtzman et al. 2020).
        joiner : str or None, default=None
            Joins the drawn tokens to strings, for a callable analyzer or a model of lists of
            tokens; None: as above.
        random_state : int, RandomState or None, default=None

        Returns
        -------
        list of str or list of list of str, each with its prefix

        Warns
        -----
        UserWarning
            When a text that was joined by `joiner` is read back as other symbols.
        """
        check_is_fitted(self)
        self._check_drawing(n_samples, max_length, temperature, top_k, top_p, joiner)
        prefixes = self._check_prefix(prefix, n_samples, self._draws_lists and joiner is None)
        coded = self._vocabulary.encode(*tokenize(prefixes, self.analyzer), self.handle_unknown)
        drawn = self._draw(
            [coded.codes[first : first + n].tolist()
             for first, n in zip(coded.starts, coded.lengths)],
            max_length, temperature, top_k, top_p, check_random_state(random_state),
        )  # fmt: skip
        tails = [self._vocabulary.decode(codes) for codes in drawn]
        texts = [self._continued(prefix, tail, joiner) for prefix, tail in zip(prefixes, tails)]
        if joiner is not None:
            self._check_read_back(
                texts, [self._tokens_of(prefix) + tail for prefix, tail in zip(prefixes, tails)]
            )
        return texts

    @staticmethod
    def _check_prefix(prefix, n_samples: int, in_lists: bool) -> list:
        """A str or list of str for each draw."""
        one = isinstance(prefix, str)
        if not one and isinstance(prefix, list | tuple | np.ndarray):
            one = in_lists and all(isinstance(token, str) for token in prefix)
            if not one and len(prefix) != n_samples:
                raise ValueError(
                    f"prefix must have one entry for each of n_samples={n_samples} draws; got "
                    f"{len(prefix)}. The tokens of one prefix for all: [tokens] * n_samples."
                )
        elif not one:
            raise ValueError(f"prefix must be a str or a list; got {prefix!r}.")
        try:
            return check_texts([prefix] * n_samples if one else list(prefix))
        except ValueError as error:
            raise ValueError(f"prefix: {error}") from None

    def _tokens_of(self, prefix: str | list[str]) -> list[str]:
        tokens, _ = tokenize([prefix], self.analyzer)
        return list(map(chr, tokens)) if isinstance(tokens, np.ndarray) else tokens

    def _continued(self, prefix, tail: list[str], joiner: str | None) -> str | list[str]:
        """A prefix and what was drawn after it; the characters of a string stay as they are."""
        if joiner is None and (isinstance(prefix, list) or self._draws_lists):
            return self._tokens_of(prefix) + tail
        if isinstance(prefix, list):
            return joiner.join(prefix + tail)
        if not tail:
            return prefix
        between = self._written(["", ""], joiner) if prefix and not prefix[-1].isspace() else ""
        return prefix + between + self._written(tail, joiner)
