/* Weighted moments of all rows, W at a time; rows are turned into lanes as in _gaussian_density.h.
 * Included once per instruction set.
 */
#include "_gaussian_moments_block.h"

/* INOUT sums (n_sums,): += weights, first and second, as in moments_block.
 * space: (n_sums + steps (3 D + K)) W doubles, aligned. */
static void FN(all_moments)(ptrdiff_t N, ptrdiff_t K, ptrdiff_t D, int full, const double *X,
                            const double *posteriors, const double *means, ptrdiff_t n_sums,
                            double *sums, ptrdiff_t steps, double *space)
{
    vec *of_lanes = (vec *)space, *x = of_lanes + n_sums, *work = x + steps * D;
    vec *g = work + 2 * steps * D;
    for (ptrdiff_t i = 0; i < n_sums; i++) of_lanes[i] = FN(splat)(0.0);
    for (ptrdiff_t row = 0; row < N; row += steps * W) {
        const ptrdiff_t left = N - row;
        const ptrdiff_t n = left < steps * W ? (left + W - 1) / W : steps;
        const double *rows[W], *factors[W];
        ptrdiff_t lengths[W], n_factors[W];
        for (int l = 0; l < W; l++) {
            ptrdiff_t n_rows = left - l * n;
            n_rows = n_rows < 0 ? 0 : n_rows > n ? n : n_rows;
            rows[l] = X + (row + (n_rows > 0 ? l * n : 0)) * D;
            factors[l] = posteriors + (row + (n_rows > 0 ? l * n : 0)) * K;
            lengths[l] = n_rows * D;
            n_factors[l] = n_rows * K;
        }
        FN(gather)(rows, lengths, n * D, 0.0, x);
        FN(gather)(factors, n_factors, n * K, 0.0, g);
        FN(moments_block)(K, D, full, n, x, g, means, work, of_lanes);
    }
    for (ptrdiff_t i = 0; i < n_sums; i++) sums[i] += FN(total)(of_lanes[i]);
}

static const moments_kernel FN(kernels) = {W, FN(all_moments)};
