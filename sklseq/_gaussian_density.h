/* Gaussian log-densities of all rows, W at a time.  Included once per instruction set.
 *
 * A block of rows is split into W streams of consecutive rows, turned into [t][d][lane], worked on
 * and turned back (see gather and scatter).
 */
#include "_gaussian_density_block.h"

/* space: (steps + DENSITY_MARGIN) (D + K) W doubles, aligned. */
static void FN(all_rows)(const gaussian *g, ptrdiff_t N, const double *X, ptrdiff_t steps,
                         double *space, double *log_obs)
{
    const ptrdiff_t K = g->K, D = g->D;
    vec *x = (vec *)space, *out = x + (steps + DENSITY_MARGIN) * D;
    for (ptrdiff_t row = 0; row < N; row += steps * W) {
        const ptrdiff_t left = N - row;
        const ptrdiff_t n = left < steps * W ? (left + W - 1) / W : steps;
        const double *in[W];
        double *to[W];
        ptrdiff_t lengths[W], first[W], last[W];
        for (int l = 0; l < W; l++) {
            ptrdiff_t rows = left - l * n;
            rows = rows < 0 ? 0 : rows > n ? n : rows;
            in[l] = X + (row + (rows > 0 ? l * n : 0)) * D;
            to[l] = log_obs + (row + (rows > 0 ? l * n : 0)) * K;
            lengths[l] = rows * D;
            first[l] = 0;
            last[l] = rows * K;
        }
        FN(gather)(in, lengths, n * D, 0.0, x);
        FN(density_block)(g, n, x, out);
        FN(scatter)(to, first, last, n * K, out);
    }
}

static const density_kernel FN(kernels) = {W, FN(all_rows)};
