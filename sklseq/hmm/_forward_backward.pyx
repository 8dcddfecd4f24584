"""The chain of a hidden Markov model: all sums over time.

Every kernel takes the whole batch of sequences, releases the GIL, fills arrays that the caller
allocated, and sees only the local evidence ``log_obs[t, k] = log p(x_t | s_t = k)``: an array, or
for few states a `Source` that works it out block by block on its way to the recursion.  The result
of a sequence depends on that sequence alone, to the bit.

Shapes and units, the same in every kernel
------------------------------------------
startprob (K,), transmat (K, K)
    Probabilities; an arc or start of probability 0 is never used, not even by rounding.
evidence
    Array log_obs (N, K): log-densities in nats, may be -inf, never NaN. Or a `Source`.
offsets (S + 1,)
    Sequence s holds the rows offsets[s]:offsets[s + 1]; at least one each.

The mathematics and its safeguards stand in the headers beside this file.
"""

from libc.math cimport log
from libc.stdlib cimport free, malloc
from libc.string cimport memset


cdef extern from "_batch.h" nogil:
    int SCORE, FILTER, SMOOTH, VITERBI
    int LOG_ROWS, GAUSSIAN, CODES
    int LANE_STATES
    ctypedef struct stretched:
        double far
    ctypedef struct gaussian:
        double *constants
    ctypedef struct source:
        int kind
        Py_ssize_t width
        const double *rows
        gaussian normal
        const double *means
        const int *codes
        const short *short_codes
        double *logs
    Py_ssize_t n_statistics(const source *s, Py_ssize_t K)
    int pack_gaussian(
        Py_ssize_t K, Py_ssize_t D, const double *means, const double *spread, int full,
        gaussian *g)
    int pack_codes(Py_ssize_t V, Py_ssize_t K, const double *log_table, source *s)
    ctypedef struct chain:
        Py_ssize_t K
        const double *startprob
        const double *transmat
        const source *source
        double *filtered
        double *starts
        int absorb
        double *log_increments
        Py_ssize_t *states
    ctypedef struct batch:
        int mode
        chain chain
        const Py_ssize_t *offsets
        Py_ssize_t n_sequences
        double *log_likelihoods
        double *final
        double *counts
        double *statistics
    int run_batch(batch *work)
    void log_backward_messages(
        Py_ssize_t K, const double *log_transmat, const double *log_obs, Py_ssize_t T,
        double *log_backward, stretched *work)
    double log_forward(
        Py_ssize_t K, const double *log_startprob, const double *log_columns,
        const double *log_obs, Py_ssize_t T, stretched *log_alpha, stretched *log_increments,
        stretched *work)
    int sample_sequence(
        Py_ssize_t K, const double *columns, const double *filtered, Py_ssize_t T,
        const double *uniforms, Py_ssize_t *states, double *work)
    void log_sample_sequence(
        Py_ssize_t K, const double *log_columns, const stretched *log_alpha, Py_ssize_t T,
        const double *uniforms, Py_ssize_t *states, stretched *work, double *weights)


# Up to here a source may be read block by block; above, log-densities come as an array.
MOST_STATES_OF_A_SOURCE = LANE_STATES


cdef class Source:
    """Rows and the parameters that turn them into evidence; made by the functions below.

    Attributes
    ----------
    n_statistics : int
        Numbers that `expected_statistics` adds up.
    """

    cdef source c
    cdef object kept  # the arrays that c points into
    cdef readonly Py_ssize_t n_steps, n_statistics

    def __dealloc__(self):
        free(self.c.normal.constants)
        free(self.c.logs)


def gaussian_source(
    const double[:, ::1] X,
    const double[:, ::1] means,
    const double[::1] spread,
    bint full,
):
    """Gaussian densities of X (N, D) with means (K, D).

    spread: precisions (K, D), or with `full` triangles L (K, D, D) with L' L = C^-1, as one line.
    NaN entries are left out; with `full` there must be none.
    Statistics: those of `_gaussian_moments`.
    """
    cdef Source made = Source()
    made.c.kind = GAUSSIAN
    made.c.width = X.shape[1]
    made.c.rows = &X[0, 0]
    made.c.means = &means[0, 0]
    made.kept = (X, means)
    made.n_steps = X.shape[0]
    if pack_gaussian(means.shape[0], X.shape[1], &means[0, 0], &spread[0], full, &made.c.normal):
        raise MemoryError
    made.n_statistics = n_statistics(&made.c, means.shape[0])
    return made


