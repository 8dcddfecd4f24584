// Normaliser and mean row of a softmax over V words, at many states at once.
//
// States stand in lanes: every loop below runs over LANES states side by side, so that nothing is
// summed across a vector and the result for a state does not depend on its neighbours.  Words come
// in chunks that stay in the first-level cache, with a running maximum: no (states x V) array exists.
// Included once per instruction set, inside a namespace; no templates of the standard library here,
// since their instances would be shared between the namespaces.

// exp(x) for x <= 0 to 1 ulp or so: Cody-Waite reduction, Taylor polynomial of degree 12 on
// |r| <= ln(2) / 2, exponent added in the bits.  Below -708: 3e-308.
inline double exp_lane(double x) {
    const double magic = 6755399441055744.0;  // 1.5 * 2^52: rounds to an integer in the low bits
    x = x < -708.0 ? -708.0 : x;
    const double shifted = x * 1.4426950408889634074 + magic;
    const double n = shifted - magic;
    double r = x - n * 6.93147180369123816490e-01;
    r -= n * 1.90821492927058770002e-10;
    double p = 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    std::int64_t exponent, bits;
    std::memcpy(&exponent, &shifted, sizeof exponent);
    std::memcpy(&bits, &p, sizeof bits);
    bits += static_cast<std::int64_t>(static_cast<std::uint64_t>(exponent) << 52);
    std::memcpy(&p, &bits, sizeof bits);
    return p;
}

// eta (count, LANES) of words [first, first + count) at states x (d, LANES); best: running maximum.
template <int D>
inline void chunk_logits(const Words& w, Index first, int count, const double* x, double* eta,
                         double* best) {
    const int d = D ? D : w.d;
    for (int v = 0; v < count; ++v) {
        const double* row = w.B + (first + v) * d;
        double e[LANES];
        for (int l = 0; l < LANES; ++l) e[l] = w.b[first + v];
        for (int i = 0; i < d; ++i)
            for (int l = 0; l < LANES; ++l) e[l] += row[i] * x[i * LANES + l];
        for (int l = 0; l < LANES; ++l) {
            eta[v * LANES + l] = e[l];
            best[l] = best[l] > e[l] ? best[l] : e[l];
        }
    }
}

// OUT lse (LANES,), mean (d, LANES): log sum_v exp(eta_v) and sum_v p_v B_v, the latter if not null.
template <int D>
inline void words_at_states(const Words& w, const double* x, double* lse, double* mean) {
    const int d = D ? D : w.d;
    double eta[CHUNK * LANES], top[LANES], best[LANES], sum[LANES], scale[LANES];
    for (int l = 0; l < LANES; ++l) top[l] = -1e300, sum[l] = 0.0;
    if (mean)
        for (int j = 0; j < d * LANES; ++j) mean[j] = 0.0;
    for (Index first = 0; first < w.V; first += CHUNK) {
        const int count = static_cast<int>(w.V - first < CHUNK ? w.V - first : CHUNK);
        for (int l = 0; l < LANES; ++l) best[l] = top[l];
        chunk_logits<D>(w, first, count, x, eta, best);
        for (int l = 0; l < LANES; ++l) {
            scale[l] = exp_lane(top[l] - best[l]);
            sum[l] *= scale[l];
            top[l] = best[l];
        }
        if (mean)
            for (int i = 0; i < d; ++i)
                for (int l = 0; l < LANES; ++l) mean[i * LANES + l] *= scale[l];
        for (int v = 0; v < count; ++v) {
            double p[LANES];
            for (int l = 0; l < LANES; ++l) {
                p[l] = exp_lane(eta[v * LANES + l] - top[l]);
                sum[l] += p[l];
            }
            if (!mean) continue;
            const double* row = w.B + (first + v) * d;
            for (int i = 0; i < d; ++i)
                for (int l = 0; l < LANES; ++l) mean[i * LANES + l] += row[i] * p[l];
        }
    }
    for (int l = 0; l < LANES; ++l) lse[l] = top[l] + std::log(sum[l]);
    if (mean)
        for (int i = 0; i < d; ++i)
            for (int l = 0; l < LANES; ++l) mean[i * LANES + l] /= sum[l];
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

// Adds sum_l weight_l p_v(l) (x_l, 1) to slope (V, d + 1), for lanes whose lse is known.
template <int D>
inline void add_slopes_at(const Words& w, const double* x, const double* lse,
                          const double* weight, double* slope) {
    const int d = D ? D : w.d;
    double e[LANES];
    for (Index v = 0; v < w.V; ++v) {
        const double* row = w.B + v * d;
        for (int l = 0; l < LANES; ++l) e[l] = w.b[v] - lse[l];
        for (int i = 0; i < d; ++i)
            for (int l = 0; l < LANES; ++l) e[l] += row[i] * x[i * LANES + l];
        for (int l = 0; l < LANES; ++l) e[l] = weight[l] * exp_lane(e[l]);
        double* out = slope + v * (d + 1);
        for (int i = 0; i <= d; ++i) {
            double part[8] = {0, 0, 0, 0, 0, 0, 0, 0};
            for (int base = 0; base < LANES; base += 8)
                for (int l = 0; l < 8; ++l)
                    part[l] += i < d ? e[base + l] * x[i * LANES + base + l] : e[base + l];
            out[i] += ((part[0] + part[4]) + (part[1] + part[5])) +
                      ((part[2] + part[6]) + (part[3] + part[7]));
        }
    }
}

inline void add_slopes(const Words& w, const double* x, const double* lse, const double* weight,
                       double* slope) {
    switch (w.d) {
        case 1: return add_slopes_at<1>(w, x, lse, weight, slope);
        case 2: return add_slopes_at<2>(w, x, lse, weight, slope);
        case 3: return add_slopes_at<3>(w, x, lse, weight, slope);
        case 4: return add_slopes_at<4>(w, x, lse, weight, slope);
        case 5: return add_slopes_at<5>(w, x, lse, weight, slope);
        default: return add_slopes_at<0>(w, x, lse, weight, slope);
    }
}
