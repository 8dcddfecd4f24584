"""TopicMixture: the exact recursion against enumeration, estimates against the exact recursion."""

import itertools
import pickle
import warnings

import numpy as np
import pytest
import references_topics as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import coo_array, csr_array, csr_matrix
from scipy.special import logsumexp, psi
from sklearn.base import clone
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from sklseq.topics import TopicMixture, _topic_model
from sklseq.topics._topic_model import Documents, TopicModel


def documents_of(counts) -> Documents:
    return Documents.from_csr(csr_array(np.asarray(counts, dtype=float)))


def random_model(rng, n_topics, n_vocabulary, *, prior=None, sparsity=1.0) -> TopicModel:
    topic_word = rng.dirichlet(np.full(n_vocabulary, sparsity), size=n_topics)
    prior = rng.uniform(0.1, 2.0, n_topics) if prior is None else np.full(n_topics, prior)
    return TopicModel(topic_word, prior)


def estimator_of(model: TopicModel, **params) -> TopicMixture:
    params.setdefault("random_state", 0)
    return TopicMixture.from_parameters(
        topic_word=model.topic_word, doc_topic_prior=model.prior, **params
    )


def repeat_with_seeds(model, counts, n_repeats, n_particles, method):
    """The same document many times, each with a stream of its own."""
    documents = documents_of(np.tile(counts, (n_repeats, 1)))
    seeds = np.arange(n_repeats, dtype=np.uint64)
    return getattr(model, method)(documents, seeds, n_particles, None)


def standard_deviations_off(probabilities, truth):
    """How many standard errors the mean of the estimates of a probability lies from it."""
    ratio = probabilities / truth
    return (ratio.mean() - 1.0) / (ratio.std(ddof=1) / np.sqrt(len(ratio)))


# -- the oracles themselves ----------------------------------------------------------------------


def test_oracles_agree():
    rng = np.random.default_rng(0)
    model = random_model(rng, 2, 4)
    counts = np.array([3, 0, 2, 1])
    enumerated = reference.log_prob_by_enumeration(counts, model.topic_word, model.prior)
    for oracle in (
        reference.log_prob_by_polynomial,
        reference.log_prob_two_topics,
        reference.log_prob_by_quadrature,
    ):
        assert_allclose(oracle(counts, model.topic_word, model.prior), enumerated, rtol=1e-12)


# -- exact recursion -----------------------------------------------------------------------------


