"""What somebody computed before it came in: covariances with rounding, R's NA, empty sequences."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from sklseq import GaussianHMM, KalmanSmoother, SoftmaxStateSpace
from sklseq._covariance import mend_covariance, without_negative
from sklseq.state_space._stationary import stationary_covariance

ROUNDED = {
    "asymmetric": [[1.0, 1e-17], [0.0, 1.0]],
    "negative variance": [[1.0, 0.0], [0.0, -1e-20]],
    "small beside large": [[1e10, 3e-7], [0.0, 1.0]],
    "correlation above 1": [[4.0, 2.0 + 1e-9], [2.0, 1.0]],
}


def kalman(P=1.0, **params):
    values = {
        "transition_matrix": 0.5 * np.eye(2),
        "transition_covariance": 1.0,
        "observation_matrix": [[1.0, 0.0]],
        "observation_covariance": 1.0,
        "initial_state_mean": [0.0, 0.0],
        "initial_state_covariance": P,
    }
    return KalmanSmoother.from_parameters(**values | params)


def is_covariance(matrix):
    scale = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    return np.array_equal(matrix, matrix.T) and (
        np.linalg.eigvalsh(matrix / np.outer(scale, scale))[0] > -1e-12
    )


@pytest.mark.parametrize("case", ROUNDED)
def test_rounding_in_a_covariance_is_taken_out(case):
    P = np.array(ROUNDED[case])
    mended = kalman(P).initial_state_covariance_
    assert is_covariance(mended)
    units = np.sqrt(np.maximum(np.diag(P), 1e-6 * np.abs(P).max()))
    assert np.abs((mended - P) / np.outer(units, units)).max() < 1e-6
    np.testing.assert_array_equal(
        kalman(transition_covariance=P).transition_covariance_, mended
    )
    rows = KalmanSmoother.from_parameters(
        transition_matrix=[[0.5]], transition_covariance=1.0, observation_matrix=[[1.0], [1.0]],
        observation_covariance=P, initial_state_mean=[0.0], initial_state_covariance=1.0,
    )  # fmt: skip
    np.testing.assert_array_equal(rows.observation_covariance_, mended)
    model = kalman()
    for one, other in zip(
        model.filter_update([0.0, 0.0], P, [1.0]), model.filter_update([0.0, 0.0], mended, [1.0])
    ):
        np.testing.assert_array_equal(one, other)
    words = SoftmaxStateSpace.from_parameters(
        transition_matrix=0.5 * np.eye(2), transition_covariance=P,
        observation_matrix=np.eye(3, 2), initial_state_mean=[0.0, 0.0], initial_state_covariance=P,
    )  # fmt: skip
    np.testing.assert_array_equal(words.initial_state_covariance_, mended)
    fitted = KalmanSmoother(
        2, initial_state_covariance_init=P, fixed="initial_state_covariance", max_iter=1, tol=1e9
    ).fit(np.cos(np.arange(20.0))[:, None])
    np.testing.assert_array_equal(fitted.initial_state_covariance_, mended)


@pytest.mark.parametrize(
    "P, word",
    [
        ([[1.0, 1e-5], [0.0, 1.0]], "symmetric"),
        ([[1.0, 0.0], [0.0, -1e-6]], "semi-definite"),
        ([[1e10, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 2.0, 1.0]], "semi-definite"),
        ([[1.0, 1.001], [1.001, 1.0]], "semi-definite"),
    ],
)
def test_more_than_rounding_is_refused(P, word):
    with pytest.raises(ValueError, match=rf"the_name must be .*{word}"):
        mend_covariance(np.array(P), "the_name")


def test_covariances_of_a_filter_go_back_in(rng):
    """(I - K B) P, as pykalman computes it, under a vague start."""
    for _ in range(60):
        d = int(rng.integers(2, 6))
        root = rng.normal(size=(d, d)) * 10.0 ** rng.integers(-3, 4, size=d)[:, None]
        P, B = 1e6 * np.eye(d) + root @ root.T, rng.normal(size=(1, d))
        for _ in range(3):
            gain = P @ B.T / (B @ P @ B.T + 1.0)
            P = (np.eye(d) - gain @ B) @ P
        assert is_covariance(mend_covariance(P, "P"))


def test_a_covariance_that_is_one_is_left_alone(rng):
    root = rng.normal(size=(3, 4, 2)) * 10.0 ** rng.integers(-8, 8, size=(3, 4, 1))
    P = root @ np.swapaxes(root, 1, 2)
    P = (P + np.swapaxes(P, 1, 2)) / 2
    np.testing.assert_array_equal(without_negative(P), P)
    np.testing.assert_array_equal(mend_covariance(P, "P"), P)


def test_hmm_covariances_with_rounding():
    covars = np.array([[[2e8, 1e4], [1e4 + 1e-7, 1.0]]])
    model = GaussianHMM.from_parameters(
        startprob=[1.0], transmat=[[1.0]], means=[[0.0, 0.0]], covars=covars,
        covariance_type="full",
    )  # fmt: skip
    np.testing.assert_array_equal(model.covars_, np.swapaxes(model.covars_, 1, 2))
    start = GaussianHMM(1, covariance_type="full", covars_init=covars, fixed="covars", max_iter=1)
    fitted = start.fit(np.random.default_rng(0).normal(size=(30, 2)))
    np.testing.assert_array_equal(fitted.covars_, model.covars_)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_form_of_a_start_is_measured_in_its_own_units(scale):
    x = np.cos(np.arange(20.0))[:, None]
    params = {"transition_covariance_type": "diag", "max_iter": 1, "tol": 1e9}
    almost = scale * np.array([[1.0, 1e-12], [1e-12, 2.0]])
    KalmanSmoother(2, transition_covariance_init=almost, **params).fit(x)
    other = scale * np.array([[1.0, 1e-4], [1e-4, 2.0]])
    with pytest.raises(ValueError, match="transition_covariance_init is not diag"):
        KalmanSmoother(2, transition_covariance_init=other, **params).fit(x)


# ---- states known for nearly as many steps as there are coefficients


def test_known_states_nearly_as_many_as_transitions():
    """The regression of the states fits without noise: a floor, and a word about it."""
    told = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        d, p = rng.integers(1, 6), rng.integers(1, 5)
        S = np.cumsum(rng.normal(size=(d + 2 + rng.integers(0, 3), d)), axis=0)
        X = S @ rng.normal(size=(d, p)) + rng.normal(size=(len(S), p))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted = KalmanSmoother(d).fit(X, states=S)
        scale = S.std(axis=0)
        scaled = fitted.transition_covariance_ / np.outer(scale, scale)
        on_floor = np.linalg.eigvalsh(scaled)[0] < 1.01e-6
        assert np.linalg.eigvalsh(scaled)[0] > 0.99e-6
        assert on_floor == any("stands on its floor" in str(w.message) for w in caught)
        assert np.all(np.isfinite(fitted.smooth(X).covariances))
        told += on_floor
    assert 5 < told < 20


def test_rows_without_neighbours_have_noise():
    x = np.full((9, 2), np.nan)
    x[::2] = np.random.default_rng(0).normal(size=(5, 2))
    params = {"observation_matrix_init": [[1.0], [1.0]], "fixed": "observation_matrix"}
    for X in (x, [x[:1], x[2:3], x[4:5]]):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            fitted = KalmanSmoother(1, max_iter=3, tol=1.0, **params).fit(X)
        assert np.all(np.linalg.eigvalsh(fitted.observation_covariance_) > 0)


# ---- sequences without data


def test_a_sequence_of_nothing_is_no_start():
    x = np.cumsum(np.cos(np.arange(30.0) ** 2))[:, None]
    names = ("transition_matrix", "observation_matrix", "observation_offset")
    params = {"transition_matrix_init": [[1.0]], "observation_matrix_init": [[1.0]],
              "observation_offset_init": [0.0], "fixed": names}  # fmt: skip
    one = KalmanSmoother(**params).fit([x])
    two = KalmanSmoother(**params).fit([x, [[np.nan]]])
    assert two.initial_state_covariance_[0, 0] > 1e5
    np.testing.assert_allclose(two.score_sequences([x + 10]), one.score_sequences([x + 10]),
                               rtol=1e-2)  # fmt: skip
    assert two.aic([x]) == pytest.approx(one.aic([x]), rel=1e-2)


def test_a_sequence_without_words_is_no_start(rng):
    words = np.eye(4)[rng.integers(0, 4, size=40)]
    one = SoftmaxStateSpace(1, max_iter=3, tol=1.0).fit([words])
    two = SoftmaxStateSpace(1, max_iter=3, tol=1.0).fit([words, np.zeros((1, 4))])
    assert not one.initial_state_mean_.any() and not two.initial_state_mean_.any()
    # documents with a state each, and steps without words between them
    padded = [np.vstack([row, np.zeros((2, 4))]) for row in words]
    alone = SoftmaxStateSpace(1, max_iter=3, tol=1.0).fit([row[None] for row in words])
    assert not SoftmaxStateSpace(1, max_iter=3, tol=1.0).fit(padded).transition_matrix_.any()
    assert not alone.transition_matrix_.any()


# ---- missing values as R writes them


@pytest.mark.parametrize("form", [np.asarray, list, lambda x: [x, x], lambda x: x[None]])
@pytest.mark.parametrize(
    "model", [KalmanSmoother(max_iter=3, tol=9.0), GaussianHMM(2, random_state=0)]
)
def test_signalling_nans_are_missing_without_a_word(model, form):
    quiet = np.cos(np.arange(30.0))[:, None]
    quiet[[5, 12]] = np.nan
    signalling = quiet.copy()
    signalling.view(np.uint64)[[5, 12]] = 0x7FF00000000007A2  # NA_real_ of R
    kept = signalling.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fitted = model.fit(form(signalling))
        scores = [fitted.score(form(signalling)), *np.ravel(fitted.predict(form(signalling))[0])]
    expected = model.fit(form(quiet))
    np.testing.assert_array_equal(
        scores, [expected.score(form(quiet)), *np.ravel(expected.predict(form(quiet))[0])]
    )
    np.testing.assert_array_equal(signalling.view(np.uint64), kept.view(np.uint64))


# ---- known parameters and fit


def test_fit_says_that_it_forgets_given_parameters(rng):
    x = rng.normal(size=(40, 1))
    params = {"max_iter": 2, "tol": 9.0}
    models = [
        (kalman(**params), x),
        (SoftmaxStateSpace.from_parameters(
            transition_matrix=[[0.5]], transition_covariance=1.0, observation_matrix=np.eye(2, 1),
            initial_state_mean=[0.0], initial_state_covariance=1.0, **params,
        ), np.eye(2)[(x[:, 0] > 0).astype(int)]),
        (GaussianHMM.from_parameters(
            startprob=[1.0], transmat=[[1.0]], means=[[0.0]], covars=[[1.0]], **params,
        ), x),
    ]  # fmt: skip
    for model, X in models:
        with pytest.warns(UserWarning, match="forgets the parameters that from_parameters"):
            model.fit(X)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model.fit(X)  # now a model as any other
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        kalman(warm_start=True, **params).fit(x)


@pytest.mark.parametrize("kind", ["diag", "full", "spherical"])
@pytest.mark.parametrize(
    "params", [{"reg_covar": 3.0}, {"observation_covariance_init": 1e-9}], ids=str
)
def test_a_start_of_the_noise_below_its_floor_is_raised(kind, params):
    """The first M-step would lift it, the objective fall, and the fit end as "a bug"."""
    rng = np.random.default_rng(0)
    X = np.cumsum(rng.normal(size=(60, 2)), axis=0) + rng.normal(size=(60, 2))
    model = KalmanSmoother(observation_covariance_type=kind, **params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X)
    assert model.n_iter_ > 1
    assert np.all(np.diff(model.log_likelihoods_) > -1e-10)


def test_stationary_chains_far_from_normal_make_no_warnings():
    """SciPy's solution of P = A P A' + Gamma warns, and need not be a covariance."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "X has no observed")
        KalmanSmoother(2, initial_state="stationary").fit([[np.nan, -0.19141133, 0.85214226]])
    A = np.array([[0.5, 1e9], [0.0, 0.5]])
    P = stationary_covariance(A, np.eye(2))
    np.testing.assert_allclose(A @ P @ A.T + np.eye(2), P, rtol=1e-12)
    assert np.linalg.eigvalsh(P / np.sqrt(np.outer(np.diag(P), np.diag(P))))[0] >= -1e-15
    assert stationary_covariance(np.array([[0.5, 1e200], [0.0, 0.5]]), np.eye(2)) is None


def test_a_negative_variance_beside_a_large_one_is_no_rounding():
    with pytest.raises(ValueError, match="initial_state_covariance must be positive semi-definite"):
        kalman(np.diag([1e12, -1.0]))
    np.testing.assert_array_equal(
        kalman(np.diag([1e12, -1e-5])).initial_state_covariance_, np.diag([1e12, 0.0])
    )
