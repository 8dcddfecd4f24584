"""fit(X, states=...): hard evidence, closed-form counting, collections and cross-validation."""

import warnings

import numpy as np
import pytest
import sklearn
from conftest import SHARED_DATA, fitted_parameters
from references import FAMILIES, chain_m_step, log_smooth, safe_log
from references_hmm_extra import EXTRA_FAMILIES
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sklseq
from sklseq import CategoricalHMM, GaussianHMM, GaussianMixtureHMM, Stepwise

CLASSES = {
    "gaussian": GaussianHMM,
    "categorical": CategoricalHMM,
    "poisson": sklseq.PoissonHMM,
    "mixture": GaussianMixtureHMM,
    "multinomial": sklseq.MultinomialHMM,
}
ALL = FAMILIES + EXTRA_FAMILIES
COUNTED = [family for family in ALL if not family.name.startswith("mixture")]


def class_of(family):
    return CLASSES[family.name.split("-")[0]]


def quietly(estimator, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(*args, **kwargs)


def draw(family, rng, lengths, n_states=3):
    truth = family.random_parameters(rng, n_states, 2)
    sequences, states = [], []
    for n in lengths:
        path = [rng.choice(n_states, p=truth["startprob"])]
        for _ in range(n - 1):
            path.append(rng.choice(n_states, p=truth["transmat"][path[-1]]))
        states.append(np.array(path))
        sequences.append(family.draw(rng, states[-1], truth))
    return sequences, states


@pytest.fixture(params=ALL, ids=lambda family: family.name)
def each(request):
    return request.param


def test_all_known_is_counting_without_a_pass_over_the_chain(each, rng, monkeypatch):
    """The recursions find the same where they are run, and are not run."""
    sequences, states = draw(each, rng, (14, 1, 20))
    estimator = quietly(class_of(each)(3, **each.estimator_parameters), sequences, states=states)
    model, known = estimator._model(), np.concatenate(states)
    X, offsets = estimator._check_X(sequences)[:2]
    statistics, log_likelihood = model.e_step(X, offsets, known)
    posteriors = np.empty((35, 3))
    transitions, totals = model._smooth(X, offsets, posteriors, known)
    np.testing.assert_allclose(log_likelihood, totals.sum(), rtol=1e-12)
    np.testing.assert_allclose(statistics.transitions, transitions, atol=1e-12)
    np.testing.assert_allclose(statistics.starts, posteriors[offsets[:-1]].sum(axis=0), atol=1e-12)
    np.testing.assert_allclose(statistics.ends, posteriors[offsets[1:] - 1].sum(axis=0), atol=1e-12)
    monkeypatch.delattr("sklseq.hmm._forward_backward.forward_backward")
    monkeypatch.delattr("sklseq.hmm._forward_backward.expected_statistics")
    quietly(class_of(each)(3, **each.estimator_parameters), sequences, states=states)


# --- Partly known ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_iter", [1, 4])
def test_em_with_known_states_equals_the_oracle(each, rng, n_iter):
    """The oracle gives the other states of a known step the density zero."""
    sequences, states = draw(each, rng, (14, 3, 20))
    known = [np.where(rng.random(len(s)) < 0.4, s, -1) for s in states]
    parameters = each.random_parameters(rng, 3, 2)
    estimator = class_of(each)(
        3, **{f"{name}_init": value for name, value in parameters.items()},
        **each.estimator_parameters, max_iter=n_iter, tol=0.0,
    )  # fmt: skip
    quietly(estimator, sequences, states=known)
    history = []
    for _ in range(n_iter + 1):
        smoothed = []
        for X, k in zip(sequences, known):
            log_obs = each.log_obs(X, parameters)
            log_obs[(k[:, None] >= 0) & (k[:, None] != np.arange(3))] = -np.inf
            smoothed.append(log_smooth(parameters["startprob"], parameters["transmat"], log_obs))
        history.append(sum(s.log_likelihood for s in smoothed))
        last = parameters
        posteriors = np.concatenate([s.posteriors for s in smoothed])
        startprob, transmat = chain_m_step(smoothed)
        emission = each.m_step(np.concatenate(sequences), posteriors, parameters)
        parameters = {"startprob": startprob, "transmat": transmat, **emission}
    for name, value in last.items():
        for one, two in zip(_tables(getattr(estimator, f"{name}_")), _tables(value)):
            np.testing.assert_allclose(one, two, rtol=1e-7, atol=1e-10)
    n_steps = sum(map(len, sequences))
    np.testing.assert_allclose(estimator.log_likelihoods_, np.array(history) / n_steps, rtol=1e-9)
    assert np.all(np.diff(estimator.objectives_) >= -1e-10)


def _tables(value):
    return value if isinstance(value, list) else [value]


def test_all_unknown_is_no_evidence(each, rng):
    sequences, states = draw(each, rng, (30, 20))
    estimator = class_of(each)(3, **each.estimator_parameters, max_iter=5, random_state=0, n_init=2)
    without = quietly(clone(estimator), sequences)
    unknown = quietly(clone(estimator), sequences, states=[np.full(len(s), -1) for s in states])
    np.testing.assert_array_equal(without.transmat_, unknown.transmat_)
    np.testing.assert_array_equal(without.objectives_, unknown.objectives_)


def test_the_starting_values_follow_the_known_states(rng):
    """Ten labelled rows of four hundred name the states, which k-means names by chance."""
    states = np.repeat([2, 0, 1, 2, 0, 1, 0, 2], 50)
    X = 4.0 * states[:, None] + rng.normal(size=(400, 1))
    known = np.full(400, -1)
    known[::40] = states[::40]
    for seed in range(5):
        hmm = GaussianHMM(3, random_state=seed).fit(X, states=known)
        np.testing.assert_allclose(hmm.means_.ravel(), [0.0, 4.0, 8.0], atol=0.4)
        assert np.mean(hmm.predict(X) == states) > 0.95


def test_continues_from_a_known_end(rng):
    X = rng.normal(size=(30, 1))
    known = np.full(30, -1)
    known[-1] = 1
    hmm = quietly(GaussianHMM(2, continues=True, random_state=0, max_iter=3), X, states=known)
    np.testing.assert_allclose(hmm.final_stateprob_, [0.0, 1.0])


# --- All known ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", COUNTED, ids=lambda family: family.name)
def test_all_known_is_counting(family, rng):
    """Relative frequencies and sample moments; no iteration, no chance, no warning."""
    sequences, states = draw(family, rng, (60, 1, 80))
    one_hot = np.eye(3)[np.concatenate(states)]
    moves = np.zeros((3, 3))
    for path in states:
        np.add.at(moves, (path[:-1], path[1:]), 1.0)
    starts = np.bincount([path[0] for path in states], minlength=3)
    parameters = family.random_parameters(rng, 3, 2)
    if family.name == "categorical":  # as many categories as the data have
        sizes = np.concatenate(sequences).max(axis=0).astype(int) + 1
        parameters["emissionprob"] = [np.ones((3, size)) / size for size in sizes]
    expected = family.m_step(np.concatenate(sequences), one_hot, parameters)
    results = []
    for seed in (0, 1):
        estimator = class_of(family)(3, **family.estimator_parameters, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            estimator.fit(sequences, states=states)
        assert estimator.n_iter_ == 0
        assert estimator.converged_
        np.testing.assert_allclose(estimator.startprob_, starts / 3)
        np.testing.assert_allclose(estimator.transmat_, moves / moves.sum(axis=1, keepdims=True))
        for name, value in expected.items():
            for one, two in zip(_tables(getattr(estimator, f"{name}_")), _tables(value)):
                np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)
        results.append(estimator)
    np.testing.assert_array_equal(results[0].transmat_, results[1].transmat_)
    for name in expected:
        for one, two in zip(*(_tables(getattr(e, f"{name}_")) for e in results)):
            np.testing.assert_array_equal(one, two)
    # the likelihood is the joint one of X and the path
    total = 0.0
    log_start, log_moves = safe_log(results[0].startprob_), safe_log(results[0].transmat_)
    fitted = fitted_parameters(results[0], expected)
    for X, path in zip(sequences, states):
        log_obs = family.log_obs(X, fitted)
        total += log_start[path[0]] + log_moves[path[:-1], path[1:]].sum()
        total += log_obs[np.arange(len(path)), path].sum()
    assert results[0].log_likelihood_ == pytest.approx(total / 141, rel=1e-9)


def test_counting_with_priors_is_the_posterior_mode(rng):
    states = np.array([0, 0, 1, 1, 1, 0, 0, 0, 1])
    X = rng.poisson(3.0, size=(9, 1)).astype(float)
    hmm = sklseq.PoissonHMM(
        2, transmat_prior=3.0, stickiness=1.0, startprob_prior=2.0, rates_prior=4.0,
        rates_weight=2.0,
    ).fit(X, states=states)
    np.testing.assert_allclose(
        hmm.transmat_, [[(3 + 3) / 10, (2 + 2) / 10], [(1 + 2) / 8 , (2 + 3) / 8]]
    )
    np.testing.assert_allclose(hmm.startprob_, [2 / 3, 1 / 3])
    counts = np.array([X[states == k].sum() for k in (0, 1)])
    np.testing.assert_allclose(hmm.rates_.ravel(), (counts + 8.0) / (np.array([5, 4]) + 2.0))


def test_known_states_leave_a_mixture_work_to_do(rng):
    sequences, states = draw(EXTRA_FAMILIES[0], rng, (80, 80))
    hmm = quietly(GaussianMixtureHMM(3, random_state=0), sequences, states=states)
    assert hmm.n_iter_ > 0
    moves = np.zeros((3, 3))
    for path in states:
        np.add.at(moves, (path[:-1], path[1:]), 1.0)
    np.testing.assert_allclose(hmm.transmat_, moves / moves.sum(axis=1, keepdims=True))


def test_known_states_with_partly_missing_correlated_rows_iterate(rng):
    X = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], size=60)
    X[rng.random(60) < 0.4, 0] = np.nan
    states = np.repeat([0, 1], 30)
    full = GaussianHMM(2, covariance_type="full", tol=1e-9).fit(X, states=states)
    assert full.n_iter_ > 1
    assert full.converged_
    diag = GaussianHMM(2).fit(X, states=states)
    assert diag.n_iter_ == 0


