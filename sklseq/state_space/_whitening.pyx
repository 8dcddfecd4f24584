# distutils: language = c++
"""Row by row: which entries are there, and whitened observations.

IN arrays are C-contiguous; N rows, p features, k scalar observations.
"""

import numpy as np

from libc.math cimport isnan
from libc.stdint cimport uint64_t
from libcpp.string cimport string
from libcpp.unordered_map cimport unordered_map
from libcpp.vector cimport vector

cdef extern from "_whitening_rows.h" namespace "sklseq" nogil:
    cdef cppclass RowMap:
        Py_ssize_t n, p, first, n_maps
        const double* X
        const double* centre
        const double* shift
        const Py_ssize_t* pattern
        const double* W
        double* out
    bint map_rows(const RowMap&) except +
    cdef cppclass MapTables:
        Py_ssize_t n_patterns, p, d
        const unsigned char* masks
        const double* covariance
        const double* B
        double* W
        double* S
        double* log_det
    void map_tables(const MapTables&) except +


def find_patterns(const double[:, ::1] X not None):
    """Number the patterns of missing entries in order of appearance.

    Returns
    -------
    pattern : (N,) intp, or None where nothing is missing
    masks : (n_patterns, p) bool, True where an entry is there
    """
    cdef Py_ssize_t n = X.shape[0], p = X.shape[1], t, j
    cdef bint any_missing = False
    with nogil:
        for t in range(n):
            for j in range(p):
                if isnan(X[t, j]):
                    any_missing = True
                    break
            if any_missing:
                break
    if not any_missing:
        return None, np.ones((1, p), dtype=bool)
    pattern = np.empty(n, dtype=np.intp)
    if p <= 64:
        return pattern, _masks_of(X, _number_words(X, pattern))
    return pattern, _masks_of(X, _number_strings(X, pattern))


cdef _masks_of(const double[:, ::1] X, firsts):
    return ~np.isnan(np.asarray(X)[firsts])


cdef list _number_words(const double[:, ::1] X, Py_ssize_t[::1] pattern):
    """By a table where there are few patterns, else by hashing."""
    cdef unordered_map[uint64_t, Py_ssize_t] numbers
    cdef vector[Py_ssize_t] table
    cdef uint64_t word, last_word = 0
    cdef Py_ssize_t t, j, p = X.shape[1], last = -1
    cdef bint small = p <= 12
    cdef list firsts = []
    if small:
        table.resize(1 << p, -1)
    for t in range(X.shape[0]):
        word = 0
        for j in range(p):
            word |= <uint64_t>(1 if isnan(X[t, j]) else 0) << j
        if small:
            last = table[word]
            if last < 0:
                table[word] = last = len(firsts)
                firsts.append(t)
        elif last < 0 or word != last_word:
            if numbers.count(word) == 0:
                numbers[word] = len(firsts)
                firsts.append(t)
            last = numbers[word]
            last_word = word
        pattern[t] = last
    return firsts


cdef list _number_strings(const double[:, ::1] X, Py_ssize_t[::1] pattern):
    cdef unordered_map[string, Py_ssize_t] numbers
    cdef string word
    cdef Py_ssize_t t, j
    cdef list firsts = []
    word.resize(X.shape[1])
    for t in range(X.shape[0]):
        for j in range(X.shape[1]):
            word[j] = b"1" if isnan(X[t, j]) else b"0"
        if numbers.count(word) == 0:
            numbers[word] = len(firsts)
            firsts.append(t)
        pattern[t] = numbers[word]
    return firsts


cdef Py_ssize_t _scale(
    const double* x,
    const double* shift,
    const double* centre,
    const double* weights,
    Py_ssize_t n,
    double* out,
) noexcept nogil:
    """n entries, each with its own centre and weight; without a branch, so that it is vectorised"""
    cdef Py_ssize_t e, missing = 0
    cdef double value
    if shift is NULL:
        for e in range(n):
            value = x[e] - centre[e]
            missing += value != value
            out[e] = value * weights[e] if value == value else 0.0
    else:
        for e in range(n):
            value = x[e] - centre[e] - shift[e]
            missing += value != value
            out[e] = value * weights[e] if value == value else 0.0
    return missing


