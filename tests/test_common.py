"""scikit-learn's battery, as it stands: no expected failures for what is here.

The battery says nothing about time: its invariance checks set ``n_components=1``, where an HMM is
a sample of independent rows.  What it leaves out is in the other files.
"""

import inspect
import warnings

import pytest
import sklearn.utils.estimator_checks as theirs
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sklseq
from sklseq import (
    CategoricalHMM,
    GaussianHMM,
    GaussianMixtureHMM,
    MultinomialHMM,
    PoissonHMM,
    SequenceClassifier,
    Stepwise,
)
from sklseq.utils import check_estimator, expected_failed_checks

BARE = [
    GaussianHMM(),
    GaussianHMM(n_components=3),
    *(GaussianHMM(covariance_type=kind) for kind in ("full", "tied", "spherical")),
    CategoricalHMM(),
    CategoricalHMM(n_components=3),
    PoissonHMM(),
    PoissonHMM(n_components=3),
    GaussianMixtureHMM(),
    GaussianMixtureHMM(n_components=3, covariance_type="full"),
    MultinomialHMM(),
    MultinomialHMM(n_components=3),
    SequenceClassifier(GaussianHMM()),
    SequenceClassifier(PoissonHMM()),
    SequenceClassifier(make_pipeline(Stepwise(StandardScaler()), GaussianHMM())),
    Stepwise(StandardScaler()),
    Stepwise(PCA(n_components=1)),
]


@pytest.mark.parametrize("estimator", BARE, ids=repr)
def test_check_estimator_bare(estimator):
    """scikit-learn's own function, nothing declared."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", theirs.SkipTestWarning)
        results = theirs.check_estimator(estimator)
    status = [result["status"] for result in results]
    assert set(status) <= {"passed", "skipped"}
    assert status.count("passed") >= 40
    skipped = [result["check_name"] for result in results if result["status"] == "skipped"]
    assert set(skipped) <= {"check_array_api_input"}  # runs where SCIPY_ARRAY_API=1


@pytest.mark.parametrize("estimator", BARE, ids=repr)
def test_nothing_is_declared(estimator):
    assert expected_failed_checks(estimator) == {}


def test_our_check_estimator_runs_the_same_battery():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", theirs.SkipTestWarning)
        ours = check_estimator(GaussianHMM())
        bare = theirs.check_estimator(GaussianHMM())
    assert [r["check_name"] for r in ours] == [r["check_name"] for r in bare]


class Broken(GaussianHMM):
    """Its scores depend on how many rows come together."""

    def score_samples(self, X, *, groups=None, lengths=None):
        return super().score_samples(X, groups=groups, lengths=lengths) + len(X)


def test_a_false_estimator_fails_our_check_estimator():
    with pytest.raises(AssertionError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(Broken())


HMMS = [GaussianHMM, CategoricalHMM, PoissonHMM, GaussianMixtureHMM, MultinomialHMM]


GAUSSIAN = (GaussianHMM, GaussianMixtureHMM)


@pytest.mark.parametrize("estimator", HMMS)
def test_tags(estimator):
    tags = estimator().__sklearn_tags__()
    assert tags.input_tags.allow_nan == (estimator is not MultinomialHMM)
    assert not tags.non_deterministic
    assert tags.input_tags.two_d_array
    assert not tags.input_tags.sparse
    assert tags.input_tags.categorical == (estimator is CategoricalHMM)
    assert tags.input_tags.positive_only == (not issubclass(estimator, GAUSSIAN))


@pytest.mark.parametrize("estimator", HMMS)
def test_signatures(estimator):
    """DESIGN, section 2: positional X and y, everything else by keyword."""
    signature = {
        name: str(inspect.signature(getattr(estimator, name)))
        for name in ("fit", "score", "predict", "predict_proba", "transform", "score_samples")
    }
    for name in ("fit", "fit_predict", "fit_transform"):
        parameters = inspect.signature(getattr(estimator, name)).parameters
        rest = "states" if name == "fit" else "fit_params"
        assert list(parameters) == ["self", "X", "y", "groups", "lengths", rest]
        assert parameters["groups"].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters["lengths"].kind is inspect.Parameter.KEYWORD_ONLY
    for name in ("predict", "predict_proba", "transform", "score_samples", "score_sequences",
                 "filter", "forward_backward"):  # fmt: skip
        parameters = inspect.signature(getattr(estimator, name)).parameters
        assert list(parameters) == ["self", "X", "groups", "lengths"], signature
        assert parameters["groups"].kind is inspect.Parameter.KEYWORD_ONLY
    parameters = inspect.signature(estimator.score).parameters
    assert list(parameters) == ["self", "X", "y", "sample_weight", "groups", "lengths"]
    assert "sample_weight" not in inspect.signature(estimator.fit).parameters
    parameters = inspect.signature(estimator.sample).parameters
    assert list(parameters) == [
        "self", "n_samples", "n_sequences", "random_state", "after", "start_state"
    ]  # fmt: skip
    assert parameters["after"].kind is inspect.Parameter.KEYWORD_ONLY
    parameters = inspect.signature(estimator.sample_posterior).parameters
    assert list(parameters)[:4] == ["self", "X", "n_draws", "random_state"]


DEFAULTS = {
    "n_components": 2,
    "max_iter": 200,
    "tol": 1e-6,
    "n_init": 5,
    "n_jobs": None,
    "random_state": None,
    "warm_start": False,
    "initial_state": "learn",
    "algorithm": "viterbi",
    "continues": False,
    "startprob_init": None,
    "transmat_init": None,
}


@pytest.mark.parametrize("estimator", HMMS)
def test_defaults(estimator):
    """DESIGN, section 4."""
    parameters = estimator().get_params()
    assert DEFAULTS.items() <= parameters.items()
    assert not parameters["verbose"]
    assert not parameters["fixed"]
    if estimator is GaussianHMM:
        assert parameters["covariance_type"] == "diag"
        assert parameters["reg_covar"] == 1e-10
    if estimator is CategoricalHMM:
        assert parameters["alpha"] == 0
    # n_components may be given by position, as in GaussianMixture; the rest may not
    assert estimator(3).n_components == 3
    with pytest.raises(TypeError):
        estimator(3, "full")


@pytest.mark.parametrize("estimator", HMMS)
def test_groups_are_requested_by_default(estimator):
    requests = estimator().get_metadata_routing()
    for method in ("fit", "score", "predict", "predict_proba", "transform"):
        assert getattr(requests, method).requests.get("groups") is True, method
        assert getattr(requests, method).requests.get("lengths") is None, method


def test_every_estimator_of_the_package_is_checked_here():
    wings = {name for name in sklseq.__all__ if name.endswith("HMM")}
    assert wings == {type(estimator).__name__ for estimator in BARE} - {
        "Stepwise", "SequenceClassifier",
    }  # fmt: skip
