/* Vectors of W doubles, one for each instruction set.  Included once per instruction set by
 * _dispatch.h, which defines
 *     ISA   suffix of every name below
 *     W     doubles per vector: 8 (AVX-512), 4 (AVX2), 2 (SSE2, NEON), 1 (no vector types)
 * The arithmetic is written with the operators of GCC's and Clang's vector types, so W = 1 (plain
 * double) compiles from the same source.  Every lane does the same operations in the same order.
 */
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define FN(name) JOIN(name, ISA)

#define vec FN(vec)
#define loose FN(loose)
#define bits FN(bits)
#define mask FN(mask)

#if W == 1
typedef double vec, loose;
typedef uint64_t bits;
#else
typedef double vec __attribute__((vector_size(8 * W)));
typedef double loose __attribute__((vector_size(8 * W), aligned(8), may_alias));
typedef uint64_t bits __attribute__((vector_size(8 * W)));
#endif
/* A truth value per lane. */
#if W == 8
typedef uint8_t mask;
#else
typedef bits mask;
#endif

INLINE vec FN(load)(const double *p) { return *(const loose *)p; }
INLINE void FN(store)(double *p, vec x) { *(loose *)p = x; }

#if W == 1
INLINE vec FN(splat)(double x) { return x; }
INLINE bits FN(to_bits)(vec x) { bits r; memcpy(&r, &x, 8); return r; }
INLINE vec FN(from_bits)(bits x) { vec r; memcpy(&r, &x, 8); return r; }
INLINE double FN(lane)(vec x, int l) { (void)l; return x; }
INLINE vec FN(max)(vec a, vec b) { return a > b ? a : b; }
INLINE vec FN(min)(vec a, vec b) { return a < b ? a : b; }
INLINE mask FN(less)(vec a, vec b) { return a < b ? ~(mask)0 : 0; }
INLINE mask FN(equal)(vec a, vec b) { return a == b ? ~(mask)0 : 0; }
INLINE vec FN(select)(mask m, vec a, vec b) { return m ? a : b; }
#else
INLINE vec FN(splat)(double x) { return x - (vec){0}; }
INLINE bits FN(to_bits)(vec x) { return (bits)x; }
INLINE vec FN(from_bits)(bits x) { return (vec)x; }
INLINE double FN(lane)(vec x, int l) { return x[l]; }
#if W == 8
INLINE vec FN(max)(vec a, vec b) { return (vec)_mm512_max_pd((__m512d)a, (__m512d)b); }
INLINE vec FN(min)(vec a, vec b) { return (vec)_mm512_min_pd((__m512d)a, (__m512d)b); }
INLINE mask FN(less)(vec a, vec b)
{
    return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_LT_OQ);
}
INLINE mask FN(equal)(vec a, vec b)
{
    return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_EQ_OQ);
}
INLINE vec FN(select)(mask m, vec a, vec b)
{
    return (vec)_mm512_mask_blend_pd(m, (__m512d)b, (__m512d)a);
}
#else
#if W == 4
INLINE vec FN(max)(vec a, vec b) { return (vec)_mm256_max_pd((__m256d)a, (__m256d)b); }
INLINE vec FN(min)(vec a, vec b) { return (vec)_mm256_min_pd((__m256d)a, (__m256d)b); }
INLINE vec FN(select)(mask m, vec a, vec b)
{
    return (vec)_mm256_blendv_pd((__m256d)b, (__m256d)a, (__m256d)m);
}
#else
INLINE vec FN(select)(mask m, vec a, vec b) { return (vec)(((bits)a & m) | ((bits)b & ~m)); }
#ifdef __SSE2__
INLINE vec FN(max)(vec a, vec b) { return (vec)_mm_max_pd((__m128d)a, (__m128d)b); }
INLINE vec FN(min)(vec a, vec b) { return (vec)_mm_min_pd((__m128d)a, (__m128d)b); }
#else
INLINE vec FN(max)(vec a, vec b) { return FN(select)((mask)(a > b), a, b); }
INLINE vec FN(min)(vec a, vec b) { return FN(select)((mask)(a < b), a, b); }
#endif
#endif
INLINE mask FN(less)(vec a, vec b) { return (mask)(a < b); }
INLINE mask FN(equal)(vec a, vec b) { return (mask)(a == b); }
#endif
#endif

INLINE int FN(mask_lane)(mask m, int l)
{
#if W == 8
    return (m >> l) & 1;
#elif W == 1
    (void)l;
    return m != 0;
#else
    return m[l] != 0;
#endif
}

