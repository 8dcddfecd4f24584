"""The door: the four forms of X, what comes back in each, and every error (DESIGN, section 1)."""

import numpy as np
import pandas as pd
import pytest
from conftest import estimator_class
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import Bunch

import sklseq
from sklseq import CategoricalHMM, GaussianHMM, Stepwise, concat_sequences, split_sequences

METHODS = ["predict", "predict_proba", "transform", "score_samples", "filter"]


@pytest.fixture
def sequences(rng):
    return [rng.normal(size=(n, 2)) + n % 3 for n in (7, 1, 12, 4)]


@pytest.fixture
def model(sequences):
    return GaussianHMM(2, random_state=0, max_iter=20, tol=1e-3).fit(sequences)


def object_array(items):
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        array[i] = item
    return array


def ids_of(sequences, labels=None):
    labels = range(len(sequences)) if labels is None else labels
    return np.repeat(np.asarray(labels), [len(X) for X in sequences])


FORMS = {
    "list": lambda s: (s, {}),
    "tuple": lambda s: (tuple(s), {}),
    "object array": lambda s: (object_array(s), {}),
    "list of frames": lambda s: ([pd.DataFrame(X) for X in s], {}),
    "list of lists of rows": lambda s: ([X.tolist() for X in s], {}),
    "list in Fortran order": lambda s: ([np.asfortranarray(X) for X in s], {}),
    "groups": lambda s: (np.vstack(s), {"groups": ids_of(s)}),
    "groups, labels in any order": lambda s: (np.vstack(s), {"groups": ids_of(s, [3, 9, 1, 4])}),
    "groups, strings": lambda s: (np.vstack(s), {"groups": ids_of(s, ["b", "a", "d", "c"])}),
    "groups, pandas": lambda s: (pd.DataFrame(np.vstack(s)), {"groups": pd.Series(ids_of(s))}),
    "groups, list": lambda s: (np.vstack(s), {"groups": ids_of(s).tolist()}),
    "lengths": lambda s: (np.vstack(s), {"lengths": [len(X) for X in s]}),
    "lengths, array": lambda s: (np.vstack(s), {"lengths": np.array([len(X) for X in s])}),
    "list with groups of each sequence": lambda s: (s, {"groups": ["p", "q", "p", "q"]}),
}


def stacked(value):
    return np.concatenate(list(value)) if value.dtype == object else value


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_bits(sequences, model, form):
    X, extra = FORMS[form](sequences)
    other = GaussianHMM(2, random_state=0, max_iter=20, tol=1e-3).fit(X, **extra)
    for name in ("startprob_", "transmat_", "means_", "covars_", "log_likelihoods_"):
        np.testing.assert_array_equal(getattr(other, name), getattr(model, name), err_msg=name)
    for method in METHODS:
        expected = stacked(getattr(model, method)(sequences))
        np.testing.assert_array_equal(
            stacked(getattr(model, method)(X, **extra)), expected, err_msg=method
        )
    assert model.score(X, **extra) == model.score(sequences)
    np.testing.assert_array_equal(
        model.score_sequences(X, **extra), model.score_sequences(sequences)
    )


def test_three_dimensions_are_sequences_of_equal_length(rng, model):
    cube = rng.normal(size=(5, 8, 2))
    one = GaussianHMM(2, random_state=0, max_iter=20, tol=1e-3).fit(cube)
    two = GaussianHMM(2, random_state=0, max_iter=20, tol=1e-3).fit(list(cube))
    np.testing.assert_array_equal(one.means_, two.means_)
    for method, tail in (
        ("predict", ()),
        ("score_samples", ()),
        ("predict_proba", (2,)),
        ("transform", (2,)),
        ("filter", (2,)),
    ):
        stack = getattr(model, method)(cube)
        assert isinstance(stack, np.ndarray)
        assert stack.shape == (5, 8, *tail)
        np.testing.assert_array_equal(
            stack.reshape(40, *tail), stacked(getattr(model, method)(list(cube)))
        )


