"""The chain of a hidden Markov model: all sums over time.

Every kernel takes the whole batch of sequences, releases the GIL, fills arrays that the caller
allocated, and never sees data: only the local evidence ``log_obs[t, k] = log p(x_t | s_t = k)``.
The result of a sequence depends on that sequence alone, to the bit.

Shapes and units, the same in every kernel
------------------------------------------
startprob (K,), transmat (K, K)
    Probabilities; an arc or start of probability 0 is never used, not even by rounding.
log_obs (N, K)
    Log-densities in nats, may be -inf, never NaN.
offsets (S + 1,)
    Sequence s holds the rows offsets[s]:offsets[s + 1]; at least one each.

The mathematics and its safeguards stand in the headers beside this file.
"""

from libc.math cimport INFINITY, exp, log
from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc


cdef extern from "_sequential.h" nogil:
    int PASS_OK
    int CHAIN_LOG_ONLY
    int chain_kind(Py_ssize_t K, const double *startprob, const double *transmat)
    int scaled_forward(
        Py_ssize_t K, int kind, const double *startprob, const double *transmat,
        const double *log_obs, Py_ssize_t T, double *alpha, int normalise, double *scales,
        double *log_increments, double *final, double *log_likelihood, double *work)
    void scaled_backward(
        Py_ssize_t K, const double *transmat, const double *log_obs, const double *scales,
        Py_ssize_t T, double *posteriors, double *products, double *work)
    void log_forward(
        Py_ssize_t K, const double *log_startprob, const double *log_columns,
        const double *log_obs, Py_ssize_t T, double *log_alpha, double *log_increments,
        double *work)
    void log_backward_posteriors(
        Py_ssize_t K, const double *log_transmat, const double *log_obs,
        const double *log_increments, Py_ssize_t T, double *posteriors,
        double *transition_counts, double *work)
    void log_backward_messages(
        Py_ssize_t K, const double *log_transmat, const double *log_obs, Py_ssize_t T,
        double *log_backward, double *work)
    double viterbi_sequence(
        Py_ssize_t K, const double *log_startprob, const double *log_columns,
        const double *log_obs, Py_ssize_t T, Py_ssize_t *states, int32_t *pointers, double *work)
    void sample_sequence(
        Py_ssize_t K, const double *columns, const double *filtered, Py_ssize_t T,
        const double *uniforms, Py_ssize_t *states, double *work)
    ctypedef struct compensated:
        double sum
        double lost
    void compensated_add(compensated *total, double x)
    double compensated_value(const compensated *total)


cdef Py_ssize_t longest(const Py_ssize_t[::1] offsets) noexcept nogil:
    cdef Py_ssize_t s, result = 0
    for s in range(offsets.shape[0] - 1):
        result = max(result, offsets[s + 1] - offsets[s])
    return result


cdef void fill_log_tables(
    Py_ssize_t K, const double *startprob, const double *transmat, double *tables,
) noexcept nogil:
    """OUT tables: log startprob (K,), log transmat (K, K), its transpose (K, K)."""
    cdef Py_ssize_t i, j
    for i in range(K):
        if startprob != NULL:
            tables[i] = log(startprob[i])
        for j in range(K):
            tables[K + i * K + j] = log(transmat[i * K + j])
            tables[K + K * K + j * K + i] = tables[K + i * K + j]


def forward(
    const double[::1] startprob,
    const double[:, ::1] transmat,
    const double[:, ::1] log_obs,
    const Py_ssize_t[::1] offsets,
    double[:, ::1] filtered,         # OUT
    double[::1] log_increments,      # OUT
):
    """Filtered state probabilities and one-step predictive log-densities.

    OUT filtered (N, K): P(s_t = k | x_1..x_t).
    OUT log_increments (N,): log p(x_t | x_<t) in nats; -inf from the first impossible step of a
    sequence on, where the filtered rows are 0.
    """
    cdef Py_ssize_t K = transmat.shape[0], s, t, T, first, k
    cdef double *work = <double *> malloc((5 * K + 2 * K * K) * sizeof(double))
    cdef double *tables = work + 4 * K
    cdef double log_likelihood
    cdef int kind
    if work == NULL:
        raise MemoryError
    with nogil:
        kind = chain_kind(K, &startprob[0], &transmat[0, 0])
        fill_log_tables(K, &startprob[0], &transmat[0, 0], tables)
        for s in range(offsets.shape[0] - 1):
            first = offsets[s]
            T = offsets[s + 1] - first
            if kind != CHAIN_LOG_ONLY and scaled_forward(
                K, kind, &startprob[0], &transmat[0, 0], &log_obs[first, 0], T,
                &filtered[first, 0], 1, NULL, &log_increments[first], work + 3 * K,
                &log_likelihood, work,
            ) == PASS_OK:
                continue
            log_forward(
                K, tables, tables + K + K * K, &log_obs[first, 0], T,
                &filtered[first, 0], &log_increments[first], work,
            )
            for t in range(first, first + T):
                for k in range(K):
                    filtered[t, k] = exp(filtered[t, k])
    free(work)


