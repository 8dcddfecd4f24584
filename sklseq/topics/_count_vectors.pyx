"""Exact probability of a document: dynamic programming over topic-count vectors.

With g_n(c) = p(w_1..w_n, c_k of z_1..z_n are k), theta integrated out,

    g_n(c) = sum_k g_{n-1}(c - e_k) phi_k(w_n) (alpha_k + c_k - 1) / (alpha_0 + n - 1),

and p(w) = sum_c g_N(c).  There are C(n + K - 1, K - 1) vectors after n words.

A vector is ranked by the partial sums s_j = c_1 + .. + c_j, j < K, in colexicographic order:
rank = sum_j C(s_j + j - 1, j).  It does not depend on n, since the last count is what remains,
so the vectors of n - 1 words are a prefix of those of n, one table of ranks serves all documents,
and one array updated from its end holds the recursion.
"""

from libc.math cimport INFINITY, log
from libc.stdint cimport int32_t, int64_t

cdef double SCALE = 2.0 ** 900
cdef double LOG_SCALE = 900.0 * log(2.0)


def count_vectors(
    const int64_t[:, ::1] binomials,  # IN (n_words + n_topics, n_topics) C(row, column)
    int64_t[::1] sums,                # work (n_topics - 1,) zeros
    int32_t[:, ::1] counts,           # OUT (n_vectors, n_topics) c_1..c_{K-1}, then their sum
    int32_t[:, ::1] parents,          # OUT (n_vectors, n_topics - 1) rank of c - e_k; 0 if c_k = 0
):
    """Enumerate the count vectors of up to n_words words in the order of their ranks."""
    cdef Py_ssize_t rank, j, last = sums.shape[0] - 1
    cdef int64_t parent
    with nogil:
        for rank in range(counts.shape[0]):
            parent = rank
            for j in range(last, -1, -1):
                counts[rank, j] = <int32_t> (sums[j] - (sums[j - 1] if j > 0 else 0))
                if sums[j] > 0:  # C(s + j - 1, j) - C(s + j - 2, j), j from 1
                    parent -= binomials[sums[j] + j - 1, j]
                parents[rank, j] = <int32_t> parent if counts[rank, j] > 0 else 0
            counts[rank, last + 1] = <int32_t> sums[last]
            j = 0
            while j < last and sums[j] == sums[j + 1]:
                sums[j] = 0
                j += 1
            sums[j] += 1


cdef double _append_word(
    Py_ssize_t n_before, Py_ssize_t n_after,  # vectors before and after this word
    int32_t n_words, const double *word,
    const int32_t[:, ::1] counts, const int32_t[:, ::1] parents,
    const double[:, ::1] rising, double *mass,
) noexcept nogil:
    """g_{n-1} -> g_n in place, without the common divisor; returns the sum of g_n."""
    cdef Py_ssize_t rank, k, last = parents.shape[1]
    cdef double reached, total = 0.0
    for rank in range(n_after - 1, -1, -1):
        reached = 0.0
        if rank < n_before:
            reached = mass[rank] * rising[last, n_words - counts[rank, last]] * word[last]
        for k in range(last):
            reached += mass[parents[rank, k]] * rising[k, counts[rank, k]] * word[k]
        mass[rank] = reached
        total += reached
    return total


cdef double _document(
    const double[:, ::1] word_topic, double prior_sum, const int32_t[::1] words,
    Py_ssize_t begin, Py_ssize_t n_words,
    const int64_t[::1] n_vectors, const int32_t[:, ::1] counts, const int32_t[:, ::1] parents,
    const double[:, ::1] rising, double[::1] mass, double *word,
) noexcept nogil:
    cdef Py_ssize_t n, k, rank, n_scales = 0, n_topics = counts.shape[1]
    cdef double total = SCALE, best, log_prob = 0.0
    mass[0] = SCALE
    for n in range(n_words):
        best = 0.0
        for k in range(n_topics):
            best = max(best, word_topic[words[begin + n], k])
        if best == 0.0:
            return -INFINITY
        log_prob += log(best)
        for k in range(n_topics):
            word[k] = word_topic[words[begin + n], k] / best / (prior_sum + n)
        total = _append_word(
            n_vectors[n], n_vectors[n + 1], <int32_t> (n + 1), word, counts, parents, rising,
            &mass[0],
        )
        # total only falls; kept between 1 and 2**900 the smallest double is still 1e-323 of it.
        if total < 1.0:
            total *= SCALE
            n_scales += 1
            for rank in range(n_vectors[n + 1]):
                mass[rank] *= SCALE
    return log_prob + log(total / SCALE) - n_scales * LOG_SCALE


def exact(
    const double[:, ::1] word_topic,  # IN (n_vocabulary, >= n_topics) phi
    double prior_sum,                 # IN alpha_0
    const int32_t[::1] words,         # IN all documents' words
    const int64_t[::1] offsets,       # IN (n_documents + 1,)
    const int64_t[::1] n_vectors,     # IN (longest + 1,) count vectors after n words
    const int32_t[:, ::1] counts,     # IN from count_vectors
    const int32_t[:, ::1] parents,    # IN from count_vectors
    const double[:, ::1] rising,      # IN (n_topics, longest + 1) alpha_k + c - 1; 0 at c = 0
    double[::1] mass,                 # work (n_vectors of the longest,)
    double[::1] word,                 # work (n_topics,)
    double[::1] log_prob,             # OUT (n_documents,) nats; -inf where no topic has a word
):
    """log p(words given phi, alpha) of each document, without error but rounding."""
    cdef Py_ssize_t d
    with nogil:
        for d in range(offsets.shape[0] - 1):
            log_prob[d] = _document(
                word_topic, prior_sum, words, <Py_ssize_t> offsets[d],
                <Py_ssize_t> (offsets[d + 1] - offsets[d]),
                n_vectors, counts, parents, rising, mass, &word[0],
            )