@pytest.mark.parametrize("container", [list, tuple, object_array])
def test_a_ragged_collection_comes_back_as_an_object_array(sequences, model, container):
    for method, tail in (("predict", ()), ("score_samples", ()), ("predict_proba", (2,))):
        out = getattr(model, method)(container(sequences))
        assert isinstance(out, np.ndarray)
        assert out.dtype == object
        assert out.shape == (4,)
        assert [item.shape for item in out] == [(len(X), *tail) for X in sequences]
    equal = [sequences[0][:4], sequences[2][:4]]
    out = model.predict(container(equal))  # equal lengths are no reason for another shape
    assert out.dtype == object
    assert out.shape == (2,)


@pytest.mark.parametrize("form", ["groups", "lengths"])
def test_flat_in_flat_out(sequences, model, form):
    X, extra = FORMS[form](sequences)
    assert model.predict(X, **extra).shape == (24,)
    assert model.score_samples(X, **extra).shape == (24,)
    assert model.predict_proba(X, **extra).shape == (24, 2)
    assert model.score_sequences(X, **extra).shape == (4,)


def test_flat_without_more_is_one_sequence(sequences, model):
    X = np.vstack(sequences)
    np.testing.assert_array_equal(model.score_sequences(X), model.score_sequences([X]))
    assert model.score(X) != model.score(sequences)
    np.testing.assert_array_equal(model.predict(X.tolist()), model.predict(X))


def test_fit_predict_and_fit_transform_pass_the_boundaries_on(sequences):
    X, groups = np.vstack(sequences), ids_of(sequences)
    make = lambda: GaussianHMM(2, random_state=0, max_iter=20, tol=1e-3)  # noqa: E731
    fitted = make().fit(sequences)
    np.testing.assert_array_equal(
        make().fit_predict(X, groups=groups), fitted.predict(X, groups=groups)
    )
    np.testing.assert_array_equal(
        make().fit_transform(X, groups=groups), fitted.transform(X, groups=groups)
    )
    lengths = [len(s) for s in sequences]
    np.testing.assert_array_equal(
        make().fit_predict(X, lengths=lengths), fitted.predict(X, groups=groups)
    )


def test_float32_and_integers_are_read_as_float64(sequences, model):
    X = np.round(np.vstack(sequences) * 8)
    for dtype in (np.float32, np.int64, np.int8, np.float16):
        np.testing.assert_array_equal(
            model.score_samples(X.astype(dtype)), model.score_samples(X)
        )


def test_a_fitted_model_is_not_changed_by_bad_input(model, sequences):
    before = {k: np.copy(v) for k, v in vars(model).items() if k.endswith("_")}
    for bad in (np.array([[np.inf, 0.0]]), np.zeros(5), [], "text"):
        with pytest.raises((ValueError, TypeError)):
            model.predict(bad)
        with pytest.raises((ValueError, TypeError)):
            model.fit(bad)
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(model, name), value, err_msg=name)
    model.predict(sequences)