/* c = 2^-exponent(s), and the exponent plus 1023, for s >= 0. */
INLINE bits FN(biased_exponent)(vec s) { return FN(to_bits)(s) >> 52; }
INLINE vec FN(inverse_power)(bits exponent) { return FN(from_bits)((2046 - exponent) << 52); }

/* ---- exp(x) for x <= 0 -----------------------------------------------------------------
 * At least 1e-304 for finite x, exactly 1 at 0 and exactly 0 at -inf; within 2 units in the last
 * place above -700.  x = (n/P) ln 2 + r, exp(r) by a Chebyshev interpolant of (e^r - 1 - r) / r^2,
 * P = 16 with a table of 2^(i/16) in two registers where a register holds eight doubles, else
 * P = 1. */
INLINE vec FN(exp_negative)(vec x)
{
    const vec clamped = FN(max)(x, FN(splat)(EXP_FLOOR));
#if W == 8
    const vec magic = FN(splat)(422212465065984.0); /* 1.5 2^48: rounds to sixteenths */
    static const double table[16] = {
        0x1.0000000000000p+0, 0x1.0b5586cf9890fp+0, 0x1.172b83c7d517bp+0, 0x1.2387a6e756238p+0,
        0x1.306fe0a31b715p+0, 0x1.3dea64c123422p+0, 0x1.4bfdad5362a27p+0, 0x1.5ab07dd485429p+0,
        0x1.6a09e667f3bcdp+0, 0x1.7a11473eb0187p+0, 0x1.8ace5422aa0dbp+0, 0x1.9c49182a3f090p+0,
        0x1.ae89f995ad3adp+0, 0x1.c199bdd85529cp+0, 0x1.d5818dcfba487p+0, 0x1.ea4afa2a490dap+0};
    const vec z = clamped * 1.44269504088896338700 + magic;
    const vec n = z - magic; /* a whole number of sixteenths */
    const vec r = n * -1.90821492927058770002e-10 + (n * -6.93147180369123816490e-01 + clamped);
    vec q = r * 0x1.6c17bb5ebddb4p-10 + 0x1.11120b03cd855p-7;
    q = q * r + 0x1.555555551946fp-5;
    q = q * r + 0x1.55555554dd388p-3;
    q = q * r + 0.5;
    const vec power = (vec)_mm512_permutex2var_pd(
        _mm512_loadu_pd(table), (__m512i)z, _mm512_loadu_pd(table + 8));
    const vec value = power * (r * r * q + r) + power;
    /* times 2^floor(n) */
    return (vec)_mm512_maskz_scalef_pd(_mm512_cmp_pd_mask((__m512d)x, _mm512_set1_pd(-DBL_MAX),
                                                          _CMP_GE_OQ),
                                       (__m512d)value, (__m512d)n);
#else
    const vec magic = FN(splat)(6755399441055744.0); /* 1.5 2^52: rounds to whole numbers */
    const vec z = clamped * 1.44269504088896338700 + magic;
    const vec n = z - magic;
    const vec r = n * -1.90821492927058770002e-10 + (n * -6.93147180369123816490e-01 + clamped);
    vec q = r * 0x1.af38a9b0ec855p-26 + 0x1.289185613a3d6p-22;
    q = q * r + 0x1.71de0dae63bb3p-19;
    q = q * r + 0x1.a019b90d2ae7ap-16;
    q = q * r + 0x1.a01a01a7c41d5p-13;
    q = q * r + 0x1.6c16c1788bd90p-10;
    q = q * r + 0x1.11111111109b3p-7;
    q = q * r + 0x1.5555555553d63p-5;
    q = q * r + 0x1.5555555555556p-3;
    q = q * r + 0.5;
    const vec value = r * r * q + r + 1.0;
    const bits exponent = FN(to_bits)(z) << 52;
    const vec result = FN(from_bits)(FN(to_bits)(value) + exponent);
    return FN(select)(FN(less)(x, FN(splat)(-DBL_MAX)), FN(splat)(0.0), result);
#endif
}

/* ---- log(x) for normal x > 0, within 2 units in the last place -------------------------
 * x = 2^e m, m in [sqrt(1/2), sqrt(2)), s = (m - 1) / (m + 1): log m = 2 s + s^3 P(s^2), P by a
 * Chebyshev interpolant. */