@pytest.mark.parametrize("n_topics", [2, 3, 4, 5])
def test_exact_is_the_sum_over_all_topic_assignments(n_topics):
    rng = np.random.default_rng(n_topics)
    model = random_model(rng, n_topics, 6)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 4, 5)
    expected = [
        reference.log_prob_by_enumeration(row, model.topic_word, model.prior) for row in counts
    ]
    log_prob, std_error = estimator_of(model).score_samples(counts, return_std=True)
    assert_allclose(log_prob, expected, rtol=1e-13)
    assert_array_equal(std_error, 0.0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_exact_on_any_small_document(data):
    n_topics = data.draw(st.integers(2, 3))
    n_vocabulary = data.draw(st.integers(1, 4))
    positive = st.floats(1e-3, 1.0)
    rows = st.lists(positive, min_size=n_vocabulary, max_size=n_vocabulary)
    topic_word = np.array(data.draw(st.lists(rows, min_size=n_topics, max_size=n_topics)))
    topic_word /= topic_word.sum(axis=1, keepdims=True)
    prior = np.array(
        data.draw(st.lists(st.floats(1e-6, 1e3), min_size=n_topics, max_size=n_topics))
    )
    counts = np.array(
        data.draw(st.lists(st.integers(0, 2), min_size=n_vocabulary, max_size=n_vocabulary))
    )
    expected = reference.log_prob_by_enumeration(counts, topic_word, prior)
    model = TopicMixture.from_parameters(topic_word=topic_word, doc_topic_prior=prior)
    # the oracle's gamma functions lose digits at alpha = 1e3
    assert_allclose(model.score_samples([counts]), [expected], rtol=1e-9, atol=1e-10)


def test_exact_survives_probabilities_beyond_the_range_of_doubles():
    # Each topic would need 1e-4 ** 300 for the other's words; 600 words in all.
    topic_word = np.array([[0.9999, 1e-4], [1e-4, 0.9999]])
    prior = np.array([0.3, 1e-8])
    for counts in ([300, 300], [0, 600], [599, 1]):
        expected = reference.log_prob_two_topics(counts, topic_word, prior)
        model = TopicMixture.from_parameters(topic_word=topic_word, doc_topic_prior=prior)
        assert_allclose(model.score_samples([counts]), [expected], rtol=1e-11)


def test_exact_where_the_unlikely_half_decides():
    # All a's first, a recursion would lose the path that ends up carrying the sum.
    topic_word = np.array([[0.5, 1e-12, 0.5 - 1e-12], [0.4, 0.5, 0.1]])
    counts = np.array([3200, 3200, 0])
    expected = reference.log_prob_two_topics(counts, topic_word, np.array([0.5, 0.5]))
    model = TopicMixture.from_parameters(topic_word=topic_word, doc_topic_prior=0.5)
    log_prob, std_error = model.score_samples([counts], return_std=True)
    assert std_error[0] == 0.0
    assert_allclose(log_prob, [expected], rtol=1e-12)


def test_all_word_sequences_together_have_probability_one():
    rng = np.random.default_rng(1)
    model = random_model(rng, 3, 3)
    sequences = list(itertools.product(range(3), repeat=4))
    counts = np.array([np.bincount(sequence, minlength=3) for sequence in sequences])
    total = np.exp(estimator_of(model).score_samples(counts)).sum()
    assert_allclose(total, 1.0, rtol=1e-13)

    # The estimates are unbiased, so their sums are too: within five standard errors.
    documents = documents_of(counts)
    for method in ("_left_to_right", "_importance"):
        seeds = np.arange(len(counts), dtype=np.uint64)
        log_prob, std_error = getattr(model, method)(documents, seeds, 20, None)
        error = np.linalg.norm(np.exp(log_prob) * std_error)
        assert 0.0 < error < 0.02
        assert abs(np.exp(log_prob).sum() - 1.0) < 5.0 * error


# -- left to right -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_particles", [1, 2, 7])
@pytest.mark.parametrize(("foresight", "window"), [(0.0, 512), (0.5, 512), (0.5, 2), (1.0, 0)])
def test_left_to_right_is_unbiased(monkeypatch, n_particles, foresight, window):
    monkeypatch.setattr(_topic_model, "FORESIGHT", foresight)
    monkeypatch.setattr(_topic_model, "WINDOW", window)
    rng = np.random.default_rng(3)
    model = random_model(rng, 3, 8, prior=0.4, sparsity=0.3)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 1, 9)[0]
    truth = model._exact(documents_of([counts]), None)[0]
    log_prob, _ = repeat_with_seeds(model, counts, 6000, n_particles, "_left_to_right")
    assert log_prob.std() > 1e-3  # an estimate, not the exact value
    assert abs(standard_deviations_off(np.exp(log_prob), np.exp(truth))) < 4.0


def test_the_test_of_bias_can_fail():
    """Particles without weights that never redraw are biased, and the test above would see it."""
    rng = np.random.default_rng(3)
    model = random_model(rng, 3, 8, prior=0.4, sparsity=0.3)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 1, 9)[0]
    truth = model._exact(documents_of([counts]), None)[0]
    estimates = [
        reference.left_to_right_unweighted(
            counts, model.topic_word, model.prior, 2, rng, redraw=False
        )
        for _ in range(2000)
    ]
    assert abs(standard_deviations_off(np.exp(estimates), np.exp(truth))) > 4.0


@pytest.mark.parametrize(("n_topics", "n_words"), [(3, 60), (5, 30)])
def test_left_to_right_lies_within_its_stated_error_of_the_exact_value(n_topics, n_words):
    rng = np.random.default_rng(n_topics)
    model = random_model(rng, n_topics, 40, prior=0.3, sparsity=0.1)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 60, n_words)
    documents = documents_of(counts)
    log_prob, std_error = model._left_to_right(documents, documents.seeds(1), 20, None)
    z = (log_prob - model._exact(documents, None)) / std_error
    assert np.all((std_error > 0.0) & (std_error < 0.5))
    assert 0.6 < np.sqrt(np.mean(z**2)) < 1.6
    assert np.max(np.abs(z)) < 6.0