# --- Errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fit", "score", *METHODS])
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"lengths": [10, 10]}, ["lengths", "20", "24"]),
        ({"lengths": [24, 0]}, ["lengths", "0"]),
        ({"lengths": [25, -1]}, ["lengths", "-1"]),
        ({"lengths": [12.5, 11.5]}, ["lengths", "int"]),
        ({"lengths": [[12], [12]]}, ["lengths"]),
        ({"lengths": []}, ["lengths"]),
        ({"groups": np.zeros(23)}, ["groups", "23", "24"]),
        ({"groups": [0] * 10 + [1] * 10 + [0] * 4}, ["groups", "0"]),
        ({"groups": [0] * 24, "lengths": [24]}, ["groups", "lengths"]),
    ],
    ids=[
        "lengths: wrong sum",
        "lengths: zero",
        "lengths: negative",
        "lengths: fractions",
        "lengths: two columns",
        "lengths: none",
        "groups: wrong length",
        "groups: a label comes back",
        "both",
    ],
)
def test_bad_boundaries(sequences, model, method, extra, words):
    with pytest.raises(ValueError) as error:
        getattr(model, method)(np.vstack(sequences), **extra)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("method", ["fit", "score", *METHODS])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda s: (s, {"lengths": [7, 1, 12, 4]}), ["lengths"]),
        (lambda s: (s, {"groups": np.zeros(24)}), ["groups", "24", "4"]),
        (lambda s: ([], {}), []),
        (lambda s: (np.empty((0, 3, 2)), {}), []),
        (lambda s: ([s[0], s[1], np.empty((0, 2))], {}), ["2"]),
        (lambda s: ([np.empty((0, 2)), s[0]], {}), ["0"]),
        (lambda s: ([s[0], s[1][:, :1]], {}), ["sequence 1", "1", "2"]),
        (lambda s: ([s[0], s[1][:, 0]], {}), ["1"]),
        (lambda s: ([s[0], s[1][None]], {}), ["1"]),
        (lambda s: ([s[0], s[1] * np.inf], {}), ["inf"]),
        (lambda s: (np.vstack(s)[:, 0], {}), ["1D"]),
        (lambda s: (np.vstack(s) * [1, np.inf], {}), ["inf"]),
        (lambda s: (np.zeros((2, 2, 2, 2)), {}), []),
        (lambda s: ([X[:, 0] for X in s], {}), ["reshape"]),
    ],
    ids=[
        "lengths with a collection",
        "groups of the rows with a collection",
        "an empty list",
        "an empty cube",
        "an empty sequence",
        "an empty first sequence",
        "differing features",
        "a sequence of one dimension",
        "a sequence of three dimensions",
        "an infinite value in a sequence",
        "one dimension",
        "an infinite value",
        "four dimensions",
        "a ragged list of 1-D arrays",
    ],
)
def test_bad_collections(sequences, model, method, make, words):
    X, extra = make(sequences)
    with pytest.raises(ValueError) as error:
        getattr(model, method)(X, **extra)
    for word in words:
        assert word.lower() in str(error.value).lower()


def test_the_index_of_a_bad_sequence_is_named(sequences, model):
    with pytest.raises(ValueError, match=r"(?i)sequence 2"):
        model.predict([*sequences[:2], np.empty((0, 2)), sequences[3]])
    with pytest.raises(ValueError, match=r"(?i)sequence 3"):
        model.predict([*sequences[:3], sequences[3][:, :1]])


def test_y_is_ignored_but_lengths_are_not(sequences, model):
    X = np.vstack(sequences)
    np.testing.assert_array_equal(
        GaussianHMM(2, random_state=0).fit(X, np.zeros(24)).means_,
        GaussianHMM(2, random_state=0).fit(X).means_,
    )
    GaussianHMM(2, random_state=0).fit(sequences, [0, 1, 0, 1])
    # what others hand through: dask-ml's Incremental, pipelines
    for y in (np.zeros(23), np.zeros((24, 2)), "x", 3, object(), [[1], [2, 3]], {"a": 1}):
        assert GaussianHMM(1).fit(X, y).score(X, y) == GaussianHMM(1).fit(X).score(X)
    # an hmmlearn call, which would otherwise merge the sequences in silence
    with pytest.raises(ValueError, match="lengths="):
        GaussianHMM(2).fit(X, [7, 1, 12, 4])
    with pytest.raises(ValueError, match="lengths="):
        model.score(X, [7, 1, 12, 4])


def test_other_features_than_at_fit(model):
    with pytest.raises(ValueError, match="3 features"):
        model.predict(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="3 features"):
        model.predict([np.zeros((4, 3)), np.zeros((2, 3))])


def test_an_unknown_category_at_predict(rng):
    X = rng.integers(0, 3, size=(60, 2))
    model = CategoricalHMM(2, random_state=0).fit(X)
    bad = X.copy()
    bad[5, 1] = 3
    with pytest.raises(ValueError, match="n_categories") as error:
        model.predict(bad)
    assert "3" in str(error.value)
    wider = CategoricalHMM(2, n_categories=5, alpha=0.5, random_state=0).fit(X)
    assert wider.emissionprob_[0].shape == (2, 5)
    wider.predict(bad)
    # without pseudo-counts a code that fit never saw is known, and impossible
    wider.set_params(alpha=0.0).fit(X)
    assert wider.score(bad) == -np.inf
    with pytest.raises(ValueError, match=r"(?i)sequence 0\b.*step 5\b"):
        wider.predict(bad)


