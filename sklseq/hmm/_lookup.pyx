"""Codes, tables looked up by code, and sums by code: the categorical family's work on every row.

codes (N, D): column d holds 0..V-1, or -1 (missing), which is taken as V.
"""

from libc.limits cimport INT_MAX, SHRT_MAX

ctypedef fused code_t:
    short
    int

ctypedef fused number:
    double
    long long


def to_codes(
    const number[:, ::1] X,
    code_t[:, ::1] codes,            # OUT
    long long[::1] largest,          # INOUT
):
    """Whole numbers as codes, NaN as -1.

    X (N, D). OUT codes (N, D). INOUT largest (D,): raised to the largest code of each column.
    Returns the place n * D + d of the first entry that is negative or not whole, or -1. Numbers
    that `codes` cannot hold are cut off; `largest` has them as they are, up to 2^62.
    """
    cdef Py_ssize_t n, d, D = X.shape[1]
    cdef long long code, top = SHRT_MAX if code_t is short else INT_MAX
    cdef double beyond = 4611686018427387904.0
    cdef number x
    with nogil:
        for n in range(X.shape[0]):
            for d in range(D):
                x = X[n, d]
                if number is double:
                    if x != x:
                        codes[n, d] = -1
                        continue
                    code = <long long> (min(max(x, 0.0), beyond))
                    if x < 0 or (x < beyond and <double> code != x):
                        with gil:
                            return n * D + d
                else:
                    code = x
                    if x < 0:
                        with gil:
                            return n * D + d
                largest[d] = max(largest[d], code)
                codes[n, d] = <code_t> min(code, top)
    return -1


def add_looked_up(
    const code_t[:, :] codes,
    Py_ssize_t column,
    const double[:, ::1] table,
    double[:, ::1] out,              # INOUT
):
    """INOUT out (N, K): += table[codes[:, column]], table (V + 1, K); the first column sets it."""
    cdef Py_ssize_t K = table.shape[1], last = table.shape[0] - 1, n, k, code
    with nogil:
        for n in range(codes.shape[0]):
            code = codes[n, column]
            if code < 0:
                code = last
            if column == 0:
                for k in range(K):
                    out[n, k] = table[code, k]
            else:
                for k in range(K):
                    out[n, k] += table[code, k]


def add_by_code(
    const code_t[:, :] codes,
    Py_ssize_t column,
    const double[:, ::1] posteriors,
    double[:, ::1] counts,           # INOUT
):
    """INOUT counts (V + 1, K): row v += sum of the posteriors of the rows of code v."""
    cdef Py_ssize_t K = counts.shape[1], last = counts.shape[0] - 1, n, k, code
    with nogil:
        for n in range(codes.shape[0]):
            code = codes[n, column]
            if code < 0:
                code = last
            for k in range(K):
                counts[code, k] += posteriors[n, k]