def test_left_to_right_error_falls_with_the_square_root_of_the_particles():
    rng = np.random.default_rng(8)
    model = random_model(rng, 8, 60, prior=0.2, sparsity=0.1)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 1, 40)[0]
    spread = [
        repeat_with_seeds(model, counts, 300, n_particles, "_left_to_right")[0].std()
        for n_particles in (10, 160)
    ]
    assert 2.5 < spread[0] / spread[1] < 6.5


def test_a_long_document_is_scored_with_a_moving_window(monkeypatch):
    rng = np.random.default_rng(9)
    model = random_model(rng, 3, 30, prior=0.5, sparsity=0.2)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 8, 150)
    documents = documents_of(counts)
    monkeypatch.setattr(_topic_model, "WINDOW", 16)
    log_prob, std_error = model._left_to_right(documents, documents.seeds(1), 50, None)
    assert_array_equal(np.abs(log_prob - model._exact(documents, None)) < 5.0 * std_error, True)


# -- importance sampling over theta --------------------------------------------------------------


@pytest.mark.parametrize("n_topics", [2, 3])
def test_fractional_counts_against_quadrature(n_topics):
    rng = np.random.default_rng(n_topics)
    model = random_model(rng, n_topics, 8)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 20, 12) * 0.37
    expected = [
        reference.log_prob_by_quadrature(row, model.topic_word, model.prior, 120)
        for row in counts
    ]
    log_prob, std_error = estimator_of(model, n_particles=400).score_samples(
        counts, return_std=True
    )
    z = (log_prob - expected) / std_error
    assert np.all(std_error < 0.01)
    assert 0.5 < np.sqrt(np.mean(z**2)) < 1.6
    assert np.max(np.abs(z)) < 5.0


def test_importance_sampling_of_whole_counts_is_unbiased():
    rng = np.random.default_rng(5)
    model = random_model(rng, 4, 10, prior=0.2, sparsity=0.2)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 1, 12)[0]
    truth = model._exact(documents_of([counts]), None)[0]
    log_prob, _ = repeat_with_seeds(model, counts, 3000, 1, "_importance")
    assert log_prob.std() > 1e-3
    assert abs(standard_deviations_off(np.exp(log_prob), np.exp(truth))) < 4.0


def test_score_is_continuous_where_counts_become_whole():
    rng = np.random.default_rng(6)
    model = random_model(rng, 3, 10, prior=0.5)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 5, 20)
    estimator = estimator_of(model, n_particles=500)
    nearly, error = estimator.score_samples(counts * (1.0 + 1e-9), return_std=True)
    assert np.all(np.abs(nearly - estimator.score_samples(counts)) < 5.0 * error)


def test_hopeless_importance_sampling_says_so():
    rng = np.random.default_rng(7)
    model = random_model(rng, 60, 400, prior=0.05, sparsity=0.02)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 3, 300) + 0.5
    estimator = estimator_of(model, n_particles=1)
    with pytest.warns(ConvergenceWarning, match="standard error of inf nats: raise n_particles=1"):
        _, std_error = estimator.score_samples(counts, return_std=True)
    assert np.isinf(std_error).any()
    with pytest.warns(ConvergenceWarning, match="The score has a Monte Carlo standard error"):
        estimator.score(counts)


def test_huge_counts_are_scored_over_theta():
    model = TopicModel(np.array([[0.7, 0.3], [0.2, 0.8]]), np.array([1.0, 1.0]))
    counts = np.array([[30_000.0, 30_000.0]])
    expected = reference.log_prob_by_quadrature(counts[0], model.topic_word, model.prior, 2000)
    log_prob, error = estimator_of(model, n_particles=100).score_samples(counts, return_std=True)
    assert error[0] > 0
    assert abs(log_prob[0] - expected) < 5.0 * error[0]


# -- the estimator: what it promises -------------------------------------------------------------


