"""TopicMixture: priors that differ by topic, learned ones, streams, and LDA's names."""

import pickle
import warnings

import numpy as np
import pytest
import references_topics as reference
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import gammaln, logsumexp, psi
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from sklseq.topics import TopicMixture, _variational
from sklseq.topics._topic_model import Documents, TopicModel
from sklseq.topics._variational import TopicStatistics, VariationalTopics, _learned_prior

TRUE_PRIOR = np.array([2.0, 0.3, 0.05])


def corpus(n_documents, seed, prior=TRUE_PRIOR, n_words=60):
    rng = np.random.default_rng(seed)
    topic_word = np.random.default_rng(7).dirichlet(np.full(30, 0.2), size=len(prior))
    return reference.sample_counts(rng, topic_word, prior, n_documents, n_words)


def matched(found, wanted):
    """The order of found topics that is closest to the wanted ones."""
    distance = np.abs(found[:, None] - wanted[None]).sum(axis=2)
    return distance.argmin(axis=0)


# ---------------------------------------------------------------- the passes


def plain_bound(counts, gamma, components, word_prior, prior):
    """E log p - E log q, written out: words, topic proportions, topics."""
    log_theta = psi(gamma) - psi(gamma.sum(axis=1, keepdims=True))
    log_word = psi(components) - psi(components.sum(axis=1, keepdims=True))
    total = (counts * logsumexp(log_theta[:, :, None] + log_word[None], axis=1)).sum()

    def log_density(shapes, mean_log):
        return gammaln(shapes.sum()) - gammaln(shapes).sum() + (shapes - 1) @ mean_log

    for shapes, mean_log in zip(gamma, log_theta):
        total += log_density(prior, mean_log) - log_density(shapes, mean_log)
    for shapes, mean_log in zip(components, log_word):
        word = np.full(len(shapes), word_prior)
        total += log_density(word, mean_log) - log_density(shapes, mean_log)
    return total


def gamma_of(model, counts):
    log_word = psi(model.components) - psi(model.components.sum(axis=1, keepdims=True))
    documents = Documents.from_csr(csr_array(counts.astype(float)))
    return TopicModel(np.exp(log_word), model.prior).gamma(
        documents, _variational.GAMMA_MAX_ITER, None, _variational.GAMMA_TOL
    )


@pytest.mark.parametrize("learns", [False, True])
def test_a_pass_is_the_plain_one_and_raises_the_bound(learns):
    counts = corpus(50, 0)
    rng = np.random.default_rng(0)
    model = VariationalTopics(
        rng.gamma(100.0, 0.01, (3, 30)), 0.1, np.array([1.0, 0.5, 0.1]), learns
    )
    for _ in range(4):
        gamma = gamma_of(model, counts)
        statistics, bound = model.e_step(csr_array(counts.astype(float)))
        before = plain_bound(counts, gamma, model.components, 0.1, model.prior)
        np.testing.assert_allclose(bound, before, rtol=1e-10)
        log_theta = psi(gamma) - psi(gamma.sum(axis=1, keepdims=True))
        log_word = psi(model.components) - psi(model.components.sum(axis=1, keepdims=True))
        share = np.exp(log_theta[:, :, None] + log_word[None])
        share /= share.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(
            statistics.word_counts, np.einsum("dv,dkv->kv", counts, share), rtol=1e-9
        )
        model = model.m_step(statistics)
        after = plain_bound(counts, gamma, model.components, 0.1, model.prior)
        assert after > before
        if learns:  # alpha is where the bound is largest, topics as they are
            for k in range(3):
                for factor in (0.98, 1.02):
                    prior = model.prior * np.where(np.arange(3) == k, factor, 1.0)
                    assert plain_bound(counts, gamma, model.components, 0.1, prior) < after


def test_equal_numbers_fit_as_well_as_one_number():
    counts = corpus(60, 0)
    one = TopicMixture(3, doc_topic_prior=0.3, random_state=0).fit(counts)
    three = TopicMixture(3, doc_topic_prior=[0.3] * 3, random_state=0).fit(counts)
    assert three.lower_bounds_[-1] > one.lower_bounds_[-1] - 0.02


def test_the_learned_prior_is_the_maximum():
    rng = np.random.default_rng(0)
    mean_log = np.log(rng.dirichlet([3.0, 0.7, 0.2, 0.1], size=500).clip(1e-12)).mean(axis=0)
    found = np.full(4, 0.25)
    for _ in range(200):  # as many passes go on from one another
        found = _learned_prior(found, mean_log)

    def loss(log_prior):
        prior = np.exp(log_prior)
        return -(gammaln(prior.sum()) - gammaln(prior).sum() + (prior - 1) @ mean_log)

    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-10})
    np.testing.assert_allclose(found, np.exp(best.x), rtol=1e-4)


@pytest.mark.parametrize("sizes", [(1,), (1, 2, 40, 7)])
def test_the_statistics_do_not_depend_on_the_blocks(monkeypatch, sizes):
    X = csr_array(corpus(30, 0).astype(float))
    components = np.random.default_rng(0).gamma(1.0, 1.0, (3, 30))
    model = VariationalTopics(components, 0.1, TRUE_PRIOR, True)
    whole, bound = model.e_step(X)
    for size in sizes:
        monkeypatch.setattr("sklseq.topics._variational.BLOCK", 3 * size)
        cut, cut_bound = model.e_step(X)
        np.testing.assert_allclose(cut.word_counts, whole.word_counts, rtol=1e-12)
        np.testing.assert_allclose(cut_bound, bound, rtol=1e-12)
    np.testing.assert_allclose(whole.word_counts.sum(axis=0), X.sum(axis=0), rtol=1e-12)


