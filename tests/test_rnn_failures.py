"""A fit or partial_fit of a character RNN that fails, or is stopped by Ctrl-C."""

import os
import pickle
import signal
import threading
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from sklseq.rnn import CharRNNClassifier, CharRNNLanguageModel

TEXTS = ["abba", "aab", "b", "", "babab", "abbb"] * 10
LABELS = [0, 1, 0, 1, 0, 1] * 10
ENOUGH = 20_000  # epochs of a training that is to be interrupted; half a minute if it is not


def make(cls, **parameters):
    given = {"hidden_size": 8, "max_iter": 3, "batch_size": 16, "random_state": 0}
    return cls("gru", **{**given, **parameters})


def targets(model, labels):
    return (labels,) if isinstance(model, CharRNNClassifier) else ()


def fitted(cls, **parameters):
    model = make(cls, **parameters)
    return model.fit(TEXTS, *targets(model, LABELS))


def state(model):
    """All that a fitted model holds, comparable."""
    return pickle.dumps(model)


CLASSES = [CharRNNClassifier, CharRNNLanguageModel]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_what_fails_before_training_changes_nothing(cls, method):
    for model in (fitted(cls), fitted(cls, warm_start=True), fitted(cls).partial_fit(
            TEXTS, *targets(make(cls), LABELS))):  # fmt: skip
        before = state(model)
        for X, labels in [(["a", None], [0, 1]), (["a", 3], [0, 1]), ("ab", [0, 1]), ([], [])]:
            with pytest.raises(ValueError):
                getattr(model, method)(X, *targets(model, labels))
            assert state(model) == before
        with pytest.raises(ValueError, match="zero everywhere"):
            getattr(model, method)(["a", "b"], [0, 1], sample_weight=[0.0, 0.0])
        assert state(model) == before


def test_numbers_that_fail_late_leave_a_model_of_texts_alone():
    """n_features_in_ is set while X is checked; the error comes after it."""
    model = fitted(CharRNNClassifier)
    with pytest.raises(ValueError, match="Unknown label type"):
        model.fit([[0.0, 1.0], [1.0, 2.0]], [0.5, 1.5])
    assert not hasattr(model, "n_features_in_")
    assert model.predict(TEXTS[:2]).shape == (2,)
    numbers = make(CharRNNClassifier).fit([[0.0, 1.0], [1.0, 0.0]], [0, 1])
    with pytest.raises(ValueError):
        numbers.fit(["a", "b"], [0.5, 1.5])
    assert numbers.n_features_in_ == 2


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("earlier", ["fit", "partial_fit"])
def test_a_partial_fit_whose_loss_is_not_finite_changes_nothing(cls, earlier):
    model = make(cls, solver="sgd", learning_rate_init=1e-2)
    extra = {"classes": [0, 1]} if cls is CharRNNClassifier and earlier == "partial_fit" else {}
    getattr(model, earlier)(TEXTS, *targets(model, LABELS), **extra)
    before = state(model)
    model.set_params(learning_rate_init=1e38, max_grad_norm=1e38)
    with pytest.raises(ValueError, match="the loss is not finite"), np.errstate(all="ignore"):
        for _ in range(3):
            model.partial_fit(TEXTS, *targets(model, LABELS))
    model.set_params(learning_rate_init=1e-2, max_grad_norm=5.0)
    assert state(model) == before


@pytest.mark.parametrize("cls", CLASSES)
def test_partial_fit_takes_new_settings(cls):
    model = make(cls)
    extra = {"classes": [0, 1]} if cls is CharRNNClassifier else {}
    model.partial_fit(TEXTS, *targets(model, LABELS), **extra)
    before = model.recurrent_weights_[0].copy()
    model.set_params(learning_rate_init=1e-30, average_decay=0.0, alpha=0.0)
    model.partial_fit(TEXTS, *targets(model, LABELS))
    raw = model.recurrent_weights_[0].copy()
    model.partial_fit(TEXTS, *targets(model, LABELS))
    np.testing.assert_array_equal(model.recurrent_weights_[0], raw)
    assert np.isfinite(before).all()
    model.set_params(solver="sgd", learning_rate_init=1e-2).partial_fit(
        TEXTS, *targets(model, LABELS)
    )
    assert not np.array_equal(model.recurrent_weights_[0], raw)


# ---------------------------------------------------------------- Ctrl-C


def interrupt_after(seconds):
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("cls", CLASSES)
def test_an_interrupted_fit_keeps_the_last_weights_and_warm_start_goes_on(cls, n_jobs):
    model = make(cls, max_iter=ENOUGH, batch_size=60, n_jobs=n_jobs, warm_start=True)
    interrupt_after(0.5)
    with pytest.warns(ConvergenceWarning, match=r"interrupted after \d+ epochs: the last") as told:
        model.fit(TEXTS, *targets(model, LABELS))
    assert told[0].filename == __file__
    assert not model.converged_
    assert model.n_iter_ == len(model.loss_curve_) < ENOUGH
    assert np.isfinite(model.score(TEXTS, *targets(model, LABELS)))
    reached = model.loss_
    model.set_params(max_iter=2, learning_rate_init=1e-6).fit(TEXTS, *targets(model, LABELS))
    assert model.loss_curve_[0] < reached + 0.2 * abs(model.loss_curve_[0])
    assert model.loss_curve_[0] < fitted(cls, max_iter=1).loss_curve_[0]


