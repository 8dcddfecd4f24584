"""The kernels of the linear-Gaussian pass against the joint Gaussian and 80-digit arithmetic."""

import itertools

import numpy as np
import pytest
import references_kalman as reference
from numpy.testing import assert_allclose
from sklseq.state_space._kalman_pass import sums_pass

from sklseq.state_space._chain import Evidence, LinearGaussianChain
from sklseq.state_space._observation import GaussianObservation

SHAPES = [(1, 1), (2, 1), (1, 3), (3, 2), (2, 6), (4, 4), (6, 2), (8, 3), (9, 4), (17, 5)]


def offsets_of(sequences):
    return np.concatenate([[0], np.cumsum([len(X) for X in sequences])]).astype(np.intp)


def build(model):
    """Chain and observation of a reference model."""
    diagonal = not np.any(model["R"][~np.eye(len(model["R"]), dtype=bool)])
    chain = LinearGaussianChain(model["A"], model["Q"], model["mean"], model["covariance"])
    observation = GaussianObservation(
        model["B"], model["R"], model["offset"], "diag" if diagonal else "full"
    )
    return chain, observation


def sums(chain, evidence, offsets, drift=None):
    n, d = len(evidence.y), chain.n_components
    means, totals = np.empty((n, d)), np.empty((4, d, d))
    by_pattern = np.empty((len(evidence.S), d, d))
    sequence, form = np.empty(len(offsets) - 1), np.empty(len(offsets) - 1, dtype=np.int8)
    arguments = chain._arguments(evidence, offsets, None)
    if drift is not None:
        arguments = (*arguments[:6], drift, *arguments[7:])
    sums_pass(*arguments, sequence, None, form, means, totals, by_pattern)
    return means, totals, by_pattern, sequence, form


def check(model, sequences, drift=None, *, tolerance=1e-10, evidence=None, expect_form=None):
    """Everything that filter, smoother and sums return, against the joint Gaussian."""
    X, offsets = np.concatenate(sequences), offsets_of(sequences)
    chain, observation = build(model)
    inputs = None
    if drift is not None:
        inputs = drift
        chain = LinearGaussianChain(
            chain.transition_matrix, chain.transition_covariance, chain.initial_mean,
            chain.initial_covariance, np.eye(chain.n_components),
        )  # fmt: skip
    evidence = observation.evidence(X)[0] if evidence is None else evidence(observation, X)
    filtered, step, sequence = chain.filter(evidence, offsets, inputs)
    final, sequence_again = chain.final(evidence, offsets, inputs)
    posterior, sequence_smooth = chain.smooth(evidence, offsets, inputs)
    means_only, _ = chain.smoothed_means(evidence, offsets, inputs)
    means, totals, by_pattern, _, form = sums(chain, evidence, offsets, drift)
    expected_sums = np.zeros_like(totals)
    for i, (start, stop) in enumerate(itertools.pairwise(offsets)):
        rows = slice(start, stop)
        part = None if drift is None else drift[rows]
        joint = reference.joint(model, sequences[i], part)
        f_means, f_covariances, log_density = reference.filtered(model, sequences[i], part)
        close = {"rtol": tolerance, "atol": tolerance}
        assert_allclose(step[rows], log_density, **close)
        assert_allclose(sequence[i], joint.log_likelihood, **close)
        assert_allclose(filtered.means[rows], f_means, **close)
        assert_allclose(filtered.covariances[rows], f_covariances, **close)
        assert_allclose(final.means[i], f_means[-1], **close)
        assert_allclose(final.covariances[i], f_covariances[-1], **close)
        for smoothed in (posterior.means, means_only, means):
            assert_allclose(smoothed[rows], joint.means, **close)
        assert_allclose(posterior.covariances[rows], joint.covariances, **close)
        assert_allclose(posterior.lag_one_covariances[rows], joint.lag_one, **close)
        expected_sums += [
            joint.covariances[:-1].sum(axis=0), joint.covariances[1:].sum(axis=0),
            joint.lag_one.sum(axis=0), joint.covariances[0],
        ]  # fmt: skip
    assert_allclose(sequence_again, sequence, rtol=1e-12)
    assert_allclose(sequence_smooth, sequence, rtol=1e-12)
    assert_allclose(totals, expected_sums, rtol=tolerance, atol=10 * tolerance)
    pattern = np.zeros(len(X), dtype=int) if evidence.pattern is None else evidence.pattern
    for q in range(len(evidence.S)):
        expected = posterior.covariances[pattern == q].sum(axis=0)
        assert_allclose(by_pattern[q], expected, rtol=tolerance, atol=10 * tolerance)
    if expect_form is not None:
        assert np.all(form == expect_form)


@pytest.mark.parametrize("d, p", SHAPES)
@pytest.mark.parametrize("diag", [True, False])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_matches_joint_gaussian(d, p, diag, missing):
    model = reference.random_model(d + p, d, p, diag=diag)
    lengths = (1, 7, 20, 2, 7, 9, 9, 9, 3, 9, 3)
    sequences = [reference.simulate(model, n, i, missing)[0] for i, n in enumerate(lengths)]
    if missing:
        sequences[2][4:7] = np.nan
        sequences[3][:] = np.nan
    check(model, sequences, expect_form=0)


