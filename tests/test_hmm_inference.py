"""What every HMM says about the hidden path, for all families, against all paths written out."""

import inspect

import numpy as np
import pytest
from conftest import estimator_class
from references import (
    FAMILIES,
    best_paths,
    enumerate_paths,
    forecast_states,
    full_covariances,
    gaussian_log_obs,
    log_conditionals,
    log_filter,
    log_smooth,
    log_viterbi,
)
from scipy.special import logsumexp

from sklseq import GaussianHMM


@pytest.fixture
def small(family, rng, known):
    """A known model of three states, a short sequence with gaps, and its log densities."""
    parameters = family.random_parameters(rng, 3, 2)
    X = family.sample(rng, 6, parameters)
    X[1, 0] = np.nan
    X[3] = np.nan
    chain = (parameters["startprob"], parameters["transmat"], family.log_obs(X, parameters))
    return known(parameters), parameters, X, chain


# --- Against all paths ------------------------------------------------------------------------


def test_likelihoods(small):
    model, _, X, chain = small
    slow = enumerate_paths(*chain)
    per_step = model.score_samples(X)
    assert per_step.shape == (6,)
    np.testing.assert_allclose(per_step, log_conditionals(*chain), atol=1e-11)
    np.testing.assert_allclose(per_step.sum(), slow.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(model.score(X), slow.log_likelihood / 6, rtol=1e-12)
    totals = model.score_sequences(X)
    assert totals.shape == (1,)
    np.testing.assert_allclose(totals, slow.log_likelihood, rtol=1e-12)


def test_messages(small):
    model, _, X, chain = small
    slow = enumerate_paths(*chain)
    np.testing.assert_allclose(model.predict_proba(X), slow.posteriors, atol=1e-12)
    np.testing.assert_allclose(model.transform(X), slow.posteriors, atol=1e-12)
    np.testing.assert_allclose(model.filter(X), slow.filtered, atol=1e-12)
    messages = model.forward_backward(X)
    assert messages._fields == (
        "filtered",
        "log_backward",
        "posteriors",
        "transition_counts",
        "log_likelihood",
    )
    np.testing.assert_allclose(messages.filtered, slow.filtered, atol=1e-12)
    np.testing.assert_allclose(messages.log_backward, slow.log_backward, atol=1e-10)
    np.testing.assert_allclose(messages.posteriors, slow.posteriors, atol=1e-12)
    np.testing.assert_allclose(messages.transition_counts, slow.transition_counts, atol=1e-12)
    np.testing.assert_allclose(messages.log_likelihood, slow.log_likelihood, rtol=1e-12)


def test_best_path(small):
    model, _, X, chain = small
    values, paths = best_paths(*chain, n_paths=1)
    log_probability, states = model.decode(X)
    assert np.ndim(log_probability) == 0
    assert log_probability == pytest.approx(values[0], rel=1e-12)
    np.testing.assert_array_equal(states, paths[0])
    predicted = model.predict(X)
    np.testing.assert_array_equal(predicted, paths[0])
    assert predicted.shape == (6,)
    assert np.issubdtype(predicted.dtype, np.integer)


@pytest.mark.skipif(
    "n_paths" not in inspect.signature(GaussianHMM.decode).parameters,
    reason="decode(n_paths=) is on its way",
)
@pytest.mark.parametrize("n_paths", [2, 10, 100])
def test_best_paths(small, n_paths):
    model, _, X, chain = small
    values, paths = best_paths(*chain, n_paths=n_paths)
    log_probabilities, states = model.decode(X, n_paths=n_paths)
    assert log_probabilities.shape == (n_paths,)
    assert states.shape == (n_paths, 6)
    np.testing.assert_allclose(log_probabilities, values, rtol=1e-11)
    assert np.all(np.diff(log_probabilities) <= 1e-12)
    assert len(np.unique(states, axis=0)) == n_paths
    distinct = np.flatnonzero(np.diff(values) < -1e-9)
    for rank in distinct[:20]:
        if rank == 0 or values[rank - 1] - values[rank] > 1e-9:
            np.testing.assert_array_equal(states[rank], paths[rank])


def test_map_decodes_each_step_alone(small):
    model, _, X, chain = small
    model.set_params(algorithm="map")
    expected = enumerate_paths(*chain).posteriors.argmax(axis=1)
    np.testing.assert_array_equal(model.predict(X), expected)


def test_forecast_of_states(small):
    model, _, X, chain = small
    forecast = model.forecast(X, 3)
    np.testing.assert_allclose(
        forecast.state_probabilities, forecast_states(*chain, n_steps=3), atol=1e-12
    )


def test_forecast_of_observations(small, family):
    """Moments (Gaussian), means (Poisson), probabilities (categorical) of the mixture ahead."""
    model, parameters, X, chain = small
    forecast = model.forecast(X, 2)
    weights = forecast_states(*chain, n_steps=2)
    if family.name == "poisson":
        np.testing.assert_allclose(forecast.means, weights @ parameters["rates"], rtol=1e-12)
    elif family.name == "categorical":
        for column, table in enumerate(parameters["emissionprob"]):
            np.testing.assert_allclose(
                forecast.probabilities[:, column, : table.shape[1]], weights @ table, rtol=1e-12
            )
    else:
        means = parameters["means"]
        covariances = full_covariances(
            parameters["covars"], family.estimator_parameters["covariance_type"], 3, 2
        )
        np.testing.assert_allclose(forecast.means, weights @ means, rtol=1e-12)
        for ahead in range(2):
            mean = weights[ahead] @ means
            second = sum(
                w * (S + np.outer(m, m)) for w, S, m in zip(weights[ahead], covariances, means)
            )
            np.testing.assert_allclose(
                forecast.covariances[ahead], second - np.outer(mean, mean), rtol=1e-9
            )


def test_posterior_draws_have_the_frequencies_of_the_paths(family, rng, known):
    parameters = family.random_parameters(rng, 2, 1)
    X = family.sample(rng, 4, parameters)
    model = known(parameters)
    slow = enumerate_paths(
        parameters["startprob"], parameters["transmat"], family.log_obs(X, parameters)
    )
    n_draws = 20_000
    draws = model.sample_posterior(X, n_draws=n_draws, random_state=0)
    assert draws.shape == (n_draws, 4)
    code = draws @ (2 ** np.arange(3, -1, -1))
    frequency = np.bincount(code, minlength=16) / n_draws
    expected = np.exp(slow.log_joint - slow.log_likelihood)
    # five standard errors of a proportion, at each of the 16 paths
    tolerance = 5 * np.sqrt(expected * (1 - expected) / n_draws) + 1e-4
    assert np.all(np.abs(frequency - expected) < tolerance)
    again = model.sample_posterior(X, n_draws=n_draws, random_state=0)
    np.testing.assert_array_equal(draws, again)
    assert model.sample_posterior(X, random_state=0).shape == (1, 4)


# --- Against passes in log space, at length ---------------------------------------------------


def test_a_long_sequence(family, rng, known):
    parameters = family.random_parameters(rng, 4, 2)
    X = family.sample(rng, 1000, parameters)
    X[rng.random(X.shape) < 0.05] = np.nan
    chain = (parameters["startprob"], parameters["transmat"], family.log_obs(X, parameters))
    model = known(parameters)
    smoothed = log_smooth(*chain)
    np.testing.assert_allclose(model.score_samples(X), log_conditionals(*chain), atol=1e-9)
    np.testing.assert_allclose(model.predict_proba(X), smoothed.posteriors, atol=1e-9)
    value, path = log_viterbi(*chain)
    log_probability, states = model.decode(X)
    assert log_probability == pytest.approx(value, rel=1e-11)
    np.testing.assert_array_equal(states, path)


@pytest.mark.parametrize("n_states", [1, 2, 5, 8, 16, 17, 40])
def test_every_number_of_states(rng, n_states):
    """Kernels are written per number of states: small ones, large ones, and the border."""
    family = next(family for family in FAMILIES if family.name == "gaussian-diag")
    parameters = family.random_parameters(rng, n_states, 2)
    sequences = [family.sample(rng, n, parameters) for n in (1, 70, 3, 200, 33)]
    model = estimator_class(family).from_parameters(**parameters)
    states, posteriors = model.predict(sequences), model.predict_proba(sequences)
    totals = model.score_sequences(sequences)
    for i, X in enumerate(sequences):
        chain = (parameters["startprob"], parameters["transmat"], family.log_obs(X, parameters))
        smoothed = log_smooth(*chain)
        assert totals[i] == pytest.approx(smoothed.log_likelihood, rel=1e-11)
        np.testing.assert_allclose(posteriors[i], smoothed.posteriors, atol=1e-10)
        np.testing.assert_array_equal(states[i], log_viterbi(*chain)[1])


# --- Missing observations ---------------------------------------------------------------------


def test_nothing_observed_leaves_the_chain_alone(family, rng, known):
    parameters = family.random_parameters(rng, 3, 2)
    model = known(parameters)
    X = np.full((5, 2), np.nan)
    np.testing.assert_allclose(model.score_samples(X), np.zeros(5), atol=1e-14)
    expected = [
        parameters["startprob"] @ np.linalg.matrix_power(parameters["transmat"], t)
        for t in range(5)
    ]
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-12)
    np.testing.assert_allclose(model.filter(X), expected, atol=1e-12)


