/* Gaussian log-densities of a block of rows that lie as [t][d][lane], one row per vector lane.
 * Included once per instruction set, after _vector.h and _gaussian_parameters.h.
 *
 * A row's result does not depend on its neighbours: with or without NaN in the block the same
 * additions are done in the same order.
 */
#if W == 8
#define TOGETHER 4 /* vectors of rows that share each parameter loaded */
#else
#define TOGETHER 2
#endif

/* -(square + constant) / 2; only where sums of infinities of both signs may arise (`may_be_nan`) does
 * NaN have to become -inf. */
INLINE vec FN(half_negative)(const int may_be_nan, vec square, vec constant)
{
    const vec result = square * -0.5 - 0.5 * constant;
    if (!may_be_nan) return result;
    return FN(select)(FN(equal)(result, result), result, FN(splat)(-INFINITY));
}

/* table (K, D, 2): mean and precision; constants (K, D): log 2 pi - log precision,
 * and after them their sums (K,); x (n, D, W),
 * n a multiple of TOGETHER; OUT out (n, K, W). */
INLINE void FN(diagonal_block)(ptrdiff_t K, const ptrdiff_t D, const double *table,
                               const double *constants, ptrdiff_t n, const vec *x, vec *out)
{
    for (ptrdiff_t t = 0; t < n; t += TOGETHER)
        for (ptrdiff_t k = 0; k < K; k++) {
            const double *parameters = table + 2 * k * D;
            const double constant = constants[K * D + k];
            vec square[TOGETHER];
            UNROLL for (int r = 0; r < TOGETHER; r++) square[r] = FN(splat)(0.0);
            UNROLL for (ptrdiff_t d = 0; d < D; d++) {
                const double mean = parameters[2 * d], precision = parameters[2 * d + 1];
                UNROLL for (int r = 0; r < TOGETHER; r++) {
                    const vec difference = x[(t + r) * D + d] - mean;
                    square[r] += difference * difference * precision;
                }
            }
            UNROLL for (int r = 0; r < TOGETHER; r++)
                out[(t + r) * K + k] = FN(half_negative)(0, square[r], FN(splat)(constant));
        }
}

/* The same where entries may be NaN: they add nothing. */
static void FN(diagonal_block_missing)(ptrdiff_t K, ptrdiff_t D, const double *table,
                                       const double *constants, ptrdiff_t n, const vec *x, vec *out)
{
    for (ptrdiff_t t = 0; t < n; t++)
        for (ptrdiff_t k = 0; k < K; k++) {
            const double *parameters = table + 2 * k * D;
            vec square = FN(splat)(0.0), constant = square;
            for (ptrdiff_t d = 0; d < D; d++) {
                const vec value = x[t * D + d], difference = value - parameters[2 * d];
                const mask seen = FN(equal)(value, value);
                const vec more = square + difference * difference * parameters[2 * d + 1];
                square = FN(select)(seen, more, square);
                constant = FN(select)(seen, constant + constants[k * D + d], constant);
            }
            out[t * K + k] = FN(half_negative)(0, square, constant);
        }
}

/* -2 log-density of one component, up to a constant, with D columns, all of them in registers.
 * tile: the first rows of L as packed, the fifth and sixth after them. */
INLINE void FN(whiten_known)(const int D, const double *mean, const double *tile, const vec *x,
                             vec *square)
{
    vec difference[6][TOGETHER];
    UNROLL for (int d = 0; d < D; d++)
        UNROLL for (int r = 0; r < TOGETHER; r++) difference[d][r] = x[r * D + d] - mean[d];
    UNROLL for (int i = 0; i < D; i++) {
        const double *row = i < 4 ? tile + i : tile + 4 * (D < 4 ? D : 4) + (i - 4);
        vec white[TOGETHER];
        UNROLL for (int r = 0; r < TOGETHER; r++) white[r] = difference[0][r] * row[0];
        UNROLL for (int j = 1; j <= i; j++)
            UNROLL for (int r = 0; r < TOGETHER; r++) white[r] += difference[j][r] * row[4 * j];
        UNROLL for (int r = 0; r < TOGETHER; r++)
            square[r] = i == 0 ? white[r] * white[r] : square[r] + white[r] * white[r];
    }
}

/* square[r] += |rows i..i+P of L (x - mean)|^2; tile (columns, 4): those rows of L, transposed. */
INLINE void FN(whiten_rows)(const int P, ptrdiff_t columns, const double *tile,
                            const vec *difference, vec *square)
{
    vec white[4][TOGETHER];
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int r = 0; r < TOGETHER; r++) white[p][r] = FN(splat)(0.0);
    for (ptrdiff_t j = 0; j < columns; j++)
        UNROLL for (int p = 0; p < P; p++)
            UNROLL for (int r = 0; r < TOGETHER; r++)
                white[p][r] += difference[j * TOGETHER + r] * tile[4 * j + p];
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int r = 0; r < TOGETHER; r++) square[r] += white[p][r] * white[p][r];
}

