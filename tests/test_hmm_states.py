"""The states as a set: sorting, aligning, stationary distribution, dwell times."""

import itertools

import numpy as np
import pytest
from references import FAMILIES, full_covariances, stationary_distribution
from references_hmm_extra import EXTRA_FAMILIES
from scipy import integrate, stats
from sklearn.exceptions import NotFittedError
from test_hmm_known_states import class_of

from sklseq import CategoricalHMM, GaussianHMM, PoissonHMM

ALL = FAMILIES + EXTRA_FAMILIES


@pytest.fixture(params=ALL, ids=lambda family: family.name)
def each(request):
    return request.param


def known(family, parameters, **params):
    return class_of(family).from_parameters(**parameters, **family.estimator_parameters, **params)


def reordered(parameters, order, covariance_type=None):
    """By hand."""
    result = {}
    for name, value in parameters.items():
        if name == "transmat":
            result[name] = value[np.ix_(order, order)]
        elif isinstance(value, list):
            result[name] = [table[order] for table in value]
        elif name == "covars" and covariance_type == "tied":
            result[name] = value
        else:
            result[name] = value[order]
    return result


def assert_equal_models(model, parameters):
    for name, value in parameters.items():
        found = getattr(model, f"{name}_")
        if isinstance(value, list):
            for one, two in zip(found, value):
                np.testing.assert_allclose(one, two, rtol=1e-14)
        else:
            np.testing.assert_allclose(found, value, rtol=1e-14)


def kind_of(family):
    return "tied" if family.name == "gaussian-tied" else None


# --- Sorting --------------------------------------------------------------------------------------


def test_sort_by_numbers_moves_everything_and_nothing_else(each, rng):
    parameters = each.random_parameters(rng, 3, 2)
    X = each.sample(rng, 30, parameters)
    order = [2, 0, 1]
    model = known(each, parameters)
    before = model.score_samples(X)
    posteriors = model.predict_proba(X)
    assert model.sort_states(order) is model
    assert_equal_models(model, reordered(parameters, order, kind_of(each)))
    np.testing.assert_allclose(model.score_samples(X), before, atol=1e-11)
    np.testing.assert_allclose(model.predict_proba(X), posteriors[:, order], atol=1e-11)


def test_sort_by_mean(rng):
    family = FAMILIES[0]
    parameters = family.random_parameters(rng, 4, 2)
    parameters["means"][:, 0] = [3.0, 1.0, 1.0, 2.0]  # a tie, which the second column decides
    model = known(family, parameters).sort_states()
    assert model.means_[:, 0].tolist() == [1.0, 1.0, 2.0, 3.0]
    assert model.means_[0, 1] < model.means_[1, 1]
    mixture = EXTRA_FAMILIES[0]
    parameters = mixture.random_parameters(rng, 3, 1)
    sorted_mixture = known(mixture, parameters).sort_states("mean")
    means = np.einsum("km,kmd->k", sorted_mixture.weights_, sorted_mixture.means_)
    assert np.all(np.diff(means) > 0)


def test_sort_by_occupancy(each, rng):
    parameters = each.random_parameters(rng, 4, 1)
    model = known(each, parameters).sort_states(by="occupancy")
    assert np.all(np.diff(model.stationary_distribution_) <= 0)
    expected = np.sort(stationary_distribution(parameters["transmat"]))[::-1]
    np.testing.assert_allclose(model.stationary_distribution_, expected, rtol=1e-10)


def test_what_by_may_be(rng):
    model = CategoricalHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.5, 0.5], [0.5, 0.5]], emissionprob=[[1.0], [1.0]]
    )
    with pytest.raises(ValueError, match=r"CategoricalHMM have no mean"):
        model.sort_states()
    with pytest.raises(ValueError, match=r"by must be 'mean', 'occupancy' or an array, got 'size'"):
        model.sort_states(by="size")
    with pytest.raises(ValueError, match=r"each of the states 0 to 1 once"):
        model.sort_states(by=[0, 0])
    with pytest.raises(NotFittedError):
        GaussianHMM().sort_states()


