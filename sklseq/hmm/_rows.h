/* Kernels for many states: a vector holds W states of one sequence, and a few sequences run side
 * by side so that each arc that is loaded serves all of them.
 * Included once per instruction set, after _vector.h; notation and safeguards as in _sequential.h.
 *
 * The one inner loop is a product of a few rows with a matrix, kept in registers, each element a sum
 * in a fixed order; so a sequence's result does not depend on how many run beside it, which a
 * BLAS does not promise.  a_t is kept in the caller's `posteriors`, evidence is computed anew
 * on the way back (cheaper than memory), so the working space does not grow with the sequence.
 */
#define PITCH(K) (((K) + W - 1) / W * W)
#if W == 8
#define ROWS 6
#define PANEL 4
#else
#define ROWS 4
#define PANEL 3
#endif

/* out[r] (+)= sum_n x[r, n] y[n], rows of V vectors; x is read element by element. */
INLINE void FN(product)(const int R, const int V, ptrdiff_t N, const double *x, ptrdiff_t x_row,
                        ptrdiff_t x_step, const double *y, ptrdiff_t y_step, double *out,
                        ptrdiff_t out_row, int add)
{
    vec sums[ROWS][PANEL];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < V; v++)
            sums[r][v] = add ? FN(load)(out + r * out_row + v * W) : FN(splat)(0.0);
    for (ptrdiff_t n = 0; n < N; n++) {
        vec row[PANEL];
        UNROLL for (int v = 0; v < V; v++) row[v] = FN(load)(y + n * y_step + v * W);
        UNROLL for (int r = 0; r < R; r++) {
            const double factor = x[r * x_row + n * x_step];
            UNROLL for (int v = 0; v < V; v++) sums[r][v] += row[v] * factor;
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < V; v++) FN(store)(out + r * out_row + v * W, sums[r][v]);
}

/* out[r] = max_n (x[r, n] + y[n]).  `one` is 1: multiply-and-add runs beside the maximum, while a
 * plain addition would compete with it (same rounding, same bits). */
INLINE void FN(best_sum)(const int R, const int V, ptrdiff_t N, const double *x, ptrdiff_t x_row,
                         double one, const double *y, ptrdiff_t y_step, double *out,
                         ptrdiff_t out_row)
{
    vec best[ROWS][PANEL];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < V; v++) best[r][v] = FN(splat)(-INFINITY);
    for (ptrdiff_t n = 0; n < N; n++) {
        vec row[PANEL];
        UNROLL for (int v = 0; v < V; v++) row[v] = FN(load)(y + n * y_step + v * W);
        UNROLL for (int r = 0; r < R; r++) {
            const vec from = FN(splat)(x[r * x_row + n]);
            UNROLL for (int v = 0; v < V; v++)
                best[r][v] = FN(max)(row[v] * one + from, best[r][v]);
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < V; v++) FN(store)(out + r * out_row + v * W, best[r][v]);
}

#define PRODUCT(R, V)                                                                            \
    static void FN(product_##R##V)(ptrdiff_t N, const double *x, ptrdiff_t x_row,                \
                                   ptrdiff_t x_step, const double *y, ptrdiff_t y_step,          \
                                   double *out, ptrdiff_t out_row, int add)                      \
    {                                                                                            \
        FN(product)(R, V, N, x, x_row, x_step, y, y_step, out, out_row, add);                    \
    }                                                                                            \
    static void FN(best_sum_##R##V)(ptrdiff_t N, const double *x, ptrdiff_t x_row, double one,   \
                                    const double *y, ptrdiff_t y_step, double *out,              \
                                    ptrdiff_t out_row)                                           \
    {                                                                                            \
        FN(best_sum)(R, V, N, x, x_row, one, y, y_step, out, out_row);                           \
    }
typedef void (*FN(product_kernel))(ptrdiff_t, const double *, ptrdiff_t, ptrdiff_t, const double *,
                                   ptrdiff_t, double *, ptrdiff_t, int);
typedef void (*FN(best_sum_kernel))(ptrdiff_t, const double *, ptrdiff_t, double, const double *,
                                    ptrdiff_t, double *, ptrdiff_t);
