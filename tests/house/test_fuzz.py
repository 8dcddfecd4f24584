"""The fuzzer repeats its cases, sees what is wrong, and finds nothing in some of them."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
from fuzz import Case, place_of, trouble_of

import sklseq


@pytest.mark.parametrize("number", range(12))
def test_some_cases_find_nothing(number):
    case = Case(0, number)
    case.run()
    assert case.findings == []


def test_a_case_is_the_same_each_time(capsys):
    def told():
        Case(0, 3, verbose=True).run()
        return [line for line in capsys.readouterr().out.splitlines() if " at 0x" not in line]

    assert told() == told() != []


class Broken:
    value_ = 1.0

    def query(self, X):
        self.value_ += 1.0
        return X

    def fit(self, X):
        X[0] = 9.0
        raise KeyError("fit")

    def loud(self, X):
        warnings.warn("overflow encountered", RuntimeWarning, stacklevel=1)
        return X * np.nan


def test_what_is_wrong_is_seen():
    case, broken, X = Case(0, 0), Broken(), np.zeros(2)
    for method in ("query", "fit", "loud"):
        case.watch(broken, method, lambda method=method: getattr(broken, method)(X), {"X": X})
    kinds = [finding["kind"] for finding in case.findings]
    assert kinds == ["estimator changed", "input changed", "raw error", "warning", "bad result"]
    assert "NaN" in trouble_of(np.array([np.nan]), "predict")
    assert trouble_of(np.array([-np.inf]), "score") is None
    assert "-inf" in trouble_of(np.array([-np.inf]), "transform")
    assert "distribution" in trouble_of(np.array([0.5, 0.6]), "predict_proba")
    with pytest.raises(ValueError, match="covariance_type must be one of") as caught:
        sklseq.GaussianHMM(covariance_type="abc").fit(np.eye(3))
    assert place_of(caught.value)[1]


@pytest.mark.parametrize(
    "fit, message",
    [
        (lambda X: sklseq.GaussianHMM(1).fit([X, X.astype("m8[s]")]), "Sequences of X must be of"),
        (lambda X: sklseq.GaussianHMM(1).fit(X, groups=[{}] * 9), "groups must hold names or"),
        (lambda X: sklseq.GaussianHMM(1).fit([X], states=3), "states must be an array or a list"),
        (lambda X: sklseq.GaussianHMM(1).fit(X).sort_states(None), "by must hold each of"),
        (lambda X: sklseq.GaussianHMM(1).fit(X).filter_update(None, [1, [2]]), "x must be an"),
        (lambda X: sklseq.GaussianHMM(1).fit(X).score(X, sample_weight="a"), "sample_weight must"),
        (lambda X: sklseq.KalmanSmoother(transition_covariance_init="a").fit(X), "_init must be"),
        (lambda X: sklseq.KalmanSmoother(transition_matrix_init=[[1e300]]).fit(X), "finite"),
        (lambda X: sklseq.split_sequences(5.0, groups=[1]), "X must be an array or a list"),
        (lambda X: sklseq.split_sequences(X[:0], groups=[]), "X has no rows"),
        (lambda X: sklseq.PoissonHMM(1).fit(np.full((9, 1), 1e306)), "too large to be squared"),
        (lambda X: sklseq.TopicMixture(1).fit(X + 1).sample(n_words=[1, [2]]), "n_words must be"),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_it_found_is_said_in_words(fit, message):
    with pytest.raises(ValueError, match=message):
        fit(np.eye(9, 2))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_sizes_and_fractions_of_any_kind_are_numbers():
    X = np.eye(9, 2)
    assert np.isfinite(sklseq.GaussianHMM(1, tol=Fraction(1, 3), random_state=0).fit(X).score(X))
    network = sklseq.CharRNNClassifier(hidden_size=2, max_iter=1, batch_size=10**30)
    assert set(network.fit(["a", "b"], [0, 1]).predict(["a"])) <= {0, 1}
