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

from libc.math cimport log
from libc.stdlib cimport free, malloc
from libc.string cimport memset


cdef extern from "_batch.h" nogil:
    int SCORE, FILTER, SMOOTH, VITERBI
    ctypedef struct chain:
        Py_ssize_t K
        const double *startprob
        const double *transmat
        double *filtered
        double *log_increments
        Py_ssize_t *states
    ctypedef struct batch:
        int mode
        chain chain
        const double *log_obs
        const Py_ssize_t *offsets
        Py_ssize_t n_sequences
        double *log_likelihoods
        double *final
        double *counts
    int run_batch(batch *work)
    void log_backward_messages(
        Py_ssize_t K, const double *log_transmat, const double *log_obs, Py_ssize_t T,
        double *log_backward, double *work)
    void sample_sequence(
        Py_ssize_t K, const double *columns, const double *filtered, Py_ssize_t T,
        const double *uniforms, Py_ssize_t *states, double *work)


cdef batch new_batch(
    int mode,
    const double[::1] startprob,
    const double[:, ::1] transmat,
    const double[:, ::1] log_obs,
    const Py_ssize_t[::1] offsets,
) noexcept nogil:
    cdef batch work
    memset(&work, 0, sizeof(batch))
    work.mode = mode
    work.chain.K = transmat.shape[0]
    work.chain.startprob = &startprob[0]
    work.chain.transmat = &transmat[0, 0]
    work.log_obs = &log_obs[0, 0]
    work.offsets = &offsets[0]
    work.n_sequences = offsets.shape[0] - 1
    return work


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
    if log_obs.shape[0] == 0:
        return
    cdef batch work = new_batch(FILTER, startprob, transmat, log_obs, offsets)
    cdef int failed
    work.chain.filtered = &filtered[0, 0]
    work.chain.log_increments = &log_increments[0]
    with nogil:
        failed = run_batch(&work)
    if failed:
        raise MemoryError


def log_likelihood(
    const double[::1] startprob,
    const double[:, ::1] transmat,
    const double[:, ::1] log_obs,
    const Py_ssize_t[::1] offsets,
    double[::1] log_likelihoods,     # OUT
    double[:, ::1] final,            # OUT
):
    """Log-likelihood of every sequence; the working space does not grow with its length.

    OUT log_likelihoods (S,): log p(x_1..x_T) in nats, -inf if impossible.
    OUT final (S, K): filtered probabilities at the last step (0 if impossible), so that a long
    sequence can be run block by block: start the next block from ``final @ transmat``.
    """
    if log_obs.shape[0] == 0:
        return
    cdef batch work = new_batch(SCORE, startprob, transmat, log_obs, offsets)
    cdef int failed
    work.log_likelihoods = &log_likelihoods[0]
    work.final = &final[0, 0]
    with nogil:
        failed = run_batch(&work)
    if failed:
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
    if log_obs.shape[0] == 0:
        return
    cdef batch work = new_batch(SMOOTH, startprob, transmat, log_obs, offsets)
    cdef int failed
    work.chain.filtered = &posteriors[0, 0]
    work.counts = &transition_counts[0, 0]
    work.log_likelihoods = &log_likelihoods[0]
    with nogil:
        failed = run_batch(&work)
    if failed:
        raise MemoryError


def backward(
    const double[:, ::1] transmat,
    const double[:, ::1] log_obs,
    const Py_ssize_t[::1] offsets,
    double[:, ::1] log_backward,     # OUT
):
    """Backward messages, in log space throughout.

    OUT log_backward (N, K): log p(x_{t+1}..x_T | s_t = k) in nats, 0 at each last step.
    """
    cdef Py_ssize_t K = transmat.shape[0], s, i, j, first
    cdef double *work = <double *> malloc((K + K * K) * sizeof(double))
    cdef double *log_transmat = work + K
    if work == NULL:
        raise MemoryError
    with nogil:
        for i in range(K):
            for j in range(K):
                log_transmat[i * K + j] = log(transmat[i, j])
        for s in range(offsets.shape[0] - 1):
            first = offsets[s]
            log_backward_messages(
                K, log_transmat, &log_obs[first, 0], offsets[s + 1] - first,
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
    if log_obs.shape[0] == 0:
        return
    cdef batch work = new_batch(VITERBI, log_startprob, log_transmat, log_obs, offsets)
    cdef int failed
    work.chain.states = &states[0]
    work.log_likelihoods = &log_probabilities[0]
    with nogil:
        failed = run_batch(&work)
    if failed:
        raise MemoryError


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
