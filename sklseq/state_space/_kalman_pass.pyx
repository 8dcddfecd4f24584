# distutils: language = c++
"""Filter, smoother and E-step sums of the linear-Gaussian chain, for a whole batch at once.

The chain is ::

    s_1 ~ N(m0, P0),   s_t = A_t s_{t-1} + drift_t + w_t,   w_t ~ N(0, Q_t)

and the kernel never sees data: an observation model hands over *local evidence*, at each step
``k`` scalar observations of the state with unit variance,

    y[row, i] = S[pattern[row], i] · s_t + e_i,   e_i ~ N(0, 1).

A row of zeros in ``S`` (with y = 0) is an observation that is not there: an exact no-op.  A model
whose evidence differs at every step passes ``pattern = arange(N)``, and nothing is cached by
pattern; a model whose steps are all alike passes ``pattern=None`` and ``S`` with one entry, and
then all sequences share one covariance path, computed once and stopped at its steady state.

Log-likelihoods come without constants: -(log f + v^2 / f) / 2 summed over the k scalar
innovations, so the caller adds -log(2 pi) / 2 for each scalar observed and the Jacobian of its
whitening.

Every function takes the evidence, the chain, and the arrays to fill:

IN
    y : (N, k), whitened observations; finite
    pattern : (N,) intp or None, which entry of S a step has; None: entry 0 at every step
    S : (n_patterns, k, d)
    noise : (n_patterns, k) or None, variances of the scalar observations, 1 or 0 (a perfect
        observation, handled in square-root form); None: all one
    A : (1, d, d), or (n_times, d, d) where entry t leads into step t of a sequence
    Q : (1, d, d) or (n_times, d, d), positive semi-definite, singular allowed
    drift : (N, d) or None, added to the state on entering a row's step; rows that open a sequence
        are not read
    m0 : (d,),  P0 : (d, d), moments of the state at the first step of every sequence
    offsets : (n_sequences + 1,) intp, where sequences begin and end; no empty sequence
OUT (None where not wanted)
    sequence_ll : (n_sequences,)     step_ll : (N,)
    form : (n_sequences,) int8, 0 where the plain recursion was trusted, 1 where the square-root
        recursion was used: a whitened innovation variance above 1e5, or a predicted covariance
        close to singular

Sources: scalar updates, Durbin and Koopman (2012), section 6.4; smoother, Rauch, Tung and Striebel
(1965); lag-one covariances, Särkkä (2013), section 12.2; square-root forms, Kailath, Sayed and
Hassibi (2000), chapter 12; row ordering before QR, Cox and Higham (1998).
"""

from scipy.linalg.cython_blas cimport dgemm

cdef extern from "_pass_types.h" namespace "sklseq" nogil:
    ctypedef void (*Gemm)(
        char*, char*, int*, int*, int*, double*, double*, int*, double*, int*, double*, double*,
        int*
    ) noexcept nogil
    cdef cppclass Pass:
        Py_ssize_t n_sequences
        const Py_ssize_t* offsets
        int d
        int k
        const double* y
        const double* S
        const double* noise
        const Py_ssize_t* pattern
        Py_ssize_t n_patterns
        const double* A
        const double* Q
        Py_ssize_t A_stride
        Py_ssize_t Q_stride
        const double* drift
        const double* m0
        const double* P0
        Gemm gemm
        double* sequence_ll
        double* step_ll
        double* filtered_means
        double* filtered_covs
        double* final_means
        double* final_covs
        double* means
        double* covs
        double* lag_one
        double* sum_previous
        double* sum_next
        double* sum_lag
        double* sum_first
        double* sum_pattern
        double* sum_cross
        double* sum_second
        signed char* form

cdef extern from "_pass_dispatch.h" namespace "sklseq" nogil:
    void run_pass(const Pass&) except +


cdef const double* _in3(const double[:, :, ::1] x) noexcept:
    if x is None or x.size == 0:
        return NULL
    return &x[0, 0, 0]


cdef const double* _in2(const double[:, ::1] x) noexcept:
    if x is None or x.size == 0:
        return NULL
    return &x[0, 0]


cdef double* _out3(double[:, :, ::1] x) noexcept:
    if x is None or x.size == 0:
        return NULL
    return &x[0, 0, 0]


cdef double* _out2(double[:, ::1] x) noexcept:
    if x is None or x.size == 0:
        return NULL
    return &x[0, 0]


cdef double* _out1(double[::1] x) noexcept:
    if x is None or x.size == 0:
        return NULL
    return &x[0]


cdef Pass _describe(
    const double[:, ::1] y,
    const Py_ssize_t[::1] pattern,
    const double[:, :, ::1] S,
    const double[:, ::1] noise,
    const double[:, :, ::1] A,
    const double[:, :, ::1] Q,
    const double[:, ::1] drift,
    const double[::1] m0,
    const double[:, ::1] P0,
    const Py_ssize_t[::1] offsets,
    double[::1] sequence_ll,
    double[::1] step_ll,
    signed char[::1] form,
) noexcept:
    cdef Pass result
    cdef Py_ssize_t d = S.shape[2]
    result.n_sequences = offsets.shape[0] - 1
    result.offsets = &offsets[0]
    result.d = <int>d
    result.k = <int>S.shape[1]
    result.y = _in2(y)
    result.S = _in3(S)
    result.noise = _in2(noise)
    result.pattern = NULL
    if pattern is not None:
        result.pattern = &pattern[0]
    result.n_patterns = S.shape[0]
    result.A = _in3(A)
    result.Q = _in3(Q)
    result.A_stride = d * d if A.shape[0] > 1 else 0
    result.Q_stride = d * d if Q.shape[0] > 1 else 0
    result.drift = _in2(drift)
    result.m0 = &m0[0]
    result.P0 = _in2(P0)
    result.gemm = <Gemm>dgemm
    result.sequence_ll = _out1(sequence_ll)
    result.step_ll = _out1(step_ll)
    result.filtered_means = result.filtered_covs = NULL
    result.final_means = result.final_covs = NULL
    result.means = result.covs = result.lag_one = NULL
    result.sum_previous = result.sum_next = result.sum_lag = result.sum_first = NULL
    result.sum_pattern = result.sum_cross = result.sum_second = NULL
    result.form = &form[0]
    return result


