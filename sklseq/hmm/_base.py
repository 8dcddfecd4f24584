"""BaseHMM: the scikit-learn face of every hidden Markov model."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections import namedtuple
from dataclasses import replace
from functools import lru_cache

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklseq._base import BaseSequenceModel
from sklseq._em import EMResult, run_em
from sklseq._sequences import Sequences, limit_threads, map_rows, refuse_frame_output
from sklseq._validation import (
    check_choice,
    check_em_parameters,
    check_fixed,
    check_positive,
    check_probabilities,
)
from sklseq.hmm._chain import (
    HMM,
    Emission,
    Messages,
    starved_states,
    stationary_distribution,
)
from sklseq.hmm._start import label_rows, random_transmat, transmat_of_labels


class BaseHMM(BaseSequenceModel):
    """Everything but the emission: a family adds `_init_emission`, `_emission` and `_set_emission`.

    Parameters are described in the families, since scikit-learn wants them in their ``__init__``.
    """

    __metadata_request__predict_proba = {"groups": True}

    # ---- what a family says

    @abstractmethod
    def _emission_shapes(self) -> dict[str, tuple | None]:
        """Names of the emission's parameters that may be given and fixed, with their shapes.

        None for a shape: the parameter can only be fixed as a whole.
        """

    @abstractmethod
    def _init_emission(self, sequences, labels, random_state) -> Emission:
        """Starting value from rough state labels (n_steps,); given ``*_init`` take precedence."""

    @abstractmethod
    def _learning(self, sequences, held) -> dict:
        """Fields of the emission that only its M-step needs."""

    @abstractmethod
    def _emission(self) -> Emission:
        """The fitted emission, rebuilt from the public attributes."""

    @abstractmethod
    def _set_emission(self, emission: Emission) -> None:
        """Store the fitted emission as public attributes."""

    def _rows_to_cluster(self, sequences: Sequences) -> np.ndarray | None:
        """Rows on a scale where k-means makes sense, or None where there is none."""
        return sequences.X

    # ---- value <-> fitted attributes

    def _set_fitted(self, model: HMM) -> None:
        self.startprob_ = model.startprob
        self.transmat_ = model.transmat
        self._set_emission(model.emission)

    def _model(self) -> HMM:
        return HMM(
            self.startprob_, self.transmat_, self._emission(), self.initial_state == "stationary"
        )

    def _model_for(self, sequences: Sequences) -> HMM:
        """The model, started where training ended if ``continues`` says so."""
        model = self._model()
        if not self.continues:
            return model
        if getattr(self, "final_stateprob_", None) is None:
            raise ValueError(
                "continues=True needs a model fitted on one sequence, whose end it goes on from; "
                "this one was not."
            )
        if sequences.form != "flat" or sequences.n_sequences > 1:
            return model
        return replace(model, startprob=self.final_stateprob_ @ self.transmat_)

    # ---- learning

    def fit(self, X, y=None, *, groups=None, lengths=None):
        """Fit by the EM algorithm (Baum-Welch).

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
            NaN is a missing observation.
        y : ignored
            For the scikit-learn interface; its length is checked.
        groups : array-like of shape (n_steps,), default=None
            A new sequence starts where it changes.
        lengths : array-like of int, default=None
            The number of steps of each sequence.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For invalid parameters or input, and for a sequence that has probability zero under the
            starting values.

        Warns
        -----
        ConvergenceWarning
            ``max_iter`` was reached, or a state has no data.

        References
        ----------
        L. R. Rabiner (1989), "A tutorial on hidden Markov models and selected applications in
        speech recognition", Proc. IEEE 77(2), sec. III.
        """
        self._check_parameters()
        warm = self.warm_start and hasattr(self, "startprob_")  # goes on: the same columns, codes
        with self._unchanged_on_error():
            sequences = self._check_X(X, groups, lengths, y=y, reset=not warm)
            result = run_em(
                self._starts(sequences),
                sequences,
                max_iter=self.max_iter,
                tol=self.tol,
                n_jobs=self.n_jobs,
                verbose=self.verbose,
                name=type(self).__name__,
            )
            self._set_result(result, sequences)
        return self

    def _set_result(self, result: EMResult, sequences: Sequences) -> None:
        self._set_fitted(result.model)
        self.n_iter_ = result.n_iter
        self.converged_ = result.converged
        self.objectives_ = np.array(result.objectives)
        self.log_likelihoods_ = np.array(result.log_likelihoods)
        self.log_likelihood_ = result.log_likelihoods[-1]
        self.final_stateprob_ = None
        if sequences.n_sequences == 1:
            self.final_stateprob_ = result.statistics.ends  # smoothed is filtered at the end
        starved = starved_states(result.statistics)
        if len(starved):
            warnings.warn(
                f"No step belongs to state {', '.join(map(str, starved))} of {type(self).__name__}"
                ": it keeps the parameters it had. Fewer states or other starting values would use "
                "the data better.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _check_parameters(self) -> None:
        check_em_parameters(self)
        check_choice(self, "initial_state", ("learn", "stationary"))
        check_choice(self, "algorithm", ("viterbi", "map"))
        if self.initial_state == "stationary" and self.startprob_init is not None:
            raise ValueError(
                "initial_state='stationary' takes the start distribution from transmat, so "
                f"startprob_init must be None, got {self.startprob_init!r}."
            )

    def _shapes(self) -> dict[str, tuple | None]:
        n_states = self.n_components
        chain = {"startprob": (n_states,), "transmat": (n_states, n_states)}
        return chain | self._emission_shapes()

    def _starts(self, sequences: Sequences) -> list[HMM]:
        """Starting values: k-means first, then random rows; one where nothing is left to chance."""
        held = check_fixed(self, self._shapes())
        learning = self._learning(sequences, held)
        if self.warm_start and hasattr(self, "startprob_"):
            starts = [self._warm_model()]
        else:
            random_state = check_random_state(self.random_state)
            n_init = 1 if self._all_given() else self.n_init
            seeds = random_state.randint(np.iinfo(np.int32).max, size=n_init)
            with limit_threads():
                starts = [
                    self._start(sequences, seed, kmeans=i == 0) for i, seed in enumerate(seeds)
                ]
        return [
            replace(start, held=held, emission=replace(start.emission, **learning))
            for start in starts
        ]

    def _all_given(self) -> bool:
        """Whether nothing of the starting values is left to chance."""
        names = set(self._shapes())
        if self.initial_state == "stationary":
            names.remove("startprob")
        return all(getattr(self, f"{name}_init") is not None for name in names)

    def _warm_model(self) -> HMM:
        for name, shape in self._shapes().items():
            fitted = np.shape(getattr(self, f"{name}_")) if shape is not None else None
            if fitted != shape:
                raise ValueError(
                    f"warm_start goes on from {name}_ of shape {fitted}, but the parameters now "
                    f"ask for {shape}."
                )
        return self._model()

    def _start(self, sequences: Sequences, seed: int, *, kmeans: bool) -> HMM:
        random_state = np.random.RandomState(seed)
        n_states = self.n_components
        stationary = self.initial_state == "stationary"
        rows = None if self._all_given() else self._rows_to_cluster(sequences)
        labels = None if rows is None else label_rows(rows, n_states, random_state, kmeans=kmeans)
        if self.transmat_init is not None:
            transmat = check_probabilities(
                self.transmat_init, "transmat_init", (n_states, n_states)
            )
        elif labels is not None:
            transmat = transmat_of_labels(labels, sequences.offsets, n_states)
        else:
            transmat = random_transmat(n_states, random_state)
        if stationary:
            startprob = stationary_distribution(transmat)
        elif self.startprob_init is not None:
            startprob = check_probabilities(self.startprob_init, "startprob_init", (n_states,))
        else:
            startprob = np.full(n_states, 1.0 / n_states)
        emission = self._init_emission(sequences, labels, random_state)
        return HMM(startprob, transmat, emission, stationary)

    @classmethod
    def _from_chain(cls, startprob, transmat, params: dict):
        """An estimator with a validated chain; the family adds its emission."""
        n_states = np.size(startprob)
        estimator = cls(n_components=n_states, **params)
        estimator._check_parameters()
        estimator.startprob_ = check_probabilities(startprob, "startprob", (n_states,))
        estimator.transmat_ = check_probabilities(transmat, "transmat", (n_states, n_states))
        estimator.final_stateprob_ = None
        return estimator

    # ---- inference

    def predict(self, X, *, groups=None, lengths=None):
        """Most probable state of each step.

        ``algorithm="viterbi"``: the most probable path as a whole; ``"map"``: the most probable
        state of each step by itself.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups : array-like of shape (n_steps,), default=None
            A new sequence starts where it changes.
        lengths : array-like of int, default=None
            The number of steps of each sequence.

        Returns
        -------
        ndarray of int of shape (n_steps,), stacked or object array as X was

        Raises
        ------
        ValueError
            Names the sequence and the step where no path is possible.
        """
        return self.decode(X, groups=groups, lengths=lengths)[1]

    def decode(self, X, *, groups=None, lengths=None):
        """Most probable path and its joint log-probability with X.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        log_probability : float
            log p(path, X) in nats, added over sequences.  For ``algorithm="map"`` that of the path
            of the most probable states, which may be -inf.
        states : ndarray of int of shape (n_steps,), stacked or object array as X was

        References
        ----------
        Rabiner (1989), eqs. 30-35.
        """
        sequences = self._check_X(X, groups, lengths)
        model = self._model_for(sequences)
        if self.algorithm == "map":
            states = self._posteriors(model, sequences).argmax(axis=1)
            total = model.path_log_probability(*sequences[:2], states)
        else:
            states, totals = self._run(model.viterbi, sequences)
            total = float(totals.sum())
            if np.isneginf(total):
                raise ValueError(f"No path: {model.why_impossible(sequences)}")
        return total, sequences.like_input(states)

    def predict_proba(self, X, *, groups=None, lengths=None):
        """Smoothed state probabilities P(s_t = k | x_1..x_n).

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of shape (n_steps, n_components), stacked or object array as X was

        Raises
        ------
        ValueError
            Names the sequence and the step where the model gives probability zero.

        References
        ----------
        Rabiner (1989), eq. 27.
        """
        sequences = self._check_X(X, groups, lengths)
        posteriors = self._posteriors(self._model_for(sequences), sequences)
        return sequences.like_input(posteriors)

    def transform(self, X, *, groups=None, lengths=None):
        """Smoothed state probabilities, so that an HMM is a feature step of a Pipeline.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of shape (n_steps, n_components), stacked or object array as X was
            The same as ``predict_proba``.
        """
        sequences = self._check_X(X, groups, lengths)
        if sequences.form != "flat":
            refuse_frame_output(self)
        posteriors = self._posteriors(self._model_for(sequences), sequences)
        return sequences.like_input(posteriors)

    def filter(self, X, *, groups=None, lengths=None):
        """Filtered state probabilities P(s_t = k | x_1..x_t), which do not look ahead.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of shape (n_steps, n_components), stacked or object array as X was

        Raises
        ------
        ValueError
            Names the sequence and the step where the model gives probability zero.
        """
        sequences = self._check_X(X, groups, lengths)
        model = self._model_for(sequences)
        filtered, log_increments = self._run(model.filter, sequences)
        if np.isneginf(log_increments).any():
            raise ValueError(f"No filter: {model.why_impossible(sequences)}")
        return sequences.like_input(filtered)

    def forward_backward(self, X, *, groups=None, lengths=None) -> Messages:
        """The messages of the forward-backward algorithm.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        Messages
            Named tuple (filtered, log_backward, posteriors, transition_counts, log_likelihood);
            the first three aligned with the steps in the form of X.

        Raises
        ------
        ValueError
            Names the sequence and the step where the model gives probability zero.

        References
        ----------
        Rabiner (1989), sec. III; log_backward is the log of his beta (eq. 25).
        """
        sequences = self._check_X(X, groups, lengths)
        model = self._model_for(sequences)
        with limit_threads(sequences.n_steps):
            messages = model.messages(*sequences[:2])
        if np.isneginf(messages.log_likelihood).any():
            raise ValueError(f"No messages: {model.why_impossible(sequences)}")
        return Messages(
            *(sequences.like_input(values) for values in messages[:3]), *messages[3:]
        )

    def forecast(self, X, n_steps: int = 1, *, groups=None, lengths=None):
        """What comes after the end of each sequence.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        n_steps : int, default=1
            How many steps ahead.
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        Forecast
            Named tuple of arrays ``(n_steps, ...)``, or ``(n_sequences, n_steps, ...)`` for several
            sequences: what the family says of future observations, then `state_probabilities`.

        Raises
        ------
        ValueError
            Names the sequence and the step where the model gives probability zero.
        """
        n_steps = check_positive(n_steps, "n_steps")
        sequences = self._check_X(X, groups, lengths)
        model = self._model_for(sequences)
        totals, final = self._run(model.log_likelihoods, sequences)
        if np.isneginf(totals).any():
            raise ValueError(f"No forecast: {model.why_impossible(sequences)}")
        ahead = model.ahead(final, n_steps)
        observed = model.emission.expect(ahead.reshape(-1, model.n_components))
        fields = {name: values.reshape(ahead.shape[:2] + values.shape[1:])
                  for name, values in observed.items()}  # fmt: skip
        fields["state_probabilities"] = ahead
        single = sequences.form == "flat" and sequences.n_sequences == 1
        return _forecast_type(tuple(fields))(
            *(values[0] if single else values for values in fields.values())
        )

    def sample(self, n_samples: int = 1, *, n_sequences: int | None = None, random_state=None):
        """Draw from the model.

        Parameters
        ----------
        n_samples : int, default=1
            The number of steps of a sequence.
        n_sequences : int, default=None
            How many sequences; None draws one, not in a list.
        random_state : int, RandomState instance or None, default=None
            None takes the estimator's.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), or list of such
        states : ndarray of int of shape (n_samples,), or list of such
        """
        check_is_fitted(self)
        n_samples = check_positive(n_samples, "n_samples")
        model = self._model()
        random_state = check_random_state(
            self.random_state if random_state is None else random_state
        )
        if n_sequences is None:
            return model.sample(n_samples, random_state)
        n_sequences = check_positive(n_sequences, "n_sequences")
        draws = [model.sample(n_samples, random_state) for _ in range(n_sequences)]
        return [X for X, _ in draws], [states for _, states in draws]

    def sample_posterior(
        self, X, n_draws: int = 1, random_state=None, *, groups=None, lengths=None
    ):
        """Draw hidden paths given X, by forward filtering and backward sampling.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        n_draws : int, default=1
        random_state : int, RandomState instance or None, default=None
            None takes the estimator's.
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of int of shape (n_draws, n_steps)
            For a collection, stacked (n_sequences, n_draws, n_steps) or an object array of
            ``(n_draws, n_steps_i)`` as X was.

        Raises
        ------
        ValueError
            Names the sequence and the step where the model gives probability zero.

        References
        ----------
        S. Fruehwirth-Schnatter (2006), Finite Mixture and Markov Switching Models, algorithm 11.5.
        """
        n_draws = check_positive(n_draws, "n_draws")
        sequences = self._check_X(X, groups, lengths)
        model = self._model_for(sequences)
        random_state = check_random_state(
            self.random_state if random_state is None else random_state
        )
        if np.isneginf(self._sequence_scores(sequences)).any():
            raise ValueError(f"No path: {model.why_impossible(sequences)}")
        uniforms = random_state.uniform(size=(n_draws, sequences.n_steps))
        states = model.sample_posterior(*sequences[:2], uniforms)
        return sequences.like_input(states, axis=1)

    # ---- shared by the methods

    def _run(self, method, sequences: Sequences) -> list[np.ndarray]:
        with limit_threads(sequences.n_steps):
            return map_rows(method, sequences, self.n_jobs)

    def _posteriors(self, model: HMM, sequences: Sequences) -> np.ndarray:
        posteriors, _, totals = self._run(model.posteriors, sequences)
        if np.isneginf(totals).any():
            raise ValueError(f"No state probabilities: {model.why_impossible(sequences)}")
        return posteriors

    def _step_scores(self, sequences: Sequences) -> np.ndarray:
        return self._run(self._model_for(sequences).filter, sequences)[1]

    def _sequence_scores(self, sequences: Sequences) -> np.ndarray:
        return self._run(self._model_for(sequences).log_likelihoods, sequences)[0]

    def _n_free_parameters(self) -> int:
        model = self._model()
        held = check_fixed(self, self._shapes())
        emission = replace(model.emission, held=held)
        return replace(model, emission=emission, held=held).n_free_parameters()


@lru_cache
def _forecast_type(fields: tuple[str, ...]):
    return namedtuple("Forecast", fields)