def test_structural_zeros_and_fixed_entries_survive_counting():
    states = np.array([0, 0, 1, 1, 2, 2, 2])
    X = np.arange(7.0)[:, None]
    hmm = GaussianHMM(
        3, transmat_init=[[0.5, 0.5, 0.0], [0.0, 0.9, 0.1], [0.0, 0.0, 1.0]],
        fixed={"transmat": [[False] * 3, [True] * 3, [False] * 3]},
    ).fit(X, states=states)  # fmt: skip
    np.testing.assert_allclose(
        hmm.transmat_, [[0.5, 0.5, 0.0], [0.0, 0.9, 0.1], [0.0, 0.0, 1.0]], atol=1e-15
    )
    assert hmm.transmat_[0, 2] == 0.0


def test_a_state_without_rows_keeps_its_start_and_is_named(rng):
    X = rng.normal(size=(20, 1))
    with pytest.warns(ConvergenceWarning, match="No step belongs to state 2"):
        hmm = GaussianHMM(3).fit(X, states=np.arange(20) % 2)
    assert np.isfinite(hmm.means_).all()


# --- Forms and errors -----------------------------------------------------------------------------


def test_every_form_gives_the_same_bits(rng):
    sequences, states = draw(FAMILIES[0], rng, (12, 12, 12))
    known = [np.where(rng.random(12) < 0.5, s, -1) for s in states]
    forms = [
        (sequences, known, {}),
        (tuple(sequences), tuple(k.tolist() for k in known), {}),
        (np.stack(sequences), np.stack(known), {}),
        (np.concatenate(sequences), np.concatenate(known), {"lengths": [12] * 3}),
        (np.concatenate(sequences), np.concatenate(known), {"groups": np.repeat([0, 1, 2], 12)}),
    ]
    fits = [
        quietly(GaussianHMM(3, random_state=0, n_init=1, max_iter=5), X, states=s, **where)
        for X, s, where in forms
    ]
    for fit in fits[1:]:
        np.testing.assert_array_equal(fit.transmat_, fits[0].transmat_)
        np.testing.assert_array_equal(fit.means_, fits[0].means_)


