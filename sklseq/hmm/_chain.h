/* What the kernels of every instruction set share: the model, and the pieces of work. */
#ifndef SKLSEQ_CHAIN_H
#define SKLSEQ_CHAIN_H

#include "_sequential.h"

#define LANE_STATES 16 /* up to here a vector lane holds a sequence, above it holds a state */
#define BLOCK 64       /* steps between two visits to memory in row order */
#define ROW_BLOCK 32     /* the same for the row kernels */

enum { SCORE = 0, FILTER = 1, SMOOTH = 2, VITERBI = 3 };

/* The model of one call.  For VITERBI startprob, transmat and warm are logarithms. */
typedef struct {
    ptrdiff_t K;
    int kind;
    const double *startprob, *transmat;
    double *warm;             /* (K,) where the warm-up of a chunk starts */
    double *panels, *back_panels; /* transmat and its transpose, packed for the row kernels */
    double *filtered;         /* OUT (N, K): filtered or smoothed probabilities */
    double *log_increments;   /* OUT (N,) */
    ptrdiff_t *states;        /* OUT (N,) */
} chain;

/* A piece of work for one lane or row: a whole sequence, or a chunk of a long one.  The run is
 * `lead` steps of warm-up, `core` steps of its own, and (chunks) steps to warm up the way back. */
typedef struct {
    const double *log_obs;    /* first row of the run */
    ptrdiff_t row, length, lead, core, sequence;
    double *edges;            /* chunks: (4, K), see _batch.h; whole sequences: NULL */
    double *final;            /* (K,) OUT filtered probabilities at the end of the core */
    double *products;         /* chunks: (K, K) of their sequence */
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
    double *products, *totals; /* (K, K, W) */
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
    void (*pack_panels)(ptrdiff_t K, const double *matrix, int transposed, double padding,
                        double *packed);
} kernel_set;

#define FOR_LANE_STATES(X) \
    X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16)

#endif
