"""GaussianHMM: what is its own - shapes of covars, tied and missing data, counts of parameters."""

import numpy as np
import pytest
from conftest import fitted_parameters
from references import FAMILIES, full_covariances, gaussian_log_obs, log_smooth, random_chain
from scipy import stats
from sklearn.exceptions import ConvergenceWarning

from sklseq import GaussianHMM, GaussianMixtureHMM

TYPES = ["full", "tied", "diag", "spherical"]
SHAPES = {"full": (3, 2, 2), "tied": (2, 2), "diag": (3, 2), "spherical": (3,)}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def family_of(covariance_type):
    return next(f for f in FAMILIES if f.name == f"gaussian-{covariance_type}")


@pytest.mark.parametrize("covariance_type", TYPES)
def test_shapes_are_compact_and_as_gaussian_mixture_has_them(rng, covariance_type):
    X = rng.normal(size=(60, 2))
    model = GaussianHMM(3, covariance_type=covariance_type, random_state=0).fit(X)
    assert model.means_.shape == (3, 2)
    assert model.covars_.shape == SHAPES[covariance_type]
    assert model.startprob_.shape == (3,)
    assert model.transmat_.shape == (3, 3)
    np.testing.assert_allclose(model.transmat_.sum(axis=1), 1.0, rtol=1e-12)
    # what was fitted can be given back, also through from_parameters
    again = GaussianHMM.from_parameters(
        covariance_type=covariance_type,
        **fitted_parameters(model, ["startprob", "transmat", "means", "covars"]),
    )
    np.testing.assert_allclose(again.score_samples(X), model.score_samples(X), rtol=1e-12)


@pytest.mark.parametrize(
    ("covariance_type", "n_free"),
    # start 2, transitions 3 * 2, means 3 * 2, then the covariances
    [
        ("full", 14 + 3 * 3),
        ("tied", 14 + 3),
        ("diag", 14 + 3 * 2),
        ("spherical", 14 + 3),
    ],
)
def test_aic_and_bic_count_free_parameters(rng, covariance_type, n_free):
    family = family_of(covariance_type)
    parameters = family.random_parameters(rng, 3, 2)
    sequences = [family.sample(rng, n, parameters) for n in (30, 20)]
    model = GaussianHMM.from_parameters(covariance_type=covariance_type, **parameters)
    total = model.score_sequences(sequences).sum()
    assert model.aic(sequences) == pytest.approx(2 * n_free - 2 * total)
    assert model.bic(sequences) == pytest.approx(np.log(50) * n_free - 2 * total)


def test_zeros_and_fixed_parameters_are_not_counted(rng):
    X = rng.normal(size=(50, 1))
    start = {
        "startprob_init": [1.0, 0.0, 0.0],
        "transmat_init": [[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]],
        "means_init": [[-1.0], [0.0], [1.0]],
        "covars_init": [[1.0], [1.0], [1.0]],
        "max_iter": 3,
    }
    model = GaussianHMM(3, **start).fit(X)
    total = model.score_samples(X).sum()
    # transitions: one free number in the first two rows; means and variances three each
    assert model.aic(X) + 2 * total == pytest.approx(2 * (2 + 3 + 3))
    model = GaussianHMM(3, fixed=("means", "transmat"), **start).fit(X)
    total = model.score_samples(X).sum()
    assert model.aic(X) + 2 * total == pytest.approx(2 * 3)
    stationary = GaussianHMM(2, initial_state="stationary", max_iter=3, random_state=0).fit(X)
    total = stationary.score_samples(X).sum()
    assert stationary.aic(X) + 2 * total == pytest.approx(2 * (2 + 2 + 2))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_partly_missing_row_has_the_density_of_what_was_seen(rng, covariance_type):
    family = family_of(covariance_type)
    parameters = family.random_parameters(rng, 1, 3)
    model = GaussianHMM.from_parameters(covariance_type=covariance_type, **parameters)
    row = np.array([0.3, np.nan, -0.7])
    covariance = full_covariances(parameters["covars"], covariance_type, 1, 3)[0]
    expected = stats.multivariate_normal.logpdf(
        row[[0, 2]], parameters["means"][0][[0, 2]], covariance[np.ix_([0, 2], [0, 2])]
    )
    np.testing.assert_allclose(model.score_samples(row[None]), [expected], rtol=1e-12)


def test_missing_values_are_not_the_mean(rng):
    """With strong correlation, what is seen of a row says much about what is not."""
    cov = np.array([[1.0, 0.95], [0.95, 1.0]])
    X = rng.multivariate_normal([0, 0], cov, 4000)
    X[rng.random(4000) < 0.4, 1] = np.nan
    model = GaussianHMM(1, covariance_type="full", max_iter=300, tol=1e-9).fit(X)
    np.testing.assert_allclose(model.covars_[0], cov, atol=0.06)
    np.testing.assert_allclose(model.means_[0], [0, 0], atol=0.06)


