"""SoftmaxStateSpace as an estimator: forms of input, invariances, methods, errors."""

import pickle
import warnings

import numpy as np
import pytest
import references_softmax as reference
import sklearn.utils.estimator_checks as theirs
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sklseq import SoftmaxStateSpace
from sklseq.utils import check_estimator, expected_failed_checks


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


@pytest.fixture(scope="module")
def model():
    return reference.random_model(3, 2, 6)


@pytest.fixture(scope="module")
def data(model):
    """Ragged counts with a missing step."""
    sequences = [reference.simulate(model, n, n, 3)[0] for n in (20, 1, 33, 12)]
    sequences[2][5] = 0.0
    return sequences


@pytest.fixture(scope="module")
def fitted(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return SoftmaxStateSpace(2, max_iter=6, random_state=0).fit(data)


# ---- the battery


@pytest.mark.parametrize("params", [{}, {"n_particles": 0, "acceleration": None}], ids=str)
def test_check_estimator_with_exactly_the_two_declared(params):
    estimator = SoftmaxStateSpace(**params)
    declared = expected_failed_checks(estimator)
    assert set(declared) == {
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", theirs.SkipTestWarning)
        results = theirs.check_estimator(estimator, on_fail=None)
        check_estimator(estimator)  # ours: does not raise
    failed = {r["check_name"] for r in results if r["status"] == "failed"}
    assert failed == set(declared)
    assert sum(r["status"] == "passed" for r in results) >= 44


def test_sequences_may_be_permuted(data, fitted):
    order = [2, 0, 3, 1]
    turned = [data[i] for i in order]
    for method in ("predict", "score_samples", "transform"):
        whole = getattr(fitted, method)(data)
        for i, part in zip(order, getattr(fitted, method)(turned)):
            assert_array_equal(part, whole[i])
        for i, Y in enumerate(data):
            assert_array_equal(getattr(fitted, method)(Y), whole[i])
    assert_array_equal(fitted.score_sequences(turned), fitted.score_sequences(data)[order])


# ---- forms of input


def forms(data):
    flat = np.vstack(data)
    lengths = [len(Y) for Y in data]
    boxed = np.empty(len(data), dtype=object)
    for i, Y in enumerate(data):
        boxed[i] = Y
    return {
        "lengths": (flat, {"lengths": lengths}),
        "groups": (flat, {"groups": np.repeat(np.arange(len(data)), lengths)}),
        "list": (data, {}),
        "object array": (boxed, {}),
        "tuple": (tuple(data), {}),
        "list of CSR": ([sparse.csr_matrix(Y) for Y in data], {}),
        "list of CSR arrays": ([sparse.csr_array(Y) for Y in data], {}),
        "list of COO": ([sparse.coo_array(Y) for Y in data], {}),
        "CSR": (sparse.csr_matrix(flat), {"lengths": lengths}),
        "CSC": (sparse.csc_array(flat), {"lengths": lengths}),
        "with stored zeros": (with_stored_zeros(flat), {"lengths": lengths}),
        "unsorted": (unsorted_csr(flat), {"lengths": lengths}),
        "integers": (flat.astype(np.int64), {"lengths": lengths}),
        "float32": (flat.astype(np.float32), {"lengths": lengths}),
        "Fortran": (np.asfortranarray(flat), {"lengths": lengths}),
    }


def with_stored_zeros(X):
    X = sparse.csr_matrix(X + 1.0)
    X.data -= 1.0
    return X


def unsorted_csr(X):
    rows, columns = np.nonzero(X)
    order = np.lexsort((-columns, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(X)))])
    return sparse.csr_matrix((X[rows, columns][order], columns[order], indptr), shape=X.shape)


def stacked(values):
    return np.concatenate(list(values)) if isinstance(values, np.ndarray) and (
        values.dtype == object) else values  # fmt: skip