def test_a_missing_tail_changes_nothing_before_it(family, rng, known):
    parameters = family.random_parameters(rng, 3, 2)
    model = known(parameters)
    X = family.sample(rng, 20, parameters)
    longer = np.vstack([X, np.full((4, 2), np.nan)])
    np.testing.assert_allclose(
        model.predict_proba(longer)[:20], model.predict_proba(X), atol=1e-12
    )
    np.testing.assert_allclose(model.score_samples(longer)[:20], model.score_samples(X))
    np.testing.assert_allclose(
        model.predict_proba(longer)[20:], model.forecast(X, 4).state_probabilities, atol=1e-12
    )


# --- Symmetries -------------------------------------------------------------------------------


def test_the_names_of_the_states_do_not_matter(family, rng, known):
    parameters = family.random_parameters(rng, 4, 2)
    X = family.sample(rng, 50, parameters)
    order = np.array([2, 0, 3, 1])
    renamed = {
        "startprob": parameters["startprob"][order],
        "transmat": parameters["transmat"][np.ix_(order, order)],
    }
    for name in set(parameters) - set(renamed):
        value = parameters[name]
        if isinstance(value, list):
            renamed[name] = [table[order] for table in value]
        elif family.estimator_parameters.get("covariance_type") == "tied" and name == "covars":
            renamed[name] = value
        else:
            renamed[name] = value[order]
    before, after = known(parameters), known(renamed)
    np.testing.assert_allclose(after.score_samples(X), before.score_samples(X), atol=1e-11)
    np.testing.assert_allclose(
        after.predict_proba(X), before.predict_proba(X)[:, order], atol=1e-11
    )
    np.testing.assert_array_equal(order[after.predict(X)], before.predict(X))


