"""CategoricalHMM: codes, several columns, n_categories, zeros, pseudo-counts, DNA."""

import warnings

import numpy as np
import pandas as pd
import pytest
from references import categorical_log_obs, log_smooth, random_chain
from sklearn.exceptions import ConvergenceWarning

from sklseq import CategoricalHMM, SequenceClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def test_shapes_of_one_and_of_several_columns(rng):
    X = np.column_stack([rng.integers(0, 3, 80), rng.integers(0, 5, 80)])
    one = CategoricalHMM(2, random_state=0).fit(X[:, :1])
    assert one.emissionprob_.shape == (2, 3)
    two = CategoricalHMM(2, random_state=0).fit(X)
    assert isinstance(two.emissionprob_, list)
    assert [table.shape for table in two.emissionprob_] == [(2, 3), (2, 5)]
    for table in two.emissionprob_:
        np.testing.assert_allclose(table.sum(axis=1), 1.0, rtol=1e-12)


def test_columns_are_independent_given_the_state(rng):
    tables = [rng.dirichlet(np.ones(3), 2), rng.dirichlet(np.ones(4), 2)]
    chain = random_chain(rng, 2)
    model = CategoricalHMM.from_parameters(**chain, emissionprob=tables)
    X = np.column_stack([rng.integers(0, 3, 50), rng.integers(0, 4, 50)]).astype(float)
    X[4, 1] = np.nan
    expected = log_smooth(**chain, log_obs=categorical_log_obs(X, tables))
    assert model.score_samples(X).sum() == pytest.approx(expected.log_likelihood, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint8, np.float64, np.float32, bool])
def test_codes_of_any_type(rng, dtype):
    X = rng.integers(0, 2, (60, 1))
    model = CategoricalHMM(2, random_state=0).fit(X)
    np.testing.assert_array_equal(model.score_samples(X.astype(dtype)), model.score_samples(X))


def test_n_categories_makes_room(rng):
    X = rng.integers(0, 3, (60, 2))
    wide = CategoricalHMM(2, n_categories=6, alpha=1.0, random_state=0).fit(X)
    assert [table.shape for table in wide.emissionprob_] == [(2, 6), (2, 6)]
    assert all((table > 0).all() for table in wide.emissionprob_)
    each = CategoricalHMM(2, n_categories=[3, 4], random_state=0).fit(X)
    assert [table.shape for table in each.emissionprob_] == [(2, 3), (2, 4)]
    with pytest.raises(ValueError, match="n_categories"):
        CategoricalHMM(2, n_categories=2).fit(X)
    with pytest.raises((ValueError, TypeError), match="n_categories"):
        CategoricalHMM(2, n_categories=0).fit(X)
    with pytest.raises(ValueError, match="n_categories"):
        CategoricalHMM(2, n_categories=[3, 3, 3]).fit(X)


def test_a_start_with_more_categories_than_the_data_makes_room_too(rng):
    X = rng.integers(0, 2, (40, 1))  # code 2 never comes
    table = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    model = CategoricalHMM(2, emissionprob_init=table, random_state=0).fit(X)
    assert model.emissionprob_.shape == (2, 3)
    with pytest.raises(ValueError, match="emissionprob_init"):
        CategoricalHMM(2, emissionprob_init=table).fit(X + 2)
    with pytest.raises(ValueError, match="emissionprob_init"):
        CategoricalHMM(2, emissionprob_init=table, n_categories=2).fit(X)


def test_warm_start_on_data_with_other_codes(rng):
    X = rng.integers(0, 3, (60, 1))
    model = CategoricalHMM(2, random_state=0, warm_start=True, max_iter=3).fit(X)
    model.fit(np.minimum(X, 1))  # code 2 does not come this time
    assert model.emissionprob_.shape == (2, 3)
    model.predict(np.minimum(X, 1))
    before = model.emissionprob_.copy()
    with pytest.raises(ValueError, match="categor"):
        model.fit(X + 1)
    np.testing.assert_array_equal(model.emissionprob_, before)