@pytest.mark.parametrize("bad", [-1.0, 0.5])
def test_codes_are_counting_numbers(rng, bad):
    X = rng.integers(0, 3, size=(60, 1)).astype(float)
    model = CategoricalHMM(2, random_state=0).fit(X)
    X[3] = bad
    with pytest.raises(ValueError, match=r"(?i)negative|integer"):
        model.predict(X)
    with pytest.raises(ValueError, match=r"(?i)negative|integer"):
        CategoricalHMM(2).fit(X)


def test_set_output_pandas_on_a_collection(sequences, model):
    model.set_output(transform="pandas")
    frame = model.transform(pd.DataFrame(np.vstack(sequences), columns=["a", "b"]).to_numpy())
    assert isinstance(frame, pd.DataFrame)
    with pytest.raises(ValueError, match="concat_sequences"):
        model.transform(sequences)


def test_nan_is_a_missing_value_and_a_whole_missing_column_is_not_a_crash(model, family, rng):
    X = np.full((4, 2), np.nan)
    np.testing.assert_allclose(model.score_samples(X), 0.0, atol=1e-14)
    estimator = estimator_class(family)(2, random_state=0, **family.estimator_parameters)
    parameters = family.random_parameters(rng, 2, 2)
    half = family.sample(rng, 30, parameters)
    half[:, 1] = np.nan
    try:
        estimator.fit(half)
    except ValueError as error:
        assert "1" in str(error)  # names the column
    else:
        assert np.isfinite(estimator.score(half))


# --- Frames ---------------------------------------------------------------------------------------


def test_feature_names(sequences, model):
    frame = pd.DataFrame(np.vstack(sequences), columns=["level", "slope"])
    fitted = GaussianHMM(2, random_state=0, max_iter=20, tol=1e-3)
    fitted.fit(frame, groups=ids_of(sequences))
    assert fitted.feature_names_in_.tolist() == ["level", "slope"]
    assert fitted.n_features_in_ == 2
    np.testing.assert_array_equal(fitted.means_, model.means_)
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame.rename(columns={"slope": "other"}))
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame[["slope", "level"]])

    frames = [pd.DataFrame(X, columns=["level", "slope"]) for X in sequences]
    fitted = GaussianHMM(2, random_state=0, max_iter=20, tol=1e-3).fit(frames)
    assert fitted.feature_names_in_.tolist() == ["level", "slope"]
    np.testing.assert_array_equal(fitted.means_, model.means_)


def test_polars(sequences, model):
    polars = pytest.importorskip("polars", reason="needs polars (the extra 'peers')")
    frame = polars.DataFrame(np.vstack(sequences), schema=["level", "slope"])
    groups = polars.Series(ids_of(sequences))
    fitted = GaussianHMM(2, random_state=0, max_iter=20, tol=1e-3).fit(frame, groups=groups)
    assert fitted.feature_names_in_.tolist() == ["level", "slope"]
    np.testing.assert_array_equal(fitted.means_, model.means_)
    frames = [polars.DataFrame(X, schema=["level", "slope"]) for X in sequences]
    np.testing.assert_array_equal(
        stacked(fitted.predict(frames)), stacked(model.predict(sequences))
    )


# --- Stepwise -------------------------------------------------------------------------------------


def test_stepwise_hands_frames_on(sequences):
    frames = [pd.DataFrame(X, columns=["level", "slope"]) for X in sequences]
    scaler = Stepwise(StandardScaler()).fit(frames)
    assert scaler.feature_names_in_.tolist() == ["level", "slope"]
    with pytest.raises(ValueError, match="feature names"):
        scaler.transform([frame[["slope", "level"]] for frame in frames])
    by_name = Stepwise(ColumnTransformer([("scaled", StandardScaler(), ["slope"])]))
    expected = Stepwise(StandardScaler()).fit_transform([X[:, 1:] for X in sequences])
    for part, other in zip(by_name.fit_transform(frames), expected, strict=True):
        np.testing.assert_array_equal(part, other)


