/* The innermost loop of the left-to-right estimator. */
#ifndef SKLSEQ_TOPICS_TOPIC_MASS_H
#define SKLSEQ_TOPICS_TOPIC_MASS_H

#include <stddef.h>

#if defined(_MSC_VER)
#define SKLSEQ_RESTRICT __restrict
#else
#define SKLSEQ_RESTRICT __restrict__
#endif

enum { TOPIC_BLOCK = 4 };

/* mass[k] = (counts[k] + prior[k]) * word[k] for k < n_padded, a multiple of TOPIC_BLOCK.
 * Returns the sum.  Separate partial sums let the compiler use vector registers. */
static inline double topic_mass(const double *SKLSEQ_RESTRICT counts,
                                const double *SKLSEQ_RESTRICT prior,
                                const double *SKLSEQ_RESTRICT word,
                                double *SKLSEQ_RESTRICT mass, ptrdiff_t n_padded) {
    double lane[TOPIC_BLOCK] = {0.0, 0.0, 0.0, 0.0};
    for (ptrdiff_t k = 0; k < n_padded; k += TOPIC_BLOCK)
        for (int j = 0; j < TOPIC_BLOCK; j++) {
            const double product = (counts[k + j] + prior[k + j]) * word[k + j];
            mass[k + j] = product;
            lane[j] += product;
        }
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

/* The topic at which the running sum of mass passes threshold.  When rounding lets threshold
 * reach the very end, the last topic with mass: a topic without mass is never drawn. */
static inline ptrdiff_t topic_at(const double *mass, double threshold, ptrdiff_t n_padded) {
    ptrdiff_t last = 0;
    for (ptrdiff_t k = 0; k < n_padded; k += TOPIC_BLOCK) {
        const double block = (mass[k] + mass[k + 1]) + (mass[k + 2] + mass[k + 3]);
        if (threshold >= block) {
            threshold -= block;
            if (block > 0.0)
                for (int j = 0; j < TOPIC_BLOCK; j++)
                    if (mass[k + j] > 0.0) last = k + j;
            continue;
        }
        for (int j = 0; j < TOPIC_BLOCK; j++) {
            if (mass[k + j] > 0.0) {
                last = k + j;
                if (threshold < mass[k + j]) return last;
                threshold -= mass[k + j];
            }
        }
        return last; /* rounding inside the block */
    }
    return last;
}

#endif
