/* What every recursion over time needs of its numbers. */
#ifndef SKLSEQ_SUMS_H
#define SKLSEQ_SUMS_H

#include "../_portable.h"

#define EVIDENCE_CAP 1e300

/* A running sum that keeps what rounding drops (Neumaier 1974). */
typedef struct { double sum, lost; } compensated;

static inline void compensated_add(compensated *total, double x)
{
    const double sum = total->sum + x;
    total->lost += fabs(total->sum) >= fabs(x) ? (total->sum - sum) + x : (x - sum) + total->sum;
    total->sum = sum;
}

static inline double compensated_value(const compensated *total)
{
    return isfinite(total->sum) ? total->sum + total->lost : total->sum;
}

static inline double capped(double log_obs)
{
    return log_obs > EVIDENCE_CAP ? EVIDENCE_CAP : log_obs;
}

#endif
