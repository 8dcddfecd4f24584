"""A model as a value looks at what it is made of: no memory error, no other numbers in silence.

Whoever assigns a fitted attribute (hmmlearn's habit), unpickles one of another version or damages a
sparse matrix gets an error in words.
"""

import numpy as np
import pytest
from registry import ENTRIES
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import sklseq

# Not one of what a model is made of, but what is told of its fit.
TOLD = {
    "n_features_in_", "feature_names_in_", "n_iter_", "converged_", "log_likelihood_", "loss_",
    "log_likelihoods_", "objectives_", "lower_bound_", "lower_bounds_", "loss_curve_",
    "validation_scores_", "best_validation_score_", "n_trials_", "transformers_", "transformer_",
    "final_stateprob_", "final_state_mean_", "final_state_covariance_",
}  # fmt: skip
SEEN = {}


def fitted(entry):
    """A fitted model and a function that uses all of it; models are fitted once."""
    if entry.name not in SEEN:
        X, y = entry.data()
        model = entry.make().fit(X, *(() if y is None else (y,)))
        SEEN[entry.name] = model, X[:2]
    return SEEN[entry.name]


def use(model, X):
    for name in ("score_samples", "predict_proba", "transform"):
        if hasattr(model, name):
            return np.asarray(getattr(model, name)(X)[0])
    raise AssertionError(model)


def parts(model):
    found = {name: value for name, value in vars(model).items() if value is not None}
    return {name: found[name] for name in found if name[-1] == "_" != name[0] and name not in TOLD}


def changed(value):
    """Other shapes and other numbers in place of `value`, each to be refused."""
    if isinstance(value, list):  # of models, or of tables
        return [value[:-1], []]
    array = np.asarray(value)
    others = [array[:0], array[:-1], np.concatenate([array, array]), array[None], "abc", None]
    if array.dtype.kind == "f":
        others += [np.where(np.arange(array.size).reshape(array.shape) == 0, bad, array)
                   for bad in (np.nan, np.inf)]  # fmt: skip
    return others


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_attributes_of_another_shape_or_value_are_refused(entry):
    model, X = fitted(entry)
    before = use(model, X)
    for name, value in parts(model).items():
        for other in changed(value):
            try:
                setattr(model, name, other)
                # where numbers of classes or columns differ, the neighbour may be named
                with pytest.raises(ValueError, match=r"^\w+_ must |^\w+ has 1 times"):
                    use(model, X)
            finally:
                setattr(model, name, value)
    np.testing.assert_array_equal(use(model, X), before)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_lists_assigned_to_attributes_work(entry):
    model, X = fitted(entry)
    before = use(model, X)
    for name, value in parts(model).items():
        if isinstance(value, np.ndarray):
            setattr(model, name, value.tolist())
            np.testing.assert_array_equal(use(model, X), before)
            setattr(model, name, value)


def test_probabilities_that_were_assigned_sum_to_one_and_variances_are_positive():
    X = np.random.default_rng(0).normal(size=(30, 2))
    model = sklseq.GaussianHMM(2, random_state=0).fit(X)
    transmat, covars = model.transmat_, model.covars_
    model.transmat_ = [[0.5, 0.4], [0.1, 0.9]]
    with pytest.raises(ValueError, match=r"transmat_ must be rows that sum to 1.*0\.9"):
        model.score(X)
    model.transmat_ = [[1.5, -0.5], [0.1, 0.9]]
    with pytest.raises(ValueError, match=r"transmat_ .* got -0\.5"):
        model.predict(X)
    model.transmat_, model.covars_ = transmat, -covars
    with pytest.raises(ValueError, match="covars_ must be positive"):
        model.score_samples(X)
    full = sklseq.GaussianHMM(2, covariance_type="full", random_state=0).fit(X)
    full.covars_ = np.triu(full.covars_ + 1.0)
    with pytest.raises(ValueError, match="covars_ must be covariance, got a difference"):
        full.score_samples(X)


