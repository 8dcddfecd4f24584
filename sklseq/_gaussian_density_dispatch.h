/* Gaussian log-densities of all rows: packs the parameters once, then the widest kernel. */
#ifndef SKLSEQ_DENSITY_DISPATCH_H
#define SKLSEQ_DENSITY_DISPATCH_H

#include "_portable.h"

typedef struct {
    int width, together;
    void (*all_rows)(ptrdiff_t N, ptrdiff_t K, ptrdiff_t D, const double *X, const double *table,
                     const double *tiles, ptrdiff_t tiles_size, const double *constants,
                     ptrdiff_t steps, double *space, double *log_obs);
} density_kernel;
typedef density_kernel kernel_choice;

#define KERNELS "_gaussian_density.h"
#include "_dispatch.h"

#define LOG_2_PI 1.8378770664093454835606594728112

/* Lower triangles in tiles of 4 rows, each tile column by column; returns the size of one. */
static ptrdiff_t whitening_size(ptrdiff_t D)
{
    ptrdiff_t size = 0;
    for (ptrdiff_t i = 0; i < D; i += 4) size += 4 * (i + 4 < D ? i + 4 : D);
    return size;
}

static void pack_whitening(ptrdiff_t D, const double *triangle, double *packed)
{
    for (ptrdiff_t i = 0; i < D; i += 4) {
        const ptrdiff_t columns = i + 4 < D ? i + 4 : D;
        for (ptrdiff_t j = 0; j < columns; j++)
            for (ptrdiff_t p = 0; p < 4; p++)
                *packed++ = i + p < D && j <= i + p ? triangle[(i + p) * D + j] : 0.0;
    }
}

/* spread: precisions (K, D), or with `full` the whitening triangles (K, D, D).  -1: no memory. */
static int gaussian_log_density(ptrdiff_t N, ptrdiff_t K, ptrdiff_t D, const double *X,
                                const double *means, const double *spread, int full,
                                double *log_obs)
{
    const density_kernel *kernel = choose_kernels();
    ptrdiff_t steps = 4096 / (K + D) / 8 * 8; /* a block of about 256 kB */
    steps = steps < 8 ? 8 : steps > 64 ? 64 : steps;
    const ptrdiff_t size = full ? whitening_size(D) : 0;
    const ptrdiff_t n_space =
        ((steps + 3) * (D + K) + kernel->together * D) * kernel->width + 8;
    double *constants = malloc((K * (size + 3 * D + 1) + n_space) * sizeof(double));
    if (constants == NULL) return -1;
    double *table = constants + K * (D + 1), *tiles = table + 2 * K * D;
    double *space =
        (double *)(((uintptr_t)(tiles + K * size) + 63) & ~(uintptr_t)63);
    for (ptrdiff_t k = 0; k < K; k++) {
        if (full) {
            constants[k] = 0;
            for (ptrdiff_t d = 0; d < D; d++) {
                constants[k] += LOG_2_PI - 2 * log(spread[(k * D + d) * D + d]);
                table[k * D + d] = means[k * D + d];
            }
            pack_whitening(D, spread + k * D * D, tiles + k * size);
        } else {
            constants[K * D + k] = 0;
            for (ptrdiff_t d = 0; d < D; d++) {
                constants[k * D + d] = LOG_2_PI - log(spread[k * D + d]);
                constants[K * D + k] += constants[k * D + d];
                table[2 * (k * D + d)] = means[k * D + d];
                table[2 * (k * D + d) + 1] = spread[k * D + d];
            }
        }
    }
    kernel->all_rows(N, K, D, X, table, full ? tiles : NULL, size, constants, steps, space, log_obs);
    free(constants);
    return 0;
}

#endif
