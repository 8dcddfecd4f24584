"""What a fit says of data that other models are for, and of data that cannot carry the model."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning

from sklseq import (
    CategoricalHMM,
    GaussianHMM,
    GaussianMixtureHMM,
    KalmanSmoother,
    MultinomialHMM,
    PoissonHMM,
)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_one_column_of_codes_is_not_multinomial(rng, method):
    X = rng.integers(0, 4, size=(40, 1))
    with pytest.raises(ValueError, match=r"n_features=1.*CategoricalHMM"):
        getattr(MultinomialHMM(2), method)(X)
    with pytest.raises(ValueError, match=r"n_features=1.*CategoricalHMM"):
        MultinomialHMM.from_parameters(
            startprob=[0.5, 0.5], transmat=np.full((2, 2), 0.5), emissionprob=[[1.0], [1.0]]
        )


@pytest.mark.parametrize(
    "X",
    [
        [["a"], ["b"]],
        np.array([["a"], ["b"]]),
        np.array([["a"], ["b"]], dtype=object),
        [[["a"], ["b"]], [["b"]]],
        pd.DataFrame({"word": ["a", "b"]}),
        [pd.DataFrame({"word": ["a", "b"]})],
    ],
    ids=["list", "str array", "object array", "collection", "frame", "frames"],
)
def test_strings_are_referred_to_the_encoder(X):
    with pytest.raises(ValueError, match=r"could not convert.*OrdinalEncoder"):
        CategoricalHMM(2).fit(X)


@pytest.mark.parametrize("estimator", [GaussianHMM, KalmanSmoother])
def test_a_list_of_arrays_of_one_length_is_not_read_in_silence(rng, estimator):
    X = rng.normal(size=(5, 30))
    model = estimator(1, max_iter=1)
    with pytest.warns(UserWarning, match=r"5 rows of one sequence.*reshape\(-1, 1\)"):
        model.fit(list(X))
    assert model.n_features_in_ == 30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        for quiet in (X, X.tolist(), [row[:, None] for row in X], [row[:1] for row in X]):
            estimator(1, max_iter=1).fit(quiet)


@pytest.mark.parametrize(
    "labels",
    [
        np.tile([0, 1], 30),
        ["noun", "verb"] * 30,
        pd.Series(["noun", "verb"] * 30, dtype="category"),
        np.tile([True, False], 30),
    ],
    ids=["integers", "strings", "categories", "booleans"],
)
def test_labels_of_steps_as_y_are_referred_to_states(rng, labels):
    X = rng.normal(size=(60, 1))
    for method in ("fit", "partial_fit"):
        with pytest.warns(UserWarning, match=r"one label for each step.*states="):
            getattr(GaussianHMM(2, random_state=0), method)(X, labels)
    parts = [np.asarray(labels)[:20], np.asarray(labels)[20:]]
    with pytest.warns(UserWarning, match="states="):
        GaussianHMM(2, random_state=0).fit([X[:20], X[20:]], parts)


def test_a_y_that_is_no_labels_is_ignored_in_silence(rng):
    X = rng.normal(size=(60, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GaussianHMM(2, random_state=0, tol=1e-3).fit(X, rng.normal(size=60))
        GaussianHMM(2, random_state=0, tol=1e-3).fit([X[:20], X[20:]], [0, 1])
        GaussianHMM(2, random_state=0).fit(X, np.tile([0, 1], 30), states=np.tile([0, 1], 30))


@pytest.mark.parametrize("estimator", [PoissonHMM, MultinomialHMM])
def test_fractions_are_no_counts(rng, estimator):
    X = rng.integers(1, 9, size=(60, 2)).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator(2, random_state=0, max_iter=1000).fit(X)
    X[7, 1] = 0.5
    with pytest.warns(UserWarning, match="whole numbers: X has 0.5 at row 7, column 1"):
        estimator(2, random_state=0).fit(X)


@pytest.mark.parametrize("estimator", [GaussianHMM, GaussianMixtureHMM, PoissonHMM, CategoricalHMM])
def test_more_parameters_than_data_are_said(rng, estimator):
    X = rng.integers(0, 9, size=(20, 1))
    with pytest.warns(ConvergenceWarning, match=r"has \d+ free parameters.* X has 20 values"):
        estimator(6, random_state=0).fit(X)
    with pytest.warns(ConvergenceWarning, match="in 4 states.* in 3 rows"):
        estimator(4, random_state=0).fit(X[:3])


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16])
def test_small_numpy_integers_do_not_overflow(rng, kind):
    X = rng.normal(size=(200, 1))
    counts = rng.multinomial(100, [0.4, 0.6], size=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("error", RuntimeWarning)
        for n_states in (12, 20):
            params = {"n_init": 3, "max_iter": 20, "random_state": 0}
            plain = GaussianHMM(n_states, **params).fit(X)
            small = {name: kind(value) for name, value in params.items()}
            hmm = GaussianHMM(kind(n_states), **small).fit(X)
            np.testing.assert_array_equal(hmm.transmat_, plain.transmat_)
        multinomial = MultinomialHMM(kind(2), n_trials=kind(100), random_state=0).fit(counts)
        assert (multinomial.sample(5, random_state=0)[0].sum(axis=1) == 100).all()
        codes = rng.integers(0, 9, size=(50, 2))
        hmm = CategoricalHMM(kind(2), n_categories=np.array([100, 9], kind), max_iter=2).fit(codes)
        assert [len(table[0]) for table in hmm.emissionprob_] == [100, 9]


def test_float32_probabilities_are_let_in():
    rng = np.random.default_rng(0)
    for n_states in (3, 24, 200):
        rows = rng.dirichlet(np.ones(n_states), size=n_states).astype(np.float32)
        rows /= rows.sum(axis=1, keepdims=True)
        hmm = PoissonHMM.from_parameters(
            startprob=rows[0], transmat=rows.tolist(), rates=np.ones((n_states, 1))
        )
        np.testing.assert_allclose(hmm.transmat_.sum(axis=1), 1.0, rtol=1e-14)
    with pytest.raises(ValueError, match="must sum to 1"):
        PoissonHMM.from_parameters(startprob=[0.5, 0.50001], transmat=np.eye(2), rates=[[1], [2]])


@pytest.mark.parametrize("form", ["flat", "collection"])
def test_fit_predict_is_of_the_training_data_also_where_new_data_go_on(rng, form):
    """Data to come go on from the end of training; the training data begin where they began."""
    X = rng.normal(size=(60, 1)) + 5.0 * (np.arange(60) // 30)[:, None]
    X = X if form == "flat" else [X[:20], X[20:]]
    params = {"transmat_init": [[0.9, 0.1], [0.0, 1.0]], "startprob_init": [1, 0]}
    for method in ("fit_predict", "fit_transform"):
        plain = getattr(GaussianHMM(2, random_state=0, **params), method)(X)
        result = getattr(GaussianHMM(2, random_state=0, continues=True, **params), method)(X)
        for got, wanted in zip(result, plain):
            np.testing.assert_array_equal(got, wanted)
