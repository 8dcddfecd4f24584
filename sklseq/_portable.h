/* What every header here needs of the language and its compilers. */
#ifndef SKLSEQ_PORTABLE_H
#define SKLSEQ_PORTABLE_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WIDTH 8 /* doubles in the widest vector */
#define EXP_FLOOR (-700.0) /* exp of anything finite is taken to be at least that of this */

#if defined(__GNUC__) && !defined(SKLSEQ_PLAIN_C)
#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline, unused)) /* one copy, whoever calls */
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#else
#define INLINE static inline
#define APART static
#define UNROLL
#endif

#endif
