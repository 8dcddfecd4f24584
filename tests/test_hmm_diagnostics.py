"""Forecast quantiles, pseudo-residuals and the filter one step at a time."""

import warnings

import numpy as np
import pytest
from references import FAMILIES, full_covariances
from references_hmm_extra import (
    EXTRA_FAMILIES,
    discrete_quantile,
    normal_mixture_quantile,
    weights_given_others,
)
from scipy import stats
from test_hmm_known_states import class_of

from sklseq import CategoricalHMM, GaussianHMM, MultinomialHMM, PoissonHMM
from sklseq.datasets import load_earthquakes

ALL = FAMILIES + EXTRA_FAMILIES
QUANTILES = (0.001, 0.05, 0.5, 0.9, 0.999)


def known(family, parameters, **params):
    return class_of(family).from_parameters(**parameters, **family.estimator_parameters, **params)


@pytest.fixture(params=ALL, ids=lambda family: family.name)
def each(request):
    return request.param


# --- Quantiles of the forecast --------------------------------------------------------------------


@pytest.mark.parametrize("family", ALL[:-1], ids=lambda family: family.name)
def test_quantiles_of_the_mixture(family, rng):
    parameters = family.random_parameters(rng, 3, 2)
    X = family.sample(rng, 9, parameters)
    forecast = known(family, parameters).forecast(X, 3, quantiles=QUANTILES)
    assert forecast.quantiles.shape == (3, 5, 2)
    assert forecast._fields[-2:] == ("quantiles", "state_probabilities")
    for h, weights in enumerate(forecast.state_probabilities):
        for d in range(2):
            expected = [quantile(family, parameters, weights, d, q) for q in QUANTILES]
            np.testing.assert_allclose(forecast.quantiles[h, :, d], expected, rtol=1e-9, atol=1e-9)
    assert np.all(np.diff(forecast.quantiles, axis=1) >= 0)


def quantile(family, p, weights, d, q):
    kind = family.estimator_parameters.get("covariance_type")
    if family.name == "poisson":
        x = np.arange(300)[:, None]
        return discrete_quantile(stats.poisson.pmf(x, p["rates"][:, d]) @ weights, q)
    if family.name == "categorical":
        return discrete_quantile(weights @ p["emissionprob"][d], q)
    if family.name.startswith("gaussian"):
        full = full_covariances(p["covars"], kind, 3, 2)
        return normal_mixture_quantile(weights, p["means"][:, d], np.sqrt(full[:, d, d]), q)
    full = np.concatenate([full_covariances(one, kind, 2, 2) for one in p["covars"]])
    of_components = (weights[:, None] * p["weights"]).ravel()
    means = p["means"].reshape(-1, 2)[:, d]
    return normal_mixture_quantile(of_components, means, np.sqrt(full[:, d, d]), q)


def test_quantiles_of_several_sequences(rng):
    model = PoissonHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.9, 0.1], [0.2, 0.8]], rates=[[1.0], [9.0]]
    )
    X = [[[0.0], [1.0]], [[9.0], [12.0], [8.0]]]
    forecast = model.forecast(X, 2, quantiles=0.5)
    assert forecast.quantiles.shape == (2, 2, 1, 1)
    alone = model.forecast(np.array(X[1]), 2, quantiles=0.5)
    np.testing.assert_array_equal(forecast.quantiles[1], alone.quantiles)
    assert not hasattr(model.forecast(X, 2), "quantiles")


def test_quantiles_cover_what_is_drawn():
    model = GaussianHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.7, 0.3], [0.2, 0.8]], means=[[0.0], [6.0]],
        covars=[[1.0], [4.0]],
    )  # fmt: skip
    futures = np.array([
        model.sample(2, random_state=seed)[0][1, 0] for seed in range(4000)
    ])
    # from a start of its own: one missing step says nothing
    bands = model.forecast([[np.nan]], 1, quantiles=(0.1, 0.5, 0.9)).quantiles[0, :, 0]
    np.testing.assert_allclose((futures[:, None] <= bands).mean(axis=0), [0.1, 0.5, 0.9], atol=0.02)


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.1, [0.5, 1.5], [], np.nan])
def test_what_quantiles_may_be(wrong):
    model = PoissonHMM.from_parameters(startprob=[1.0], transmat=[[1.0]], rates=[[1.0]])
    with pytest.raises(ValueError, match="quantiles"):
        model.forecast([[1.0]], quantiles=wrong)


def test_multinomial_has_no_quantiles():
    model = MultinomialHMM.from_parameters(
        startprob=[1.0], transmat=[[1.0]], emissionprob=[[0.5, 0.5]]
    )
    with pytest.raises(ValueError, match="quantiles of a forecast are not defined"):
        model.forecast([[1, 2]], quantiles=0.5)


