"""standard_errors(X): published values, and the Hessian of the likelihood by brute force."""

import warnings

import numpy as np
import pytest
from references import FAMILIES, stationary_distribution
from references_hmm_extra import EXTRA_FAMILIES
from sklearn.exceptions import ConvergenceWarning
from test_hmm_known_states import class_of

from sklseq import CategoricalHMM, GaussianHMM, GaussianMixtureHMM, PoissonHMM

ALL = FAMILIES + EXTRA_FAMILIES


def test_stata_mswitch_federal_funds_rate(shared_data):
    """Stata 14 [TS] mswitch, example 1: mswitch dr fedfunds (constant, switching; one variance)."""
    X = np.loadtxt(shared_data / "fedfunds.csv", skiprows=1, delimiter=",", usecols=-1)[:, None]
    hmm = GaussianHMM(
        2, covariance_type="tied", initial_state="stationary", tol=1e-12, max_iter=1000,
        random_state=0,
    ).fit(X).sort_states()  # fmt: skip
    assert hmm.log_likelihood_ * len(X) == pytest.approx(-508.63592, abs=5e-6)
    np.testing.assert_allclose(hmm.means_.ravel(), [3.70877, 9.556793], atol=5e-6)
    errors = hmm.standard_errors(X)
    np.testing.assert_allclose(errors.means.ravel(), [0.1767083, 0.2999889], atol=5e-7)
    # of p11, p21 and sigma: the square root of the variance's, by the delta method
    np.testing.assert_allclose(hmm.transmat_[:, 0], [0.9820939, 0.0503587], atol=5e-7)
    np.testing.assert_allclose(errors.transmat[:, 0], [0.0104002, 0.0268434], atol=5e-7)
    sigma = np.sqrt(hmm.covars_[0, 0])
    assert sigma == pytest.approx(2.107562, abs=5e-7)
    assert errors.covars[0, 0] / (2 * sigma) == pytest.approx(0.1008692, abs=5e-7)


# --- Against a Hessian by differences of the likelihood alone ---------------------------------


def pack(model, stationary):
    """Free coordinates of the fitted parameters and the way back: rows without their last entry."""
    kinds = [] if stationary else [("startprob", "rows")]
    kinds += [("transmat", "rows")]
    values = {name: getattr(model, f"{name}_") for name, _ in kinds}
    for one in model._emission().parameters():
        kinds.append((one.name, one.kind))
        values[one.name] = getattr(model, f"{one.name}_")

    def free_of(name, kind):
        value = values[name]
        if kind == "rows":
            return value[..., :-1].ravel()
        if kind == "symmetric":
            rows, columns = np.tril_indices(value.shape[-1])
            return value[..., rows, columns].ravel()
        return value.ravel()

    def unpack(theta):
        result, at = {}, 0
        for name, kind in kinds:
            size = len(free_of(name, kind))
            part, at = theta[at : at + size], at + size
            shape = values[name].shape
            if kind == "rows":
                part = part.reshape(*shape[:-1], shape[-1] - 1)
                part = np.concatenate([part, 1 - part.sum(axis=-1, keepdims=True)], axis=-1)
            elif kind == "symmetric":
                rows, columns = np.tril_indices(shape[-1])
                matrix = np.empty(shape)
                matrix[..., rows, columns] = part.reshape(*shape[:-2], len(rows))
                matrix[..., columns, rows] = matrix[..., rows, columns]
                part = matrix
            result[name] = part.reshape(shape)
        if stationary:
            result["startprob"] = stationary_distribution(result["transmat"])
        return result

    return np.concatenate([free_of(*kind) for kind in kinds]), unpack, kinds


def brute_force_errors(model, family, X, stationary, held=None, step=2e-4):
    """`held`: parameters that stay as they are."""
    theta, unpack, kinds = pack(model, stationary)
    size = len(theta)

    def log_likelihood(theta):
        values = {**unpack(theta), **(held or {})}
        at = class_of(family).from_parameters(**values, **family.estimator_parameters)
        return at.score_sequences(X)[0]

    scale = step * np.maximum(np.abs(theta), 0.05)
    hessian = np.empty((size, size))
    for i in range(size):
        for j in range(i + 1):
            total = 0.0
            for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                moved = theta.copy()
                moved[i] += a * scale[i]
                moved[j] += b * scale[j]
                total += a * b * log_likelihood(moved)
            hessian[i, j] = hessian[j, i] = total / (4 * scale[i] * scale[j])
    covariance = np.linalg.inv(-hessian)
    flat = []
    for i in range(size):
        ahead, behind = (unpack(theta + sign * scale * (np.arange(size) == i)) for sign in (1, -1))
        names = [name for name, _ in kinds] + (["startprob"] if stationary else [])
        flat.append(np.concatenate(
            [(ahead[name] - behind[name]).ravel() / (2 * scale[i]) for name in names]
        ))
    jacobian = np.array(flat)
    errors, at = {}, 0
    variance = np.einsum("ij,ik,kj->j", jacobian, covariance, jacobian)
    for name in names:
        shape = unpack(theta)[name].shape
        errors[name] = np.sqrt(variance[at : at + np.prod(shape)]).reshape(shape)
        at += np.prod(shape)
    return errors