def test_n_jobs_cuts_states_as_it_cuts_rows(rng, monkeypatch):
    n = 5_000
    monkeypatch.setattr("sklseq.hmm._chain.SOURCE_SHARD_STEPS", 2 * n)
    states = [np.arange(n) // 100 % 2 for _ in range(4)]
    sequences = [rng.normal(size=(n, 1)) + s[:, None] for s in states]
    one, two = (
        quietly(GaussianHMM(2, max_iter=2, n_init=1, random_state=0, n_jobs=n_jobs), sequences,
                states=[np.where(rng_mask, s, -1) for s in states])
        for n_jobs, rng_mask in ((1, np.arange(n) % 3 == 0), (2, np.arange(n) % 3 == 0))
    )  # fmt: skip
    np.testing.assert_array_equal(one.transmat_, two.transmat_)
    np.testing.assert_array_equal(one.means_, two.means_)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([0, 1, 2], r"states must be integers from 0 to 1, or -1 .* got 2 at row 2"),
        ([0, 1, -2], r"got -2 at row 2"),
        ([0, 0.5, 1], r"got 0.5 at row 1"),
        ([0, np.nan, 1], r"got nan at row 1"),
        ([0, 1], r"states must have one row for each step of X"),
        ([[0], [1], [1]], r"states must have one row for each step of X"),
    ],
)
def test_what_states_may_be(states, message):
    hmm = GaussianHMM(2, random_state=0)
    with pytest.raises(ValueError, match=message):
        hmm.fit([[0.0], [1.0], [2.0]], states=states)
    assert not hasattr(hmm, "means_")


