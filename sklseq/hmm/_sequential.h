/* One sequence at a time: the plain scaled recursions, and the log-space recursions that
 * take over where probabilities of one step span more than a double can hold.
 *
 * Notation: a_t filtered (unnormalised), b_t evidence exp(log_obs - row maximum), A transition
 * matrix, c_t = 2^-exponent(sum a_{t-1}) the power of two that keeps a_t near one (one step late,
 * so that neither a division nor a logarithm stands in the recursion).
 *     a_t = (a_{t-1} A) * b_t c_t
 *     u_t = b_t c_t * beta_t,   beta_{t-1} = A u_t,   posterior_t = a_t * beta_t
 *     counts = A * sum_t a_{t-1} u_t'
 * With beta_T = 1 / sum a_T the posteriors normalise themselves (Rabiner 1989, section V.A, with
 * the scaling kept to powers of two).
 *
 * When is the scaled pass to be trusted?  A state that could still matter must not be flushed.  Every
 * product a_t[j] with positive factors is checked against a floor, chosen so that no product of
 * a_t[j] with an arc underflows (with arcs below LEAST_ARC there is none: log space).  Products below
 * it are wrong by less than the floor, and whether that matters shows later.  The forward recursion
 * is therefore run once more with each of them raised to RAISED floors: it bounds the true one from
 * above, and by far.  If its likelihood is the same to RAISED_TOLERANCE, no state that was lost could
 * have had a share of 1e-17 in it, hence none in any posterior.  If not: log space.
 * If every arc has at least MIXING_ARC, a flushed state is refilled by its neighbours at the next
 * step, and only the sum needs the check.
 * A vanishing beta never harms: it is multiplied by a_t <= 2, so what is lost is posterior mass
 * below 1e-300.  beta of a state with a_t = 0 may grow without bound, hence the cap on u_t.
 */
#ifndef SKLSEQ_SEQUENTIAL_H
#define SKLSEQ_SEQUENTIAL_H

#include "_sums.h"

#define STATE_FLOOR 1e-200
#define SUM_FLOOR 1e-100
#define RAISED 1e10
#define RAISED_TOLERANCE 1e-8
#define LEAST_ARC 1e-200
#define MIXING_ARC 1e-30
#define BACKWARD_CAP 1e300
#define NEGLIGIBLE (-60.0) /* a logarithm below changes no bit of a sum of 1 and a million such */
#define LEAST_WEIGHT 1e-150 /* below a sum of filtered probabilities says nothing of its parts */
#define LOG_TINY (-745.0)  /* exp of less is 0 */
#define LN2 0.693147180559945309417232121458

enum { PASS_OK = 0, PASS_NEEDS_LOG = 1 };

/* The least a_t[j] that may stand for a state that matters: 0 if none matters (mixing), infinity if
 * the chain needs log space throughout. */
static double state_floor(ptrdiff_t K, const double *transmat)
{
    double least = 1.0, least_positive = 1.0;
    for (ptrdiff_t i = 0; i < K * K; i++) {
        if (transmat[i] < least) least = transmat[i];
        if (transmat[i] > 0 && transmat[i] < least_positive) least_positive = transmat[i];
    }
    if (least >= MIXING_ARC) return 0.0;
    if (least_positive < LEAST_ARC) return INFINITY;
    return fmax(STATE_FLOOR, 1e-300 / least_positive);
}

static inline int exponent_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, 8);
    return (int)((bits >> 52) & 0x7FF) - 1023;
}

static inline double power_of_two(int exponent)
{
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double x;
    memcpy(&x, &bits, 8);
    return x;
}

/* The largest log-density of the states that are reached, at most EVIDENCE_CAP; -inf if they all
 * find the step impossible. */
static double reached_shift(ptrdiff_t K, const double *row, const double *predicted)
{
    double shift = -INFINITY;
    for (ptrdiff_t k = 0; k < K; k++)
        if (predicted[k] > 0 && row[k] > shift) shift = row[k];
    return capped(shift);
}

/* Evidence of one step: out[k] = exp(row[k] - shift) in 1e-304..1, or exactly 0 for -inf. */
static void evidence_row(ptrdiff_t K, const double *row, double shift, double *out)
{
    for (ptrdiff_t k = 0; k < K; k++) {
        double x = row[k] - shift;
        if (x > 0) x = 0;
        out[k] = row[k] == -INFINITY ? 0.0 : exp(x < EXP_FLOOR ? EXP_FLOOR : x);
    }
}

/* OUT predicted = previous A, or startprob where there is no `previous`. */
static void predict(ptrdiff_t K, const double *startprob, const double *transmat,
                    const double *previous, double *predicted)
{
    if (previous == NULL) {
        memcpy(predicted, startprob, K * sizeof(double));
        return;
    }
    for (ptrdiff_t j = 0; j < K; j++) predicted[j] = 0;
    for (ptrdiff_t i = 0; i < K; i++) {
        const double a = previous[i], *arcs = transmat + i * K;
        for (ptrdiff_t j = 0; j < K; j++) predicted[j] += a * arcs[j];
    }
}

/* One step of the recursion and of the one with raised states beside it.
 * INOUT current, upper (K,): in what is predicted, out a_t; *apart: whether the two differ as yet
 * (upper is not looked at before).  Returns the sum of `current`, or -1 if it is not to be trusted. */
static double scaled_step(ptrdiff_t K, double floor, double scale, const double *evidence,
                          double *current, double *upper, int *apart)
{
    const double raised = RAISED * floor;
    double sum = 0, upper_sum = 0;
    int lost = 0;
    for (ptrdiff_t j = 0; j < K; j++) {
        const double b = evidence[j] * scale, above = *apart ? upper[j] : current[j];
        const int low = (above * b < raised) & (above > 0) & (b > 0);
        current[j] *= b;
        upper[j] = low ? above * b + raised : above * b;
        lost |= low;
        sum += current[j];
        upper_sum += upper[j];
    }
    *apart |= lost;
    return sum >= SUM_FLOOR && upper_sum - sum <= RAISED_TOLERANCE * sum ? sum : -1.0;
}

/* ---- scaled passes -------------------------------------------------------------------- */

/* OUT alpha (T, K) or NULL; scales, shifts (T,): c_t and what evidence is measured from;
 * log_increments (T,) or NULL; final (K,): the normalised a_T.  With `normalise`, alpha holds
 * filtered probabilities.  work: 5 K doubles. */
static int scaled_forward(ptrdiff_t K, double floor, const double *startprob, const double *transmat,
                          const double *log_obs, ptrdiff_t T, double *alpha, int normalise,
                          double *scales, double *shifts, double *log_increments, double *final,
                          double *log_likelihood, double *work)
{
    double *evidence = work, *buffers[2] = {work + K, work + 2 * K}, *previous = NULL;
    double *uppers[2] = {work + 3 * K, work + 4 * K};
    double sum = 1.0;
    int64_t exponents = 0;
    int apart = 0;
    compensated total = {0, 0};
    for (ptrdiff_t t = 0; t < T; t++) {
        const int exponent = exponent_of(sum);
        const double before = sum * power_of_two(-exponent);
        double *current = alpha != NULL && !normalise ? alpha + t * K : buffers[t & 1];
        double *upper = uppers[t & 1];
        scales[t] = power_of_two(-exponent);
        predict(K, startprob, transmat, previous, current);
        if (apart) predict(K, startprob, transmat, uppers[(t - 1) & 1], upper);
        shifts[t] = reached_shift(K, log_obs + t * K, apart ? upper : current);
        if (shifts[t] == -INFINITY) return PASS_NEEDS_LOG;
        evidence_row(K, log_obs + t * K, shifts[t], evidence);
        sum = scaled_step(K, floor, scales[t], evidence, current, upper, &apart);
        if (sum < 0) return PASS_NEEDS_LOG;
        exponents += exponent;
        compensated_add(&total, shifts[t]);
        if (log_increments != NULL) log_increments[t] = log(sum / before) + shifts[t];
        if (normalise && alpha != NULL)
            for (ptrdiff_t k = 0; k < K; k++) alpha[t * K + k] = current[k] / sum;
        previous = current;
    }
    for (ptrdiff_t k = 0; k < K; k++) final[k] = previous[k] / sum;
    compensated_add(&total, log(sum));
    compensated_add(&total, LN2 * (double)exponents);
    *log_likelihood = compensated_value(&total);
    return PASS_OK;
}