def scale_rows(
    const double[:, ::1] X not None,
    const double[::1] centre not None,
    const double[:, ::1] shift,
    const double[::1] weights not None,
    double[:, ::1] out not None,
):
    """OUT: out (N, p) = (X - centre - shift) * weights, 0 where X is missing.

    IN: shift (N, p), or None.  Returns the number of missing entries.
    """
    cdef Py_ssize_t n = X.shape[0], p = X.shape[1], at = 0, e, size, missing = 0
    cdef const double* shifts = NULL
    # narrow rows are worked several at a time, with as many copies of centre and weights
    cdef double[64] centres
    cdef double[64] all_weights
    cdef const double* c = &centre[0]
    cdef const double* w = &weights[0]
    size = p
    if p <= 32:
        size = 64 // p * p
        for e in range(size):
            centres[e] = centre[e % p]
            all_weights[e] = weights[e % p]
        c = centres
        w = all_weights
    with nogil:
        while at < n * p:
            size = min(size, n * p - at)
            if shift is not None:
                shifts = &shift[0, 0] + at
            missing += _scale(&X[0, 0] + at, shifts, c, w, size, &out[0, 0] + at)
            at += size
    return missing


cdef RowMap _row_map(
    const double[:, ::1] X,
    const double[::1] centre,
    const double[:, ::1] shift,
    double[:, ::1] out,
) noexcept:
    cdef RowMap rows
    rows.n, rows.p = X.shape[0], X.shape[1]
    rows.X, rows.centre, rows.out = &X[0, 0], &centre[0], &out[0, 0]
    rows.shift = NULL
    if shift is not None:
        rows.shift = &shift[0, 0]
    return rows


def whiten_complete_rows(
    const double[:, ::1] X not None,
    const double[::1] centre not None,
    const double[:, ::1] shift,
    const double[:, ::1] W not None,
    double[:, ::1] out not None,
):
    """OUT: out = (X - centre - shift) W'.  False where X has a gap."""
    cdef RowMap rows = _row_map(X, centre, shift, out)
    cdef bint complete
    rows.pattern = NULL
    rows.first, rows.n_maps, rows.W = 0, 1, &W[0, 0]
    with nogil:
        complete = map_rows(rows)
    return complete


def whitening_maps(
    const unsigned char[:, ::1] masks not None,
    const double[:, ::1] covariance not None,
    const double[:, ::1] B not None,
    double[:, :, ::1] W not None,
    double[:, :, ::1] S not None,
    double[::1] log_det not None,
):
    """Whiteners of the entries that each pattern has, from a positive definite covariance (p, p).

    IN: masks (n_patterns, p), 1 where an entry is there; B (p, d).
    OUT: W (n_patterns, p, p) lower triangular, W C W' = I; S (n_patterns, p, d) = W B; rows of both
    are zero for missing entries; log_det (n_patterns,) = log |W|.
    """
    cdef MapTables tables
    if masks.shape[0] == 0:
        return
    tables.n_patterns, tables.p, tables.d = masks.shape[0], masks.shape[1], B.shape[1]
    tables.masks, tables.covariance, tables.B = &masks[0, 0], &covariance[0, 0], &B[0, 0]
    tables.W, tables.S, tables.log_det = &W[0, 0, 0], &S[0, 0, 0], &log_det[0]
    with nogil:
        map_tables(tables)


def map_rows_by_pattern(
    const double[:, ::1] X not None,
    const double[::1] centre not None,
    const double[:, ::1] shift,
    const Py_ssize_t[::1] pattern not None,
    Py_ssize_t first,
    const double[:, :, ::1] W not None,
    double[:, ::1] out not None,
):
    """OUT: out[t] = W[pattern[t] - first] (X - centre - shift)[t], a missing entry of X being 0.

    Rows whose pattern W does not have are left.
    """
    cdef RowMap rows = _row_map(X, centre, shift, out)
    rows.pattern = &pattern[0]
    rows.first, rows.n_maps, rows.W = first, W.shape[0], &W[0, 0, 0]
    with nogil:
        map_rows(rows)


def project_rows_by_pattern(
    const double[:, ::1] x not None,
    const Py_ssize_t[::1] pattern not None,
    Py_ssize_t first,
    const double[:, :, ::1] U not None,
    double[:, ::1] y not None,
    double[::1] rest not None,
):
    """Split rows into what lies in the columns of U[pattern] and the rest.

    IN: U (n, p, k) with orthonormal columns, of patterns first..first + n.
    OUT: y[t] = U'x[t] (k,), rest[t] = |x[t] - U y[t]|^2; other rows are left.
    """
    cdef Py_ssize_t n = x.shape[0], p = x.shape[1], k = U.shape[2], t, i, j, q
    cdef double total, value
    with nogil:
        for t in range(n):
            q = pattern[t] - first
            if q < 0 or q >= U.shape[0]:
                continue
            for i in range(k):
                y[t, i] = 0.0
            for j in range(p):
                value = x[t, j]
                for i in range(k):
                    y[t, i] += U[q, j, i] * value
            total = 0.0
            for j in range(p):
                value = x[t, j]
                for i in range(k):
                    value = value - U[q, j, i] * y[t, i]
                total = total + value * value
            rest[t] = total


