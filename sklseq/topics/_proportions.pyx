"""Topic proportions of a document: variational posterior, and importance sampling around it.

The document has counts x_v, whole or not, and log-likelihood
l(theta) = sum_v x_v log sum_k theta_k phi_k(v).

Mean field (Blei, Ng and Jordan 2003, equations 6 and 7), phi known: q(theta) = Dirichlet(gamma),

    gamma_k = alpha_k + sum_v x_v phi_k(v) e_k / sum_j phi_j(v) e_j,    e_k = exp psi(gamma_k).

Importance sampling of p(x) = E exp l(theta), theta ~ Dirichlet(alpha): q is too narrow, so the
draws come from an equal mixture of Dirichlet(alpha + s (gamma - alpha)) for several s, and each is
weighted by prior * likelihood / mixture density.  s = 0 is the prior: weights stay bounded.
"""

from libc.math cimport INFINITY, exp, fabs, log, sqrt
from libc.stdint cimport int32_t, int64_t, uint64_t

from scipy.special.cython_special cimport gammaln, psi

cdef extern from "_stream.h" nogil:
    ctypedef struct Stream:
        pass
    void stream_start(Stream *stream, uint64_t seed)
    double stream_log_gamma(Stream *stream, double shape)

cdef enum:
    N_WIDTHS = 4

cdef double[N_WIDTHS] WIDTHS
WIDTHS[:] = [1.0, 0.5, 0.2, 0.0]


cdef void _responsibilities(
    const double *word, const double[::1] prior, const double *weight, double *share,
) noexcept nogil:
    """share[k] = phi_k(v) e_k / sum_j phi_j(v) e_j; zero where no topic has the word."""
    cdef Py_ssize_t k, n_topics = prior.shape[0]
    cdef double total = 0.0
    for k in range(n_topics):
        share[k] = word[k] * weight[k]
        total += share[k]
    if total > 0.0:
        for k in range(n_topics):
            share[k] /= total


cdef void _mean_field(
    const double[:, ::1] word_topic, const double[::1] prior,
    const int32_t[::1] indices, const double[::1] counts, Py_ssize_t begin, Py_ssize_t end,
    double tol, Py_ssize_t max_iter, double *gamma, double[:, ::1] work,
) noexcept nogil:
    cdef Py_ssize_t i, k, n_topics = prior.shape[0]
    cdef double n_words = 0.0, largest, change
    for i in range(begin, end):
        n_words += counts[i]
    for k in range(n_topics):
        gamma[k] = prior[k] + n_words / n_topics
    for _ in range(max_iter):
        largest = -INFINITY
        for k in range(n_topics):
            work[0, k] = psi(gamma[k])
            largest = max(largest, work[0, k])
        for k in range(n_topics):  # the common factor cancels
            work[0, k] = exp(work[0, k] - largest)
            work[1, k] = prior[k]
        for i in range(begin, end):
            _responsibilities(&word_topic[indices[i], 0], prior, &work[0, 0], &work[2, 0])
            for k in range(n_topics):
                work[1, k] += counts[i] * work[2, k]
        change = 0.0
        for k in range(n_topics):
            change += fabs(work[1, k] - gamma[k])
            gamma[k] = work[1, k]
        if change <= tol * n_words:
            break


def mean_field(
    const double[:, ::1] word_topic,  # IN (n_vocabulary, >= n_topics) phi
    const double[::1] prior,          # IN (n_topics,) alpha
    const int64_t[::1] offsets,       # IN (n_documents + 1,)
    const int32_t[::1] indices,       # IN the documents' distinct words
    const double[::1] counts,         # IN and their counts
    double tol,                       # IN stop when gamma moves by less than tol * words
    Py_ssize_t max_iter,              # IN
    double[:, ::1] work,              # work (3, n_topics)
    double[:, ::1] gamma,             # OUT (n_documents, n_topics)
):
    """Variational Dirichlet posterior of the topic proportions of each document."""
    cdef Py_ssize_t d
    with nogil:
        for d in range(offsets.shape[0] - 1):
            _mean_field(
                word_topic, prior, indices, counts, <Py_ssize_t> offsets[d],
                <Py_ssize_t> offsets[d + 1], tol, max_iter, &gamma[d, 0], work,
            )


cdef double _log_normaliser(const double *shape, Py_ssize_t n_topics) noexcept nogil:
    cdef Py_ssize_t k
    cdef double total = 0.0, result = 0.0
    for k in range(n_topics):
        total += shape[k]
        result -= gammaln(shape[k])
    return result + gammaln(total)


cdef void _draw_log_dirichlet(
    Stream *stream, const double *shape, double *log_theta, Py_ssize_t n_topics,
) noexcept nogil:
    cdef Py_ssize_t k
    cdef double largest = -INFINITY, total = 0.0
    for k in range(n_topics):
        log_theta[k] = stream_log_gamma(stream, shape[k])
        largest = max(largest, log_theta[k])
    for k in range(n_topics):
        total += exp(log_theta[k] - largest)
    total = largest + log(total)
    for k in range(n_topics):
        log_theta[k] -= total