def test_sequences_do_not_see_each_other(family, rng, known):
    """Permuting sequences permutes outputs; one alone is its slice of all."""
    parameters = family.random_parameters(rng, 3, 2)
    sequences = [family.sample(rng, n, parameters) for n in (5, 40, 1, 13)]
    model = known(parameters)
    order = [3, 1, 0, 2]
    for method in ("predict", "predict_proba", "score_samples", "filter", "transform"):
        together = getattr(model, method)(sequences)
        permuted = getattr(model, method)([sequences[i] for i in order])
        for place, i in enumerate(order):
            alone = getattr(model, method)(sequences[i])
            np.testing.assert_allclose(together[i], alone, rtol=1e-12, atol=1e-13, err_msg=method)
            np.testing.assert_allclose(permuted[place], together[i], rtol=1e-12, atol=1e-13)


def test_n_jobs_changes_no_bit(family, rng, known, monkeypatch):
    """More steps than one shard holds, so that the work is really divided."""
    monkeypatch.setattr("sklseq.hmm._chain.SOURCE_SHARD_STEPS", 16_384)
    parameters = family.random_parameters(rng, 3, 2)
    base = family.sample(rng, 1000, parameters)
    sequences = [base[rng.integers(0, 1000, n)] for n in rng.integers(500, 1500, 50)]
    assert sum(map(len, sequences)) > 2 * 16_384
    one, two = known(parameters, n_jobs=1), known(parameters, n_jobs=2)
    np.testing.assert_array_equal(one.score_sequences(sequences), two.score_sequences(sequences))
    assert one.score(sequences) == two.score(sequences)
    for a, b in zip(one.predict_proba(sequences), two.predict_proba(sequences)):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(one.predict(sequences), two.predict(sequences)):
        np.testing.assert_array_equal(a, b)


