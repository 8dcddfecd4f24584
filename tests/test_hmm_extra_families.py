"""GaussianMixtureHMM and MultinomialHMM against oracles, special cases and hmmlearn."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references import enumerate_paths, full_covariances
from references_hmm_extra import EXTRA_FAMILIES, mixture_log_joint
from scipy import stats
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from test_hmm_known_states import class_of

from sklseq import CategoricalHMM, GaussianHMM, GaussianMixtureHMM, MultinomialHMM

TYPES = ["full", "tied", "diag", "spherical"]


@pytest.fixture(params=EXTRA_FAMILIES, ids=lambda family: family.name)
def extra(request):
    return request.param


def quietly(estimator, X, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, **kwargs)


def known(family, parameters, **params):
    return class_of(family).from_parameters(**parameters, **family.estimator_parameters, **params)


def punched(X, rng, family):
    """With gaps where the family has a meaning for them."""
    X = X.copy()
    if family.name != "multinomial":
        X[rng.random(X.shape) < 0.2] = np.nan
        X[len(X) // 2] = np.nan
    return X


# --- Inference and learning against oracles -----------------------------------------------------


def test_inference(extra, rng):
    parameters = extra.random_parameters(rng, 3, 2)
    X = punched(extra.sample(rng, 6, parameters), rng, extra)
    slow = enumerate_paths(
        parameters["startprob"], parameters["transmat"], extra.log_obs(X, parameters)
    )
    model = known(extra, parameters)
    np.testing.assert_allclose(model.score_sequences(X), slow.log_likelihood, rtol=1e-11)
    np.testing.assert_allclose(model.predict_proba(X), slow.posteriors, atol=1e-11)
    np.testing.assert_allclose(model.filter(X), slow.filtered, atol=1e-11)
    best = slow.log_joint.argmax()
    log_probability, states = model.decode(X)
    assert log_probability == pytest.approx(slow.log_joint[best], rel=1e-11)
    np.testing.assert_array_equal(states, slow.paths[best])


@pytest.mark.parametrize("n_iter", [1, 5])
def test_em_iterates_equal_the_oracle(extra, rng, n_iter):
    parameters = extra.random_parameters(rng, 3, 2)
    sequences = [punched(extra.sample(rng, n, parameters), rng, extra) for n in (30, 2, 25)]
    start = extra.random_parameters(rng, 3, 2)
    model = class_of(extra)(
        3, **{f"{name}_init": value for name, value in start.items()}, max_iter=n_iter, tol=0.0,
        **extra.estimator_parameters,
    )  # fmt: skip
    quietly(model, sequences)
    for _ in range(n_iter):
        start, _ = extra.em_step(sequences, start)
    for name, value in start.items():
        np.testing.assert_allclose(
            getattr(model, f"{name}_"), value, rtol=1e-6, atol=1e-9, err_msg=name
        )
    expected = extra.log_likelihood(sequences, start) / sum(map(len, sequences))
    assert model.log_likelihood_ == pytest.approx(expected, rel=1e-9)


@given(
    family=st.sampled_from(EXTRA_FAMILIES),
    seed=st.integers(0, 2**32 - 1),
    n_states=st.integers(1, 3),
    n_features=st.integers(1, 3),
    missing=st.sampled_from([0.0, 0.3]),
)
def test_em_never_falls(family, seed, n_states, n_features, missing):
    rng = np.random.default_rng(seed)
    parameters = family.random_parameters(rng, n_states, n_features)
    sequences = [family.sample(rng, n, parameters) for n in (15, 1, 9)]
    if family.name != "multinomial":
        for X in sequences:
            X[rng.random(X.shape) < missing] = np.nan
        sequences[0][0] = 1.0
    hmm = class_of(family)(
        n_states, random_state=seed, n_init=1, max_iter=25, tol=0.0, **family.estimator_parameters
    )
    quietly(hmm, sequences)
    gains = np.diff(hmm.objectives_)
    assert np.all(gains >= -1e-9 * (1 + np.abs(hmm.objectives_[:-1])))


def test_sample_has_the_moments_of_the_model(extra, rng):
    parameters = extra.random_parameters(rng, 2, 2)
    model = known(extra, parameters, **({"n_trials": 7} if extra.name == "multinomial" else {}))
    X, states = model.sample(60_000, random_state=0)
    for k in range(2):
        rows = X[states == k]
        if extra.name == "multinomial":
            assert np.all(X.sum(axis=1) == 7)
            table = parameters["emissionprob"][k]
            np.testing.assert_allclose(rows.mean(axis=0) / 7, table, atol=0.01)
            np.testing.assert_allclose(rows.var(axis=0), 7 * table * (1 - table), atol=0.06)
            continue
        mean = parameters["weights"][k] @ parameters["means"][k]
        covars = full_covariances(
            parameters["covars"][k], extra.estimator_parameters["covariance_type"], 2, 2
        )
        second = sum(
            w * (C + np.outer(m, m))
            for w, m, C in zip(parameters["weights"][k], parameters["means"][k], covars)
        )
        spread = np.sqrt(np.diag(second))
        np.testing.assert_allclose(rows.mean(axis=0), mean, atol=0.05 * spread.max())
        found = (rows.T @ rows) / len(rows)
        np.testing.assert_allclose(found, second, atol=0.06 * spread.max() ** 2)


def test_forecast(extra, rng):
    parameters = extra.random_parameters(rng, 3, 2)
    X = extra.sample(rng, 12, parameters)
    forecast = known(extra, parameters).forecast(X, 2)
    weights = forecast.state_probabilities
    if extra.name == "multinomial":
        np.testing.assert_allclose(forecast.probabilities, weights @ parameters["emissionprob"])
        return
    of_components = (weights[:, :, None] * parameters["weights"]).reshape(2, -1)
    means = parameters["means"].reshape(-1, 2)
    covars = np.concatenate([
        full_covariances(one, extra.estimator_parameters["covariance_type"], 2, 2)
        for one in parameters["covars"]
    ])
    np.testing.assert_allclose(forecast.means, of_components @ means)
    for h in range(2):
        second = sum(
            w * (C + np.outer(m, m)) for w, m, C in zip(of_components[h], means, covars)
        )
        mean = forecast.means[h]
        np.testing.assert_allclose(forecast.covariances[h], second - np.outer(mean, mean))


def test_refit_clone_pickle_and_n_jobs(extra, rng):
    import pickle

    parameters = extra.random_parameters(rng, 2, 2)
    drawn = extra.sample(rng, 1200, parameters)
    sequences = [np.concatenate([drawn] * 8) for _ in range(4)]  # more than one shard
    hmm = class_of(extra)(
        2, random_state=0, n_init=1, max_iter=3, **extra.estimator_parameters
    )
    one = quietly(clone(hmm), sequences)
    two = quietly(clone(hmm).set_params(n_jobs=2), sequences)
    three = pickle.loads(pickle.dumps(one))
    for other in (two, three):
        np.testing.assert_array_equal(one.transmat_, other.transmat_)
        np.testing.assert_array_equal(
            one.score_sequences(sequences), other.score_sequences(sequences)
        )


def test_warm_start(extra, rng):
    parameters = extra.random_parameters(rng, 2, 2)
    X = extra.sample(rng, 60, parameters)
    hmm = class_of(extra)(2, random_state=0, n_init=1, max_iter=4, tol=0, warm_start=True,
                          **extra.estimator_parameters)  # fmt: skip
    quietly(hmm, X)
    quietly(hmm, X)
    straight = quietly(clone(hmm).set_params(max_iter=8), X)
    np.testing.assert_allclose(hmm.transmat_, straight.transmat_, rtol=1e-9)


# --- Special cases ------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", TYPES)
def test_one_gaussian_is_gaussian_hmm(rng, covariance_type):
    X = np.concatenate([rng.normal(size=(40, 2)), rng.normal(4.0, 2.0, size=(40, 2))])
    plain = GaussianHMM(2, covariance_type=covariance_type, random_state=0)
    if covariance_type == "tied":
        plain.set_params(n_components=1)
    quietly(plain, X)
    n_states = plain.n_components
    covars = plain.covars_[None] if covariance_type == "tied" else plain.covars_[:, None]
    mixture = GaussianMixtureHMM.from_parameters(
        startprob=plain.startprob_, transmat=plain.transmat_, weights=np.ones((n_states, 1)),
        means=plain.means_[:, None], covars=covars, covariance_type=covariance_type,
    )  # fmt: skip
    np.testing.assert_allclose(mixture.score_samples(X), plain.score_samples(X), atol=1e-10)
    assert mixture._n_free_parameters() == plain._n_free_parameters()


@pytest.mark.parametrize("covariance_type", TYPES)
def test_one_state_is_sklearns_mixture(rng, covariance_type):
    X = np.concatenate([rng.normal(size=(150, 2)), rng.normal(5.0, 0.7, size=(100, 2))])
    theirs = GaussianMixture(2, covariance_type=covariance_type, tol=1e-10, max_iter=500,
                             random_state=0, reg_covar=0.0).fit(X)  # fmt: skip
    ours = GaussianMixtureHMM(1, n_mix=2, covariance_type=covariance_type, tol=1e-11,
                              max_iter=500, random_state=0).fit(X)  # fmt: skip
    assert ours.log_likelihood_ == pytest.approx(theirs.score(X), abs=1e-7)
    order = np.argsort(ours.means_[0, :, 0])
    expected = theirs.means_[np.argsort(theirs.means_[:, 0])]
    np.testing.assert_allclose(ours.means_[0, order], expected, atol=1e-4)


def test_one_hot_rows_are_categorical(rng):
    parameters = {"startprob": rng.dirichlet([1, 1]), "transmat": rng.dirichlet([1, 1], 2),
                  "emissionprob": rng.dirichlet([1, 1, 1], 2)}  # fmt: skip
    codes = rng.integers(0, 3, 50)
    words = CategoricalHMM.from_parameters(**parameters)
    counts = MultinomialHMM.from_parameters(**parameters)
    np.testing.assert_allclose(
        counts.score_samples(np.eye(3)[codes]), words.score_samples(codes[:, None]), atol=1e-12
    )
    start = {f"{name}_init": value for name, value in parameters.items()}
    one = quietly(CategoricalHMM(2, **start, max_iter=5, tol=0), codes[:, None])
    two = quietly(MultinomialHMM(2, **start, max_iter=5, tol=0), np.eye(3)[codes])
    np.testing.assert_allclose(one.emissionprob_, two.emissionprob_, rtol=1e-10)


def test_multinomial_is_a_distribution_over_counts():
    """All rows of the same total: probabilities sum to one."""
    model = MultinomialHMM.from_parameters(
        startprob=[0.3, 0.7], transmat=[[0.5, 0.5], [0.1, 0.9]],
        emissionprob=[[0.2, 0.3, 0.5], [0.6, 0.4, 0.0]],
    )  # fmt: skip
    rows = [[[a, b, 5 - a - b]] for a in range(6) for b in range(6 - a)]
    assert np.exp(model.score_sequences(rows)).sum() == pytest.approx(1.0)


def test_a_row_of_zeros_says_nothing(rng):
    model = MultinomialHMM.from_parameters(
        startprob=[0.3, 0.7], transmat=[[0.5, 0.5], [0.1, 0.9]],
        emissionprob=[[0.2, 0.8], [0.6, 0.4]],
    )  # fmt: skip
    X = np.array([[3, 1], [0, 0], [2, 2]])
    assert model.score_samples(X)[1] == pytest.approx(0.0, abs=1e-14)
    np.testing.assert_allclose(model.filter(X)[1], model.filter(X)[0] @ model.transmat_)


def test_multinomial_refuses_nan_and_negative_counts():
    with pytest.raises(ValueError, match="NaN"):
        MultinomialHMM().fit([[1.0, np.nan], [2.0, 3.0]])
    with pytest.raises(ValueError, match="Negative"):
        MultinomialHMM().fit([[1.0, -1.0], [2.0, 3.0]])


def test_impossible_category():
    model = MultinomialHMM.from_parameters(
        startprob=[1.0], transmat=[[1.0]], emissionprob=[[0.5, 0.5, 0.0]]
    )
    assert model.score_samples([[1, 0, 0], [1, 0, 1]]).tolist()[1] == -np.inf


def test_n_trials():
    X = np.array([[5, 5], [4, 7], [2, 7]])
    assert MultinomialHMM(1).fit(X).n_trials_ == 10
    hmm = MultinomialHMM(1, n_trials=3).fit(X)
    assert np.all(hmm.sample(5)[0].sum(axis=1) == 3)


def test_alpha_is_a_dirichlet_prior(rng):
    family = EXTRA_FAMILIES[-1]
    parameters = family.random_parameters(rng, 2, 2)
    X = family.sample(rng, 30, parameters)
    start = {f"{name}_init": value for name, value in parameters.items()}
    hmm = quietly(MultinomialHMM(2, alpha=0.7, max_iter=1, **start), X)
    counts = family.smooth(X, parameters).posteriors.T @ X + 0.7
    np.testing.assert_allclose(hmm.emissionprob_, counts / counts.sum(axis=1, keepdims=True))
    density = sum(stats.dirichlet.logpdf(row, np.full(3, 1.7)) for row in hmm.emissionprob_)
    before = sum(
        stats.dirichlet.logpdf(row, np.full(3, 1.7)) for row in parameters["emissionprob"]
    )
    gap = (hmm.objectives_ - hmm.log_likelihoods_) * len(X)
    assert gap[1] - gap[0] == pytest.approx(density - before)


def test_more_gaussians_than_rows(rng):
    hmm = quietly(GaussianMixtureHMM(3, n_mix=4, random_state=0), rng.normal(size=(2, 1)))
    for name in ("weights_", "means_", "covars_", "transmat_"):
        assert np.isfinite(getattr(hmm, name)).all()
    np.testing.assert_allclose(hmm.weights_.sum(axis=1), 1.0)


def test_offset_of_1e8(rng):
    X = rng.normal(size=(80, 2)) + 1e8
    hmm = quietly(GaussianMixtureHMM(2, random_state=0), X)
    assert hmm.covars_.min() > 0
    near = quietly(GaussianMixtureHMM(2, random_state=0), X - 1e8)
    assert hmm.log_likelihood_ == pytest.approx(near.log_likelihood_, abs=1e-4)


def test_a_mixture_state_is_found(rng):
    """Three clusters, two states: EM from the truth's neighbourhood keeps the mixture together."""
    truth = GaussianMixtureHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.95, 0.05], [0.05, 0.95]],
        weights=[[0.5, 0.5], [0.3, 0.7]], means=[[[-6.0], [6.0]], [[0.0], [1.0]]],
        covars=[[[1.0], [1.0]], [[0.5], [0.5]]],
    )  # fmt: skip
    X, states = truth.sample(2000, random_state=0)
    hmm = GaussianMixtureHMM(
        2, means_init=[[[-4.0], [4.0]], [[-0.5], [0.5]]], random_state=0
    ).fit(X)
    assert np.mean(hmm.predict(X) == states) > 0.98
    np.testing.assert_allclose(np.sort(hmm.means_[0].ravel()), [-6, 6], atol=0.2)
    np.testing.assert_allclose(hmm.transmat_, truth.transmat_, atol=0.02)


