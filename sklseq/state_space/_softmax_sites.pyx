# distutils: language = c++
"""Kernels of the softmax observation: sites, slopes, the twisted and the moment-matched filter.

Counts never come here.  What a step says depends on them only through ``totals`` (n,), the sum of
its counts, and the products ``count_B`` (n, d) and ``count_b`` (n,) with B and b, which cost one
(sparse) product a pass.  A step with a total of zero says nothing.

The arithmetic over states x words is in ``_softmax_words.h``: states side by side in vector lanes,
words in chunks, nothing of size n x V.  `nodes` (k, d) and `weights` (k,) are a rule for N(0, I).
All arrays are C-contiguous float64; IN unless said otherwise; every `work` array is scratch of the
size that ``work_size`` tells.
"""

cdef extern from "_softmax_types.h" namespace "sklseq" nogil:
    const int LANES
    const int CHUNK
    const int BLOCKS
    cdef cppclass Words:
        Py_ssize_t V
        int d
        const double* B
        const double* b
    cdef cppclass Sites:
        Words words
        Py_ssize_t n_steps
        const double* totals
        const double* count_B
        const double* count_b
        const double* means
        const double* covs
        int n_nodes
        const double* nodes
        const double* weights
        double* value
        double* linear
        double* curvature
    cdef cppclass Particles:
        Words words
        Py_ssize_t n_steps
        Py_ssize_t K
        const double* totals
        const double* count_B
        const double* count_b
        const double* means
        const double* mean_before
        const double* gains
        const double* roots
        const double* y
        const double* S
        const double* normals
        const double* uniforms
        double* states
        double* log_weights
        double* increments
        double* paths
        double* path_weights
    cdef cppclass Matched:
        Words words
        Py_ssize_t n_sequences
        const Py_ssize_t* offsets
        const double* totals
        const double* count_B
        const double* count_b
        const double* A
        const double* Gamma
        const double* m0
        const double* P0
        int n_nodes
        const double* nodes
        const double* weights
        int n_fine
        const double* fine_nodes
        const double* fine_weights
        double* log_p
        double* out_means
        double* out_covs

cdef extern from "_softmax_dispatch.h" namespace "sklseq" nogil:
    void c_site_expectations "sklseq::site_expectations"(const Sites&, double*)
    double c_expected_normalisers "sklseq::expected_normalisers"(const Sites&, double*, double*)
    void c_normalisers "sklseq::normalisers"(
        const Words&, Py_ssize_t, const double*, double*, double*)
    void c_site_evidence "sklseq::site_evidence"(
        Py_ssize_t, int, const double*, const double*, const double*, double*, double*, double*)
    void c_site_misfits "sklseq::site_misfits"(
        Py_ssize_t, int, const double*, const double*, const double*, const double*, double*)
    void c_run_particles "sklseq::run_particles"(const Particles&, double*)
    void c_run_matched "sklseq::run_matched"(const Matched&, double*)


def work_size(int d, int n_nodes=0, Py_ssize_t n_particles=0):
    """Doubles of scratch that any function here needs."""
    cdef Py_ssize_t lanes = LANES, dd = d * d
    cdef Py_ssize_t padded = (n_nodes + lanes) // lanes * lanes
    sites = (5 * d + 4 + 2 * dd) * lanes + 3 * dd
    matched = 12 * dd + 8 * d + (d + 1) * lanes + padded * (2 * d + 1)
    particles = n_particles * (d + 1) + (d + 1) * lanes
    slopes = BLOCKS * (d + 2) * lanes + CHUNK * (d + 1) * 8 + dd
    return max(sites, matched, particles, slopes) + 8  # to begin at a cache line


cdef Words _words(const double[:, ::1] B, const double[::1] b) noexcept:
    cdef Words words
    words.V = B.shape[0]
    words.d = <int>B.shape[1]
    words.B = &B[0, 0]
    words.b = &b[0]
    return words