cdef double _log_weight(
    const double[:, ::1] word_topic, const double[::1] prior,
    const int32_t[::1] indices, const double[::1] counts, Py_ssize_t begin, Py_ssize_t end,
    const double[:, ::1] shapes, const double *normalisers, const double *log_theta,
    double *theta,
) noexcept nogil:
    """l(theta) + log Dirichlet(theta; alpha) - log of the mixture's density."""
    cdef Py_ssize_t i, k, m, n_topics = prior.shape[0]
    cdef double log_likelihood = 0.0, word, largest = -INFINITY, total = 0.0
    cdef double[N_WIDTHS] log_ratio  # of each component to the prior, which is the last
    for k in range(n_topics):
        theta[k] = exp(log_theta[k])
    for i in range(begin, end):
        word = 0.0
        for k in range(n_topics):
            word += theta[k] * word_topic[indices[i], k]
        log_likelihood += counts[i] * log(word)
    for m in range(N_WIDTHS):
        log_ratio[m] = normalisers[m] - normalisers[N_WIDTHS - 1]
        for k in range(n_topics):
            log_ratio[m] += (shapes[m, k] - prior[k]) * log_theta[k]
        largest = max(largest, log_ratio[m])
    for m in range(N_WIDTHS):
        total += exp(log_ratio[m] - largest) / N_WIDTHS
    return log_likelihood - largest - log(total)


cdef double _log_mean_exp(const double[::1] values, double *variance) noexcept nogil:
    """Logarithm of the mean of exp(values), and its squared standard error.

    Values s, s + N_WIDTHS, s + 2 N_WIDTHS, .. come from one component of the mixture; how the
    components differ among themselves is no error, since each has its fixed share.
    """
    cdef Py_ssize_t s, m, n = values.shape[0]
    cdef double largest = -INFINITY, total = 0.0
    cdef double[N_WIDTHS] mean
    for s in range(n):
        largest = max(largest, values[s])
    variance[0] = 0.0
    if largest == -INFINITY:
        return largest
    for m in range(N_WIDTHS):
        mean[m] = 0.0
    for s in range(n):
        mean[s % N_WIDTHS] += exp(values[s] - largest) * N_WIDTHS / n
    for m in range(N_WIDTHS):
        total += mean[m] / N_WIDTHS
    for s in range(n):
        variance[0] += ((exp(values[s] - largest) - mean[s % N_WIDTHS]) / total / n) ** 2
    return largest + log(total)


def importance(
    const double[:, ::1] word_topic,  # IN (n_vocabulary, >= n_topics) phi
    const double[::1] prior,          # IN (n_topics,) alpha
    const int64_t[::1] offsets,       # IN (n_documents + 1,)
    const int32_t[::1] indices,       # IN the documents' distinct words
    const double[::1] counts,         # IN and their counts, not necessarily whole
    const double[:, ::1] gamma,       # IN (n_documents, n_topics) from mean_field
    const uint64_t[::1] seeds,        # IN (n_documents,)
    double[:, ::1] work,              # work (2 + N_WIDTHS, n_topics)
    double[::1] log_weights,          # work (n_draws,), a multiple of N_WIDTHS
    double[::1] log_prob,             # OUT (n_documents,) nats
    double[::1] std_error,            # OUT (n_documents,) of log_prob
):
    """Estimate log E exp l(theta) of each document by importance sampling over theta."""
    cdef Py_ssize_t d, s, k, m, n_topics = prior.shape[0]
    cdef double[:, ::1] shapes = work[2:]
    cdef double[N_WIDTHS] normalisers
    cdef double variance
    cdef Stream stream
    with nogil:
        for d in range(offsets.shape[0] - 1):
            stream_start(&stream, seeds[d])
            for m in range(N_WIDTHS):
                for k in range(n_topics):
                    shapes[m, k] = prior[k] + WIDTHS[m] * (gamma[d, k] - prior[k])
                normalisers[m] = _log_normaliser(&shapes[m, 0], n_topics)
            for s in range(log_weights.shape[0]):  # the mixture's components take turns
                _draw_log_dirichlet(&stream, &shapes[s % N_WIDTHS, 0], &work[0, 0], n_topics)
                log_weights[s] = _log_weight(
                    word_topic, prior, indices, counts, <Py_ssize_t> offsets[d],
                    <Py_ssize_t> offsets[d + 1], shapes, normalisers, &work[0, 0], &work[1, 0],
                )
            variance = 0.0
            log_prob[d] = _log_mean_exp(log_weights, &variance)
            std_error[d] = sqrt(variance)