def log_likelihood(
    const double[::1] startprob,
    const double[:, ::1] transmat,
    const double[:, ::1] log_obs,
    const Py_ssize_t[::1] offsets,
    double[::1] log_likelihoods,     # OUT
    double[:, ::1] final,            # OUT
):
    """Log-likelihood of every sequence.

    OUT log_likelihoods (S,): log p(x_1..x_T) in nats, -inf if impossible.
    OUT final (S, K): filtered probabilities at the last step (0 if impossible), so that a long
    sequence can be run block by block: start the next block from ``final @ transmat``.
    """
    cdef Py_ssize_t K = transmat.shape[0], s, t, T, k, first
    cdef Py_ssize_t capacity = longest(offsets)
    cdef double *work = <double *> malloc((4 * K + 2 * K * K) * sizeof(double))
    cdef double *tables = work + 3 * K
    cdef double *steps = NULL
    cdef compensated total
    cdef int kind
    cdef bint out_of_memory = work == NULL
    with nogil:
        if not out_of_memory:
            kind = chain_kind(K, &startprob[0], &transmat[0, 0])
            fill_log_tables(K, &startprob[0], &transmat[0, 0], tables)
            for s in range(offsets.shape[0] - 1):
                first = offsets[s]
                T = offsets[s + 1] - first
                if kind != CHAIN_LOG_ONLY and scaled_forward(
                    K, kind, &startprob[0], &transmat[0, 0], &log_obs[first, 0], T, NULL, 0, NULL,
                    NULL, &final[s, 0], &log_likelihoods[s], work,
                ) == PASS_OK:
                    continue
                if steps == NULL:
                    steps = <double *> malloc(capacity * (K + 1) * sizeof(double))
                    if steps == NULL:
                        out_of_memory = True
                        break
                log_forward(
                    K, tables, tables + K + K * K, &log_obs[first, 0], T, steps,
                    steps + capacity * K, work,
                )
                total.sum = 0
                total.lost = 0
                for t in range(T):
                    compensated_add(&total, steps[capacity * K + t])
                log_likelihoods[s] = compensated_value(&total)
                for k in range(K):
                    final[s, k] = exp(steps[(T - 1) * K + k])
    free(steps)
    free(work)
    if out_of_memory:
        raise MemoryError


def forward_backward(
    const double[::1] startprob,
    const double[:, ::1] transmat,
    const double[:, ::1] log_obs,
    const Py_ssize_t[::1] offsets,
    double[:, ::1] posteriors,           # OUT
    double[:, ::1] transition_counts,    # INOUT
    double[::1] log_likelihoods,         # OUT
):
    """Smoothed state probabilities, expected transition counts and log-likelihoods.

    OUT posteriors (N, K): P(s_t = k | X); 0 for an impossible sequence.
    INOUT transition_counts (K, K): += sum over t > 1 of P(s_{t-1} = i, s_t = j | X).
    OUT log_likelihoods (S,): nats, -inf if impossible.
    """
    cdef Py_ssize_t K = transmat.shape[0], s, t, T, i, k, first
    cdef double *work = <double *> malloc(
        (5 * K + 3 * K * K + longest(offsets)) * sizeof(double))
    cdef double *tables = work + 4 * K
    cdef double *products = tables + K + 2 * K * K
    cdef double *steps = products + K * K
    cdef compensated total
    cdef int kind
    if work == NULL:
        raise MemoryError
    with nogil:
        kind = chain_kind(K, &startprob[0], &transmat[0, 0])
        fill_log_tables(K, &startprob[0], &transmat[0, 0], tables)
        for s in range(offsets.shape[0] - 1):
            first = offsets[s]
            T = offsets[s + 1] - first
            if kind != CHAIN_LOG_ONLY and scaled_forward(
                K, kind, &startprob[0], &transmat[0, 0], &log_obs[first, 0], T,
                &posteriors[first, 0], 0, steps, NULL, work + 3 * K, &log_likelihoods[s], work,
            ) == PASS_OK:
                for i in range(K * K):
                    products[i] = 0
                scaled_backward(
                    K, &transmat[0, 0], &log_obs[first, 0], steps, T, &posteriors[first, 0],
                    products, work,
                )
                for i in range(K):
                    for k in range(K):
                        transition_counts[i, k] += transmat[i, k] * products[i * K + k]
                continue
            log_forward(
                K, tables, tables + K + K * K, &log_obs[first, 0], T, &posteriors[first, 0],
                steps, work,
            )
            total.sum = 0
            total.lost = 0
            for t in range(T):
                compensated_add(&total, steps[t])
            log_likelihoods[s] = compensated_value(&total)
            if log_likelihoods[s] == -INFINITY:
                for t in range(first, first + T):
                    for k in range(K):
                        posteriors[t, k] = 0
            else:
                log_backward_posteriors(
                    K, tables + K, &log_obs[first, 0], steps, T, &posteriors[first, 0],
                    &transition_counts[0, 0], work,
                )
    free(work)