def test_every_form_gives_the_same_bits(data, fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name, (X, kwargs) in forms(data).items():
            other = clone(fitted).fit(X, **kwargs)
            for attribute in ("transition_matrix_", "observation_matrix_", "observation_offset_"):
                assert_array_equal(getattr(other, attribute), getattr(fitted, attribute), name)
            assert other.score(X, **kwargs) == fitted.score(data), name
            for method in ("transform", "score_samples"):
                mine = stacked(getattr(other, method)(X, **kwargs))
                assert_array_equal(mine, stacked(getattr(fitted, method)(data)), name)


def test_three_dimensional_and_empty_forms(data, fitted):
    cube = np.stack([data[0][:10], data[2][:10]])
    assert fitted.transform(cube).shape == (2, 10, 2)
    assert fitted.score_samples(cube).shape == (2, 10)
    assert fitted.smooth(cube).covariances.shape == (2, 10, 2, 2)
    assert_array_equal(fitted.transform(cube)[1], fitted.transform(data[2][:10]))
    with pytest.raises(ValueError, match="Sequence 1 of X is empty"):
        fitted.transform([data[0], data[0][:0]])


def test_n_jobs_and_shards_change_no_bit(data, fitted, monkeypatch):
    import sklseq._sequences as door

    monkeypatch.setattr(door, "SHARD_STEPS", 25)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        one = clone(fitted).fit(data)
        two = clone(fitted).set_params(n_jobs=2).fit(data)
    assert_array_equal(one.observation_matrix_, two.observation_matrix_)
    assert one.score(data) == two.score(data)
    assert_array_equal(np.concatenate(list(one.transform(data))),
                       np.concatenate(list(two.transform(data))))  # fmt: skip
    assert_allclose(one.observation_matrix_, fitted.observation_matrix_, atol=1e-4)


def test_frames_give_names(data, fitted):
    pandas = pytest.importorskip("pandas")
    names = [f"word{i}" for i in range(6)]
    frame = pandas.DataFrame(data[0], columns=names)
    estimator = SoftmaxStateSpace(2, max_iter=2, tol=1.0).fit(frame)
    assert list(estimator.feature_names_in_) == names
    out = estimator.set_output(transform="pandas").transform(frame)
    assert list(out.columns) == ["softmaxstatespace0", "softmaxstatespace1"]
    # the top words of a direction of the state
    top = estimator.feature_names_in_[np.argsort(-estimator.observation_matrix_[:, 0])[:2]]
    assert set(top) <= set(names)
    with pytest.raises(ValueError, match="collection"):
        estimator.transform([frame, frame])


# ---- pipelines


def test_labels_through_a_one_hot_encoder(rng):
    labels = rng.choice(["rain", "sun", "fog"], size=80).reshape(-1, 1)
    pipeline = make_pipeline(OneHotEncoder(), SoftmaxStateSpace(tol=1e-3))
    assert pipeline.fit(labels).transform(labels).shape == (80, 1)
    assert np.isfinite(pipeline.score(labels))
    assert pipeline.predict(labels).shape == (80, 1)


def test_dated_documents_through_a_count_vectorizer():
    early = ["steam engine coal", "coal mine steam", "engine coal coal"] * 6
    late = ["neural network chip", "chip network data", "data chip neural"] * 6
    pipeline = make_pipeline(CountVectorizer(), SoftmaxStateSpace(alpha=0.3, tol=1e-4))
    states = pipeline.fit_transform(early + late)[:, 0]
    assert (np.sign(states[3:14]) == -np.sign(states[-14:-3])).all()
    vocabulary = pipeline[0].get_feature_names_out()
    direction = pipeline[-1].observation_matrix_[:, 0] * np.sign(states[-1])
    assert {"chip", "data"} & set(vocabulary[np.argsort(-direction)[:4]])
    assert "coal" in vocabulary[np.argsort(direction)[:4]]


def test_grid_search_over_a_list():
    truth = reference.random_model(2, 1, 5, strength=1.5)
    X = [reference.simulate(truth, 40, i, 2)[0] for i in range(9)]
    search = GridSearchCV(
        SoftmaxStateSpace(max_iter=10, tol=1e-3, n_particles=50),
        {"n_components": [1, 2], "alpha": [1.0, 1000.0]},
        cv=3,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(X)
    assert search.best_params_["alpha"] == 1.0
    assert np.all(np.isfinite(search.cv_results_["mean_test_score"]))
    assert np.isfinite(search.score(X))


def test_continues_where_training_ended():
    truth = reference.random_model(0, 1, 4, radius=0.98, strength=1.5)
    Y, _ = reference.simulate(truth, 160, 3, 5)
    kwargs = {"tol": 1e-3, "max_iter": 20, "n_particles": 100}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        cut = cross_val_score(SoftmaxStateSpace(**kwargs), Y, cv=TimeSeriesSplit(3, test_size=10))
        on = cross_val_score(
            SoftmaxStateSpace(continues=True, **kwargs), Y, cv=TimeSeriesSplit(3, test_size=10)
        )
        several = SoftmaxStateSpace(continues=True, **kwargs).fit([Y[:30], Y[30:60]])
    assert on.mean() > cut.mean()
    with pytest.raises(ValueError, match="one sequence"):
        several.score(Y)


# ---- invariances (issue 4)


def test_no_signal_is_the_unigram_model(data):
    """B = 0: every method reduces to log-frequencies, to 1e-8."""
    b = np.log([0.1, 0.2, 0.3, 0.2, 0.15, 0.05])
    flat = {
        "A": np.diag([0.9, 0.5]), "Q": np.eye(2), "B": np.zeros((6, 2)), "b": b,
        "mean": np.zeros(2), "covariance": np.eye(2),
    }  # fmt: skip
    for n_particles in (0, 50):
        estimator = known(flat, n_particles=n_particles)
        expected = [(Y @ b).sum() for Y in data]
        assert_allclose(estimator.score_sequences(data), expected, atol=1e-8)
    assert_allclose(estimator.score_samples(data[0]), data[0] @ b, atol=1e-8)
    assert_allclose(estimator.smooth(data[0]).means, 0.0, atol=1e-12)
    assert_allclose(estimator.forecast(data[0], 3).probabilities, np.tile(np.exp(b), (3, 1)),
                    atol=1e-12)  # fmt: skip


def test_what_leaves_the_score_as_it_is(model, data):
    base = known(model, n_particles=0).score_sequences(data)
    # a constant in all logits, moving with the state or not
    shifted = model | {"B": model["B"] + [3.0, -2.0], "b": model["b"] + 5.0}
    assert_allclose(known(shifted, n_particles=0).score_sequences(data), base, atol=1e-7)
    # an invertible transform of the state
    turned = reference.transformed(model, np.array([[2.0, 0.3], [-0.5, 0.7]]))
    assert_allclose(known(turned, n_particles=0).score_sequences(data), base, atol=2e-2)
    # the names of the words
    order = np.random.default_rng(0).permutation(6)
    renamed = model | {"B": model["B"][order], "b": model["b"][order]}
    assert_allclose(
        known(renamed, n_particles=0).score_sequences([Y[:, order] for Y in data]), base, atol=1e-7
    )
    # and with particles, up to their noise
    rough = known(model).score_sequences(data)
    for other, X in ((shifted, data), (turned, data), (renamed, [Y[:, order] for Y in data])):
        assert_allclose(known(other).score_sequences(X), rough, atol=0.25)


def test_a_stationary_scalar_chain_has_no_direction():
    truth = reference.random_model(1, 1, 5, strength=1.2)
    Y, _ = reference.simulate(truth, 80, 4, 2)
    estimator = known(truth, n_particles=0)
    assert_allclose(estimator.score_sequences(Y[::-1]), estimator.score_sequences(Y), atol=1e-6)
    assert_allclose(estimator.transform(Y[::-1])[::-1], estimator.transform(Y), atol=1e-4)


def test_missing_steps(model):
    """A row of zeros says nothing; at the end it changes nothing."""
    Y, _ = reference.simulate(model, 20, 1)
    Y[[3, 4, 11]] = 0.0
    estimator = known(model, n_particles=0)
    exact = reference.grid(model, Y, size=55, reach=5.0)
    assert abs(estimator.score_sequences(Y)[0] - exact.log_likelihood) < 0.05
    longer = np.vstack([Y, np.zeros((5, 6))])
    assert_allclose(estimator.score_sequences(longer), estimator.score_sequences(Y), atol=1e-8)
    assert_allclose(estimator.transform(longer)[:20], estimator.transform(Y), atol=1e-5)
    steps = estimator.score_samples(longer)
    assert_array_equal(steps[[3, 4, 11, 20, 24]], 0.0)
    assert estimator.score(np.zeros((7, 6))) == pytest.approx(0.0, abs=1e-12)
    assert_allclose(estimator.smooth(np.zeros((7, 6))).covariances, np.tile(np.eye(2), (7, 1, 1)),
                    atol=1e-9)  # fmt: skip


def test_fractional_weights_count_words(model):
    """Half a word twice at the same state is a word: static state, rows split."""
    still = model | {"A": np.eye(2), "Q": np.zeros((2, 2))}
    Y, _ = reference.simulate(still | {"Q": 1e-12 * np.eye(2)}, 6, 1, 4)
    estimator = known(still, n_particles=0)
    halves = np.repeat(Y / 2, 2, axis=0)
    assert_allclose(estimator.transform(halves)[::2], estimator.transform(Y), atol=1e-6)
    # the bound is the same; the correction treats steps one by one
    assert_allclose(known(still).score_sequences(halves), known(still).score_sequences(Y), atol=0.2)


# ---- methods


def test_score_is_the_mean_and_weighs(data, fitted):
    totals, lengths = fitted.score_sequences(data), [len(Y) for Y in data]
    assert fitted.score(data) == pytest.approx(totals.sum() / sum(lengths), rel=1e-12)
    weights = np.array([1.0, 0.0, 2.0, 1.0])
    expected = (weights @ totals) / (weights @ lengths)
    assert fitted.score(data, sample_weight=weights) == pytest.approx(expected, rel=1e-12)
    steps = fitted.score_samples(data)
    assert abs(sum(part.sum() for part in steps) - totals.sum()) < 0.2 * sum(lengths) / 100 + 0.1


def test_random_state_seeds_the_score(data, fitted):
    assert fitted.score(data) == fitted.score(data)
    scores = {clone_with(fitted, random_state=seed).score(data) for seed in (1, 2, 3)}
    assert len(scores) == 3
    state = np.random.RandomState(5)
    moved = clone_with(fitted, random_state=state)
    before = state.get_state()[1].copy()
    assert moved.score(data) == moved.score(data)
    assert_array_equal(state.get_state()[1], before)
    nothing = clone_with(fitted, random_state=None)
    assert nothing.score(data) == nothing.score(data)


def clone_with(fitted, **params):
    return pickle.loads(pickle.dumps(fitted)).set_params(**params)


def test_states_and_words(data, fitted):
    smoothed = fitted.smooth(data)
    for one, two, three in zip(fitted.transform(data), fitted.predict(data), smoothed.means):
        assert_array_equal(one, two)
        assert_array_equal(one, three)
    assert_array_equal(smoothed.lag_one_covariances[0][0], 0.0)
    probabilities = fitted.inverse_transform(fitted.transform(data))
    assert probabilities.dtype == object
    for part, Y in zip(probabilities, data):
        assert part.shape == Y.shape
        assert_allclose(part.sum(axis=1), 1.0, rtol=1e-12)
    assert fitted.inverse_transform(np.zeros((2, 3, 2))).shape == (2, 3, 6)
    with pytest.raises(ValueError, match="n_components=2"):
        fitted.inverse_transform(np.zeros((3, 5)))


def test_filter_is_causal_and_ends_at_the_smoother(model, data):
    estimator = known(model)
    whole = estimator.filter(data[2])
    part = estimator.filter(data[2][:10])
    assert_array_equal(whole.means[:10], part.means)
    last = estimator.smooth(data[2])
    assert_allclose(whole.means[-1], last.means[-1], atol=0.05)
    # at the end the KL-optimal Gaussian is the narrower of the two
    assert_allclose(whole.covariances[-1], last.covariances[-1], atol=0.1)


def test_forecast_is_the_prediction_of_the_grid(model):
    Y, _ = reference.simulate(model, 25, 2, 2)
    ahead = known(model).forecast(Y, 3).probabilities
    assert ahead.shape == (3, 6)
    exact = reference.grid(model, Y, size=55, reach=5.0)
    rng = np.random.default_rng(0)
    mean, covariance = exact.filtered_means[-1], exact.filtered_covariances[-1]
    states = rng.multivariate_normal(mean, covariance, size=200_000)
    for step in range(3):
        states = states @ model["A"].T + rng.multivariate_normal(np.zeros(2), model["Q"], 200_000)
        p = np.exp(reference.log_softmax(states @ model["B"].T + model["b"])).mean(0)
        assert_allclose(ahead[step], p, atol=3e-3)
    assert_allclose(ahead.sum(axis=1), 1.0, rtol=1e-12)
    assert known(model).forecast([Y, Y[:5]], 2).probabilities.shape == (2, 2, 6)
    far = known(model).forecast(Y, 200).probabilities[-1]
    stationary = rng.multivariate_normal(np.zeros(2), np.eye(2), 200_000)
    p = np.exp(reference.log_softmax(stationary @ model["B"].T + model["b"])).mean(0)
    assert_allclose(far, p, atol=3e-3)


def test_sample(model):
    estimator = known(model, random_state=0)
    X, states = estimator.sample(4000, n_words=3)
    assert X.shape == (4000, 6)
    assert states.shape == (4000, 2)
    assert_array_equal(X.sum(axis=1), 3)
    expected = estimator.inverse_transform(states).sum(0) * 3
    assert_allclose(X.sum(0), expected, atol=6 * np.sqrt(expected).max())
    lag = states[1:].T @ states[:-1] / 3999
    assert_allclose(lag, model["A"], atol=0.2)
    many = estimator.sample(5, n_sequences=3, random_state=1)
    assert [len(part) for part in many[0]] == [5, 5, 5]
    assert_array_equal(estimator.sample(5, random_state=1)[0], many[0][0])
    with pytest.raises(ValueError, match="n_words"):
        estimator.sample(5, n_words=0)


def test_sample_posterior_forms(data, fitted):
    draws = fitted.sample_posterior(data, 3, random_state=0)
    assert [part.shape for part in draws] == [(3, len(Y), 2) for Y in data]
    again = fitted.sample_posterior(data, 3, random_state=0)
    assert all(np.array_equal(a, b) for a, b in zip(draws, again))
    assert fitted.sample_posterior(data[0], 2).shape == (2, 20, 2)
    gaussian = clone_with(fitted, n_particles=0).sample_posterior(data[0], 500, random_state=1)
    smoothed = fitted.smooth(data[0])
    sd = np.sqrt(np.diagonal(smoothed.covariances, axis1=1, axis2=2))
    assert np.abs((gaussian.mean(0) - smoothed.means) / sd).max() < 5 / np.sqrt(500)


def test_information_criteria_count_free_parameters(data, fitted):
    # A 4, mu0 2, P0 3, B (6 - 1) x 2, b 6 - 1; Gamma is a matter of units, and a rotation
    count = 4 + 2 + 3 + 10 + 5 - 1
    total = fitted.score_sequences(data).sum()
    assert fitted.aic(data) == pytest.approx(2 * count - 2 * total)
    n = sum(len(Y) for Y in data)
    assert fitted.bic(data) == pytest.approx(np.log(n) * count - 2 * total)


def test_the_gauge(fitted):
    B, b = fitted.observation_matrix_, fitted.observation_offset_
    assert_array_equal(fitted.transition_covariance_, np.eye(2))
    assert_allclose(B.sum(axis=0), 0.0, atol=1e-10)
    assert_allclose(b.sum(), 0.0, atol=1e-10)
    square = B.T @ B
    assert_allclose(square, np.diag(np.diag(square)), atol=1e-9 * square.max())
    assert square[0, 0] >= square[1, 1]
    assert np.all(B[np.abs(B).argmax(axis=0), [0, 1]] > 0)


# ---- parameters


def test_fixed_and_starting_values(model, data):
    start = {
        "transition_matrix_init": model["A"], "observation_matrix_init": model["B"],
        "transition_covariance_init": model["Q"], "observation_offset_init": model["b"],
        "initial_state_mean_init": [0.5, 0.0], "initial_state_covariance_init": 2.0,
    }  # fmt: skip
    names = [name.removesuffix("_init") for name in start]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        everything = SoftmaxStateSpace(2, max_iter=3, fixed=tuple(names), **start).fit(data)
        for name in names:
            value = np.asarray(start[f"{name}_init"])
            value = 2.0 * np.eye(2) if value.ndim == 0 else value
            assert_array_equal(getattr(everything, f"{name}_"), value, name)
        assert everything._n_free_parameters() == 0
        for name in names:
            one = SoftmaxStateSpace(2, max_iter=3, fixed=name, **start).fit(data)
            value = np.asarray(start[f"{name}_init"])
            value = 2.0 * np.eye(2) if value.ndim == 0 else value
            assert_array_equal(getattr(one, f"{name}_"), value, name)
            assert np.diff(one.objectives_).min() > -1e-9
        mask = np.zeros((6, 2), dtype=bool)
        mask[:3, 0] = True
        masked = SoftmaxStateSpace(2, max_iter=3, fixed={"observation_matrix": mask}, **start)
        masked.fit(data)
        assert_array_equal(masked.observation_matrix_[mask], model["B"][mask])
        assert np.all(masked.observation_matrix_[~mask] != model["B"][~mask])
        lower = SoftmaxStateSpace(
            2, max_iter=3, transition_matrix_init=[[0.9, 0.0], [0.2, 0.5]],
            fixed={"transition_matrix": np.array([[False, True], [False, False]])},
        ).fit(data)  # fmt: skip
        assert lower.transition_matrix_[0, 1] == 0.0
        no_offset = SoftmaxStateSpace(2, max_iter=3, fit_intercept=False).fit(data)
        assert_array_equal(no_offset.observation_offset_, 0.0)


def test_warm_start_goes_on(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator = SoftmaxStateSpace(2, max_iter=4, warm_start=True, acceleration=None).fit(data)
        before = estimator.objectives_[-1]
        estimator.fit(data)
        assert_allclose(estimator.objectives_[0], before, atol=2e-3)
        assert estimator.objectives_[-1] > before
        with pytest.raises(ValueError, match="warm_start goes on from an observation matrix"):
            estimator.set_params(n_components=1).fit(data)
        assert estimator.observation_matrix_.shape == (6, 2)


def test_three_endings(data, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = SoftmaxStateSpace(1, tol=1e-2).fit(data)
    assert done.converged_
    with pytest.warns(ConvergenceWarning, match="did not converge in max_iter=2"):
        short = SoftmaxStateSpace(1, max_iter=2, tol=0).fit(data)
    assert not short.converged_
    assert short.n_iter_ == 2
    # an objective that falls ends the fit, and says so
    from sklseq.state_space._softmax_model import SoftmaxModel

    real = SoftmaxModel.m_step
    monkeypatch.setattr(
        SoftmaxModel, "m_step",
        lambda self, statistics: _spoilt(real(self, statistics)),
    )
    with pytest.warns(ConvergenceWarning, match="fell"):
        fallen = SoftmaxStateSpace(1, max_iter=5, acceleration=None).fit(data)
    assert fallen.n_iter_ == 0


def _spoilt(model):
    from dataclasses import replace

    matrix = model.words.matrix + np.arange(6.0)[:, None]
    return replace(model, words=model.words._replace(matrix=matrix))


def test_verbose_tells_and_else_nothing(data, capsys):
    SoftmaxStateSpace(1, tol=1e-2, verbose=2).fit(data)
    out = capsys.readouterr().out
    assert "[SoftmaxStateSpace] iteration 1" in out
    assert "converged" in out
    SoftmaxStateSpace(1, tol=1e-2).fit(data)
    assert capsys.readouterr().out == ""


def test_n_init_keeps_the_best(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        one = SoftmaxStateSpace(1, max_iter=12, random_state=0).fit(data)
        three = SoftmaxStateSpace(1, max_iter=12, n_init=3, random_state=0).fit(data)
        again = SoftmaxStateSpace(1, max_iter=12, n_init=3, random_state=0).fit(data)
    assert three.objectives_[-1] >= one.objectives_[-1] - 1e-9
    assert_array_equal(three.observation_matrix_, again.observation_matrix_)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": np.inf}, "alpha must be finite"),
        ({"n_particles": -1}, "n_particles"),
        ({"n_components": 0}, "n_components"),
        ({"fit_intercept": "yes"}, "fit_intercept"),
        ({"initial_state": "diffuse"}, "initial_state must be one of 'learn', 'stationary'"),
        ({"acceleration": "fast"}, "acceleration"),
        ({"fixed": "observation_matrix"}, "observation_matrix_init must be given"),
        ({"fixed": "observation_covariance"}, "fixed may hold"),
        ({"fit_intercept": False, "observation_offset_init": np.zeros(6)}, "fit_intercept=True"),
        ({"observation_matrix_init": np.zeros((5, 1))}, "observation_matrix_init must have shape"),
        ({"transition_covariance_init": -1.0}, "transition_covariance_init"),
        (
            {"initial_state": "stationary", "transition_matrix_init": [[1.0]]},
            "smaller than 1 in size",
        ),
        (
            {"n_components": 2, "transition_covariance_type": "diag",
             "transition_covariance_init": [[1.0, 0.5], [0.5, 1.0]]},
            "is not diag",
        ),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_bad_parameters(data, params, message):
    with pytest.raises((ValueError, TypeError), match=message):
        SoftmaxStateSpace(**params).fit(data)


def test_bad_input_names_itself_and_changes_nothing(data, fitted):
    before = dict(vars(fitted))
    bad = data[0].copy()
    for value, message in ((-1.0, "[Nn]egative"), (np.nan, "NaN"), (np.inf, "infinity")):
        bad[4, 2] = value
        for X in (bad, sparse.csr_matrix(bad), [data[1], bad]):
            with pytest.raises(ValueError, match=message):
                fitted.fit(X)
            with pytest.raises(ValueError, match=message):
                fitted.score(X)
    with pytest.raises(ValueError, match="a row of zeros is a missing step"):
        SoftmaxStateSpace().fit([[1.0, 0.0], [np.nan, 1.0]])
    with pytest.warns(UserWarning, match="one column: a vocabulary of one word"):
        SoftmaxStateSpace().fit([[3], [1], [2]])
    with pytest.raises(ValueError, match="features"):
        fitted.transform(data[0][:, :4])
    with pytest.raises(ValueError, match="same number of features"):
        fitted.fit([data[0], data[1][:, :4]])
    with pytest.raises(ValueError, match="must sum to the number of rows"):
        fitted.fit(data[0], lengths=[3, 4])
    with pytest.raises(ValueError, match=r"2D array|2-D"):
        fitted.fit(np.zeros(5))
    with pytest.raises(ValueError, match="n_steps"):
        fitted.forecast(data[0], 0)
    for n_particles in (-1, 2.5):
        with pytest.raises((ValueError, TypeError), match="n_particles"):
            clone_with(fitted, n_particles=n_particles).score(data)
    with pytest.raises(NotFittedError):
        SoftmaxStateSpace().score(data)
    assert vars(fitted) == before


def test_from_parameters_checks():
    good = {
        "transition_matrix": np.eye(2) * 0.5, "transition_covariance": 1.0,
        "observation_matrix": np.ones((4, 2)), "initial_state_mean": np.zeros(2),
        "initial_state_covariance": np.eye(2),
    }  # fmt: skip
    estimator = SoftmaxStateSpace.from_parameters(**good, n_particles=7)
    assert estimator.n_features_in_ == 4
    assert estimator.get_params()["n_particles"] == 7
    for name, value, message in (
        ("transition_matrix", np.eye(3), "transition_matrix must have shape"),
        ("observation_offset", [1.0], "observation_offset must have shape"),
        ("initial_state_covariance", [[1.0, 2.0], [2.0, 1.0]], "positive semi-definite"),
        ("observation_matrix", [[np.nan, 1.0]], "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            SoftmaxStateSpace.from_parameters(**(good | {name: value}))


def test_clone_and_pickle(data, fitted):
    copied = pickle.loads(pickle.dumps(fitted))
    assert copied.score(data) == fitted.score(data)
    assert not hasattr(clone(fitted), "observation_matrix_")