# --- What may be given --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_mix": 0}, "n_mix"),
        ({"covariance_type": "banded"}, "covariance_type must be one of"),
        ({"weights_init": [[0.5, 0.6], [0.5, 0.5]]}, "Row 0 of weights_init must sum to 1"),
        ({"means_init": np.zeros((2, 3, 1))}, r"means_init must have shape \(2, 2, 1\)"),
        ({"covars_init": -np.ones((2, 2, 1))}, "covars_init must be positive"),
    ],
)
def test_errors_name_the_parameter(params, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixtureHMM(2, **params).fit(np.arange(6.0)[:, None])


def test_multinomial_parameters():
    with pytest.raises(ValueError, match="n_trials"):
        MultinomialHMM(n_trials=-1).fit([[1, 2]])
    with pytest.raises(ValueError, match="alpha"):
        MultinomialHMM(alpha=-1.0).fit([[1, 2]])


# --- Against hmmlearn ---------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", TYPES)
def test_likelihood_of_hmmlearns_gmmhmm(rng, covariance_type):
    hmmlearn = pytest.importorskip("hmmlearn.hmm")
    family = next(f for f in EXTRA_FAMILIES if f.name == f"mixture-{covariance_type}")
    parameters = family.random_parameters(rng, 3, 2)
    X = family.sample(rng, 80, parameters)
    theirs = hmmlearn.GMMHMM(n_components=3, n_mix=2, covariance_type=covariance_type)
    theirs.startprob_, theirs.transmat_ = parameters["startprob"], parameters["transmat"]
    theirs.weights_, theirs.means_ = parameters["weights"], parameters["means"]
    theirs.covars_ = parameters["covars"]
    ours = known(family, parameters)
    assert ours.score_sequences(X)[0] == pytest.approx(theirs.score(X), rel=1e-10)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-9)


