"""Weighted first and second moments of rows around the mean of each component.

Deviations are taken from each component's current mean, never from a common centre: a sum of
squares that is corrected afterwards cancels when components lie far apart.
"""

from libc.stdlib cimport free, malloc


cdef extern from "_gaussian_moments.h" nogil:
    enum:
        MOMENT_BLOCK
    void moment_sums(const double *g, const double *x, double mean, double *first, double *second)
    void moment_dot(const double *a, const double *b, double *out)
    void moment_centre(
        const double *g, const double *x, double mean, double *z, double *gz, double *first
    )


cdef void transpose_block(
    const double[:, ::1] rows, Py_ssize_t start, Py_ssize_t n_rows, double *out
) noexcept nogil:
    """Columns of rows[start : start + n_rows], each MOMENT_BLOCK long, zeros at the end."""
    cdef Py_ssize_t n, c, n_columns = rows.shape[1]
    for c in range(n_columns):
        for n in range(n_rows):
            out[c * MOMENT_BLOCK + n] = rows[start + n, c]
        for n in range(n_rows, MOMENT_BLOCK):
            out[c * MOMENT_BLOCK + n] = 0


def moments_diag(
    const double[:, ::1] X,
    const double[:, ::1] posteriors,
    const double[:, ::1] means,
    double[:, ::1] weights,          # INOUT
    double[:, ::1] first,            # INOUT
    double[:, ::1] second,           # INOUT
):
    """Column by column, NaN entries left out.

    X (N, D), posteriors (N, K), means (K, D).
    INOUT (K, D): weights += sum g, first += sum g (x - mean), second += sum g (x - mean)^2.
    """
    cdef Py_ssize_t N = X.shape[0], D = X.shape[1], K = means.shape[0]
    cdef Py_ssize_t block, start, n_rows, n, k, d
    cdef bint missing
    cdef double *columns = <double *> malloc((D + K + 2) * MOMENT_BLOCK * sizeof(double))
    if columns == NULL:
        raise MemoryError
    cdef double *gammas = columns + D * MOMENT_BLOCK
    cdef double *observed = gammas + K * MOMENT_BLOCK
    cdef double *masked = observed + MOMENT_BLOCK
    cdef double *x
    cdef double *g
    with nogil:
        for block in range((N + MOMENT_BLOCK - 1) // MOMENT_BLOCK):
            start = block * MOMENT_BLOCK
            n_rows = min(MOMENT_BLOCK, N - start)
            transpose_block(X, start, n_rows, columns)
            transpose_block(posteriors, start, n_rows, gammas)
            for d in range(D):
                x = columns + d * MOMENT_BLOCK
                missing = False
                for n in range(MOMENT_BLOCK):
                    observed[n] = 1
                    if x[n] != x[n]:
                        observed[n] = 0
                        x[n] = 0
                        missing = True
                for k in range(K):
                    g = gammas + k * MOMENT_BLOCK
                    moment_dot(g, observed, &weights[k, d])
                    if missing:
                        for n in range(MOMENT_BLOCK):
                            masked[n] = g[n] * observed[n]
                        g = masked
                    moment_sums(g, x, means[k, d], &first[k, d], &second[k, d])
    free(columns)


def moments_full(
    const double[:, ::1] X,
    const double[:, ::1] posteriors,
    const double[:, ::1] means,
    double[:, ::1] first,            # INOUT
    double[:, :, ::1] second,        # INOUT
):
    """With all products of columns; rows without NaN.

    X (N, D), posteriors (N, K), means (K, D).
    INOUT first (K, D) += sum g (x - mean), second (K, D, D) += sum g (x - mean)(x - mean)',
    lower triangle only.
    """
    cdef Py_ssize_t N = X.shape[0], D = X.shape[1], K = means.shape[0]
    cdef Py_ssize_t block, start, n_rows, k, d, e
    cdef double *columns = <double *> malloc((3 * D + K) * MOMENT_BLOCK * sizeof(double))
    if columns == NULL:
        raise MemoryError
    cdef double *z = columns + D * MOMENT_BLOCK
    cdef double *gz = z + D * MOMENT_BLOCK
    cdef double *gammas = gz + D * MOMENT_BLOCK
    with nogil:
        for block in range((N + MOMENT_BLOCK - 1) // MOMENT_BLOCK):
            start = block * MOMENT_BLOCK
            n_rows = min(MOMENT_BLOCK, N - start)
            transpose_block(X, start, n_rows, columns)
            transpose_block(posteriors, start, n_rows, gammas)
            for k in range(K):
                for d in range(D):
                    moment_centre(
                        gammas + k * MOMENT_BLOCK, columns + d * MOMENT_BLOCK, means[k, d],
                        z + d * MOMENT_BLOCK, gz + d * MOMENT_BLOCK, &first[k, d],
                    )
                    for e in range(d + 1):
                        moment_dot(
                            gz + d * MOMENT_BLOCK, z + e * MOMENT_BLOCK, &second[k, d, e]
                        )
    free(columns)
