// How the covariance of the state is carried through time, twice over: as a plain covariance
// (fast) and as a square root (safe under vague priors and perfect observations).  Included once
// per instruction set, inside a namespace.
//
// An engine offers: start(P0); update(S, noise, gains, variances); predict(A, Q, G, J, wanted);
// covariance(out); hold(slot) and resume(slot) for checkpoints; and, going backward,
// retreat(G, J, C, lag) on the engine's own form C of the smoothed covariance, expand(C, out).
// gains (k, d) and variances (k,) are those of scalar updates made one row after another:
//     u = y_i - s_i'm,   m += g_i u,   log-likelihood -= (log f_i + u^2 / f_i) / 2.
// A variance f <= 0 marks a perfect observation of what is known already; -f is the scale against
// which its innovation must vanish.

struct PlainEngine {
    static constexpr bool square_root = false;
    int d, k;
    Gemm gemm;
    double worst_variance, worst_pivot;
    std::vector<double> P, AP, U, rows, H, row;
    std::vector<int> active;

    PlainEngine(const Pass& p)
        : d(p.d), k(p.k), gemm(p.gemm), worst_variance(0.0), worst_pivot(1.0), P(d * d),
          AP(d * d), U(d * d), rows(k * d), H(k * d), row(k), active(k) {}

    void start(const double* P0) {
        worst_variance = 0.0;
        worst_pivot = 1.0;
        std::memcpy(P.data(), P0, sizeof(double) * d * d);
    }
    Index slot() const { return static_cast<Index>(d) * d; }
    void hold(double* out) const { std::memcpy(out, P.data(), sizeof(double) * d * d); }
    void resume(const double* in) { std::memcpy(P.data(), in, sizeof(double) * d * d); }
    void covariance(double* out) const { std::memcpy(out, P.data(), sizeof(double) * d * d); }
    bool trusted() const {
        return worst_variance <= WORST_VARIANCE && worst_pivot >= WORST_PIVOT;
    }

    // The scalar updates of all rows at once: h_i = P_{i-1} s_i, where P_{i-1} = P - sum_l h_l h_l' /
    // f_l over the rows before, so that P itself is read and written once.
    void update(const double* S, const double*, double* g, double* f) {
        int n = 0;
        for (int i = 0; i < k; ++i) {
            const double* s = S + static_cast<Index>(i) * d;
            bool seen = false;
            for (int j = 0; j < d; ++j) seen = seen || s[j] != 0.0;
            if (seen) {
                std::memcpy(rows.data() + static_cast<Index>(n) * d, s, sizeof(double) * d);
                active[n++] = i;
            } else {
                f[i] = 1.0;
                std::memset(g + static_cast<Index>(i) * d, 0, sizeof(double) * d);
            }
        }
        if (n == 0) return;
        multiply(gemm, false, false, n, d, d, 1.0, rows.data(), P.data(), 0.0, H.data());
        for (int i = 0; i < n; ++i) {
            const double* s = rows.data() + static_cast<Index>(i) * d;
            double* h = H.data() + static_cast<Index>(i) * d;
            // H holds the rows before divided by the roots of their variances
            add_matrix_vector(i, d, H.data(), s, nullptr, row.data());
            eliminate(d, i, row.data(), 1, H.data(), d, h, 1.0);
            const double variance = 1.0 + dot(d, s, h);
            f[active[i]] = variance;
            // NaN must count as the worst
            if (!(variance <= worst_variance)) worst_variance = variance;
            const double inverse = 1.0 / variance, root = std::sqrt(inverse);
            double* gain = g + static_cast<Index>(active[i]) * d;
            for (int j = 0; j < d; ++j) {
                gain[j] = h[j] * inverse;
                h[j] *= root;
            }
        }
        multiply(gemm, true, false, d, d, n, -1.0, H.data(), H.data(), 1.0, P.data());
    }

