// The kernels compiled for several instruction sets, and the choice among them at run time.
//
// x86-64 with GCC or Clang: AVX-512, AVX2 and the baseline (SSE2); other processors with these
// compilers: the baseline (NEON on ARM); other compilers: plain C++.  SKLSEQ_PORTABLE leaves the
// baseline alone.
#ifndef SKLSEQ_RNN_INSTRUCTION_SETS_H
#define SKLSEQ_RNN_INSTRUCTION_SETS_H

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#if defined(__GNUC__) && defined(__x86_64__) && !defined(SKLSEQ_PORTABLE)
#define SKLSEQ_DISPATCH 1
#else
#define SKLSEQ_DISPATCH 0
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed to inlined functions only
#endif

namespace sklseq {

#include "_layer_weights.h"

namespace baseline {
#if defined(__GNUC__)
#define SKLSEQ_LANE_BYTES 16
#else
#define SKLSEQ_LANE_BYTES 0
#endif
#define SKLSEQ_PANEL_VECTORS 2
#define SKLSEQ_TARGET
#include "_kernel_bodies.h"
}  // namespace baseline

#if SKLSEQ_DISPATCH
namespace avx2 {
#define SKLSEQ_LANE_BYTES 32
#define SKLSEQ_PANEL_VECTORS 2
#define SKLSEQ_TARGET __attribute__((target("avx2,fma")))
#include "_kernel_bodies.h"
}  // namespace avx2

namespace avx512 {
#define SKLSEQ_LANE_BYTES 64
#define SKLSEQ_PANEL_VECTORS 4
#define SKLSEQ_TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#include "_kernel_bodies.h"
}  // namespace avx512
#endif

// 0 baseline, 1 AVX2, 2 AVX-512: the widest that this machine has.
inline int widest_instruction_set() {
#if SKLSEQ_DISPATCH
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

// The one in use; the tests set narrower ones to run them all on one machine.
inline int& instruction_set() {
    static int chosen = widest_instruction_set();
    return chosen;
}

#if SKLSEQ_DISPATCH
#define SKLSEQ_CHOOSE(NAME)                                              \
    template <class T, class... Arguments> auto NAME(Arguments... given) { \
        switch (instruction_set()) {                                     \
        case 2: return avx512::template NAME<T>(given...);               \
        case 1: return avx2::template NAME<T>(given...);                 \
        default: return baseline::template NAME<T>(given...);            \
        }                                                                \
    }
#else
#define SKLSEQ_CHOOSE(NAME)                                              \
    template <class T, class... Arguments> auto NAME(Arguments... given) { \
        return baseline::template NAME<T>(given...);                     \
    }
#endif

SKLSEQ_CHOOSE(packed_size)
SKLSEQ_CHOOSE(pack)
SKLSEQ_CHOOSE(product)
SKLSEQ_CHOOSE(add_weight_gradient)
SKLSEQ_CHOOSE(layer_forward)
SKLSEQ_CHOOSE(layer_backward)
SKLSEQ_CHOOSE(input_gradient)
SKLSEQ_CHOOSE(pool_forward)
SKLSEQ_CHOOSE(pool_backward)
SKLSEQ_CHOOSE(dropout)
SKLSEQ_CHOOSE(softmax)
SKLSEQ_CHOOSE(cross_entropy)
SKLSEQ_CHOOSE(sum_of_squares)
SKLSEQ_CHOOSE(adam_step)
SKLSEQ_CHOOSE(move_average)
SKLSEQ_CHOOSE(add_rows)
SKLSEQ_CHOOSE(draw_symbols)

}  // namespace sklseq

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif
