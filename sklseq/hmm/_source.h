/* Where the evidence of a step comes from, for the lane kernels (see _reading.h).
 *
 *     LOG_ROWS   log-densities (N, K) that the family has worked out: every family, any K
 *     GAUSSIAN   rows X (N, D): densities are taken block by block on their way to the recursion
 *     CODES      category codes (N,): evidence is looked up, so no step needs an exponential
 *
 * The last two also add up the family's statistics behind the backward recursion, so that nothing of
 * size (N, K) is ever written.  The same additions are done in the same order whichever way the
 * densities come in: results agree to the bit.
 */
#ifndef SKLSEQ_SOURCE_H
#define SKLSEQ_SOURCE_H

#include "../_gaussian_parameters.h"

enum { LOG_ROWS = 0, GAUSSIAN = 1, CODES = 2 };

typedef struct {
    int kind;
    ptrdiff_t width;      /* doubles in a row: K, D or none */
    const double *rows;   /* LOG_ROWS (N, K), GAUSSIAN (N, D) */
    gaussian normal;
    const double *means;  /* GAUSSIAN (K, D) */
    const int *codes;     /* CODES (N,): 0..V-1, -1 where missing; NULL where they are short */
    const short *short_codes;
    ptrdiff_t V;
    double *logs, *table; /* CODES (V + 2, code_pitch(K)): log-probabilities, and evidence with its
                             shift at [K]; row V is a missing code, row V + 1 what follows the end */
} source;

static inline ptrdiff_t code_pitch(ptrdiff_t K) { return (K + 8) / 8 * 8; }

/* Doubles that the statistics of a source take. */
static ptrdiff_t n_statistics(const source *s, ptrdiff_t K)
{
    const ptrdiff_t D = s->width;
    if (s->kind == GAUSSIAN) return s->normal.full ? K * (1 + D + D * D) : 3 * K * D;
    return s->kind == CODES ? (s->V + 2) * code_pitch(K) : 0;
}

/* OUT s->logs, s->table (to be filled by fill_evidence), given back by free(s->logs).
 * log_table (V, K).  -1: no memory. */
static int pack_codes(ptrdiff_t V, ptrdiff_t K, const double *log_table, source *s)
{
    const ptrdiff_t pitch = code_pitch(K), size = (V + 2) * pitch;
    s->logs = calloc(2 * size, sizeof(double));
    if (s->logs == NULL) return -1;
    s->table = s->logs + size;
    s->V = V;
    for (ptrdiff_t v = 0; v < V; v++) memcpy(s->logs + v * pitch, log_table + v * K, K * sizeof(double));
    for (ptrdiff_t k = 0; k < K; k++) s->logs[(V + 1) * pitch + k] = -INFINITY;
    return 0;
}

#endif