ctypedef fused code_t:
    short
    int


def code_source(const code_t[::1] codes, const double[:, ::1] log_table):
    """Probabilities exp(log_table) (V, K) of codes (N,) in 0..V-1, or -1 (missing: says nothing).

    Statistics: sums of posteriors by code, (V + 2, P) with P >= K: row V is the missing code; what
    else is beyond (V, K) is working space.
    """
    cdef Source made = Source()
    made.c.kind = CODES
    if code_t is short:
        made.c.short_codes = &codes[0]
    else:
        made.c.codes = &codes[0]
    made.kept = codes
    made.n_steps = codes.shape[0]
    if pack_codes(log_table.shape[0], log_table.shape[1], &log_table[0, 0], &made.c):
        raise MemoryError
    made.n_statistics = n_statistics(&made.c, log_table.shape[1])
    return made


cdef Source as_source(evidence):
    """An array of log-densities as a source; a source as it is."""
    cdef const double[:, ::1] log_obs
    cdef Source made
    if isinstance(evidence, Source):
        return evidence
    log_obs = evidence
    made = Source()
    made.c.kind = LOG_ROWS
    made.c.width = log_obs.shape[1]
    if log_obs.shape[0]:
        made.c.rows = &log_obs[0, 0]
    made.kept = log_obs
    made.n_steps = log_obs.shape[0]
    return made


cdef batch new_batch(
    int mode,
    const double[::1] startprob,
    const double[:, ::1] transmat,
    Source evidence,
    const Py_ssize_t[::1] offsets,
):
    cdef batch work
    memset(&work, 0, sizeof(batch))
    work.mode = mode
    work.chain.K = transmat.shape[0]
    work.chain.startprob = &startprob[0]
    work.chain.transmat = &transmat[0, 0]
    work.chain.source = &evidence.c
    work.offsets = &offsets[0]
    work.n_sequences = offsets.shape[0] - 1
    return work


def forward(
    const double[::1] startprob,
    const double[:, ::1] transmat,
    evidence,
    const Py_ssize_t[::1] offsets,
    double[:, ::1] filtered,         # OUT
    double[::1] log_increments,      # OUT
):
    """Filtered state probabilities and one-step predictive log-densities.

    OUT filtered (N, K): P(s_t = k | x_1..x_t).
    OUT log_increments (N,): log p(x_t | x_<t) in nats; -inf from the first impossible step of a
    sequence on, where the filtered rows are 0.
    """
    cdef Source source = as_source(evidence)
    if source.n_steps == 0:
        return
    cdef batch work = new_batch(FILTER, startprob, transmat, source, offsets)
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
    evidence,
    const Py_ssize_t[::1] offsets,
    double[::1] log_likelihoods,     # OUT
    double[:, ::1] final,            # OUT
):
    """Log-likelihood of every sequence; the working space does not grow with its length.

    OUT log_likelihoods (S,): log p(x_1..x_T) in nats, -inf if impossible.
    OUT final (S, K): filtered probabilities at the last step (0 if impossible), so that a long
    sequence can be run block by block: start the next block from ``final @ transmat``.
    """
    cdef Source source = as_source(evidence)
    if source.n_steps == 0:
        return
    cdef batch work = new_batch(SCORE, startprob, transmat, source, offsets)
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
    evidence,
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
    cdef Source source = as_source(evidence)
    if source.n_steps == 0:
        return
    cdef batch work = new_batch(SMOOTH, startprob, transmat, source, offsets)
    cdef int failed
    work.chain.filtered = &posteriors[0, 0]
    work.counts = &transition_counts[0, 0]
    work.log_likelihoods = &log_likelihoods[0]
    with nogil:
        failed = run_batch(&work)
    if failed:
        raise MemoryError