    // wanted: fill G (d, d), the smoother's gain P A' (A P A' + Q)^-1, stored transposed, and
    // J (d, d) = P - G (A P A' + Q) G'
    void predict(const double* A, const double* Q, double* G, double* J, bool wanted) {
        multiply(gemm, false, false, d, d, d, 1.0, A, P.data(), 0.0, AP.data());
        if (wanted) std::memcpy(J, P.data(), sizeof(double) * d * d);
        std::memcpy(P.data(), Q, sizeof(double) * d * d);
        multiply(gemm, false, true, d, d, d, 1.0, AP.data(), A, 1.0, P.data(), true);
        mirror(d, P.data());
        if (!wanted) return;
        std::memcpy(U.data(), P.data(), sizeof(double) * d * d);
        const double pivot = cholesky(d, U.data());
        if (!(pivot >= worst_pivot)) worst_pivot = pivot;
        std::memcpy(G, AP.data(), sizeof(double) * d * d);
        cholesky_solve(d, d, U.data(), G);
        multiply(gemm, true, false, d, d, d, -1.0, AP.data(), G, 1.0, J, true);
        mirror(d, J);
    }

    // C: smoothed covariance after -> before; lag := Cov(after, before)
    void retreat(const double* G, const double* J, double* C, double* lag_out) {
        multiply(gemm, false, false, d, d, d, 1.0, C, G, 0.0, lag_out);
        std::memcpy(C, J, sizeof(double) * d * d);
        multiply(gemm, true, false, d, d, d, 1.0, G, lag_out, 1.0, C, true);
        mirror(d, C);
    }
    void begin_backward(double* C) const { covariance(C); }
    void expand(const double* C, double* out) const {
        std::memcpy(out, C, sizeof(double) * d * d);
    }
};

struct RootEngine {
    static constexpr bool square_root = true;
    int d, k;
    Gemm gemm;
    const double* Q_of_root;
    std::vector<double> R, Q_root, array, work, scale, floors, full;
    std::vector<int> pivots, active;

    RootEngine(const Pass& p)
        : d(p.d), k(p.k), gemm(p.gemm), Q_of_root(nullptr), R(d * d), Q_root(d * d),
          array((k + 2 * d) * (k + 2 * d)), work((k + 2 * d) * (k + 2 * d + 2) + 2 * d), scale(d),
          floors(k + d), full(d * d), pivots(k + d), active(k) {}

    void start(const double* P0) {
        std::fill(scale.begin(), scale.end(), 0.0);
        semidefinite_root(d, P0, R.data(), work.data());
    }
    Index slot() const { return static_cast<Index>(d) * d + d; }
    void hold(double* out) const {
        std::memcpy(out, R.data(), sizeof(double) * d * d);
        std::memcpy(out + d * d, scale.data(), sizeof(double) * d);
    }
    void resume(const double* in) {
        std::memcpy(R.data(), in, sizeof(double) * d * d);
        std::memcpy(scale.data(), in + d * d, sizeof(double) * d);
    }
    void expand(const double* C, double* out) const {
        multiply(gemm, true, false, d, d, d, 1.0, C, C, 0.0, out);
        symmetrise(d, out);
    }
    void covariance(double* out) const { expand(R.data(), out); }
    bool trusted() const { return true; }

