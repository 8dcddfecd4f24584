/* Kernels for few states: W sequences (or chunks of long ones) at once, one per vector lane.
 * Included once per instruction set, after _vector.h; notation and safeguards as in _sequential.h.
 *
 * Everything lies as [t][k][lane].  K is a constant in every instance but the last, so that the state of
 * the recursion stays in registers.  Lanes are sorted by length, longest first; a lane that has ended
 * reads -inf, which makes its evidence, and all that follows, exactly 0.
 */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push /* the compiler does not know that there is at least one state */
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

/* Rows t0..t0+n of the lanes' cores, to `out` (N, K). */
APART void FN(write_block)(ptrdiff_t K, const lane_group *g, ptrdiff_t t0, ptrdiff_t n,
                           const vec *in, double *out)
{
    double *streams[W];
    ptrdiff_t first[W], last[W];
    for (int l = 0; l < W; l++) {
        streams[l] = NULL;
        first[l] = last[l] = 0;
        if (l >= g->n_items) continue;
        const item *one = g->items[l];
        streams[l] = out + (one->row + t0) * K;
        first[l] = (one->lead - t0) * K;
        last[l] = (one->lead + one->core - t0) * K;
    }
    FN(scatter)(streams, first, last, n * K, in);
}

/* The sums of a block and their powers of two, kept by the first run and compared by its bound. */
APART void FN(compare_steps)(const chain *c, lane_group *g, ptrdiff_t t0, ptrdiff_t n,
                             const vec *sums, const bits *exponent)
{
    vec *kept = (vec *)g->steps + 2 * t0;
    for (ptrdiff_t t = 0; t < n; t++) {
        const vec power = FN(from_bits)(exponent[t]);
        if (c->raised == 0) {
            kept[2 * t] = sums[t];
            kept[2 * t + 1] = power;
            continue;
        }
        for (int l = 0; l < g->n_items; l++)
            if (t0 + t < g->items[l]->length
                && (!as_good_as_equal(((const double *)(sums + t))[l],
                                      ((const double *)(kept + 2 * t))[l])
                    || ((const uint64_t *)&power)[l] != ((const uint64_t *)(kept + 2 * t + 1))[l]))
                g->items[l]->bad |= WORSE;
    }
}

/* What each lane keeps of the block that the forward recursion has just done. */
APART void FN(harvest)(const chain *c, lane_group *g, ptrdiff_t t0, ptrdiff_t n, const vec *alpha,
                        const vec *sums, const vec *shift, const bits *exponent, mask lost)
{
    const ptrdiff_t K = c->K;
    vec block_shift = FN(splat)(0.0), least = FN(splat)(INFINITY);
    if (g->steps != NULL) FN(compare_steps)(c, g, t0, n, sums, exponent);
    bits block_exponent = FN(to_bits)(block_shift);
    for (ptrdiff_t t = 0; t < n; t++) {
        block_shift += shift[t];
        block_exponent += exponent[t];
        least = FN(min)(sums[t], least);
    }
    for (int l = 0; l < g->n_items; l++) {
        item *one = g->items[l];
        const ptrdiff_t run_end = one->length - t0, steps = run_end < n ? run_end : n;
        if (steps <= 0) continue;
        double lane_least = FN(lane)(least, l);
        if (steps < n) {
            lane_least = INFINITY;
            for (ptrdiff_t t = 0; t < steps; t++) {
                const double s = ((const double *)(sums + t))[l];
                if (s < lane_least) lane_least = s;
            }
        }
        if (!(lane_least >= SUM_FLOOR)) one->bad |= WORSE;
        if (FN(mask_lane)(lost, l)) one->bad |= LOST;

        const ptrdiff_t core_end = one->lead + one->core - t0;
        const ptrdiff_t begin = one->lead > t0 ? one->lead - t0 : 0;
        const ptrdiff_t end = core_end < n ? core_end : n;
        if (begin == 0 && end == n) {
            one->shifts += FN(lane)(block_shift, l);
            one->exponents += (int64_t)((const uint64_t *)&block_exponent)[l] - 1023 * n;
        } else if (begin < end) {
            double total = 0;
            for (ptrdiff_t t = begin; t < end; t++) {
                total += ((const double *)(shift + t))[l];
                one->exponents += (int64_t)((const uint64_t *)(exponent + t))[l] - 1023;
            }
            one->shifts += total;
        }
        if (one->lead == t0 + n) { /* the last step of the warm-up */
            const double s = ((const double *)(sums + n - 1))[l];
            one->log_before = log(s);
            for (ptrdiff_t k = 0; k < K; k++)
                one->edges[k] = ((const double *)(alpha + (n - 1) * K + k))[l] / s;
        }
        if (core_end > 0 && core_end <= n) {
            const double s = ((const double *)(sums + core_end - 1))[l];
            one->log_likelihood = log(s) - one->log_before;
            for (ptrdiff_t k = 0; k < K; k++)
                one->final[k] = ((const double *)(alpha + (core_end - 1) * K + k))[l] / s;
            if (!(s >= SUM_FLOOR)) one->bad |= WORSE;
        }
        if (run_end <= n) g->inverse_sum[l] = 1.0 / ((const double *)(sums + run_end - 1))[l];
    }
}