@pytest.fixture(scope="module")
def three_routes():
    """Documents scored exactly, by particles and over theta, and their model."""
    rng = np.random.default_rng(11)
    model = random_model(rng, 6, 50, prior=0.3, sparsity=0.1)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 75, 60).astype(float)
    counts[::3] = reference.sample_counts(rng, model.topic_word, model.prior, 25, 4)
    counts[1::3] *= 0.7
    estimator = estimator_of(model, n_particles=5)
    routes = model._routes(documents_of(counts), 5)
    assert [len(rows) for rows in routes] == [25, 25, 25]
    return estimator, counts


def test_a_document_does_not_depend_on_its_neighbours(three_routes):
    estimator, counts = three_routes
    together = estimator.score_samples(counts)
    alone = np.concatenate([estimator.score_samples(row[None]) for row in counts])
    assert_array_equal(alone, together)
    order = np.random.default_rng(0).permutation(len(counts))
    assert_array_equal(estimator.score_samples(counts[order]), together[order])
    assert_array_equal(estimator.transform(counts[order]), estimator.transform(counts)[order])


def test_same_bits_for_every_n_jobs_and_backend(three_routes):
    estimator, counts = three_routes
    expected = estimator.score_samples(counts), estimator.transform(counts)
    for n_jobs in (2, 3, -1):
        other = clone(estimator).set_params(n_jobs=n_jobs)
        other.__dict__.update({**estimator.__dict__, "n_jobs": n_jobs})
        assert_array_equal(other.score_samples(counts), expected[0])
        assert_array_equal(other.transform(counts), expected[1])
    for backend in ("threading", "loky"):
        with parallel_config(backend, n_jobs=2):
            assert_array_equal(estimator.score_samples(counts), expected[0])


def test_same_bits_for_every_form_of_the_matrix(three_routes):
    estimator, counts = three_routes
    expected = estimator.score_samples(counts)
    rows, columns = np.nonzero(counts)
    values = counts[rows, columns]
    shuffled = np.random.default_rng(0).permutation(len(values))
    halves = coo_array(  # unsorted, every entry in two parts, and explicit zeros
        (
            np.concatenate([values[shuffled] / 2, values / 2, np.zeros(3)]),
            (
                np.concatenate([rows[shuffled], rows, [0, 1, 2]]),
                np.concatenate([columns[shuffled], columns, [7, 7, 7]]),
            ),
        ),
        shape=counts.shape,
    )
    unsorted = csr_matrix(counts)
    for begin, end in itertools.pairwise(unsorted.indptr):
        unsorted.indices[begin:end] = unsorted.indices[begin:end][::-1].copy()
        unsorted.data[begin:end] = unsorted.data[begin:end][::-1].copy()
    unsorted.has_sorted_indices = False
    before = unsorted.indices.copy()
    for form in (csr_array(counts), halves, unsorted, np.asfortranarray(counts), counts.tolist()):
        assert_array_equal(estimator.score_samples(form), expected)
    assert_array_equal(unsorted.indices, before)
    whole = counts[::3]
    assert_array_equal(estimator.score_samples(whole.astype(np.int32)), expected[::3])
    assert_array_equal(estimator.score_samples(whole.astype(np.float32)), expected[::3])


def test_the_order_of_words_never_matters():
    texts = ["to be or not to be that is the question", "the rest is silence"] * 4
    vectorizer = CountVectorizer().fit(texts)
    model = TopicMixture(3, random_state=0).fit(vectorizer.transform(texts))
    rng = np.random.default_rng(0)
    shuffled = [" ".join(rng.permutation(text.split())) for text in texts]
    assert shuffled != texts
    assert_array_equal(
        model.score_samples(vectorizer.transform(shuffled)),
        model.score_samples(vectorizer.transform(texts)),
    )


def test_streams_follow_content_and_seed():
    documents = documents_of([[1, 2, 0], [2, 1, 0], [1, 2, 0], [0, 1, 2], [0, 0, 0], [1, 2.5, 0]])
    seeds = documents.seeds(0)
    assert seeds[0] == seeds[2]
    assert len(set(seeds.tolist())) == 5
    assert not np.any(documents.seeds(1)[[0, 1, 3, 5]] == seeds[[0, 1, 3, 5]])


