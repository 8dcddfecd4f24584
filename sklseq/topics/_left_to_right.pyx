"""Left-to-right estimate of the probability of a document, earlier topics drawn anew all the time.

A document is w_1..w_N with topics z_1..z_N.  With theta integrated out and c_k = how many of
z_1..z_n are k, p(w_1..w_n, z_1..z_n) = prod_t phi_{z_t}(w_t) B(alpha + c) / B(alpha), B the
normaliser of the Dirichlet.  R weighted particles carry z_1..z_n for growing n; at every n
each first redraws its earlier topics by a Gibbs sweep, then extends by z_n.

Plain left-to-right (Wallach, Murray, Salakhutdinov and Mimno 2009, "Evaluation methods for topic
models", section 4.2) averages p(w_n given z_<n) over particles without weights.  That is unbiased
only when the sweep forgets everything (Buntine 2009, "Estimating likelihoods for topic models"),
and every topic that comes late in the document is a surprise to most particles.  Two changes:

*Weights*, and systematic resampling when their effective number falls below R / 2, make it a
sequential Monte Carlo sampler (Del Moral, Doucet and Jasra 2006): the estimate of p(w) is
unbiased for every R, every number of redrawn topics, and every choice of m below.

*Foresight.* The words still to come are known.  A guess at theta says which topics they come
from; m_n(k), a fraction of their expected number, is added to alpha_k, so that after n words the
particles follow

    pi_n(z_1..z_n) = prod_t phi_{z_t}(w_t) B(alpha + c + m_n) / B(alpha),        m_N = 0,

which is p(w, z) at the end.  z_n is drawn with mass (alpha_k + c_k + m_n(k)) phi_k(w_n), and with
r = m_{n-1} - m_n, S = sum_k (alpha_k + c_k + m_n(k)), c the counts of z_<n, the weight grows by

    sum_k (alpha_k + c_k + m_n(k)) phi_k(w_n) / S
        * prod_k Gamma(alpha_k + c_k + m_n(k)) / Gamma(alpha_k + c_k + m_n(k) + r_k)
        * Gamma(S + sum r) / Gamma(S).

m = 0 gives back the plain weight, p(w_n given z_<n).
"""

from libc.math cimport INFINITY, exp, floor, log, sqrt
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy

from scipy.special.cython_special cimport gammaln

cdef extern from "_stream.h" nogil:
    ctypedef struct Stream:
        pass
    void stream_start(Stream *stream, uint64_t seed)
    double stream_uniform(Stream *stream)

cdef extern from "_topic_mass.h" nogil:
    double topic_mass(
        const double *counts, const double *prior, const double *word, double *mass,
        Py_ssize_t n_padded,
    )
    Py_ssize_t topic_at(const double *mass, double threshold, Py_ssize_t n_padded)

# Shares of a word below this are left out of m: fewer gamma functions, any m is valid.
cdef double NEGLIGIBLE_SHARE = 1e-3


cdef struct Particles:
    int32_t *topics     # (n_particles, n_words)
    double *counts      # (n_particles, n_padded) how many words have each topic


cdef void _redraw(
    Stream *stream, const double[:, ::1] word_topic, const double *shape, const int32_t *words,
    Py_ssize_t first, Py_ssize_t n_redrawn, Py_ssize_t n_seen,
    int32_t *topics, double *counts, double *mass,
) noexcept nogil:
    """Gibbs draws of n_redrawn of the n_seen topics, cyclically from `first` on."""
    cdef Py_ssize_t i = first, n_padded = word_topic.shape[1]
    cdef double total
    for _ in range(n_redrawn):
        counts[topics[i]] -= 1.0
        total = topic_mass(counts, shape, &word_topic[words[i], 0], mass, n_padded)
        topics[i] = <int32_t> topic_at(mass, stream_uniform(stream) * total, n_padded)
        counts[topics[i]] += 1.0
        i += 1
        if i == n_seen:
            i = 0