/* INOUT posteriors (T, K): in the unnormalised a_t of scaled_forward, out the posteriors.
 * INOUT products (K, K): += sum_t a_{t-1} u_t' (still to be multiplied by A). work: 3 K. */
static void scaled_backward(ptrdiff_t K, const double *transmat, const double *log_obs,
                            const double *scales, const double *shifts, ptrdiff_t T,
                            double *posteriors, double *products, double *work)
{
    double *u = work, *beta = work + K, sum = 0;
    const double *last = posteriors + (T - 1) * K;
    for (ptrdiff_t k = 0; k < K; k++) sum += last[k];
    for (ptrdiff_t k = 0; k < K; k++) beta[k] = 1.0 / sum;
    for (ptrdiff_t t = T - 1; t > 0; t--) {
        double *current = posteriors + t * K;
        const double *previous = current - K;
        evidence_row(K, log_obs + t * K, shifts[t], u);
        for (ptrdiff_t j = 0; j < K; j++) {
            current[j] *= beta[j];
            u[j] *= scales[t];
            u[j] *= beta[j];
            if (u[j] > BACKWARD_CAP) u[j] = BACKWARD_CAP;
        }
        for (ptrdiff_t i = 0; i < K; i++) {
            const double a = previous[i], *arcs = transmat + i * K;
            double total = 0;
            for (ptrdiff_t j = 0; j < K; j++) total += arcs[j] * u[j];
            for (ptrdiff_t j = 0; j < K; j++) products[i * K + j] += a * u[j];
            beta[i] = total;
        }
    }
    for (ptrdiff_t k = 0; k < K; k++) posteriors[k] *= beta[k];
}

/* ---- log-space passes ----------------------------------------------------------------- */

static stretched log_sum_exp(ptrdiff_t n, const stretched *x)
{
    stretched largest = {-INFINITY, 0};
    double sum = 0;
    for (ptrdiff_t i = 0; i < n; i++)
        if (exceeds(x[i], largest)) largest = x[i];
    if (largest.far == -INFINITY) return largest;
    for (ptrdiff_t i = 0; i < n; i++) {
        const double below = x[i].far == -INFINITY ? -INFINITY : distance(x[i], largest);
        if (below > NEGLIGIBLE) sum += exp(below);
    }
    largest.near += log(sum);
    return largest;
}

/* OUT log_alpha (T, K) normalised log filtered probabilities, log_increments (T,).
 * log_startprob (K,), log_columns (K, K): logarithm of the transposed transition matrix.
 * Steps from the first impossible one on hold -inf.  work: K.  Returns the log-likelihood. */
static double log_forward(ptrdiff_t K, const double *log_startprob, const double *log_columns,
                          const double *log_obs, ptrdiff_t T, stretched *log_alpha,
                          stretched *log_increments, stretched *work)
{
    const stretched zero = {0, 0}, nothing = {-INFINITY, 0};
    compensated total = {0, 0};
    for (ptrdiff_t t = 0; t < T; t++) {
        stretched *current = log_alpha + t * K;
        for (ptrdiff_t j = 0; j < K; j++) {
            current[j] = plus_near(zero, log_startprob[j]);
            if (t > 0) {
                for (ptrdiff_t i = 0; i < K; i++)
                    work[i] = plus_near((current - K)[i], log_columns[j * K + i]);
                current[j] = log_sum_exp(K, work);
            }
            current[j] = plus_far(current[j], capped(log_obs[t * K + j]));
        }
        const stretched increment = log_sum_exp(K, current);
        if (increment.far == -INFINITY) {
            for (ptrdiff_t s = t; s < T; s++) log_increments[s] = nothing;
            for (ptrdiff_t s = t * K; s < T * K; s++) log_alpha[s] = nothing;
            return -INFINITY;
        }
        for (ptrdiff_t j = 0; j < K; j++) current[j] = plus(current[j], negative(increment));
        log_increments[t] = increment;
        compensated_add(&total, increment.far);
        compensated_add(&total, increment.near);
    }
    return compensated_value(&total);
}

/* OUT posteriors (T, K) of a possible sequence.  log_alpha, log_increments: of log_forward.
 * INOUT transition_counts (K, K) +=.  log_transmat (K, K).  work: 3 K. */
static void log_backward_posteriors(ptrdiff_t K, const double *log_transmat, const double *log_obs,
                                    const stretched *log_alpha, const stretched *log_increments,
                                    ptrdiff_t T, double *posteriors, double *transition_counts,
                                    stretched *work)
{
    stretched *ahead = work, *beta = work + K, *terms = work + 2 * K;
    for (ptrdiff_t k = 0; k < K; k++) beta[k] = (stretched){0, 0};
    for (ptrdiff_t t = T - 1; t >= 0; t--) {
        for (ptrdiff_t j = 0; j < K; j++) {
            posteriors[t * K + j] = exp(value_of(plus(log_alpha[t * K + j], beta[j])));
            ahead[j] = plus(plus_far(beta[j], capped(log_obs[t * K + j])),
                            negative(log_increments[t]));
        }
        for (ptrdiff_t i = 0; t > 0 && i < K; i++) {
            const stretched before = log_alpha[(t - 1) * K + i];
            for (ptrdiff_t j = 0; j < K; j++)
                terms[j] = plus_near(ahead[j], log_transmat[i * K + j]);
            beta[i] = log_sum_exp(K, terms);
            if (before.far == -INFINITY) continue;
            for (ptrdiff_t j = 0; j < K; j++) {
                const double joint = value_of(plus(terms[j], before));
                if (joint > LOG_TINY) transition_counts[i * K + j] += exp(joint);
            }
        }
    }
}

/* OUT log_backward (T, K): log p(x_{t+1}..x_T | s_t = k), unnormalised.  work: 3 K. */
static void log_backward_messages(ptrdiff_t K, const double *log_transmat, const double *log_obs,
                                  ptrdiff_t T, double *log_backward, stretched *work)
{
    stretched *ahead = work, *terms = work + K;
    for (ptrdiff_t k = 0; k < K; k++) {
        ahead[k] = (stretched){0, 0};
        log_backward[(T - 1) * K + k] = 0;
    }
    for (ptrdiff_t t = T - 1; t > 0; t--) {
        for (ptrdiff_t j = 0; j < K; j++)
            ahead[j] = plus_far(ahead[j], capped(log_obs[t * K + j]));
        for (ptrdiff_t i = 0; i < K; i++) {
            for (ptrdiff_t j = 0; j < K; j++)
                terms[j] = plus_near(ahead[j], log_transmat[i * K + j]);
            work[2 * K + i] = log_sum_exp(K, terms);
        }
        for (ptrdiff_t i = 0; i < K; i++) {
            ahead[i] = work[2 * K + i];
            log_backward[(t - 1) * K + i] = value_of(ahead[i]);
        }
    }
}

/* ---- most probable path --------------------------------------------------------------- */

/* OUT states (T,).  Among equals the lowest index wins, at every step.
 * pointers: T K bytes (K <= 256), work: 2 K doubles.  Returns the log-probability of the path. */
