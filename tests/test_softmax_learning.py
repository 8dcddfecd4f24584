"""Variational EM of SoftmaxStateSpace: steps, monotony, what it finds and Laplace-EM does not."""

import warnings

import numpy as np
import pytest
import references_softmax as reference
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.linalg import solve_discrete_lyapunov
from sklearn.exceptions import ConvergenceWarning

from sklseq import SoftmaxStateSpace
from sklseq.state_space import _softmax_model as learning
from sklseq.state_space._chain import LinearGaussianChain
from sklseq.state_space._quadrature import sigma_rule
from sklseq.state_space._softmax_posterior import Words


def known(model, **params):
    return SoftmaxStateSpace.from_parameters(
        transition_matrix=model["A"],
        transition_covariance=model["Q"],
        observation_matrix=model["B"],
        observation_offset=model["b"],
        initial_state_mean=model["mean"],
        initial_state_covariance=model["covariance"],
        **params,
    )


def parameters(estimator):
    return {
        "A": estimator.transition_matrix_, "Q": estimator.transition_covariance_,
        "B": estimator.observation_matrix_, "b": estimator.observation_offset_,
        "mean": estimator.initial_state_mean_, "covariance": estimator.initial_state_covariance_,
    }  # fmt: skip


def collection(model, n_sequences, n_steps, seed, n_words=1):
    return [
        reference.simulate(model, n_steps, 1000 * seed + i, n_words)[0] for i in range(n_sequences)
    ]


def strong_model(strength=2.6):
    """d = 1, V = 3 with a given signal strength."""
    model = reference.random_model(3, 1, 3, offset=0.3)
    return model | {"B": model["B"] * strength / reference.signal_strength(model)[0]}


# ---- one step


def value_of(model, alpha=0.0, **fields):
    chain = LinearGaussianChain(model["A"], model["Q"], model["mean"], model["covariance"])
    return learning.SoftmaxModel(
        chain, Words(model["B"], model["b"]), alpha, np.zeros(len(model["b"])), **fields
    )


@pytest.mark.parametrize(("d", "V", "alpha"), [(1, 3, 0.0), (2, 6, 0.0), (2, 6, 3.0)])
def test_m_step_is_the_oracles(monkeypatch, d, V, alpha):
    """Same beliefs, plain sums and a general optimiser; compared where the gauge cannot tell."""
    monkeypatch.setattr(learning, "M_STEP_ITERATIONS", 500)
    monkeypatch.setattr(learning, "M_STEP_GAIN", 1e-15)
    model = reference.random_model(1, d, V, strength=0.7)
    sequences = collection(model, 4, 15, 1, 2)
    value = value_of(model, alpha)
    offsets = np.arange(5, dtype=np.intp) * 15
    X = sparse.csr_array(np.vstack(sequences))
    statistics, _ = value.e_step(X, offsets)
    new = value.m_step(statistics)
    moments = value.posterior(X, offsets).moments

    class Belief:
        def __init__(self, rows):
            self.means, self.covariances, self.lag_one = (values[rows] for values in moments)

    beliefs = [Belief(slice(15 * i, 15 * i + 15)) for i in range(4)]
    oracle = reference.em_step(model, sequences, beliefs, sigma_rule(d), alpha=alpha)
    for mine, theirs in zip(new.words, (oracle["B"], oracle["b"])):
        assert_allclose(mine - mine.mean(0), theirs - theirs.mean(0), atol=2e-5)
    assert_allclose(new.chain.transition_matrix, oracle["A"], atol=1e-9)
    if alpha == 0:
        assert_allclose(new.chain.initial_mean, oracle["mean"], atol=1e-9)
        assert_allclose(new.chain.initial_covariance, oracle["covariance"], atol=1e-9)
        assert_allclose(new.chain.transition_covariance, oracle["Q"], atol=1e-9)
        return
    # Gamma trades its density against the penalty alpha tr(B Gamma B') / 2
    penalty, count = alpha * new.words.matrix.T @ new.words.matrix, 4 * 14
    # mu0 is shrunk to 0 and P0 to Gamma, each at the other parameters of before
    mean, P0, V = new.chain.initial_mean, new.chain.initial_covariance, model["Q"]
    pull = alpha * np.linalg.inv(V)
    precision = 4 * np.linalg.inv(model["covariance"])
    shrunk = np.linalg.solve(precision + pull, precision @ oracle["mean"])
    assert_allclose(mean, shrunk, atol=1e-9)
    spread = 4 * (oracle["covariance"] + np.outer(*[oracle["mean"] - mean] * 2)) + alpha * V
    assert_allclose(4 * P0 + P0 @ pull @ P0, spread, atol=1e-9)

    def objective(Gamma):
        inverse = np.linalg.inv(Gamma)
        return -0.5 * (
            count * (np.linalg.slogdet(Gamma)[1] + np.trace(inverse @ oracle["Q"]))
            + np.trace(penalty @ Gamma) + alpha * (
                mean @ inverse @ mean + np.trace(inverse @ P0) + np.trace(np.linalg.inv(P0) @ Gamma)
            )
        )  # fmt: skip

    best = objective(new.chain.transition_covariance)
    rng = np.random.default_rng(0)
    for _ in range(30):
        move = 1e-3 * rng.normal(size=(d, d))
        assert objective(new.chain.transition_covariance + move + move.T) <= best


