/* Weighted sums over a block of rows, column by column, in eight independent lanes.
 *
 * Eight partial sums let the compiler use vector registers without reordering a sum, which
 * -ffast-math would need; the lane a row falls into depends on its place in the block alone.
 */
#ifndef SKLSEQ_GAUSSIAN_MOMENTS_H
#define SKLSEQ_GAUSSIAN_MOMENTS_H

#include <stddef.h>

#define MOMENT_LANES 8
#define MOMENT_BLOCK 128 /* rows; a multiple of MOMENT_LANES */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__) \
    && !defined(SKLSEQ_PORTABLE)
#define MOMENT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MOMENT_CLONES
#endif

static double moment_total(const double *lanes)
{
    double total = 0.0;
    for (int l = 0; l < MOMENT_LANES; l++)
        total += lanes[l];
    return total;
}

/* first += sum g (x - mean), second += sum g (x - mean)^2 */
MOMENT_CLONES static void moment_sums(const double *g, const double *x, double mean,
                                      double *first, double *second)
{
    double a[MOMENT_LANES] = {0.0}, b[MOMENT_LANES] = {0.0};
    for (ptrdiff_t i = 0; i < MOMENT_BLOCK; i += MOMENT_LANES)
        for (int l = 0; l < MOMENT_LANES; l++) {
            double z = x[i + l] - mean, gz = g[i + l] * z;
            a[l] += gz;
            b[l] += gz * z;
        }
    *first += moment_total(a);
    *second += moment_total(b);
}

/* out += sum a b */
MOMENT_CLONES static void moment_dot(const double *a, const double *b, double *out)
{
    double sum[MOMENT_LANES] = {0.0};
    for (ptrdiff_t i = 0; i < MOMENT_BLOCK; i += MOMENT_LANES)
        for (int l = 0; l < MOMENT_LANES; l++)
            sum[l] += a[i + l] * b[i + l];
    *out += moment_total(sum);
}

/* z = x - mean, gz = g z, first += sum gz */
MOMENT_CLONES static void moment_centre(const double *g, const double *x, double mean,
                                        double *z, double *gz, double *first)
{
    double a[MOMENT_LANES] = {0.0};
    for (ptrdiff_t i = 0; i < MOMENT_BLOCK; i += MOMENT_LANES)
        for (int l = 0; l < MOMENT_LANES; l++) {
            z[i + l] = x[i + l] - mean;
            gz[i + l] = g[i + l] * z[i + l];
            a[l] += gz[i + l];
        }
    *first += moment_total(a);
}

#endif
