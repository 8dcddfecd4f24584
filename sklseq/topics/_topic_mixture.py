"""TopicMixture: the bag-of-words contrast to sequence models."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from sklseq._base import unchanged_on_error
from sklseq._documentation import DocumentationLink
from sklseq._notices import keeps_what_it_has, warn
from sklseq._online import Stream
from sklseq._pickles import VersionedPickle
from sklseq._progress import Progress
from sklseq._sequences import Sequences, check_sparse, refuse_overflow
from sklseq._validation import (
    as_array,
    as_fitted,
    check_count,
    check_n_jobs,
    check_parameter_array,
    check_positive,
    check_probabilities,
    check_real,
    check_sample_weight,
)
from sklseq.topics._topic_model import Documents, TopicModel
from sklseq.topics._variational import (
    FIRST_PASSES,
    TopicStatistics,
    VariationalPasses,
    VariationalTopics,
    random_components,
)

# The lower bound costs about as much as an iteration, so it is computed every few.
EVALUATE_EVERY = 5
# Standard errors, in nats, from which a document's log-probability and the score are doubtful.
DOUBTFUL_DOCUMENT = 1.0
DOUBTFUL_SCORE = 0.01


class TopicMixture(
    DocumentationLink,
    VersionedPickle,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    DensityMixin,
    BaseEstimator,
):
    r"""Topic model (latent Dirichlet allocation) with a held-out likelihood that can be compared.

    Every word of a document has a topic of its own, drawn from the document's topic proportions:

    .. math::  p(x_1 \ldots x_n) = \int p(\theta \mid \alpha) \prod_t \sum_s p(s \mid \theta)
               p(x_t \mid s) \, d\theta .

    The order of the words does not matter, which makes the model the natural contrast to a hidden
    Markov model.  It is fitted by scikit-learn's
    :class:`~sklearn.decomposition.LatentDirichletAllocation` (or, where the prior differs by topic,
    by the same variational passes for such a prior); what is added is the integral
    itself: ``score`` is the mean log-likelihood per word, in nats, of the words in the order they
    stand (no multinomial coefficient), the unit of ``CategoricalHMM.score``.

    Parameters
    ----------
    n_components : int, default=10
        Number of topics K.
    doc_topic_prior : float in (0, 1], array-like (n_components,) or "learned", default=None
        Concentration :math:`\alpha_k` of each document's topic proportions; None means 1 / K.
        One number for each topic lets some be common and others rare [4]_; "learned" starts from
        1 / K and, after ten passes (or chunks), takes what makes the lower bound largest after
        each.
    topic_word_prior : float in (0, 1], default=None
        Concentration of each topic's word probabilities; None means 1 / K.  Words never seen in
        training keep a probability because of it.
    max_iter : int, default=100
        Largest number of passes over the training documents.
    tol : float, default=1e-3
        Fitting stops when the variational lower bound gains less than this in one pass, in nats
        per word.
    n_particles : int, default=20
        Size of the Monte Carlo estimates of ``score_samples``; their standard error falls with
        its square root.
    n_jobs : int, default=None
        Threads for scoring and transforming; the numbers do not depend on it.  Fitting uses one.
    random_state : int, RandomState instance or None, default=None
        Starting topics of ``fit``, and the seed of the estimates, which is drawn once in ``fit``:
        a fitted model gives the same document the same value every time.
    verbose : int, default=0
        1 prints a line for every ten seconds and at the end; 2 at each evaluation of the bound.
    learning_decay : float in (0.5, 1], default=0.7
        Of ``partial_fit``: chunk t has weight :math:`t^{-\mathrm{decay}}`.

    Attributes
    ----------
    topic_word_ : ndarray of shape (n_components, n_features)
        Word probabilities of each topic, posterior means; rows sum to 1.
    components_ : ndarray of shape (n_components, n_features)
        The same by the name that scikit-learn's decompositions have for it.
    doc_topic_prior_ : ndarray of shape (n_components,)
        :math:`\alpha`.
    lower_bounds_ : ndarray
        Variational lower bound of the training documents per word, nats, every five passes.
    n_iter_ : int
        Number of passes; of chunks, after ``partial_fit`` alone.
    converged_ : bool
        Whether ``tol`` was reached by ``fit``.
    n_features_in_ : int
        Size of the vocabulary.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the words, where ``fit`` saw a DataFrame with string columns.

    See Also
    --------
    sklearn.decomposition.LatentDirichletAllocation : Whose ``score`` is a lower bound that
        includes a term for the topics themselves, so that it changes with the size of the test
        set.

    Notes
    -----
    Short documents, and longer ones with few topics, are scored exactly, by dynamic programming
    over how many words each topic has.  Others are scored by the left-to-right estimator [1]_ with
    all earlier topics redrawn before each word, in a weighted form whose estimate of the
    *probability* is unbiased [2]_; its logarithm errs on the low side by about half the squared
    standard error, which ``score_samples(X, return_std=True)`` tells.  (With
    :math:`\alpha` below about 0.01 and topics that share most words, particles seldom leave a
    topic and that error is told too small.)  Documents with fractional
    counts, or more than 20,000 words, are scored by importance sampling over
    :math:`\theta`, the counts standing as exponents, which serves few topics or little text.

    The random numbers spent on a document are seeded by its content and by the seed drawn in
    ``fit``, so neither its neighbours nor the order of its words change its value.

    References
    ----------
    .. [1] H. Wallach, I. Murray, R. Salakhutdinov and D. Mimno, "Evaluation methods for topic
       models", ICML 2009.
    .. [2] W. Buntine, "Estimating likelihoods for topic models", ACML 2009.
    .. [3] M. Hoffman, D. Blei and F. Bach, "Online learning for latent Dirichlet allocation",
       NIPS 2010.
    .. [4] H. Wallach, D. Mimno and A. McCallum, "Rethinking LDA: why priors matter", NIPS 2009.

    Examples
    --------
    >>> from sklearn.feature_extraction.text import CountVectorizer
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklseq.topics import TopicMixture
    >>> texts = ["sun sea sand", "sea sun sun", "rain wind cloud", "cloud rain rain"] * 5
    >>> model = make_pipeline(CountVectorizer(), TopicMixture(2, random_state=0)).fit(texts)
    >>> model.predict(["sand sun", "wind cloud"]).tolist() in ([0, 1], [1, 0])
    True
    >>> model.score(["sun sea sand"]) > model.score(["sun rain sand"])
    True
    """

    def __init__(
        self,
        n_components: int = 10,
        *,
        doc_topic_prior=None,
        topic_word_prior: float | None = None,
        max_iter: int = 100,
        tol: float = 1e-3,
        n_particles: int = 20,
        n_jobs: int | None = None,
        random_state=None,
        verbose: int = 0,
        learning_decay: float = 0.7,
    ) -> None:
        self.n_components = n_components
        self.doc_topic_prior = doc_topic_prior
        self.topic_word_prior = topic_word_prior
        self.max_iter = max_iter
        self.tol = tol
        self.n_particles = n_particles
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.learning_decay = learning_decay

    @classmethod
    def from_parameters(cls, *, topic_word, doc_topic_prior, **params) -> TopicMixture:
        """A fitted model from known parameters.

        Parameters
        ----------
        topic_word : array-like of shape (n_components, n_features)
            Word probabilities of each topic, rows that sum to 1.  Zeros are allowed.
        doc_topic_prior : float or array-like of shape (n_components,)
            Concentration of each topic, positive.
        **params : dict
            Constructor parameters: ``n_particles``, ``n_jobs``, ``random_state``, ...

        Returns
        -------
        TopicMixture

        Raises
        ------
        ValueError
            If a row of ``topic_word`` is no probability distribution, or ``doc_topic_prior`` is
            not positive or has the wrong length.

        Examples
        --------
        >>> from sklseq.topics import TopicMixture
        >>> model = TopicMixture.from_parameters(
        ...     topic_word=[[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]], doc_topic_prior=1.0
        ... )
        >>> round(model.score([[1, 0, 1]]), 4)  # two different topics: log(1/24) / 2
        -1.589
        """
        topic_word = check_probabilities(topic_word, "topic_word", (None, None))
        prior = _check_prior(doc_topic_prior, len(topic_word))
        model = cls(n_components=len(topic_word), **params)
        model._check_parameters()
        if np.ndim(doc_topic_prior) == 0:
            model.doc_topic_prior = doc_topic_prior
        model.n_features_in_ = topic_word.shape[1]
        model._set_fitted(topic_word, prior, check_random_state(model.random_state))
        model.n_iter_, model.converged_, model.lower_bounds_ = 0, True, np.empty(0)
        return model

    def fit(self, X, y=None) -> TopicMixture:
        """Fit topics to documents by scikit-learn's batch variational Bayes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_documents, n_features)
            Counts of each word of the vocabulary, not negative.
        y : None
            Ignored.

        Returns
        -------
        TopicMixture
            Itself.

        Raises
        ------
        ValueError
            If a count is negative or not finite, or all are zero.
        """
        with unchanged_on_error(self):
            self._check_parameters()
            X = self._check_counts(X, reset=True)
            if X.nnz == 0:
                raise ValueError(
                    "X holds no words: all counts are 0, but fitting needs at least one."
                )
            rng = check_random_state(self.random_state)
            learner = self._learner(X, rng)
            components, prior = self._learn(X, learner)
            self._set_components(components, prior, rng)
            statistics = getattr(learner, "statistics", None)
            log_theta = np.zeros(self.n_components) if statistics is None else statistics.log_theta
            self._online = (components.sum(axis=1), log_theta, X.shape[0], X.shape[0], 1)
        return self

    def partial_fit(self, X, y=None) -> TopicMixture:
        r"""Learn from one chunk of a stream of documents, by online variational Bayes.

        Expected counts of all chunks are averaged with weight :math:`t^{-\mathrm{decay}}` for
        chunk t, on the scale of all documents seen; ``fit`` counts as a first chunk.  A first
        chunk is one pass only: let it be large, or come from ``fit``.  A learned
        ``doc_topic_prior`` stands still for the first ten chunks of a stream that does not begin
        with ``fit``, until topics have parted.  Source: Hoffman, Blei and Bach (2010).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_documents, n_features)
            Counts; every chunk has the columns of the first.
        y : None
            Ignored.

        Returns
        -------
        TopicMixture
            Itself.

        Raises
        ------
        ValueError
            For what ``fit`` refuses, or another ``n_components`` than that of the first chunk.
        """
        with unchanged_on_error(self):
            self._check_parameters()
            fitted = hasattr(self, "topic_word_")
            if fitted and self.n_components != len(self.doc_topic_prior_):
                raise ValueError(
                    f"n_components is that of the first chunk, {len(self.doc_topic_prior_)}; got "
                    f"{self.n_components}."
                )
            X = self._check_counts(X, reset=not fitted)
            if X.nnz == 0:
                raise ValueError("X holds no words: all counts are 0.")
            self._learn_chunk(X, check_random_state(self.random_state), fitted)
        return self

    def _learn_chunk(self, X: csr_array, rng, fitted: bool) -> None:
        stream = self._stream_of(X) if fitted else Stream(self._start(X, rng))
        statistics, _ = stream.model.e_step(X, self.n_jobs)
        stream = stream.learn(statistics, X.shape[0], self.learning_decay)
        model = stream.model
        self._set_components(model.components, model.prior, None if fitted else rng)
        self._online = (
            model.components.sum(axis=1), stream.statistics.log_theta, stream.n_steps,
            stream.n_seen, stream.n_chunks,
        )  # fmt: skip
        if not fitted or not len(self.lower_bounds_):
            self.n_iter_, self.converged_, self.lower_bounds_ = stream.n_chunks, False, np.empty(0)

    def _stream_of(self, X: csr_array) -> Stream:
        """The stream where it stands, from the fitted attributes and plain numbers."""
        word_prior, learns, fitted = self._word_prior, self._learns_prior, self._model
        if not hasattr(self, "_online"):  # known parameters: the chunk's words shared out
            counts = X.sum() / self.n_components * fitted.topic_word
            return Stream(VariationalTopics(word_prior + counts, word_prior, fitted.prior, learns))
        totals, log_theta, counted, n_seen, n_chunks = self._online
        components = np.maximum(fitted.topic_word * totals[:, None], word_prior)
        waits = 0 if len(self.lower_bounds_) else max(FIRST_PASSES - n_chunks, 0)
        model = VariationalTopics(components, word_prior, fitted.prior, learns, waits)
        share = counted / n_seen  # statistics are on the scale of the chunks that count
        statistics = TopicStatistics(
            share * (components - word_prior), log_theta, np.array(float(counted))
        )
        return Stream(model, statistics, float(counted), n_seen, n_chunks)

    @property
    def _word_prior(self) -> float:
        return 1.0 / self.n_components if self.topic_word_prior is None else self.topic_word_prior

    @property
    def _learns_prior(self) -> bool:
        return isinstance(self.doc_topic_prior, str)

    def _start(self, X: csr_array, rng) -> VariationalTopics:
        given = self.doc_topic_prior
        prior = 1.0 / self.n_components if given is None or self._learns_prior else given
        return VariationalTopics(
            random_components(rng, self.n_components, X.shape[1]),
            self._word_prior,
            _check_prior(prior, self.n_components),
            self._learns_prior,
            FIRST_PASSES,
        )

    def _learner(self, X: csr_array, rng) -> LatentDirichletAllocation | VariationalPasses:
        """What makes a pass over all documents; scikit-learn has but one number for the prior."""
        if np.ndim(self.doc_topic_prior) or self._learns_prior:
            return VariationalPasses(self._start(X, rng))
        return LatentDirichletAllocation(
            self.n_components,
            doc_topic_prior=self.doc_topic_prior,
            topic_word_prior=self.topic_word_prior,
            # partial_fit is one pass of batch learning: nothing decays, all documents in one batch
            learning_decay=0.0,
            batch_size=X.shape[0],
            total_samples=X.shape[0],
            n_jobs=1,  # more would change the random starts of the documents
            random_state=rng,
        )

    def _learn(self, X: csr_array, lda) -> tuple[np.ndarray, np.ndarray]:
        """Passes over all documents until the lower bound stands; records how that went.

        Returns the topics as LatentDirichletAllocation has them, and its prior.
        """
        bounds, converged, n_iter, n_words = [], False, 0, X.sum()
        components, interrupted = None, False
        progress = Progress("TopicMixture", self.verbose, "pass")
        try:
            while n_iter < self.max_iter and not converged:
                n_passes = min(EVALUATE_EVERY, self.max_iter - n_iter)
                for _ in range(n_passes):
                    lda.partial_fit(X)
                    components = lda.components_.copy()  # Ctrl-C may come in the next pass
                    n_iter += 1
                bounds.append(lda.score(X) / n_words)
                what = f"lower bound {bounds[-1]:.6f} nats per word"
                progress.step(n_iter, self.max_iter, what, self.max_iter - n_iter, n_passes)
                settled = n_iter > FIRST_PASSES or not self._learns_prior
                gains = len(bounds) < 2 or bounds[-1] - bounds[-2] >= self.tol * n_passes
                converged = settled and not gains
        except KeyboardInterrupt:
            if components is None or not keeps_what_it_has():
                raise
            interrupted = True
            warn(
                f"Fitting TopicMixture was interrupted after {n_iter} passes: the topics of the "
                "last one are kept.",
                ConvergenceWarning,
                stacklevel=3,
            )
        if not converged and not interrupted:
            warn(
                f"TopicMixture stopped at max_iter={self.max_iter} before the lower bound gained "
                f"less than tol={self.tol} nats per word in one pass. Raise max_iter or tol.",
                ConvergenceWarning,
                stacklevel=3,
            )
        if bounds:
            progress.summary(converged and not interrupted, n_iter, what, n_words, "words")
        self.n_iter_, self.converged_, self.lower_bounds_ = n_iter, converged, np.array(bounds)
        return components, lda.doc_topic_prior_

    def transform(self, X) -> np.ndarray:
        """Topic proportions of each document: mean of the variational posterior of theta.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_documents, n_features)
            Counts.  A document without words gets the prior mean.

        Returns
        -------
        ndarray of shape (n_documents, n_components)
            Rows sum to 1.
        """
        documents = self._documents(X)
        return self._model.proportions(documents, self.n_jobs)

    def predict(self, X) -> np.ndarray:
        """Dominant topic of each document: where ``transform`` is largest.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_documents, n_features)
            Counts.

        Returns
        -------
        ndarray of shape (n_documents,)
            Topics, int.
        """
        return self.transform(X).argmax(axis=1)

    def score_samples(self, X, return_std: bool = False):
        """Log-probability of the words of each document in their order, nats.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_documents, n_features)
            Counts, whole or fractional.
        return_std : bool, default=False
            Whether to return standard errors as well.

        Returns
        -------
        log_prob : ndarray of shape (n_documents,)
            0 for a document without words; ``-inf`` if no topic has one of its words, which only
            parameters set by hand bring about.
        std_error : ndarray of shape (n_documents,)
            Monte Carlo standard error of ``log_prob``; 0 where it is exact, ``inf`` where
            importance sampling failed.  Only if ``return_std``.

        Warns
        -----
        ConvergenceWarning
            If a standard error passes 1 nat.
        """
        if not isinstance(return_std, bool | np.bool_):
            raise TypeError(f"return_std must be True or False, got {return_std!r}.")
        log_prob, std_error = self._score_documents(self._documents(X))
        if np.any(std_error > DOUBTFUL_DOCUMENT):
            worst = int(std_error.argmax())
            self._warn_doubtful(f"The log-probability of document {worst}", std_error[worst])
        return (log_prob, std_error) if return_std else log_prob

    def score(self, X, y=None, sample_weight=None) -> float:
        """Mean log-likelihood per word, nats; minus it, divided by log 2, is bits per word.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_documents, n_features)
            Counts.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_documents,), default=None
            Weight w of each document.

        Returns
        -------
        float
            :math:`\\sum_d w_d \\log p(x_d) / \\sum_d w_d n_d`, n the numbers of words.

        Raises
        ------
        ValueError
            If no document of positive weight has a word.

        Warns
        -----
        ConvergenceWarning
            If the standard error of the score passes 0.01 nats.
        """
        documents = self._documents(X)
        n_words = documents.n_words
        weight = check_sample_weight(sample_weight, len(documents), "document")
        total = weight @ n_words
        if not total > 0:
            raise ValueError(
                "score is a mean per word, but no document of positive weight has a word."
            )
        log_prob, std_error = self._score_documents(documents)
        counted = weight > 0  # 0 * -inf must not become NaN
        score_error = np.linalg.norm(weight[counted] * std_error[counted]) / total
        if score_error > DOUBTFUL_SCORE:
            self._warn_doubtful("The score", score_error)
        return float(weight[counted] @ log_prob[counted] / total)

    def perplexity(self, X) -> float:
        """exp(-score): among how many equally probable words the model chooses.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_documents, n_features)
            Counts.

        Returns
        -------
        float
            Unlike LatentDirichletAllocation's, it does not grow with the topics' own term.
        """
        with np.errstate(over="ignore"):  # inf, as for a word of probability zero
            return float(np.exp(-self.score(X)))

    @property
    def components_(self) -> np.ndarray:
        """``topic_word_`` by the name of scikit-learn's decompositions."""
        check_is_fitted(self)
        return self.topic_word_

    def sample(self, n_samples: int = 1, *, n_words=100, random_state=None):
        """Draw documents from the fitted model.

        Parameters
        ----------
        n_samples : int, default=1
            Number of documents.
        n_words : int or array-like of shape (n_samples,), default=100
            Words in each; the model does not say how long a document is.
        random_state : int, RandomState instance or None, default=None
            None takes the estimator's own.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Counts, int.
        topics : ndarray of shape (n_samples, n_components)
            The topic proportions theta behind each document.
        """
        check_is_fitted(self)
        check_positive(n_samples, "n_samples")
        rng = check_random_state(self.random_state if random_state is None else random_state)
        lengths = as_array(n_words, "n_words")
        if lengths.dtype.kind not in "iu" or lengths.ndim > 1 or np.any(lengths < 0):
            raise ValueError(f"n_words must be whole and not negative, got {n_words!r}.")
        if lengths.ndim == 1 and len(lengths) != n_samples:
            raise ValueError(
                f"n_words must be one number or have n_samples={n_samples} entries, "
                f"got {len(lengths)}."
            )
        return self._model.sample(np.broadcast_to(lengths, (n_samples,)), rng)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = True
        return tags

    @property
    def _n_features_out(self) -> int:
        return len(self.doc_topic_prior_)

    @property
    def _model(self) -> TopicModel:
        n_topics = self.n_components
        topic_word = as_fitted(
            self, "topic_word_", (n_topics, self.n_features_in_), "probabilities"
        )
        return TopicModel(topic_word, as_fitted(self, "doc_topic_prior_", (n_topics,), "positive"))

    def _set_components(self, components: np.ndarray, prior, rng) -> None:
        """Topics from pseudo-counts; without rng the seed of the estimates stays."""
        topic_word = components / components.sum(axis=1, keepdims=True)
        prior = _check_prior(prior, self.n_components)
        if rng is None:
            self.topic_word_, self.doc_topic_prior_ = topic_word, prior
        else:
            self._set_fitted(topic_word, prior, rng)

    def _set_fitted(self, topic_word: np.ndarray, prior: np.ndarray, rng) -> None:
        self.topic_word_, self.doc_topic_prior_ = topic_word, prior
        self._stream_seed = int(rng.randint(np.iinfo(np.int32).max))

    def _check_parameters(self) -> None:
        for name in ("n_components", "max_iter", "n_particles"):
            check_count(self, name, 1)
        check_count(self, "verbose", 0)
        check_n_jobs(self.n_jobs)
        check_real(self, "tol", 0.0)
        if not 0.5 < check_real(self, "learning_decay", 0.5) <= 1.0:
            raise ValueError(
                f"learning_decay must be above 0.5 and at most 1, got {self.learning_decay!r}."
            )
        prior, names = self.doc_topic_prior, ["topic_word_prior"]
        if isinstance(prior, str):
            if prior != "learned":
                raise ValueError(
                    f"doc_topic_prior must be a number, one for each topic, 'learned' or None; got "
                    f"{prior!r}."
                )
        elif np.ndim(prior):
            _check_prior(prior, self.n_components)
        else:
            names = ["doc_topic_prior", "topic_word_prior"]
        for name in names:
            if getattr(self, name) is not None:
                check_real(self, name, 0.0, boundaries="neither")
                if getattr(self, name) > 1:  # scikit-learn's own limit
                    raise ValueError(f"{name} must be at most 1, got {getattr(self, name)!r}.")

    def _check_counts(self, X, *, reset: bool) -> csr_array:
        """Canonical CSR (sorted, no duplicates, no stored zeros), so that dense and sparse input
        give the same bits; the caller's matrix is left alone."""
        check_sparse(X)
        X = validate_data(
            self, X, accept_sparse="csr", dtype=np.float64, ensure_non_negative=True, reset=reset
        )
        X = csr_array(X, copy=True)
        X.sum_duplicates()
        X.eliminate_zeros()
        refuse_overflow(Sequences(X, np.array([0, X.shape[0]])))
        return X

    def _documents(self, X) -> Documents:
        check_is_fitted(self)
        return Documents.from_csr(self._check_counts(X, reset=False))

    def _score_documents(self, documents: Documents) -> tuple[np.ndarray, np.ndarray]:
        check_count(self, "n_particles", 1)
        return self._model.log_prob(
            documents, n_particles=self.n_particles, seed=self._stream_seed, n_jobs=self.n_jobs
        )

    def _warn_doubtful(self, what: str, std_error: float) -> None:
        warn(
            f"{what} has a Monte Carlo standard error of {std_error:.2g} nats: raise "
            f"n_particles={self.n_particles}.",
            ConvergenceWarning,
            stacklevel=3,
        )


def _check_prior(prior, n_topics: int) -> np.ndarray:
    """alpha; one number means a symmetric one."""
    shape = (n_topics,) if np.ndim(prior) else ()
    values = check_parameter_array(prior, "doc_topic_prior", shape)
    # beyond this range ratios of gamma functions are no longer finite
    if not np.all((values >= 1e-100) & (values <= 1e100)):
        raise ValueError(f"doc_topic_prior must lie between 1e-100 and 1e100, got {prior!r}.")
    return np.array(np.broadcast_to(values, (n_topics,)))
