"""decode(X, n_paths=k): the k best paths, against all paths written out."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references import best_paths
from sklseq.hmm._list_viterbi import list_viterbi

from sklseq import CategoricalHMM, GaussianHMM


def run(startprob, transmat, log_obs, offsets, n_paths):
    states = np.full((len(log_obs), n_paths), -7, dtype=np.intp)
    totals = np.full((len(offsets) - 1, n_paths), np.nan)
    with np.errstate(divide="ignore"):
        list_viterbi(np.log(startprob), np.log(transmat), log_obs, offsets, states, totals)
    return states, totals


@given(
    seed=st.integers(0, 2**32 - 1),
    n_states=st.integers(1, 4),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    n_paths=st.integers(1, 12),
    zeros=st.sampled_from([0.0, 0.3]),
)
def test_kernel_against_all_paths(seed, n_states, lengths, n_paths, zeros):
    rng = np.random.default_rng(seed)
    startprob = rng.dirichlet(np.ones(n_states))
    transmat = rng.dirichlet(np.ones(n_states), n_states)
    transmat[(rng.random(transmat.shape) < zeros) & ~np.eye(n_states, dtype=bool)] = 0.0
    transmat /= transmat.sum(axis=1, keepdims=True)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.intp)
    log_obs = rng.normal(scale=3.0, size=(offsets[-1], n_states))
    log_obs[rng.random(log_obs.shape) < zeros / 2] = -np.inf
    states, totals = run(startprob, transmat, log_obs, offsets, n_paths)
    for s, (first, last) in enumerate(itertools.pairwise(offsets)):
        values, paths = best_paths(startprob, transmat, log_obs[first:last], n_paths=n_paths)
        values, paths = values[np.isfinite(values)], paths[np.isfinite(values)]
        np.testing.assert_allclose(totals[s, : len(values)], values, rtol=1e-11, atol=1e-11)
        np.testing.assert_array_equal(states[first:last, : len(values)].T, paths)
        assert np.all(np.isneginf(totals[s, len(values) :]))
        assert np.all(states[first:last, len(values) :] == -1)


def test_the_first_is_viterbis_path_also_among_equals():
    """All paths are equally probable: both take the lowest states."""
    model = CategoricalHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.5, 0.5], [0.5, 0.5]], emissionprob=[[1.0], [1.0]]
    )
    X = np.zeros((4, 1))
    log_probability, states = model.decode(X)
    log_probabilities, paths = model.decode(X, n_paths=16)
    np.testing.assert_array_equal(paths[0], states)
    np.testing.assert_allclose(log_probabilities, log_probability)
    assert len(np.unique(paths, axis=0)) == 16


def test_a_long_sequence_keeps_its_digits(rng):
    n_steps = 200_000
    X = rng.normal(size=(n_steps, 1)) + 3 * (np.arange(n_steps) // 50 % 2)[:, None]
    model = GaussianHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.98, 0.02], [0.02, 0.98]], means=[[0.0], [3.0]],
        covars=[[1.0], [1.0]],
    )  # fmt: skip
    log_probabilities, paths = model.decode(X, n_paths=3)
    assert len(np.unique(paths, axis=0)) == 3
    best, states = model.decode(X)
    np.testing.assert_array_equal(paths[0], states)
    assert log_probabilities[0] == pytest.approx(best, rel=1e-14)
    exact = [model._model().path_log_probability(X, np.array([0, n_steps]), p) for p in paths]
    np.testing.assert_allclose(log_probabilities, exact, rtol=1e-12)
    np.testing.assert_allclose(np.diff(log_probabilities), np.diff(exact), atol=1e-6)


@pytest.fixture
def model():
    return GaussianHMM.from_parameters(
        startprob=[0.6, 0.4], transmat=[[0.9, 0.1], [0.3, 0.7]], means=[[0.0], [2.0]],
        covars=[[1.0], [1.5]],
    )  # fmt: skip


def test_every_form_has_a_list_for_each_sequence(model, rng):
    sequences = [rng.normal(size=(n, 1)) for n in (4, 3, 5)]
    alone = [model.decode(X, n_paths=4) for X in sequences]
    values, states = model.decode(sequences, n_paths=4)
    assert values.shape == (3, 4)
    assert states.dtype == object
    for i, (value, paths) in enumerate(alone):
        np.testing.assert_array_equal(values[i], value)
        np.testing.assert_array_equal(states[i], paths)
        assert paths.shape == (4, len(sequences[i]))
    flat_values, flat_states = model.decode(np.concatenate(sequences), n_paths=4, lengths=[4, 3, 5])
    np.testing.assert_array_equal(flat_values, values)
    np.testing.assert_array_equal(flat_states, np.concatenate([p for _, p in alone], axis=1))
    stacked = np.stack([sequences[0][:3], sequences[1]])
    stacked_values, stacked_states = model.decode(stacked, n_paths=2)
    assert stacked_values.shape == (2, 2)
    assert stacked_states.shape == (2, 2, 3)
    np.testing.assert_array_equal(stacked_states[1], alone[1][1][:2])


def test_n_jobs_changes_no_bit(rng, monkeypatch):
    monkeypatch.setattr("sklseq.hmm._chain.SOURCE_SHARD_STEPS", 10_000)
    sequences = [rng.normal(size=(4_000, 1)) for _ in range(8)]
    params = {"startprob": [0.5, 0.5], "transmat": [[0.9, 0.1], [0.1, 0.9]],
              "means": [[0.0], [1.0]], "covars": [[1.0], [1.0]]}  # fmt: skip
    one = GaussianHMM.from_parameters(**params).decode(sequences, n_paths=3)
    two = GaussianHMM.from_parameters(**params, n_jobs=2).decode(sequences, n_paths=3)
    np.testing.assert_array_equal(one[0], two[0])
    for a, b in zip(one[1], two[1]):
        np.testing.assert_array_equal(a, b)


def test_fewer_paths_than_asked_for_is_an_error_that_says_how_many():
    left_right = GaussianHMM.from_parameters(
        startprob=[1.0, 0.0], transmat=[[0.5, 0.5], [0.0, 1.0]], means=[[0.0], [1.0]],
        covars=[[1.0], [1.0]],
    )  # fmt: skip
    X = [np.zeros((9, 1)), np.zeros((3, 1))]
    _, states = left_right.decode(X, n_paths=3)
    assert states[1].tolist() in (
        [[0, 0, 0], [0, 0, 1], [0, 1, 1]], [[0, 0, 1], [0, 0, 0], [0, 1, 1]],
        [[0, 0, 0], [0, 1, 1], [0, 0, 1]], [[0, 1, 1], [0, 0, 1], [0, 0, 0]],
        [[0, 0, 1], [0, 1, 1], [0, 0, 0]], [[0, 1, 1], [0, 0, 0], [0, 0, 1]],
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"n_paths=4 .*sequence 1 has 3 possible paths"):
        left_right.decode(X, n_paths=4)


def test_no_path_at_all():
    model = CategoricalHMM.from_parameters(
        startprob=[1.0, 0.0], transmat=[[1.0, 0.0], [0.0, 1.0]],
        emissionprob=[[1.0, 0.0], [0.0, 1.0]],
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"No path: sequence 0 .* at step 1"):
        model.decode([[0], [1]], n_paths=2)


def test_what_n_paths_may_be(model):
    X = np.zeros((3, 1))
    for wrong in (0, -1, 1.5, "2"):
        with pytest.raises((TypeError, ValueError), match="n_paths"):
            model.decode(X, n_paths=wrong)
    with pytest.raises(ValueError, match=r"n_paths=2 needs algorithm='viterbi'"):
        model.set_params(algorithm="map").decode(X, n_paths=2)


def test_map_is_the_best_state_of_each_step_and_may_be_impossible():
    """Three paths of a chain that may not go from 1 to 2: the best states make a forbidden one."""
    model = CategoricalHMM.from_parameters(
        startprob=[0.0, 0.6, 0.4], transmat=[[0, 0.5, 0.5], [1, 0, 0], [0.4, 0, 0.6]],
        emissionprob=[[1.0], [1.0], [1.0]], algorithm="map",
    )  # fmt: skip
    X = np.zeros((2, 1))
    total, states = model.decode(X)
    np.testing.assert_array_equal(states, model.predict_proba(X).argmax(axis=1))
    assert states.tolist() == [1, 0]
    chain = [0.0, 0.6, 0.4] @ np.array([[0, 0.5, 0.5], [1, 0, 0], [0.4, 0, 0.6]])
    np.testing.assert_allclose(model.predict_proba(X)[1], chain)
    assert total == pytest.approx(np.log(0.6))
    blocked = CategoricalHMM.from_parameters(
        startprob=[0.4, 0.3, 0.3], transmat=[[1, 0, 0], [0, 0, 1], [0, 0, 1]],
        emissionprob=[[1.0], [1.0], [1.0]], algorithm="map",
    )  # fmt: skip
    total, states = blocked.decode(X)
    assert states.tolist() == [0, 2]
    assert np.isneginf(total)
    best, path = blocked.set_params(algorithm="viterbi").decode(X)
    assert path.tolist() == [0, 0]
    assert best == pytest.approx(np.log(0.4))
