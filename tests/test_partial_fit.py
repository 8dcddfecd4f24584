"""partial_fit: stepwise EM comes to where EM goes, forgets as it says, and keeps no data."""

import gc
import tracemalloc
import warnings
from dataclasses import replace

import numpy as np
import pytest
from conftest import estimator_class
from references import FAMILIES
from sklearn.exceptions import ConvergenceWarning

import sklseq
from sklseq import (
    CategoricalHMM,
    GaussianHMM,
    GaussianMixtureHMM,
    KalmanSmoother,
    MultinomialHMM,
    PoissonHMM,
)
from sklseq._em import add_statistics, map_statistics
from sklseq.datasets import load_seizures
from sklseq.hmm._categorical import CategoricalEmission

HMMS = [CategoricalHMM, GaussianHMM, GaussianMixtureHMM, MultinomialHMM, PoissonHMM]
EVERYONE = [*HMMS, KalmanSmoother]


@pytest.fixture(autouse=True)
def no_convergence_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def by_name(value):
    return value.__name__ if isinstance(value, type) else None


def counts(rng, n_steps=40):
    """Whole numbers that every family takes, with two regimes."""
    level = np.where(np.arange(n_steps)[:, None] // 10 % 2, 0.75, 0.25)
    return rng.binomial(4, level, size=(n_steps, 2)).astype(float)


# --- Where it goes --------------------------------------------------------------------------------


def shakespeare(folder):
    """Letters of the play, as codes: sequences of 500."""
    text = (folder / "tinyshakespeare" / "input.txt").read_text(encoding="ascii")[:60_000].lower()
    letters = sorted(set(text))
    codes = np.array([letters.index(letter) for letter in text], dtype=float)
    return list(codes.reshape(-1, 500, 1)), {"n_categories": len(letters)}


def reactions(folder):
    """Response times, 20 at a time: two ways of working, far apart."""
    times = np.genfromtxt(folder / "speed.csv", delimiter=",", skip_header=1, usecols=0)
    return list(times[:420].reshape(21, 20, 1)), {}


def eruptions(folder):
    rows = np.genfromtxt(folder / "geyser.csv", delimiter=",", skip_header=1)
    return list(rows[:290].reshape(29, 10, 2)), {}


MEANS = [[[80.0, 2.0], [75.0, 4.2]], [[55.0, 4.4], [70.0, 4.5]]]  # waiting, duration
REAL = [  # where a first chunk's start and the whole data's lead to the same optimum
    (CategoricalHMM, shakespeare, {"n_components": 2, "n_init": 2}),
    (GaussianHMM, reactions, {"n_components": 2}),
    (GaussianHMM, eruptions, {"n_components": 3}),
    (GaussianMixtureHMM, eruptions, {"n_components": 2, "n_init": 1, "means_init": MEANS}),
    (KalmanSmoother, eruptions, {}),
    (KalmanSmoother, eruptions, {"n_components": 2}),
]


def assert_comes_to_the_batch_optimum(make, sequences, n_chunks):
    """Held out: every fourth sequence."""
    train = [X for i, X in enumerate(sequences) if i % 4]
    test = sequences[::4]
    batch, stream = make().fit(train), make()
    for _ in range(20):
        for first in range(n_chunks):
            stream.partial_fit(train[first::n_chunks])
    best = batch.score(test)
    assert stream.score(test) >= best - 0.005 * abs(best)
    assert stream.n_iter_ >= 20 * n_chunks - 1
    assert not stream.converged_


@pytest.mark.parametrize("make, data, params", REAL, ids=by_name)
def test_twenty_passes_reach_the_batch_optimum(make, data, params, shared_data):
    sequences, more = data(shared_data)
    assert_comes_to_the_batch_optimum(
        lambda: make(**params, **more, random_state=0), sequences, n_chunks=4
    )


@pytest.mark.parametrize("make", [PoissonHMM, MultinomialHMM])
def test_twenty_passes_reach_the_batch_optimum_on_counts(make):
    sequences = [X for X in load_seizures().sequences if len(X) > 1]
    if make is MultinomialHMM:  # many or few of four
        sequences = [np.column_stack([np.minimum(X, 4), 4 - np.minimum(X, 4)]) for X in sequences]
    assert_comes_to_the_batch_optimum(lambda: make(2, random_state=0), sequences, n_chunks=3)


# --- What a step is -------------------------------------------------------------------------------


def sums(model, X):
    if isinstance(getattr(model, "emission", None), CategoricalEmission):
        X = X.astype(np.int32)
    return model.e_step(X, np.array([0, len(X)]))[0]


@pytest.mark.parametrize("make", EVERYONE, ids=by_name)
@pytest.mark.parametrize("decay", [0.6, 1.0])
def test_steps_are_those_of_the_equation(make, decay, rng):
    """S_t = (1 - g) S_{t-1} + g s_t and one M-step, all statistics taken at the start again."""
    first, second = counts(rng, 60), counts(rng, 24)
    estimator = make(random_state=0, learning_decay=decay, max_iter=3).partial_fit(first)
    old = estimator._stream.model
    if make is KalmanSmoother:  # the first chunk was complete, so later ones may not be
        old, start = old.of_any_rows(estimator._stream.statistics)
    else:
        start = estimator._stream.statistics
    weight = 2.0**-decay
    mixed = add_statistics(
        map_statistics(lambda leaf: (1 - weight) * leaf, start),
        map_statistics(lambda leaf: weight * leaf, sums(old, second)),
    )
    scale = 84 / ((1 - weight) * 60 + weight * 24)
    expected = old.m_step(map_statistics(lambda leaf: scale * leaf, mixed))
    estimator.partial_fit(second)
    check_equal_models(estimator._stream.model, expected)


def check_equal_models(actual, expected):
    """All arrays in them."""
    for name, value in vars(expected).items():
        got = getattr(actual, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(got, value, rtol=1e-12, atol=1e-14, err_msg=name)
        elif name in ("emission", "chain", "observation"):
            check_equal_models(got, value)


@pytest.mark.parametrize("make", EVERYONE, ids=by_name)
def test_moved_statistics_are_those_of_the_other_model(make, rng):
    """The M-step has one answer, wherever the sums are measured from."""
    X = counts(rng, 80)
    estimator = make(random_state=0, max_iter=2).partial_fit(X)
    old, statistics = estimator._stream.model, estimator._stream.statistics
    new = old.m_step(statistics)
    again = new.m_step(old.moved(statistics, new))
    check_equal_models(again, replace(new))


def test_with_decay_one_a_chunk_weighs_by_its_steps(rng):
    """All states known: sums do not depend on the parameters, so order and cuts do not count."""
    X = rng.normal(size=(90, 2))
    states = rng.integers(0, 2, size=90)
    whole = GaussianHMM(2).fit(X, states=states)
    parts = GaussianHMM(2, learning_decay=1.0)
    for rows in (slice(0, 50), slice(50, 80), slice(80, 90)):
        parts.partial_fit(X[rows], states=states[rows])
    np.testing.assert_allclose(parts.means_, whole.means_, rtol=1e-10)
    np.testing.assert_allclose(parts.covars_, whole.covars_, rtol=1e-10)


def test_a_smaller_decay_forgets_faster(rng):
    old, new = rng.normal(size=(200, 1)), rng.normal(loc=5.0, size=(200, 1))
    means = []
    for decay in (0.55, 1.0):
        model = GaussianHMM(1, learning_decay=decay)
        for X in (old, old, new, new):
            model.partial_fit(X)
        means.append(float(model.means_[0, 0]))
    assert means[0] > means[1]
    assert means[1] == pytest.approx((old.mean() + new.mean()) / 2, rel=1e-9)


@pytest.mark.parametrize("decay", [0.5, 1.01, 0.0, "fast"])
def test_a_decay_for_which_nothing_converges_is_refused(decay, rng):
    with pytest.raises((ValueError, TypeError), match="learning_decay"):
        GaussianHMM(learning_decay=decay).partial_fit(rng.normal(size=(20, 1)))


def test_priors_and_fixed_parameters_hold(rng):
    X = counts(rng)[:, :1]
    transmat = np.array([[0.9, 0.1], [0.0, 1.0]])
    model = PoissonHMM(
        2, transmat_init=transmat, rates_init=[[1.0], [3.0]], startprob_init=[1.0, 0.0],
        fixed="startprob",
        rates_prior=2.0, rates_weight=1e9,
    )  # fmt: skip
    for _ in range(3):
        model.partial_fit(X)
    assert model.transmat_[1, 0] == 0.0
    np.testing.assert_array_equal(model.startprob_, [1.0, 0.0])
    np.testing.assert_allclose(model.rates_, 2.0, rtol=1e-6)  # so heavy a prior is the answer


# --- Streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [GaussianHMM, KalmanSmoother], ids=by_name)
def test_continues_goes_on_from_the_end_of_the_last_chunk(make, rng):
    X = np.cumsum(rng.normal(size=(400, 1)), axis=0) if make is KalmanSmoother else counts(rng, 400)
    model = make(1 if make is KalmanSmoother else 2, random_state=0, continues=True)
    model.partial_fit(X[:200])
    start = np.copy(model.initial_state_mean_ if make is KalmanSmoother else model.startprob_)
    expected = model.score(X[200:])  # continues: from the end of training
    model.partial_fit(X[200:])
    assert model.log_likelihood_ == pytest.approx(expected, rel=1e-9)
    if make is GaussianHMM:  # the second chunk was no start
        np.testing.assert_allclose(model.startprob_, start, atol=1e-12)


@pytest.mark.parametrize("make", EVERYONE, ids=by_name)
def test_the_history_has_scores_of_data_not_seen_yet(make, rng):
    X, Y = counts(rng), counts(rng, 50)
    model = make(random_state=0).partial_fit(X)
    ahead = model.score(Y)
    length = len(model.log_likelihoods_)
    model.partial_fit(Y)
    assert model.log_likelihood_ == pytest.approx(ahead, rel=1e-9)
    assert model.log_likelihoods_[-1] == model.log_likelihood_
    assert len(model.log_likelihoods_) == len(model.objectives_) == length + 1 == model.n_iter_ + 1


@pytest.mark.parametrize("make", EVERYONE, ids=by_name)
def test_input_forms_give_the_same_bits(make, rng):
    chunks = [[counts(rng) for _ in range(3)] for _ in range(3)]
    forms = [make(random_state=0) for _ in range(4)]
    for chunk in chunks:
        flat = np.concatenate(chunk)
        forms[0].partial_fit(chunk)
        forms[1].partial_fit(np.stack(chunk))
        forms[2].partial_fit(flat, lengths=[40] * 3)
        forms[3].partial_fit(flat, groups=np.repeat([5, 6, 7], 40))
    for other in forms[1:]:
        np.testing.assert_array_equal(other.log_likelihoods_, forms[0].log_likelihoods_)


@pytest.mark.parametrize("make", EVERYONE, ids=by_name)
def test_a_bad_chunk_leaves_all_as_it_was(make, rng):
    X = counts(rng)
    model = make(random_state=0).partial_fit(X).partial_fit(X)
    before = {name: np.copy(value) for name, value in vars(model).items() if name[-1] == "_"}
    bad_chunks = (X[:, :1], "features"), (np.full_like(X, np.inf), "inf"), (X[:0], "0 sample")
    for bad, match in bad_chunks:
        with pytest.raises(ValueError, match=match):
            model.partial_fit(bad)
    with pytest.raises(ValueError, match="lengths"):
        model.partial_fit(X, lengths=[3])
    after = {name: value for name, value in vars(model).items() if name[-1] == "_"}
    assert after.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    model.partial_fit(X)  # and it can go on
    assert model.n_iter_ == before["n_iter_"] + 1


@pytest.mark.parametrize("make", EVERYONE, ids=by_name)
def test_other_shapes_than_the_first_chunk_had_are_refused(make, rng):
    X = counts(rng)
    model = make(random_state=0).partial_fit(X).set_params(n_components=4)
    with pytest.raises(ValueError, match=r"partial_fit go on|observation_matrix"):
        model.partial_fit(X)


@pytest.mark.parametrize("make", EVERYONE, ids=by_name)
def test_a_stream_goes_on_from_a_fit_and_from_known_parameters(make, rng):
    X, Y = [counts(rng) for _ in range(20)], [counts(rng)]
    fitted = make(random_state=0, max_iter=30).fit(X)
    before = fitted.score(X)
    fitted.partial_fit(Y)
    assert abs(fitted.score(X) - before) < 0.05  # 20 sequences are not forgotten over one


def test_known_parameters_are_a_start(family, known, rng):
    truth = family.random_parameters(rng, 2, 2)
    X = family.sample(rng, 60, truth)
    model = known(truth)
    before = model.score(X)
    model.partial_fit(X)  # one EM step
    assert model.score(X) >= before - 1e-9
    assert model.n_iter_ == 0


def test_kalman_goes_on_from_known_parameters(rng):
    model = KalmanSmoother.from_parameters(
        transition_matrix=[[0.9]], transition_covariance=1.0, observation_matrix=[[1.0], [0.5]],
        observation_covariance=1.0, initial_state_mean=[0.0], initial_state_covariance=1.0,
    )  # fmt: skip
    X = model.sample(200, random_state=0)[0] * 2.0
    before = model.score(X)
    X[5, 0] = np.nan
    assert model.partial_fit(X).score(X) > before


@pytest.mark.parametrize("make", HMMS, ids=by_name)
def test_renumbered_states_are_carried_along(make, rng):
    chunks = [[counts(rng)] for _ in range(4)]
    plain, sorted_ = make(random_state=0), make(random_state=0)
    for chunk in chunks[:3]:
        plain.partial_fit(chunk)
        sorted_.partial_fit(chunk)
    sorted_.sort_states([1, 0])
    plain.partial_fit(chunks[3])
    sorted_.partial_fit(chunks[3])
    np.testing.assert_allclose(sorted_.transmat_[::-1, ::-1], plain.transmat_, rtol=1e-9)
    assert sorted_.score(chunks[0]) == pytest.approx(plain.score(chunks[0]), rel=1e-9)


def test_missing_entries_may_begin_in_any_chunk(rng):
    for make in (lambda: KalmanSmoother(1), lambda: KalmanSmoother(1, inputs_to="observation")):
        X = np.cumsum(rng.normal(size=(120, 1)), axis=0) + rng.normal(size=(120, 3))
        gaps = X.copy()
        gaps[rng.random(X.shape) < 0.2] = np.nan
        u = rng.normal(size=(120, 1))
        model = make()
        for chunk in (X, gaps, X, gaps):
            model.partial_fit(chunk, inputs=u)
        batch = make().fit([X, gaps], inputs=[u, u])
        assert model.score(X, inputs=u) == pytest.approx(batch.score(X, inputs=u), abs=0.1)


def test_known_states_of_the_kalman_model(rng):
    truth = np.cumsum(rng.normal(size=(200, 1)), axis=0)
    X = truth @ [[1.0, 2.0]] + rng.normal(size=(200, 2))
    model = KalmanSmoother(1)
    for rows in (slice(0, 100), slice(100, 200)):
        model.partial_fit(X[rows], states=truth[rows])
    np.testing.assert_allclose(model.observation_matrix_[:, 0], [1.0, 2.0], atol=0.1)
    model.partial_fit(X)  # coordinates stay those of the known states
    np.testing.assert_allclose(model.observation_matrix_[:, 0], [1.0, 2.0], atol=0.2)


@pytest.mark.parametrize("make", EVERYONE, ids=by_name)
def test_memory_stays_flat_over_a_hundred_chunks(make, rng):
    model = make(random_state=0, n_init=1)
    model.partial_fit(counts(rng, 1000))
    sizes = []
    tracemalloc.start()
    try:
        for _ in range(2):
            for _ in range(50):
                model.partial_fit(counts(rng, 1000))
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 30_000  # 50 chunks are 800 kB; free lists fill up a little


def test_groups_and_states_are_routed():
    with sklseq_routing():
        for make in EVERYONE:
            request = make().get_metadata_routing()
            assert request.partial_fit.requests["groups"] is True
            assert request.partial_fit.requests["states"] is True


def sklseq_routing():
    from sklearn import config_context

    return config_context(enable_metadata_routing=True)


def test_families_of_the_references_are_all_here():
    assert {estimator_class(family) for family in FAMILIES} <= set(EVERYONE)
    assert not hasattr(sklseq.SoftmaxStateSpace, "partial_fit")