def test_stepwise_hands_polars_frames_on(sequences):
    polars = pytest.importorskip("polars", reason="needs polars (the extra 'peers')")
    frames = [polars.DataFrame(X, schema=["level", "slope"]) for X in sequences]
    scaler = Stepwise(StandardScaler())
    expected = Stepwise(StandardScaler()).fit_transform(sequences)
    np.testing.assert_allclose(
        np.concatenate(scaler.fit_transform(frames)), np.concatenate(expected), atol=1e-14
    )
    assert scaler.feature_names_in_.tolist() == ["level", "slope"]


def test_stepwise_refuses_a_transformer_that_drops_rows(sequences):
    halving = Stepwise(FunctionTransformer(lambda X: X[::2]))
    for X in (sequences, sequences[0]):
        with pytest.raises(ValueError, match=r"FunctionTransformer made \d+ rows of \d+"):
            halving.fit(X).transform(X)


# --- Messages that say where ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MultinomialHMM", np.nan, r"NaN\. The first: nan at {}, column 1\. .*zeros is a"),
        ("SoftmaxStateSpace", np.nan, r"NaN\. The first: nan at {}, column 1\. .*zeros is a"),
        ("PoissonHMM", -2.0, r"(?i)negative values in data .* The first: -2\.0 at {}, column 1"),
        ("GaussianHMM", np.inf, r"infinity .* The first: inf at {}, column 1"),
        ("CategoricalHMM", 1.5, r"X has 1\.5 at {}, column 1"),
    ],
)
def test_a_bad_value_is_located(rng, name, value, message):
    X = rng.poisson(3, (30, 2)).astype(float)
    X[11, 1] = value
    with pytest.raises(ValueError, match=message.format("row 11")):
        getattr(sklseq, name)(2).fit(X)
    for data, extra in ((X, {"lengths": [9, 21]}), ([X[:9], X[9:]], {})):
        place = "row 2 of sequence 1"
        if extra and name != "CategoricalHMM":
            place = "row 11"  # of the rows as they came
        with pytest.raises(ValueError, match=message.format(place)):
            getattr(sklseq, name)(2).fit(data, **extra)


@pytest.mark.parametrize("name", ["GaussianHMM", "PoissonHMM", "CategoricalHMM", "KalmanSmoother"])
def test_a_column_without_values_is_told(name):
    X = [[1.0, np.nan], [2.0, np.nan], [np.nan, np.nan], [1.0, np.nan]]
    with pytest.warns(ConvergenceWarning, match="no observed value in column 1"):
        getattr(sklseq, name)(1, max_iter=2, random_state=0).fit(X)


def test_names_of_from_parameters():
    chain = {"startprob": [1.0], "transmat": [[1.0]], "covars": [[1.0]]}
    make = GaussianHMM.from_parameters
    with pytest.raises(TypeError, match=r"no parameter 'mean'\. It takes startprob, transmat"):
        make(mean=[[0.0]], **chain)
    with pytest.raises(TypeError, match="needs means"):
        make(**chain)
    with pytest.raises(TypeError, match="n_components off the parameters"):
        make(means=[[0.0]], n_components=1, **chain)
    assert make(means=[[0.0]], random_state=3, **chain).random_state == 3
    with pytest.raises(TypeError, match=r"KalmanSmoother\.from_parameters has no parameter 'A'"):
        sklseq.KalmanSmoother.from_parameters(A=[[1.0]])


def test_ragged_table():
    with pytest.raises(ValueError, match="rows of emissionprob must have one length"):
        CategoricalHMM.from_parameters(
            startprob=[0.5, 0.5], transmat=np.eye(2), emissionprob=[[0.5, 0.5], [0.2, 0.3, 0.5]]
        )


def test_lengths_by_position_in_decode(sequences, model):
    with pytest.raises(ValueError, match="pass them as lengths="):
        model.decode(np.vstack(sequences), [7, 1, 12, 4])


