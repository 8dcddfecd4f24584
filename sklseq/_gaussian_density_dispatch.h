/* Gaussian log-densities of all rows: packs the parameters once, then the widest kernel. */
#ifndef SKLSEQ_DENSITY_DISPATCH_H
#define SKLSEQ_DENSITY_DISPATCH_H

#include "_gaussian_parameters.h"

typedef struct {
    int width;
    void (*all_rows)(const gaussian *g, ptrdiff_t N, const double *X, ptrdiff_t steps,
                     double *space, double *log_obs);
} density_kernel;
typedef density_kernel kernel_choice;

#define KERNELS "_gaussian_density.h"
#include "_dispatch.h"

/* spread: precisions (K, D), or with `full` the whitening triangles (K, D, D).  -1: no memory. */
static int gaussian_log_density(ptrdiff_t N, ptrdiff_t K, ptrdiff_t D, const double *X,
                                const double *means, const double *spread, int full,
                                double *log_obs)
{
    const density_kernel *kernel = choose_kernels();
    gaussian g;
    ptrdiff_t steps = 4096 / (K + D) / 8 * 8; /* a block of about 256 kB */
    steps = steps < 8 ? 8 : steps > 64 ? 64 : steps;
    if (pack_gaussian(K, D, means, spread, full, &g)) return -1;
    void *space = malloc(((steps + DENSITY_MARGIN) * (D + K) * kernel->width + 8) * sizeof(double));
    if (space != NULL)
        kernel->all_rows(&g, N, X, steps, (double *)(((uintptr_t)space + 63) & ~(uintptr_t)63),
                         log_obs);
    free(space);
    free(g.constants);
    return space == NULL ? -1 : 0;
}

#endif