def test_collections_come_back_as_collections(family, rng, known):
    """What is per sequence is stacked, what is per step has the form of X, counts are added."""
    parameters = family.random_parameters(rng, 3, 2)
    sequences = [family.sample(rng, n, parameters) for n in (5, 1, 9)]
    model = known(parameters)
    alone = [model.forward_backward(X) for X in sequences]
    together = model.forward_backward(sequences)
    for field in ("filtered", "log_backward", "posteriors"):
        for one, part in zip(alone, getattr(together, field)):
            np.testing.assert_allclose(getattr(one, field), part, atol=1e-12)
    np.testing.assert_allclose(
        together.transition_counts, sum(one.transition_counts for one in alone), atol=1e-12
    )
    np.testing.assert_allclose(
        together.log_likelihood, model.score_sequences(sequences), rtol=1e-12
    )
    log_probability, states = model.decode(sequences)
    paths = [model.decode(X) for X in sequences]
    assert log_probability == pytest.approx(sum(path[0] for path in paths))
    for one, part in zip(paths, states):
        np.testing.assert_array_equal(one[1], part)
    forecast = model.forecast(sequences, 4)
    assert forecast.state_probabilities.shape == (3, 4, 3)
    for X, ahead in zip(sequences, forecast.state_probabilities):
        np.testing.assert_allclose(model.forecast(X, 4).state_probabilities, ahead, atol=1e-12)
    draws = model.sample_posterior(sequences, 7, random_state=0)
    assert [part.shape for part in draws] == [(7, 5), (7, 1), (7, 9)]
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match="n_steps"):
            model.forecast(sequences, wrong)
        with pytest.raises(ValueError, match="n_draws"):
            model.sample_posterior(sequences, wrong)
        with pytest.raises(ValueError, match="n_samples"):
            model.sample(wrong)
        with pytest.raises(ValueError, match="n_sequences"):
            model.sample(2, n_sequences=wrong)


# --- Weights ----------------------------------------------------------------------------------


def test_score_takes_weights_of_steps_or_of_sequences(family, rng, known):
    parameters = family.random_parameters(rng, 2, 1)
    sequences = [family.sample(rng, n, parameters) for n in (4, 9, 2)]
    model = known(parameters)
    X = sequences[1]
    weights = rng.uniform(0.1, 2.0, len(X))
    expected = np.average(model.score_samples(X), weights=weights)
    assert model.score(X, sample_weight=weights) == pytest.approx(expected, rel=1e-12)

    weights = np.array([1.0, 0.0, 3.0])
    totals, lengths = model.score_sequences(sequences), np.array([4, 9, 2])
    expected = (weights * totals).sum() / (weights * lengths).sum()
    assert model.score(sequences, sample_weight=weights) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="sample_weight"):
        model.score(sequences, sample_weight=np.ones(2))
    with pytest.raises(ValueError, match="sample_weight"):
        model.score(X, sample_weight=np.ones(len(X) + 1))
    with pytest.raises(ValueError, match=r"sample_weight.*-2"):
        model.score(sequences, sample_weight=[1.0, -2.0, 1.0])
    with pytest.raises(ValueError, match="sample_weight"):
        model.score(sequences, sample_weight=np.zeros(3))


# --- Sampling ---------------------------------------------------------------------------------


def test_sample_one_sequence(family, rng, known):
    parameters = family.random_parameters(rng, 3, 2)
    model = known(parameters)
    X, states = model.sample(5000, random_state=1)
    assert X.shape == (5000, 2)
    assert states.shape == (5000,)
    again, _ = model.sample(5000, random_state=1)
    np.testing.assert_array_equal(X, again)
    counts = np.zeros((3, 3))
    np.add.at(counts, (states[:-1], states[1:]), 1)
    rows = counts.sum(axis=1, keepdims=True)
    error = np.sqrt(parameters["transmat"] * (1 - parameters["transmat"]) / rows)
    assert np.all(np.abs(counts / rows - parameters["transmat"]) < 5 * error)
    # the rows fit their states: each is likelier under its own than under the others on average
    log_obs = family.log_obs(X[:300], parameters)
    own = log_obs[np.arange(300), states[:300]].mean()
    assert own > logsumexp(log_obs, axis=1).mean() - np.log(3)
    one_row, one_state = model.sample(random_state=1)
    assert one_row.shape == (1, 2)
    assert one_state.shape == (1,)