# --- Pseudo-residuals -----------------------------------------------------------------------------


def levels(family, p, x, d, row):
    """(P(X < x), P(X <= x)) of column d under each state."""
    kind = family.estimator_parameters.get("covariance_type")
    if family.name == "poisson":
        return (stats.poisson.cdf(x - 1, p["rates"][:, d]), stats.poisson.cdf(x, p["rates"][:, d]))
    if family.name == "categorical":
        table = p["emissionprob"][d]
        return table[:, : int(x)].sum(axis=1), table[:, : int(x) + 1].sum(axis=1)
    if family.name == "multinomial":
        n, q = row.sum(), p["emissionprob"][:, d]
        return stats.binom.cdf(x - 1, n, q), stats.binom.cdf(x, n, q)
    if family.name.startswith("gaussian"):
        full = full_covariances(p["covars"], kind, 3, 2)
        level = stats.norm.cdf(x, p["means"][:, d], np.sqrt(full[:, d, d]))
        return level, level
    result = []
    for weights, means, covars in zip(p["weights"], p["means"], p["covars"]):
        full = full_covariances(covars, kind, 2, 2)
        result.append(weights @ stats.norm.cdf(x, means[:, d], np.sqrt(full[:, d, d])))
    return np.array(result), np.array(result)


@pytest.mark.parametrize("kind", ["forecast", "ordinary"])
def test_residuals_by_definition(each, rng, kind):
    parameters = each.random_parameters(rng, 3, 2)
    X = each.sample(rng, 5, parameters)
    if each.name != "multinomial":
        X[2, 1] = np.nan
    weights = weights_given_others(
        parameters["startprob"], parameters["transmat"], each.log_obs(X, parameters),
        past_only=kind == "forecast",
    )  # fmt: skip
    found = known(each, parameters).pseudo_residuals(X, kind)
    assert found._fields == ("residuals", "lower", "upper")
    for t, d in np.ndindex(X.shape):
        if np.isnan(X[t, d]):
            assert all(np.isnan(part[t, d]) for part in found)
            continue
        below, upto = (weights[t] @ level for level in levels(each, parameters, X[t, d], d, X[t]))
        upto = 1.0 if upto > 1 - 1e-12 else upto  # the sum over all values
        expected = stats.norm.ppf([(below + upto) / 2, below, upto])
        np.testing.assert_allclose([part[t, d] for part in found], expected, atol=1e-8)


@pytest.mark.parametrize("kind", ["forecast", "ordinary"])
def test_residuals_of_the_right_model_are_standard_normal(kind):
    model = GaussianHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.95, 0.05], [0.1, 0.9]], means=[[0.0], [4.0]],
        covars=[[1.0], [3.0]],
    )  # fmt: skip
    X, _ = model.sample(3000, random_state=0)
    z = model.pseudo_residuals(X, kind).residuals.ravel()
    assert stats.kstest(z, "norm").pvalue > 0.01
    if kind == "forecast":  # and independent
        assert abs(np.corrcoef(z[1:], z[:-1])[0, 1]) < 0.05
    wrong = GaussianHMM(1).fit(X).pseudo_residuals(X, kind).residuals.ravel()
    assert stats.kstest(wrong, "norm").pvalue < 1e-4


def test_discrete_residuals_of_the_right_model():
    """Drawn uniformly inside their intervals they are standard normal (Dunn & Smyth 1996)."""
    model = PoissonHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.95, 0.05], [0.1, 0.9]], rates=[[1.0], [6.0]]
    )
    X, _ = model.sample(3000, random_state=0)
    z, lower, upper = model.pseudo_residuals(X)
    assert np.all((lower <= z) & (z <= upper))
    ends = stats.norm.cdf(lower), stats.norm.cdf(upper)
    drawn = stats.norm.ppf(np.random.default_rng(0).uniform(*ends))
    assert stats.kstest(drawn.ravel(), "norm").pvalue > 0.01


def test_an_outlier_keeps_its_digits(rng):
    model = GaussianHMM.from_parameters(
        startprob=[1.0], transmat=[[1.0]], means=[[0.0]], covars=[[1.0]]
    )
    X = np.array([[40.0], [-40.0], [1e4], [0.0]])
    for kind in ("forecast", "ordinary"):
        np.testing.assert_allclose(model.pseudo_residuals(X, kind).residuals, X, rtol=1e-8)
    counts = PoissonHMM.from_parameters(startprob=[1.0], transmat=[[1.0]], rates=[[1.0]])
    found = counts.pseudo_residuals([[0.0], [30.0]])
    assert found.lower[0, 0] == -np.inf
    assert 9 < found.residuals[1, 0] < 13
    assert not any(np.isnan(part).any() for part in found)


