// The linear-Gaussian pass: what goes in, what comes out, and the memory it works in.
#ifndef SKLSEQ_PASS_TYPES_H
#define SKLSEQ_PASS_TYPES_H

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

// for what is called from several places and not often enough to be worth a copy in each
#ifdef _MSC_VER
#define SKLSEQ_NOINLINE __declspec(noinline)
#else
#define SKLSEQ_NOINLINE __attribute__((noinline))
#endif

namespace sklseq {

typedef std::ptrdiff_t Index;

// Fortran dgemm, handed over by the .pyx from scipy.linalg.cython_blas.
typedef void (*Gemm)(char*, char*, int*, int*, int*, double*, double*, int*, double*, int*,
                     double*, double*, int*);

// One call of the pass.  Pointers to what is not wanted (or not there) are null.
struct Pass {
    // ---- IN: the evidence
    Index n_sequences;
    const Index* offsets;         // (n_sequences + 1,)
    int d, k;
    const double* y;              // (N, k)
    const double* S;              // (n_patterns, k, d)
    const double* noise;          // (n_patterns, k) variances, 1 or 0; null: all one
    const Index* pattern;         // (N,); null: every step has pattern 0
    Index n_patterns;
    // ---- IN: the chain
    const double* A;              // (d, d), or (n_times, d, d) with A_stride = d * d
    const double* Q;              // likewise
    Index A_stride, Q_stride;
    const double* drift;          // (N, d) added to the state at step t; null: none
    const double* m0;             // (d,)
    const double* P0;             // (d, d)
    Gemm gemm;
    // ---- OUT: the filter
    double* sequence_ll;          // (n_sequences,)
    double* step_ll;              // (N,)
    double* filtered_means;       // (N, d)
    double* filtered_covs;        // (N, d, d)
    double* final_means;          // (n_sequences, d) filtered at the last step
    double* final_covs;           // (n_sequences, d, d)
    // ---- OUT: the smoother
    double* means;                // (N, d)
    double* covs;                 // (N, d, d)
    double* lag_one;              // (N, d, d)
    // ---- OUT: sums of covariances, added to (all or none)
    double* sum_previous;         // (d, d) over transitions, of the state before
    double* sum_next;             // (d, d) over transitions, of the state after
    double* sum_lag;              // (d, d) over transitions, Cov(after, before)
    double* sum_first;            // (d, d) over first steps
    double* sum_pattern;          // (n_patterns, d, d) over the steps of each pattern
    double* sum_cross;            // (d, d) over transitions, Cov(w, before), w = after - A before
    double* sum_second;           // (d, d) over transitions, Cov(w); both or none
    // ---- OUT
    std::int8_t* form;            // (n_sequences,) 0 plain, 1 square-root

    bool smooths() const { return means != nullptr; }
    bool sums() const { return sum_previous != nullptr; }
    bool disturbances() const { return sum_second != nullptr; }
    bool time_varying() const { return A_stride != 0 || Q_stride != 0; }
    Index pattern_at(Index row) const { return pattern ? pattern[row] : 0; }
    const double* S_of(Index q) const { return S + q * k * d; }
    const double* noise_of(Index q) const { return noise ? noise + q * k : nullptr; }
    const double* A_at(Index t) const { return A + t * A_stride; }
    const double* Q_at(Index t) const { return Q + t * Q_stride; }
};

// Sequences in order of their lengths, equal ones as they were.
inline void sort_by_length(const Pass& p, std::vector<Index>& sequences, bool longest_first) {
    const Index* offsets = p.offsets;
    std::stable_sort(sequences.begin(), sequences.end(), [=](Index a, Index b) {
        const Index difference = (offsets[a + 1] - offsets[a]) - (offsets[b + 1] - offsets[b]);
        return longest_first ? difference > 0 : difference < 0;
    });
}

// A sequence is redone in square-root form when a whitened innovation variance passes
// WORST_VARIANCE; smoothed, also when a pivot of a predicted covariance falls below WORST_PIVOT of
// its diagonal, or that below LEAST_SHARE of the largest so far; for sums of disturbances, also when
// the noise of a state is less than LEAST_NOISE of its predicted variance.  (A pivot of 1e-10 has
// cost eleven digits of a smoothed covariance.)
constexpr double WORST_VARIANCE = 1e5;
constexpr double WORST_PIVOT = 1e-5;
constexpr double LEAST_SHARE = 1e-10;
constexpr double LEAST_NOISE = 1e-9;
constexpr double STEADY = 1e-14;
constexpr double HALF_LOG_2PI = 0.91893853320467274178;
constexpr double LARGEST = 1.797693134862315708e308;
constexpr double EPS = 2.220446049250313e-16;

}  // namespace sklseq

#endif