# ---------------------------------------------------------------- priors


def test_a_learned_prior_finds_the_common_topic_and_scores_better():
    train, test = corpus(300, 0), corpus(100, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learned = TopicMixture(3, doc_topic_prior="learned", random_state=0).fit(train)
        plain = TopicMixture(3, random_state=0).fit(train)
    assert learned.converged_ and (np.diff(learned.lower_bounds_) > -1e-6).all()
    order = np.argsort(-learned.doc_topic_prior_)
    share = learned.doc_topic_prior_[order] / learned.doc_topic_prior_.sum()
    np.testing.assert_allclose(share, TRUE_PRIOR / TRUE_PRIOR.sum(), atol=0.06)
    assert learned.score(test) > plain.score(test) + 0.005
    known = TopicMixture(3, doc_topic_prior=[2.0, 0.3, 0.05], random_state=0).fit(train)
    np.testing.assert_array_equal(known.doc_topic_prior_, TRUE_PRIOR)
    np.testing.assert_allclose(known.score(test), learned.score(test), atol=0.02)
    again = pickle.loads(pickle.dumps(clone(learned).fit(csr_array(train))))
    np.testing.assert_array_equal(again.doc_topic_prior_, learned.doc_topic_prior_)


@pytest.mark.parametrize(
    ("prior", "message"),
    [("auto", "'learned' or None; got 'auto'"), ([1.0, 2.0], r"shape \(3,\), got \(2,\)"),
     ([1.0, 0.0, 1.0], "between 1e-100 and 1e100")],
)  # fmt: skip
def test_bad_priors(prior, message):
    with pytest.raises(ValueError, match=message):
        TopicMixture(3, doc_topic_prior=prior).fit(corpus(5, 0))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_battery_with_a_learned_prior():
    check_estimator(TopicMixture(2, doc_topic_prior="learned", max_iter=12, n_particles=2))


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize("prior", [None, "learned", [2.0, 0.3, 0.05]])
def test_a_stream_comes_near_to_the_fit_of_all(prior):
    chunks = [corpus(60, seed) for seed in range(8)]
    stream = TopicMixture(3, doc_topic_prior=prior, random_state=0)
    for _ in range(3):
        for chunk in chunks:
            stream.partial_fit(chunk)
    whole = TopicMixture(3, doc_topic_prior=prior, random_state=0).fit(np.vstack(chunks))
    test = corpus(100, 99)
    assert abs(stream.score(test) - whole.score(test)) < 0.02
    assert stream.n_iter_ == 24 and not stream.converged_


def test_one_step_of_a_stream_by_hand():
    """S = (1 - g) S + g s, lambda = eta + S on the scale of all documents; a fit is chunk one."""
    first, second = corpus(40, 0), corpus(20, 1)
    model = TopicMixture(3, doc_topic_prior=0.3, topic_word_prior=0.2, random_state=0).fit(first)
    totals = first.sum() + 3 * 30 * 0.2
    components = model.topic_word_ * model._online[0][:, None]
    np.testing.assert_allclose(components.sum(), totals)
    value = VariationalTopics(components, 0.2, np.full(3, 0.3), False)
    statistics, _ = value.e_step(csr_array(second.astype(float)))
    g = 2.0**-0.7
    counted = (1 - g) * 40 + g * 20
    words = (1 - g) * (components - 0.2) + g * statistics.word_counts
    expected = 0.2 + words * 60 / counted
    seed = model._stream_seed
    model.partial_fit(csr_array(second))
    np.testing.assert_allclose(
        model.topic_word_, expected / expected.sum(axis=1, keepdims=True), rtol=1e-9
    )
    assert model._stream_seed == seed and model.converged_
    assert isinstance(statistics, TopicStatistics)


def test_words_that_come_later_are_learned():
    early, late = corpus(60, 0), corpus(60, 1)
    early[:, 20:] = 0
    model = TopicMixture(3, topic_word_prior=1e-3, random_state=0).partial_fit(early)
    before = model.score(late)
    for _ in range(5):
        model.partial_fit(late)
    assert np.isfinite(model.topic_word_).all() and model.score(late) > before + 0.5


def test_a_stream_goes_on_from_known_parameters_and_is_checked():
    topic_word = np.random.default_rng(7).dirichlet(np.full(30, 0.2), size=3)
    model = TopicMixture.from_parameters(topic_word=topic_word, doc_topic_prior=0.3, random_state=0)
    model.partial_fit(corpus(100, 0))
    np.testing.assert_array_equal(matched(model.topic_word_, topic_word), [0, 1, 2])
    before = pickle.dumps(model)
    for X, message in (
        ([[1, 2]], "2 features, but TopicMixture is expecting 30"),
        (np.zeros((2, 30)), "X holds no words"),
        (np.full((2, 30), -1), "Negative values"),
    ):
        with pytest.raises(ValueError, match=message):
            model.partial_fit(X)
    assert pickle.dumps(model) == before
    with pytest.raises(ValueError, match="that of the first chunk, 3; got 4"):
        model.set_params(n_components=4).partial_fit(corpus(5, 0))
    with pytest.raises(ValueError, match=r"learning_decay must be above .* at most 1, got 2"):
        TopicMixture(learning_decay=2).partial_fit(corpus(5, 0))


# ---------------------------------------------------------------- names of LDA


def test_the_names_of_scikit_learns_lda():
    counts = corpus(30, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = TopicMixture(3, max_iter=5, random_state=0).fit(counts)
    assert model.components_ is model.topic_word_
    np.testing.assert_allclose(model.perplexity(counts), np.exp(-model.score(counts)))
    assert not hasattr(TopicMixture(), "components_")