#if PANEL == 4
#define PRODUCTS(R) PRODUCT(R, 1) PRODUCT(R, 2) PRODUCT(R, 3) PRODUCT(R, 4)
#define ENTRY(name, R) {FN(name##R##1), FN(name##R##2), FN(name##R##3), FN(name##R##4)}
PRODUCTS(1) PRODUCTS(2) PRODUCTS(3) PRODUCTS(4) PRODUCTS(5) PRODUCTS(6)
#define ENTRIES(name)                                                                            \
    {ENTRY(name, 1), ENTRY(name, 2), ENTRY(name, 3), ENTRY(name, 4), ENTRY(name, 5), ENTRY(name, 6)}
#else
#define PRODUCTS(R) PRODUCT(R, 1) PRODUCT(R, 2) PRODUCT(R, 3)
#define ENTRY(name, R) {FN(name##R##1), FN(name##R##2), FN(name##R##3)}
PRODUCTS(1) PRODUCTS(2) PRODUCTS(3) PRODUCTS(4)
#define ENTRIES(name) {ENTRY(name, 1), ENTRY(name, 2), ENTRY(name, 3), ENTRY(name, 4)}
#endif
static const FN(product_kernel) FN(product_kernels)[ROWS][PANEL] = ENTRIES(product_);
static const FN(best_sum_kernel) FN(best_sum_kernels)[ROWS][PANEL] = ENTRIES(best_sum_);

/* The columns of a matrix are split into panels of one to PANEL vectors, as equal as can be. */
INLINE ptrdiff_t FN(panel_end)(ptrdiff_t panel, ptrdiff_t K)
{
    const ptrdiff_t vectors = PITCH(K) / W, panels = (vectors + PANEL - 1) / PANEL;
    return panel * vectors / panels * W;
}

INLINE ptrdiff_t FN(n_panels)(ptrdiff_t K) { return (PITCH(K) / W + PANEL - 1) / PANEL; }

/* OUT packed (K, pitch) in panels: matrix (K, K) or its transpose, padded. */
static void FN(pack_panels)(ptrdiff_t K, const double *matrix, int transposed, double padding,
                            double *packed)
{
    for (ptrdiff_t p = 0; p < FN(n_panels)(K); p++)
        for (ptrdiff_t i = 0; i < K; i++)
            for (ptrdiff_t j = FN(panel_end)(p, K); j < FN(panel_end)(p + 1, K); j++)
                *packed++ = j >= K ? padding : transposed ? matrix[j * K + i] : matrix[i * K + j];
}

/* out (n_rows, pitch) = x (n_rows, pitch) @ packed. */
static void FN(times_panels)(ptrdiff_t K, int n_rows, const double *x, const double *packed,
                             double *out)
{
    const ptrdiff_t pitch = PITCH(K);
    for (ptrdiff_t p = 0; p < FN(n_panels)(K); p++) {
        const ptrdiff_t j = FN(panel_end)(p, K), width = FN(panel_end)(p + 1, K) - j;
        FN(product_kernels)[n_rows - 1][width / W - 1](
            K, x, pitch, 1, packed + j * K, width, out + j, pitch, 0);
    }
}

/* The log-densities of a step of an item. */
INLINE const double *FN(row)(const chain *c, const item *one, ptrdiff_t t)
{
    return c->source->rows + (one->row + t) * c->K;
}

/* OUT out (n_items, pitch), padded with 0, and shifts (-DBL_MAX if impossible): evidence of step t of
 * the items.  All exponentials stand in one loop, so that they hide each other's latency. */
static void FN(evidence_of_step)(const chain *c, item *const *items, int n_items, ptrdiff_t t,
                                 double *out, double *shifts)
{
    const ptrdiff_t K = c->K, pitch = PITCH(K);
    for (int r = 0; r < n_items; r++) {
        const double *row = FN(row)(c, items[r], t);
        vec largest = FN(splat)(-DBL_MAX);
        for (ptrdiff_t k = 0; k < K; k += W)
            largest = FN(max)(largest, FN(load_part)(row + k, K - k, -INFINITY));
        shifts[r] = FN(largest)(largest);
        if (shifts[r] > EVIDENCE_CAP) shifts[r] = EVIDENCE_CAP;
    }
    for (int r = 0; r < n_items; r++) {
        const double *row = FN(row)(c, items[r], t);
        const vec shift = FN(splat)(shifts[r]);
        for (ptrdiff_t k = 0; k < K; k += W)
            FN(store)(out + r * pitch + k,
                      FN(exp_negative)(FN(load_part)(row + k, K - k, -INFINITY) - shift));
    }
}

