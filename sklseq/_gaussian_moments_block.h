/* Weighted first and second moments of a block of rows that lie as [t][d][lane], around each
 * component's mean.  Included once per instruction set, after _vector.h.
 *
 * Every lane keeps sums of its own: weights (K, D), first (K, D), second (K, D), each of vectors;
 * with full covariances weights (K,) and second (K, D, D), of which the lower triangles are right.
 */

/* first, second += sum g (x - mean), sum g (x - mean)^2 for P components and Q columns. */
INLINE void FN(moment_tile)(const int P, const int Q, ptrdiff_t K, ptrdiff_t D, ptrdiff_t n,
                            const vec *x, const vec *g, const double *means, vec *first, vec *second)
{
    vec a[2][2], b[2][2], mean[2][2];
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int q = 0; q < Q; q++) {
            a[p][q] = first[p * D + q];
            b[p][q] = second[p * D + q];
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
            first[p * D + q] = a[p][q];
            second[p * D + q] = b[p][q];
        }
}

/* x (n, D, W), g (n, K, W) without NaN. */
static void FN(diagonal_moments)(ptrdiff_t K, ptrdiff_t D, ptrdiff_t n, const vec *x, const vec *g,
                                 const double *means, vec *weights, vec *first, vec *second)
{
    for (ptrdiff_t k = 0; k < K; k++) {
        vec sum = FN(splat)(0.0);
        for (ptrdiff_t t = 0; t < n; t++) sum += g[t * K + k];
        for (ptrdiff_t d = 0; d < D; d++) weights[k * D + d] += sum;
    }
    for (ptrdiff_t k = 0; k < K; k += 2)
        for (ptrdiff_t d = 0; d < D; d += 2) {
            const ptrdiff_t at = k * D + d;
            const double *mean = means + at;
            vec *a = first + at, *b = second + at;
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
                                         const vec *g, const double *means, vec *weights,
                                         vec *first, vec *second)
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
            weights[k * D + d] += w;
            first[k * D + d] += a;
            second[k * D + d] += b;
        }
}

/* One component's moments with D columns, all of them in registers. */
INLINE void FN(full_component)(const int D, ptrdiff_t K, ptrdiff_t n, const vec *x, const vec *g,
                               const double *means, vec *first, vec *second)
{
    vec sums[6], products[21];
    UNROLL for (int i = 0; i < D; i++) {
        sums[i] = first[i];
        UNROLL for (int j = 0; j <= i; j++) products[i * (i + 1) / 2 + j] = second[i * D + j];
    }
    for (ptrdiff_t t = 0; t < n; t++) {
        vec z[6];
        UNROLL for (int i = 0; i < D; i++) {
            z[i] = x[t * D + i] - means[i];
            const vec gz = g[t * K] * z[i];
            sums[i] += gz;
            UNROLL for (int j = 0; j <= i; j++) products[i * (i + 1) / 2 + j] += gz * z[j];
        }
    }
    UNROLL for (int i = 0; i < D; i++) {
        first[i] = sums[i];
        UNROLL for (int j = 0; j <= i; j++) second[i * D + j] = products[i * (i + 1) / 2 + j];
    }
}

/* second[i][j] += sum_t gz[i] z[j] for P rows and Q columns. */
INLINE void FN(product_tile)(const int P, const int Q, ptrdiff_t D, ptrdiff_t n, const vec *gz,
                             const vec *z, vec *second)
{
    vec sums[4][4];
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int q = 0; q < Q; q++) sums[p][q] = second[p * D + q];
    for (ptrdiff_t t = 0; t < n; t++)
        UNROLL for (int p = 0; p < P; p++)
            UNROLL for (int q = 0; q < Q; q++) sums[p][q] += gz[t * D + p] * z[t * D + q];
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int q = 0; q < Q; q++) second[p * D + q] = sums[p][q];
}

INLINE void FN(product_row)(const int P, ptrdiff_t D, ptrdiff_t last, ptrdiff_t n, const vec *gz,
                            const vec *z, vec *second)
{
    for (ptrdiff_t j = 0; j < last; j += 4) switch (last - j) {
        case 1: FN(product_tile)(P, 1, D, n, gz, z + j, second + j); break;
        case 2: FN(product_tile)(P, 2, D, n, gz, z + j, second + j); break;
        case 3: FN(product_tile)(P, 3, D, n, gz, z + j, second + j); break;
        default: FN(product_tile)(P, 4, D, n, gz, z + j, second + j);
        }
}

/* The same for many columns; z, gz: (n, D, W) working space. */
static void FN(full_component_wide)(ptrdiff_t D, ptrdiff_t K, ptrdiff_t n, const vec *x,
                                    const vec *g, const double *means, vec *z, vec *gz, vec *first,
                                    vec *second)
{
    for (ptrdiff_t d = 0; d < D; d++) {
        vec sum = first[d];
        for (ptrdiff_t t = 0; t < n; t++) {
            z[t * D + d] = x[t * D + d] - means[d];
            gz[t * D + d] = g[t * K] * z[t * D + d];
            sum += gz[t * D + d];
        }
        first[d] = sum;
    }
    for (ptrdiff_t i = 0; i < D; i += 4) {
        const ptrdiff_t last = i + 4 < D ? i + 4 : D;
        switch (last - i) {
        case 1: FN(product_row)(1, D, last, n, gz + i, z, second + i * D); break;
        case 2: FN(product_row)(2, D, last, n, gz + i, z, second + i * D); break;
        case 3: FN(product_row)(3, D, last, n, gz + i, z, second + i * D); break;
        default: FN(product_row)(4, D, last, n, gz + i, z, second + i * D);
        }
    }
}

static void FN(full_moments)(ptrdiff_t K, ptrdiff_t D, ptrdiff_t n, const vec *x, const vec *g,
                             const double *means, vec *space, vec *weights, vec *first, vec *second)
{
    for (ptrdiff_t k = 0; k < K; k++) {
        const double *mean = means + k * D;
        vec *a = first + k * D, *b = second + k * D * D, sum = weights[k];
        for (ptrdiff_t t = 0; t < n; t++) sum += g[t * K + k];
        weights[k] = sum;
        switch (D) {
        case 2: FN(full_component)(2, K, n, x, g + k, mean, a, b); break;
        case 3: FN(full_component)(3, K, n, x, g + k, mean, a, b); break;
        case 4: FN(full_component)(4, K, n, x, g + k, mean, a, b); break;
        case 5: FN(full_component)(5, K, n, x, g + k, mean, a, b); break;
        case 6: FN(full_component)(6, K, n, x, g + k, mean, a, b); break;
        default: FN(full_component_wide)(D, K, n, x, g + k, mean, space, space + n * D, a, b);
        }
    }
}

/* Adds the moments of x (n, D, W) under g (n, K, W) to sums, which holds weights, first and second one
 * after the other; space: (2, n, D, W). */
static void FN(moments_block)(ptrdiff_t K, ptrdiff_t D, int full, ptrdiff_t n, const vec *x,
                              const vec *g, const double *means, vec *space, vec *sums)
{
    vec *first = sums + (full ? K : K * D), *second = first + K * D;
    vec check = FN(splat)(0.0);
    if (full) {
        FN(full_moments)(K, D, n, x, g, means, space, sums, first, second);
        return;
    }
    for (ptrdiff_t i = 0; i < n * D; i++) check += x[i] * 0.0;
    if (FN(total)(check) == 0.0)
        FN(diagonal_moments)(K, D, n, x, g, means, sums, first, second);
    else
        FN(diagonal_moments_missing)(K, D, n, x, g, means, sums, first, second);
}
