// The softmax kernels compiled for several instruction sets, and the choice between them at run time.
#ifndef SKLSEQ_SOFTMAX_DISPATCH_H
#define SKLSEQ_SOFTMAX_DISPATCH_H

#include "_softmax_types.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(SKLSEQ_PORTABLE)
#define SKLSEQ_SOFTMAX_WIDE 1
#endif

namespace sklseq {

#ifdef __GNUC__
#define SKLSEQ_WIDTH 2
#else
#define SKLSEQ_WIDTH 1
#endif
namespace softmax_baseline {
#include "_softmax_words.h"
#include "_softmax_sites.h"
#include "_softmax_particles.h"
#include "_softmax_matched.h"
}  // namespace softmax_baseline
#undef SKLSEQ_WIDTH

#ifdef SKLSEQ_SOFTMAX_WIDE
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define SKLSEQ_WIDTH 4
namespace softmax_avx2 {
#include "_softmax_words.h"
#include "_softmax_sites.h"
#include "_softmax_particles.h"
#include "_softmax_matched.h"
}  // namespace softmax_avx2
#undef SKLSEQ_WIDTH
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512dq,avx512vl,avx512bw,prefer-vector-width=512")
#define SKLSEQ_WIDTH 8
namespace softmax_avx512 {
#include "_softmax_words.h"
#include "_softmax_sites.h"
#include "_softmax_particles.h"
#include "_softmax_matched.h"
}  // namespace softmax_avx512
#undef SKLSEQ_WIDTH
#pragma GCC pop_options

// 0 baseline, 1 AVX2, 2 AVX-512
inline int softmax_level() {
    static const int level = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                                     __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")
                                 ? 2
                             : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 1 : 0;
    return level;
}
#define SKLSEQ_SOFTMAX_CALL(call)                      \
    switch (softmax_level()) {                         \
        case 2: return softmax_avx512::call;           \
        case 1: return softmax_avx2::call;             \
        default: return softmax_baseline::call;        \
    }
#else
#define SKLSEQ_SOFTMAX_CALL(call) return softmax_baseline::call;
#endif

// Scratch that begins at a cache line, as packs ask for.
inline double* aligned(double* work) {
    const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(work);
    return reinterpret_cast<double*>((address + 63) / 64 * 64);
}

inline void site_expectations(const Sites& s, double* work) {
    work = aligned(work);
    SKLSEQ_SOFTMAX_CALL(site_expectations(s, work))
}
inline double expected_normalisers(const Sites& s, double* slope, double* work) {
    work = aligned(work);
    SKLSEQ_SOFTMAX_CALL(expected_normalisers(s, slope, work))
}
inline void normalisers(const Words& w, Index n, const double* states, double* lse, double* work) {
    work = aligned(work);
    SKLSEQ_SOFTMAX_CALL(normalisers(w, n, states, lse, work))
}
inline void site_evidence(Index n, int d, const double* means, const double* linear,
                          const double* H, double* y, double* S, double* work) {
    softmax_baseline::site_evidence(n, d, means, linear, H, y, S, work);
}
inline void site_misfits(Index n, int d, const double* y, const double* S, const double* means,
                         const double* covs, double* out) {
    softmax_baseline::site_misfits(n, d, y, S, means, covs, out);
}
inline void run_particles(const Particles& p, double* work) {
    work = aligned(work);
    SKLSEQ_SOFTMAX_CALL(run_particles(p, work))
}
inline void run_matched(const Matched& p, double* work) {
    work = aligned(work);
    SKLSEQ_SOFTMAX_CALL(run_matched(p, work))
}

}  // namespace sklseq

#endif