    void update(const double* S, const double* noise, double* g, double* f) {
        // a perfect observation of what is known already must not pass for information: its
        // variance is measured against the largest the state has ever had
        for (int j = 0; j < d; ++j) {
            double top = 0.0;
            for (int i = 0; i < d; ++i) top = std::max(top, std::fabs(R[i * d + j]));
            scale[j] = std::max(scale[j], top);
        }
        int n = 0;
        for (int i = 0; i < k; ++i) {
            bool seen = false;
            double floor = 0.0;
            for (int j = 0; j < d; ++j) {
                seen = seen || S[i * d + j] != 0.0;
                floor += std::fabs(S[i * d + j]) * scale[j];
            }
            const double variance = noise ? noise[i] : 1.0;
            f[i] = seen || variance > 0.0 ? 1.0 : 0.0;
            std::memset(g + i * d, 0, sizeof(double) * d);
            if (!seen) continue;
            floors[n] = variance > 0.0 ? 0.0 : 16.0 * EPS * floor;
            active[n++] = i;
        }
        if (n == 0) return;
        const int cols = n + d, rows = n + d;
        double* M = array.data();
        std::memset(M, 0, sizeof(double) * rows * cols);
        for (int c = 0; c < n; ++c) {
            const int i = active[c];
            M[c * cols + c] = noise ? std::sqrt(noise[i]) : 1.0;
            for (int r = 0; r < d; ++r) {
                double acc = 0.0;
                for (int j = 0; j < d; ++j) acc += R[r * d + j] * S[i * d + j];
                M[(n + r) * cols + c] = acc;
            }
        }
        for (int r = 0; r < d; ++r)
            for (int j = 0; j < d; ++j) M[(n + r) * cols + n + j] = R[r * d + j];
        const int rank = triangularise(rows, cols, M, n, floors.data(), pivots.data(), work.data());
        for (int c = 0; c < n; ++c) {
            const int i = active[c], r = pivots[c];
            if (r < 0) {
                f[i] = -floors[c];
                continue;
            }
            const double root = M[r * cols + c];
            f[i] = root * root;
            for (int j = 0; j < d; ++j) g[i * d + j] = M[r * cols + n + j] / root;
        }
        for (int r = 0; r < d; ++r)
            for (int j = 0; j < d; ++j) R[r * d + j] = M[(rank + r) * cols + n + j];
    }

    void root_of(const double* Q) {
        if (Q_of_root == Q) return;
        semidefinite_root(d, Q, Q_root.data(), work.data());
        Q_of_root = Q;
    }

    // wanted: G as in PlainEngine (transposed gain), J a root: J'J = P - G (A P A' + Q) G'
    void predict(const double* A, const double* Q, double* G, double* J, bool wanted) {
        root_of(Q);
        const int cols = wanted ? 2 * d : d, rows = 2 * d;
        double* M = array.data();
        std::memset(M, 0, sizeof(double) * rows * cols);
        for (int r = 0; r < d; ++r) {
            for (int i = 0; i < d; ++i) {
                double acc = 0.0;
                for (int j = 0; j < d; ++j) acc += R[r * d + j] * A[i * d + j];
                M[r * cols + i] = acc;
                M[(d + r) * cols + i] = Q_root[r * d + i];
            }
            if (wanted)
                for (int j = 0; j < d; ++j) M[r * cols + d + j] = R[r * d + j];
        }
        const int rank = triangularise(rows, cols, M, d, nullptr, pivots.data(), work.data());
        // rows of pivots into their places: row c of R starts at column c
        std::fill(R.begin(), R.end(), 0.0);
        for (int c = 0; c < d; ++c)
            if (pivots[c] >= 0)
                for (int j = c; j < d; ++j) R[c * d + j] = M[pivots[c] * cols + j];
        if (!wanted) return;
        for (int c = d - 1; c >= 0; --c) {
            double* out = G + static_cast<Index>(c) * d;
            if (pivots[c] < 0) {
                std::memset(out, 0, sizeof(double) * d);
                continue;
            }
            std::memcpy(out, M + pivots[c] * cols + d, sizeof(double) * d);
            eliminate(d, d - 1 - c, R.data() + c * d + c + 1, 1, G + (c + 1) * d, d, out,
                      1.0 / R[c * d + c]);
        }
        for (int r = 0; r < d; ++r)
            for (int j = 0; j < d; ++j) J[r * d + j] = M[(rank + r) * cols + d + j];
    }

    void retreat(const double* G, const double* J, double* C, double* lag_out) {
        double* M = array.data();
        std::memcpy(M, J, sizeof(double) * d * d);
        multiply(gemm, false, false, d, d, d, 1.0, C, G, 0.0, M + d * d);
        multiply(gemm, true, false, d, d, d, 1.0, C, M + d * d, 0.0, lag_out);
        triangularise(2 * d, d, M, 0, nullptr, pivots.data(), work.data());
        std::memcpy(C, M, sizeof(double) * d * d);
    }
    void begin_backward(double* C) const { std::memcpy(C, R.data(), sizeof(double) * d * d); }
};