def test_collections_need_states_for_each_sequence(rng):
    sequences = [rng.normal(size=(4, 1)), rng.normal(size=(3, 1))]
    with pytest.raises(ValueError, match="one array for each sequence"):
        GaussianHMM().fit(sequences, states=[np.zeros(4)])
    with pytest.raises(ValueError, match="sequence 1 has 3 steps, its states 4 rows"):
        GaussianHMM().fit(sequences, states=[np.zeros(4), np.zeros(4)])


def test_states_that_the_structure_forbids_are_refused():
    with pytest.raises(ValueError, match=r"states given for sequence 0 are impossible at step 1"):
        GaussianHMM(2, transmat_init=[[0.5, 0.5], [0.0, 1.0]]).fit(
            [[0.0], [1.0], [2.0]], states=[1, 0, 1]
        )


# --- With scikit-learn ----------------------------------------------------------------------------


class Spy(GaussianHMM):
    """Remembers what states its fits saw."""

    seen = []

    def fit(self, X, y=None, *, groups=None, lengths=None, states=None):
        Spy.seen.append((X, states))
        return super().fit(X, y, groups=groups, lengths=lengths, states=states)


def check_cut(X, states):
    """In these data the state of a step is the sign of its number."""
    if isinstance(X, np.ndarray) and X.dtype != object:
        np.testing.assert_array_equal(np.asarray(states), (X.ravel() > 0).astype(int))
    else:
        assert len(X) == len(states)
        for x, s in zip(X, states):
            np.testing.assert_array_equal(s, (x.ravel() > 0).astype(int))


