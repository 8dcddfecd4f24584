// The pass compiled for several instruction sets, and the choice between them at run time.
#ifndef SKLSEQ_PASS_DISPATCH_H
#define SKLSEQ_PASS_DISPATCH_H

#include "_pass_types.h"

#if !defined(SKLSEQ_PORTABLE) && defined(__x86_64__) && defined(__GNUC__)
#define SKLSEQ_PASS_X86 1
#endif

namespace sklseq {

#define SKLSEQ_LANES 2
namespace baseline {
#include "_pass_vector.h"
#include "_pass_matrix.h"
#include "_pass_engines.h"
#include "_pass_driver.h"
#include "_pass_lanes.h"
#include "_pass_run.h"
}  // namespace baseline
#undef SKLSEQ_LANES

#ifdef SKLSEQ_PASS_X86

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define SKLSEQ_LANES 4
namespace avx2 {
#include "_pass_vector.h"
#include "_pass_matrix.h"
#include "_pass_engines.h"
#include "_pass_driver.h"
#include "_pass_lanes.h"
#include "_pass_run.h"
}  // namespace avx2
#undef SKLSEQ_LANES
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,avx512f,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512dq,avx512vl,prefer-vector-width=512")
#endif
#define SKLSEQ_LANES 8
namespace avx512 {
#include "_pass_vector.h"
#include "_pass_matrix.h"
#include "_pass_engines.h"
#include "_pass_driver.h"
#include "_pass_lanes.h"
#include "_pass_run.h"
}  // namespace avx512
#undef SKLSEQ_LANES
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // SKLSEQ_PASS_X86

inline void run_pass(const Pass& p) {
#ifdef SKLSEQ_PASS_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return avx512::run(p);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::run(p);
#endif
    baseline::run(p);
}

}  // namespace sklseq

#endif
