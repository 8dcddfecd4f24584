// Rows times small matrices.  P: the number of features where it is small, so that loops over it
// unroll; 0: any number.
#ifndef SKLSEQ_WHITENING_ROWS_H
#define SKLSEQ_WHITENING_ROWS_H

#include <cstddef>
#include <vector>

namespace sklseq {

struct RowMap {
    std::ptrdiff_t n, p;
    const double* X;               // (n, p), NaN is missing
    const double* centre;          // (p,)
    const double* shift;           // (n, p), or null
    const std::ptrdiff_t* pattern;  // (n,)
    std::ptrdiff_t first, n_maps;  // the patterns that W has
    const double* W;               // (n_maps, p, p)
    double* out;                   // (n, p)
};

template <int P>
void map_rows_of(const RowMap& m) {
    const std::ptrdiff_t p = P ? P : m.p;
    std::vector<double> buffer(p);
    double fixed[P ? P : 1];
    double* x = P ? fixed : buffer.data();
    for (std::ptrdiff_t t = 0; t < m.n; ++t) {
        const std::ptrdiff_t q = m.pattern[t] - m.first;
        if (q < 0 || q >= m.n_maps) continue;
        for (std::ptrdiff_t j = 0; j < p; ++j) {
            const double value =
                m.X[t * p + j] - m.centre[j] - (m.shift ? m.shift[t * p + j] : 0.0);
            x[j] = value == value ? value : 0.0;
        }
        const double* w = m.W + q * p * p;
        for (std::ptrdiff_t i = 0; i < p; ++i, w += p) {
            double total = 0.0;
            for (std::ptrdiff_t j = 0; j < p; ++j) total += w[j] * x[j];
            m.out[t * p + i] = total;
        }
    }
}

// out[t] = W[pattern[t] - first] (X - centre - shift)[t], a missing entry being 0
inline void map_rows(const RowMap& m) {
    switch (m.p) {
        case 1: return map_rows_of<1>(m);
        case 2: return map_rows_of<2>(m);
        case 3: return map_rows_of<3>(m);
        case 4: return map_rows_of<4>(m);
    }
    map_rows_of<0>(m);
}

}  // namespace sklseq

#endif
