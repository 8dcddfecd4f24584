"""Gaussian log-densities of rows under several components, in nats.

Squares are taken of centred values (x - mean), never as x^2 - 2 x mean + mean^2, which cancels.
"""

cdef extern from "_gaussian_density_dispatch.h" nogil:
    int gaussian_log_density(
        Py_ssize_t N, Py_ssize_t K, Py_ssize_t D, const double *X, const double *means,
        const double *spread, int full, double *log_obs)


def log_density_diag(
    const double[:, ::1] X,
    const double[:, ::1] means,
    const double[:, ::1] precisions,
    double[:, ::1] log_obs,          # OUT
):
    """Gaussian with diagonal covariance; a NaN entry contributes nothing.

    X (N, D), means (K, D), precisions (K, D): 1 / variance.
    OUT log_obs (N, K): -1/2 sum_d [log 2 pi - log precision + precision (x - mean)^2].
    """
    cdef int failed
    if X.shape[0] == 0:
        return
    with nogil:
        failed = gaussian_log_density(
            X.shape[0], means.shape[0], X.shape[1], &X[0, 0], &means[0, 0],
            &precisions[0, 0], 0, &log_obs[0, 0],
        )
    if failed:
        raise MemoryError


def log_density_full(
    const double[:, ::1] X,
    const double[:, ::1] means,
    const double[:, :, ::1] precision_cholesky,
    double[:, ::1] log_obs,          # OUT
):
    """Gaussian with full covariance, rows without NaN.

    X (N, D), means (K, D), precision_cholesky (K, D, D): lower triangular L with
    L' L = Sigma^-1, so that y = L (x - mean) is white.
    OUT log_obs (N, K): -1/2 [D log 2 pi + |y|^2] + log det L.
    """
    cdef int failed
    if X.shape[0] == 0:
        return
    with nogil:
        failed = gaussian_log_density(
            X.shape[0], means.shape[0], X.shape[1], &X[0, 0], &means[0, 0],
            &precision_cholesky[0, 0, 0], 1, &log_obs[0, 0],
        )
    if failed:
        raise MemoryError