def filter_pass(
    const double[:, ::1] y not None,
    const Py_ssize_t[::1] pattern,
    const double[:, :, ::1] S not None,
    const double[:, ::1] noise,
    const double[:, :, ::1] A not None,
    const double[:, :, ::1] Q not None,
    const double[:, ::1] drift,
    const double[::1] m0 not None,
    const double[:, ::1] P0 not None,
    const Py_ssize_t[::1] offsets not None,
    double[::1] sequence_ll,
    double[::1] step_ll,
    signed char[::1] form not None,
    double[:, ::1] means,
    double[:, :, ::1] covariances,
    double[:, ::1] final_means,
    double[:, :, ::1] final_covariances,
):
    """Causal pass.

    OUT, or None
        means (N, d), covariances (N, d, d) : moments of s_t given y_1..y_t
        final_means (n_sequences, d), final_covariances (n_sequences, d, d) : at the last steps;
            both or none

    Memory beyond the arrays handed in: a covariance path of at most 16 MB, or O(d^2).
    """
    cdef Pass work = _describe(
        y, pattern, S, noise, A, Q, drift, m0, P0, offsets, sequence_ll, step_ll, form
    )
    work.filtered_means = _out2(means)
    work.filtered_covs = _out3(covariances)
    work.final_means = _out2(final_means)
    work.final_covs = _out3(final_covariances)
    with nogil:
        run_pass(work)


def smoother_pass(
    const double[:, ::1] y not None,
    const Py_ssize_t[::1] pattern,
    const double[:, :, ::1] S not None,
    const double[:, ::1] noise,
    const double[:, :, ::1] A not None,
    const double[:, :, ::1] Q not None,
    const double[:, ::1] drift,
    const double[::1] m0 not None,
    const double[:, ::1] P0 not None,
    const Py_ssize_t[::1] offsets not None,
    double[::1] sequence_ll,
    double[::1] step_ll,
    signed char[::1] form not None,
    double[:, ::1] means not None,
    double[:, :, ::1] covariances,
    double[:, :, ::1] lag_one,
):
    """Both passes.  OUT: means (N, d), covariances (N, d, d), lag_one (N, d, d) given all of y.

    lag_one[row] = Cov(s_t, s_{t-1}), zero on the rows that open a sequence.
    """
    cdef Pass work = _describe(
        y, pattern, S, noise, A, Q, drift, m0, P0, offsets, sequence_ll, step_ll, form
    )
    work.means = _out2(means)
    work.covs = _out3(covariances)
    work.lag_one = _out3(lag_one)
    with nogil:
        run_pass(work)


def sums_pass(
    const double[:, ::1] y not None,
    const Py_ssize_t[::1] pattern,
    const double[:, :, ::1] S not None,
    const double[:, ::1] noise,
    const double[:, :, ::1] A not None,
    const double[:, :, ::1] Q not None,
    const double[:, ::1] drift,
    const double[::1] m0 not None,
    const double[:, ::1] P0 not None,
    const Py_ssize_t[::1] offsets not None,
    double[::1] sequence_ll,
    double[::1] step_ll,
    signed char[::1] form not None,
    double[:, ::1] means not None,
    double[:, :, ::1] sums not None,
    double[:, :, ::1] pattern_sums,
    double[:, :, ::1] disturbances=None,
):
    """Both passes for EM: smoothed means, and sums of covariances in place of the covariances.

    OUT
        means : (N, d)
        sums : (4, d, d): over all transitions t >= 2 the covariance of the state before, that of
            the state after, and Cov(after, before); over all first steps the covariance
        pattern_sums : (n_patterns, d, d) the covariances summed over the steps of each pattern,
            or None
        disturbances : (2, d, d): over all transitions Cov(w, before) and Cov(w), of the disturbance
            w = after - A before, or None.  What a difference of the sums above would lose to
            rounding is here (Durbin and Koopman 2012, section 4.5)

    Never holds N x d x d: a sequence longer than a megabyte of gains is worked backward in
    segments whose forward pass is repeated from checkpoints.
    """
    cdef Pass work = _describe(
        y, pattern, S, noise, A, Q, drift, m0, P0, offsets, sequence_ll, step_ll, form
    )
    sums[...] = 0.0
    if pattern_sums is not None:
        pattern_sums[...] = 0.0
    work.means = _out2(means)
    work.sum_previous = &sums[0, 0, 0]
    work.sum_next = &sums[1, 0, 0]
    work.sum_lag = &sums[2, 0, 0]
    work.sum_first = &sums[3, 0, 0]
    work.sum_pattern = _out3(pattern_sums)
    if disturbances is not None:
        disturbances[...] = 0.0
        work.sum_cross = &disturbances[0, 0, 0]
        work.sum_second = &disturbances[1, 0, 0]
    with nogil:
        run_pass(work)