def expected_statistics(
    const double[::1] startprob,
    const double[:, ::1] transmat,
    Source evidence,
    const Py_ssize_t[::1] offsets,
    double[:, ::1] starts,               # OUT
    double[:, ::1] ends,                 # OUT
    double[:, ::1] transition_counts,    # INOUT
    double[::1] statistics,              # INOUT
    double[::1] log_likelihoods,         # OUT
):
    """What an M-step needs, without posteriors in memory.

    OUT starts, ends (S, K): smoothed probabilities at the first and the last step of each sequence.
    INOUT transition_counts (K, K): as `forward_backward`.
    INOUT statistics (evidence.n_statistics,): += the source's sums under the posteriors.
    OUT log_likelihoods (S,): nats, -inf if impossible.
    """
    cdef batch work = new_batch(SMOOTH, startprob, transmat, evidence, offsets)
    cdef int failed
    work.chain.starts = &starts[0, 0]
    work.chain.absorb = 1
    work.final = &ends[0, 0]
    work.counts = &transition_counts[0, 0]
    work.statistics = &statistics[0]
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
    cdef double *log_transmat = <double *> malloc(K * K * sizeof(double))
    cdef stretched *work = <stretched *> malloc(3 * K * sizeof(stretched))
    if work == NULL or log_transmat == NULL:
        free(work)
        free(log_transmat)
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
    free(log_transmat)


def viterbi(
    const double[::1] log_startprob,
    const double[:, ::1] log_transmat,
    evidence,
    const Py_ssize_t[::1] offsets,
    Py_ssize_t[::1] states,          # OUT
    double[::1] log_probabilities,   # OUT
):
    """Most probable path of every sequence; among equals the lowest state index wins.

    OUT states (N,). OUT log_probabilities (S,): log p(X, path) in nats, -inf if impossible.
    """
    cdef Source source = as_source(evidence)
    if source.n_steps == 0:
        return
    cdef batch work = new_batch(VITERBI, log_startprob, log_transmat, source, offsets)
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
    Returns the sequences that filtered probabilities do not do for: draw them by
    `sample_backward_in_logs`.
    """
    cdef Py_ssize_t K = transmat.shape[0], s, i, j, draw, first
    cdef double *work = <double *> malloc((K + K * K) * sizeof(double))
    cdef double *columns = work + K
    cdef int good
    failed = []
    if work == NULL:
        raise MemoryError
    for i in range(K):
        for j in range(K):
            columns[j * K + i] = transmat[i, j]
    for s in range(offsets.shape[0] - 1):
        first = offsets[s]
        with nogil:
            good = 1
            for draw in range(uniforms.shape[0]):
                good &= sample_sequence(
                    K, columns, &filtered[first, 0], offsets[s + 1] - first,
                    &uniforms[draw, first], &states[draw, first], work,
                )
        if not good:
            failed.append(s)
    free(work)
    return failed


def sample_backward_in_logs(
    const double[::1] log_startprob,
    const double[:, ::1] log_transmat,
    const double[:, ::1] log_obs,
    const double[:, ::1] uniforms,
    Py_ssize_t[:, ::1] states,       # OUT
):
    """Draws of the hidden path of one sequence, in log space throughout.

    log_obs (T, K), uniforms (n_draws, T). OUT states (n_draws, T).
    """
    cdef Py_ssize_t K = log_transmat.shape[0], T = log_obs.shape[0], i, j, draw
    cdef double *columns = <double *> malloc((K + K * K) * sizeof(double))
    cdef stretched *alpha = <stretched *> malloc((T * K + T + K) * sizeof(stretched))
    if columns == NULL or alpha == NULL:
        free(columns)
        free(alpha)
        raise MemoryError
    with nogil:
        for i in range(K):
            for j in range(K):
                columns[j * K + i] = log_transmat[i, j]
        log_forward(
            K, &log_startprob[0], columns, &log_obs[0, 0], T, alpha, alpha + T * K,
            alpha + T * K + T,
        )
        for draw in range(uniforms.shape[0]):
            log_sample_sequence(
                K, columns, alpha, T, &uniforms[draw, 0], &states[draw, 0], alpha + T * K + T,
                columns + K * K,
            )
    free(columns)
    free(alpha)
