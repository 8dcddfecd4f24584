/* A batch of sequences, cut into pieces of work, sorted into groups, put together again.
 *
 * Sequences of at least CHUNKED_FROM steps (few states) are cut into chunks that run side by side
 * as lanes.  A chunk starts `lead` steps early from the long-run distribution and has forgotten
 * that start when its own steps begin; on the way back likewise.  That is checked at every seam:
 *     forward    predicted distribution = the left neighbour's, relative SEAM_TOLERANCE
 *     backward   posteriors = the right neighbour's, absolute SEAM_TOLERANCE (posteriors at earlier
 *                steps are averages of these, so the error cannot grow)
 *     Viterbi    the very bits of delta, and the same state: then the path is the exact one
 * A seam that does not close sends that sequence to longer chunks with a longer lead, at last to
 * the plain recursion.  All of this depends on that sequence alone.
 */
#ifndef SKLSEQ_BATCH_H
#define SKLSEQ_BATCH_H

#include "_chain.h"

typedef kernel_set kernel_choice;
#define KERNELS "_kernels.h"
#include "../_dispatch.h"

#define CHUNKED_FROM 4096
#define TRIED_FROM 16384 /* long enough to try the warm-up on a sample first */
#define LEVELS 3
#define SEAM_TOLERANCE 4e-14
#define WAVE 4096 /* pieces of work that are sorted together */

enum { DONE = 0, TODO = 1, NEEDS_PLAIN = 2, NEEDS_LOG = 3 };

/* One call: what comes in, what goes out, and the working space. */
typedef struct {
    int mode;
    chain chain;
    const kernel_set *kernels;
    const ptrdiff_t *offsets;
    ptrdiff_t n_sequences;
    double *log_likelihoods, *final, *counts, *statistics;
    ptrdiff_t n_statistics;
    uint8_t *status;
    item *items, **order;
    ptrdiff_t n_items, capacity;
    double *scratch; /* (K,) for results that nobody wants */
    void *space;
    size_t space_size;
} batch;

