"""A Series of sequences (what groupby gives) and a dict of them are collections."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import dok_array
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.preprocessing import MaxAbsScaler

from sklseq import (
    GaussianHMM,
    KalmanSmoother,
    SequenceClassifier,
    Stepwise,
    concat_sequences,
)

pd = pytest.importorskip("pandas")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
QUICK = {"max_iter": 3, "random_state": 0}
RNG = np.random.default_rng(0)
X = [RNG.normal(size=(n, 2)) for n in (5, 3, 1, 7)]
NAMES = list("dbca")


def table():
    rows = np.vstack(X)
    names = np.repeat(NAMES, [len(x) for x in X])
    return pd.DataFrame({"patient": names, "x": rows[:, 0], "y": rows[:, 1]})


def series():
    return table().groupby("patient", sort=False)[["x", "y"]].apply(lambda rows: rows.to_numpy())


NAMED = [series, lambda: dict(zip(NAMES, X))]


@pytest.mark.parametrize("named", NAMED, ids=["Series", "dict"])
@pytest.mark.parametrize("make", [GaussianHMM, KalmanSmoother])
def test_names_change_no_number(make, named):
    data = named()
    model, expected = make(1, **QUICK).fit(data), make(1, **QUICK).fit(X)
    assert model.score(data) == expected.score(X)
    for method in ("predict", "transform", "score_samples"):
        one, two = getattr(model, method)(data), getattr(expected, method)(X)
        assert one.dtype == two.dtype == object
        for part, other in zip(one, two, strict=True):
            np.testing.assert_array_equal(part, other)
    np.testing.assert_array_equal(concat_sequences(data)[0], np.vstack(X))
    labels = ["a", "b", "a", "b"]
    classifier = SequenceClassifier(GaussianHMM(1, **QUICK)).fit(data, labels)
    assert classifier.predict(data).tolist() == classifier.predict(X).tolist()


def test_a_series_is_cross_validated():
    data = series()
    model = GaussianHMM(1, **QUICK)
    np.testing.assert_array_equal(
        cross_val_score(model, data, cv=2), cross_val_score(model, X, cv=2)
    )
    for one, two in zip(cross_val_predict(model, data, cv=2), cross_val_predict(model, X, cv=2)):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("named", [lambda values: dict(zip(NAMES, values)),
                                   lambda values: pd.Series(values, index=NAMES)])  # fmt: skip
def test_what_comes_beside_is_matched_by_name(named):
    data = dict(zip(NAMES, X))
    U = [np.full((len(x), 1), float(len(x))) for x in X]
    states = [np.full(len(x), len(x) % 2) for x in X]
    back = sorted(range(4), key=NAMES.__getitem__)  # the same names in another order
    shuffled = {"inputs": named(U), "states": named(states)}
    for name, value in shuffled.items():
        items = [list(value.values() if isinstance(value, dict) else value)[i] for i in back]
        keys = [NAMES[i] for i in back]
        shuffled[name] = dict(zip(keys, items))
        if not isinstance(value, dict):
            shuffled[name] = pd.Series(items, index=keys)
    smoother = KalmanSmoother(1, **QUICK).fit(X, inputs=U)
    assert smoother.score(data, inputs=shuffled["inputs"]) == smoother.score(X, inputs=U)
    latent = smoother.transform(X, inputs=U)
    back_again = smoother.inverse_transform(dict(zip(NAMES, latent)), inputs=shuffled["inputs"])
    for one, two in zip(back_again, smoother.inverse_transform(latent, inputs=U), strict=True):
        np.testing.assert_array_equal(one, two)
    hmm = GaussianHMM(2, **QUICK).fit(data, states=shuffled["states"])
    assert hmm.score(X) == GaussianHMM(2, **QUICK).fit(X, states=states).score(X)
    with pytest.raises(ValueError, match="inputs must have the same names of sequences as X"):
        smoother.score(data, inputs=dict(zip("dbcz", U)))


def test_a_dict_of_columns_is_no_collection():
    with pytest.raises(ValueError, match=r"A dict must hold sequences by name.*1-D"):
        GaussianHMM(1).fit({"x": [1.0, 2.0], "y": [3.0, 4.0]})
    with pytest.raises(ValueError, match="empty collection"):
        GaussianHMM(1).fit({})


def test_a_sparse_matrix_that_is_a_dict_is_none():
    X = dok_array(np.eye(3) + 1)
    with pytest.raises(TypeError, match=r"(?i)sparse"):
        GaussianHMM(1).fit(X)
    assert Stepwise(MaxAbsScaler()).fit_transform(X).shape == (3, 3)