cdef void _resample(
    Stream *stream, Py_ssize_t n_seen, Py_ssize_t n_words, Py_ssize_t n_padded,
    Particles old, Particles new, double[::1] weights,
) noexcept nogil:
    """Systematic resampling."""
    cdef Py_ssize_t r, child = 0, n_reached, n_particles = weights.shape[0]
    cdef double shift = stream_uniform(stream), reached = 0.0
    for r in range(n_particles):
        reached += weights[r] * n_particles
        n_reached = <Py_ssize_t> floor(reached + shift)
        if n_reached > n_particles or r == n_particles - 1:
            n_reached = n_particles
        while child < n_reached:
            memcpy(
                new.topics + child * n_words, old.topics + r * n_words, n_seen * sizeof(int32_t)
            )
            memcpy(
                new.counts + child * n_padded, old.counts + r * n_padded,
                n_padded * sizeof(double),
            )
            child += 1
    for r in range(n_particles):
        weights[r] = 1.0 / n_particles


cdef void _expected_share(
    const double *word, const double *guess, double foresight, double *share, Py_ssize_t n_padded,
) noexcept nogil:
    """Which topics this word would come from if theta were the guess, times foresight."""
    cdef Py_ssize_t k
    cdef double total = 0.0
    for k in range(n_padded):
        share[k] = word[k] * guess[k]
        total += share[k]
    for k in range(n_padded):
        share[k] = foresight * share[k] / total if share[k] > NEGLIGIBLE_SHARE * total else 0.0


cdef double _look_ahead(
    const double[:, ::1] word_topic, const double *prior, const double *guess, double foresight,
    const int32_t *words, Py_ssize_t n_words, double *shape, double *share,
) noexcept nogil:
    """shape = alpha + m_0; returns log B(alpha + m_0) - log B(alpha)."""
    cdef Py_ssize_t n, k, n_padded = word_topic.shape[1]
    cdef double prior_sum = 0.0, shape_sum = 0.0, result = 0.0
    for k in range(n_padded):
        shape[k] = prior[k]
    for n in range(n_words):
        _expected_share(&word_topic[words[n], 0], guess, foresight, share, n_padded)
        for k in range(n_padded):
            shape[k] += share[k]
    for k in range(n_padded):
        if prior[k] > 0.0:  # else padding
            prior_sum += prior[k]
            shape_sum += shape[k]
            result += gammaln(shape[k]) - gammaln(prior[k])
    return result + gammaln(prior_sum) - gammaln(shape_sum)


cdef double _arrive(
    const double *word, const double *prior, const double *guess, double foresight,
    Py_ssize_t n_seen, bint last, double *shape, double *share, Py_ssize_t n_padded,
) noexcept nogil:
    """Word n leaves the future: share = r, shape = alpha + m_n; returns what all weights have in
    common, log of Gamma(S + sum r) / Gamma(S) / S.  The last word takes all that is left."""
    cdef Py_ssize_t k
    cdef double future, total = n_seen, gone = 0.0
    _expected_share(word, guess, foresight, share, n_padded)
    for k in range(n_padded):
        future = shape[k] - prior[k]
        if last or share[k] > future:
            share[k] = future
        shape[k] = prior[k] if last else prior[k] + (future - share[k])
        total += shape[k]
        gone += share[k]
    return gammaln(total + gone) - gammaln(total) - log(total)


cdef double _log_gamma_ratio(
    const double *counts, const double *shape, const double *share, Py_ssize_t n_padded,
) noexcept nogil:
    cdef Py_ssize_t k
    cdef double result = 0.0
    for k in range(n_padded):
        if share[k] > 0.0:
            result += gammaln(counts[k] + shape[k]) - gammaln(counts[k] + shape[k] + share[k])
    return result


cdef double _reweigh(
    const double[::1] factors, double predictive, double[::1] weights, double[::1] influence,
) noexcept nogil:
    """Multiply the weights by factors / predictive; returns their effective number."""
    cdef Py_ssize_t r
    cdef double change, squares = 0.0
    for r in range(weights.shape[0]):
        change = weights[r] * (factors[r] / predictive - 1.0)
        influence[r] += change
        weights[r] += change
        squares += weights[r] * weights[r]
    return 1.0 / squares


cdef double _settle(double[::1] influence) noexcept nogil:
    """The variance so far; what comes next is taken as independent of it."""
    cdef Py_ssize_t r
    cdef double variance = 0.0
    for r in range(influence.shape[0]):
        variance += influence[r] * influence[r]
        influence[r] = 0.0
    return variance


