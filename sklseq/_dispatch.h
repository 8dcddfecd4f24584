/* The header named by KERNELS for several instruction sets in one object, each defining
 * kernels_<set> of type kernel_choice, and the choice between them at run time.
 * SKLSEQ_PORTABLE compiles the baseline alone (SSE2, NEON, or whatever vectors of 16
 * bytes become); compilers without GCC's vector types, and SKLSEQ_PLAIN_C, get plain doubles.
 * SKLSEQ_NO_AVX512 leaves out the widest, to measure what a machine without it would do.
 */
#ifndef SKLSEQ_DISPATCH_H
#define SKLSEQ_DISPATCH_H

#if defined(__GNUC__) && !defined(SKLSEQ_PLAIN_C)
#define BASE_WIDTH 2
#else
#define BASE_WIDTH 1
#endif

#if BASE_WIDTH == 2 && defined(__x86_64__)
#include <immintrin.h>
#ifndef SKLSEQ_PORTABLE
#define MANY_SETS
#endif
#endif

#ifdef MANY_SETS
#ifdef __clang__
#define BEGIN_AVX2 \
    _Pragma("clang attribute push(__attribute__((target(\"avx2,fma\"))), apply_to = function)")
#define BEGIN_AVX512                                                                        \
    _Pragma("clang attribute push(__attribute__((target(\"avx512f,avx512dq,avx512bw,avx512vl,fma\"))), apply_to = function)")
#define END_TARGET _Pragma("clang attribute pop")
#else
#define BEGIN_AVX2 _Pragma("GCC push_options") _Pragma("GCC target(\"avx2,fma\")")
#define BEGIN_AVX512 \
    _Pragma("GCC push_options") _Pragma("GCC target(\"avx512f,avx512dq,avx512bw,avx512vl,fma\")")
#define END_TARGET _Pragma("GCC pop_options")
#endif

#ifndef SKLSEQ_NO_AVX512
BEGIN_AVX512
#define ISA avx512
#define W 8
#include "_one_set.h"
#undef ISA
#undef W
END_TARGET
#endif

BEGIN_AVX2
#define ISA avx2
#define W 4
#include "_one_set.h"
#undef ISA
#undef W
END_TARGET
#endif

#define ISA baseline
#define W BASE_WIDTH
#include "_one_set.h"
#undef ISA
#undef W

static const kernel_choice *choose_kernels(void)
{
#ifdef MANY_SETS
    __builtin_cpu_init();
#ifndef SKLSEQ_NO_AVX512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return &kernels_avx512;
#endif
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &kernels_avx2;
#endif
    return &kernels_baseline;
}

#endif