@pytest.mark.parametrize("d, p", SHAPES)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_drift(d, p, missing):
    model = reference.random_model(d, d, p)
    sequences = [reference.simulate(model, n, n, missing)[0] for n in (9, 1, 30)]
    drift = np.random.default_rng(0).normal(size=(40, d))
    check(model, sequences, drift)


@pytest.mark.parametrize("d, p", SHAPES)
def test_time_varying_chain(d, p):
    model = reference.random_model(d, d, p)
    rng = np.random.default_rng(1)
    model["A"] = model["A"] * rng.uniform(0.5, 1.1, size=(20, 1, 1))
    model["Q"] = model["Q"] * rng.uniform(0.5, 1.5, size=(20, 1, 1))
    X = rng.normal(size=(20, p))
    check(model, [X, X[:7]])
    X[rng.uniform(size=X.shape) < 0.3] = np.nan
    check(model, [X, X[:7]])


@pytest.mark.parametrize("d, p", SHAPES)
def test_square_root_form_alone(d, p):
    """Evidence that declares its noise (all one) is worked in square-root form throughout."""
    model = reference.random_model(d, d, p)
    for missing in (0.0, 0.3):
        sequences = [reference.simulate(model, n, n, missing)[0] for n in (1, 20, 8)]

        def declared(observation, X):
            evidence = observation.evidence(X)[0]
            return evidence._replace(noise=np.ones(evidence.S.shape[:2]))

        check(model, sequences, evidence=declared, expect_form=1)


def test_a_pattern_for_every_step():
    """Evidence that differs at every step, as softmax observations give it."""
    model = reference.random_model(3, 3, 2)
    sequences = [reference.simulate(model, n, n, 0.2)[0] for n in (15, 40)]

    def unshared(observation, X):
        evidence = observation.evidence(X)[0]
        pattern = np.zeros(len(X), dtype=int) if evidence.pattern is None else evidence.pattern
        return evidence._replace(
            S=np.ascontiguousarray(evidence.S[pattern]), pattern=np.arange(len(X)),
            pattern_constants=evidence.pattern_constants[pattern],
        )  # fmt: skip

    check(model, sequences, evidence=unshared)


@pytest.mark.parametrize("d", [2, 9])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_long_sequence_in_segments(d, missing):
    """Checkpoints, steady states and chunks of time change nothing."""
    model = reference.random_model(d, d, 2)
    n = 12_000 if d == 2 else 2_500
    X = reference.simulate(model, n, 0, missing)[0]
    chain, observation = build(model)
    evidence = observation.evidence(X)[0]
    offsets = np.array([0, n], dtype=np.intp)
    posterior, log_likelihood = chain.smooth(evidence, offsets)
    filtered, step, _ = chain.filter(evidence, offsets)
    mean, covariance = model["mean"], model["covariance"]
    f_means, f_covariances, total = [], [], 0.0
    for t in range(n):
        seen = ~np.isnan(X[t])
        B, R = model["B"][seen], model["R"][np.ix_(seen, seen)]
        if t:
            mean = model["A"] @ mean
            covariance = model["A"] @ covariance @ model["A"].T + model["Q"]
        v = (X[t] - model["offset"])[seen] - B @ mean
        F = B @ covariance @ B.T + R
        gain = np.linalg.solve(F, B @ covariance).T
        total -= 0.5 * (
            v @ np.linalg.solve(F, v) + np.linalg.slogdet(F)[1] + len(v) * np.log(2 * np.pi)
        )
        mean, covariance = mean + gain @ v, covariance - gain @ B @ covariance
        f_means.append(mean)
        f_covariances.append(covariance)
    assert_allclose(log_likelihood[0], total, rtol=1e-11)
    assert_allclose(step.sum(), total, rtol=1e-11)
    assert_allclose(filtered.means, f_means, rtol=1e-9, atol=1e-9)
    assert_allclose(filtered.covariances, f_covariances, rtol=1e-9, atol=1e-9)
    means, covariances = np.array(f_means), np.array(f_covariances)
    lag_one = np.zeros_like(covariances)
    for t in range(n - 2, -1, -1):
        predicted = model["A"] @ f_covariances[t] @ model["A"].T + model["Q"]
        G = np.linalg.solve(predicted, model["A"] @ f_covariances[t]).T
        means[t] += G @ (means[t + 1] - model["A"] @ f_means[t])
        lag_one[t + 1] = covariances[t + 1] @ G.T
        covariances[t] += G @ (covariances[t + 1] - predicted) @ G.T
    assert_allclose(posterior.means, means, rtol=1e-9, atol=1e-9)
    assert_allclose(posterior.covariances, covariances, rtol=1e-9, atol=1e-9)
    assert_allclose(posterior.lag_one_covariances, lag_one, rtol=1e-9, atol=1e-9)
    summed_means, totals, by_pattern, _, _ = sums(chain, evidence, offsets)
    assert_allclose(summed_means, means, rtol=1e-9, atol=1e-9)
    assert_allclose(totals[0], covariances[:-1].sum(axis=0), rtol=1e-9)
    assert_allclose(totals[1], covariances[1:].sum(axis=0), rtol=1e-9)
    assert_allclose(totals[2], lag_one.sum(axis=0), rtol=1e-9, atol=1e-9 * n)
    assert_allclose(by_pattern.sum(axis=0), covariances.sum(axis=0), rtol=1e-9)


