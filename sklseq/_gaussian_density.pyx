"""Gaussian log-densities of rows under several components, in nats.

Squares are taken of centred values (x - mean), never as x^2 - 2 x mean + mean^2, which cancels.
"""

from libc.math cimport log
from libc.stdlib cimport free, malloc


cdef double LOG_2_PI = 1.8378770664093454835606594728112


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
    cdef Py_ssize_t N = X.shape[0], D = X.shape[1], K = means.shape[0], n, k, d
    cdef double square, constant, difference
    cdef double *constants = <double *> malloc(max(K * D, 1) * sizeof(double))
    if constants == NULL:
        raise MemoryError
    with nogil:
        for k in range(K):
            for d in range(D):
                constants[k * D + d] = LOG_2_PI - log(precisions[k, d])
        for n in range(N):
            for k in range(K):
                square = 0
                constant = 0
                for d in range(D):
                    difference = X[n, d] - means[k, d]
                    if difference == difference:
                        square += precisions[k, d] * difference * difference
                        constant += constants[k * D + d]
                log_obs[n, k] = -0.5 * (square + constant)
    free(constants)


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
    cdef Py_ssize_t N = X.shape[0], D = X.shape[1], K = means.shape[0], n, k, i, j
    cdef double square, white
    cdef double *constants = <double *> malloc(K * sizeof(double))
    if constants == NULL:
        raise MemoryError
    with nogil:
        for k in range(K):
            constants[k] = 0
            for i in range(D):
                constants[k] += LOG_2_PI - 2 * log(precision_cholesky[k, i, i])
        for n in range(N):
            for k in range(K):
                square = 0
                for i in range(D):
                    white = 0
                    for j in range(i + 1):
                        white += precision_cholesky[k, i, j] * (X[n, j] - means[k, j])
                    square += white * white
                log_obs[n, k] = -0.5 * (square + constants[k])
    free(constants)
