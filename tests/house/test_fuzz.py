"""The fuzzer repeats its cases, sees what is wrong, and finds nothing in some of them."""

import warnings

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