def test_sample_many_sequences(family, rng, known):
    parameters = family.random_parameters(rng, 3, 2)
    model = known(parameters)
    sequences, states = model.sample(4, n_sequences=3000, random_state=5)
    assert len(sequences) == len(states) == 3000
    assert all(X.shape == (4, 2) and s.shape == (4,) for X, s in zip(sequences, states))
    first = np.bincount([s[0] for s in states], minlength=3) / 3000
    error = np.sqrt(parameters["startprob"] * (1 - parameters["startprob"]) / 3000)
    assert np.all(np.abs(first - parameters["startprob"]) < 5 * error)
    # what it drew can be given back
    assert np.isfinite(model.score(sequences))


# --- Impossible sequences ---------------------------------------------------------------------


# a Gaussian density is nowhere zero
WITH_ZEROS = pytest.mark.parametrize(
    "family",
    [family for family in FAMILIES if not family.name.startswith("gaussian")],
    indirect=True,
    ids=lambda family: family.name,
)


def impossible_model(family, known):
    """State 1 is never entered, and only state 1 could have produced the last row."""
    parameters = {
        "startprob": np.array([1.0, 0.0]),
        "transmat": np.array([[1.0, 0.0], [0.0, 1.0]]),
    }
    if family.name == "categorical":
        parameters["emissionprob"] = np.array([[1.0, 0.0], [0.0, 1.0]])
        rows = np.array([[0.0], [0.0], [1.0], [0.0]])
    else:
        parameters["rates"] = np.array([[0.0], [4.0]])
        rows = np.array([[0.0], [0.0], [3.0], [0.0]])
    return known(parameters), rows


@WITH_ZEROS
def test_an_impossible_sequence_scores_minus_infinity_and_nothing_is_nan(family, known):
    model, X = impossible_model(family, known)
    assert model.score(X) == -np.inf
    possible = X[:2]
    np.testing.assert_array_equal(model.score_sequences([possible, X]) == -np.inf, [False, True])
    assert not np.isnan(model.score_samples(X)).any()
    np.testing.assert_array_equal(model.score_samples(X)[:2], [0.0, 0.0])
    for method in ("predict_proba", "transform"):
        with pytest.raises(ValueError, match=r"(?i)sequence 1\b.*step 2\b"):
            getattr(model, method)([possible, X])


@WITH_ZEROS
def test_fit_refuses_an_impossible_sequence(family, started):
    if family.name == "categorical":
        emission, rows = {"emissionprob": np.eye(2)}, [[0.0], [1.0]]
    else:
        emission, rows = {"rates": np.array([[0.0], [4.0]])}, [[0.0], [3.0]]
    parameters = {"startprob": np.array([1.0, 0.0]), "transmat": np.eye(2), **emission}
    model = started(parameters)
    with pytest.raises(ValueError, match=r"(?i)sequence 0\b.*step 1\b"):
        model.fit(np.array(rows))


# --- Where probabilities underflow ------------------------------------------------------------


def gaussian_chain(means, sds, transmat, startprob=None):
    means = np.array(means, dtype=float)[:, None]
    covars = np.array(sds, dtype=float)[:, None] ** 2
    if startprob is None:
        startprob = np.full(len(means), 1 / len(means))
    parameters = {
        "startprob": np.asarray(startprob, float),
        "transmat": np.asarray(transmat, float),
        "means": means,
        "covars": covars,
    }
    def chain(X):
        return (
            parameters["startprob"],
            parameters["transmat"],
            gaussian_log_obs(X, means, covars, "diag"),
        )

    return GaussianHMM.from_parameters(**parameters), chain