def test_states_that_contradict_a_zero_are_named(rng):
    model = GaussianHMM(2, transmat_init=np.eye(2), random_state=0)
    with pytest.raises(ValueError, match=r"states given for sequence 0 are impossible at step 1"):
        model.fit(rng.normal(size=(6, 1)), states=[0, 1, 0, 1, 0, 1])


def test_alpha_is_named_where_a_category_is_impossible():
    model = CategoricalHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=np.eye(2), emissionprob=[[1.0, 0.0], [1.0, 0.0]]
    )
    with pytest.raises(ValueError, match="alpha > 0"):
        model.predict([[0], [1]])


# --- Masked arrays --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["flat", "list", "stacked", "Stepwise"])
@pytest.mark.parametrize("name", ["GaussianHMM", "KalmanSmoother", "CategoricalHMM"])
def test_a_masked_entry_is_missing(rng, name, form):
    X = rng.integers(0, 3, (24, 2)).astype(float)
    mask = rng.uniform(size=X.shape) < 0.2
    masked, holes = np.ma.masked_array(X, mask), np.where(mask, np.nan, X)
    estimator = getattr(sklseq, name)(2, max_iter=3, tol=10.0, random_state=0)
    if form == "Stepwise":
        estimator = make_pipeline(Stepwise(FunctionTransformer()), estimator)
    if form == "stacked":
        masked, holes = masked.reshape(2, 12, 2), holes.reshape(2, 12, 2)
    elif form != "flat":
        masked, holes = [masked[:9], masked[9:]], [holes[:9], holes[9:]]
    expected = clone(estimator).fit(holes)
    estimator.fit(masked)
    assert estimator.score(masked) == expected.score(holes) == expected.score(masked)


@pytest.mark.parametrize("name", ["SoftmaxStateSpace", "MultinomialHMM"])
def test_a_masked_entry_is_refused_where_nan_is(rng, name):
    X = np.ma.masked_array(rng.integers(0, 3, (20, 3)), rng.uniform(size=(20, 3)) < 0.2)
    for data in (X, [X[:9], X[9:]]):
        with pytest.raises(ValueError, match="NaN"):
            getattr(sklseq, name)(2).fit(data)


def test_a_mask_of_nothing_changes_nothing(rng, model):
    X = rng.normal(size=(5, 2))
    assert model.score(np.ma.masked_array(X)) == model.score(X)


# --- Constructor parameters that every step-level model has ---------------------------------------


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"n_jobs": 0}, ValueError, "n_jobs must not be 0"),
        ({"n_jobs": "2"}, TypeError, "n_jobs must be None or an integer, got '2'"),
        ({"continues": "yes"}, TypeError, "continues must be True or False, got 'yes'"),
        ({"warm_start": "a"}, TypeError, "warm_start must be True or False, got 'a'"),
        ({"fixed": None}, TypeError, r"fixed must be a name, .* got None"),
    ],
)
@pytest.mark.parametrize("name", ["GaussianHMM", "KalmanSmoother", "SoftmaxStateSpace"])
def test_parameters_of_all_models(name, params, error, message):
    with pytest.raises(error, match=message):
        getattr(sklseq, name)(1, **params).fit(np.eye(3))


# --- Helpers -----------------------------------------------------------


def test_concat_and_split_are_inverse(sequences):
    X, groups = concat_sequences(sequences)
    np.testing.assert_array_equal(X, np.vstack(sequences))
    np.testing.assert_array_equal(np.flatnonzero(np.diff(groups)) + 1, [7, 8, 20])
    assert len(groups) == 24
    for back in (
        split_sequences(X, groups=groups),
        split_sequences(X, lengths=[7, 1, 12, 4]),
    ):
        assert isinstance(back, list)
        assert len(back) == 4
        for one, two in zip(back, sequences):
            np.testing.assert_array_equal(one, two)


def test_split_needs_to_know_where(sequences):
    X, _ = concat_sequences(sequences)
    with pytest.raises(ValueError, match="lengths"):
        split_sequences(X, lengths=[7, 1])
    with pytest.raises(ValueError, match="groups"):
        split_sequences(X, groups=[0, 1] * 12)


