/* Between the rows of a source and lanes: log-densities or evidence in, expected statistics out.
 * Included once per instruction set, before _lanes.h; sources as in _source.h.
 */
#include "../_gaussian_density_block.h"
#include "../_gaussian_moments_block.h"

/* ---- evidence -------------------------------------------------------------------------- */

/* Log-densities of one step to evidence b = exp(x - shift); returns the shift. */
INLINE vec FN(evidence)(const int K, const vec *row, vec *b)
{
    const vec one = FN(splat)(1.0), zero = FN(splat)(0.0), lowest = FN(splat)(-DBL_MAX);
    vec largest = row[0];
    UNROLL for (int k = 1; k < K; k++) largest = FN(max)(largest, row[k]);
    const vec shift = FN(min)(FN(max)(largest, lowest), FN(splat)(EVIDENCE_CAP));
    if (K <= 2) { /* the larger of two is exp(0): one exponential instead of two */
        const vec top = FN(select)(FN(less)(largest, lowest), zero, one);
        if (K == 2) {
            const vec other = FN(exp_negative)(FN(min)(row[0], row[1]) - shift);
            const mask first_is_less = FN(less)(row[0], row[1]);
            b[0] = FN(select)(first_is_less, other, top);
            b[1] = FN(select)(first_is_less, top, other);
        } else {
            b[0] = top;
        }
    } else {
        UNROLL for (int k = 0; k < K; k++) b[k] = FN(exp_negative)(row[k] - shift);
    }
    return shift;
}

/* CODES: the table of evidence from that of log-probabilities, W codes at a time. */
static void FN(fill_evidence)(ptrdiff_t K, const source *s)
{
    const ptrdiff_t pitch = code_pitch(K);
    for (ptrdiff_t v = 0; v < s->V + 2; v += W) {
        vec row[LANE_STATES], b[LANE_STATES];
        const int n = s->V + 2 - v < W ? (int)(s->V + 2 - v) : W;
        for (ptrdiff_t k = 0; k < K; k++) {
            double lanes[W] = {0};
            for (int l = 0; l < n; l++) lanes[l] = s->logs[(v + l) * pitch + k];
            row[k] = FN(load)(lanes);
        }
        const vec shift = FN(evidence)((int)K, row, b);
        for (int l = 0; l < n; l++) {
            for (ptrdiff_t k = 0; k < K; k++) s->table[(v + l) * pitch + k] = FN(lane)(b[k], l);
            s->table[(v + l) * pitch + K] = FN(lane)(shift, l);
        }
    }
}

/* Rows t0.. of the lanes' sources and how many of the block's n steps each lane has. */
INLINE void FN(open_block)(const lane_group *g, ptrdiff_t t0, ptrdiff_t n, ptrdiff_t *rows,
                           ptrdiff_t *steps)
{
    for (int l = 0; l < W; l++) {
        const ptrdiff_t left = l < g->n_items ? g->items[l]->length - t0 : 0;
        steps[l] = left < 0 ? 0 : left > n ? n : left;
        rows[l] = steps[l] > 0 ? g->items[l]->row + t0 : 0;
    }
}

/* OUT x (n, width, W); what follows the end of a lane reads as `filling`. */
APART void FN(read_rows)(const chain *c, const lane_group *g, ptrdiff_t t0, ptrdiff_t n,
                          double filling, vec *x)
{
    const ptrdiff_t width = c->source->width;
    const double *streams[W];
    ptrdiff_t rows[W], lengths[W];
    FN(open_block)(g, t0, n, rows, lengths);
    for (int l = 0; l < W; l++) {
        streams[l] = c->source->rows + rows[l] * width;
        lengths[l] *= width;
    }
    FN(gather)(streams, lengths, n * width, filling, x);
}