def test_whitening_changes_coordinates_only():
    model = reference.random_model(1, 2, 6)
    X = sparse.csr_array(np.vstack(collection(model, 3, 20, 1)))
    offsets = np.arange(4, dtype=np.intp) * 20
    value = value_of(model, 2.0, free_gauge=True)
    white = value.whitened()
    assert_array_equal(white.chain.transition_covariance, np.eye(2))
    assert_allclose(white.log_prior(), value.log_prior(), rtol=1e-12)
    scores = [one.sequence_scores(X, offsets, 0, 0)[0] for one in (value, white)]
    assert_allclose(*scores, atol=1e-3)
    bounds = [one.posterior(X, offsets).bounds for one in (value, white)]
    assert_allclose(*bounds, atol=0.05)  # the rule's nodes turn with the coordinates


def test_statistics_add_up():
    """Two shards or one: the same M-step."""
    model = reference.random_model(1, 2, 6)
    sequences = collection(model, 4, 10, 1)
    value = value_of(model, 1.0)
    offsets = np.arange(5, dtype=np.intp) * 10
    X = sparse.csr_array(np.vstack(sequences))
    whole, bound = value.e_step(X, offsets)
    first, bound_1 = value.e_step(X[:20], offsets[:3])
    second, bound_2 = value.e_step(X[20:], offsets[:3])
    from sklseq._em import add_statistics

    assert_allclose(bound_1 + bound_2, bound, rtol=1e-12)
    joined = value.m_step(add_statistics(first, second))
    alone = value.m_step(whole)
    assert_allclose(joined.words.matrix, alone.words.matrix, atol=1e-6)
    assert_allclose(joined.chain.transition_matrix, alone.chain.transition_matrix, atol=1e-10)


def test_parameters_as_a_vector():
    model = reference.random_model(1, 2, 6)
    for fields in ({}, {"free_gauge": True}, {"held": {"observation_offset": np.array(True)}}):
        value = value_of(model, 1.0, **fields)
        vector = value.to_vector()
        back = value.from_vector(vector)
        for name in ("transition_matrix", "transition_covariance", "initial_covariance"):
            assert_allclose(getattr(back.chain, name), getattr(value.chain, name), atol=1e-12)
        assert_allclose(back.words.matrix, value.words.matrix)
        moved = value.from_vector(vector + 0.01)
        assert_allclose(moved.to_vector(), vector + 0.01, atol=1e-9)
        assert value.from_vector(vector * np.nan) is None


