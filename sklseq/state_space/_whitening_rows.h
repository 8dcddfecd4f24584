// Whitening maps, and rows times them.  P: the number of features where it is small, so that loops over it
// unroll; 0: any number.
#ifndef SKLSEQ_WHITENING_ROWS_H
#define SKLSEQ_WHITENING_ROWS_H

#include <cmath>
#include <cstddef>
#include <vector>

namespace sklseq {

struct RowMap {
    std::ptrdiff_t n, p;
    const double* X;               // (n, p), NaN is missing
    const double* centre;          // (p,)
    const double* shift;           // (n, p), or null
    const std::ptrdiff_t* pattern;  // (n,), or null: all 0
    std::ptrdiff_t first, n_maps;  // the patterns that W has
    const double* W;               // (n_maps, p, p)
    double* out;                   // (n, p)
};

template <int P>
bool map_rows_of(const RowMap& m) {
    const std::ptrdiff_t p = P ? P : m.p;
    std::vector<double> buffer(p);
    double fixed[P ? P : 1];
    double* x = P ? fixed : buffer.data();
    for (std::ptrdiff_t t = 0; t < m.n; ++t) {
        const std::ptrdiff_t q = m.pattern ? m.pattern[t] - m.first : 0;
        if (q < 0 || q >= m.n_maps) continue;
        bool complete = true;
        for (std::ptrdiff_t j = 0; j < p; ++j) {
            const double value =
                m.X[t * p + j] - m.centre[j] - (m.shift ? m.shift[t * p + j] : 0.0);
            complete = complete && value == value;
            x[j] = value == value ? value : 0.0;
        }
        if (!complete && !m.pattern) return false;
        const double* w = m.W + q * p * p;
        for (std::ptrdiff_t i = 0; i < p; ++i, w += p) {
            double total = 0.0;
            for (std::ptrdiff_t j = 0; j < p; ++j) total += w[j] * x[j];
            m.out[t * p + i] = total;
        }
    }
    return true;
}

// out[t] = W[pattern[t] - first] (X - centre - shift)[t], a missing entry being 0.  Without patterns
// returns false at the first missing entry.
inline bool map_rows(const RowMap& m) {
    switch (m.p) {
        case 1: return map_rows_of<1>(m);
        case 2: return map_rows_of<2>(m);
        case 3: return map_rows_of<3>(m);
        case 4: return map_rows_of<4>(m);
    }
    return map_rows_of<0>(m);
}

struct MapTables {
    std::ptrdiff_t n_patterns, p, d;
    const unsigned char* masks;  // (n_patterns, p), 1 where an entry is there
    const double* covariance;    // (p, p), positive definite
    const double* B;             // (p, d)
    double* W;                   // (n_patterns, p, p)
    double* S;                   // (n_patterns, p, d)
    double* log_det;             // (n_patterns,)
};

// Of each pattern: W, lower triangular, with W C W' = I for the entries that are there and zero for
// the others, S = W B and log_det = log |W|.  The rows of L^-1 one by one, with L L' = C.
inline void map_tables(const MapTables& m) {
    const std::ptrdiff_t p = m.p, d = m.d;
    std::vector<double> factor(p * p);
    double* L = factor.data();
    for (std::ptrdiff_t q = 0; q < m.n_patterns; ++q) {
        const unsigned char* seen = m.masks + q * p;
        double* W = m.W + q * p * p;
        double* S = m.S + q * p * d;
        double log_det = 0.0;
        for (std::ptrdiff_t e = 0; e < p * p; ++e) W[e] = 0.0;
        for (std::ptrdiff_t e = 0; e < p * d; ++e) S[e] = 0.0;
        for (std::ptrdiff_t i = 0; i < p; ++i) {
            if (!seen[i]) continue;
            double pivot = m.covariance[i * p + i];
            double* w = W + i * p;
            double* s = S + i * d;
            for (std::ptrdiff_t j = 0; j < d; ++j) s[j] = m.B[i * d + j];
            for (std::ptrdiff_t j = 0; j < i; ++j) {
                if (!seen[j]) continue;
                double entry = m.covariance[i * p + j];
                for (std::ptrdiff_t l = 0; l < j; ++l)
                    if (seen[l]) entry -= L[i * p + l] * L[j * p + l];
                entry /= L[j * p + j];
                L[i * p + j] = entry;
                pivot -= entry * entry;
                for (std::ptrdiff_t l = 0; l <= j; ++l) w[l] -= entry * W[j * p + l];
                for (std::ptrdiff_t l = 0; l < d; ++l) s[l] -= entry * S[j * d + l];
            }
            const double root = std::sqrt(pivot);
            L[i * p + i] = root;
            w[i] = 1.0;
            for (std::ptrdiff_t l = 0; l <= i; ++l) w[l] /= root;
            for (std::ptrdiff_t l = 0; l < d; ++l) s[l] /= root;
            log_det -= std::log(root);
        }
        m.log_det[q] = log_det;
    }
}

}  // namespace sklseq

#endif
