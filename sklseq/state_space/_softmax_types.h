// What the softmax kernels are handed.
#ifndef SKLSEQ_SOFTMAX_TYPES_H
#define SKLSEQ_SOFTMAX_TYPES_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sklseq {

typedef std::ptrdiff_t Index;

constexpr int LANES = 16;  // states side by side
constexpr int CHUNK = 32;  // words at a time
constexpr int BLOCKS = 32; // of lanes at a time, in sums over states

// A softmax over words: logits B s + b.
struct Words {
    Index V;
    int d;
    const double* B;  // (V, d)
    const double* b;  // (V,)
};

// Steps with counts y_t, and Gaussian beliefs about their states.
struct Sites {
    Words words;
    Index n_steps;
    const double* totals;   // (n,) sum of y_t
    const double* count_B;  // (n, d) y_t' B
    const double* count_b;  // (n,) y_t' b
    const double* means;    // (n, d)
    const double* covs;     // (n, d, d)
    int n_nodes;
    const double* nodes;    // (n_nodes, d) of a rule for N(0, I)
    const double* weights;  // (n_nodes,)
    double* value;          // OUT (n,) E log p(y_t | s)
    double* linear;         // OUT (n, d) derivative with respect to the mean, plus curvature * mean
    double* curvature;      // OUT (n, d, d) minus twice that with respect to the covariance
};

// One sequence, or a run of its steps, for the twisted particle filter.
struct Particles {
    Words words;
    Index n_steps, K;
    const double* totals;
    const double* count_B;
    const double* count_b;
    const double* means;        // (n, d) of q
    const double* mean_before;  // (d,) of the step before the run; null where a sequence opens
    const double* gains;        // (n, d, d) q: E[s_t | s_t-1] = mean_t + gain_t (s_t-1 - mean_t-1)
    const double* roots;        // (n, d, d) factors of Cov(s_t | s_t-1); at the opening of Cov(s_1)
    const double* y;            // (n, d) the sites of q
    const double* S;            // (n, d, d)
    const double* normals;      // (n, K, d)
    const double* uniforms;     // (n,)
    double* states;             // IN/OUT (K, d)
    double* log_weights;        // IN/OUT (K,) of normalised weights
    double* increments;         // OUT (n,) log-likelihood increments, without the pass's share
    double* paths;              // OUT (n, K, d), or null
    double* path_weights;       // OUT (n, K), or null
};

// All sequences, for the moment-matched filter.
struct Matched {
    Words words;
    Index n_sequences;
    const Index* offsets;
    const double* totals;
    const double* count_B;
    const double* count_b;
    const double* A;             // (d, d)
    const double* Gamma;         // (d, d)
    const double* m0;            // (d,)
    const double* P0;            // (d, d)
    int n_nodes;
    const double* nodes;         // rule that places the fine rule
    const double* weights;
    int n_fine;
    const double* fine_nodes;    // rule of the moments
    const double* fine_weights;
    double* log_p;               // OUT (N,)
    double* out_means;           // OUT (N, d)
    double* out_covs;            // OUT (N, d, d)
};

}  // namespace sklseq

#endif
