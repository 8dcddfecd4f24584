/* What every recursion over time needs of its numbers. */
#ifndef SKLSEQ_SUMS_H
#define SKLSEQ_SUMS_H

#include "../_portable.h"

#define EVIDENCE_CAP 1e300
#define FAR 4096.0 /* log-densities beyond cost a sum of logarithms digits */

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

/* The log-density of the state that wins a step, given what is predicted of every state, where that
 * is FAR from 0; else 0, so that the paths of ordinary data keep their bits.  Sums of logarithms
 * forget the past where a density is 1e17 nats away: they are measured from the winner's. */
static inline double far_shift(ptrdiff_t K, const double *log_predicted, const double *log_obs)
{
    double best = -INFINITY, shift = 0;
    for (ptrdiff_t k = 0; k < K; k++) {
        const double joint = log_predicted[k] + capped(log_obs[k]);
        if (joint > best) {
            best = joint;
            shift = capped(log_obs[k]);
        }
    }
    return fabs(shift) > FAR ? shift : 0.0;
}

/* A logarithm as the exact sum of densities and the sum of what is near 0.  Beside an outlier a
 * log-density of 1e17 leaves no digits for a probability, and states that lose by so much at one step
 * may win at the next: one double would have forgotten which of them was ahead.  -inf: far is. */
typedef struct { double far, near; } stretched;

/* x + y, what rounding drops of it kept in `near` (Knuth 1969, sec. 4.2.2, theorem B). */
static inline stretched plus_far(stretched x, double y)
{
    const double sum = x.far + y, part = sum - x.far;
    if (isfinite(sum)) x.near += (x.far - (sum - part)) + (y - part);
    x.far = sum;
    return x;
}

static inline stretched plus(stretched x, stretched y)
{
    x.near += y.near;
    return plus_far(x, y.far);
}

/* A logarithm of moderate size, or -inf. */
static inline stretched plus_near(stretched x, double y)
{
    if (y == -INFINITY) x.far = y;
    else x.near += y;
    return x;
}

static inline stretched negative(stretched x) { return (stretched){-x.far, -x.near}; }

static inline double value_of(stretched x)
{
    return x.far == -INFINITY ? x.far : x.far + x.near;
}

static inline double distance(stretched x, stretched y)
{
    return (x.far - y.far) + (x.near - y.near);
}

static inline int exceeds(stretched x, stretched y)
{
    if (x.far == -INFINITY || y.far == -INFINITY) return x.far > y.far;
    return distance(x, y) > 0;
}

#endif
