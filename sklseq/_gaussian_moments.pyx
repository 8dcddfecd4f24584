"""Weighted first and second moments of rows around the mean of each component.

Deviations are taken from each component's current mean, never from a common centre: a sum of
squares that is corrected afterwards cancels when components lie far apart.
"""

cdef extern from "_gaussian_moments.h" nogil:
    int gaussian_moments(
        Py_ssize_t N, Py_ssize_t K, Py_ssize_t D, const double *X, const double *posteriors,
        const double *means, double *weights, double *first, double *second)


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
    cdef int failed
    if X.shape[0] == 0:
        return
    with nogil:
        failed = gaussian_moments(
            X.shape[0], means.shape[0], X.shape[1], &X[0, 0], &posteriors[0, 0], &means[0, 0],
            &weights[0, 0], &first[0, 0], &second[0, 0],
        )
    if failed:
        raise MemoryError


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
    cdef int failed
    if X.shape[0] == 0:
        return
    with nogil:
        failed = gaussian_moments(
            X.shape[0], means.shape[0], X.shape[1], &X[0, 0], &posteriors[0, 0], &means[0, 0],
            NULL, &first[0, 0], &second[0, 0, 0],
        )
    if failed:
        raise MemoryError
