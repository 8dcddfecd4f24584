/* Weighted first and second moments around each component's mean, W rows at a time.
 * Included once per instruction set, after _vector.h; rows are turned into lanes as in
 * _gaussian_density.h.  Lanes are summed after every block, blocks in order.
 */

/* first, second += sum g (x - mean), sum g (x - mean)^2 for P components and Q columns. */
INLINE void FN(moment_tile)(const int P, const int Q, ptrdiff_t K, ptrdiff_t D, ptrdiff_t n,
                            const vec *x, const vec *g, const double *means, double *first,
                            double *second)
{
    vec a[2][2], b[2][2], mean[2][2];
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int q = 0; q < Q; q++) {
            a[p][q] = b[p][q] = FN(splat)(0.0);
            mean[p][q] = FN(splat)(means[p * D + q]);
        }
    for (ptrdiff_t t = 0; t < n; t++)
        UNROLL for (int p = 0; p < P; p++)
            UNROLL for (int q = 0; q < Q; q++) {
                const vec z = x[t * D + q] - mean[p][q], gz = g[t * K + p] * z;
                a[p][q] += gz;
                b[p][q] += gz * z;
            }
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int q = 0; q < Q; q++) {
            first[p * D + q] += FN(total)(a[p][q]);
            second[p * D + q] += FN(total)(b[p][q]);
        }
}

/* x (n, D, W), g (n, K, W) without NaN. */
static void FN(diagonal_moments)(ptrdiff_t K, ptrdiff_t D, ptrdiff_t n, const vec *x, const vec *g,
                                 const double *means, double *weights, double *first,
                                 double *second)
{
    for (ptrdiff_t k = 0; k < K; k++) {
        vec sum = FN(splat)(0.0);
        for (ptrdiff_t t = 0; t < n; t++) sum += g[t * K + k];
        const double weight = FN(total)(sum);
        for (ptrdiff_t d = 0; d < D; d++) weights[k * D + d] += weight;
    }
    for (ptrdiff_t k = 0; k < K; k += 2)
        for (ptrdiff_t d = 0; d < D; d += 2) {
            const ptrdiff_t at = k * D + d;
            const double *mean = means + at;
            double *a = first + at, *b = second + at;
            if (k + 1 < K && d + 1 < D)
                FN(moment_tile)(2, 2, K, D, n, x + d, g + k, mean, a, b);
            else if (k + 1 < K)
                FN(moment_tile)(2, 1, K, D, n, x + d, g + k, mean, a, b);
            else if (d + 1 < D)
                FN(moment_tile)(1, 2, K, D, n, x + d, g + k, mean, a, b);
            else
                FN(moment_tile)(1, 1, K, D, n, x + d, g + k, mean, a, b);
        }
}

/* The same where entries may be NaN: they are left out. */
static void FN(diagonal_moments_missing)(ptrdiff_t K, ptrdiff_t D, ptrdiff_t n, const vec *x,
                                         const vec *g, const double *means, double *weights,
                                         double *first, double *second)
{
    const vec zero = FN(splat)(0.0);
    for (ptrdiff_t k = 0; k < K; k++)
        for (ptrdiff_t d = 0; d < D; d++) {
            const double mean = means[k * D + d];
            vec w = zero, a = zero, b = zero;
            for (ptrdiff_t t = 0; t < n; t++) {
                const vec value = x[t * D + d];
                const mask seen = FN(equal)(value, value);
                const vec z = FN(select)(seen, value - mean, zero);
                const vec weight = FN(select)(seen, g[t * K + k], zero), gz = weight * z;
                w += weight;
                a += gz;
                b += gz * z;
            }
            weights[k * D + d] += FN(total)(w);
            first[k * D + d] += FN(total)(a);
            second[k * D + d] += FN(total)(b);
        }
}

/* second[i][j] += sum_t gz[i] z[j] for P rows and Q columns. */
INLINE void FN(product_tile)(const int P, const int Q, ptrdiff_t D, ptrdiff_t n, const vec *gz,
                             const vec *z, double *second)
{
    vec sums[4][4];
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int q = 0; q < Q; q++) sums[p][q] = FN(splat)(0.0);
    for (ptrdiff_t t = 0; t < n; t++)
        UNROLL for (int p = 0; p < P; p++)
            UNROLL for (int q = 0; q < Q; q++) sums[p][q] += gz[t * D + p] * z[t * D + q];
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int q = 0; q < Q; q++) second[p * D + q] += FN(total)(sums[p][q]);
}

INLINE void FN(product_row)(const int P, ptrdiff_t D, ptrdiff_t last, ptrdiff_t n, const vec *gz,
                            const vec *z, double *second)
{
    for (ptrdiff_t j = 0; j < last; j += 4) switch (last - j) {
        case 1: FN(product_tile)(P, 1, D, n, gz, z + j, second + j); break;
        case 2: FN(product_tile)(P, 2, D, n, gz, z + j, second + j); break;
        case 3: FN(product_tile)(P, 3, D, n, gz, z + j, second + j); break;
        default: FN(product_tile)(P, 4, D, n, gz, z + j, second + j);
        }
}

/* z, gz: (n, D, W) working space.  Of second (K, D, D) the lower triangles are right. */
static void FN(full_moments)(ptrdiff_t K, ptrdiff_t D, ptrdiff_t n, const vec *x, const vec *g,
                             const double *means, vec *z, vec *gz, double *first, double *second)
{
    for (ptrdiff_t k = 0; k < K; k++) {
        for (ptrdiff_t d = 0; d < D; d++) {
            vec sum = FN(splat)(0.0);
            for (ptrdiff_t t = 0; t < n; t++) {
                z[t * D + d] = x[t * D + d] - means[k * D + d];
                gz[t * D + d] = g[t * K + k] * z[t * D + d];
                sum += gz[t * D + d];
            }
            first[k * D + d] += FN(total)(sum);
        }
        for (ptrdiff_t i = 0; i < D; i += 4) {
            const ptrdiff_t last = i + 4 < D ? i + 4 : D;
            double *rows = second + (k * D + i) * D;
            switch (last - i) {
            case 1: FN(product_row)(1, D, last, n, gz + i, z, rows); break;
            case 2: FN(product_row)(2, D, last, n, gz + i, z, rows); break;
            case 3: FN(product_row)(3, D, last, n, gz + i, z, rows); break;
            default: FN(product_row)(4, D, last, n, gz + i, z, rows);
            }
        }
    }
}

/* All rows; weights NULL: full.  space: steps (3 D + K) W doubles, aligned. */
static void FN(all_moments)(ptrdiff_t N, ptrdiff_t K, ptrdiff_t D, const double *X,
                            const double *posteriors, const double *means, double *weights,
                            double *first, double *second, ptrdiff_t steps, double *space)
{
    vec *x = (vec *)space, *z = x + steps * D, *gz = z + steps * D, *g = gz + steps * D;
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
        if (weights == NULL) {
            FN(full_moments)(K, D, n, x, g, means, z, gz, first, second);
            continue;
        }
        vec check = FN(splat)(0.0);
        for (ptrdiff_t i = 0; i < n * D; i++) check += x[i] * 0.0;
        if (FN(total)(check) == 0.0)
            FN(diagonal_moments)(K, D, n, x, g, means, weights, first, second);
        else
            FN(diagonal_moments_missing)(K, D, n, x, g, means, weights, first, second);
    }
}

static const moments_kernel FN(kernels) = {W, FN(all_moments)};
