# distutils: language = c++
"""Row by row: which entries are there, and whitened observations.

IN arrays are C-contiguous; N rows, p features, k scalar observations.
"""

import numpy as np

from libc.math cimport isnan
from libc.stdint cimport uint64_t
from libcpp.string cimport string
from libcpp.unordered_map cimport unordered_map


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
    cdef unordered_map[uint64_t, Py_ssize_t] numbers
    cdef uint64_t word, last_word = 0
    cdef Py_ssize_t t, j, last = -1
    cdef list firsts = []
    for t in range(X.shape[0]):
        word = 0
        for j in range(X.shape[1]):
            word |= <uint64_t>(1 if isnan(X[t, j]) else 0) << j
        if last < 0 or word != last_word:
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
    cdef Py_ssize_t n = X.shape[0], p = X.shape[1], t, j, missing = 0
    cdef double x
    cdef bint shifted = shift is not None
    with nogil:
        for t in range(n):
            for j in range(p):
                x = X[t, j] - centre[j]
                if shifted:
                    x = x - shift[t, j]
                if isnan(x):
                    missing += 1
                    x = 0.0
                out[t, j] = x * weights[j]
    return missing


def map_rows_by_pattern(
    const double[:, ::1] x not None,
    const Py_ssize_t[::1] pattern not None,
    Py_ssize_t first,
    const double[:, :, ::1] W not None,
    double[:, ::1] out not None,
):
    """OUT: out[t] = W[pattern[t] - first] x[t] for the rows whose pattern W has; others are left."""
    cdef Py_ssize_t n = x.shape[0], p = x.shape[1], k = W.shape[1], t, i, j, q
    cdef double total
    with nogil:
        for t in range(n):
            q = pattern[t] - first
            if q < 0 or q >= W.shape[0]:
                continue
            for i in range(k):
                total = 0.0
                for j in range(p):
                    total = total + W[q, i, j] * x[t, j]
                out[t, i] = total


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