/* Filtered probabilities and increments of a block, for the caller. */
APART void FN(write_filtered)(ptrdiff_t K, lane_group *g, ptrdiff_t t0, ptrdiff_t n, vec *alpha,
                              const vec *sums, const vec *shift, const vec *before,
                              double *filtered, double *log_increments)
{
    vec increments[BLOCK];
    for (ptrdiff_t t = 0; t < n; t++) {
        const vec inverse = 1.0 / sums[t];
        for (ptrdiff_t k = 0; k < K; k++) alpha[t * K + k] *= inverse;
        increments[t] = FN(log_positive)(sums[t] / before[t]) + shift[t];
    }
    FN(write_block)(K, g, t0, n, alpha, filtered);
    FN(write_block)(1, g, t0, n, increments, log_increments);
}

/* The forward recursion of one group; to `smooth` it keeps a_t and b_t c_t of the whole run in g->alpha
 * and g->evidence, else it writes the filtered probabilities if the caller wants them. */
INLINE void FN(forward_lanes)(const int K, const int smooth, const chain *c, lane_group *g)
{
    vec start[LANE_STATES], a[LANE_STATES];
    vec shift[BLOCK + 5], sums[BLOCK + 11], before[BLOCK + 17]; /* not 4096 bytes apart */
    bits exponent[BLOCK];
    const vec state_floor = FN(splat)(c->floor), zero = FN(splat)(0.0);
    const double *transmat = c->transmat;
    vec sum = FN(splat)(1.0);
    for (int k = 0; k < K; k++) {
        double lanes[W];
        for (int l = 0; l < W; l++)
            lanes[l] = l < g->n_items && g->items[l]->lead > 0 ? c->warm[k] : c->startprob[k];
        start[k] = FN(load)(lanes);
    }
    UNROLL for (int k = 0; k < K; k++) a[k] = zero;
    const ptrdiff_t longest = g->items[0]->length;
    for (ptrdiff_t t0 = 0; t0 < longest; t0 += BLOCK) {
        const ptrdiff_t n = longest - t0 < BLOCK ? longest - t0 : BLOCK;
        vec *b = smooth ? (vec *)g->evidence + t0 * K : (vec *)g->block;
        vec *alpha = smooth ? (vec *)g->alpha + t0 * K : b;
        mask lost = FN(less)(zero, zero);
        const int ready = FN(read_block)(K, c, g, t0, n, b, shift);
        /* The exponentials do not wait for the recursion, so they fill its latency. */
        for (ptrdiff_t t = 0; t < n; t++) {
            vec *row = b + t * K, *out = alpha + t * K;
            vec predicted[LANE_STATES], evidence[LANE_STATES];
            if (ready) {
                UNROLL for (int k = 0; k < K; k++) evidence[k] = row[k];
            } else {
                shift[t] = FN(evidence)(K, row, evidence);
            }
            const bits power = FN(biased_exponent)(sum);
            const vec scale = FN(inverse_power)(power);
            exponent[t] = power;
            if (!smooth) before[t] = sum * scale;
            if (t0 + t == 0) {
                UNROLL for (int j = 0; j < K; j++) predicted[j] = start[j];
            } else {
                UNROLL for (int j = 0; j < K; j++) predicted[j] = a[0] * transmat[j];
                UNROLL for (int i = 1; i < K; i++)
                    UNROLL for (int j = 0; j < K; j++)
                        predicted[j] += a[i] * transmat[i * K + j];
            }
            vec least;
            sum = zero;
            UNROLL for (int j = 0; j < K; j++) {
                const vec scaled = evidence[j] * scale;
                a[j] = predicted[j] * scaled;
                least = j == 0 ? a[j] : FN(min)(least, a[j]);
                sum += a[j];
                evidence[j] = scaled;
                if (smooth) row[j] = scaled;
                out[j] = a[j];
            }
            sums[t] = sum;
            if (FN(any)(FN(less)(least, state_floor))) { /* lost, or impossible in itself? */
                sum = zero;
                UNROLL for (int j = 0; j < K; j++) {
                    const mask low = FN(less)(a[j], state_floor)
                                     & FN(less)(zero, FN(min)(predicted[j], evidence[j]));
                    lost |= low;
                    a[j] = FN(select)(low, a[j] + c->raised, a[j]);
                    sum += a[j];
                    out[j] = a[j];
                }
                sums[t] = sum;
            }
        }
        FN(harvest)(c, g, t0, n, alpha, sums, shift, exponent, lost);
        if (!smooth && c->filtered != NULL)
            FN(write_filtered)(K, g, t0, n, alpha, sums, shift, before, c->filtered,
                               c->log_increments);
    }
    for (int l = 0; l < g->n_items; l++) {
        item *one = g->items[l];
        one->log_likelihood += LN2 * (double)one->exponents + one->shifts;
    }
}