def site_expectations(
    const double[:, ::1] B not None,
    const double[::1] b not None,
    const double[::1] totals not None,
    const double[:, ::1] count_B not None,
    const double[::1] count_b not None,
    const double[:, ::1] means not None,
    const double[:, :, ::1] covariances not None,
    const double[:, ::1] nodes not None,
    const double[::1] weights not None,
    double[::1] value not None,
    double[:, ::1] linear not None,
    double[:, :, ::1] curvature not None,
    double[::1] work not None,
):
    """E[log p(y_t | s)] under N(means_t, covariances_t) by the rule, and the sites
    exp(h's - s'Hs / 2) that its exact derivatives make.

    OUT
        value : (n,), in nats
        linear : (n, d), h: the derivative with respect to the mean, plus H mean
        curvature : (n, d, d), H: minus twice the derivative with respect to the covariance (by
            Price's theorem the expected negative Hessian, were the rule exact)
    """
    cdef Sites s
    s.words = _words(B, b)
    s.n_steps = totals.shape[0]
    s.totals = &totals[0]
    s.count_B = &count_B[0, 0]
    s.count_b = &count_b[0]
    s.means = &means[0, 0]
    s.covs = &covariances[0, 0, 0]
    s.n_nodes = <int>weights.shape[0]
    s.nodes = &nodes[0, 0]
    s.weights = &weights[0]
    s.value = &value[0]
    s.linear = &linear[0, 0]
    s.curvature = &curvature[0, 0, 0]
    with nogil:
        c_site_expectations(s, &work[0])


def expected_normalisers(
    const double[:, ::1] B not None,
    const double[::1] b not None,
    const double[::1] totals not None,
    const double[:, ::1] means not None,
    const double[:, :, ::1] covariances not None,
    const double[:, ::1] nodes not None,
    const double[::1] weights not None,
    double[:, ::1] slope not None,
    double[::1] work not None,
):
    """sum_t totals_t E[log sum_v exp(B_v s_t + b_v)] by the rule.

    OUT
        slope : (V, d + 1), its derivative with respect to (B, b), added to what is there
    """
    cdef Sites s
    cdef double total
    s.words = _words(B, b)
    s.n_steps = totals.shape[0]
    s.totals = &totals[0]
    s.means = &means[0, 0]
    s.covs = &covariances[0, 0, 0]
    s.n_nodes = <int>weights.shape[0]
    s.nodes = &nodes[0, 0]
    s.weights = &weights[0]
    with nogil:
        total = c_expected_normalisers(s, &slope[0, 0], &work[0])
    return total


def normalisers(
    const double[:, ::1] B not None,
    const double[::1] b not None,
    const double[:, ::1] states not None,
    double[::1] lse not None,
    double[::1] work not None,
):
    """OUT lse (n,): log sum_v exp(B_v s + b_v) at given states (n, d)."""
    cdef Words words = _words(B, b)
    if states.shape[0] == 0:
        return
    with nogil:
        c_normalisers(words, states.shape[0], &states[0, 0], &lse[0], &work[0])


def site_evidence(
    const double[:, ::1] means not None,
    const double[:, ::1] linear not None,
    const double[:, :, ::1] curvature not None,
    double[:, ::1] y not None,
    double[:, :, ::1] S not None,
    double[::1] work not None,
):
    """Sites exp(h's - s'Hs / 2) as unit-variance observations.  OUT: y (n, d), S (n, d, d).

    `linear` is h, `curvature` H; `means` are states near which the sites are to be most exact.
    """
    with nogil:
        c_site_evidence(
            means.shape[0], <int>means.shape[1], &means[0, 0], &linear[0, 0],
            &curvature[0, 0, 0], &y[0, 0], &S[0, 0, 0], &work[0],
        )


def site_misfits(
    const double[:, ::1] y not None,
    const double[:, :, ::1] S not None,
    const double[:, ::1] means not None,
    const double[:, :, ::1] covariances not None,
    double[::1] misfits not None,
):
    """OUT misfits (n,): E|y_t - S_t s|^2 / 2 under N(means_t, covariances_t)."""
    with nogil:
        c_site_misfits(
            y.shape[0], <int>y.shape[1], &y[0, 0], &S[0, 0, 0], &means[0, 0],
            &covariances[0, 0, 0], &misfits[0],
        )