CASES = [
    ("gaussian-diag", False), ("gaussian-full", True), ("gaussian-tied", True),
    ("gaussian-spherical", True), ("categorical", True), ("poisson", True), ("poisson", False),
    ("multinomial", True), ("mixture-diag", True), ("mixture-tied", True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "stationary"), CASES)
def test_against_a_numeric_hessian(rng, name, stationary):
    """Exact scores differentiated once, against the oracle's likelihood differentiated twice."""
    family = next(f for f in ALL if f.name == name)
    n_features = 1 if name.startswith(("categorical", "mixture")) else 2
    truth = family.random_parameters(rng, 2, n_features)
    truth["transmat"] = np.array([[0.8, 0.2], [0.3, 0.7]])
    truth["startprob"] = stationary_distribution(truth["transmat"])
    if "means" in truth:
        apart = np.arange(2).reshape(2, *[1] * (truth["means"].ndim - 1))
        truth["means"] = truth["means"] + 4.0 * apart
    if name == "categorical":
        truth["emissionprob"] = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    n_steps = 800 if name == "categorical" else 150
    X = family.sample(rng, n_steps, truth)
    params = {"n_categories": 3} if name == "categorical" else {}
    starts = {f"{key}_init": value for key, value in truth.items()}
    if stationary:
        del starts["startprob_init"]
    model = class_of(family)(
        2, initial_state="stationary" if stationary else "learn", tol=1e-13, max_iter=20_000,
        **starts, **family.estimator_parameters,
        **params,
        fixed=() if stationary else ("startprob",),
    )  # fmt: skip
    model.fit(X)
    errors = model.standard_errors(X)
    held = {}
    if not stationary:
        assert np.all(errors.startprob == 0.0)
        held = {"startprob": model.startprob_.copy()}
    # as if stationary: the start is then not among the coordinates
    expected = brute_force_errors(model, family, X, True, held)
    if held:
        expected.pop("startprob")
    for key, value in expected.items():
        np.testing.assert_allclose(getattr(errors, key), value, rtol=2e-3, err_msg=key)


def test_calibration(rng):
    """The spread of estimates over repeated samples is what the errors say."""
    truth = PoissonHMM.from_parameters(
        startprob=[2 / 3, 1 / 3], transmat=[[0.9, 0.1], [0.2, 0.8]], rates=[[2.0], [9.0]]
    )
    estimates, errors = [], []
    for seed in range(60):
        X, _ = truth.sample(300, random_state=seed)
        hmm = PoissonHMM(
            2, initial_state="stationary", rates_init=[[2.0], [9.0]], tol=1e-10,
            transmat_init=truth.transmat_,
        ).fit(X)  # fmt: skip
        estimates.append(np.append(hmm.rates_.ravel(), hmm.transmat_[:, 0]))
        found = hmm.standard_errors(X)
        errors.append(np.append(found.rates.ravel(), found.transmat[:, 0]))
    z = (np.array(estimates) - [2.0, 9.0, 0.9, 0.2]) / np.array(errors)
    assert np.all(np.abs(z.std(axis=0) - 1.0) < 0.3)


# --- What is not free, and what cannot be trusted ---------------------------------------------


def test_zeros_held_entries_and_edges(rng):
    truth = GaussianHMM.from_parameters(
        startprob=[1.0, 0.0, 0.0], transmat=[[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.0, 0.0, 1.0]],
        means=[[0.0], [4.0], [8.0]], covars=[[1.0], [1.0], [1.0]],
    )  # fmt: skip
    X, _ = truth.sample(40, n_sequences=20, random_state=0)
    hmm = GaussianHMM(
        3, startprob_init=truth.startprob_, transmat_init=truth.transmat_, means_init=truth.means_,
        covars_init=truth.covars_, fixed={"means": [[True], [False], [False]]}, tol=1e-12,
    ).fit(X)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        errors = hmm.standard_errors(X)
    assert errors.startprob.tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_array_equal(errors.transmat == 0, [[0, 0, 1], [1, 0, 0], [1, 1, 1]])
    assert errors.transmat[0, 0] == errors.transmat[0, 1] > 0
    assert errors.means[0, 0] == 0.0 < errors.means[1:].min()
    n_first = 20 / 0.1  # binomial: steps in the first state, each of which may be the last
    assert errors.transmat[0, 0] == pytest.approx(np.sqrt(0.9 * 0.1 / n_first), rel=0.3)