def test_residuals_have_the_form_of_x(rng):
    model = PoissonHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.9, 0.1], [0.2, 0.8]], rates=[[1.0], [9.0]]
    )
    sequences = [rng.poisson(3.0, (n, 1)) for n in (4, 6)]
    found = model.pseudo_residuals(sequences, "ordinary")
    flat = model.pseudo_residuals(np.concatenate(sequences), "ordinary", lengths=[4, 6])
    alone = model.pseudo_residuals(sequences[1], "ordinary")
    assert found.residuals.dtype == object
    np.testing.assert_allclose(found.residuals[1], alone.residuals, atol=1e-12)
    np.testing.assert_allclose(flat.upper[4:], alone.upper, atol=1e-12)


def test_residuals_of_a_long_sequence(rng):
    """Longer than the block that is worked on at a time."""
    from sklseq.hmm._residuals import BLOCK

    model = PoissonHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.9, 0.1], [0.2, 0.8]], rates=[[1.0], [9.0]]
    )
    X, _ = model.sample(BLOCK + 50, random_state=0)
    z = model.pseudo_residuals(X).residuals
    np.testing.assert_allclose(z[:BLOCK], model.pseudo_residuals(X[:BLOCK]).residuals, atol=1e-9)
    assert np.isfinite(z).all()


def test_residual_errors():
    model = CategoricalHMM.from_parameters(
        startprob=[1.0], transmat=[[1.0]], emissionprob=[[1.0, 0.0]]
    )
    with pytest.raises(ValueError, match="kind must be 'forecast' or 'ordinary', got 'normal'"):
        model.pseudo_residuals([[0]], kind="normal")
    with pytest.raises(ValueError, match=r"No residuals: sequence 0 .* at step 1"):
        model.pseudo_residuals([[0], [1]])


def test_earthquakes_find_the_worse_model():
    """Zucchini et al., ch. 6: one state does not fit the earthquake counts, three do."""
    X, _ = load_earthquakes(return_X_y=True)
    tests = {}
    for n_states in (1, 3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hmm = PoissonHMM(n_states, random_state=0).fit(X)
        z = hmm.pseudo_residuals(X).residuals.ravel()
        tests[n_states] = stats.shapiro(z).pvalue, np.corrcoef(z[1:], z[:-1])[0, 1]
    assert tests[1][1] > 0.4
    assert abs(tests[3][1]) < 0.25
    assert tests[3][0] > 0.05


# --- One step at a time ---------------------------------------------------------------------------


def test_filter_update_is_filter(each, rng):
    parameters = each.random_parameters(rng, 3, 2)
    X = each.sample(rng, 40, parameters)
    if each.name != "multinomial":
        X[5] = np.nan
        X[7, 0] = np.nan
    model = known(each, parameters)
    state, steps = None, []
    for x in X:
        state = model.filter_update(state, x)
        steps.append(state)
    np.testing.assert_allclose(steps, model.filter(X), atol=1e-12)
    np.testing.assert_array_equal(model.filter_update(steps[3], X[4:5]), steps[4])
    np.testing.assert_array_equal(model.filter_update(steps[3].tolist(), X[4].tolist()), steps[4])


def test_filter_update_continues(rng):
    X = np.concatenate([np.zeros((20, 1)), 5 + np.zeros((20, 1))]) + rng.normal(size=(40, 1))
    hmm = GaussianHMM(2, random_state=0, continues=True).fit(X)
    np.testing.assert_allclose(hmm.filter_update(None, [5.0]), hmm.filter([[5.0]])[0], atol=1e-14)


def test_filter_update_errors():
    model = CategoricalHMM.from_parameters(
        startprob=[1.0, 0.0], transmat=[[0.5, 0.5], [0.5, 0.5]],
        emissionprob=[[1.0, 0.0], [0.0, 1.0]],
    )  # fmt: skip
    with pytest.raises(ValueError, match="x must be one row, got 2 rows"):
        model.filter_update(None, [[0], [1]])
    with pytest.raises(ValueError, match=r"state_probabilities must have shape \(2,\)"):
        model.filter_update([1.0], [0])
    with pytest.raises(ValueError, match="state_probabilities must sum to 1"):
        model.filter_update([0.5, 0.6], [0])
    with pytest.raises(ValueError, match="No filter: sequence 0 has probability zero"):
        model.filter_update(None, [1])
    with pytest.raises(ValueError, match="features"):
        model.filter_update(None, [0, 1])