static double viterbi_sequence(ptrdiff_t K, const double *log_startprob, const double *log_columns,
                               const double *log_obs, ptrdiff_t T, ptrdiff_t *states,
                               uint8_t *pointers, double *work)
{
    double *previous = work, *current = work + K, *swap;
    compensated total = {0, 0};
    ptrdiff_t best = 0;
    for (ptrdiff_t t = 0; t < T; t++) {
        const double *row = log_obs + t * K;
        for (ptrdiff_t j = 0; j < K; j++) {
            double value = log_startprob[j];
            ptrdiff_t from = 0;
            if (t > 0) {
                const double *column = log_columns + j * K;
                value = previous[0] + column[0];
                for (ptrdiff_t i = 1; i < K; i++)
                    if (previous[i] + column[i] > value) {
                        value = previous[i] + column[i];
                        from = i;
                    }
            }
            current[j] = value;
            pointers[t * K + j] = (uint8_t)from;
        }
        const double shift = far_shift(K, current, row);
        best = 0;
        for (ptrdiff_t j = 0; j < K; j++) {
            current[j] += capped(row[j]) - shift;
            if (current[j] > current[best]) best = j;
        }
        const double largest = current[best];
        compensated_add(&total, shift);
        compensated_add(&total, largest);
        if (largest > -INFINITY)
            for (ptrdiff_t j = 0; j < K; j++) current[j] -= largest;
        swap = previous, previous = current, current = swap;
    }
    for (ptrdiff_t t = T - 1; t >= 0; t--) {
        states[t] = best;
        best = pointers[t * K + best];
    }
    return compensated_value(&total);
}

/* ---- posterior draws ------------------------------------------------------------------ */

/* Inverse distribution function of unnormalised weights; a state of weight 0 is never drawn
 * unless all are 0 (then -1). */
static ptrdiff_t draw_state(ptrdiff_t K, const double *weights, double uniform)
{
    double total = 0, running = 0;
    ptrdiff_t drawn = -1;
    for (ptrdiff_t k = 0; k < K; k++) total += weights[k];
    for (ptrdiff_t k = 0; k < K; k++) {
        if (!(weights[k] > 0)) continue;
        running += weights[k];
        drawn = k;
        if (uniform * total < running) break;
    }
    return drawn;
}

/* One draw of s_1..s_T given X, backwards from the filtered probabilities (Chib 1996).
 * columns (K, K): the transposed transition matrix.  work: K doubles.
 * 0 if it passes where filtered probabilities are too small to tell states apart. */
static int sample_sequence(ptrdiff_t K, const double *columns, const double *filtered, ptrdiff_t T,
                           const double *uniforms, ptrdiff_t *states, double *work)
{
    for (ptrdiff_t t = T - 1; t >= 0; t--) {
        const double *row = filtered + t * K, *column = columns + (t < T - 1 ? states[t + 1] * K : 0);
        double total = 0;
        for (ptrdiff_t k = 0; k < K; k++) {
            work[k] = t < T - 1 ? row[k] * column[k] : row[k];
            total += work[k];
        }
        const ptrdiff_t drawn = draw_state(K, work, uniforms[t]);
        states[t] = drawn < 0 ? 0 : drawn;
        if (total < LEAST_WEIGHT) return 0;
    }
    return 1;
}

/* The same in log space.  log_columns as in log_forward.  work: K, weights: K doubles. */
static void log_sample_sequence(ptrdiff_t K, const double *log_columns, const stretched *log_alpha,
                                ptrdiff_t T, const double *uniforms, ptrdiff_t *states,
                                stretched *work, double *weights)
{
    for (ptrdiff_t t = T - 1; t >= 0; t--) {
        for (ptrdiff_t k = 0; k < K; k++)
            work[k] = t == T - 1 ? log_alpha[t * K + k]
                                 : plus_near(log_alpha[t * K + k], log_columns[states[t + 1] * K + k]);
        const stretched total = log_sum_exp(K, work);
        for (ptrdiff_t k = 0; k < K; k++)
            weights[k] = work[k].far == -INFINITY ? 0.0 : exp(distance(work[k], total));
        const ptrdiff_t drawn = draw_state(K, weights, uniforms[t]);
        states[t] = drawn < 0 ? 0 : drawn;
    }
}

#endif
