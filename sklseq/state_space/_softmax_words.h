// Normaliser and mean row of a softmax over V words, at many states at once.
//
// States stand in lanes, LANES side by side in packs of SKLSEQ_WIDTH (what the instruction set holds
// in a register: wider packs than that are split badly): nothing is summed across a pack, so the
// result for a state does not depend on its neighbours.  Words come in chunks that stay in the
// first-level cache, with a running maximum: no (states x V) array exists.
// Included once per instruction set, inside a namespace; no templates of the standard library here,
// since their instances would be shared between the namespaces.

#if SKLSEQ_WIDTH > 1
typedef double Pack __attribute__((vector_size(8 * SKLSEQ_WIDTH)));
typedef std::int64_t Bits __attribute__((vector_size(8 * SKLSEQ_WIDTH)));
inline Pack pack_max(Pack a, Pack b) { return a > b ? a : b; }
// x = m 2^e with m in [1, 2): m, and e + 1023 + 1.5 * 2^52 as the low bits of a double.
inline Pack split_exponent(Pack x, Pack& e) {
    const Bits bits = reinterpret_cast<Bits>(x);
    const Bits magic = reinterpret_cast<Bits>(x * 0.0 + 6755399441055744.0);
    e = reinterpret_cast<Pack>((bits >> 52) + magic);
    return reinterpret_cast<Pack>((bits & 0xfffffffffffffLL) | 0x3ff0000000000000LL);
}
inline Pack add_exponent(Pack p, Pack shifted) {
    return reinterpret_cast<Pack>(reinterpret_cast<Bits>(p) + (reinterpret_cast<Bits>(shifted) << 52));
}
#else
typedef double Pack;
inline Pack pack_max(Pack a, Pack b) { return a > b ? a : b; }
inline Pack split_exponent(Pack x, Pack& e) {
    std::uint64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    e = 6755399441055744.0 + static_cast<double>(bits >> 52);
    bits = (bits & 0xfffffffffffffULL) | 0x3ff0000000000000ULL;
    std::memcpy(&x, &bits, sizeof bits);
    return x;
}
inline Pack add_exponent(Pack p, Pack shifted) {
    std::uint64_t bits, exponent;
    std::memcpy(&bits, &p, sizeof bits);
    std::memcpy(&exponent, &shifted, sizeof exponent);
    bits += exponent << 52;
    std::memcpy(&p, &bits, sizeof bits);
    return p;
}
#endif

constexpr int PACKS = LANES / SKLSEQ_WIDTH;

// exp(x) for x <= 0 to 1 ulp or so: Cody-Waite reduction, Taylor polynomial of degree 12 on
// |r| <= ln(2) / 2, exponent added in the bits.  Below -708: 3e-308.
inline Pack pack_exp(Pack x) {
    const Pack zero = x * 0.0;
    const double magic = 6755399441055744.0;  // 1.5 * 2^52: rounds to an integer in the low bits
    x = pack_max(x, zero - 708.0);
    const Pack shifted = x * 1.4426950408889634074 + magic;
    const Pack n = shifted - magic;
    Pack r = x - n * 6.93147180369123816490e-01;
    r = r - n * 1.90821492927058770002e-10;
    const Pack r2 = r * r;
    // even and odd parts, for two chains side by side
    Pack even = r2 * (1.0 / 479001600.0) + 1.0 / 3628800.0;
    Pack odd = r2 * (1.0 / 39916800.0) + 1.0 / 362880.0;
    even = even * r2 + 1.0 / 40320.0;
    odd = odd * r2 + 1.0 / 5040.0;
    even = even * r2 + 1.0 / 720.0;
    odd = odd * r2 + 1.0 / 120.0;
    even = even * r2 + 1.0 / 24.0;
    odd = odd * r2 + 1.0 / 6.0;
    even = even * r2 + 0.5;
    odd = odd * r2 + 1.0;
    const Pack p = (even * r + odd) * r + 1.0;
    return add_exponent(p, shifted);
}