INLINE vec FN(log_positive)(vec x)
{
    /* Subtracting the bits of sqrt(1/2) leaves e in the exponent field. */
    const bits root = FN(to_bits)(FN(splat)(0.70710678118654752440));
    const bits exponent = (FN(to_bits)(x) - root + (1024ull << 52)) >> 52; /* e + 1024 */
    const vec m = FN(from_bits)(FN(to_bits)(x) - ((exponent - 1024) << 52));
    /* A whole number below 2^52 as a double, by the bits of 2^52 + number. */
    const vec e = FN(from_bits)(exponent | (1075ull << 52)) - (4503599627370496.0 + 1024.0);
    const vec s = (m - 1.0) / (m + 1.0), z = s * s;
    vec p = z * 0x1.2b5f68a50d903p-3 + 0x1.39fdcceb4bb45p-3;
    p = p * z + 0x1.7462b91b8df65p-3;
    p = p * z + 0x1.c71c62d5e53e0p-3;
    p = p * z + 0x1.2492492dfd86cp-2;
    p = p * z + 0x1.9999999995273p-2;
    p = p * z + 0x1.5555555555558p-1;
    return e * 6.93147180369123816490e-01
           + ((s + s) + (s * z * p + e * 1.90821492927058770002e-10));
}

/* ---- between rows in memory and lanes --------------------------------------------------
 * W streams of doubles <-> vectors with one lane per stream: a transposition of W x W tiles.
 * Since a block of rows (t, k) is one stream of t K + k, this needs no knowledge of K. */
INLINE void FN(transpose)(vec *x)
{
#if W == 8
    __m512d a[8], b[8];
    UNROLL for (int i = 0; i < 8; i += 2) {
        a[i] = _mm512_unpacklo_pd((__m512d)x[i], (__m512d)x[i + 1]);
        a[i + 1] = _mm512_unpackhi_pd((__m512d)x[i], (__m512d)x[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4)
        UNROLL for (int j = 0; j < 2; j++) {
            b[i + j] = _mm512_shuffle_f64x2(a[i + j], a[i + j + 2], 0x88);
            b[i + j + 2] = _mm512_shuffle_f64x2(a[i + j], a[i + j + 2], 0xDD);
        }
    UNROLL for (int j = 0; j < 4; j++) {
        x[j] = (vec)_mm512_shuffle_f64x2(b[j], b[j + 4], 0x88);
        x[j + 4] = (vec)_mm512_shuffle_f64x2(b[j], b[j + 4], 0xDD);
    }
#elif W == 4
    const __m256d a0 = _mm256_unpacklo_pd((__m256d)x[0], (__m256d)x[1]);
    const __m256d a1 = _mm256_unpackhi_pd((__m256d)x[0], (__m256d)x[1]);
    const __m256d a2 = _mm256_unpacklo_pd((__m256d)x[2], (__m256d)x[3]);
    const __m256d a3 = _mm256_unpackhi_pd((__m256d)x[2], (__m256d)x[3]);
    x[0] = (vec)_mm256_permute2f128_pd(a0, a2, 0x20);
    x[1] = (vec)_mm256_permute2f128_pd(a1, a3, 0x20);
    x[2] = (vec)_mm256_permute2f128_pd(a0, a2, 0x31);
    x[3] = (vec)_mm256_permute2f128_pd(a1, a3, 0x31);
#elif W == 2
    const vec a = {x[0][0], x[1][0]}, b = {x[0][1], x[1][1]};
    x[0] = a, x[1] = b;
#else
    (void)x;
#endif
}

#if W == 8
/* OUT x[0..3]: the first four doubles of eight rows, one row per lane. */
INLINE void FN(transpose_half)(const double *const *rows, vec *x)
{
    __m512d a[4], b[4];
    UNROLL for (int l = 0; l < 4; l++)
        a[l] = _mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_loadu_pd(rows[l])),
                                  _mm256_loadu_pd(rows[l + 4]), 1);
    UNROLL for (int i = 0; i < 2; i++) {
        b[i] = _mm512_unpacklo_pd(a[2 * i], a[2 * i + 1]);
        b[i + 2] = _mm512_unpackhi_pd(a[2 * i], a[2 * i + 1]);
    }
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const __m512i high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    x[0] = (vec)_mm512_permutex2var_pd(b[0], low, b[1]);
    x[1] = (vec)_mm512_permutex2var_pd(b[2], low, b[3]);
    x[2] = (vec)_mm512_permutex2var_pd(b[0], high, b[1]);
    x[3] = (vec)_mm512_permutex2var_pd(b[2], high, b[3]);
}
#endif