def test_likelihood_of_hmmlearns_multinomialhmm(rng):
    hmmlearn = pytest.importorskip("hmmlearn.hmm")
    family = EXTRA_FAMILIES[-1]
    parameters = family.random_parameters(rng, 3, 2)
    X = rng.multinomial(9, [0.2, 0.5, 0.3], size=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = hmmlearn.MultinomialHMM(n_components=3, n_trials=9)
        theirs.startprob_, theirs.transmat_ = parameters["startprob"], parameters["transmat"]
        theirs.emissionprob_ = parameters["emissionprob"]
        theirs.n_features = 3
        expected = theirs.score(X)
    assert known(family, parameters).score_sequences(X)[0] == pytest.approx(expected, rel=1e-10)


def test_oracle_of_the_mixture(rng):
    """The oracle itself: its components sum to the density of scipy."""
    family = EXTRA_FAMILIES[0]
    p = family.random_parameters(rng, 2, 2)
    x = np.array([[0.3, -0.2]])
    direct = sum(
        w * stats.multivariate_normal.pdf(x[0], mean, covariance)
        for w, mean, covariance in zip(p["weights"][1], p["means"][1], p["covars"][1])
    )
    assert np.exp(mixture_log_joint(x, p, "full")[0, 1]).sum() == pytest.approx(direct)