/* The forward recursion of one group; mode as in _lanes.h.  SMOOTH leaves a_t in c->filtered and the
 * scale of each step in g->alpha (n_items, longest). */
static void FN(forward_rows)(int mode, const chain *c, lane_group *g)
{
    const ptrdiff_t K = c->K, pitch = PITCH(K), longest = g->items[0]->length;
    double *current = g->block, *predicted = current + ROWS * pitch;
    double *evidence_of_items = predicted + ROWS * pitch;
    double sums[ROWS], shifts[ROWS];
    compensated totals[ROWS];
    int active = g->n_items;
    for (int r = 0; r < active; r++) {
        sums[r] = 1.0;
        totals[r].sum = totals[r].lost = 0;
    }
    for (ptrdiff_t t = 0; t < longest; t++) {
        while (g->items[active - 1]->length <= t) active--;
        FN(evidence_of_step)(c, g->items, active, t, evidence_of_items, shifts);
        if (t > 0) FN(times_panels)(K, active, current, c->panels, predicted);
        for (int r = 0; r < active; r++) {
            item *one = g->items[r];
            double *a = current + r * pitch, *p = predicted + r * pitch;
            const double *evidence = evidence_of_items + r * pitch, shift = shifts[r];
            const int exponent = exponent_of(sums[r]);
            const double scale = power_of_two(-exponent), before = sums[r] * scale;
            const vec floor = FN(splat)(c->floor), zero = FN(splat)(0.0);
            mask lost = FN(less)(zero, zero);
            vec sum = zero;
            if (t == 0)
                for (ptrdiff_t k = 0; k < pitch; k++) p[k] = k < K ? c->startprob[k] : 0.0;
            for (ptrdiff_t k = 0; k < pitch; k += W) {
                const vec scaled = FN(load)(evidence + k) * scale, before_k = FN(load)(p + k);
                vec value = before_k * scaled;
                const mask low =
                    FN(less)(value, floor) & FN(less)(zero, FN(min)(before_k, scaled));
                lost |= low;
                if (c->raised > 0) value = FN(select)(low, value + c->raised, value);
                sum += value;
                FN(store)(a + k, value);
            }
            sums[r] = FN(total)(sum);
            one->exponents += exponent;
            compensated_add(&totals[r], shift);
            if (!(sums[r] >= SUM_FLOOR)) one->bad |= WORSE;
            if (g->steps != NULL) { /* kept by the first run, compared by its bound */
                double *kept = g->steps + 2 * (r * longest + t);
                if (c->raised == 0) kept[0] = sums[r], kept[1] = scale;
                else if (!as_good_as_equal(sums[r], kept[0]) || kept[1] != scale) one->bad |= WORSE;
            }
            if (FN(any)(lost)) one->bad |= LOST;
            if (mode == SMOOTH) {
                g->alpha[r * longest + t] = scale;
                for (ptrdiff_t k = 0; k < K; k += W)
                    FN(store_part)(c->filtered + (one->row + t) * K + k, K - k, FN(load)(a + k));
            } else if (mode == FILTER) {
                c->log_increments[one->row + t] = log(sums[r] / before) + shift;
                for (ptrdiff_t k = 0; k < K; k += W)
                    FN(store_part)(c->filtered + (one->row + t) * K + k, K - k,
                                   FN(load)(a + k) / sums[r]);
            }
            if (t == one->length - 1) {
                for (ptrdiff_t k = 0; k < K; k++) one->final[k] = a[k] / sums[r];
                compensated_add(&totals[r], log(sums[r]));
                compensated_add(&totals[r], LN2 * (double)one->exponents);
                one->log_likelihood = compensated_value(&totals[r]);
                g->inverse_sum[r] = 1.0 / sums[r];
            }
        }
    }
}