/* The same for many columns; difference: (D, TOGETHER) working space. */
static void FN(whiten)(ptrdiff_t D, const double *mean, const double *tile, const vec *x,
                       vec *difference, vec *square)
{
    UNROLL for (int r = 0; r < TOGETHER; r++) square[r] = FN(splat)(0.0);
    for (ptrdiff_t d = 0; d < D; d++)
        UNROLL for (int r = 0; r < TOGETHER; r++)
            difference[d * TOGETHER + r] = x[r * D + d] - mean[d];
    for (ptrdiff_t i = 0; i < D; i += 4) {
        const ptrdiff_t columns = i + 4 < D ? i + 4 : D;
        switch (columns - i) {
        case 4: FN(whiten_rows)(4, columns, tile, difference, square); break;
        case 3: FN(whiten_rows)(3, columns, tile, difference, square); break;
        case 2: FN(whiten_rows)(2, columns, tile, difference, square); break;
        default: FN(whiten_rows)(1, columns, tile, difference, square);
        }
        tile += 4 * columns;
    }
}

/* means (K, D); tiles: see pack_whitening; constants (K,); difference: (D, TOGETHER) working space. */
static void FN(full_block)(ptrdiff_t K, ptrdiff_t D, const double *means, const double *tiles,
                           ptrdiff_t tiles_size, const double *constants, ptrdiff_t n, const vec *x,
                           vec *difference, vec *out)
{
    for (ptrdiff_t t = 0; t < n; t += TOGETHER)
        for (ptrdiff_t k = 0; k < K; k++) {
            const double *tile = tiles + k * tiles_size, *mean = means + k * D;
            const vec *rows = x + t * D;
            vec square[TOGETHER];
            switch (D) {
            case 1: FN(whiten_known)(1, mean, tile, rows, square); break;
            case 2: FN(whiten_known)(2, mean, tile, rows, square); break;
            case 3: FN(whiten_known)(3, mean, tile, rows, square); break;
            case 4: FN(whiten_known)(4, mean, tile, rows, square); break;
            case 5: FN(whiten_known)(5, mean, tile, rows, square); break;
            case 6: FN(whiten_known)(6, mean, tile, rows, square); break;
            default: FN(whiten)(D, mean, tile, rows, difference, square);
            }
            UNROLL for (int r = 0; r < TOGETHER; r++)
                out[(t + r) * K + k] = FN(half_negative)(1, square[r], FN(splat)(constants[k]));
        }
}

/* Whether a block (size,) holds no NaN. */
static int FN(is_whole)(ptrdiff_t size, const vec *x)
{
    vec check = FN(splat)(0.0);
    for (ptrdiff_t i = 0; i < size; i++) check += x[i] * 0.0;
    return FN(total)(check) == 0.0;
}

/* OUT out (n, K, W): log-densities of x (n, D, W).  Both have room for TOGETHER - 1 steps more, and
 * x for the differences (D, TOGETHER, W) after that. */
static void FN(density_block)(const gaussian *g, ptrdiff_t n, vec *x, vec *out)
{
    const ptrdiff_t K = g->K, D = g->D, padded = (n + TOGETHER - 1) / TOGETHER * TOGETHER;
    for (ptrdiff_t i = n * D; i < padded * D; i++) x[i] = FN(splat)(0.0);
    if (g->full) {
        FN(full_block)(K, D, g->table, g->tiles, g->tiles_size, g->constants, padded, x,
                       x + padded * D, out);
    } else if (!FN(is_whole)(n * D, x)) {
        FN(diagonal_block_missing)(K, D, g->table, g->constants, n, x, out);
    } else switch (D) { /* few columns: a loop of known length */
        case 1: FN(diagonal_block)(K, 1, g->table, g->constants, padded, x, out); break;
        case 2: FN(diagonal_block)(K, 2, g->table, g->constants, padded, x, out); break;
        case 3: FN(diagonal_block)(K, 3, g->table, g->constants, padded, x, out); break;
        case 4: FN(diagonal_block)(K, 4, g->table, g->constants, padded, x, out); break;
        case 5: FN(diagonal_block)(K, 5, g->table, g->constants, padded, x, out); break;
        case 6: FN(diagonal_block)(K, 6, g->table, g->constants, padded, x, out); break;
        default: FN(diagonal_block)(K, D, g->table, g->constants, padded, x, out);
    }
}

#undef TOGETHER