@pytest.mark.parametrize("cls", CLASSES)
def test_an_interrupted_fit_with_early_stopping_keeps_the_best_weights(cls):
    model = make(cls, max_iter=ENOUGH, early_stopping=True, n_iter_no_change=ENOUGH,
                 learning_rate="constant", learning_rate_init=0.05)  # fmt: skip
    interrupt_after(0.7)
    with pytest.warns(ConvergenceWarning, match=r"interrupted after \d+ epochs: the best weights"):
        model.fit(TEXTS, *targets(model, LABELS))
    assert model.best_validation_score_ == max(model.validation_scores_)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_interruption_before_the_first_update_is_passed_on(cls):
    def interrupting(text):
        signal.raise_signal(signal.SIGINT)
        return list(text)

    model = fitted(cls)
    before = state(model)
    for method in ("fit", "partial_fit"):
        model.set_params(analyzer=interrupting)
        with pytest.raises(KeyboardInterrupt):
            getattr(model, method)(TEXTS, *targets(model, LABELS))
        assert state(model.set_params(analyzer="char")) == before
    fresh = make(cls, analyzer=interrupting)
    with pytest.raises(KeyboardInterrupt):
        fresh.fit(TEXTS, *targets(fresh, LABELS))
    with pytest.raises(NotFittedError):
        fresh.transform(TEXTS)


# ---------------------------------------------------------------- early stopping


def test_early_stopping_holds_out_a_share_of_each_label_and_keeps_one():
    random = np.random.RandomState(0)
    labels = np.repeat([0, 1, 2, 3], [60, 30, 9, 1])
    random.shuffle(labels)
    model = make(CharRNNClassifier, validation_fraction=0.2)
    for seed in range(20):
        kept, held = model._split(labels, np.random.RandomState(seed))
        np.testing.assert_array_equal(np.sort(np.append(kept, held)), np.arange(100))
        assert len(held) == 20
        np.testing.assert_allclose(np.bincount(labels[held], minlength=4), [12, 6, 2, 0], atol=1)
        assert set(labels[kept]) == {0, 1, 2, 3}


def test_early_stopping_of_few_samples():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = make(CharRNNClassifier, early_stopping=True).fit(["a", "b", "c"], [0, 1, 1])
    assert len(model.validation_scores_) == 3
    with pytest.raises(ValueError, match="early_stopping cannot hold out"):
        make(CharRNNClassifier, early_stopping=True).fit(["a", "b"], [0, 1])


def test_unknown_symbols_among_what_is_held_out_do_not_hide_the_best_weights():
    model = make(CharRNNLanguageModel, warm_start=True, max_iter=2).fit(TEXTS)
    before = model.recurrent_weights_[0].copy()
    model.set_params(early_stopping=True).fit([text + "z" for text in TEXTS])
    assert np.isfinite(model.validation_scores_).all()
    assert not np.array_equal(model.recurrent_weights_[0], before)


def test_a_label_whose_samples_have_no_weight_is_absent():
    weights = np.array([0, 1, 1] * 20)
    labels = np.array([0, 1, 2] * 20)
    model = make(CharRNNClassifier).fit(TEXTS, labels, sample_weight=weights)
    assert model.classes_.tolist() == [1, 2]
    used = np.flatnonzero(weights)
    other = make(CharRNNClassifier).fit([TEXTS[i] for i in used], labels[used])
    np.testing.assert_array_equal(model.predict_proba(TEXTS), other.predict_proba(TEXTS))


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "name, value",
    [("shuffle", "x"), ("early_stopping", 1), ("learning_rate_init", np.inf), ("tol", -1.0)],
)
def test_parameters_that_would_pass_in_silence(cls, name, value):
    with pytest.raises(ValueError, match=f"{name} must be .* got {value!r}"):
        fitted(cls, **{name: value})


@pytest.mark.parametrize("cls", CLASSES)
def test_no_order_or_a_table_is_no_collection_of_texts(cls):
    model = fitted(cls)
    for X, kind in (({"ab", "b"}, "set"), ({"ab": 1, "b": 2}, "dict")):
        with pytest.raises(ValueError, match=f"order, as a list has; got a {kind}"):
            model.predict(X)
        with pytest.raises(ValueError, match=f"got a {kind}"):
            model.fit(X, *targets(model, [0, 1]))


def test_a_table_of_texts_is_not_its_column_names():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"text": TEXTS, "label": LABELS})
    with pytest.raises(ValueError, match=r"Pass the column itself, as X\['text'\]"):
        make(CharRNNLanguageModel).fit(table)
    assert make(CharRNNLanguageModel).fit(table["text"]).score(table["text"]) < 0


@pytest.mark.parametrize("cls", CLASSES)
def test_a_loss_that_ends_far_above_its_start_is_told(cls):
    model = make(cls, learning_rate_init=1e3, learning_rate="constant")
    with pytest.warns(ConvergenceWarning, match="loss rose from"):
        model.fit(TEXTS, *targets(model, LABELS))
    assert not model.converged_