/* products (K, pitch) += sum over n of a[n]' u[n]. */
static void FN(outer_rows)(ptrdiff_t K, ptrdiff_t n, const double *a, const double *u,
                           ptrdiff_t u_step, double *products)
{
    const ptrdiff_t pitch = PITCH(K);
    for (ptrdiff_t p = 0; p < FN(n_panels)(K); p++) {
        const ptrdiff_t j = FN(panel_end)(p, K), vectors = (FN(panel_end)(p + 1, K) - j) / W;
        for (ptrdiff_t i = 0; i < K; i += ROWS) {
            const ptrdiff_t rows = K - i < ROWS ? K - i : ROWS;
            FN(product_kernels)[rows - 1][vectors - 1](
                n, a + i, 1, K, u + j, u_step, products + i * pitch + j, pitch, 1);
        }
    }
}

static void FN(backward_rows)(const chain *c, lane_group *g)
{
    const ptrdiff_t K = c->K, pitch = PITCH(K), all = g->items[0]->length;
    const vec cap = FN(splat)(BACKWARD_CAP);
    double *beta = g->block, *gather = beta + ROWS * pitch;
    double *u = gather + ROWS * pitch, *gamma = u + ROW_BLOCK * ROWS * pitch;
    item *items[ROWS];
    const double *scales[ROWS];
    double inverse_sum[ROWS], shifts[ROWS];
    int n_items = 0, active = 0;
    for (int r = 0; r < g->n_items; r++) {
        if (g->items[r]->bad) continue;
        items[n_items] = g->items[r];
        scales[n_items] = g->alpha + r * all;
        inverse_sum[n_items++] = g->inverse_sum[r];
    }
    if (n_items == 0) return;
    const ptrdiff_t longest = items[0]->length;
    for (ptrdiff_t t0 = (longest - 1) / ROW_BLOCK * ROW_BLOCK; t0 >= 0; t0 -= ROW_BLOCK) {
        const ptrdiff_t end = t0 + ROW_BLOCK < longest ? t0 + ROW_BLOCK : longest;
        for (ptrdiff_t t = end - 1; t >= t0; t--) {
            double *ahead = u + (t - t0) * ROWS * pitch, *out = gamma + (t - t0) * ROWS * pitch;
            for (; active < n_items && items[active]->length == t + 1; active++)
                for (ptrdiff_t k = 0; k < pitch; k++) beta[active * pitch + k] = inverse_sum[active];
            FN(evidence_of_step)(c, items, active, t, ahead, shifts);
            for (int r = 0; r < active; r++) {
                const double *a = c->filtered + (items[r]->row + t) * K;
                double *b = ahead + r * pitch;
                const vec scale = FN(splat)(scales[r][t]);
                for (ptrdiff_t k = 0; k < pitch; k += W) {
                    const vec later = FN(load)(beta + r * pitch + k);
                    FN(store)(out + r * pitch + k, FN(load_part)(a + k, K - k, 0.0) * later);
                    FN(store)(b + k, FN(min)(FN(load)(b + k) * scale * later, cap));
                }
            }
            if (t > 0) FN(times_panels)(K, active, ahead, c->back_panels, beta);
        }
        for (int r = 0; r < active; r++) {
            const ptrdiff_t first = t0 > 0 ? t0 : 1;
            const ptrdiff_t last = end < items[r]->length ? end : items[r]->length;
            if (first < last)
                FN(outer_rows)(K, last - first, c->filtered + (items[r]->row + first - 1) * K,
                               u + ((first - t0) * ROWS + r) * pitch, ROWS * pitch, g->totals);
            for (ptrdiff_t t = t0; t < last; t++)
                memcpy(c->filtered + (items[r]->row + t) * K,
                       gamma + ((t - t0) * ROWS + r) * pitch, K * sizeof(double));
        }
    }
}

/* The state before `state` on the best path: the first i of the largest delta[i] + arcs[i]. */
static ptrdiff_t FN(best_before)(ptrdiff_t pitch, const double *delta, const double *arcs,
                                 double *candidates)
{
    vec largest = FN(splat)(-INFINITY);
    for (ptrdiff_t k = 0; k < pitch; k += W) {
        const vec candidate = FN(load)(delta + k) + FN(load)(arcs + k);
        FN(store)(candidates + k, candidate);
        largest = FN(max)(candidate, largest);
    }
    const vec best = FN(splat)(FN(largest)(largest));
    for (ptrdiff_t k = 0; k < pitch; k += W)
        if (FN(any)(FN(equal)(FN(load)(candidates + k), best)))
            for (int l = 0; l < W; l++)
                if (candidates[k + l] == FN(lane)(best, 0)) return k + l;
    return 0;
}