def backward(
    const double[:, ::1] transmat,
    const double[:, ::1] log_obs,
    const Py_ssize_t[::1] offsets,
    double[:, ::1] log_backward,     # OUT
):
    """Backward messages, in log space throughout.

    OUT log_backward (N, K): log p(x_{t+1}..x_T | s_t = k) in nats, 0 at each last step.
    """
    cdef Py_ssize_t K = transmat.shape[0], s, first
    cdef double *work = <double *> malloc((2 * K + 2 * K * K) * sizeof(double))
    cdef double *tables = work + K
    if work == NULL:
        raise MemoryError
    with nogil:
        fill_log_tables(K, NULL, &transmat[0, 0], tables)
        for s in range(offsets.shape[0] - 1):
            first = offsets[s]
            log_backward_messages(
                K, tables + K, &log_obs[first, 0], offsets[s + 1] - first,
                &log_backward[first, 0], work,
            )
    free(work)


def viterbi(
    const double[::1] log_startprob,
    const double[:, ::1] log_transmat,
    const double[:, ::1] log_obs,
    const Py_ssize_t[::1] offsets,
    Py_ssize_t[::1] states,          # OUT
    double[::1] log_probabilities,   # OUT
):
    """Most probable path of every sequence; among equals the lowest state index wins.

    OUT states (N,). OUT log_probabilities (S,): log p(X, path) in nats, -inf if impossible.
    """
    cdef Py_ssize_t K = log_transmat.shape[0], s, i, j, first
    cdef double *work = <double *> malloc((2 * K + K * K) * sizeof(double))
    cdef int32_t *pointers = <int32_t *> malloc(K * longest(offsets) * sizeof(int32_t))
    cdef double *columns = work + 2 * K
    if work == NULL or pointers == NULL:
        free(work)
        free(pointers)
        raise MemoryError
    with nogil:
        for i in range(K):
            for j in range(K):
                columns[j * K + i] = log_transmat[i, j]
        for s in range(offsets.shape[0] - 1):
            first = offsets[s]
            log_probabilities[s] = viterbi_sequence(
                K, &log_startprob[0], columns, &log_obs[first, 0], offsets[s + 1] - first,
                &states[first], pointers, work,
            )
    free(pointers)
    free(work)


def sample_backward(
    const double[:, ::1] transmat,
    const double[:, ::1] filtered,
    const Py_ssize_t[::1] offsets,
    const double[:, ::1] uniforms,
    Py_ssize_t[:, ::1] states,       # OUT
):
    """Draws of the hidden path given X: forward filtering, backward sampling.

    filtered (N, K): from `forward`. uniforms (n_draws, N): in [0, 1).
    OUT states (n_draws, N).
    """
    cdef Py_ssize_t K = transmat.shape[0], s, i, j, draw, first
    cdef double *work = <double *> malloc((K + K * K) * sizeof(double))
    cdef double *columns = work + K
    if work == NULL:
        raise MemoryError
    with nogil:
        for i in range(K):
            for j in range(K):
                columns[j * K + i] = transmat[i, j]
        for draw in range(uniforms.shape[0]):
            for s in range(offsets.shape[0] - 1):
                first = offsets[s]
                sample_sequence(
                    K, columns, &filtered[first, 0], offsets[s + 1] - first,
                    &uniforms[draw, first], &states[draw, first], work,
                )
    free(work)
