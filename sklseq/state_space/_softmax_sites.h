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

// A group of up to LANES steps, one in each lane; rows of LANES doubles, aligned.
struct Lanes {
    double* x;        // (d, LANES)
    double* slope;    // (d, LANES) mean row of B, then weighted slope of log p
    double* lse;      // (LANES,)
    double* totals;   // (LANES,)
    double* count_b;  // (LANES,)
    double* value;    // (LANES,)
    double* count_B;  // (d, LANES)
    double* means;    // (d, LANES)
    double* gradient; // (d, LANES)
    double* roots;    // (d, d, LANES)
    double* G;        // (d, d, LANES)
};

inline Lanes lanes_in(double* work, int d) {
    Lanes g;
    double** fields[] = {&g.x, &g.slope, &g.count_B, &g.means, &g.gradient};
    for (double** field : fields) *field = work, work += d * LANES;
    double** scalars[] = {&g.lse, &g.totals, &g.count_b, &g.value};
    for (double** field : scalars) *field = work, work += LANES;
    g.roots = work;
    g.G = work + d * d * LANES;
    return g;
}

// Adds node k of the rule to value, gradient and G of all lanes.
inline void add_node(const Sites& s, const Lanes& g, int k) {
    const int d = s.words.d;
    const double* node = s.nodes + static_cast<Index>(k) * d;
    const double weight = s.weights[k];
    for (int i = 0; i < d; ++i)
        for (int l = 0; l < LANES; l += SKLSEQ_WIDTH) {
            Pack value = *reinterpret_cast<Pack*>(g.means + i * LANES + l);
            for (int j = 0; j <= i; ++j)
                value = value + *reinterpret_cast<Pack*>(g.roots + (i * d + j) * LANES + l) * node[j];
            *reinterpret_cast<Pack*>(g.x + i * LANES + l) = value;
        }
    words_at(s.words, g.x, g.lse, g.slope);
    for (int l = 0; l < LANES; l += SKLSEQ_WIDTH) {
        const Pack total = *reinterpret_cast<Pack*>(g.totals + l);
        Pack log_p = *reinterpret_cast<Pack*>(g.count_b + l) -
                     total * *reinterpret_cast<Pack*>(g.lse + l);
        for (int i = 0; i < d; ++i) {
            const Pack count = *reinterpret_cast<Pack*>(g.count_B + i * LANES + l);
            log_p = log_p + count * *reinterpret_cast<Pack*>(g.x + i * LANES + l);
            Pack* slope = reinterpret_cast<Pack*>(g.slope + i * LANES + l);
            *slope = (count - total * *slope) * weight;
            Pack* gradient = reinterpret_cast<Pack*>(g.gradient + i * LANES + l);
            *gradient = *gradient + *slope;
            for (int j = 0; j < d; ++j) {
                Pack* G = reinterpret_cast<Pack*>(g.G + (i * d + j) * LANES + l);
                *G = *G + *slope * node[j];
            }
        }
        Pack* value = reinterpret_cast<Pack*>(g.value + l);
        *value = *value + log_p * weight;
    }
}

// Value, site and curvature of the steps in the lanes.
inline void work_group(const Sites& s, const Lanes& g, int used, const Index* steps, double* small) {
    const int d = s.words.d, dd = d * d;
    double* L = small;        // (d, d)
    double* G = L + dd;       // (d, d)
    double* scratch = G + dd; // (d, d)
    for (int l = 0; l < LANES; ++l) {
        const bool there = l < used;
        const Index t = there ? steps[l] : 0;
        if (there) factor(d, s.covs + t * dd, L);
        g.totals[l] = there ? s.totals[t] : 0.0;
        g.count_b[l] = there ? s.count_b[t] : 0.0;
        g.value[l] = 0.0;
        for (int i = 0; i < d; ++i) {
            g.count_B[i * LANES + l] = there ? s.count_B[t * d + i] : 0.0;
            g.means[i * LANES + l] = there ? s.means[t * d + i] : 0.0;
            g.gradient[i * LANES + l] = 0.0;
            for (int j = 0; j < d; ++j) {
                g.roots[(i * d + j) * LANES + l] = there ? L[i * d + j] : 0.0;
                g.G[(i * d + j) * LANES + l] = 0.0;
            }
        }
    }
    for (int k = 0; k < s.n_nodes; ++k) add_node(s, g, k);
    for (int l = 0; l < used; ++l) {
        const Index t = steps[l];
        double* H = s.curvature + t * dd;
        for (int i = 0; i < dd; ++i) {
            L[i] = g.roots[i * LANES + l];
            G[i] = g.G[i * LANES + l];
        }
        curvature(d, L, G, scratch, H);
        s.value[t] = g.value[l];
        for (int i = 0; i < d; ++i) {
            double linear = g.gradient[i * LANES + l];
            for (int j = 0; j < d; ++j) linear += H[i * d + j] * s.means[t * d + j];
            s.linear[t * d + i] = linear;
        }
    }
}

inline void site_expectations(const Sites& s, double* work) {
    const int d = s.words.d, dd = d * d;
    const Lanes g = lanes_in(work, d);
    double* small = g.G + dd * LANES;
    Index steps[LANES];
    int used = 0;
    for (Index t = 0; t < s.n_steps; ++t) {
        if (s.totals[t] == 0.0) {
            s.value[t] = 0.0;
            for (int i = 0; i < d; ++i) s.linear[t * d + i] = 0.0;
            for (int i = 0; i < dd; ++i) s.curvature[t * dd + i] = 0.0;
            continue;
        }
        steps[used] = t;
        if (++used < LANES) continue;
        work_group(s, g, used, steps, small);
        used = 0;
    }
    if (used) work_group(s, g, used, steps, small);
}

// E |y_t - S_t s|^2 / 2 under N(means_t, covs_t), S_t upper triangular.
inline void site_misfits(Index n, int d, const double* y, const double* S_of, const double* means,
                         const double* covs, double* out) {
    for (Index t = 0; t < n; ++t) {
        const double* S = S_of + t * d * d;
        const double* P = covs + t * d * d;
        double total = 0.0;
        for (int r = 0; r < d; ++r) {
            double miss = y[t * d + r];
            for (int i = r; i < d; ++i) {
                miss -= S[r * d + i] * means[t * d + i];
                for (int j = r; j < d; ++j) total += S[r * d + i] * P[i * d + j] * S[r * d + j];
            }
            total += miss * miss;
        }
        out[t] = 0.5 * total;
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
    double* lse = x + d * LANES;
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