// log(x) for normal x > 0 to 1 ulp or so of max(1, |log x|): m in [1, 2) brought to
// [sqrt(1/2), sqrt(2)), then 2 atanh((m - 1) / (m + 1)) by its series.
inline Pack pack_log(Pack x) {
    Pack e;
    Pack m = split_exponent(x, e);
    const Pack n = e - 6755399441055744.0 - 1023.0;
    const Pack half = x * 0.0 + 0.5, one = x * 0.0 + 1.0, zero = x * 0.0;
    const Pack factor = m > 1.4142135623730951 ? half : one;
    const Pack more = m > 1.4142135623730951 ? one : zero;
    m = m * factor;
    const Pack z = (m - 1.0) / (m + 1.0), z2 = z * z;
    Pack p = z2 * (1.0 / 23.0) + 1.0 / 21.0;
    p = p * z2 + 1.0 / 19.0;
    p = p * z2 + 1.0 / 17.0;
    p = p * z2 + 1.0 / 15.0;
    p = p * z2 + 1.0 / 13.0;
    p = p * z2 + 1.0 / 11.0;
    p = p * z2 + 1.0 / 9.0;
    p = p * z2 + 1.0 / 7.0;
    p = p * z2 + 1.0 / 5.0;
    p = p * z2 + 1.0 / 3.0;
    p = p * z2 * z + z;
    return (n + more) * 6.93147180369123816490e-01 +
           (2.0 * p + (n + more) * 1.90821492927058770002e-10);
}

// Logits of word v at states x (d, LANES).
template <int D>
inline void logits(const Words& w, Index v, const Pack* x, Pack* e) {
    const int d = D ? D : w.d;
    const double* row = w.B + v * d;
    const Pack zero = x[0] * 0.0;
    for (int q = 0; q < PACKS; ++q) e[q] = zero + w.b[v];
    for (int i = 0; i < d; ++i)
        for (int q = 0; q < PACKS; ++q) e[q] = e[q] + row[i] * x[i * PACKS + q];
}

// OUT lse (LANES,), mean (d, LANES): log sum_v exp(eta_v) and sum_v p_v B_v, the latter if not null.
// x, lse and mean are aligned to 64 bytes.
template <int D>
inline void words_at_states(const Words& w, const double* x_in, double* lse, double* mean_out) {
    const int d = D ? D : w.d;
    const Pack* x = reinterpret_cast<const Pack*>(x_in);
    Pack* mean = reinterpret_cast<Pack*>(mean_out);
    Pack eta[CHUNK * PACKS], top[PACKS], sum[PACKS], e[PACKS];
    const Pack zero = x[0] * 0.0;
    for (int q = 0; q < PACKS; ++q) top[q] = zero - 1e300, sum[q] = zero;
    if (mean)
        for (int j = 0; j < d * PACKS; ++j) mean[j] = zero;
    for (Index first = 0; first < w.V; first += CHUNK) {
        const int count = static_cast<int>(w.V - first < CHUNK ? w.V - first : CHUNK);
        Pack best[PACKS];
        for (int q = 0; q < PACKS; ++q) best[q] = top[q];
        for (int v = 0; v < count; ++v) {
            logits<D>(w, first + v, x, e);
            for (int q = 0; q < PACKS; ++q) {
                eta[v * PACKS + q] = e[q];
                best[q] = pack_max(best[q], e[q]);
            }
        }
        if (first) {
            for (int q = 0; q < PACKS; ++q) {
                const Pack scale = pack_exp(top[q] - best[q]);
                sum[q] = sum[q] * scale;
                if (mean)
                    for (int i = 0; i < d; ++i) mean[i * PACKS + q] = mean[i * PACKS + q] * scale;
            }
        }
        for (int q = 0; q < PACKS; ++q) top[q] = best[q];
        for (int v = 0; v < count; ++v) {
            for (int q = 0; q < PACKS; ++q) {
                e[q] = pack_exp(eta[v * PACKS + q] - top[q]);
                sum[q] = sum[q] + e[q];
            }
            if (!mean) continue;
            const double* row = w.B + (first + v) * d;
            for (int i = 0; i < d; ++i)
                for (int q = 0; q < PACKS; ++q)
                    mean[i * PACKS + q] = mean[i * PACKS + q] + row[i] * e[q];
        }
    }
    Pack* lse_out = reinterpret_cast<Pack*>(lse);
    for (int q = 0; q < PACKS; ++q) lse_out[q] = top[q] + pack_log(sum[q]);
    if (mean)
        for (int i = 0; i < d; ++i)
            for (int q = 0; q < PACKS; ++q) mean[i * PACKS + q] = mean[i * PACKS + q] / sum[q];
}

