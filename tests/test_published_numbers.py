"""Numbers that others printed, each with its source."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from sklseq import CategoricalHMM, PoissonHMM
from sklseq.datasets import load_earthquakes

# --- Zucchini & MacDonald (2009), Hidden Markov Models for Time Series, first edition ---------
# Table 4.1 and 4.2: EM on the earthquake counts. Table 6.1: log-likelihoods, AIC and BIC.
# Section 4.2.3: the parameters. Table 5.4: state forecasts.


@pytest.fixture(scope="module")
def earthquakes():
    return load_earthquakes().data


def poisson_start(rates, **params):
    n_states = len(rates)
    transmat = np.full((n_states, n_states), 0.1)
    np.fill_diagonal(transmat, 1 - 0.1 * (n_states - 1))
    if params.get("initial_state") != "stationary":
        params["startprob_init"] = np.full(n_states, 1 / n_states)
    return PoissonHMM(
        n_states,
        transmat_init=transmat,
        rates_init=np.array(rates)[:, None],
        **params,
    )


# iteration: (lambda, delta_1, -l)
TABLE_4_1 = {
    1: ([13.742, 24.169], 0.99963, 343.76023),
    2: ([14.090, 24.061], 1.00000, 343.13618),
    30: ([15.419, 26.014], 1.00000, 341.87871),
    50: ([15.421, 26.018], 1.00000, 341.87870),
}
TABLE_4_2 = {
    1: ([11.699, 19.030, 29.741], 0.92471, 332.12143),
    2: ([12.265, 19.078, 29.581], 0.99588, 330.63689),
    30: ([13.134, 19.713, 29.710], 1.00000, 328.52748),
}


@pytest.mark.parametrize(
    ("start", "at_start", "table"),
    [([10.0, 30.0], 413.27542, TABLE_4_1), ([10.0, 20.0, 30.0], 342.90781, TABLE_4_2)],
    ids=["table 4.1, m = 2", "table 4.2, m = 3"],
)
def test_earthquakes_em_iterates(earthquakes, start, at_start, table):
    for n_iter, (rates, delta, minus_log_likelihood) in table.items():
        model = poisson_start(start, max_iter=n_iter, tol=0.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(earthquakes)
        assert model.n_iter_ == n_iter
        np.testing.assert_allclose(model.rates_.ravel(), rates, atol=6e-4)
        assert model.startprob_[0] == pytest.approx(delta, abs=6e-6)
        history = -model.log_likelihoods_ * len(earthquakes)
        assert history[0] == pytest.approx(at_start, abs=6e-6)
        assert history[-1] == pytest.approx(minus_log_likelihood, abs=1.1e-5)


@pytest.mark.parametrize(
    ("n_states", "minus_log_likelihood"), [(1, 391.9189), (2, 341.8787), (3, 328.5275)]
)
def test_earthquakes_optimum_is_found_from_the_default_start(
    earthquakes, n_states, minus_log_likelihood
):
    model = PoissonHMM(n_states, tol=1e-9, max_iter=2000, n_init=10, random_state=0)
    model.fit(earthquakes)
    assert model.converged_
    total = model.score_samples(earthquakes).sum()
    assert -total == pytest.approx(minus_log_likelihood, abs=1e-3)


@pytest.mark.parametrize(
    ("n_states", "minus_log_likelihood", "aic", "bic"),
    [
        (1, 391.9189, 785.8, 788.5),
        (2, 342.3183, 692.6, 703.3),
        (3, 329.4603, 676.9, 701.0),
    ],
)
def test_earthquakes_stationary_models(earthquakes, n_states, minus_log_likelihood, aic, bic):
    model = PoissonHMM(
        n_states, initial_state="stationary", tol=1e-10, max_iter=5000, n_init=5, random_state=0
    )
    model.fit(earthquakes)
    assert -model.score_samples(earthquakes).sum() == pytest.approx(minus_log_likelihood, abs=1e-3)
    np.testing.assert_allclose(model.startprob_ @ model.transmat_, model.startprob_, atol=1e-10)
    # m * m free parameters: an element that EM drove towards zero was free all the same
    assert model.aic(earthquakes) == pytest.approx(aic, abs=0.06)
    assert model.bic(earthquakes) == pytest.approx(bic, abs=0.06)


def test_earthquakes_stationary_parameters(earthquakes):
    two = poisson_start([10.0, 30.0], initial_state="stationary", tol=1e-11, max_iter=5000)
    two.fit(earthquakes)
    np.testing.assert_allclose(two.rates_.ravel(), [15.472, 26.125], atol=2e-3)
    assert two.transmat_[0, 1] == pytest.approx(0.065961, abs=1e-4)
    assert two.transmat_[1, 0] == pytest.approx(0.12851, abs=1e-4)
    assert two.startprob_[0] == pytest.approx(0.66082, abs=2e-4)

    three = poisson_start([10.0, 20.0, 30.0], initial_state="stationary", tol=1e-11, max_iter=5000)
    three.fit(earthquakes)
    np.testing.assert_allclose(three.rates_.ravel(), [13.146, 19.721, 29.714], atol=2e-3)
    np.testing.assert_allclose(
        three.transmat_,
        [[0.9546, 0.0244, 0.0209], [0.0498, 0.8994, 0.0509], [0.0000, 0.1966, 0.8034]],
        atol=3e-4,
    )
    np.testing.assert_allclose(three.startprob_, [0.4436, 0.4045, 0.1519], atol=3e-4)


def test_earthquakes_state_forecast_and_decoding(earthquakes):
    """Table 5.4: state predictions for 2007, 2008, 2009, 2016, 2026 and 2036, stationary m = 3.

    Local and global decoding (sections 5.3.1, 5.3.2) differ in 1911 and 1941, as marked in its
    figures, and hardly anywhere else.
    """
    model = PoissonHMM.from_parameters(
        startprob=[0.44364, 0.40450, 0.15186],
        transmat=[
            [0.9546243, 0.0244426, 0.0209331],
            [0.0497668, 0.8993673, 0.0508659],
            [0.0, 0.1966420, 0.8033580],
        ],
        rates=[[13.146], [19.721], [29.714]],
    )
    states = model.forecast(earthquakes, 30).state_probabilities
    printed = {
        1: [0.951, 0.028, 0.021],
        2: [0.909, 0.053, 0.038],
        3: [0.871, 0.077, 0.052],
        10: [0.674, 0.220, 0.107],
        20: [0.538, 0.328, 0.134],
        30: [0.482, 0.373, 0.145],
    }
    for ahead, row in printed.items():
        np.testing.assert_allclose(states[ahead - 1], row, atol=1.1e-3)
    globally = model.predict(earthquakes)
    locally = model.predict_proba(earthquakes).argmax(axis=1)
    differing = set((1900 + np.flatnonzero(globally != locally)).tolist())
    assert differing >= {1911, 1941}
    assert len(differing) <= 3


# --- Russell & Norvig (2010), Artificial Intelligence, third edition, section 15.2 ------------


@pytest.fixture
def umbrella():
    """States rain, dry; symbols no umbrella, umbrella. Day 0 has probability one half of rain."""
    return CategoricalHMM.from_parameters(
        startprob=[0.5, 0.5],
        transmat=[[0.7, 0.3], [0.3, 0.7]],
        emissionprob=[[0.1, 0.9], [0.8, 0.2]],
    )


def test_umbrella_filtering_and_smoothing(umbrella):
    two_days = np.array([[1], [1]])
    filtered = umbrella.filter(two_days)
    assert filtered[0, 0] == pytest.approx(0.818, abs=5e-4)
    assert filtered[1, 0] == pytest.approx(0.883, abs=5e-4)
    assert umbrella.predict_proba(two_days)[0, 0] == pytest.approx(0.883, abs=5e-4)
    # prediction one day ahead tends to one half, section 15.2.1
    ahead = umbrella.forecast(two_days, 60).state_probabilities
    assert ahead[0, 0] == pytest.approx(0.7 * 0.8834 + 0.3 * 0.1166, abs=1e-4)
    assert ahead[-1, 0] == pytest.approx(0.5, abs=1e-9)


def test_umbrella_viterbi_messages(umbrella):
    """Figure 15.5: the messages m_1:t for umbrella on days 1, 2, 4 and 5, none on day 3."""
    days = np.array([[1], [1], [0], [1], [1]])
    log_probability, states = umbrella.decode(days)
    np.testing.assert_array_equal(states, [0, 0, 1, 0, 0])
    # the figure normalises the first message alone
    first_day = 0.5 * 0.9 + 0.5 * 0.2
    for day, message in enumerate([0.8182, 0.5155, 0.1237, 0.0334, 0.0210]):
        best, _ = umbrella.decode(days[: day + 1])
        assert np.exp(best) / first_day == pytest.approx(message, abs=6e-5)
    assert np.exp(log_probability) / first_day == pytest.approx(0.0210, abs=6e-5)


def test_umbrella_five_days(umbrella):
    """The worked example of the encyclopaedia article "Forward-backward algorithm"."""
    messages = umbrella.forward_backward(np.array([[1], [1], [0], [1], [1]]))
    np.testing.assert_allclose(
        messages.filtered[:, 0], [0.8182, 0.8834, 0.1907, 0.7308, 0.8673], atol=6e-5
    )
    np.testing.assert_allclose(
        messages.posteriors[:, 0], [0.8673, 0.8204, 0.3075, 0.8204, 0.8673], atol=6e-5
    )
    backward = np.exp(messages.log_backward)
    backward /= backward.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(backward[:, 0], [0.5923, 0.3763, 0.6533, 0.6273, 0.5], atol=6e-5)


# --- Rabiner (1989), A tutorial on hidden Markov models, Proc. IEEE 77, section II.A ----------


def test_rabiner_weather_chain():
    """P(sun sun sun rain rain sun cloudy sun) = 1.536e-4: states seen without error, hard zeros."""
    rain, cloudy, sunny = range(3)
    chain = CategoricalHMM.from_parameters(
        startprob=[0, 0, 1],
        transmat=[[0.4, 0.3, 0.3], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]],
        emissionprob=np.eye(3),
    )
    days = np.array([sunny, sunny, sunny, rain, rain, sunny, cloudy, sunny])
    X = days[:, None]
    assert np.exp(chain.score_samples(X).sum()) == pytest.approx(1.536e-4, rel=1e-12)
    log_probability, states = chain.decode(X)
    assert np.exp(log_probability) == pytest.approx(1.536e-4, rel=1e-12)
    np.testing.assert_array_equal(states, days)
    posteriors = chain.predict_proba(X)
    np.testing.assert_allclose(posteriors, np.eye(3)[days], rtol=1e-14)
    assert np.all(posteriors[np.eye(3)[days] == 0] == 0)
    # it does not begin in the rain: impossible, and said so
    assert chain.score(np.array([[rain], [rain]])) == -np.inf
    # P(d days of sun, then another) = a^(d-1) (1 - a): mean stays of 1.67, 2.5 and 5 days
    stays = 1 / (1 - np.diag(chain.transmat_))
    np.testing.assert_allclose(stays, [1.67, 2.5, 5.0], atol=5e-3)
    sunny_days = np.full((5, 1), sunny)
    per_day = chain.score_samples(sunny_days)
    np.testing.assert_allclose(np.exp(per_day), [1, 0.8, 0.8, 0.8, 0.8], rtol=1e-12)


# --- Durbin, Eddy, Krogh & Mitchison (1998), Biological Sequence Analysis, section 3.2 --------

# figure 3.5: 300 rolls of the occasionally dishonest casino
ROLLS = (
    "315116246446644245311321631164152133625144543631656626566666"
    "651166453132651245636664631636663162326455236266666625151631"
    "222555441666566563564324364131513465146353411126414626253356"
    "366163666466232534413661661163252562462255265252266435353336"
    "233121625364414432335163243633665562466662632666612355245242"
)
# its Viterbi line, in runs: fair, loaded, fair, ...
VITERBI_RUNS = [48, 18, 12, 34, 67, 13, 78, 19, 11]


def test_occasionally_dishonest_casino():
    casino = CategoricalHMM.from_parameters(
        startprob=[0.99, 0.01],
        transmat=[[0.95, 0.05], [0.1, 0.9]],
        emissionprob=[[1 / 6] * 6, [0.1] * 5 + [0.5]],
    )
    X = np.array([[int(face) - 1] for face in ROLLS])
    log_probability, states = casino.decode(X)
    np.testing.assert_array_equal(
        np.diff(np.flatnonzero(np.diff(states, prepend=-1, append=-1))), VITERBI_RUNS
    )
    assert states[0] == 0
    # with the same start, the R package aphid prints these two for the same rolls
    assert log_probability == pytest.approx(-538.8109, abs=1e-4)
    assert casino.score_samples(X).sum() == pytest.approx(-516.4525, abs=1e-4)
    loaded = casino.predict_proba(X)[:, 1]
    assert np.mean((loaded > 0.5) == states) > 0.9
