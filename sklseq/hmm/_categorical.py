"""Categorical emissions: p(x_t | s_t = k) = prod_d emissionprob_d[k, x_td]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklseq._sequences import Sequences
from sklseq._validation import as_fitted, check_probabilities, check_real
from sklseq.hmm._base import BaseHMM
from sklseq.hmm._chain import Emission, LogTails, Parameter, estimate_rows, n_free_in_rows
from sklseq.hmm._forward_backward import code_source
from sklseq.hmm._lookup import add_by_code, add_looked_up, to_codes

MISSING = -1  # the code of a missing entry
MOST_PROBABILITIES = 10**8  # that codes may ask for by their size: 0.8 GB a copy


@dataclass(frozen=True)
class CategoricalEmission(Emission):
    """Independent categorical columns; X holds integer codes (n, D), MISSING for none."""

    remedy = (
        " With alpha > 0 a category that a state did not have in training keeps a positive "
        "probability."
    )

    tables: tuple[np.ndarray, ...]  # one (K, V_d) a column
    alpha: float = 0.0
    held: Mapping[str, np.ndarray] = field(default_factory=dict)

    def log_prob(self, X, out):
        for column, table in enumerate(self.tables):
            # a missing code is looked up in the row after the last category, and says nothing
            log_table = np.zeros((table.shape[1] + 1, len(table)))
            with np.errstate(divide="ignore"):
                np.log(table.T, out=log_table[:-1])
            add_looked_up(X, column, log_table, out)

    def statistics(self, X, posteriors) -> tuple[np.ndarray, ...]:
        """Expected counts (K, V_d) of each column."""
        counts = []
        for column, table in enumerate(self.tables):
            by_code = np.zeros((table.shape[1] + 1, len(table)))
            add_by_code(X, column, posteriors, by_code)
            counts.append(np.ascontiguousarray(by_code[:-1].T))
        return tuple(counts)

    @property
    def has_source(self):
        return len(self.tables) == 1

    def source(self, X):
        if not self.has_source:
            return None
        with np.errstate(divide="ignore"):
            log_table = np.log(np.ascontiguousarray(self.tables[0].T))
        return code_source(X[:, 0], log_table)

    def statistics_of_source(self, sums) -> tuple[np.ndarray, ...]:
        n_states, n_categories = self.tables[0].shape
        by_code = sums.reshape(n_categories + 2, -1)[:n_categories, :n_states]
        return (np.ascontiguousarray(by_code.T),)

    def m_step(self, statistics) -> CategoricalEmission:
        """Relative frequencies (Rabiner 1989, eq. 40c) with `alpha` added to each count."""
        held = self.held.get("emissionprob")
        tables = tuple(
            table_m_step(counts, table, self.alpha, held)
            for table, counts in zip(self.tables, statistics)
        )
        return replace(self, tables=tables)

    def log_prior(self):
        return sum(table_log_prior(table, self.alpha) for table in self.tables)

    def sample(self, states, random_state):
        columns = []
        for table in self.tables:
            cumulative = np.cumsum(table, axis=1)
            cumulative /= cumulative[:, -1:]
            uniforms = random_state.uniform(size=len(states))
            codes = np.empty(len(states), dtype=np.int64)
            for state in np.unique(states):
                here = states == state
                codes[here] = np.searchsorted(cumulative[state], uniforms[here], side="right")
            columns.append(codes)
        return np.stack(columns, axis=1)

    def n_free_parameters(self):
        held = self.held.get("emissionprob")
        return sum(n_free_in_rows(table, held) for table in self.tables)

    def expect(self, state_probabilities):
        """Probabilities of the categories: (n, V), or (n, D, largest V) padded with zeros."""
        columns = [state_probabilities @ table for table in self.tables]
        if len(columns) == 1:
            return {"probabilities": columns[0]}
        widest = max(column.shape[1] for column in columns)
        padded = np.zeros((len(state_probabilities), len(columns), widest))
        for d, column in enumerate(columns):
            padded[:, d, : column.shape[1]] = column
        return {"probabilities": padded}

    def reordered(self, order):
        return replace(self, tables=tuple(table[order] for table in self.tables))

    def distances(self, other):
        return sum(table_distances(p, q) for p, q in zip(self.tables, other.tables))

    def signature(self):
        return np.hstack(self.tables)

    def parameters(self):
        held = self.held.get("emissionprob")
        return [Parameter("emissionprob", table, "rows", held=held) for table in self.tables]

    def with_values(self, values):
        return replace(self, tables=tuple(values))

    def gradient(self, statistics):
        return [table_gradient(counts, table) for counts, table in zip(statistics, self.tables)]

    def log_tails(self, X):
        """The codes are ordered as they are numbered."""
        columns = []
        for table, codes in zip(self.tables, X.T):
            missing = codes == MISSING
            ends = np.zeros((len(table), 1))
            below = np.hstack([ends, np.cumsum(table, axis=1)])
            onward = np.hstack([np.cumsum(table[:, ::-1], axis=1)[:, ::-1], ends])
            tails = below[:, codes], below[:, codes + 1], onward[:, codes + 1], onward[:, codes]
            columns.append([np.where(missing, np.nan, tail).T for tail in tails])
        with np.errstate(divide="ignore"):
            return LogTails(*(np.log(np.stack(parts, axis=2)) for parts in zip(*columns)))

    def quantiles(self, state_probabilities, probabilities):
        """The first code whose cumulative probability reaches the one asked for."""
        columns = []
        for table in self.tables:
            cumulative = np.cumsum(state_probabilities @ table, axis=1)
            cumulative /= cumulative[:, -1:]
            reached = cumulative[:, None, :] >= np.asarray(probabilities)[:, None]
            columns.append(reached.argmax(axis=2))
        return np.stack(columns, axis=2)


def table_m_step(counts, table, alpha: float, held) -> np.ndarray:
    """Relative frequencies with `alpha` added to each count; structural zeros stay."""
    return estimate_rows(np.where(table > 0, counts + alpha, 0.0), table, held)


def table_log_prior(table, alpha: float) -> float:
    """Dirichlet(1 + alpha) on each row, over the categories that are not structural zeros."""
    return float(alpha * np.log(table[table > 0]).sum()) if alpha else 0.0


def table_distances(left, right) -> np.ndarray:
    """Bhattacharyya distances of the rows of two tables of probabilities; no overlap is finite."""
    return -np.log(np.maximum(np.sqrt(left) @ np.sqrt(right).T, np.finfo(float).tiny))


def table_gradient(counts, table) -> np.ndarray:
    """Derivatives of sum(counts * log(table)); 0 at structural zeros."""
    return np.divide(counts, table, out=np.zeros_like(table), where=table > 0)


class CategoricalHMM(BaseHMM):
    r"""Hidden Markov model with categorical emissions, for symbols such as words or bases.

    .. math::
        p(x_1..x_n) = \sum_s \prod_t p(s_t | s_{t-1})\, p(x_t | s_t)

    X holds integer codes 0, 1, ... (``OrdinalEncoder`` makes them); several columns are independent
    given the state.

    Parameters
    ----------
    n_components : int, default=2
        Number of hidden states.
    n_categories : int or array-like of int, default=None
        Number of categories (of each column).  Default: that of ``emissionprob_init`` where it is
        given, else one more than the largest code in ``fit`` (at most 1e8 probabilities in all);
        give it where later data may hold codes that training lacks.
    alpha : float, default=0.0
        Pseudo-count of each category in each state; 0 is maximum likelihood.  It is part of the
        objective: a Dirichlet(1 + alpha) prior.  Held-out data may have categories that a training
        fold lacks, and score -inf with 0: cross-validation needs ``alpha > 0``.
    initial_state : {"learn", "stationary"}, default="learn"
        Learn the start distribution, or take the stationary distribution of the transition matrix,
        which moves with it (one sequence says next to nothing about its start).
    startprob_init : array-like of shape (n_components,), default=None
        Starting value of the start distribution; a zero stays zero.  Default: uniform.
    transmat_init : array-like of shape (n_components, n_components), default=None
        Starting value of the transition matrix; a zero stays zero, which makes left-right models.
        Default: random rows that favour staying.
    emissionprob_init : array-like of shape (n_components, n_categories), or list, default=None
        Starting value of the emission probabilities (a list of such for several columns); a zero
        stays zero.
    fixed : str, tuple of str or dict of str -> bool mask, default=()
        Parameters held at their ``*_init`` (with ``warm_start`` where the last fit left them):
        "startprob", "transmat", "emissionprob"; a mask holds single entries.
    startprob_prior : float or array-like of shape (n_components,), default=None
        Concentration of a Dirichlet prior on the start distribution, at least 1: one more than the
        starts that it counts as.  None: no prior.  Only with ``initial_state="learn"``.
    transmat_prior : float or array-like of shape (n_components, n_components), default=None
        Concentrations of Dirichlet priors on the rows of the transition matrix, at least 1: one
        more than the moves that they count as.  None: no prior.
    stickiness : float, default=0.0
        Added to the diagonal of `transmat_prior`: so many more moves that stay.
    algorithm : {"viterbi", "map"}, default="viterbi"
        What ``predict`` and ``decode`` return: the most probable path, or the most probable state
        of each step.
    continues : bool, default=False
        After a fit on one sequence, a flat X goes on from its end instead of starting anew: every
        block of a ``TimeSeriesSplit`` does.
    max_iter : int, default=200
        The largest number of EM iterations.
    tol : float, default=1e-6
        Stop when the objective gains less than this per step, in nats.
    learning_decay : float, default=0.7
        Of ``partial_fit``: chunk t is mixed in with weight t to the power of minus this, above 0.5
        and at most 1.  1 remembers all chunks alike; less forgets the first ones, which were seen
        with poor parameters.
    n_init : int, default=5
        Number of starting values, all random.  The better half goes on after 10, 20, 40 ...
        iterations; the last one is finished, and so is the first: more starts are never worse.
        Compare numbers of states after more of them, such as 20.  One where every ``*_init`` is
        given.
    n_jobs : int, default=None
        Threads over shards of whole sequences; None is one.  The result does not depend on it.
        Inside ``joblib.parallel_config`` the shards go to that backend.
    random_state : int, RandomState instance or None, default=None
        For the starting values and ``sample``.
    warm_start : bool, default=False
        Start from the parameters of the last fit.
    verbose : int, default=0
        1 prints a line for each start, for every ten seconds and at the end; 2 for each iteration.

    Attributes
    ----------
    startprob_ : ndarray of shape (n_components,)
        p(s_1 = k).
    transmat_ : ndarray of shape (n_components, n_components)
        :math:`A`; ``transmat_[i, j]`` is p(s_t = j | s_{t-1} = i), rows sum to 1.
    emissionprob_ : ndarray of shape (n_components, n_categories), or list of such
        p(x_t = v | s_t = k); a list with one array a column for several columns.
    n_categories_ : ndarray of int of shape (n_features_in_,)
        Number of categories of each column.
    n_iter_ : int
        Number of EM iterations of the best start.
    converged_ : bool
        Whether the last iteration gained less than `tol`.
    log_likelihood_ : float
        Mean log-likelihood per step of the training data at the fitted parameters, in nats.
    log_likelihoods_ : ndarray of shape (n_iter_ + 1,)
        The same at the start and after each iteration.
    objectives_ : ndarray of shape (n_iter_ + 1,)
        Log-likelihood plus log prior, per step: what EM raises and `tol` looks at.
    final_stateprob_ : ndarray of shape (n_components,) or None
        Filtered state probabilities at the end of training; None after several sequences.
    stationary_distribution_ : ndarray of shape (n_components,)
        The distribution over states that `transmat_` keeps; ValueError where it is not unique.
    expected_dwell_times_ : ndarray of shape (n_components,)
        Expected number of steps of a visit to each state, 1 / (1 - transmat_[k, k]).
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where X had them.

    See Also
    --------
    GaussianHMM : For vectors.
    PoissonHMM : For counts.
    sklearn.preprocessing.OrdinalEncoder : Makes the codes.

    References
    ----------
    L. R. Rabiner (1989), "A tutorial on hidden Markov models and selected applications in speech
    recognition", Proc. IEEE 77(2).

    Examples
    --------
    The umbrella world (Russell & Norvig, Artificial Intelligence, sec. 14.2): is it raining?

    >>> from sklseq import CategoricalHMM
    >>> world = CategoricalHMM.from_parameters(
    ...     startprob=[0.5, 0.5],
    ...     transmat=[[0.7, 0.3], [0.3, 0.7]],
    ...     emissionprob=[[0.9, 0.1], [0.2, 0.8]],
    ... )
    >>> umbrella = [[0], [0]]
    >>> world.predict_proba(umbrella).round(3)
    array([[0.883, 0.117],
           [0.883, 0.117]])
    """

    def __init__(
        self,
        n_components=2,
        *,
        n_categories=None,
        alpha=0.0,
        initial_state="learn",
        startprob_init=None,
        transmat_init=None,
        emissionprob_init=None,
        fixed=(),
        startprob_prior=None,
        transmat_prior=None,
        stickiness=0.0,
        algorithm="viterbi",
        continues=False,
        max_iter=200,
        tol=1e-6,
        learning_decay=0.7,
        n_init=5,
        n_jobs=None,
        random_state=None,
        warm_start=False,
        verbose=0,
    ):
        self.n_components = n_components
        self.n_categories = n_categories
        self.alpha = alpha
        self.initial_state = initial_state
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.emissionprob_init = emissionprob_init
        self.fixed = fixed
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.stickiness = stickiness
        self.algorithm = algorithm
        self.continues = continues
        self.max_iter = max_iter
        self.tol = tol
        self.learning_decay = learning_decay
        self.n_init = n_init
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    @classmethod
    def from_parameters(cls, *, startprob, transmat, emissionprob, **params) -> CategoricalHMM:
        """A model with known parameters, ready to score, decode and sample.

        Parameters
        ----------
        startprob : array-like of shape (n_components,)
        transmat : array-like of shape (n_components, n_components)
        emissionprob : array-like of shape (n_components, n_categories), or list of such
            A list of 2-D arrays has one for each column of X.
        **params
            Constructor parameters.

        Returns
        -------
        CategoricalHMM
            Counts as fitted.

        Raises
        ------
        ValueError
            Names the parameter, the rule and the value got.
        """
        estimator = cls._from_chain(startprob, transmat, params)
        tables = _check_tables(emissionprob, "emissionprob", estimator.n_components, None)
        estimator.n_features_in_ = len(tables)
        estimator.n_categories_ = np.array([table.shape[1] for table in tables])
        estimator._set_emission(CategoricalEmission(tables))
        return estimator

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.positive_only = True
        return tags

    def _check_parameters(self):
        super()._check_parameters()
        check_real(self, "alpha", 0.0)

    def _check_X(self, X, groups=None, lengths=None, *, y=None, reset=False) -> Sequences:
        try:
            return super()._check_X(X, groups, lengths, y=y, reset=reset)
        except ValueError as error:
            if not str(error).startswith("could not convert string to float"):
                raise
            raise ValueError(
                f"{error}. X must hold codes, integers from 0 on: sklearn.preprocessing."
                "OrdinalEncoder makes them of strings (a word in each row, one row a step)."
            ) from None

    def _encode(self, sequences: Sequences, reset: bool) -> Sequences:
        X = sequences.X
        largest = np.full(X.shape[1], MISSING, np.int64)
        codes = np.empty(X.shape, np.int16)  # a quarter of X, which may be mapped memory
        fault = to_codes(X, codes, largest)
        if fault < 0 and largest.max(initial=0) > np.iinfo(np.int16).max - 1:
            codes = np.empty(X.shape, np.int32)
            to_codes(X, codes, largest)
        if fault >= 0:
            row, column = divmod(fault, X.shape[1])
            raise ValueError(
                f"{type(self).__name__} needs integer codes: X has {X[row, column]} at "
                f"{sequences.place(row)}, column {column}. sklearn.preprocessing.OrdinalEncoder "
                "makes codes of categories."
            )
        if largest.max(initial=0) >= 1 << 62:  # as far as to_codes counts
            largest = np.nanmax(X, axis=0)
        if reset:
            self.n_categories_ = self._count_categories(largest)
        for column, (code, n_categories) in enumerate(zip(largest, self._fitted_categories())):
            if code >= n_categories:
                rule = "the categories seen in fit"
                if reset:
                    rule = "emissionprob_init" if self.n_categories is None else "n_categories"
                raise ValueError(
                    f"Unknown category {code:.0f} in column {column} of X: {rule} allow codes 0 to "
                    f"{n_categories - 1}. Give n_categories= in the constructor where later data "
                    "may hold more."
                )
        return sequences._replace(X=codes)

    def _fitted_categories(self) -> list[int]:
        counts = as_fitted(self, "n_categories_", (self.n_features_in_,), "positive")
        return counts.astype(np.int64).tolist()

    def _count_categories(self, largest: np.ndarray) -> np.ndarray:
        if self.n_categories is None and self.emissionprob_init is None:
            self._check_codes(largest)
            return np.maximum(largest + 1, 1)
        if self.n_categories is None:
            tables = _check_tables(
                self.emissionprob_init, "emissionprob_init", self.n_components,
                [None] * len(largest),
            )  # fmt: skip
            return np.array([table.shape[1] for table in tables])
        counts = np.asarray(self.n_categories)
        if counts.dtype.kind not in "iu" or np.any(counts < 1) or counts.ndim > 1:
            raise ValueError(
                "n_categories must be a positive integer, or one for each column of X, got "
                f"{self.n_categories!r}."
            )
        if counts.ndim and len(counts) != len(largest):
            raise ValueError(
                f"n_categories must have one number for each of the {len(largest)} columns of X, "
                f"got {self.n_categories!r}."
            )
        return np.broadcast_to(counts.astype(np.intp), largest.shape).copy()

    def _check_codes(self, largest: np.ndarray) -> None:
        """Codes that are names of things, such as hashes, would ask for all the memory."""
        with np.errstate(over="ignore"):
            n_probabilities = self.n_components * np.sum(largest + 1.0)
        if n_probabilities <= MOST_PROBABILITIES:
            return
        column = int(np.argmax(largest))
        raise ValueError(
            f"The largest code in column {column} of X is {largest[column]:g}: a table of the "
            f"probabilities of so many categories in {self.n_components} states has more than "
            f"{MOST_PROBABILITIES:,} entries. sklearn.preprocessing.OrdinalEncoder makes small "
            "codes of the categories there are; n_categories= says that so many are meant."
        )

    def _rows_to_cluster(self, sequences):
        return None  # codes have no distances

    def _emission_shapes(self):
        single = len(self.n_categories_) == 1
        shape = (self.n_components, int(self.n_categories_[0])) if single else None
        return {"emissionprob": shape}

    def _learning(self, sequences, held):
        return {"alpha": self.alpha, "held": held}

    def _init_emission(self, sequences, labels, random_state):
        """The frequencies of the whole data, disturbed differently in each state."""
        n_states = self.n_components
        if self.emissionprob_init is not None:
            tables = _check_tables(
                self.emissionprob_init, "emissionprob_init", n_states, self.n_categories_
            )
            return CategoricalEmission(tables)
        tables = []
        for codes, n_categories in zip(sequences.X.T, self.n_categories_):
            counts = np.bincount(codes[codes != MISSING], minlength=n_categories) + 1.0
            disturbance = (
                random_state.gamma(2.0, size=(n_states, n_categories))
                if labels is None  # with all states known the M-step needs no difference
                else np.ones((n_states, 1))
            )
            weights = counts * disturbance
            tables.append(weights / weights.sum(axis=1, keepdims=True))
        return CategoricalEmission(tuple(tables))

    def _emission(self):
        check_is_fitted(self)
        n_states, counts = self.n_components, self._fitted_categories()
        tables = [self.emissionprob_] if len(counts) == 1 else list(self.emissionprob_)
        if len(tables) != len(counts):
            raise ValueError(
                f"emissionprob_ must hold one table for each of {len(counts)} columns of X, got "
                f"{len(tables)}."
            )
        return CategoricalEmission(
            tuple(
                as_fitted(self, "emissionprob_", (n_states, n), "probabilities", value=table)
                for table, n in zip(tables, counts)
            )
        )

    def _set_emission(self, emission):
        tables = emission.tables
        self.emissionprob_ = tables[0] if len(tables) == 1 else list(tables)


def _check_tables(value, name: str, n_states: int, n_categories) -> tuple[np.ndarray, ...]:
    """One table of probabilities for each column."""
    try:
        is_list = isinstance(value, list | tuple) and len(value) and np.ndim(value[0]) == 2
        tables = list(value) if is_list or np.ndim(value) == 3 else [value]
    except ValueError:
        raise ValueError(
            f"The rows of {name} must have one length, the number of categories, got {value!r}."
        ) from None
    if n_categories is None:
        n_categories = [None] * len(tables)
    if len(tables) != len(n_categories):
        raise ValueError(
            f"{name} must have one table for each of the {len(n_categories)} columns of X, got "
            f"{len(tables)}."
        )
    return tuple(
        check_probabilities(table, name, (n_states, None if count is None else int(count)))
        for table, count in zip(tables, n_categories)
    )
