/* What the kernels of every instruction set share: the model, and the pieces of work. */
#ifndef SKLSEQ_CHAIN_H
#define SKLSEQ_CHAIN_H

#include "_sequential.h"
#include "_source.h"

#define LANE_STATES 16 /* up to here a vector lane holds a sequence, above it holds a state */
#define BLOCK 64       /* steps between two visits to memory in row order */
#define ROW_BLOCK 32     /* the same for the row kernels */

enum { LOST = 1, WORSE = 2 }; /* a state fell below the floor; nothing is left, or more was lost */
enum { SCORE = 0, FILTER = 1, SMOOTH = 2, VITERBI = 3 };

/* The model of one call.  For VITERBI startprob, transmat and warm are logarithms. */
typedef struct {
    ptrdiff_t K;
    double floor;             /* of a_t[j], see state_floor */
    double raised;            /* added to what is below the floor, in the run that bounds it; or 0 */
    const double *startprob, *transmat;
    const source *source;
    double *spare;            /* (K,) for what nobody wants */
    double *warm;             /* (K,) where the warm-up of a chunk starts */
    double *panels, *back_panels; /* transmat and its transpose, packed for the row kernels */
    double *filtered;         /* OUT (N, K): filtered or smoothed probabilities, or NULL */
    double *starts;           /* OUT (S, K): smoothed probabilities at the first step, or NULL */
    int absorb;               /* whether the source adds up its statistics */
    ptrdiff_t n_lane_sums;    /* of these, how many are kept lane by lane */
    double *log_increments;   /* OUT (N,) */
    ptrdiff_t *states;        /* OUT (N,) */
} chain;

/* A piece of work for one lane or row: a whole sequence, or a chunk of a long one.  The run is
 * `lead` steps of warm-up, `core` steps of its own, and (chunks) steps to warm up the way back. */
typedef struct {
    ptrdiff_t row, length, lead, core, sequence; /* row: the first of the run */
    double *edges;            /* chunks: (4, K), see _batch.h; whole sequences: NULL */
    double *final;            /* (K,) OUT filtered probabilities at the end of the core */
    double *products;         /* chunks: (K, K) and the statistics of their sequence */
    double log_likelihood;    /* OUT of the core given what precedes it */
    double log_before, shifts;
    int64_t exponents;
    ptrdiff_t state_after;    /* OUT Viterbi state at the step after the core */
    int bad;                  /* OUT why the scaled pass is not to be trusted: 0, LOST or WORSE */
} item;

/* One group of items that run side by side, and the working space for it. */
typedef struct {
    item *items[MAX_WIDTH];
    int n_items;
    double *alpha, *evidence; /* (longest run, K, W) */
    double *block;            /* (BLOCK, K, W) and more */
    double *rows;             /* (3 BLOCK, width, W) and more, for the source */
    double *steps;            /* FILTER: (longest, 2, W) or (n_items, longest, 2): the sum of a_t and
                                 its power of two, for the bound; else NULL */
    double *products, *totals; /* (K K + n_lane_sums, W) */
    double *statistics;       /* OUT of the whole sequences, for sources that add to it themselves */
    uint8_t *pointers;
    double inverse_sum[MAX_WIDTH];
    ptrdiff_t best[MAX_WIDTH];
} lane_group;

/* The items of a group once more, to be run with raised states. */
static void open_bound(const chain *c, const lane_group *g, chain *bound, lane_group *group,
                       item *items)
{
    *bound = *c;
    bound->floor = bound->raised = RAISED * c->floor;
    bound->filtered = NULL;
    *group = *g;
    for (int l = 0; l < g->n_items; l++) {
        items[l] = *g->items[l];
        items[l].final = c->spare;
        items[l].exponents = 0;
        items[l].log_likelihood = items[l].shifts = items[l].bad = 0;
        group->items[l] = items + l;
    }
}

/* Whether an item needs it: a whole sequence that lost a state and nothing else. */
static int wants_bound(const chain *c, const lane_group *g)
{
    for (int l = 0; l < g->n_items; l++)
        if (c->raised == 0 && g->items[l]->bad == LOST && g->items[l]->edges == NULL) return 1;
    return 0;
}

static inline int as_good_as_equal(double x, double y)
{
    return fabs(x / y - 1) <= RAISED_TOLERANCE;
}

/* What was lost did not matter where the bound is as good as equal. */
static void close_bound(const lane_group *group, lane_group *g)
{
    for (int l = 0; l < g->n_items; l++) {
        const item *bound = group->items[l];
        item *one = g->items[l];
        if (one->bad == LOST && one->edges == NULL && !(bound->bad & WORSE)
            && bound->exponents == one->exponents
            && as_good_as_equal(g->inverse_sum[l], group->inverse_sum[l]))
            one->bad = 0;
    }
}

typedef void (*group_kernel)(const chain *, lane_group *);
typedef group_kernel lane_kernel;

/* The kernels of one instruction set: up to LANE_STATES states, and above. */
typedef struct {
    int width, rows;
    group_kernel row_kernels[4];
    const lane_kernel (*lane_kernels)[4];
    void (*fill_evidence)(ptrdiff_t K, const source *s);
    void (*read_item)(ptrdiff_t K, const chain *c, lane_group *g, ptrdiff_t n, double *log_obs);
    void (*absorb_item)(ptrdiff_t K, const chain *c, lane_group *g, const double *posteriors);
    void (*pack_panels)(ptrdiff_t K, const double *matrix, int transposed, double padding,
                        double *packed);
} kernel_set;

#define FOR_LANE_STATES(X) \
    X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16)

#endif
