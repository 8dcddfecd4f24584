// Gaussian sites of softmax observations: what a step says about its state, under N(mean, cov).
// Included once per instruction set, inside a namespace, after the words.

// Lower factor of a positive semi-definite matrix; a column whose pivot is rounding is zero.
inline void factor(int d, const double* P, double* L) {
    for (int j = 0; j < d; ++j) {
        for (int i = 0; i < j; ++i) L[i * d + j] = 0.0;
        double pivot = P[j * d + j];
        for (int k = 0; k < j; ++k) pivot -= L[j * d + k] * L[j * d + k];
        const bool there = pivot > 1e-14 * P[j * d + j];
        const double root = there ? std::sqrt(pivot) : 0.0;
        L[j * d + j] = root;
        for (int i = j + 1; i < d; ++i) {
            double value = P[i * d + j];
            for (int k = 0; k < j; ++k) value -= L[i * d + k] * L[j * d + k];
            L[i * d + j] = there ? value / root : 0.0;
        }
    }
}

// H = -L^-T (M + M') L^-1, M the lower triangle of L'G with its diagonal halved: minus twice the
// derivative with respect to P = L L' of an expectation whose derivative with respect to L is G
// (reverse mode of the Cholesky factorisation, Smith 1995).  Overwrites G; `work` is (d, d).
inline void curvature(int d, const double* L, double* G, double* work, double* H) {
    for (int i = 0; i < d; ++i)
        for (int j = 0; j <= i; ++j) {
            double value = 0.0;
            for (int k = i; k < d; ++k) value += L[k * d + i] * G[k * d + j];
            work[i * d + j] = work[j * d + i] = value;
        }
    // H = L^-T work L^-1, a zero pivot standing for a direction without spread
    for (int pass = 0; pass < 2; ++pass) {
        for (int c = 0; c < d; ++c)
            for (int i = d - 1; i >= 0; --i) {
                double value = work[i * d + c];
                for (int k = i + 1; k < d; ++k) value -= L[k * d + i] * work[k * d + c];
                work[i * d + c] = L[i * d + i] > 0.0 ? value / L[i * d + i] : 0.0;
            }
        for (int i = 0; i < d; ++i)
            for (int j = 0; j < i; ++j) {
                const double swap = work[i * d + j];
                work[i * d + j] = work[j * d + i];
                work[j * d + i] = swap;
            }
    }
    for (int i = 0; i < d; ++i)
        for (int j = 0; j < d; ++j)
            H[i * d + j] = -0.5 * (work[i * d + j] + work[j * d + i]);
}

// One point of a rule at one step, in a lane.
struct Lane {
    Index step;
    int node;
};

// What a full (or last) block of lanes adds to value, gradient and G of its steps.
inline void add_block(const Sites& s, int used, const Lane* lane, const double* x,
                      const double* lse, const double* mean, double* G_of, Index first) {
    const int d = s.words.d;
    for (int l = 0; l < used; ++l) {
        const Index t = lane[l].step;
        const double weight = s.weights[lane[l].node];
        const double* node = s.nodes + static_cast<Index>(lane[l].node) * d;
        double log_p = s.count_b[t] - s.totals[t] * lse[l];
        double* G = G_of + (t - first) * d * d;
        for (int i = 0; i < d; ++i) {
            log_p += s.count_B[t * d + i] * x[i * LANES + l];
            const double slope = weight * (s.count_B[t * d + i] - s.totals[t] * mean[i * LANES + l]);
            s.gradient[t * d + i] += slope;
            for (int j = 0; j < d; ++j) G[i * d + j] += slope * node[j];
        }
        s.value[t] += weight * log_p;
    }
}

// Steps are worked in groups; the points of a group's steps fill lanes one after the other.
inline void site_expectations(const Sites& s, double* work) {
    const int d = s.words.d, dd = d * d;
    double* x = work;                   // (d, LANES)
    double* mean = x + d * LANES;       // (d, LANES)
    double* lse = mean + d * LANES;     // (LANES,)
    double* scratch = lse + LANES;      // (d, d)
    double* L = scratch + dd;           // (GROUP, d, d)
    double* G = L + GROUP * dd;         // (GROUP, d, d)
    Lane lane[LANES];
    for (int j = 0; j < d * LANES; ++j) x[j] = 0.0;
    for (Index first = 0; first < s.n_steps; first += GROUP) {
        const Index last = first + GROUP < s.n_steps ? first + GROUP : s.n_steps;
        int used = 0;
        for (Index t = first; t < last; ++t) {
            s.value[t] = 0.0;
            for (int i = 0; i < d; ++i) s.gradient[t * d + i] = 0.0;
            for (int i = 0; i < dd; ++i) G[(t - first) * dd + i] = s.curvature[t * dd + i] = 0.0;
            if (s.totals[t] == 0.0) continue;
            double* root = L + (t - first) * dd;
            factor(d, s.covs + t * dd, root);
            for (int k = 0; k < s.n_nodes; ++k) {
                const double* node = s.nodes + static_cast<Index>(k) * d;
                for (int i = 0; i < d; ++i) {
                    double value = s.means[t * d + i];
                    for (int j = 0; j <= i; ++j) value += root[i * d + j] * node[j];
                    x[i * LANES + used] = value;
                }
                lane[used].step = t;
                lane[used].node = k;
                if (++used < LANES) continue;
                words_at(s.words, x, lse, mean);
                add_block(s, used, lane, x, lse, mean, G, first);
                used = 0;
            }
        }
        if (used) {
            words_at(s.words, x, lse, mean);
            add_block(s, used, lane, x, lse, mean, G, first);
        }
        for (Index t = first; t < last; ++t)
            if (s.totals[t] != 0.0)
                curvature(d, L + (t - first) * dd, G + (t - first) * dd, scratch,
                          s.curvature + t * dd);
    }
}