/* c->panels: log transmat in panels; c->back_panels (K, pitch): its transpose, padded with -inf.
 * g->alpha (n_items, longest, pitch): delta of every step. */
static void FN(viterbi_rows)(const chain *c, lane_group *g)
{
    const ptrdiff_t K = c->K, pitch = PITCH(K), longest = g->items[0]->length;
    const double one_exactly = g->inverse_sum[0];
    double *current = g->block, *predicted = current + ROWS * pitch;
    compensated totals[ROWS];
    int active = g->n_items;
    for (int r = 0; r < active; r++) totals[r].sum = totals[r].lost = 0;
    for (ptrdiff_t t = 0; t < longest; t++) {
        while (g->items[active - 1]->length <= t) active--;
        if (t > 0)
            for (ptrdiff_t p = 0; p < FN(n_panels)(K); p++) {
                const ptrdiff_t j = FN(panel_end)(p, K), width = FN(panel_end)(p + 1, K) - j;
                FN(best_sum_kernels)[active - 1][width / W - 1](
                    K, current, pitch, one_exactly, c->panels + j * K, width, predicted + j, pitch);
            }
        for (int r = 0; r < active; r++) {
            const double *row = FN(row)(c, g->items[r], t);
            double *delta = g->alpha + (r * longest + t) * pitch, *p = predicted + r * pitch;
            vec largest = FN(splat)(-INFINITY);
            if (t == 0)
                for (ptrdiff_t k = 0; k < pitch; k++) p[k] = k < K ? c->startprob[k] : -INFINITY;
            for (ptrdiff_t k = 0; k < pitch; k += W)
                largest = FN(max)(FN(load)(p + k) + FN(load_part)(row + k, K - k, -INFINITY),
                                  largest);
            double best = FN(largest)(largest), top = 0;
            if (fabs(best) > FAR && best > -INFINITY) { /* see far_shift */
                top = far_shift(K, p, row);
                largest = FN(splat)(-INFINITY);
                for (ptrdiff_t k = 0; k < pitch; k += W)
                    largest = FN(max)(
                        FN(load)(p + k) + (FN(load_part)(row + k, K - k, -INFINITY) - top), largest);
                best = FN(largest)(largest);
                compensated_add(&totals[r], top);
            }
            const vec shift = FN(splat)(best > -DBL_MAX ? best : -DBL_MAX);
            compensated_add(&totals[r], best);
            for (ptrdiff_t k = 0; k < pitch; k += W) {
                const vec density = FN(load_part)(row + k, K - k, -INFINITY) - top;
                const vec value = (FN(load)(p + k) + density) - shift;
                FN(store)(delta + k, value);
                FN(store)(current + r * pitch + k, value);
            }
        }
    }
    for (int r = 0; r < g->n_items; r++) {
        item *one = g->items[r];
        const double *delta = g->alpha + (r * longest + one->length - 1) * pitch;
        ptrdiff_t state = 0;
        for (ptrdiff_t k = 1; k < K; k++)
            if (delta[k] > delta[state]) state = k;
        for (ptrdiff_t t = one->length - 1; t >= 0; t--, delta -= pitch) {
            c->states[one->row + t] = state;
            if (t > 0)
                state = FN(best_before)(pitch, delta - pitch, c->back_panels + state * pitch,
                                        predicted);
            if (state >= K) state = 0;
        }
        one->log_likelihood = compensated_value(&totals[r]);
    }
}

static void FN(score_rows)(const chain *c, lane_group *g)
{
    FN(forward_rows)(SCORE, c, g);
    FN(check_lost)(c, g, FN(score_rows));
}
static void FN(filter_rows)(const chain *c, lane_group *g)
{
    FN(forward_rows)(FILTER, c, g);
    FN(check_lost)(c, g, FN(score_rows));
}
static void FN(smooth_rows)(const chain *c, lane_group *g)
{
    FN(forward_rows)(SMOOTH, c, g);
    FN(check_lost)(c, g, FN(score_rows));
    FN(backward_rows)(c, g);
}

enum { FN(rows_together) = ROWS };

#undef PRODUCT
#undef PRODUCTS
#undef ENTRY
#undef ENTRIES
#undef ROWS
#undef PANEL
#undef PITCH
