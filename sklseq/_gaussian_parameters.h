/* The parameters of K Gaussians, packed for the blocks of _gaussian_density_block.h. */
#ifndef SKLSEQ_GAUSSIAN_PARAMETERS_H
#define SKLSEQ_GAUSSIAN_PARAMETERS_H

#include "_portable.h"

#define LOG_2_PI 1.8378770664093454835606594728112
#define DENSITY_MARGIN 8 /* steps of room that a block needs beyond its own */

/* Diagonal: table (K, D, 2) mean and precision; constants (K, D): log 2 pi - log precision, and
 * after them their sums (K,).  Full: table (K, D) means, tiles see pack_whitening, constants (K,). */
typedef struct {
    ptrdiff_t K, D;
    int full;
    ptrdiff_t tiles_size;
    double *constants, *table, *tiles;
} gaussian;

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

/* OUT g, whose memory free(g->constants) gives back.  means (K, D); spread: precisions (K, D), or
 * with `full` the whitening triangles (K, D, D).  -1: no memory. */
static int pack_gaussian(ptrdiff_t K, ptrdiff_t D, const double *means, const double *spread,
                         int full, gaussian *g)
{
    g->K = K, g->D = D, g->full = full;
    g->tiles_size = full ? whitening_size(D) : 0;
    g->constants = malloc(K * (g->tiles_size + 3 * D + 1) * sizeof(double));
    if (g->constants == NULL) return -1;
    g->table = g->constants + K * (D + 1);
    g->tiles = g->table + 2 * K * D;
    for (ptrdiff_t k = 0; k < K; k++) {
        double *total = g->constants + (full ? k : K * D + k);
        *total = 0;
        for (ptrdiff_t d = 0; d < D; d++) {
            const ptrdiff_t at = k * D + d;
            if (full) {
                *total += LOG_2_PI - 2 * log(spread[at * D + d]);
                g->table[at] = means[at];
            } else {
                g->constants[at] = LOG_2_PI - log(spread[at]);
                *total += g->constants[at];
                g->table[2 * at] = means[at];
                g->table[2 * at + 1] = spread[at];
            }
        }
        if (full) pack_whitening(D, spread + k * D * D, g->tiles + k * g->tiles_size);
    }
    return 0;
}

#endif