// Normalisers of the lanes of full blocks (and of a last one), added up; then their slopes.
inline double flush_blocks(const Sites& s, int used, double* blocks, double* sums, double* slope) {
    const int d = s.words.d, size = (d + 2) * LANES;
    const int n_blocks = (used + LANES - 1) / LANES;
    double total = 0.0;
    for (int l = used; l < n_blocks * LANES; ++l) {  // lanes without a point
        double* block = blocks + l / LANES * size;
        for (int i = 0; i < d; ++i) block[i * LANES + l % LANES] = 0.0;
        block[(d + 1) * LANES + l % LANES] = 0.0;
    }
    for (int b = 0; b < n_blocks; ++b) {
        double* block = blocks + b * size;
        double* lse = block + d * LANES;
        words_at(s.words, block, lse, nullptr);
        for (int l = 0; l < LANES; ++l) total += lse[LANES + l] * lse[l];
    }
    add_slopes(s.words, n_blocks, blocks, sums, slope);
    return total;
}

// sum_t totals_t sum_k weight_k lse(x_tk), returned, and its slope in (B, b), added to slope.
inline double expected_normalisers(const Sites& s, double* slope, double* work) {
    const int d = s.words.d, dd = d * d, size = (d + 2) * LANES;
    double* blocks = work;                     // (BLOCKS, d + 2, LANES)
    double* sums = blocks + BLOCKS * size;     // (CHUNK, d + 1, width)
    double* root = sums + CHUNK * (d + 1) * 8; // (d, d)
    double total = 0.0;
    int used = 0;
    for (Index t = 0; t < s.n_steps; ++t) {
        if (s.totals[t] == 0.0) continue;
        factor(d, s.covs + t * dd, root);
        for (int k = 0; k < s.n_nodes; ++k) {
            double* lane = blocks + used / LANES * size + used % LANES;
            const double* node = s.nodes + static_cast<Index>(k) * d;
            for (int i = 0; i < d; ++i) {
                double value = s.means[t * d + i];
                for (int j = 0; j <= i; ++j) value += root[i * d + j] * node[j];
                lane[i * LANES] = value;
            }
            lane[(d + 1) * LANES] = s.totals[t] * s.weights[k];
            if (++used < BLOCKS * LANES) continue;
            total += flush_blocks(s, used, blocks, sums, slope);
            used = 0;
        }
    }
    if (used) total += flush_blocks(s, used, blocks, sums, slope);
    return total;
}

// lse (n,) at given states (n, d).
inline void normalisers(const Words& w, Index n, const double* states, double* lse_out,
                        double* x) {
    const int d = w.d;
    double lse[LANES];
    for (int j = 0; j < d * LANES; ++j) x[j] = 0.0;
    for (Index first = 0; first < n; first += LANES) {
        const int used = static_cast<int>(n - first < LANES ? n - first : LANES);
        for (int l = 0; l < used; ++l)
            for (int i = 0; i < d; ++i) x[i * LANES + l] = states[(first + l) * d + i];
        words_at(w, x, lse, nullptr);
        for (int l = 0; l < used; ++l) lse_out[first + l] = lse[l];
    }
}

// The site exp(h's - s'Hs / 2) as d unit-variance observations y = S s + e of the state.
//
// H = L L', S = L', y = S m + c with L c = h - H m, m any nearby state.  A pivot is lifted so far
// that no observation lies more than FARTHEST standard deviations from m: then the log-likelihood
// of the pass keeps its digits, and since q is exactly what these observations say, no identity is
// disturbed.
inline void site_evidence(Index n_steps, int d, const double* means, const double* linear,
                          const double* H_of, double* y, double* S, double* work) {
    const double FARTHEST = 1e4;
    double* rest = work;  // (d,)
    for (Index t = 0; t < n_steps; ++t) {
        const double* H = H_of + t * d * d;
        const double* m = means + t * d;
        double* root = S + t * d * d;  // filled as L', row j holding column j of L
        double* out = y + t * d;
        for (int i = 0; i < d; ++i) {
            rest[i] = linear[t * d + i];
            for (int j = 0; j < d; ++j) rest[i] -= H[i * d + j] * m[j];
        }
        for (int j = 0; j < d; ++j) {
            double pivot = H[j * d + j], c = rest[j];
            for (int k = 0; k < j; ++k) {
                pivot -= root[k * d + j] * root[k * d + j];
                c -= root[k * d + j] * out[k];
            }
            const bool there = pivot > 1e-13 * std::fabs(H[j * d + j]);
            double l = there ? std::sqrt(pivot) : 0.0;
            if (l < std::fabs(c) / FARTHEST) l = std::fabs(c) / FARTHEST;
            root[j * d + j] = l;
            out[j] = l > 0.0 ? c / l : 0.0;
            for (int i = 0; i < j; ++i) root[j * d + i] = 0.0;
            for (int i = j + 1; i < d; ++i) {
                double value = H[i * d + j];
                for (int k = 0; k < j; ++k) value -= root[k * d + i] * root[k * d + j];
                root[j * d + i] = there ? value / l : 0.0;
            }
        }
        for (int j = 0; j < d; ++j)
            for (int i = j; i < d; ++i) out[j] += root[j * d + i] * m[i];
    }
}