def test_score_does_not_depend_on_the_size_of_the_test_set_as_scikit_learns_does():
    rng = np.random.default_rng(2)
    model = random_model(rng, 5, 100, prior=0.1, sparsity=0.1)
    train = reference.sample_counts(rng, model.topic_word, model.prior, 150, 40)
    test = reference.sample_counts(rng, model.topic_word, model.prior, 50, 40)
    n_words = test.sum(axis=1)
    ours = TopicMixture(5, random_state=0).fit(train)
    theirs = LatentDirichletAllocation(5, random_state=0).fit(train)

    def spread(score):  # of the total of 50 documents, scored in one, two, ... parts
        totals = [
            sum(score(part) for part in np.array_split(test, n_parts)) for n_parts in (1, 2, 5, 50)
        ]
        return np.ptp(totals) / n_words.sum()

    assert spread(lambda part: ours.score(part) * part.sum()) < 1e-12
    assert spread(theirs.score) > 0.3  # nats per word


def test_score_is_the_weighted_mean_per_word(three_routes):
    estimator, counts = three_routes
    log_prob, n_words = estimator.score_samples(counts), counts.sum(axis=1)
    assert_allclose(estimator.score(counts), log_prob.sum() / n_words.sum(), rtol=1e-14)
    weight = np.random.default_rng(0).integers(0, 3, len(counts))
    assert_allclose(
        estimator.score(counts, sample_weight=weight),
        estimator.score(np.repeat(counts, weight, axis=0)),
        rtol=1e-13,
    )


def test_true_parameters_beat_wrong_ones():
    rng = np.random.default_rng(4)
    model = random_model(rng, 6, 40, prior=0.2, sparsity=0.2)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 100, 50)
    truth = estimator_of(model).score(counts)
    unigram = TopicModel(model.topic_word.mean(axis=0, keepdims=True), np.ones(1))
    for wrong in (
        TopicModel(model.topic_word, np.full(6, 20.0)),
        TopicModel(np.roll(model.topic_word, 1, axis=1), model.prior),
        unigram,
    ):
        assert estimator_of(wrong).score(counts) < truth - 0.01


# -- corner cases --------------------------------------------------------------------------------


def test_one_topic_is_the_unigram_model_whole_or_fractional():
    word = np.array([[0.5, 0.3, 0.2, 0.0]])
    model = TopicMixture.from_parameters(topic_word=word, doc_topic_prior=0.7)
    counts = np.array([[2, 0, 1, 0], [0.3, 1.2, 0.0, 0.0], [0, 0, 0, 0], [1, 0, 0, 1]])
    expected = [2 * np.log(0.5) + np.log(0.2), 0.3 * np.log(0.5) + 1.2 * np.log(0.3), 0, -np.inf]
    log_prob, std_error = model.score_samples(counts, return_std=True)
    assert_allclose(log_prob, expected, rtol=1e-14)
    assert_array_equal(std_error, 0.0)
    assert_array_equal(model.transform(counts), 1.0)


@pytest.mark.parametrize("n_topics", [1, 2, 40])
def test_empty_and_one_word_documents(n_topics):
    rng = np.random.default_rng(n_topics)
    model = random_model(rng, n_topics, 5)
    counts = np.vstack([np.zeros((1, 5)), np.eye(5)])
    mean = model.prior / model.prior.sum()
    estimator = estimator_of(model)
    expected = np.concatenate([[0.0], np.log(mean @ model.topic_word)])
    assert_allclose(estimator.score_samples(counts), expected, rtol=1e-13)
    assert_allclose(estimator.transform(counts[:1]), [mean], rtol=1e-14)
    with pytest.raises(ValueError, match="no document of positive weight has a word"):
        estimator.score(counts[:1])
    assert_allclose(estimator.score(counts[:2]), expected[1], rtol=1e-13)


def test_words_unseen_in_training_have_the_posterior_mean_probability():
    counts = np.array([[3, 2, 0], [1, 4, 0]])
    model = TopicMixture(1, topic_word_prior=0.5, random_state=0).fit(counts)
    assert_allclose(model.topic_word_, [[4.5 / 11.5, 6.5 / 11.5, 0.5 / 11.5]], rtol=1e-12)
    assert_allclose(model.score_samples([[0, 0, 2]]), 2 * np.log(0.5 / 11.5), rtol=1e-12)
    several = TopicMixture(3, random_state=0).fit(counts)
    assert np.all(np.isfinite(several.score_samples([[0, 0, 2], [0, 0, 0.5], [50, 50, 50]])))