def relative(got, expected):
    """Worst error over steps, relative to each matrix's largest entry."""
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(got, expected))


WALKS = [1e-3, 1e-12, 0.0, "Hodrick-Prescott"]


@pytest.mark.parametrize("vague", [1e7, 1e10, 1e12])
@pytest.mark.parametrize("noise", [1.0, 1e-6, 1e-14])
@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("d", [1, 2], ids=["level", "trend"])
def test_vague_priors(d, walk, noise, vague):
    """Smoothed covariances are positive and within 1e-9 of 80 digits."""
    check_against_80_digits(d, walk, noise, vague, 100)


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("d", [1, 2], ids=["level", "trend"])
def test_vague_priors_of_long_sequences(d, walk):
    """Nothing drifts away: the hardest corner, ten times as long."""
    check_against_80_digits(d, walk, 1e-14, 1e12, 1000)


def check_against_80_digits(d, walk, noise, vague, n):
    Q = np.diag([0.0, 1 / 1600])[-d:, -d:] if isinstance(walk, str) else walk * np.eye(d)
    model = {
        "A": np.array([[1.0, 1.0], [0.0, 1.0]])[:d, :d], "Q": Q, "B": np.eye(d)[:1],
        "R": np.array([[noise]]), "offset": np.zeros(1), "mean": np.zeros(d),
        "covariance": vague * np.eye(d),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    X = np.cumsum(rng.normal(size=(n, 1)), axis=0)
    gaps = X.copy()
    gaps[rng.uniform(size=n) < 0.3] = np.nan
    chain, observation = build(model)
    for data in (X, gaps):
        exact = reference.mpmath_smoother(model, data)
        evidence = observation.evidence(data)[0]
        offsets = np.array([0, n], dtype=np.intp)
        posterior, log_likelihood = chain.smooth(evidence, offsets)
        assert np.linalg.eigvalsh(posterior.covariances).min() >= 0
        assert np.diagonal(posterior.covariances, axis1=1, axis2=2).min() > 0
        assert relative(posterior.covariances, exact.covariances) < 1e-9
        assert relative(posterior.lag_one_covariances[1:], exact.lag_one[1:]) < 1e-9
        assert_allclose(posterior.means, exact.means, rtol=1e-9, atol=1e-9)
        assert_allclose(log_likelihood[0], exact.log_likelihood, rtol=1e-10)
        _, totals, by_pattern, _, _ = sums(chain, evidence, offsets)
        expected = exact.covariances[:-1].sum(axis=0)
        assert np.abs(totals[0] - expected).max() < 1e-9 * np.abs(expected).max()
        pattern = np.zeros(n, dtype=int) if evidence.pattern is None else evidence.pattern
        for q in range(len(by_pattern)):
            expected = exact.covariances[pattern == q].sum(axis=0)
            assert np.abs(by_pattern[q] - expected).max() < 1e-9 * np.abs(expected).max()


def test_form_is_chosen_sequence_by_sequence():
    """A vague start sends the sequences that are observed to the square-root form, in a batch whose
    sums come out right."""
    model = reference.random_model(0, 2, 1)
    model["covariance"] = 1e7 * np.eye(2)  # well-conditioned: the plain form would do unobserved
    sequences = [reference.simulate(model, n, n, 0.3)[0] for n in (12, 20, 9)]
    sequences[1][:] = np.nan  # never observed: its covariance is harmless
    X, offsets = np.concatenate(sequences), offsets_of(sequences)
    chain, observation = build(model)
    evidence = observation.evidence(X)[0]
    _, totals, by_pattern, _, form = sums(chain, evidence, offsets)
    assert form.tolist() == [1, 0, 1]
    exact = [reference.mpmath_smoother(model, part) for part in sequences]
    expected = sum(one.covariances[:-1].sum(axis=0) for one in exact)
    assert_allclose(totals[0], expected, rtol=1e-9, atol=1e-9)
    covariances = np.concatenate([one.covariances for one in exact])
    for q in range(len(by_pattern)):
        expected = covariances[evidence.pattern == q].sum(axis=0)
        assert_allclose(by_pattern[q], expected, rtol=1e-9, atol=1e-9)


def test_zero_observations_of_every_kind():
    evidence = Evidence(np.zeros((4, 1)), None, np.zeros((1, 1, 2)))
    chain = LinearGaussianChain(0.5 * np.eye(2), np.eye(2), np.ones(2), np.eye(2))
    posterior, log_likelihood = chain.smooth(evidence, np.array([0, 4], dtype=np.intp))
    assert log_likelihood[0] == 0.0
    assert_allclose(posterior.means[3], np.full(2, 0.125))