inline void words_at(const Words& w, const double* x, double* lse, double* mean) {
    switch (w.d) {
        case 1: return words_at_states<1>(w, x, lse, mean);
        case 2: return words_at_states<2>(w, x, lse, mean);
        case 3: return words_at_states<3>(w, x, lse, mean);
        case 4: return words_at_states<4>(w, x, lse, mean);
        case 5: return words_at_states<5>(w, x, lse, mean);
        default: return words_at_states<0>(w, x, lse, mean);
    }
}

// Adds sum over blocks and lanes of weight p_v (x, 1) to slope (V, d + 1).  A block holds x (d, LANES),
// lse (LANES,), weight (LANES,), one behind the other, aligned.  Sums stay in packs over all blocks;
// sums (CHUNK, d + 1, width) is scratch.
template <int D>
inline void add_slopes_at(const Words& w, int n_blocks, const double* blocks, double* sums_out,
                          double* slope) {
    const int d = D ? D : w.d;
    Pack* sums = reinterpret_cast<Pack*>(sums_out);
    const Pack* all = reinterpret_cast<const Pack*>(blocks);
    const Pack zero = all[0] * 0.0;
    Pack e[PACKS];
    for (Index first = 0; first < w.V; first += CHUNK) {
        const int count = static_cast<int>(w.V - first < CHUNK ? w.V - first : CHUNK);
        for (int j = 0; j < count * (d + 1); ++j) sums[j] = zero;
        for (int block = 0; block < n_blocks; ++block) {
            const Pack* x = all + block * (d + 2) * PACKS;
            const Pack* lse = x + d * PACKS;
            const Pack* weight = lse + PACKS;
            for (int v = 0; v < count; ++v) {
                logits<D>(w, first + v, x, e);
                for (int q = 0; q < PACKS; ++q) e[q] = weight[q] * pack_exp(e[q] - lse[q]);
                Pack* sum = sums + v * (d + 1);
                for (int q = 0; q < PACKS; ++q) {
                    for (int i = 0; i < d; ++i) sum[i] = sum[i] + e[q] * x[i * PACKS + q];
                    sum[d] = sum[d] + e[q];
                }
            }
        }
        for (int j = 0; j < count * (d + 1); ++j) {
            double part[SKLSEQ_WIDTH], total = 0.0;
            std::memcpy(part, &sums[j], sizeof part);
            for (int l = 0; l < SKLSEQ_WIDTH; ++l) total += part[l];
            slope[first * (d + 1) + j] += total;
        }
    }
}

inline void add_slopes(const Words& w, int n_blocks, const double* blocks, double* sums,
                       double* slope) {
    switch (w.d) {
        case 1: return add_slopes_at<1>(w, n_blocks, blocks, sums, slope);
        case 2: return add_slopes_at<2>(w, n_blocks, blocks, sums, slope);
        case 3: return add_slopes_at<3>(w, n_blocks, blocks, sums, slope);
        case 4: return add_slopes_at<4>(w, n_blocks, blocks, sums, slope);
        case 5: return add_slopes_at<5>(w, n_blocks, blocks, sums, slope);
        default: return add_slopes_at<0>(w, n_blocks, blocks, sums, slope);
    }
}