/* OUT codes (n, W) of the lanes, missing ones as V, and V + 1 outside first[l]..last[l]. */
APART void FN(codes_of_block)(const source *s, const ptrdiff_t *rows, const ptrdiff_t *first,
                               const ptrdiff_t *last, ptrdiff_t n, int *codes)
{
    const int missing = (int)s->V, outside = missing + 1;
    for (int l = 0; l < W; l++) {
        const int *wide = s->codes + (s->codes ? rows[l] : 0);
        const short *narrow = s->short_codes + (s->codes ? 0 : rows[l]);
        ptrdiff_t t = 0;
        for (; t < n && t < first[l]; t++) codes[t * W + l] = outside;
        for (; t < n && t < last[l]; t++) {
            const int code = s->codes ? wide[t] : narrow[t];
            codes[t * W + l] = code < 0 ? missing : code;
        }
        for (; t < n; t++) codes[t * W + l] = outside;
    }
}

/* OUT out (n, K, W), with W vectors of room after it, and shift (n, W) if not NULL. */
APART void FN(read_codes)(ptrdiff_t K, const chain *c, const lane_group *g, ptrdiff_t t0,
                           ptrdiff_t n, vec *out, vec *shift)
{
    const source *s = c->source;
    const ptrdiff_t pitch = code_pitch(K), n_entries = shift != NULL ? K + 1 : K;
    const double *table = shift != NULL ? s->table : s->logs;
    ptrdiff_t rows[W], first[W] = {0}, last[W];
    int codes[BLOCK * W];
    FN(open_block)(g, t0, n, rows, last);
    FN(codes_of_block)(s, rows, first, last, n, codes);
    for (ptrdiff_t t = 0; t < n; t++) {
        const double *found[W];
        vec tile[W], *to = out + t * K; /* the next step overwrites what is too much */
        ptrdiff_t k = 0;
        UNROLL for (int l = 0; l < W; l++) found[l] = table + codes[t * W + l] * pitch;
#if W == 8
        for (; k + 4 < n_entries; k += W) {
#else
        for (; k < n_entries; k += W) {
#endif
            UNROLL for (int l = 0; l < W; l++) tile[l] = FN(load)(found[l] + k);
            FN(transpose)(tile);
            UNROLL for (int l = 0; l < W; l++) to[k + l] = tile[l];
        }
#if W == 8
        if (k < n_entries) { /* four or fewer are left */
            UNROLL for (int l = 0; l < W; l++) found[l] += k;
            FN(transpose_half)(found, tile);
            UNROLL for (int l = 0; l < 4; l++) to[k + l] = tile[l];
        }
#endif
        if (shift != NULL) shift[t] = to[K];
    }
}

/* OUT out (n, K, W), with W vectors of room: log-densities of the steps t0..t0+n, -inf after the end
 * of a lane.  With `shift` a source may leave evidence and its shifts instead: 1 is returned. */
APART int FN(read_block)(ptrdiff_t K, const chain *c, const lane_group *g, ptrdiff_t t0,
                          ptrdiff_t n, vec *out, vec *shift)
{
    if (c->source->kind == CODES) {
        FN(read_codes)(K, c, g, t0, n, out, shift);
        return shift != NULL;
    }
    if (c->source->kind == LOG_ROWS) {
        FN(read_rows)(c, g, t0, n, -INFINITY, out);
        return 0;
    }
    vec *x = (vec *)g->rows;
    FN(read_rows)(c, g, t0, n, 0.0, x);
    FN(density_block)(&c->source->normal, n, x, out);
    for (int l = 0; l < W; l++) {
        const ptrdiff_t left = l < g->n_items ? g->items[l]->length - t0 : 0;
        for (ptrdiff_t i = (left < 0 ? 0 : left) * K; i < n * K; i++)
            ((double *)(out + i))[l] = -INFINITY;
    }
    return 0;
}

/* ---- expected statistics --------------------------------------------------------------- */

/* Adds the posteriors (n, K, W), which have W vectors of room, to the rows of their codes. */
APART void FN(absorb_codes)(ptrdiff_t K, const chain *c, const lane_group *g, ptrdiff_t t0,
                             ptrdiff_t n, const vec *gamma)
{
    const source *s = c->source;
    const ptrdiff_t pitch = code_pitch(K);
    double *sinks[W];
    ptrdiff_t first[W], last[W], rows[W];
    int codes[BLOCK * W];
    for (int l = 0; l < W; l++) {
        const item *one = g->items[l];
        const int used = l < g->n_items && !one->bad;
        sinks[l] = used && one->edges != NULL ? one->products + K * K : g->statistics;
        first[l] = used ? one->lead - t0 : n;
        last[l] = used ? one->lead + one->core - t0 : n;
        rows[l] = used ? one->row + t0 : 0;
    }
    FN(codes_of_block)(s, rows, first, last, n, codes); /* nobody reads the row V + 1 */
    for (ptrdiff_t t = 0; t < n; t++) {
        double *found[W];
        UNROLL for (int l = 0; l < W; l++) found[l] = sinks[l] + codes[t * W + l] * pitch;
        for (ptrdiff_t k = 0; k < K; k += W) {
            vec tile[W];
            UNROLL for (int l = 0; l < W; l++) tile[l] = gamma[t * K + k + l];
            FN(transpose)(tile);
            UNROLL for (int l = 0; l < W; l++)
                FN(store)(found[l] + k, FN(load)(found[l] + k) + tile[l]);
        }
    }
}

/* The statistics of the steps t0..t0+n under their posteriors, 0 for steps that are not a lane's own:
 * lane by lane into `sums`, or for codes into the statistics themselves. */
APART void FN(absorb_block)(ptrdiff_t K, const chain *c, const lane_group *g, ptrdiff_t t0,
                             ptrdiff_t n, const vec *gamma, vec *sums)
{
    const ptrdiff_t D = c->source->width;
    vec *x = (vec *)g->rows;
    if (c->source->kind == CODES) {
        FN(absorb_codes)(K, c, g, t0, n, gamma);
        return;
    }
    FN(read_rows)(c, g, t0, n, 0.0, x);
    FN(moments_block)(K, D, c->source->normal.full, n, x, gamma, c->source->means, x + n * D, sums);
}

/* ---- one sequence, for the recursions that run outside the lanes ------------------------- */

/* OUT log_obs (n, K): the first n steps of an item.  space: that of lay_out_one. */
static void FN(read_item)(ptrdiff_t K, const chain *c, lane_group *g, ptrdiff_t n, double *log_obs)
{
    vec *block = (vec *)g->block;
    for (ptrdiff_t t0 = 0; t0 < n; t0 += BLOCK) {
        const ptrdiff_t steps = n - t0 < BLOCK ? n - t0 : BLOCK;
        FN(read_block)(K, c, g, t0, steps, block, NULL);
        for (ptrdiff_t i = 0; i < steps * K; i++) log_obs[t0 * K + i] = ((double *)(block + i))[0];
    }
}

/* Adds the statistics of an item under its posteriors (length, K). */
static void FN(absorb_item)(ptrdiff_t K, const chain *c, lane_group *g, const double *posteriors)
{
    vec *block = (vec *)g->block, *sums = (vec *)g->products;
    const ptrdiff_t length = g->items[0]->length;
    for (ptrdiff_t i = 0; i < c->n_lane_sums; i++) sums[i] = FN(splat)(0.0);
    for (ptrdiff_t t0 = 0; t0 < length; t0 += BLOCK) {
        const ptrdiff_t n = length - t0 < BLOCK ? length - t0 : BLOCK;
        for (ptrdiff_t i = 0; i < n * K; i++) {
            block[i] = FN(splat)(0.0);
            ((double *)(block + i))[0] = posteriors[t0 * K + i];
        }
        FN(absorb_block)(K, c, g, t0, n, block, sums);
    }
    for (ptrdiff_t i = 0; i < c->n_lane_sums; i++) g->statistics[i] += ((double *)(sums + i))[0];
}