cdef double _document(
    Stream *stream, const double[:, ::1] word_topic, const double *prior, const double *guess,
    double foresight, Py_ssize_t window, const int32_t *words, Py_ssize_t n_words,
    Particles now, Particles spare, double[:, ::1] per_topic, double[:, ::1] per_particle,
    double *variance,
) noexcept nogil:
    cdef Py_ssize_t n, r, k, n_redrawn, first = 0
    cdef Py_ssize_t n_padded = word_topic.shape[1], n_particles = per_particle.shape[1]
    cdef double *shape = &per_topic[0, 0]
    cdef double *share = &per_topic[1, 0]
    cdef double *mass = &per_topic[2, 0]
    cdef double[::1] weights = per_particle[0], factors = per_particle[1]
    cdef double[::1] influence = per_particle[2]
    cdef double log_prob, predictive, total
    cdef const double *word

    for r in range(n_particles):
        weights[r] = 1.0 / n_particles
        influence[r] = 0.0
        for k in range(n_padded):
            now.counts[r * n_padded + k] = 0.0
    log_prob = _look_ahead(word_topic, prior, guess, foresight, words, n_words, shape, share)

    for n in range(n_words):
        word = &word_topic[words[n], 0]
        n_redrawn = n if n < window else window
        for r in range(n_particles):
            _redraw(
                stream, word_topic, shape, words, first, n_redrawn, n,
                now.topics + r * n_words, now.counts + r * n_padded, mass,
            )
        first += n_redrawn
        if first >= n:  # all before w_n are redrawn: begin again with the oldest
            first = 0

        log_prob += _arrive(
            word, prior, guess, foresight, n, n == n_words - 1, shape, share, n_padded
        )
        predictive = 0.0
        for r in range(n_particles):
            total = topic_mass(now.counts + r * n_padded, shape, word, mass, n_padded)
            if not total > 0.0:  # alpha is positive: no topic has this word
                variance[0] = 0.0
                return -INFINITY
            factors[r] = total * exp(
                _log_gamma_ratio(now.counts + r * n_padded, shape, share, n_padded)
            )
            predictive += weights[r] * factors[r]
            k = topic_at(mass, stream_uniform(stream) * total, n_padded)
            now.topics[r * n_words + n] = <int32_t> k
            now.counts[r * n_padded + k] += 1.0
        log_prob += log(predictive)

        if _reweigh(factors, predictive, weights, influence) < 0.5 * n_particles:
            variance[0] += _settle(influence)
            _resample(stream, n + 1, n_words, n_padded, now, spare, weights)
            now, spare = spare, now
    variance[0] += _settle(influence)
    return log_prob


def left_to_right(
    const double[:, ::1] word_topic,  # IN (n_vocabulary, n_padded) phi, topics padded by zeros
    const double[::1] prior,          # IN (n_padded,) alpha, padded by zeros
    const double[:, ::1] guess,       # IN (n_documents, n_padded) at theta, to scale
    double foresight,                 # IN in [0, 1]: the fraction of the future that m holds
    Py_ssize_t window,                # IN how many earlier topics are redrawn before each word
    const int32_t[::1] words,         # IN all documents' words, in an order without pattern
    const int64_t[::1] offsets,       # IN (n_documents + 1,) where each document begins, none empty
    const uint64_t[::1] seeds,        # IN (n_documents,)
    int32_t[:, ::1] topics,           # work (2, n_particles * longest document)
    double[:, :, ::1] counts,         # work (2, n_particles, n_padded)
    double[:, ::1] per_topic,         # work (3, n_padded)
    double[:, ::1] per_particle,      # work (3, n_particles)
    double[::1] log_prob,             # OUT (n_documents,) nats
    double[::1] std_error,            # OUT (n_documents,) of log_prob
):
    """Estimate log p(words given phi, alpha) of each document.

    The standard error sums each particle's influence on the log-estimate along its path between
    resamplings, and takes what comes after a resampling as independent of what came before.
    """
    cdef Py_ssize_t d, n_words
    cdef double variance
    cdef Particles now, spare
    cdef Stream stream
    with nogil:
        now.topics = &topics[0, 0]
        now.counts = &counts[0, 0, 0]
        spare.topics = &topics[1, 0]
        spare.counts = &counts[1, 0, 0]
        for d in range(offsets.shape[0] - 1):
            n_words = <Py_ssize_t> (offsets[d + 1] - offsets[d])
            stream_start(&stream, seeds[d])
            variance = 0.0
            log_prob[d] = _document(
                &stream, word_topic, &prior[0], &guess[d, 0], foresight, window,
                &words[0] + offsets[d], n_words, now, spare, per_topic, per_particle, &variance,
            )
            std_error[d] = sqrt(variance)