def test_recovers_a_model_from_its_own_sequences():
    truth = GaussianHMM.from_parameters(
        startprob=[0.7, 0.3],
        transmat=[[0.9, 0.1], [0.3, 0.7]],
        means=[[0.0, 0.0], [3.0, -3.0]],
        covars=[[[1.0, 0.6], [0.6, 1.0]], [[2.0, -0.5], [-0.5, 0.5]]],
        covariance_type="full",
    )
    sequences, states = truth.sample(60, n_sequences=100, random_state=0)
    model = GaussianHMM(2, covariance_type="full", random_state=0).fit(sequences)
    order = np.argsort(model.means_[:, 0])
    np.testing.assert_allclose(model.means_[order], truth.means_, atol=0.1)
    np.testing.assert_allclose(model.covars_[order], truth.covars_, atol=0.15)
    np.testing.assert_allclose(model.transmat_[np.ix_(order, order)], truth.transmat_, atol=0.03)
    np.testing.assert_allclose(model.startprob_[order], truth.startprob_, atol=0.15)
    agreement = np.mean(order.argsort()[np.concatenate(model.predict(sequences))]
                        == np.concatenate(states))  # fmt: skip
    assert agreement > 0.97
    assert model.score(sequences) >= truth.score(sequences)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_an_offset_of_1e8_leaves_likelihood_and_posteriors(rng, covariance_type):
    family = family_of(covariance_type)
    parameters = family.random_parameters(rng, 3, 2)
    X = np.round(family.sample(rng, 200, parameters) * 64) / 64  # exact also at the offset
    far = {**parameters, "means": np.round(parameters["means"] * 64) / 64}
    near = GaussianHMM.from_parameters(covariance_type=covariance_type, **far)
    far["means"] = far["means"] + 1e8
    moved = GaussianHMM.from_parameters(covariance_type=covariance_type, **far)
    np.testing.assert_allclose(
        moved.score_samples(X + 1e8), near.score_samples(X), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(moved.predict_proba(X + 1e8), near.predict_proba(X), atol=1e-9)


def test_bad_covariances_are_named():
    good = {"startprob": [1.0], "transmat": [[1.0]], "means": [[0.0, 0.0]]}
    for covars in (
        [[[1.0, 2.0], [2.0, 1.0]]],  # not positive definite
        [[[1.0, 0.5], [0.0, 1.0]]],  # not symmetric
        [[1.0, 1.0]],  # the shape of another type
    ):
        with pytest.raises(ValueError, match="covars"):
            GaussianHMM.from_parameters(covars=covars, covariance_type="full", **good)


def test_covariance_type_changed_after_fit_is_named(rng):
    X = rng.normal(size=(40, 2))
    model = GaussianHMM(2, random_state=0).fit(X).set_params(covariance_type="full")
    with pytest.raises(ValueError, match="covariance_type"):
        model.predict(X)


def test_sixty_columns(rng):
    """Wide data, full covariances: against the oracle."""
    means = rng.normal(size=(2, 60))
    roots = rng.normal(size=(2, 60, 60)) / 8
    covars = roots @ roots.transpose(0, 2, 1) + np.eye(60)
    parameters = {**random_chain(rng, 2), "means": means, "covars": covars}
    X = means[rng.integers(0, 2, 40)] + rng.normal(size=(40, 60))
    X[5, :7] = np.nan
    model = GaussianHMM.from_parameters(covariance_type="full", **parameters)
    expected = log_smooth(
        parameters["startprob"],
        parameters["transmat"],
        gaussian_log_obs(X, means, covars, "full"),
    )
    assert model.score_samples(X).sum() == pytest.approx(expected.log_likelihood, rel=1e-11)
    np.testing.assert_allclose(model.predict_proba(X), expected.posteriors, atol=1e-9)


def test_warm_start_needs_the_same_columns_and_states(rng):
    model = GaussianHMM(2, random_state=0, warm_start=True).fit(rng.normal(size=(40, 2)))
    with pytest.raises(ValueError, match="3 features"):
        model.fit(rng.normal(size=(40, 3)))
    with pytest.raises(ValueError, match="warm_start"):
        model.set_params(n_components=3).fit(rng.normal(size=(40, 2)))
    assert model.means_.shape == (2, 2)
    with pytest.raises(ValueError, match="warm_start"):
        model.set_params(n_components=2, covariance_type="full").fit(rng.normal(size=(40, 2)))


def test_no_warning_where_all_is_well(rng):
    import warnings

    X = np.concatenate([rng.normal(size=(50, 2)), rng.normal(loc=9, size=(50, 2))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("error", ConvergenceWarning)
        GaussianHMM(2, random_state=0).fit(X).predict(X)


@pytest.mark.parametrize("estimator", [GaussianHMM, GaussianMixtureHMM])
@pytest.mark.parametrize("data", ["clusters of equal rows", "constant", "collinear"])
def test_a_collapsed_covariance_names_the_floor(rng, estimator, data):
    column = rng.normal(size=(30, 1))
    X, kind = {
        "clusters of equal rows": (np.repeat([0.0, 1, 2, 3], 5)[:, None], "diag"),
        "constant": (np.ones((20, 1)), "spherical"),
        "collinear": (np.hstack([column, column]), "full"),
    }[data]
    model = estimator(4, covariance_type=kind, reg_covar=0, max_iter=1000, random_state=0)
    with pytest.raises(ValueError, match="singular, and reg_covar=0 puts no floor"):
        model.fit(X)
    if data == "collinear" and estimator is GaussianHMM:  # fine where columns are independent
        estimator(2, covariance_type="diag", reg_covar=0, random_state=0).fit(X)
    model.set_params(reg_covar=1e-6, max_iter=2, tol=10.0).fit(X)


def test_without_a_floor_a_small_variance_far_away_is_legal(rng):
    X = np.concatenate([rng.normal(size=(20, 1)), 1e7 + rng.normal(size=(20, 1))])
    model = GaussianHMM(2, reg_covar=0, random_state=0).fit(X)
    np.testing.assert_allclose(model.covars_, 1.0, rtol=0.7)