static inline ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static inline ptrdiff_t larger(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

static ptrdiff_t padded(ptrdiff_t K, int width) { return (K + width - 1) / width * width; }

/* Steps per chunk and lead at each level; 0 if the sequence is not cut. */
static ptrdiff_t plan_chunks(int mode, ptrdiff_t T, ptrdiff_t K, int level, ptrdiff_t *lead)
{
    static const ptrdiff_t leads[LEVELS] = {BLOCK, 8 * BLOCK, 64 * BLOCK};
    /* Not powers of two, or the lanes' rows would fall on the same lines of the cache. */
    static const ptrdiff_t most[LEVELS] = {1019, 2039, 8179};
    if (T < CHUNKED_FROM || K > LANE_STATES || BASE_WIDTH == 1) return 0;
    *lead = leads[level];
    const ptrdiff_t longest = mode == SMOOTH && K > 8 && level == 0 ? 509 : most[level];
    const ptrdiff_t n_lanes = MAX_WIDTH, n_chunks = (T + longest - 1) / longest;
    const ptrdiff_t n_even = (n_chunks + n_lanes - 1) / n_lanes * n_lanes;
    const ptrdiff_t steps = (T + n_even - 1) / n_even;
    return steps % BLOCK == 0 ? steps + 5 : steps;
}

/* Has a warm-up of `lead` steps at the end of log_obs (2 lead, K) forgotten its start?  One that starts
 * twice as early must predict the same. */
static int forgets(const chain *c, const double *log_obs, ptrdiff_t lead)
{
    const ptrdiff_t K = c->K, end = 2 * lead;
    double space[2][LANE_STATES], evidence[LANE_STATES], ends[2][LANE_STATES] = {{0}};
    double upper[LANE_STATES];
    for (int run = 0; run < 2; run++) {
        double *previous = NULL, sum = 1.0;
        for (ptrdiff_t t = end - (run + 1) * lead; t < end; t++) {
            double *current = space[t & 1];
            const double scale = power_of_two(-exponent_of(sum));
            int apart = 0;
            predict(K, c->warm, c->transmat, previous, current);
            const double shift = reached_shift(K, log_obs + t * K, current);
            if (shift == -INFINITY) return 0;
            evidence_row(K, log_obs + t * K, shift, evidence);
            sum = scaled_step(K, c->floor, scale, evidence, current, upper, &apart);
            if (sum < 0 || apart) return 0;
            previous = current;
        }
        for (ptrdiff_t i = 0; i < K; i++)
            for (ptrdiff_t j = 0; j < K; j++)
                ends[run][j] += previous[i] / sum * c->transmat[i * K + j];
    }
    for (ptrdiff_t j = 0; j < K; j++)
        if (!(fabs(ends[0][j] - ends[1][j]) <= SEAM_TOLERANCE * ends[0][j])) return 0;
    return 1;
}

/* Where a warm-up starts: the distribution far from the start; for Viterbi, 0 for every state that
 * can be reached at all. */
static int fill_warm_start(batch *work)
{
    chain *c = &work->chain;
    const ptrdiff_t K = c->K;
    double *square = malloc((2 * K * K + K) * sizeof(double)), *next = square + K * K;
    if (square == NULL) return -1;
    if (work->mode == VITERBI) {
        for (ptrdiff_t k = 0; k < K; k++) c->warm[k] = c->startprob[k] > -INFINITY ? 0 : -INFINITY;
        for (ptrdiff_t round = 0; round < K; round++)
            for (ptrdiff_t i = 0; i < K; i++)
                for (ptrdiff_t j = 0; j < K; j++)
                    if (c->warm[i] == 0 && c->transmat[i * K + j] > -INFINITY) c->warm[j] = 0;
    } else {
        memcpy(square, c->transmat, K * K * sizeof(double));
        for (int doubling = 0; doubling < 10; doubling++) {
            for (ptrdiff_t i = 0; i < K; i++)
                for (ptrdiff_t j = 0; j < K; j++) {
                    double sum = 0;
                    for (ptrdiff_t m = 0; m < K; m++) sum += square[i * K + m] * square[m * K + j];
                    next[i * K + j] = sum;
                }
            memcpy(square, next, K * K * sizeof(double));
        }
        for (ptrdiff_t j = 0; j < K; j++) {
            double sum = 0;
            for (ptrdiff_t i = 0; i < K; i++) sum += c->startprob[i] * square[i * K + j];
            c->warm[j] = sum < MIXING_ARC ? 0 : sum; /* a wrong guess shows at the seam */
        }
    }
    free(square);
    return 0;
}

static item *new_item(batch *work)
{
    if (work->n_items == work->capacity) {
        const ptrdiff_t capacity = larger(64, 2 * work->capacity);
        item *items = realloc(work->items, capacity * sizeof(item));
        if (items == NULL) return NULL;
        work->items = items;
        work->capacity = capacity;
    }
    item *one = work->items + work->n_items++;
    memset(one, 0, sizeof(item));
    return one;
}

/* Append the piece(s) of one sequence. */
static int add_sequence(batch *work, ptrdiff_t s, int level)
{
    const ptrdiff_t K = work->chain.K, first = work->offsets[s], T = work->offsets[s + 1] - first;
    const int both_ways = work->mode == SMOOTH || work->mode == VITERBI;
    ptrdiff_t lead = 0, steps = plan_chunks(work->mode, T, K, level, &lead);
    const int cut = steps > 0;
    double *edges = NULL, *products = NULL;
    if (!cut) steps = T;
    const ptrdiff_t n_chunks = (T + steps - 1) / steps;
    if (cut) {
        edges = calloc(n_chunks * 4 * K + K * K + work->n_statistics, sizeof(double));
        if (edges == NULL) return -1;
        products = edges + n_chunks * 4 * K;
    }
    for (ptrdiff_t i = 0; i < n_chunks; i++) {
        item *one = new_item(work);
        if (one == NULL) {
            if (i == 0) free(edges);
            return -1;
        }
        const ptrdiff_t core = i * steps, end = smaller(core + steps, T);
        one->lead = i == 0 ? 0 : lead;
        one->core = end - core;
        one->row = first + core - one->lead;
        one->length = (both_ways && cut ? smaller(end + lead, T) : end) - core + one->lead;
        one->sequence = s;
        one->edges = cut ? edges + i * 4 * K : NULL;
        one->products = products;
        one->final = cut ? one->edges + K : work->final != NULL ? work->final + s * K : work->scratch;
    }
    return 0;
}

/* Stable counting sort of the items by length, longest first. */
static int sort_items(batch *work)
{
    ptrdiff_t longest = 0;
    int sorted = 1;
    item **order = realloc(work->order, work->n_items * sizeof(item *));
    if (order == NULL) return -1;
    work->order = order;
    for (ptrdiff_t i = 0; i < work->n_items; i++) {
        if (i > 0 && work->items[i].length > work->items[i - 1].length) sorted = 0;
        longest = larger(longest, work->items[i].length);
        order[i] = work->items + i;
    }
    if (sorted) return 0;
    /* Lengths beyond the table (many states, long sequences) share its last entry by halves. */
    int halvings = 0;
    while ((longest >> halvings) > 1 << 16) halvings++;
    ptrdiff_t n_bins = (longest >> halvings) + 1, *bins = calloc(n_bins + 1, sizeof(ptrdiff_t));
    if (bins == NULL) return -1;
    for (ptrdiff_t i = 0; i < work->n_items; i++)
        bins[n_bins - (work->items[i].length >> halvings)]++;
    for (ptrdiff_t b = 0; b < n_bins; b++) bins[b + 1] += bins[b];
    for (ptrdiff_t i = 0; i < work->n_items; i++)
        order[bins[n_bins - 1 - (work->items[i].length >> halvings)]++] = work->items + i;
    free(bins);
    if (halvings > 0) /* nearly sorted: finish by insertion, stable as well */
        for (ptrdiff_t i = 1; i < work->n_items; i++) {
            item *one = order[i];
            ptrdiff_t j = i;
            for (; j > 0 && order[j - 1]->length < one->length; j--) order[j] = order[j - 1];
            order[j] = one;
        }
    return 0;
}

/* Doubles of working space for a group whose longest run is `longest`; with g, hand them out. */
static size_t lay_out(const batch *work, ptrdiff_t longest, ptrdiff_t n_items, double *space,
                      lane_group *g)
{
    const ptrdiff_t K = work->chain.K;
    const int lanes = K <= LANE_STATES, width = work->kernels->width, rows = work->kernels->rows;
    const ptrdiff_t unit = MAX_WIDTH; /* keeps every part aligned to a vector */
    const ptrdiff_t pitch = padded(K, width);
    size_t alpha = 0, evidence = 0, block, pointers = 0, products, input = 0, steps = 0;
    if (work->mode == FILTER) steps = 2 * longest * (lanes ? width : n_items);
    if (lanes) {
        const ptrdiff_t room = DENSITY_MARGIN; /* what a source may write beyond its block */
        if (work->mode == SMOOTH) alpha = evidence = (longest + room) * K * width;
        if (work->mode == VITERBI) pointers = (longest * K * width + 7) / 8;
        block = (BLOCK + room) * K * width;
        products = (K * K + work->chain.n_lane_sums) * width;
        if (work->chain.source->kind == GAUSSIAN)
            input = (work->chain.absorb ? 3 * BLOCK : BLOCK + room) * work->chain.source->width
                    * width;
    } else {
        if (work->mode == SMOOTH) alpha = n_items * longest;
        if (work->mode == VITERBI) alpha = n_items * longest * pitch;
        block = (3 * rows + (work->mode == SMOOTH ? 2 * ROW_BLOCK * rows : 0)) * pitch;
        products = 0;
    }
    const size_t sizes[7] = {alpha, evidence, block, products, input, steps, pointers};
    size_t places[8] = {0};
    for (int i = 0; i < 7; i++) places[i + 1] = places[i] + (sizes[i] + unit - 1) / unit * unit;
    if (g != NULL) {
        g->alpha = space;
        g->evidence = space + places[1];
        g->block = space + places[2];
        g->products = space + places[3];
        g->rows = space + places[4];
        g->steps = steps > 0 ? space + places[5] : NULL;
        g->pointers = (uint8_t *)(space + places[6]);
    }
    return places[7];
}

static double *aligned(void *p) { return (double *)(((uintptr_t)p + 63) & ~(uintptr_t)63); }

/* Working space for a group, kept from one to the next. */
static int make_room(batch *work, ptrdiff_t longest, ptrdiff_t n_items, lane_group *g)
{
    const size_t needed = lay_out(work, longest, n_items, NULL, NULL) * sizeof(double) + 64;
    if (needed > work->space_size) {
        free(work->space);
        work->space = malloc(needed);
        work->space_size = work->space == NULL ? 0 : needed;
        if (work->space == NULL) return -1;
    }
    lay_out(work, longest, n_items, aligned(work->space), g);
    return 0;
}

/* Run every item, in groups of equals. */
static int run_items(batch *work, lane_group *g)
{
    const ptrdiff_t K = work->chain.K;
    const int lanes = K <= LANE_STATES;
    const ptrdiff_t size = lanes ? work->kernels->width : work->kernels->rows;
    const group_kernel run =
        (lanes ? work->kernels->lane_kernels[K - 1] : work->kernels->row_kernels)[work->mode];
    for (ptrdiff_t i = 0; i < work->n_items; i += size) {
        g->n_items = (int)smaller(size, work->n_items - i);
        for (int l = 0; l < g->n_items; l++) g->items[l] = work->order[i + l];
        if (make_room(work, g->items[0]->length, g->n_items, g)) return -1;
        g->inverse_sum[0] = 1.0; /* what the kernels of Viterbi multiply by */
        run(&work->chain, g);
    }
    return 0;
}

static int close_to(ptrdiff_t n, const double *a, const double *b)
{
    for (ptrdiff_t k = 0; k < n; k++)
        if (!(fabs(a[k] - b[k]) <= SEAM_TOLERANCE)) return 0;
    return 1;
}

/* Do two neighbouring chunks agree? */
static int seam_closes(const batch *work, const item *left, const item *right)
{
    const chain *c = &work->chain;
    const ptrdiff_t K = c->K;
    if (work->mode == VITERBI) {
        for (ptrdiff_t k = 0; k < K; k++)
            if (!(left->final[k] == right->edges[k])) return 0;
        return left->state_after == c->states[right->row + right->lead];
    }
    for (ptrdiff_t j = 0; j < K; j++) {
        double from_left = 0, from_right = 0;
        for (ptrdiff_t i = 0; i < K; i++) {
            from_left += left->final[i] * c->transmat[i * K + j];
            from_right += right->edges[i] * c->transmat[i * K + j];
        }
        if (!(fabs(from_left - from_right) <= SEAM_TOLERANCE * from_left)) return 0;
    }
    if (!close_to(K, left->final, right->edges)) return 0;
    return work->mode != SMOOTH || close_to(K, left->edges + 3 * K, right->edges + 2 * K);
}

/* Put the items first..last of one sequence together; returns its new status. */
static int join_items(batch *work, ptrdiff_t first, ptrdiff_t last, int level)
{
    const ptrdiff_t K = work->chain.K, s = work->items[first].sequence;
    compensated total = {0, 0};
    for (ptrdiff_t i = first; i < last; i++) {
        if (work->items[i].bad) return NEEDS_PLAIN;
        compensated_add(&total, work->items[i].log_likelihood);
    }
    for (ptrdiff_t i = first + 1; i < last; i++)
        if (!seam_closes(work, work->items + i - 1, work->items + i))
            return level + 1 < LEVELS ? TODO : NEEDS_PLAIN;
    if (work->log_likelihoods != NULL) work->log_likelihoods[s] = compensated_value(&total);
    if (work->items[first].edges == NULL) return DONE;
    if (work->final != NULL)
        memcpy(work->final + s * K, work->items[last - 1].final, K * sizeof(double));
    if (work->mode == SMOOTH) {
        const double *products = work->items[first].products;
        for (ptrdiff_t k = 0; k < K * K; k++)
            work->counts[k] += work->chain.transmat[k] * products[k];
        for (ptrdiff_t i = 0; i < work->n_statistics; i++)
            work->statistics[i] += products[K * K + i];
    }
    return DONE;
}

static void drop_items(batch *work)
{
    for (ptrdiff_t i = 0; i < work->n_items; i++)
        if (work->items[i].lead == 0) free(work->items[i].edges); /* shared by the chunks */
    work->n_items = 0;
}

/* Run what has been collected and note how it went. */
static int flush_items(batch *work, int level, lane_group *g)
{
    int failed = 0;
    if (work->n_items > 0) failed = sort_items(work) || run_items(work, g);
    for (ptrdiff_t first = 0, last; first < work->n_items; first = last) {
        for (last = first; last < work->n_items; last++)
            if (work->items[last].sequence != work->items[first].sequence) break;
        if (!failed)
            work->status[work->items[first].sequence] =
                (uint8_t)join_items(work, first, last, level);
    }
    drop_items(work);
    return failed ? -1 : 0;
}

/* Transition counts and statistics of the whole sequences, kept per lane until now. */
static void add_totals(batch *work, const double *totals)
{
    const ptrdiff_t K = work->chain.K;
    const int width = work->kernels->width;
    const ptrdiff_t pitch = padded(K, width);
    for (ptrdiff_t i = 0; i < K; i++)
        for (ptrdiff_t j = 0; j < K; j++) {
            double sum = 0;
            if (K <= LANE_STATES)
                for (int l = 0; l < width; l++) sum += totals[(i * K + j) * width + l];
            else
                sum = totals[i * pitch + j];
            work->counts[i * K + j] += work->chain.transmat[i * K + j] * sum;
        }
    for (ptrdiff_t i = 0; i < work->chain.n_lane_sums; i++)
        for (int l = 0; l < width; l++) work->statistics[i] += totals[(K * K + i) * width + l];
}

/* ---- what the groups could not do: the plain and the log-space recursions, one by one ---- */

typedef struct {
    double *log_start, *log_transmat, *log_columns, *work, *steps;
    double *log_obs, *posteriors; /* (longest, K), where the caller has none */
    stretched *log_alpha, *log_increments, *log_work;
    uint8_t *pointers;
} slow_space;

static int open_slow_space(const batch *work, ptrdiff_t longest, slow_space *slow)
{
    const chain *c = &work->chain;
    const ptrdiff_t K = c->K;
    const int paths = work->mode == VITERBI;
    const size_t logs = paths ? 0 : longest * K + longest + 3 * K; /* alpha, increments, work */
    const size_t read = c->source->kind == LOG_ROWS ? 0 : longest * K;
    const size_t posteriors = c->absorb ? longest * K : 0;
    const size_t doubles = 7 * K + 3 * K * K + 2 * longest + read + posteriors;
    const size_t pointers = paths ? longest * K : 0;
    slow->log_start = malloc(doubles * sizeof(double) + logs * sizeof(stretched) + pointers);
    if (slow->log_start == NULL) return -1;
    slow->log_transmat = slow->log_start + K;
    slow->log_columns = slow->log_transmat + K * K;
    slow->work = slow->log_columns + K * K;     /* 6 K, then products (K, K) */
    slow->steps = slow->work + 6 * K + K * K;   /* scales and shifts */
    slow->log_obs = slow->steps + 2 * longest;
    slow->posteriors = slow->log_obs + read;
    slow->log_alpha = (stretched *)(slow->log_start + doubles);
    slow->log_increments = slow->log_alpha + (logs ? longest * K : 0);
    slow->log_work = slow->log_increments + (logs ? longest : 0);
    slow->pointers = (uint8_t *)(slow->log_alpha + logs);
    for (ptrdiff_t i = 0; i < K; i++) {
        const int already = work->mode == VITERBI;
        slow->log_start[i] = already ? c->startprob[i] : log(c->startprob[i]);
        for (ptrdiff_t j = 0; j < K; j++) {
            const double p = c->transmat[i * K + j], x = already ? p : log(p);
            slow->log_transmat[i * K + j] = slow->log_columns[j * K + i] = x;
        }
    }
    return 0;
}

/* The plain scaled recursion of one sequence; 0 if it cannot be trusted. */
static int run_plain(batch *work, ptrdiff_t s, const double *log_obs, slow_space *slow)
{
    const chain *c = &work->chain;
    const ptrdiff_t K = c->K, row = work->offsets[s], T = work->offsets[s + 1] - row;
    double *products = slow->work + 6 * K, *final = slow->work + 5 * K, log_likelihood = 0;
    double *shifts = slow->steps + T;
    double *out = c->absorb             ? slow->posteriors
                  : c->filtered == NULL ? NULL
                                        : c->filtered + row * K;
    if (work->mode == VITERBI) {
        work->log_likelihoods[s] =
            viterbi_sequence(K, slow->log_start, slow->log_columns, log_obs, T, c->states + row,
                             slow->pointers, slow->work);
        return 1;
    }
    if (work->final != NULL) final = work->final + s * K;
    if (scaled_forward(K, c->floor, c->startprob, c->transmat, log_obs, T, out,
                       work->mode == FILTER, slow->steps, shifts,
                       work->mode == FILTER ? c->log_increments + row : NULL, final,
                       &log_likelihood, slow->work)
        != PASS_OK)
        return 0;
    if (work->log_likelihoods != NULL) work->log_likelihoods[s] = log_likelihood;
    if (work->mode != SMOOTH) return 1;
    for (ptrdiff_t k = 0; k < K * K; k++) products[k] = 0;
    scaled_backward(K, c->transmat, log_obs, slow->steps, shifts, T, out, products, slow->work);
    for (ptrdiff_t k = 0; k < K * K; k++) work->counts[k] += c->transmat[k] * products[k];
    return 1;
}

static void run_log(batch *work, ptrdiff_t s, const double *log_obs, slow_space *slow)
{
    const chain *c = &work->chain;
    const ptrdiff_t K = c->K, row = work->offsets[s], T = work->offsets[s + 1] - row;
    const stretched *last = slow->log_alpha + (T - 1) * K;
    double *out = c->absorb ? slow->posteriors : c->filtered + row * K;
    const double log_likelihood =
        log_forward(K, slow->log_start, slow->log_columns, log_obs, T, slow->log_alpha,
                    slow->log_increments, slow->log_work);
    if (work->log_likelihoods != NULL) work->log_likelihoods[s] = log_likelihood;
    if (work->final != NULL)
        for (ptrdiff_t k = 0; k < K; k++) work->final[s * K + k] = exp(value_of(last[k]));
    if (work->mode == FILTER) {
        for (ptrdiff_t k = 0; k < T * K; k++) out[k] = exp(value_of(slow->log_alpha[k]));
        for (ptrdiff_t t = 0; t < T; t++)
            c->log_increments[row + t] = value_of(slow->log_increments[t]);
    } else if (work->mode == SMOOTH && log_likelihood == -INFINITY) {
        memset(out, 0, T * K * sizeof(double));
    } else if (work->mode == SMOOTH) {
        log_backward_posteriors(K, slow->log_transmat, log_obs, slow->log_alpha,
                                slow->log_increments, T, out, work->counts, slow->log_work);
    }
}

/* The log-densities of n rows: the caller's, or read into `space` (n, K). */
static const double *log_rows(batch *work, lane_group *g, ptrdiff_t row, ptrdiff_t n, double *space)
{
    const ptrdiff_t K = work->chain.K;
    item rows = {0};
    if (work->chain.source->kind == LOG_ROWS) return work->chain.source->rows + row * K;
    rows.row = row, rows.length = rows.core = n;
    g->items[0] = &rows, g->n_items = 1;
    if (make_room(work, BLOCK, 1, g)) return NULL;
    work->kernels->read_item(K, &work->chain, g, n, space);
    return space;
}

/* What a sequence outside the groups adds to the starts and the statistics. */
static int absorb_rest(batch *work, lane_group *g, ptrdiff_t s, const double *posteriors)
{
    const ptrdiff_t K = work->chain.K;
    item whole = {0};
    whole.row = work->offsets[s], whole.length = whole.core = work->offsets[s + 1] - whole.row;
    g->items[0] = &whole, g->n_items = 1;
    if (make_room(work, BLOCK, 1, g)) return -1;
    memcpy(work->chain.starts + s * K, posteriors, K * sizeof(double));
    memcpy(work->final + s * K, posteriors + (whole.length - 1) * K, K * sizeof(double));
    work->kernels->absorb_item(K, &work->chain, g, posteriors);
    return 0;
}

static int run_rest(batch *work, lane_group *g)
{
    ptrdiff_t longest = 0;
    slow_space slow;
    for (ptrdiff_t s = 0; s < work->n_sequences; s++) {
        if (work->status[s] == DONE) continue;
        longest = larger(longest, work->offsets[s + 1] - work->offsets[s]);
    }
    if (longest == 0) return 0;
    if (open_slow_space(work, longest, &slow)) return -1;
    int failed = 0;
    for (ptrdiff_t s = 0; s < work->n_sequences && !failed; s++) {
        if (work->status[s] == DONE) continue;
        const ptrdiff_t row = work->offsets[s], T = work->offsets[s + 1] - row;
        const double *log_obs = log_rows(work, g, row, T, slow.log_obs);
        if (log_obs == NULL) failed = -1;
        else if (work->status[s] != NEEDS_PLAIN || !run_plain(work, s, log_obs, &slow))
            run_log(work, s, log_obs, &slow);
        if (!failed && work->chain.absorb) failed = absorb_rest(work, g, s, slow.posteriors);
    }
    free(slow.log_start);
    return failed;
}

/* ---- the whole batch ---------------------------------------------------------------------- */

/* Whether this level may hold: tried at a few places of a long sequence, which spares a sticky chain
 * a pass in vain. */
static int worth_trying(batch *work, lane_group *g, ptrdiff_t s, int level)
{
    const ptrdiff_t K = work->chain.K, row = work->offsets[s], T = work->offsets[s + 1] - row;
    const ptrdiff_t n_places = 4 >> level;
    ptrdiff_t lead = 0, steps = plan_chunks(work->mode, T, K, level, &lead);
    if (steps == 0) return 1; /* a whole sequence */
    if (steps < lead) return 0;
    if (work->mode == VITERBI || T < TRIED_FROM) return 1;
    double *space = malloc(2 * lead * K * sizeof(double));
    int worth = space != NULL;
    for (ptrdiff_t i = 1; i <= n_places && worth; i++) {
        const ptrdiff_t first = row + i * T / (n_places + 1) - 2 * lead;
        const double *log_obs = log_rows(work, g, first, 2 * lead, space);
        worth = log_obs != NULL && forgets(&work->chain, log_obs, lead);
    }
    free(space);
    return worth;
}

static int run_groups(batch *work, lane_group *g)
{
    for (int level = 0; level < LEVELS; level++) {
        for (ptrdiff_t s = 0; s < work->n_sequences; s++) {
            if (work->status[s] != TODO) continue;
            if (!worth_trying(work, g, s, level)) {
                if (level + 1 == LEVELS) work->status[s] = NEEDS_PLAIN;
                continue;
            }
            if (add_sequence(work, s, level)) return -1;
            if (work->n_items >= WAVE && flush_items(work, level, g)) return -1;
        }
        if (flush_items(work, level, g)) return -1;
    }
    return 0;
}

/* Returns 0, or -1 for want of memory. */
static int run_batch(batch *work)
{
    chain *c = &work->chain;
    const ptrdiff_t K = c->K;
    work->kernels = choose_kernels();
    const ptrdiff_t pitch = padded(K, work->kernels->width);
    const int rows = K > LANE_STATES;
    work->n_statistics = c->absorb ? n_statistics(c->source, K) : 0;
    c->n_lane_sums = c->source->kind == GAUSSIAN ? work->n_statistics : 0;
    const size_t n_totals = rows ? K * pitch : (K * K + c->n_lane_sums) * work->kernels->width;
    const size_t n_panels = rows ? 2 * K * pitch : 0;
    lane_group g = {{NULL}};
    int failed = 0, long_ones = 0;
    c->floor = work->mode == VITERBI ? 0.0 : state_floor(K, c->transmat);
    work->status = malloc(work->n_sequences + 1);
    double *space = calloc(3 * K + n_totals + n_panels + 32, sizeof(double));
    if (work->status == NULL || space == NULL) failed = -1;
    if (!failed) {
        memset(work->status, c->floor == INFINITY ? NEEDS_LOG : TODO, work->n_sequences);
        g.totals = aligned(space);
        g.statistics = work->statistics;
        if (c->source->kind == CODES && work->mode != VITERBI)
            work->kernels->fill_evidence(K, c->source);
        c->panels = aligned(g.totals + n_totals);
        c->back_panels = c->panels + K * pitch;
        c->warm = c->panels + n_panels;
        work->scratch = c->warm + K;
        c->spare = work->scratch + K;
        for (ptrdiff_t s = 0; s < work->n_sequences; s++)
            long_ones |= work->offsets[s + 1] - work->offsets[s] >= CHUNKED_FROM;
        if (long_ones && !rows) failed = fill_warm_start(work);
    }
    if (!failed && rows) {
        const double padding = work->mode == VITERBI ? -INFINITY : 0.0;
        work->kernels->pack_panels(K, c->transmat, 0, padding, c->panels);
        if (work->mode == VITERBI) { /* looked up by state: plain rows */
            for (ptrdiff_t k = 0; k < K * pitch; k++) c->back_panels[k] = -INFINITY;
            for (ptrdiff_t i = 0; i < K; i++)
                for (ptrdiff_t j = 0; j < K; j++)
                    c->back_panels[j * pitch + i] = c->transmat[i * K + j];
        } else {
            work->kernels->pack_panels(K, c->transmat, 1, padding, c->back_panels);
        }
    }
    if (!failed) failed = run_groups(work, &g);
    if (!failed && work->mode == SMOOTH) add_totals(work, g.totals);
    if (!failed) failed = run_rest(work, &g);
    drop_items(work);
    free(work->items);
    free(work->order);
    free(work->space);
    free(work->status);
    free(space);
    return failed ? -1 : 0;
}

#endif