/* OUT out (n,): element q of the W streams; streams shorter than q read as `filling`. */
APART void FN(gather)(const double *const *streams, const ptrdiff_t *lengths, ptrdiff_t n,
                       double filling, vec *out)
{
    ptrdiff_t least = n, q = 0;
    vec tile[W];
    for (int l = 0; l < W; l++)
        if (lengths[l] < least) least = lengths[l];
    for (; q + W <= least; q += W) {
        UNROLL for (int l = 0; l < W; l++) tile[l] = FN(load)(streams[l] + q);
        FN(transpose)(tile);
        UNROLL for (int l = 0; l < W; l++) out[q + l] = tile[l];
    }
    for (; q < n; q += W) {
        for (int l = 0; l < W; l++) {
            double piece[W];
            if (q + W <= lengths[l] || q >= lengths[l]) {
                tile[l] = q >= lengths[l] ? FN(splat)(filling) : FN(load)(streams[l] + q);
                continue;
            }
            for (ptrdiff_t p = 0; p < W; p++)
                piece[p] = q + p < lengths[l] ? streams[l][q + p] : filling;
            tile[l] = FN(load)(piece);
        }
        FN(transpose)(tile);
        for (ptrdiff_t p = 0; p < W && q + p < n; p++) out[q + p] = tile[p];
    }
}

/* The way back: element q of lane l goes to streams[l][q], for first[l] <= q < last[l]. */
APART void FN(scatter)(double *const *streams, const ptrdiff_t *first, const ptrdiff_t *last,
                        ptrdiff_t n, const vec *in)
{
    ptrdiff_t latest = 0, least = n;
    vec tile[W];
    for (int l = 0; l < W; l++) {
        if (first[l] > latest) latest = first[l];
        if (last[l] < least) least = last[l];
    }
    for (ptrdiff_t q = 0; q < n; q += W) {
        if (q + W > n) { /* no whole tile is left to be read */
            for (int l = 0; l < W; l++)
                for (ptrdiff_t p = q > first[l] ? q : first[l]; p < n && p < last[l]; p++)
                    streams[l][p] = ((const double *)(in + p))[l];
            break;
        }
        UNROLL for (int l = 0; l < W; l++) tile[l] = in[q + l];
        FN(transpose)(tile);
        if (latest <= q && q + W <= least) {
            UNROLL for (int l = 0; l < W; l++) FN(store)(streams[l] + q, tile[l]);
            continue;
        }
        for (int l = 0; l < W; l++) {
            double piece[W];
            if (first[l] >= q + W || q >= last[l]) continue;
            if (first[l] <= q && q + W <= last[l]) {
                FN(store)(streams[l] + q, tile[l]);
                continue;
            }
            FN(store)(piece, tile[l]);
            for (ptrdiff_t p = 0; p < W; p++)
                if (first[l] <= q + p && q + p < last[l]) streams[l][q + p] = piece[p];
        }
    }
}

/* ---- rows of any length ---------------------------------------------------------------- */

INLINE vec FN(load_part)(const double *p, ptrdiff_t count, double filling)
{
    if (count >= W) return FN(load)(p);
#if W == 8
    return (vec)_mm512_mask_loadu_pd(_mm512_set1_pd(filling), (__mmask8)((1 << count) - 1), p);
#else
    double piece[W];
    for (ptrdiff_t l = 0; l < W; l++) piece[l] = l < count ? p[l] : filling;
    return FN(load)(piece);
#endif
}

INLINE void FN(store_part)(double *p, ptrdiff_t count, vec x)
{
    if (count >= W) {
        FN(store)(p, x);
        return;
    }
#if W == 8
    _mm512_mask_storeu_pd(p, (__mmask8)((1 << count) - 1), (__m512d)x);
#else
    double piece[W];
    FN(store)(piece, x);
    for (ptrdiff_t l = 0; l < count; l++) p[l] = piece[l];
#endif
}

INLINE double FN(total)(vec x)
{
#if W == 8
    return _mm512_reduce_add_pd((__m512d)x);
#else
    double piece[W], sum;
    FN(store)(piece, x);
    sum = piece[0];
    for (int l = 1; l < W; l++) sum += piece[l];
    return sum;
#endif
}

INLINE double FN(largest)(vec x)
{
#if W == 8
    return _mm512_reduce_max_pd((__m512d)x);
#else
    double piece[W], best;
    FN(store)(piece, x);
    best = piece[0];
    for (int l = 1; l < W; l++) best = piece[l] > best ? piece[l] : best;
    return best;
#endif
}

INLINE int FN(any)(mask m)
{
#if W == 8 || W == 1
    return m != 0;
#elif W == 4
    return _mm256_movemask_pd((__m256d)m) != 0;
#elif defined(__SSE2__)
    return _mm_movemask_pd((__m128d)m) != 0;
#else
    for (int l = 0; l < W; l++)
        if (FN(mask_lane)(m, l)) return 1;
    return 0;
#endif
}
