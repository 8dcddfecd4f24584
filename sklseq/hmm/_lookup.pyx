"""Tables looked up by code, and sums by code: the categorical family's work on every row.

codes (N, D): column d holds 0..V-1, or -1 (missing), which is taken as V.
"""

ctypedef fused code_t:
    short
    int


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