def test_the_end_of_training_moves_too(rng):
    X = np.concatenate([np.zeros((20, 1)), 5 + np.zeros((20, 1))]) + rng.normal(size=(40, 1))
    hmm = GaussianHMM(2, random_state=0, continues=True).fit(X)
    before = hmm.forecast(X[:1], 1).means
    score = hmm.score(X[:5])
    hmm.sort_states([1, 0])
    np.testing.assert_allclose(hmm.forecast(X[:1], 1).means, before)
    assert hmm.score(X[:5]) == pytest.approx(score)


def test_masks_forbid_renumbering(rng):
    X = rng.normal(size=(30, 1))
    masks = {"transmat": np.array([[True, False], [False, False]])}
    hmm = GaussianHMM(2, transmat_init=[[0.9, 0.1], [0.1, 0.9]], fixed=masks, max_iter=500).fit(X)
    with pytest.raises(ValueError, match="fixed holds masks"):
        hmm.sort_states()
    with pytest.raises(ValueError, match="fixed holds masks"):
        hmm.align_states(hmm)


# --- Aligning -------------------------------------------------------------------------------------


def test_align_finds_any_permutation(each, rng):
    parameters = each.random_parameters(rng, 4, 2)
    target = known(each, parameters)
    for order in itertools.islice(itertools.permutations(range(4)), 0, 24, 5):
        model = known(each, reordered(parameters, list(order), kind_of(each)))
        assert model.align_states(target) is model
        assert_equal_models(model, parameters)


def test_align_two_fits(rng):
    truth = GaussianHMM.from_parameters(
        startprob=[0.4, 0.3, 0.3], transmat=np.full((3, 3), 0.1) + 0.7 * np.eye(3),
        means=[[0.0], [5.0], [10.0]], covars=[[1.0], [1.0], [1.0]],
    )  # fmt: skip
    one, two = (
        GaussianHMM(3, random_state=seed).fit(truth.sample(400, random_state=seed)[0])
        for seed in (0, 1)
    )
    two.align_states(one)
    np.testing.assert_allclose(two.means_, one.means_, atol=0.5)
    one.align_states(truth)
    two.align_states(truth)
    np.testing.assert_allclose(one.means_, truth.means_, atol=0.5)
    np.testing.assert_allclose(two.transmat_, truth.transmat_, atol=0.15)


def test_covariance_types_may_differ(rng):
    X = np.concatenate([rng.normal(size=(50, 2)), rng.normal(6.0, 1.0, size=(50, 2))])
    diag = GaussianHMM(2, random_state=0).fit(X).sort_states()
    full = GaussianHMM(2, covariance_type="full", random_state=1).fit(X).sort_states([1, 0])
    full.align_states(diag)
    np.testing.assert_allclose(full.means_, diag.means_, atol=0.1)


def test_models_that_do_not_match(rng):
    two = PoissonHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.5, 0.5], [0.5, 0.5]], rates=[[1.0], [2.0]]
    )
    one = PoissonHMM.from_parameters(startprob=[1.0], transmat=[[1.0]], rates=[[1.0]])
    gaussian = GaussianHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.5, 0.5], [0.5, 0.5]], means=[[1.0], [2.0]],
        covars=[[1.0], [1.0]],
    )  # fmt: skip
    with pytest.raises(ValueError, match="as many states, features and categories"):
        two.align_states(one)
    with pytest.raises(ValueError, match="other must be a PoissonHMM as well, got GaussianHMM"):
        two.align_states(gaussian)
    with pytest.raises(NotFittedError):
        two.align_states(PoissonHMM())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_bhattacharyya_distances_against_sums_and_integrals(family, rng):
    """One column: the integral of the geometric mean of two densities."""
    p, q = (family.random_parameters(rng, 2, 1) for _ in range(2))
    found = known(family, p)._emission().distances(known(family, q)._emission())
    for i, j in itertools.product(range(2), range(2)):
        if family.name == "poisson":
            x = np.arange(200)
            total = np.sqrt(
                stats.poisson.pmf(x, p["rates"][i, 0]) * stats.poisson.pmf(x, q["rates"][j, 0])
            ).sum()
        elif family.name == "categorical":
            total = np.sqrt(p["emissionprob"][i] * q["emissionprob"][j]).sum()
        else:
            kind = family.estimator_parameters["covariance_type"]
            s = [np.sqrt(full_covariances(one["covars"], kind, 2, 1)[k, 0, 0])
                 for one, k in ((p, i), (q, j))]  # fmt: skip
            m = [p["means"][i, 0], q["means"][j, 0]]
            total, _ = integrate.quad(
                lambda x, m=m, s=s: np.sqrt(
                    stats.norm.pdf(x, m[0], s[0]) * stats.norm.pdf(x, m[1], s[1])
                ), -40, 40, points=m, limit=200,
            )  # fmt: skip
        assert found[i, j] == pytest.approx(-np.log(total), abs=1e-7)


