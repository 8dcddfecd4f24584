/* Weighted moments of all rows by the widest kernel. */
#ifndef SKLSEQ_GAUSSIAN_MOMENTS_H
#define SKLSEQ_GAUSSIAN_MOMENTS_H

#include "_portable.h"

typedef struct {
    int width;
    void (*all_moments)(ptrdiff_t N, ptrdiff_t K, ptrdiff_t D, int full, const double *X,
                        const double *posteriors, const double *means, ptrdiff_t n_sums,
                        double *sums, ptrdiff_t steps, double *space);
} moments_kernel;
typedef moments_kernel kernel_choice;

#define KERNELS "_gaussian_moments_kernel.h"
#include "_dispatch.h"

/* INOUT sums: weights (K, D), first (K, D), second (K, D); with `full` weights (K,), first (K, D),
 * second (K, D, D), lower triangles only.  -1: no memory. */
static int gaussian_moments(ptrdiff_t N, ptrdiff_t K, ptrdiff_t D, int full, const double *X,
                            const double *posteriors, const double *means, ptrdiff_t n_sums,
                            double *sums)
{
    const moments_kernel *kernel = choose_kernels();
    ptrdiff_t steps = 4096 / (K + 3 * D) / 8 * 8; /* a block of about 256 kB */
    steps = steps < 8 ? 8 : steps > 64 ? 64 : steps;
    const size_t size = (n_sums + steps * (3 * D + K)) * kernel->width + 8;
    void *space = malloc(size * sizeof(double));
    if (space == NULL) return -1;
    double *aligned = (double *)(((uintptr_t)space + 63) & ~(uintptr_t)63);
    kernel->all_moments(N, K, D, full, X, posteriors, means, n_sums, sums, steps, aligned);
    free(space);
    return 0;
}

#endif
