"""The k best hidden paths of every sequence: list Viterbi.

Seshadri & Sundberg (1994), "List Viterbi decoding algorithms with applications", sec. II (the
parallel algorithm): each state keeps its k best paths, ordered; those of the next step are merged
out of them.  Cost T K (K + k K), memory of 4 T K k bytes for the longest sequence.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc


cdef extern from "_sums.h" nogil:
    ctypedef struct compensated:
        double sum
        double lost
    void compensated_add(compensated *total, double x)
    double compensated_value(const compensated *total)
    double capped(double log_obs)


cdef void merge(
    Py_ssize_t K, Py_ssize_t R, const double *lists, const double *column,
    double *merged, int32_t *origins, double *heads, int32_t *taken,
) noexcept nogil:
    """The R largest of lists[i, r] + column[i], in order; among equals the lowest i wins.

    lists (K, R): each row in descending order, filled up with -inf.
    OUT merged (R,), origins (R,): i * R + r, or -1 where fewer are possible.
    heads (K,), taken (K,): work.
    """
    cdef Py_ssize_t i, r, best
    for i in range(K):
        heads[i] = lists[i * R] + column[i]
        taken[i] = 0
    for r in range(R):
        best = 0
        for i in range(1, K):
            if heads[i] > heads[best]:
                best = i
        merged[r] = heads[best]
        if heads[best] == -INFINITY:
            origins[r] = -1
            continue
        origins[r] = <int32_t> (best * R + taken[best])
        taken[best] += 1
        heads[best] = -INFINITY
        if taken[best] < R:
            heads[best] = lists[best * R + taken[best]] + column[best]


cdef void one_sequence(
    Py_ssize_t K, Py_ssize_t R, const double *log_startprob, const double *log_columns,
    const double *log_obs, Py_ssize_t T, Py_ssize_t *states, double *log_probabilities,
    int32_t *origins, int32_t *taken, double *work,
) noexcept nogil:
    """OUT states (T, R), log_probabilities (R,).  origins (T, K, R); work 2 K R + 2 K + R."""
    cdef double *previous = work
    cdef double *current = work + K * R
    cdef double *heads = work + 2 * K * R
    cdef double *nothing = heads + K
    cdef double *best = nothing + K
    cdef double *swap
    cdef double largest
    cdef compensated total
    cdef int32_t origin
    cdef Py_ssize_t t, j, r
    total.sum = 0
    total.lost = 0
    for t in range(T):
        largest = -INFINITY
        for j in range(K):
            if t == 0:
                for r in range(R):
                    current[j * R + r] = -INFINITY
                current[j * R] = log_startprob[j]
            else:
                merge(K, R, previous, log_columns + j * K, current + j * R,
                      origins + (t * K + j) * R, heads, taken)
            for r in range(R):
                current[j * R + r] += capped(log_obs[t * K + j])
            largest = max(largest, current[j * R])
        compensated_add(&total, largest)
        if largest > -INFINITY:
            for j in range(K * R):
                current[j] -= largest
        swap = previous
        previous = current
        current = swap
    for j in range(K):
        nothing[j] = 0
    merge(K, R, previous, nothing, best, taken + K, heads, taken)
    for r in range(R):
        origin = taken[K + r]
        if origin < 0:
            log_probabilities[r] = -INFINITY
            for t in range(T):
                states[t * R + r] = -1
            continue
        log_probabilities[r] = compensated_value(&total) + best[r]
        for t in range(T - 1, -1, -1):
            states[t * R + r] = origin // R
            if t > 0:
                origin = origins[t * K * R + origin]


def list_viterbi(
    const double[::1] log_startprob,
    const double[:, ::1] log_transmat,
    const double[:, ::1] log_obs,
    const Py_ssize_t[::1] offsets,
    Py_ssize_t[:, ::1] states,           # OUT
    double[:, ::1] log_probabilities,    # OUT
):
    """The R most probable paths of every sequence, best first.

    log_startprob (K,), log_transmat (K, K), log_obs (N, K): nats, may be -inf, never NaN.
    offsets (S + 1,): sequence s holds the rows offsets[s]:offsets[s + 1].
    OUT states (N, R): -1 where a sequence has fewer possible paths.
    OUT log_probabilities (S, R): log p(X, path) in nats, -inf where there is none.
    """
    cdef Py_ssize_t K = log_transmat.shape[0], R = states.shape[1], s, i, j, first, longest = 0
    cdef double *work
    cdef double *columns
    cdef int32_t *origins
    cdef int32_t *taken
    for s in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[s + 1] - offsets[s])
    work = <double *> malloc((2 * K * R + 2 * K + R + K * K) * sizeof(double))
    origins = <int32_t *> malloc(longest * K * R * sizeof(int32_t))
    taken = <int32_t *> malloc((K + R) * sizeof(int32_t))
    if work == NULL or origins == NULL or taken == NULL:
        free(work)
        free(origins)
        free(taken)
        raise MemoryError
    columns = work + 2 * K * R + 2 * K + R
    with nogil:
        for i in range(K):
            for j in range(K):
                columns[j * K + i] = log_transmat[i, j]
        for s in range(offsets.shape[0] - 1):
            first = offsets[s]
            one_sequence(
                K, R, &log_startprob[0], columns, &log_obs[first, 0], offsets[s + 1] - first,
                &states[first, 0], &log_probabilities[s, 0], origins, taken, work,
            )
    free(work)
    free(origins)
    free(taken)
