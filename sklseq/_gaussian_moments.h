/* Weighted moments of all rows by the widest kernel. */
#ifndef SKLSEQ_GAUSSIAN_MOMENTS_H
#define SKLSEQ_GAUSSIAN_MOMENTS_H

#include "_portable.h"

typedef struct {
    int width;
    void (*all_moments)(ptrdiff_t N, ptrdiff_t K, ptrdiff_t D, const double *X,
                        const double *posteriors, const double *means, double *weights,
                        double *first, double *second, ptrdiff_t steps, double *space);
} moments_kernel;
typedef moments_kernel kernel_choice;

#define KERNELS "_gaussian_moments_kernel.h"
#include "_dispatch.h"

/* Sums are added to weights (NULL: full covariances), first and second.  -1: no memory. */
static int gaussian_moments(ptrdiff_t N, ptrdiff_t K, ptrdiff_t D, const double *X,
                            const double *posteriors, const double *means, double *weights,
                            double *first, double *second)
{
    const moments_kernel *kernel = choose_kernels();
    ptrdiff_t steps = 4096 / (K + 3 * D) / 8 * 8; /* a block of about 256 kB */
    steps = steps < 8 ? 8 : steps > 64 ? 64 : steps;
    void *space = malloc((steps * (3 * D + K) * kernel->width + 8) * sizeof(double));
    if (space == NULL) return -1;
    double *aligned = (double *)(((uintptr_t)space + 63) & ~(uintptr_t)63);
    kernel->all_moments(N, K, D, X, posteriors, means, weights, first, second, steps, aligned);
    free(space);
    return 0;
}

#endif