def assert_equals_log_space(model, chain, X):
    smoothed = log_smooth(*chain(X))
    assert model.score_samples(X).sum() == pytest.approx(smoothed.log_likelihood, rel=1e-10)
    np.testing.assert_allclose(model.score_samples(X), log_conditionals(*chain(X)), rtol=1e-8)
    np.testing.assert_allclose(model.predict_proba(X), smoothed.posteriors, atol=1e-9)
    np.testing.assert_allclose(model.filter(X), np.exp(log_filter(*chain(X))[0]), atol=1e-9)


def test_a_state_708_nats_behind_survives():
    """A = I: the state that fits the first row is the worst of all afterwards, 900 times."""
    model, chain = gaussian_chain([0, 60, 30], [1, 1, 30], np.eye(3))
    X = np.concatenate([[0.0], np.full(900, 60.0)])[:, None]
    # 900 steps of -0.919, one of -1800.919, and log 3; -4343 if that state is lost
    assert model.score_samples(X).sum() == pytest.approx(-2629.062, abs=1e-3)
    assert_equals_log_space(model, chain, X)


@pytest.mark.parametrize("leak", [0.0, 1e-300, 1e-200, 1e-30])
def test_nearly_forbidden_transitions(leak):
    model, chain = gaussian_chain(
        [0, 80, -80], [1, 1, 1], np.array([[1 - leak, leak, 0], [0, 1, 0], [0, leak, 1 - leak]])
    )
    X = np.concatenate([np.zeros(3), np.full(4, 80.0), np.zeros(3)])[:, None]
    assert_equals_log_space(model, chain, X)


def test_an_outlier_of_1e8_standard_deviations(rng):
    transmat = np.array([[0.9, 0.1], [0.2, 0.8]])
    model, chain = gaussian_chain([0, 3], [1, 1], transmat)
    X = rng.normal(size=(40, 1))
    X[17] = 1e8
    assert_equals_log_space(model, chain, X)
    assert np.isfinite(model.score(X))


def test_posteriors_sum_to_one(family, rng, known):
    parameters = family.random_parameters(rng, 5, 2)
    model = known(parameters)
    X = family.sample(rng, 500, parameters)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(model.filter(X).sum(axis=1), 1.0, atol=1e-12)
    counts = model.forward_backward(X).transition_counts
    assert counts.sum() == pytest.approx(499, rel=1e-12)


def test_one_row_sequences(family, rng, known):
    parameters = family.random_parameters(rng, 3, 2)
    model = known(parameters)
    X = family.sample(rng, 30, parameters)
    rows = [row[None] for row in X]
    log_obs = family.log_obs(X, parameters)
    expected = logsumexp(np.log(parameters["startprob"]) + log_obs, axis=1)
    np.testing.assert_allclose(model.score_sequences(rows), expected, rtol=1e-11)
    np.testing.assert_array_equal(
        np.concatenate(list(model.predict(rows))),
        (np.log(parameters["startprob"]) + log_obs).argmax(axis=1),
    )


# --- Continuing where training ended ----------------------------------------------------------


def test_continues_starts_from_the_state_at_the_end_of_training(family, rng, started):
    """log p(x_81..x_100 given x_1..x_80) = log p(x_1..x_100) - log p(x_1..x_80)."""
    parameters = family.random_parameters(rng, 2, 1)
    X = family.sample(rng, 100, parameters)
    model = started(parameters, continues=True).fit(X[:80])
    block = model.score_samples(X[80:])
    block_states = model.predict_proba(X[80:])
    fresh = model.set_params(continues=False)
    expected = fresh.score_samples(X)[80:]
    np.testing.assert_allclose(block, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(block_states, fresh.predict_proba(X)[80:], atol=1e-9)
    assert not np.allclose(block[0], fresh.score_samples(X[80:])[0], rtol=1e-6)


def test_continues_needs_one_sequence_and_leaves_collections_alone(family, rng, started):
    parameters = family.random_parameters(rng, 2, 1)
    X, other = family.sample(rng, 60, parameters), family.sample(rng, 20, parameters)
    model = started(parameters, continues=True).fit(X)
    alone = model.score_sequences([other])
    assert alone == model.set_params(continues=False).score_sequences([other])
    model = started(parameters, continues=True).fit([X, other])
    with pytest.raises(ValueError, match="continues"):
        model.score(other)