def test_stepwise_mirrors_its_container(sequences):
    flat = np.vstack(sequences)
    expected = StandardScaler().fit_transform(flat)
    scaled = Stepwise(StandardScaler()).fit_transform(sequences)
    assert isinstance(scaled, list)
    assert [X.shape for X in scaled] == [X.shape for X in sequences]
    np.testing.assert_array_equal(np.vstack(scaled), expected)
    assert isinstance(Stepwise(StandardScaler()).fit(sequences).transform(tuple(sequences)), tuple)
    objects = Stepwise(StandardScaler()).fit(sequences).transform(object_array(sequences))
    assert objects.dtype == object
    assert objects.shape == (4,)
    cube = np.stack([sequences[0][:4], sequences[2][:4]])
    scaler = Stepwise(StandardScaler()).fit(cube)
    assert scaler.transform(cube).shape == (2, 4, 2)
    np.testing.assert_array_equal(Stepwise(StandardScaler()).fit_transform(flat), expected)


def test_stepwise_keeps_the_names_of_a_frame(sequences):
    frame = pd.DataFrame(np.vstack(sequences), columns=["level", "slope"])
    stepwise = Stepwise(StandardScaler()).fit(frame)
    assert stepwise.n_features_in_ == 2
    assert stepwise.feature_names_in_.tolist() == ["level", "slope"]
    assert stepwise.get_feature_names_out().tolist() == ["level", "slope"]


def test_stepwise_on_sequences_of_equal_length(sequences):
    equal = object_array([sequences[0][:4], sequences[2][:4]])
    out = Stepwise(StandardScaler()).fit(sequences).transform(equal)
    assert out.dtype == object
    assert [X.shape for X in out] == [(4, 2), (4, 2)]


def test_stepwise_goes_back(sequences):
    stepwise = Stepwise(StandardScaler()).fit(sequences)
    back = stepwise.inverse_transform(stepwise.transform(sequences))
    for one, two in zip(back, sequences):
        np.testing.assert_allclose(one, two, rtol=1e-12)


def test_datasets():
    from sklseq.datasets import load_earthquakes, load_nile, load_seizures

    earthquakes = load_earthquakes()
    assert isinstance(earthquakes, Bunch)
    counts = earthquakes.data
    assert counts.shape == (107, 1)
    # Zucchini & MacDonald 2009, section 1.1
    assert counts.mean() == pytest.approx(19.36, abs=5e-3)
    assert counts.var(ddof=1) == pytest.approx(51.57, abs=5e-3)
    assert (earthquakes.years[0], earthquakes.years[-1]) == (1900, 2006)
    flow = load_nile().data
    assert flow.shape == (100, 1)
    assert (flow.sum(), flow.min(), flow.max()) == (91935, 456, 1370)
    seizures = load_seizures()
    assert seizures.data.shape == (236, 1)
    assert len(seizures.sequences) == 59
    assert seizures.target.reshape(59, 4)[:, 0].sum() == 31
    np.testing.assert_array_equal(np.vstack(seizures.sequences), seizures.data)
    for loader in (load_nile, load_earthquakes, load_seizures):
        X, y = loader(return_X_y=True)
        np.testing.assert_array_equal(X, loader().data)
        assert y is loader().target or np.array_equal(y, loader().target)
        frame = loader(as_frame=True)
        assert isinstance(frame.data, pd.DataFrame)
        np.testing.assert_array_equal(frame.data.to_numpy(), X)
        assert loader().source in " ".join(loader().DESCR.split())


def test_nile_equals_the_copy_of_statsmodels():
    statsmodels = pytest.importorskip(
        "statsmodels.datasets.nile", reason="needs statsmodels (the extra 'peers')"
    )
    from sklseq.datasets import load_nile

    theirs = statsmodels.load_pandas().data
    np.testing.assert_array_equal(load_nile().data[:, 0], theirs["volume"])
    np.testing.assert_array_equal(load_nile().years, theirs["year"])