def test_tables_without_overlap_are_far_but_finite():
    one = CategoricalHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.5, 0.5], [0.5, 0.5]],
        emissionprob=[[1.0, 0.0], [0.0, 1.0]],
    )  # fmt: skip
    distances = one._emission().distances(one._emission())
    assert np.isfinite(distances).all()
    assert distances[0, 1] > 700
    np.testing.assert_allclose(np.diag(distances), 0.0, atol=1e-12)


# --- Stationary distribution and dwell times ------------------------------------------------------


def test_stationary_distribution(each, rng):
    model = known(each, each.random_parameters(rng, 3, 1))
    pi = model.stationary_distribution_
    np.testing.assert_allclose(pi @ model.transmat_, pi, atol=1e-12)
    assert pi.sum() == pytest.approx(1.0)
    assert not hasattr(class_of(each)(), "stationary_distribution_")
    with pytest.raises(NotFittedError):
        class_of(each)().sort_states([0])


def test_not_unique():
    model = PoissonHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[1.0, 0.0], [0.0, 1.0]], rates=[[1.0], [2.0]]
    )
    with pytest.raises(ValueError, match="no unique stationary distribution"):
        _ = model.stationary_distribution_
    assert np.all(np.isposinf(model.expected_dwell_times_))


def test_dwell_times_are_those_of_drawn_paths():
    model = PoissonHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.9, 0.1], [0.4, 0.6]], rates=[[1.0], [2.0]]
    )
    np.testing.assert_allclose(model.expected_dwell_times_, [10.0, 2.5])
    _, states = model.sample(100_000, random_state=0)
    visits = [(key, len(list(run))) for key, run in itertools.groupby(states)]
    for k, expected in enumerate((10.0, 2.5)):
        assert np.mean([n for key, n in visits if key == k]) == pytest.approx(expected, rel=0.03)


# --- What is free -----------------------------------------------------------------------------


def test_estimated_zeros_count_as_free_parameters():
    """How far a probability has gone to 0 depends on tol; the size of the model does not."""
    X = np.random.default_rng(0).normal(size=(60, 2))
    X[30:] += 4
    model = GaussianHMM(3, covariance_type="spherical", n_init=1, max_iter=2000, random_state=0)
    counts = {model.set_params(tol=tol).fit(X)._n_free_parameters() for tol in (1e-3, 1e-6, 1e-9)}
    assert counts == {2 + 3 * 2 + 3 * 2 + 3}
    assert np.any(model.transmat_ == 0)  # or the test says nothing
    model.sort_states()
    assert {model._n_free_parameters()} == counts
    model.set_params(warm_start=True, max_iter=2000).fit(X)
    assert {model._n_free_parameters()} == counts
    assert {model.partial_fit(X)._n_free_parameters()} == counts


def test_zeros_that_a_fit_starts_from_are_not_free(rng):
    X = rng.normal(size=(60, 1))
    model = GaussianHMM(3, transmat_init=[[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]], random_state=0)
    assert model.fit(X)._n_free_parameters() == 2 + 2 + 3 + 3
    assert model.sort_states([2, 1, 0])._n_free_parameters() == 2 + 2 + 3 + 3
    model.set_params(transmat_init=None).fit(X)  # anew: nothing is left of the zeros
    assert model._n_free_parameters() == 2 + 6 + 3 + 3
    given = GaussianHMM.from_parameters(
        startprob=[1, 0], transmat=[[0.5, 0.5], [0, 1]], means=[[0], [1]], covars=[[1], [1]]
    )
    assert given._n_free_parameters() == 0 + 1 + 2 + 2
    assert given.set_params(warm_start=True).fit(X)._n_free_parameters() == 0 + 1 + 2 + 2