# ---- whole fits


@pytest.mark.parametrize("acceleration", ["squarem", None])
@pytest.mark.parametrize(
    ("d", "alpha", "params"),
    [
        (1, 0.0, {}),
        (2, 1.0, {}),
        (2, 10.0, {"initial_state": "stationary"}),
        (4, 1.0, {}),
        (2, 1.0, {"fit_intercept": False}),
        (2, 1.0, {"transition_matrix_init": [[0.9, 0.1], [0.0, 0.8]],
                  "fixed": "transition_matrix"}),
        (2, 1.0, {"transition_covariance_type": "diag", "observation_offset_init": np.zeros(8),
                  "fixed": {"observation_offset": np.arange(8) < 4}}),
    ],
)  # fmt: skip
def test_the_bound_never_falls(d, alpha, params, acceleration):
    model = reference.random_model(2, 2, 8)
    X = collection(model, 5, 40, 3)
    estimator = SoftmaxStateSpace(
        d, alpha=alpha, acceleration=acceleration, max_iter=30, tol=1e-9, **params
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(X)
    assert not any("fell" in str(warning.message) for warning in caught)
    assert np.diff(estimator.objectives_).min() > -1e-9
    assert len(estimator.objectives_) == len(estimator.lower_bounds_) == estimator.n_iter_ + 1
    # the bound is of the returned parameters, and below the likelihood up to the rule's error
    assert estimator.lower_bound_ < estimator.score(X) + 5e-3


def test_a_fall_by_the_rule_is_told_as_such():
    """Sequences that differ as wholes: unpenalised P0 runs off, where 27 points are too few."""
    rng = np.random.default_rng(2)
    X = [np.eye(3)[rng.integers(0, 3 - i % 2, 15)] for i in range(30)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator = SoftmaxStateSpace(3, alpha=1e-3).fit(X)
    texts = [str(warning.message) for warning in caught]
    assert sum("quadrature" in text for text in texts) == 1
    assert not any("bug" in text or "invalid value" in text for text in texts)
    assert [warning.filename for warning in caught] == [__file__]
    assert not estimator.converged_
    assert np.diff(estimator.objectives_).min() >= 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConvergenceWarning, match="quadrature"):
            SoftmaxStateSpace(3, alpha=1e-3).fit(X)


def test_other_warnings_of_a_fit_pass_through():
    X = collection(reference.random_model(2, 2, 8), 5, 40, 3)
    with pytest.warns(ConvergenceWarning, match="max_iter=2") as caught:
        SoftmaxStateSpace(2, max_iter=2, tol=0).fit(X)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("n_words", [1, 20])
def test_learns_what_made_the_data(n_words):
    """Issue 4: held-out score within 0.002 nats per step of the truth's, strength within 15 %."""
    truth = strong_model()
    train = collection(truth, 60, 100, 1, n_words)
    test = collection(truth, 60, 100, 2, n_words)
    estimator = SoftmaxStateSpace(tol=1e-5).fit(train)
    assert estimator.converged_
    scores = [one.set_params(n_particles=200).score(test) for one in (estimator, known(truth))]
    assert abs(scores[0] - scores[1]) < 0.002
    strength = reference.signal_strength(parameters(estimator))[0]
    assert abs(strength / 2.6 - 1) < 0.15
    assert abs(estimator.transition_matrix_[0, 0] - truth["A"][0, 0]) < 0.03


def laplace_em(model, sequences, n_iter):
    """The usual recipe: E-step at the mode, sigma-point M-step.  Yields the models."""
    rule = reference.hermite_rule(1, 9)
    for _ in range(n_iter):
        beliefs = [
            reference.gaussian_posterior(model, Y, reference.MODE, max_iter=12, tol=1e-8)
            for Y in sequences
        ]
        model = reference.em_step(model, sequences, beliefs, rule, learn_covariance=False)
        # the state's scale is a matter of units: variance one
        P = solve_discrete_lyapunov(model["A"], model["Q"])
        model = reference.transformed(model, 1 / np.sqrt(P)) | {
            "covariance": np.eye(1), "mean": np.zeros(1)
        }
        yield model


def test_laplace_em_drifts_away_and_ours_does_not():
    """Both start at the truth; the recipe avoided here leaves it, and the likelihood falls."""
    truth = strong_model()
    sequences = collection(truth, 25, 40, 5)
    # the cause: a quarter of the state's second moment is lost at the mode
    laplace = [reference.gaussian_posterior(truth, Y, reference.MODE) for Y in sequences[:10]]
    moments = known(truth).smooth(sequences)
    second = np.mean([q.means[:, 0] ** 2 + q.covariances[:, 0, 0] for q in laplace])
    ours = np.mean([m[:, 0] ** 2 + P[:, 0, 0] for m, P in zip(*moments[:2])][:10])
    assert second < 0.85 * ours

    path = list(laplace_em(truth, sequences, 14))
    start = known(truth, n_particles=0).score(sequences)
    scores = [known(model, n_particles=0).score(sequences) for model in path[5::4]]
    assert start - 0.003 > scores[0] > scores[1] > scores[2]
    assert scores[2] < start - 0.008
    ours = SoftmaxStateSpace(
        alpha=0.0, n_particles=0, transition_matrix_init=truth["A"],
        transition_covariance_init=truth["Q"], observation_matrix_init=truth["B"],
        observation_offset_init=truth["b"], tol=1e-5,
    ).fit(sequences)  # fmt: skip
    assert ours.score(sequences) > start


def test_smoother_is_calibrated():
    """Issue 4: over 1000 simulated sequences the 50 % and 90 % intervals cover within 3 points."""
    truth = strong_model(2.0)
    draws = [reference.simulate(truth, 12, seed) for seed in range(1000)]
    posterior = known(truth).smooth(np.array([Y for Y, _ in draws]))
    states = np.array([S for _, S in draws])
    z = (states[..., 0] - posterior.means[..., 0]) / np.sqrt(posterior.covariances[..., 0, 0])
    for half_width, level in ((0.6744898, 0.5), (1.6448536, 0.9)):
        for step in (0, 6, 11):
            assert abs((np.abs(z[:, step]) < half_width).mean() - level) < 0.03 + 0.015
        assert abs((np.abs(z) < half_width).mean() - level) < 0.03
    assert abs(z.mean()) < 0.05


def test_spectral_start_is_better_than_nothing():
    """It finds the persistence, and saves iterations."""
    model = reference.random_model(3, 2, 10, radius=0.95)
    X = collection(model, 40, 80, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = SoftmaxStateSpace(2, max_iter=0).fit(X)
        fitted = SoftmaxStateSpace(2, max_iter=8).fit(X)
        random = SoftmaxStateSpace(
            2, max_iter=8, observation_matrix_init=np.random.default_rng(0).normal(size=(10, 2)) / 2
        ).fit(X)
    assert start.n_iter_ == 0
    radius = np.abs(np.linalg.eigvals(start.transition_matrix_)).max()
    assert abs(radius - 0.95) < 0.06
    assert start.lower_bounds_[0] > random.lower_bounds_[0]
    assert fitted.lower_bound_ > random.lower_bound_


def test_alpha_shrinks_and_helps_where_data_are_few():
    model = reference.random_model(6, 1, 30, strength=1.0)
    train, test = collection(model, 4, 60, 1), collection(model, 20, 60, 2)
    fits = {
        alpha: SoftmaxStateSpace(1, alpha=alpha, tol=1e-4).fit(train) for alpha in (0.01, 1, 30)
    }
    sizes = [np.linalg.norm(fit.observation_matrix_) for fit in fits.values()]
    assert sizes[0] > sizes[1] > sizes[2]
    scores = {alpha: fit.score(test) for alpha, fit in fits.items()}
    assert scores[1] > scores[0.01]


def test_unseen_words_stay_possible():
    model = strong_model()
    X = [np.hstack([Y, np.zeros((len(Y), 2))]) for Y in collection(model, 10, 40, 1)]
    estimator = SoftmaxStateSpace().fit(X)
    probabilities = estimator.inverse_transform(np.zeros((1, 1)))[0]
    assert np.all(probabilities[3:] > 1e-6)
    assert np.all(probabilities[3:] < 0.05)


def test_logistic_normal_topic_model():
    """Documents as sequences of one step: a state each, B B' their log-odds covariance."""
    rng = np.random.default_rng(0)
    B = 1.2 * rng.normal(size=(12, 2))
    B -= B.mean(0)
    states = rng.normal(size=(400, 2))
    p = np.exp(states @ B.T)
    p /= p.sum(1, keepdims=True)
    X = np.array([rng.multinomial(30, row) for row in p], dtype=float)
    estimator = SoftmaxStateSpace(2, tol=1e-5).fit(list(X[:, None]))
    assert_array_equal(estimator.transition_matrix_, 0.0)
    assert_allclose(estimator.initial_state_covariance_, np.eye(2), atol=1e-12)
    found = estimator.observation_matrix_ @ estimator.observation_matrix_.T
    assert np.abs(found - B @ B.T).max() < 0.25 * np.abs(B @ B.T).max()
    # topics of a document are its words' whatever their order
    means = np.concatenate(list(estimator.transform(list(X[:, None]))))
    fit = np.linalg.lstsq(means, states, rcond=None)[0]
    assert np.corrcoef((means @ fit)[:, 0], states[:, 0])[0, 1] > 0.9


def test_static_and_dynamic_topic_models():
    """A = I held: with Gamma = 0 all steps of a sequence share one state, else it wanders."""
    rng = np.random.default_rng(1)
    B = rng.normal(size=(8, 1))
    B -= B.mean(0)
    X = []
    for _ in range(60):
        p = np.exp(B[:, 0] * rng.normal())
        X.append(rng.multinomial(3, p / p.sum(), size=6).astype(float))
    static = SoftmaxStateSpace(
        1, transition_matrix_init=[[1.0]], transition_covariance_init=0.0,
        initial_state_mean_init=[0.0], initial_state_covariance_init=1.0,
        fixed=("transition_matrix", "transition_covariance", "initial_state_mean",
               "initial_state_covariance"), tol=1e-5,
    ).fit(X)  # fmt: skip
    assert np.diff(static.objectives_).min() > -1e-9
    means = static.transform(X)
    assert all(np.abs(path - path[0]).max() < 1e-8 for path in means)
    # the order of the steps says nothing
    turned = [Y[::-1] for Y in X]
    corrected = static.set_params(n_particles=0)
    assert_allclose(corrected.score_sequences(X), corrected.score_sequences(turned), atol=1e-6)
    pooled = [Y.sum(0, keepdims=True) for Y in X]
    assert_allclose(
        corrected.score_sequences(pooled), known(parameters(static), n_particles=500)
        .score_sequences(X), atol=0.3,
    )  # fmt: skip
    drift = np.cumsum(rng.normal(size=80)) * 0.3
    p = np.exp(np.outer(drift, B[:, 0]))
    Y = np.array([rng.multinomial(40, row / row.sum()) for row in p], dtype=float)
    dynamic = SoftmaxStateSpace(
        1, transition_matrix_init=[[1.0]], fixed="transition_matrix", tol=1e-5
    ).fit(Y)
    assert_array_equal(dynamic.transition_matrix_, 1.0)
    assert_array_equal(dynamic.transition_covariance_, 1.0)
    assert abs(np.corrcoef(dynamic.transform(Y)[:, 0], drift)[0, 1]) > 0.97