@pytest.mark.parametrize("repeat", [1, 40, 0.5])  # exact, particles, theta
def test_an_impossible_word_is_minus_infinity_not_nan(repeat):
    rng = np.random.default_rng(0)
    topic_word = rng.dirichlet(np.ones(6), size=12)
    topic_word[:, 3] = 0.0
    topic_word /= topic_word.sum(axis=1, keepdims=True)
    model = TopicMixture.from_parameters(topic_word=topic_word, doc_topic_prior=0.5)
    counts = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0]]) * repeat
    log_prob = model.score_samples(counts)
    assert_array_equal(np.isneginf(log_prob), [True, False, True])
    assert not np.isnan(log_prob).any()
    assert np.all(np.isfinite(model.transform(counts)))
    assert model.score(counts) == -np.inf
    assert np.isfinite(model.score(counts, sample_weight=[0, 1, 0]))


@pytest.mark.parametrize("repeat", [1, 30])
def test_topics_with_zeros_are_told_apart(repeat):
    """Disjoint topics: the words say which topic each came from, so p(x) is known."""
    n_topics = 9
    model = TopicMixture.from_parameters(topic_word=np.eye(n_topics), doc_topic_prior=0.4)
    counts = np.zeros(n_topics, dtype=int)
    counts[[1, 4, 5]] = repeat, 2 * repeat, 1
    expected = reference.log_assignment_prior(counts, np.full(n_topics, 0.4))
    assert_allclose(model.score_samples([counts]), [expected], rtol=1e-11)


@pytest.mark.parametrize(("n_topics", "prior"), [(3, 1e-90), (3, 1e6), (12, 1e6)])
def test_extreme_priors(n_topics, prior):
    rng = np.random.default_rng(0)
    topic_word = rng.dirichlet(np.full(5, 0.3), size=n_topics)
    model = estimator_of(TopicModel(topic_word, np.full(n_topics, prior)), n_particles=200)
    counts = np.array([[3, 4, 0, 2, 9], [1.5, 0, 2.5, 0, 1]])
    if prior < 1:  # one topic a document
        expected = logsumexp(counts @ np.log(topic_word.T), axis=1) - np.log(n_topics)
    else:  # all topics alike
        expected = counts @ np.log(topic_word.mean(axis=0))
    log_prob, error = model.score_samples(counts, return_std=True)
    assert (error[0] == 0.0) == (n_topics == 3)  # exact, or by particles
    assert np.all(error < 0.2)
    assert np.all(np.abs(log_prob - expected) < 5.0 * error + 1e-4)
    assert np.all(np.isfinite(model.transform(counts)))


# -- fitting, transforming, sampling -------------------------------------------------------------


def test_fit_is_scikit_learns_batch_learning():
    rng = np.random.default_rng(0)
    model = random_model(rng, 3, 20, prior=0.3, sparsity=0.2)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 50, 30)
    with pytest.warns(ConvergenceWarning, match="max_iter=7"):
        ours = TopicMixture(3, max_iter=7, tol=0.0, random_state=5).fit(counts)
    theirs = LatentDirichletAllocation(3, max_iter=7, random_state=5).fit(counts)
    topic_word = theirs.components_ / theirs.components_.sum(axis=1, keepdims=True)
    assert_allclose(ours.topic_word_, topic_word, rtol=1e-9)
    assert ours.n_iter_ == 7 and not ours.converged_ and len(ours.lower_bounds_) == 2
    assert_allclose(ours.lower_bounds_[-1], theirs.score(counts) / counts.sum(), rtol=1e-9)


def test_fit_converges_and_says_so(capsys):
    rng = np.random.default_rng(0)
    model = random_model(rng, 2, 20, prior=0.3, sparsity=0.2)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 60, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = TopicMixture(2, random_state=0, verbose=1).fit(counts)
    assert fitted.converged_ and fitted.n_iter_ < 100
    (line,) = capsys.readouterr().out.splitlines()
    assert f"converged after {fitted.n_iter_} passes: lower bound" in line
    assert f"{fitted.lower_bounds_[-1]:.6f} nats per word" in line
    # close to the truth: matching topics by their best permutation
    gap = min(np.abs(fitted.topic_word_[::s] - model.topic_word).max() for s in (1, -1))
    assert gap < 0.05


