/* Gaussian log-densities, W rows at a time, one per vector lane.
 * Included once per instruction set, after _vector.h.
 *
 * A block of rows is split into W streams of consecutive rows, turned into [t][d][lane], worked on
 * and turned back (see gather and scatter).  A row's result does not depend on its neighbours:
 * with or without NaN in the block the same additions are done in the same order.
 */
#if W == 8
#define TOGETHER 4 /* vectors of rows that share each parameter loaded */
#else
#define TOGETHER 2
#endif

INLINE vec FN(half_negative)(vec square, vec constant)
{
    const vec result = -0.5 * (square + constant);
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
            for (ptrdiff_t d = 0; d < D; d++) {
                const double mean = parameters[2 * d], precision = parameters[2 * d + 1];
                UNROLL for (int r = 0; r < TOGETHER; r++) {
                    const vec difference = x[(t + r) * D + d] - mean;
                    square[r] += difference * difference * precision;
                }
            }
            UNROLL for (int r = 0; r < TOGETHER; r++)
                out[(t + r) * K + k] = FN(half_negative)(square[r], FN(splat)(constant));
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
            out[t * K + k] = FN(half_negative)(square, constant);
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

/* means (K, D); tiles: see pack_whitening; constants (K,); differences: (D, TOGETHER) working space. */
static void FN(full_block)(ptrdiff_t K, ptrdiff_t D, const double *means, const double *tiles,
                           ptrdiff_t tiles_size, const double *constants, ptrdiff_t n, const vec *x,
                           vec *difference, vec *out)
{
    for (ptrdiff_t t = 0; t < n; t += TOGETHER)
        for (ptrdiff_t k = 0; k < K; k++) {
            const double *tile = tiles + k * tiles_size;
            vec square[TOGETHER];
            UNROLL for (int r = 0; r < TOGETHER; r++) square[r] = FN(splat)(0.0);
            for (ptrdiff_t d = 0; d < D; d++)
                UNROLL for (int r = 0; r < TOGETHER; r++)
                    difference[d * TOGETHER + r] = x[(t + r) * D + d] - means[k * D + d];
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
            UNROLL for (int r = 0; r < TOGETHER; r++)
                out[(t + r) * K + k] = FN(half_negative)(square[r], FN(splat)(constants[k]));
        }
}

/* All rows.  tiles NULL: diagonal, table as in diagonal_block; else full, table the means.
 * space: (steps + 3) (D + K) W + TOGETHER D W doubles, aligned. */
static void FN(all_rows)(ptrdiff_t N, ptrdiff_t K, ptrdiff_t D, const double *X, const double *table,
                         const double *tiles, ptrdiff_t tiles_size, const double *constants,
                         ptrdiff_t steps, double *space, double *log_obs)
{
    vec *x = (vec *)space, *difference = x + (steps + 3) * D, *out = difference + TOGETHER * D;
    for (ptrdiff_t row = 0; row < N; row += steps * W) {
        const ptrdiff_t left = N - row;
        const ptrdiff_t n = left < steps * W ? (left + W - 1) / W : steps;
        const ptrdiff_t n_padded = (n + TOGETHER - 1) / TOGETHER * TOGETHER;
        const double *in[W];
        double *to[W];
        ptrdiff_t lengths[W], first[W], last[W];
        mask seen;
        vec check = FN(splat)(0.0);
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
        for (ptrdiff_t i = n * D; i < n_padded * D; i++) x[i] = FN(splat)(0.0);
        if (tiles != NULL) {
            FN(full_block)(K, D, table, tiles, tiles_size, constants, n_padded, x, difference, out);
        } else {
            for (ptrdiff_t i = 0; i < n * D; i++) check += x[i] * 0.0;
            seen = FN(equal)(check, check);
            int whole = 1;
            for (int l = 0; l < W; l++) whole &= FN(mask_lane)(seen, l);
            if (whole && D == 1) /* few columns: a loop of known length */
                FN(diagonal_block)(K, 1, table, constants, n_padded, x, out);
            else if (whole && D == 2)
                FN(diagonal_block)(K, 2, table, constants, n_padded, x, out);
            else if (whole && D == 3)
                FN(diagonal_block)(K, 3, table, constants, n_padded, x, out);
            else if (whole)
                FN(diagonal_block)(K, D, table, constants, n_padded, x, out);
            else
                FN(diagonal_block_missing)(K, D, table, constants, n, x, out);
        }
        FN(scatter)(to, first, last, n * K, out);
    }
}

static const density_kernel FN(kernels) = {W, TOGETHER, FN(all_rows)};

#undef TOGETHER
