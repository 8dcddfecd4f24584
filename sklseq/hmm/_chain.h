/* What the kernels of every instruction set share: the model, and the pieces of work. */
#ifndef SKLSEQ_CHAIN_H
#define SKLSEQ_CHAIN_H

#include "_sequential.h"
#include "_source.h"

#define LANE_STATES 16 /* up to here a vector lane holds a sequence, above it holds a state */
#define BLOCK 64       /* steps between two visits to memory in row order */
#define ROW_BLOCK 32     /* the same for the row kernels */

enum { SCORE = 0, FILTER = 1, SMOOTH = 2, VITERBI = 3 };

/* The model of one call.  For VITERBI startprob, transmat and warm are logarithms. */
typedef struct {
    ptrdiff_t K;
    double floor;             /* of a_t[j], see state_floor */
    const double *startprob, *transmat;
    const source *source;
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
    int bad;                  /* OUT the scaled pass is not to be trusted */
} item;

/* One group of items that run side by side, and the working space for it. */
typedef struct {
    item *items[MAX_WIDTH];
    int n_items;
    double *alpha, *evidence; /* (longest run, K, W) */
    double *block;            /* (BLOCK, K, W) and more */
    double *rows;             /* (3 BLOCK, width, W) and more, for the source */
    double *products, *totals; /* (K K + n_lane_sums, W) */
    double *statistics;       /* OUT of the whole sequences, for sources that add to it themselves */
    uint8_t *pointers;
    double inverse_sum[MAX_WIDTH];
    ptrdiff_t best[MAX_WIDTH];
} lane_group;

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
