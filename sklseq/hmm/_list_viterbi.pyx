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
    ctypedef struct stretched:
        double far
        double near
    stretched plus(stretched x, stretched y)
    stretched plus_far(stretched x, double y)
    stretched plus_near(stretched x, double y)
    stretched negative(stretched x)
    double value_of(stretched x)
    int exceeds(stretched x, stretched y)


cdef void merge(
    Py_ssize_t K, Py_ssize_t R, const stretched *lists, const double *column,
    stretched *merged, int32_t *origins, stretched *heads, int32_t *taken,
) noexcept nogil:
    """The R largest of lists[i, r] + column[i], in order; among equals the lowest i wins.

    lists (K, R): each row in descending order, filled up with -inf.
    OUT merged (R,), origins (R,): i * R + r, or -1 where fewer are possible.
    heads (K,), taken (K,): work.
    """
    cdef Py_ssize_t i, r, best
    for i in range(K):
        heads[i] = plus_near(lists[i * R], column[i])
        taken[i] = 0
    for r in range(R):
        best = 0
        for i in range(1, K):
            if exceeds(heads[i], heads[best]):
                best = i
        merged[r] = heads[best]
        if heads[best].far == -INFINITY:
            origins[r] = -1
            continue
        origins[r] = <int32_t> (best * R + taken[best])
        taken[best] += 1
        heads[best].far = -INFINITY
        if taken[best] < R:
            heads[best] = plus_near(lists[best * R + taken[best]], column[best])


cdef void one_sequence(
    Py_ssize_t K, Py_ssize_t R, const double *log_startprob, const double *log_columns,
    const double *log_obs, Py_ssize_t T, Py_ssize_t *states, double *log_probabilities,
    int32_t *origins, int32_t *taken, stretched *work, const double *zeros,
) noexcept nogil:
    """OUT states (T, R), log_probabilities (R,).  origins (T, K, R); work 2 K R + K + R."""
    cdef stretched *previous = work
    cdef stretched *current = work + K * R
    cdef stretched *heads = work + 2 * K * R
    cdef stretched *best = heads + K
    cdef stretched *swap
    cdef stretched largest, impossible
    cdef compensated total
    cdef int32_t origin
    cdef Py_ssize_t t, j, r
    impossible.far = -INFINITY
    impossible.near = 0
    total.sum = 0
    total.lost = 0
    for t in range(T):
        largest = impossible
        for j in range(K):
            if t == 0:
                for r in range(R):
                    current[j * R + r] = impossible
                current[j * R].far = log_startprob[j]
            else:
                merge(K, R, previous, log_columns + j * K, current + j * R,
                      origins + (t * K + j) * R, heads, taken)
            for r in range(R):
                current[j * R + r] = plus_far(current[j * R + r], capped(log_obs[t * K + j]))
            if exceeds(current[j * R], largest):
                largest = current[j * R]
        compensated_add(&total, largest.far)
        compensated_add(&total, largest.near)
        if largest.far > -INFINITY:
            for j in range(K * R):
                current[j] = plus(current[j], negative(largest))
        swap = previous
        previous = current
        current = swap
    merge(K, R, previous, zeros, best, taken + K, heads, taken)
    for r in range(R):
        origin = taken[K + r]
        if origin < 0:
            log_probabilities[r] = -INFINITY
            for t in range(T):
                states[t * R + r] = -1
            continue
        log_probabilities[r] = compensated_value(&total) + value_of(best[r])
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
    cdef double *columns
    cdef stretched *work
    cdef int32_t *origins
    cdef int32_t *taken
    for s in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[s + 1] - offsets[s])
    columns = <double *> malloc((K * K + K) * sizeof(double))
    work = <stretched *> malloc((2 * K * R + K + R) * sizeof(stretched))
    origins = <int32_t *> malloc(longest * K * R * sizeof(int32_t))
    taken = <int32_t *> malloc((K + R) * sizeof(int32_t))
    if columns == NULL or work == NULL or origins == NULL or taken == NULL:
        free(columns)
        free(work)
        free(origins)
        free(taken)
        raise MemoryError
    with nogil:
        for i in range(K):
            columns[K * K + i] = 0
            for j in range(K):
                columns[j * K + i] = log_transmat[i, j]
        for s in range(offsets.shape[0] - 1):
            first = offsets[s]
            one_sequence(
                K, R, &log_startprob[0], columns, &log_obs[first, 0], offsets[s + 1] - first,
                &states[first, 0], &log_probabilities[s, 0], origins, taken, work,
                columns + K * K,
            )
    free(columns)
    free(work)
    free(origins)
    free(taken)