def add_products_by_pattern(
    const double[:, ::1] h not None,
    const Py_ssize_t[::1] pattern not None,
    double[:, :, ::1] out not None,
):
    """OUT: out[pattern[t]] += h[t] h[t]', out (n_patterns, r, r)."""
    cdef Py_ssize_t n = h.shape[0], r = h.shape[1], t, i, j, q
    with nogil:
        for t in range(n):
            q = pattern[t]
            for i in range(r):
                for j in range(r):
                    out[q, i, j] += h[t, i] * h[t, j]


def transition_sums(
    const double[:, ::1] means not None,
    const double[:, ::1] A not None,
    const double[:, ::1] drift,
    const double[:, ::1] inputs,
    const Py_ssize_t[::1] offsets not None,
    double[:, ::1] gram not None,
    double[:, ::1] cross not None,
    double[:, ::1] second not None,
):
    """Sums over transitions of z z', w z' and w w'.

    z = (m_{t-1}, u_t), w = m_t - A m_{t-1} - drift_t

    IN: means (N, d); drift (N, d) and inputs (N, q), or both None.
    OUT: gram (d + q, d + q), cross (d, d + q), second (d, d), added to; d + q <= 32.
    """
    cdef Py_ssize_t d = means.shape[1], q = 0, i, j, t, s
    cdef double[32] z
    cdef double[32] w
    if inputs is not None:
        q = inputs.shape[1]
    with nogil:
        for s in range(offsets.shape[0] - 1):
            for t in range(offsets[s] + 1, offsets[s + 1]):
                for i in range(d):
                    z[i] = means[t - 1, i]
                    w[i] = means[t, i]
                    for j in range(d):
                        w[i] = w[i] - A[i, j] * means[t - 1, j]
                for i in range(q):
                    z[d + i] = inputs[t, i]
                if q > 0:
                    for i in range(d):
                        w[i] = w[i] - drift[t, i]
                for i in range(d + q):
                    for j in range(d + q):
                        gram[i, j] += z[i] * z[j]
                for i in range(d):
                    for j in range(d + q):
                        cross[i, j] += w[i] * z[j]
                    for j in range(d):
                        second[i, j] += w[i] * w[j]


def residual_sums(
    const double[:, ::1] X not None,
    const double[::1] centre not None,
    const double[:, ::1] shift,
    const double[:, ::1] B not None,
    const double[:, ::1] means not None,
    const double[:, ::1] inputs,
    const Py_ssize_t[::1] pattern,
    double[:, :, ::1] gram not None,
    double[:, ::1] cross not None,
    double[:, ::1] second not None,
):
    """Sums of h h' by pattern, of r h' and of r r'.

    h = (m_t, 1, u_t), r = x_t - centre - shift_t - B m_t

    A missing entry of X has r = 0.
    IN: X (N, p), means (N, d); shift (N, p) and inputs (N, q), or both None; pattern (N,) or None.
    OUT: gram (n_patterns, h, h), cross (p, h), second (p, p), added to; h = d + 1 + q and p <= 32.
    """
    cdef Py_ssize_t d = means.shape[1], p = X.shape[1], q = 0, size, i, j, t, which = 0
    cdef double[32] h
    cdef double[32] r
    cdef bint patterned = pattern is not None
    if inputs is not None:
        q = inputs.shape[1]
    size = d + 1 + q
    with nogil:
        for t in range(X.shape[0]):
            for i in range(d):
                h[i] = means[t, i]
            h[d] = 1.0
            for i in range(q):
                h[d + 1 + i] = inputs[t, i]
            for i in range(p):
                r[i] = X[t, i] - centre[i]
                if q > 0:
                    r[i] = r[i] - shift[t, i]
                for j in range(d):
                    r[i] = r[i] - B[i, j] * h[j]
                if isnan(r[i]):
                    r[i] = 0.0
            if patterned:
                which = pattern[t]
            for i in range(size):
                for j in range(size):
                    gram[which, i, j] += h[i] * h[j]
            for i in range(p):
                for j in range(size):
                    cross[i, j] += r[i] * h[j]
                for j in range(p):
                    second[i, j] += r[i] * r[j]
