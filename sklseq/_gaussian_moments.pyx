"""Weighted first and second moments of rows around the mean of each component.

Deviations are taken from each component's current mean, never from a common centre: a sum of
squares that is corrected afterwards cancels when components lie far apart.
"""

cdef extern from "_gaussian_moments.h" nogil:
    int gaussian_moments(
        Py_ssize_t N, Py_ssize_t K, Py_ssize_t D, int full, const double *X,
        const double *posteriors, const double *means, Py_ssize_t n_sums, double *sums)


def moments(
    const double[:, ::1] X,
    const double[:, ::1] posteriors,
    const double[:, ::1] means,
    bint full,
    double[::1] sums,                # INOUT
):
    """Sums of g, g (x - mean) and g (x - mean)(x - mean)' over all rows.

    X (N, D), posteriors (N, K), means (K, D).
    INOUT sums, one array after the other. Diagonal, NaN entries left out: weights (K, D), first
    (K, D), second (K, D). Full, rows without NaN: weights (K,), first (K, D), second (K, D, D) of
    which only the lower triangles are added to.
    """
    cdef int failed
    if X.shape[0] == 0:
        return
    with nogil:
        failed = gaussian_moments(
            X.shape[0], means.shape[0], X.shape[1], full, &X[0, 0], &posteriors[0, 0],
            &means[0, 0], sums.shape[0], &sums[0],
        )
    if failed:
        raise MemoryError