@pytest.mark.parametrize("kinds", [("diag", "tied"), ("tied", "diag")])
def test_a_covariance_type_changed_after_the_fit_is_noticed_where_shapes_are_alike(kinds):
    X = np.random.default_rng(0).normal(size=(60, 2))
    before, after = kinds
    for make in (sklseq.GaussianHMM, sklseq.GaussianMixtureHMM):
        model = make(2, covariance_type=before, max_iter=3, random_state=0)
        with pytest.warns(ConvergenceWarning):
            model.fit(X)
        model.set_params(covariance_type=after)
        with pytest.raises(ValueError, match=f"{after}.*fitted with '{before}'"):
            model.score(X)
    kalman = sklseq.KalmanSmoother(observation_covariance_type="full", max_iter=2)
    with pytest.warns(ConvergenceWarning):
        kalman.fit(X)
    kalman.set_params(observation_covariance_type="diag")
    with pytest.raises(ValueError, match="observation_covariance_ is not diagonal"):
        kalman.filter(X)


def test_parameters_that_were_only_assigned_make_no_model():
    model = sklseq.GaussianHMM(2)
    model.startprob_, model.transmat_ = [0.5, 0.5], np.full((2, 2), 0.5)
    model.means_, model.covars_ = np.zeros((2, 1)), np.ones((2, 1))
    with pytest.raises(NotFittedError):
        model.score(np.zeros((3, 1)))
    with pytest.raises(NotFittedError):
        model.sample(3)


MODELS = {
    "hmm": lambda X: sklseq.GaussianHMM(2, random_state=0).fit(X),
    "kalman": lambda X: sklseq.KalmanSmoother(max_iter=2).fit(X),
    "softmax": lambda X: sklseq.SoftmaxStateSpace(max_iter=1).fit(X),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_lengths_whose_sum_wraps_around(make):
    X = np.random.default_rng(0).poisson(1.0, size=(20, 2)).astype(float)
    model = make(X)
    for lengths in (
        [2**63 - 1, 2**63 - 1, 22],
        np.array([1, 2**64 - 1, 20], dtype=np.uint64),
        [2**62] * 4 + [20],
        np.array([127, 127, 22], dtype=np.int8),
        [1] * 19 + [2**64],
    ):
        for method in (model.score_samples, model.filter, model.fit):
            with pytest.raises(ValueError, match="lengths must"):
                method(X, lengths=lengths)
    assert model.score(X, lengths=np.array([10, 10], dtype=np.int8)) == model.score(
        X, lengths=[10, 10]
    )


def damaged(kind, index=10**8):
    matrix = sparse.csr_array(np.random.default_rng(0).poisson(1.0, size=(40, 5)).astype(float))
    matrix = matrix.asformat(kind)
    which = matrix.col if kind == "coo" else matrix.indices
    which[0] = index
    return matrix


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["csr", "csc", "bsr", "coo"])
@pytest.mark.parametrize("make", [sklseq.SoftmaxStateSpace, sklseq.TopicMixture])
def test_sparse_matrices_whose_indices_lie_outside(make, kind):
    good = sparse.csr_array(damaged("csr", 0)).asformat(kind)
    model = make(2, max_iter=1).fit(good)
    for index in (40, 10**8, -1):
        bad = damaged(kind, index)
        kept = (bad.col if kind == "coo" else bad.indices).copy()
        for method in (model.fit, model.transform, model.score):
            with pytest.raises(ValueError, match="X is a damaged sparse matrix"):
                method(bad)
        np.testing.assert_array_equal(bad.col if kind == "coo" else bad.indices, kept)
    if isinstance(model, sklseq.SoftmaxStateSpace):
        with pytest.raises(ValueError, match="Sequence 1 of X is a damaged sparse matrix"):
            model.fit([good, damaged(kind)])


def test_an_index_pointer_that_goes_back():
    bad = damaged("csr", 0)
    bad.indptr[3] = bad.indptr[5] + 1
    with pytest.raises(ValueError, match="X is a damaged sparse matrix"):
        sklseq.TopicMixture(2, max_iter=1).fit(bad)