def test_dense_and_sparse_training_give_the_same_bits():
    counts = np.random.default_rng(0).poisson(0.7, (30, 12))
    dense = TopicMixture(3, random_state=0).fit(counts)
    sparse = TopicMixture(3, random_state=0).fit(csr_matrix(counts))
    with parallel_config("loky", n_jobs=2):
        configured = TopicMixture(3, random_state=0, n_jobs=2).fit(counts)
    assert_array_equal(dense.topic_word_, sparse.topic_word_)
    assert_array_equal(dense.topic_word_, configured.topic_word_)


def test_transform_is_the_mean_field_posterior_scikit_learn_computes():
    rng = np.random.default_rng(0)
    model = random_model(rng, 4, 15, prior=0.3)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 10, 25) * 0.5
    lda = LatentDirichletAllocation(
        4, doc_topic_prior=0.3, mean_change_tol=1e-12, max_doc_update_iter=20_000, random_state=0
    ).fit(counts)
    lda.exp_dirichlet_component_ = model.topic_word
    assert_allclose(estimator_of(model).transform(counts), lda.transform(counts), atol=1e-6)


def test_transform_is_a_fixed_point_and_predict_its_largest():
    rng = np.random.default_rng(1)
    model = random_model(rng, 4, 15)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 6, 30)
    estimator = estimator_of(model)
    proportions = estimator.transform(counts)
    assert_allclose(proportions.sum(axis=1), 1.0, rtol=1e-14)
    gamma = proportions * (model.prior.sum() + counts.sum(axis=1, keepdims=True))
    weight = np.exp(psi(gamma))
    share = counts / (weight @ model.topic_word)
    assert_allclose(model.prior + weight * (share @ model.topic_word.T), gamma, rtol=1e-4)
    assert_array_equal(estimator.predict(counts), proportions.argmax(axis=1))


def test_sample_draws_from_the_model():
    rng = np.random.default_rng(0)
    model = random_model(rng, 3, 5)
    estimator = estimator_of(model)
    counts, theta = estimator.sample(4000, n_words=7, random_state=1)
    assert counts.shape == (4000, 5) and counts.dtype.kind == "i" and theta.shape == (4000, 3)
    assert_array_equal(counts.sum(axis=1), 7)
    mean = model.prior / model.prior.sum()
    assert_allclose(theta.mean(axis=0), mean, atol=0.02)
    assert_allclose(counts.mean(axis=0) / 7, mean @ model.topic_word, atol=0.01)
    # words of one document are dependent: two-word documents against score_samples
    pairs, _ = estimator.sample(40_000, n_words=2, random_state=2)
    observed = np.mean(pairs[:, 0] == 2)
    expected = np.exp(estimator.score_samples([[2, 0, 0, 0, 0]]))[0]
    assert abs(observed - expected) < 4 * np.sqrt(expected / 40_000)
    ragged, _ = estimator.sample(3, n_words=[0, 5, 9], random_state=0)
    assert_array_equal(ragged.sum(axis=1), [0, 5, 9])
    assert_array_equal(estimator.sample(2)[0], estimator.sample(2)[0])


def test_random_state_none_still_gives_a_document_one_value():
    rng = np.random.default_rng(0)
    model = random_model(rng, 20, 60)
    counts = reference.sample_counts(rng, model.topic_word, model.prior, 4, 50)
    estimator = estimator_of(model, random_state=None)
    first, error = estimator.score_samples(counts, return_std=True)
    assert np.all(error > 0)
    assert_array_equal(estimator.score_samples(counts), first)
    assert_array_equal(pickle.loads(pickle.dumps(estimator)).score_samples(counts), first)
    assert_array_equal(
        estimator_of(model, random_state=3).score_samples(counts),
        estimator_of(model, random_state=3).score_samples(counts),
    )