def as_object(parts):
    result = np.empty(len(parts), dtype=object)
    result[:] = parts
    return result


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("container", [list, as_object], ids=["list", "object array"])
def test_cross_validation_cuts_states_with_the_sequences(rng, routing, container):
    sequences = [rng.normal(size=(n, 1)) for n in (5, 8, 6, 7, 9, 5)]
    states = [(x.ravel() > 0).astype(int) for x in sequences]
    Spy.seen = []
    params = {"states": container(states)}
    with sklearn.config_context(enable_metadata_routing=routing):
        cross_validate(Spy(), container(sequences), cv=KFold(3), params=params)
        search = GridSearchCV(Spy(), {"covariance_type": ["diag", "full"]}, cv=3)
        search.fit(container(sequences), **params)
    assert len(Spy.seen) == 3 + 6 + 1
    for X, cut in Spy.seen:
        check_cut(X, cut)
    assert search.best_estimator_.n_iter_ == 0


def test_cross_validation_cuts_states_with_the_rows_of_a_flat_x(rng):
    X = rng.normal(size=(60, 1))
    states = (X.ravel() > 0).astype(int)
    groups = np.repeat(np.arange(6), 10)
    Spy.seen = []
    cross_validate(Spy(), X, cv=3, params={"states": states})
    with sklearn.config_context(enable_metadata_routing=True):
        cross_validate(Spy(), X, cv=GroupKFold(3), params={"states": states, "groups": groups})
    assert len(Spy.seen) == 6
    for rows, cut in Spy.seen:
        check_cut(rows, cut)


def test_through_a_pipeline(rng):
    sequences = [rng.normal(size=(n, 1)) for n in (15, 18, 16)]
    states = [(x.ravel() > 0).astype(int) for x in sequences]
    direct = GaussianHMM().fit(
        Stepwise(StandardScaler()).fit_transform(sequences), states=states
    )
    pipeline = make_pipeline(Stepwise(StandardScaler()), GaussianHMM())
    pipeline.fit(sequences, gaussianhmm__states=states)
    np.testing.assert_array_equal(pipeline[-1].means_, direct.means_)
    with sklearn.config_context(enable_metadata_routing=True):
        routed = clone(pipeline).fit(sequences, states=states)
        middle = make_pipeline(GaussianHMM(), Stepwise(StandardScaler()))
        middle.fit_transform(sequences, states=states)
    np.testing.assert_array_equal(routed[-1].means_, direct.means_)
    assert middle[0].n_iter_ == 0


def test_fit_transform_and_fit_predict_take_states(rng):
    X = rng.normal(size=(40, 1))
    states = (X.ravel() > 0).astype(int)
    hmm = GaussianHMM().fit(X, states=states)
    np.testing.assert_array_equal(GaussianHMM().fit_transform(X, states=states), hmm.transform(X))
    np.testing.assert_array_equal(GaussianHMM().fit_predict(X, states=states), hmm.predict(X))


def test_speed_accuracy_labels_on_real_data():
    """Labelled by the accuracy column, the states are the slow and the fast mode."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the data beside the checkout: no folder {SHARED_DATA}")
    pandas = pytest.importorskip("pandas")
    data = pandas.read_csv(SHARED_DATA / "speed.csv")
    states = pandas.factorize(data["corr"], sort=True)[0]
    X = data[["rt"]].to_numpy()
    lengths = [168, 134, 137]
    hmm = GaussianHMM(2).fit(X, lengths=lengths, states=states)
    np.testing.assert_allclose(hmm.means_.ravel(), data.groupby("corr")["rt"].mean(), rtol=1e-12)
    assert hmm.means_[0, 0] > hmm.means_[1, 0]  # correct ("cor") answers take longer