/* ---- backward -------------------------------------------------------------------------- */

/* products[i0 + i][j0 + j] += sum_t a_t[i0 + i] u_t[j0 + j]: one tile in registers over a block. */
INLINE void FN(tile)(const int P, const int Q, ptrdiff_t K, ptrdiff_t n, const vec *a, const vec *u,
                     vec *products)
{
    vec sums[5][5];
    UNROLL for (int i = 0; i < P; i++)
        UNROLL for (int j = 0; j < Q; j++) sums[i][j] = products[i * K + j];
    for (ptrdiff_t t = 0; t < n; t++) {
        UNROLL for (int i = 0; i < P; i++)
            UNROLL for (int j = 0; j < Q; j++) sums[i][j] += a[t * K + i] * u[t * K + j];
    }
    UNROLL for (int i = 0; i < P; i++)
        UNROLL for (int j = 0; j < Q; j++) products[i * K + j] = sums[i][j];
}

#define TILE(P, Q)                                                                              \
    static void FN(tile_##P##Q)(ptrdiff_t K, ptrdiff_t n, const vec *a, const vec *u, vec *s)   \
    {                                                                                           \
        FN(tile)(P, Q, K, n, a, u, s);                                                          \
    }
#define TILES(P) TILE(P, 1) TILE(P, 2) TILE(P, 3) TILE(P, 4) TILE(P, 5)
TILES(1) TILES(2) TILES(3) TILES(4) TILES(5)
#define TILE_ROW(P) {FN(tile_##P##1), FN(tile_##P##2), FN(tile_##P##3), FN(tile_##P##4), FN(tile_##P##5)}
static void (*const FN(tiles)[5][5])(ptrdiff_t, ptrdiff_t, const vec *, const vec *, vec *) = {
    TILE_ROW(1), TILE_ROW(2), TILE_ROW(3), TILE_ROW(4), TILE_ROW(5)};

APART void FN(outer_products)(int K, ptrdiff_t n, const vec *a, const vec *u, vec *products)
{
    const int parts = (K + 4) / 5, size = (K + parts - 1) / parts;
    for (int i = 0; i < K; i += size)
        for (int j = 0; j < K; j += size) {
            const int p = K - i < size ? K - i : size, q = K - j < size ? K - j : size;
            FN(tiles)[p - 1][q - 1](K, n, a + i, u + j, products + i * K + j);
        }
}

/* u_t = 0 for steps that are not a lane's own: its warm-up and what follows its core. */
APART void FN(keep_core)(int K, const lane_group *g, ptrdiff_t t0, ptrdiff_t n, vec *u)
{
    for (int l = 0; l < g->n_items; l++) {
        const item *one = g->items[l];
        for (ptrdiff_t t = 0; t < n; t++) {
            if (t0 + t == one->lead && t0 + t < one->lead + one->core) t = one->lead + one->core - t0;
            if (t >= n) break;
            if (t0 + t >= one->lead && t0 + t < one->lead + one->core) continue;
            for (int k = 0; k < K; k++) ((double *)(u + t * K + k))[l] = 0;
        }
    }
}

/* Posteriors at the start of a sequence, and at the two ends of a chunk, for the check against its
 * neighbours. */
APART void FN(harvest_posteriors)(int K, const chain *c, lane_group *g, ptrdiff_t t0, ptrdiff_t n,
                                  const vec *gamma)
{
    for (int l = 0; l < g->n_items; l++) {
        const item *one = g->items[l];
        if (c->starts != NULL && t0 == 0 && one->lead == 0)
            for (int k = 0; k < K; k++)
                c->starts[one->sequence * K + k] = ((const double *)(gamma + k))[l];
        if (one->edges == NULL) continue;
        const ptrdiff_t places[2] = {one->lead - t0, one->lead + one->core - t0};
        for (int side = 0; side < 2; side++) {
            if (places[side] < 0 || places[side] >= n) continue;
            for (int k = 0; k < K; k++)
                one->edges[(2 + side) * K + k] = ((const double *)(gamma + places[side] * K + k))[l];
        }
    }
}

INLINE void FN(backward_lanes)(const int K, const chain *c, lane_group *g)
{
    vec *gamma = (vec *)g->block, *products = (vec *)g->products;
    const vec cap = FN(splat)(BACKWARD_CAP), zero = FN(splat)(0.0);
    const double *transmat = c->transmat;
    vec beta[LANE_STATES], inverse_sum = FN(load)(g->inverse_sum);
    double lengths[W];
    ptrdiff_t shortest_core = PTRDIFF_MAX, longest_lead = 0;
    for (int l = 0; l < W; l++) {
        lengths[l] = l < g->n_items ? (double)g->items[l]->length : 0;
        if (l >= g->n_items) continue;
        const item *one = g->items[l];
        if (one->lead + one->core < shortest_core) shortest_core = one->lead + one->core;
        if (one->lead > longest_lead) longest_lead = one->lead;
    }
    const ptrdiff_t n_products = K * K + c->n_lane_sums;
    for (ptrdiff_t i = 0; i < n_products; i++) products[i] = zero;
    UNROLL for (int k = 0; k < K; k++) beta[k] = zero;
    const ptrdiff_t longest = g->items[0]->length;
    int next = 0; /* the first lane that has not yet begun */
    for (ptrdiff_t t0 = (longest - 1) / BLOCK * BLOCK; t0 >= 0; t0 -= BLOCK) {
        const ptrdiff_t n = longest - t0 < BLOCK ? longest - t0 : BLOCK;
        const vec *alpha = (const vec *)g->alpha + t0 * K;
        vec *u = (vec *)g->evidence + t0 * K;
        for (ptrdiff_t t = n - 1; t >= 0; t--) {
            if (next < g->n_items && t0 + t == g->items[next]->length - 1) {
                const mask begins = FN(equal)(FN(load)(lengths), FN(splat)((double)(t0 + t + 1)));
                UNROLL for (int k = 0; k < K; k++)
                    beta[k] = FN(select)(begins, inverse_sum, beta[k]);
                while (next < g->n_items && t0 + t == g->items[next]->length - 1) next++;
            }
            vec ahead[LANE_STATES];
            UNROLL for (int j = 0; j < K; j++) {
                gamma[t * K + j] = alpha[t * K + j] * beta[j];
                ahead[j] = FN(min)(u[t * K + j] * beta[j], cap);
                u[t * K + j] = ahead[j];
            }
            UNROLL for (int i = 0; i < K; i++) beta[i] = ahead[0] * transmat[i * K];
            UNROLL for (int j = 1; j < K; j++)
                UNROLL for (int i = 0; i < K; i++) beta[i] += ahead[j] * transmat[i * K + j];
        }
        FN(harvest_posteriors)(K, c, g, t0, n, gamma);
        if (c->filtered != NULL) FN(write_block)(K, g, t0, n, gamma, c->filtered);
        if (t0 < longest_lead || t0 + n > shortest_core) {
            FN(keep_core)(K, g, t0, n, u);
            if (c->absorb) FN(keep_core)(K, g, t0, n, gamma);
        }
        if (c->absorb) FN(absorb_block)(K, c, g, t0, n, gamma, products + K * K);
        const ptrdiff_t skip = t0 == 0; /* no transition into the first step */
        FN(outer_products)(K, n - skip, alpha + (skip - 1) * K, u + skip * K, products);
    }
    /* Whole sequences are summed over lanes at the very end; a chunk's counts wait for its check. */
    double good[W];
    for (int l = 0; l < W; l++)
        good[l] = l < g->n_items && !g->items[l]->bad && g->items[l]->edges == NULL;
    const mask counted = FN(less)(zero, FN(load)(good));
    for (ptrdiff_t i = 0; i < n_products; i++)
        ((vec *)g->totals)[i] += FN(select)(counted, products[i], zero);
    for (int l = 0; l < g->n_items; l++) {
        if (g->items[l]->edges == NULL) continue;
        for (ptrdiff_t i = 0; i < n_products; i++)
            g->items[l]->products[i] += ((const double *)(products + i))[l];
    }
}

/* ---- Viterbi --------------------------------------------------------------------------- */

/* Back-pointers of W lanes; with AVX-512 of two bytes, which is half of the work on them. */
#if W == 8
#define pointers_of_lanes __m128i
INLINE __m128i FN(pointers_to)(int i) { return _mm_set1_epi16((short)i); }
INLINE __m128i FN(choose)(mask m, __m128i a, __m128i b) { return _mm_mask_blend_epi16(m, b, a); }
INLINE void FN(store_pointers)(uint8_t *out, __m128i x)
{
    _mm_storel_epi64((__m128i *)out, _mm_packus_epi16(x, x));
}
#else
#define pointers_of_lanes bits
INLINE bits FN(pointers_to)(int i) { return FN(to_bits)(FN(splat)(0.0)) + (uint64_t)i; }
INLINE bits FN(choose)(mask m, bits a, bits b) { return (a & m) | (b & ~m); }
INLINE void FN(store_pointers)(uint8_t *out, bits x)
{
    for (int l = 0; l < W; l++) out[l] = (uint8_t)((const uint64_t *)&x)[l];
}
#endif

/* x + y.  `one` is 1: with AVX-512 a multiply-and-add runs beside the maxima and comparisons, which
 * a plain addition would compete with (same rounding, same bits). */
INLINE vec FN(add_beside)(vec x, double y, vec one)
{
#if W == 8
    return (vec)_mm512_fmadd_pd((__m512d)x, (__m512d)one, _mm512_set1_pd(y));
#else
    (void)one;
    return x + y;
#endif
}

APART void FN(harvest_viterbi)(ptrdiff_t K, lane_group *g, ptrdiff_t t0, ptrdiff_t n,
                               const vec *delta, const vec *shift)
{
    vec block_shift = FN(splat)(0.0);
    for (ptrdiff_t t = 0; t < n; t++) block_shift += shift[t];
    for (int l = 0; l < g->n_items; l++) {
        item *one = g->items[l];
        const ptrdiff_t run_end = one->length - t0, core_end = one->lead + one->core - t0;
        if (run_end <= 0) continue;
        const ptrdiff_t begin = one->lead > t0 ? one->lead - t0 : 0;
        const ptrdiff_t end = core_end < n ? core_end : n;
        if (begin == 0 && end == n) {
            one->shifts += FN(lane)(block_shift, l);
        } else if (begin < end) {
            double total = 0;
            for (ptrdiff_t t = begin; t < end; t++) total += ((const double *)(shift + t))[l];
            one->shifts += total;
        }
        for (ptrdiff_t k = 0; k < K; k++) {
            if (one->lead == t0 + n) one->edges[k] = ((const double *)(delta + (n - 1) * K + k))[l];
            if (core_end > 0 && core_end <= n)
                one->final[k] = ((const double *)(delta + (core_end - 1) * K + k))[l];
        }
        if (run_end <= n) {
            const vec *last = delta + (run_end - 1) * K;
            ptrdiff_t best = 0;
            for (ptrdiff_t k = 1; k < K; k++)
                if (((const double *)(last + k))[l] > ((const double *)(last + best))[l]) best = k;
            g->best[l] = best;
        }
    }
}

/* Where a log-density is FAR from 0, a step once more as in far_shift: the sum of the path so far (of
 * which `delta` holds what the step came from) with each density measured from the winner's.
 * INOUT row (K,): densities, out the delta of the step; shift: what is taken out of it. */
APART void FN(viterbi_far)(int K, const double *log_transmat, const vec *delta, const vec *start,
                           mask far, vec one, vec *row, vec *shift, vec *result)
{
    const vec zero = FN(splat)(0.0), lowest = FN(splat)(-DBL_MAX);
    vec value[LANE_STATES], winner = FN(splat)(-INFINITY), top = zero, largest;
    for (int j = 0; j < K; j++) {
        value[j] = start != NULL ? start[j] : FN(add_beside)(delta[0], log_transmat[j], one);
        for (int i = 1; i < K && start == NULL; i++)
            value[j] = FN(max)(value[j], FN(add_beside)(delta[i], log_transmat[i * K + j], one));
        const vec joint = value[j] + row[j];
        const mask better = FN(less)(winner, joint) & far;
        winner = FN(select)(better, joint, winner);
        top = FN(select)(better, row[j], top);
    }
    for (int j = 0; j < K; j++) {
        value[j] += row[j] - top;
        largest = j == 0 ? value[j] : FN(max)(largest, value[j]);
    }
    *shift = largest + top;
    largest = FN(max)(largest, lowest);
    for (int j = 0; j < K; j++) row[j] = result[j] = value[j] - largest;
}

/* delta_t[j] = max_i (delta_{t-1}[i] + log A[i][j]) + x_t[j], less its largest at every step: so
 * the bits at step t are a function of delta_{t-1} and the data alone, and a chunk whose warm-up
 * ends on the very bits of its neighbour has found the exact path. */
INLINE void FN(viterbi_lanes)(const int K, const chain *c, lane_group *g)
{
    vec start[LANE_STATES], delta[LANE_STATES], shift[BLOCK];
    vec *block = (vec *)g->block;
    uint8_t *pointers = g->pointers;
    const double *log_transmat = c->transmat;
    const vec lowest = FN(splat)(-DBL_MAX), one = FN(splat)(g->inverse_sum[0]);
    for (int k = 0; k < K; k++) {
        double lanes[W];
        for (int l = 0; l < W; l++)
            lanes[l] = l < g->n_items && g->items[l]->lead > 0 ? c->warm[k] : c->startprob[k];
        start[k] = FN(load)(lanes);
    }
    UNROLL for (int k = 0; k < K; k++) delta[k] = start[k];
    const ptrdiff_t longest = g->items[0]->length;
    for (ptrdiff_t t0 = 0; t0 < longest; t0 += BLOCK) {
        const ptrdiff_t n = longest - t0 < BLOCK ? longest - t0 : BLOCK;
        FN(read_block)(K, c, g, t0, n, block, NULL);
        for (ptrdiff_t t = 0; t < n; t++) {
            vec *row = block + t * K, value[LANE_STATES], largest;
            uint8_t *to = pointers + (t0 + t) * K * W;
            UNROLL for (int j = 0; j < K; j++) {
                vec best = FN(add_beside)(delta[0], log_transmat[j], one);
                pointers_of_lanes from = FN(pointers_to)(0);
                UNROLL for (int i = 1; i < K; i++) {
                    const vec candidate = FN(add_beside)(delta[i], log_transmat[i * K + j], one);
                    const mask better = FN(less)(best, candidate);
                    best = FN(max)(best, candidate);
                    from = FN(choose)(better, FN(pointers_to)(i), from);
                }
                value[j] = best;
                FN(store_pointers)(to + j * W, from);
            }
            if (t0 + t == 0) { /* there was nothing before, and nobody will follow the pointers */
                UNROLL for (int j = 0; j < K; j++) value[j] = start[j];
            }
            UNROLL for (int j = 0; j < K; j++) {
                value[j] += row[j];
                largest = j == 0 ? value[j] : FN(max)(largest, value[j]);
            }
            shift[t] = largest;
            const mask far = FN(less)(FN(splat)(FAR), FN(max)(largest, -largest))
                             & FN(less)(lowest, largest);
            if (FN(any)(far)) {
                vec result[LANE_STATES];
                FN(viterbi_far)(K, log_transmat, delta, t0 + t == 0 ? start : NULL, far, one, row,
                                shift + t, result);
                UNROLL for (int j = 0; j < K; j++) delta[j] = result[j];
                continue;
            }
            largest = FN(max)(largest, lowest);
            UNROLL for (int j = 0; j < K; j++) row[j] = delta[j] = value[j] - largest;
        }
        FN(harvest_viterbi)(K, g, t0, n, block, shift);
    }
}

/* ---- walking back ---------------------------------------------------------------------- */

/* All lanes walk back together, to hide the latency of the pointers. */
APART void FN(follow_pointers)(ptrdiff_t K, const chain *c, lane_group *g)
{
    ptrdiff_t state[W] = {0};
    int active = 0;
    for (ptrdiff_t t = g->items[0]->length - 1; t >= 0; t--) {
        const uint8_t *row = g->pointers + t * K * W;
        while (active < g->n_items && g->items[active]->length == t + 1) {
            state[active] = g->best[active];
            active++;
        }
        for (int l = 0; l < active; l++) {
            item *one = g->items[l];
            const ptrdiff_t place = t - one->lead;
            if (place >= 0 && place < one->core) c->states[one->row + t] = state[l];
            else if (place == one->core) one->state_after = state[l];
            state[l] = row[state[l] * W + l];
        }
    }
    for (int l = 0; l < g->n_items; l++) g->items[l]->log_likelihood = g->items[l]->shifts;
}

/* ---- instances ------------------------------------------------------------------------- */

/* How many of a number of states are constants of an instance: two doubles at a time leave little to
 * gain by it from some size on, so the rest shares one instance. */
#if W >= 4
#define FOR_OWN_INSTANCE(X) FOR_LANE_STATES(X)
#else
#define FOR_OWN_INSTANCE(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#endif

/* Did what was lost matter?  `run` is the forward kernel. */
APART void FN(check_lost)(const chain *c, lane_group *g, group_kernel run)
{
    chain bound;
    lane_group group;
    item items[MAX_WIDTH];
    if (!wants_bound(c, g)) return;
    open_bound(c, g, &bound, &group, items);
    run(&bound, &group);
    close_bound(&group, g);
}

#define INSTANCE(NAME, STATES)                                                                       \
    static void FN(forward_##NAME)(const chain *c, lane_group *g)                               \
    {                                                                                           \
        FN(forward_lanes)(STATES, 0, c, g);                                                          \
        FN(check_lost)(c, g, FN(forward_##NAME));                                               \
    }                                                                                           \
    static void FN(smooth_##NAME)(const chain *c, lane_group *g)                                \
    {                                                                                           \
        FN(forward_lanes)(STATES, 1, c, g);                                                          \
        FN(check_lost)(c, g, FN(forward_##NAME));                                               \
        FN(backward_lanes)(STATES, c, g);                                                            \
    }                                                                                           \
    static void FN(viterbi_##NAME)(const chain *c, lane_group *g)                               \
    {                                                                                           \
        FN(viterbi_lanes)(STATES, c, g);                                                             \
        FN(follow_pointers)(c->K, c, g);                                                        \
    }
#define ENTRY(NAME) {FN(forward_##NAME), FN(forward_##NAME), FN(smooth_##NAME), FN(viterbi_##NAME)}
#define OWN_INSTANCE(K) INSTANCE(K, K)
#define OWN_ENTRY(K) ENTRY(K),
FOR_OWN_INSTANCE(OWN_INSTANCE)
#if W < 4
INSTANCE(any, (int)c->K)
#define SHARED ENTRY(any)
#define SHARED_ENTRIES SHARED, SHARED, SHARED, SHARED, SHARED, SHARED, SHARED, SHARED
#else
#define SHARED_ENTRIES
#endif
static const lane_kernel FN(lane_kernels)[LANE_STATES][4] = {FOR_OWN_INSTANCE(OWN_ENTRY)
                                                                 SHARED_ENTRIES};

#undef pointers_of_lanes
#undef TILE
#undef TILES
#undef TILE_ROW
#undef FOR_OWN_INSTANCE
#undef INSTANCE
#undef ENTRY
#undef OWN_INSTANCE
#undef OWN_ENTRY
#undef SHARED
#undef SHARED_ENTRIES
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