def test_pipeline_and_grid_search_find_the_number_of_topics():
    rng = np.random.default_rng(0)
    topic_word = np.kron(np.eye(3), np.full((1, 6), 1 / 6))
    theta = rng.dirichlet(np.full(3, 0.1), size=60)
    names = np.array([f"word{i}" for i in range(18)])
    texts = [" ".join(rng.choice(names, 30, p=row @ topic_word)) for row in theta]
    search = GridSearchCV(
        make_pipeline(CountVectorizer(), TopicMixture(random_state=0)),
        {"topicmixture__n_components": [1, 3]},
        cv=3,
    ).fit(texts)
    assert search.best_params_["topicmixture__n_components"] == 3
    assert -np.log(18) < search.best_score_ < -np.log(6)
    features = search.best_estimator_[:-1].get_feature_names_out()
    assert features.tolist() == sorted(names)
    assert search.best_estimator_[-1].get_feature_names_out().tolist() == [
        f"topicmixture{k}" for k in range(3)
    ]


# -- errors and the battery ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_components": 0}, "n_components == 0, must be >= 1"),
        ({"n_components": 2.0}, "n_components must be an integer, got 2.0"),
        ({"max_iter": 0}, "max_iter == 0"),
        ({"n_particles": -1}, "n_particles == -1"),
        ({"tol": -1.0}, "tol == -1.0"),
        ({"tol": np.nan}, "tol"),
        ({"doc_topic_prior": 0.0}, "doc_topic_prior == 0.0, must be > 0"),
        ({"topic_word_prior": 2}, "topic_word_prior must be at most 1, got 2"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises((TypeError, ValueError), match=message):
        TopicMixture(**params).fit([[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("topic_word", "prior", "message"),
    [
        ([[0.5, 0.4]], 1.0, "Row 0 of topic_word must sum to 1, got 0.9"),
        ([[1.5, -0.5]], 1.0, "topic_word must be non-negative, got -0.5"),
        ([[np.nan, 1.0]], 1.0, "topic_word must be finite"),
        ([0.5, 0.5], 1.0, "topic_word must have shape"),
        ([[0.5, 0.5]], [1.0, 1.0], r"doc_topic_prior must have shape \(1,\), got \(2,\)"),
        ([[0.5, 0.5]], 0.0, "doc_topic_prior must lie between 1e-100 and 1e100, got 0.0"),
        ([[0.5, 0.5]], [np.inf], "doc_topic_prior must be finite"),
    ],
)
def test_bad_known_parameters(topic_word, prior, message):
    with pytest.raises(ValueError, match=message):
        TopicMixture.from_parameters(topic_word=topic_word, doc_topic_prior=prior)


def test_bad_input_never_changes_a_fitted_model():
    model = TopicMixture(2, random_state=0).fit([[3, 1, 0], [0, 1, 3]])
    before = pickle.dumps(model)
    for X, message in (
        ([[1, -1, 0]], "Negative values"),
        ([[1, np.nan, 0]], "NaN"),
        ([[1, np.inf, 0]], "infinity"),
        ([[1, 2]], "2 features, but TopicMixture is expecting 3"),
        ([[1e308, 1e308, 0]], r"too large to be squared: 1e\+308 at row 0, column 0"),
    ):
        for method in (model.score_samples, model.transform, model.predict, model.score):
            with pytest.raises(ValueError, match=message):
                method(X)
    for weight, message in (([1.0], "must be 2 numbers"), ([1, -1], r"got -1.0 at 1")):
        with pytest.raises(ValueError, match=message):
            model.score([[1, 0, 0], [0, 1, 0]], sample_weight=weight)
    for arguments, message in (
        ({"n_samples": 0}, "n_samples must be a positive integer, got 0"),
        ({"n_words": -1}, "n_words must be whole and not negative, got -1"),
        ({"n_words": 2.5}, "n_words must be whole"),
        ({"n_samples": 2, "n_words": [1, 2, 3]}, "have n_samples=2 entries, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            model.sample(**arguments)
    assert pickle.dumps(model) == before
    for X, message in (([[0, 0]], "X holds no words"), ([[np.nan, 1.0]], "NaN")):
        with pytest.raises(ValueError, match=message):
            model.fit(X)
    assert pickle.dumps(model) == before
    with pytest.raises(NotFittedError):
        TopicMixture().sample()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_battery_bare():
    check_estimator(TopicMixture())
