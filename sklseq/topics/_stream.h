/* One reproducible stream of random numbers per document.
 *
 * The generator is xoshiro256++ (Blackman and Vigna 2021) whose four words of state are filled by
 * splitmix64 from one 64-bit seed; gamma variates follow Marsaglia and Tsang (2000).
 */
#ifndef SKLSEQ_TOPICS_STREAM_H
#define SKLSEQ_TOPICS_STREAM_H

#include <math.h>
#include <stdint.h>

typedef struct {
    uint64_t word[4];
} Stream;

static inline void stream_start(Stream *stream, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        uint64_t mixed = (seed += UINT64_C(0x9E3779B97F4A7C15));
        mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
        mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94D049BB133111EB);
        stream->word[i] = mixed ^ (mixed >> 31);
    }
}

static inline uint64_t stream_rotate(uint64_t value, int by) {
    return (value << by) | (value >> (64 - by));
}

static inline uint64_t stream_bits(Stream *stream) {
    uint64_t *s = stream->word;
    const uint64_t result = stream_rotate(s[0] + s[3], 23) + s[0];
    const uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = stream_rotate(s[3], 45);
    return result;
}

/* Uniform on the open interval (0, 1): never 0, so that its logarithm is finite. */
static inline double stream_uniform(Stream *stream) {
    return ((double)(stream_bits(stream) >> 12) + 0.5) * (1.0 / 4503599627370496.0);
}

static inline double stream_normal(Stream *stream) {
    for (;;) {
        const double x = 2.0 * stream_uniform(stream) - 1.0;
        const double y = 2.0 * stream_uniform(stream) - 1.0;
        const double square = x * x + y * y;
        if (square < 1.0 && square > 0.0) return x * sqrt(-2.0 * log(square) / square);
    }
}

/* Logarithm of a gamma variate of the given shape and scale 1.  The logarithm, since for small
 * shapes the variate itself underflows. */
static inline double stream_log_gamma(Stream *stream, double shape) {
    double boost = 0.0;
    if (shape < 1.0) {
        boost = log(stream_uniform(stream)) / shape;
        shape += 1.0;
    }
    const double d = shape - 1.0 / 3.0;
    const double c = 1.0 / sqrt(9.0 * d);
    for (;;) {
        const double x = stream_normal(stream);
        double v = 1.0 + c * x;
        if (v <= 0.0) continue;
        v = v * v * v;
        if (log(stream_uniform(stream)) < 0.5 * x * x + d - d * v + d * log(v))
            return log(d) + log(v) + boost;
    }
}

#endif