def test_no_pseudo_count_is_maximum_likelihood(rng):
    X = rng.integers(0, 3, (90, 1))
    model = CategoricalHMM(1).fit(X)
    np.testing.assert_allclose(model.emissionprob_[0], np.bincount(X[:, 0]) / 90, rtol=1e-12)
    smoothed = CategoricalHMM(1, alpha=2.0).fit(X)
    np.testing.assert_allclose(
        smoothed.emissionprob_[0], (np.bincount(X[:, 0]) + 2) / 96, rtol=1e-12
    )
    with pytest.raises(ValueError, match="alpha"):
        CategoricalHMM(1, alpha=-0.1).fit(X)


def test_aic_counts(rng):
    X = np.column_stack([rng.integers(0, 3, 80), rng.integers(0, 5, 80)])
    model = CategoricalHMM(2, random_state=0, max_iter=5).fit(X)
    free = 1 + 2 + 2 * (2 + 4)
    assert model.aic(X) + 2 * model.score_samples(X).sum() == pytest.approx(2 * free)


def test_recovers_the_casino():
    casino = CategoricalHMM.from_parameters(
        startprob=[1.0, 0.0],
        transmat=[[0.95, 0.05], [0.1, 0.9]],
        emissionprob=[[1 / 6] * 6, [0.1] * 5 + [0.5]],
    )
    rolls, _ = casino.sample(300, n_sequences=60, random_state=1)
    model = CategoricalHMM(2, random_state=0).fit(rolls)
    order = np.argsort(model.emissionprob_[:, 5])
    assert model.score(rolls) >= casino.score(rolls)
    np.testing.assert_allclose(model.emissionprob_[order], casino.emissionprob_, atol=0.05)
    np.testing.assert_allclose(model.transmat_[np.ix_(order, order)], casino.transmat_, atol=0.02)


def test_sample_gives_codes_that_fit_takes(rng):
    model = CategoricalHMM.from_parameters(
        **random_chain(rng, 2), emissionprob=[rng.dirichlet(np.ones(3), 2) for _ in range(2)]
    )
    X, _ = model.sample(30, random_state=0)
    assert np.issubdtype(X.dtype, np.integer)
    assert X.shape == (30, 2)
    CategoricalHMM(2, random_state=0).fit(X)


def test_promoters(shared_data):
    """E. coli promoters: 53 sequences of 57 bases that hold a promoter, 53 that do not."""
    table = pd.read_csv(shared_data / "promoters" / "promoters.data", header=None, index_col=0)
    codes = table.iloc[:, :57].apply(lambda column: column.map("acgt".index)).to_numpy()
    promoters = list(codes[table.iloc[:, 57] == "+"][:, :, None])
    assert len(promoters) == 53
    assert promoters[0].shape == (57, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        one = CategoricalHMM(1).fit(promoters)
        three = CategoricalHMM(3, random_state=0, max_iter=100).fit(promoters)
    counts = np.bincount(np.concatenate(promoters)[:, 0])
    np.testing.assert_allclose(one.emissionprob_[0], counts / counts.sum(), rtol=1e-12)
    assert three.score(promoters) > one.score(promoters)


@pytest.mark.parametrize("code", [10**9, 1e20])
def test_absurd_codes_are_refused(code):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"code in column 1 of X is 1e\+\d\d: .*Ord"):
            CategoricalHMM().fit([[0, 0], [1, code]])
        with pytest.raises(ValueError, match=r"code in column 0 of X is 1e\+\d\d: .*Ord"):
            SequenceClassifier(CategoricalHMM()).fit([[[0]], [[code]]], [0, 1])
        model = CategoricalHMM(n_categories=3, random_state=0)
        with pytest.raises(ValueError, match=r"Unknown category 10{9,} in column 0"):
            model.fit([[0], [code]])
        model.fit([[0], [1], [2]] * 5)
        with pytest.raises(ValueError, match=r"Unknown category 10{9,} in column 0"):
            model.predict([[code]])


@pytest.mark.parametrize("code", [-1.0, -3.0, -40_000.0, -99_999.0, -1e300])
def test_a_negative_code_beside_a_missing_one_is_refused(code):
    """Behind a NaN scikit-learn does not see it; as an index it would lie outside the tables."""
    model = CategoricalHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=np.eye(2), emissionprob=[[0.9, 0.1], [0.2, 0.8]]
    )
    for X in ([[0.0], [np.nan], [code]], [[[0.0], [np.nan]], [[code]]]):
        for call in (model.score, model.predict, CategoricalHMM(2).fit):
            with pytest.raises(ValueError, match=r"Negative values.*The first"):
                call(X)