def twisted_filter(
    const double[:, ::1] B not None,
    const double[::1] b not None,
    const double[::1] totals not None,
    const double[:, ::1] count_B not None,
    const double[::1] count_b not None,
    const double[:, ::1] means not None,
    const double[::1] mean_before,
    const double[:, :, ::1] gains not None,
    const double[:, :, ::1] roots not None,
    const double[:, ::1] y not None,
    const double[:, :, ::1] S not None,
    const double[:, :, ::1] normals not None,
    const double[::1] uniforms not None,
    double[:, ::1] states not None,
    double[::1] log_weights not None,
    double[::1] increments not None,
    double[:, :, ::1] paths,
    double[:, ::1] path_weights,
    double[::1] work not None,
):
    """psi-APF over a run of steps of one sequence; fields as in ``struct Particles``.

    `mean_before` is None where the run opens the sequence.  IN/OUT: states (K, d), log_weights
    (K,).  OUT: increments (n,); paths (n, K, d) and path_weights (n, K) unless None.
    """
    cdef Particles p
    p.words = _words(B, b)
    p.n_steps = totals.shape[0]
    p.K = states.shape[0]
    p.totals = &totals[0]
    p.count_B = &count_B[0, 0]
    p.count_b = &count_b[0]
    p.means = &means[0, 0]
    p.mean_before = NULL
    if mean_before is not None:
        p.mean_before = &mean_before[0]
    p.gains = &gains[0, 0, 0]
    p.roots = &roots[0, 0, 0]
    p.y = &y[0, 0]
    p.S = &S[0, 0, 0]
    p.normals = &normals[0, 0, 0]
    p.uniforms = &uniforms[0]
    p.states = &states[0, 0]
    p.log_weights = &log_weights[0]
    p.increments = &increments[0]
    p.paths = p.path_weights = NULL
    if paths is not None:
        p.paths = &paths[0, 0, 0]
        p.path_weights = &path_weights[0, 0]
    with nogil:
        c_run_particles(p, &work[0])


def matched_filter(
    const double[:, ::1] B not None,
    const double[::1] b not None,
    const double[::1] totals not None,
    const double[:, ::1] count_B not None,
    const double[::1] count_b not None,
    const double[:, ::1] A not None,
    const double[:, ::1] Gamma not None,
    const double[::1] m0 not None,
    const double[:, ::1] P0 not None,
    const Py_ssize_t[::1] offsets not None,
    const double[:, ::1] nodes not None,
    const double[::1] weights not None,
    const double[:, ::1] fine_nodes not None,
    const double[::1] fine_weights not None,
    double[::1] log_p not None,
    double[:, ::1] means not None,
    double[:, :, ::1] covariances not None,
    double[::1] work not None,
):
    """Moment-matched filter of all sequences.

    OUT
        log_p : (N,), log p(y_t | y_<t)
        means : (N, d), covariances : (N, d, d), of s_t given y_1..y_t
    """
    cdef Matched p
    p.words = _words(B, b)
    p.n_sequences = offsets.shape[0] - 1
    p.offsets = &offsets[0]
    p.totals = &totals[0]
    p.count_B = &count_B[0, 0]
    p.count_b = &count_b[0]
    p.A = &A[0, 0]
    p.Gamma = &Gamma[0, 0]
    p.m0 = &m0[0]
    p.P0 = &P0[0, 0]
    p.n_nodes = <int>weights.shape[0]
    p.nodes = &nodes[0, 0]
    p.weights = &weights[0]
    p.n_fine = <int>fine_weights.shape[0]
    p.fine_nodes = &fine_nodes[0, 0]
    p.fine_weights = &fine_weights[0]
    p.log_p = &log_p[0]
    p.out_means = &means[0, 0]
    p.out_covs = &covariances[0, 0, 0]
    with nogil:
        c_run_matched(p, &work[0])