def test_a_start_at_the_edge_has_no_error(rng):
    X, _ = PoissonHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.9, 0.1], [0.1, 0.9]], rates=[[1.0], [20.0]]
    ).sample(200, random_state=0)
    hmm = PoissonHMM(2, random_state=0, tol=1e-12).fit(X)
    with pytest.warns(ConvergenceWarning, match="at the edge"):
        errors = hmm.standard_errors(X)
    assert np.isnan(errors.startprob).all()
    assert np.isfinite(errors.rates).all()
    assert np.isfinite(errors.transmat).all()


def test_several_columns_of_codes_have_a_list(rng):
    X = rng.integers(0, 3, (300, 2))
    hmm = CategoricalHMM(1).fit(X)
    errors = hmm.standard_errors(X)
    assert len(errors.emissionprob) == 2
    for table, found in zip(hmm.emissionprob_, errors.emissionprob):
        np.testing.assert_allclose(found, np.sqrt(table * (1 - table) / 300), rtol=1e-5)


def test_one_state_is_the_normal_sample(rng):
    X = rng.normal(size=(80, 1))
    hmm = GaussianHMM(1).fit(X)
    errors = hmm.standard_errors(X)
    assert errors.means[0, 0] == pytest.approx(np.sqrt(X.var() / 80), rel=1e-6)
    assert errors.covars[0, 0] == pytest.approx(X.var() * np.sqrt(2 / 80), rel=1e-6)
    assert errors.startprob.tolist() == [0.0]
    assert errors.transmat.tolist() == [[0.0]]


def test_elsewhere_is_told(rng):
    X = rng.normal(size=(200, 1))
    hmm = GaussianHMM(1).fit(X)
    with pytest.warns(ConvergenceWarning, match="a Newton step would gain"):
        hmm.standard_errors(X + 0.3)


def test_two_equal_states_are_not_identified(rng):
    hmm = GaussianHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.5, 0.5], [0.5, 0.5]], means=[[0.0], [0.0]],
        covars=[[1.0], [1.0]],
    )  # fmt: skip
    with pytest.raises(ValueError, match="observed information is not positive definite"):
        hmm.standard_errors(rng.normal(size=(100, 1)))


def test_nothing_changes_the_estimator(rng):
    X = rng.normal(size=(60, 1))
    hmm = GaussianHMM(1).fit(X)
    before = {name: np.copy(value) for name, value in vars(hmm).items() if name.endswith("_")}
    hmm.standard_errors(X)
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(hmm, name), value)


def test_an_impossible_x_is_named():
    nothing_free = [1.0, 0.0], np.eye(2)[:, [0, 1, 1]] * [1, 1, 0]
    something_free = [0.5, 0.5], [[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]]
    for startprob, table in (nothing_free, something_free):
        model = CategoricalHMM.from_parameters(
            startprob=startprob, transmat=np.eye(2), emissionprob=table
        )
        X = [[[0], [0]], [[0], [2]]]
        with pytest.raises(ValueError, match="No standard errors: sequence 1 has probability zero"):
            model.standard_errors(X)


@pytest.mark.parametrize("estimator", [GaussianHMM, GaussianMixtureHMM])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_a_covariance_on_the_floor_has_no_error_and_the_others_have(
    rng, estimator, covariance_type
):
    """A step of the difference would leave the cone: that was a LinAlgError."""
    X = np.vstack([rng.normal(size=(50, 2)), rng.normal(size=(50, 2)) + 6.0])
    if covariance_type in ("full", "tied"):
        X = np.hstack([X, X[:, :1]])
    else:
        X[:50] = 0.0
    mixture = {} if estimator is GaussianHMM else {"n_mix": 1}
    hmm = estimator(2, covariance_type=covariance_type, random_state=0, tol=1e-10, **mixture)
    with pytest.warns(ConvergenceWarning, match="on the floor"):
        errors = hmm.fit(X).standard_errors(X)
    switch = np.argmax(hmm.predict(X) != hmm.predict(X)[0])
    leaves, stays = hmm.predict(X)[[0, switch]]
    # one move in 50 steps; the other state is never left
    assert errors.transmat[leaves, stays] == pytest.approx(np.sqrt(0.02 * 0.98 / 50), rel=0.02)
    floored = [0, 1] if covariance_type in ("full", "tied") else [leaves]
    for name in ("means", "covars"):
        error = np.isnan(getattr(errors, name)).reshape(len(getattr(errors, name)), -1)
        wanted = np.isin(np.arange(2), floored) if len(error) == 2 else np.ones(len(error), bool)
        np.testing.assert_array_equal(error.all(axis=1), wanted)
        np.testing.assert_array_equal(error.any(axis=1), wanted)
