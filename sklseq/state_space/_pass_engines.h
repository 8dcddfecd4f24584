// How the covariance of the state is carried through time, twice over: as a plain covariance
// (fast) and as a square root (safe under vague priors, perfect observations and states without
// noise).  Included once per instruction set, inside a namespace.
//
// Both engines offer start(P0), update, predict, covariance(out), and hold(slot) and resume(slot)
// for checkpoints.  What goes backward through time is each engine's own; see there.
// gains (k, d) and scales f (k,) are those of scalar updates made one row after another:
//     u = y_i - s_i'm,   plain: m += g_i u,       log-likelihood -= (log f_i + u^2 / f_i) / 2,
//                        root:  m += g_i (u / f_i), log-likelihood -= log f_i + (u / f_i)^2 / 2.
// A scale f <= 0 marks a perfect observation of what is known already; -f is the scale against
// which its innovation must vanish.

// The plain engine smooths by Rauch, Tung and Striebel's step, whose gain divides by the predicted
// covariance.  An error made at step s comes back to step t multiplied by a coefficient of
// regression of s_t on s_s: no more than 1 / (smallest pivot of the correlations of s_s), and
// sd(s_t) / sd(s_s).  A sequence in which either grows large, measured by `worst_pivot`, is done
// again by roots.

struct PlainEngine {
    static constexpr bool square_root = false;
    int d, k;
    Gemm gemm;
    bool disturbances;
    double worst_variance, worst_pivot;
    std::vector<double> P, AP, U, rows, H, row, top;
    std::vector<int> active;

    PlainEngine(const Pass& p)
        : d(p.d), k(p.k), gemm(p.gemm), disturbances(p.disturbances()), worst_variance(0.0),
          worst_pivot(1.0), P(d * d), AP(d * d), U(d * d), rows(k * d), H(k * d), row(k), top(d),
          active(k) {}

    void start(const double* P0) {
        worst_variance = 0.0;
        worst_pivot = 1.0;
        std::fill(top.begin(), top.end(), 0.0);
        std::memcpy(P.data(), P0, sizeof(double) * d * d);
    }
    Index slot() const { return static_cast<Index>(d) * d; }
    void hold(double* out) const { std::memcpy(out, P.data(), sizeof(double) * d * d); }
    void resume(const double* in) { std::memcpy(P.data(), in, sizeof(double) * d * d); }
    void covariance(double* out) const { std::memcpy(out, P.data(), sizeof(double) * d * d); }
    void root(double* out) const { covariance(out); }
    static double log_variance(double f) { return std::log(f); }
    static double whitening(double f) { return 1.0 / std::sqrt(f); }
    static double per_innovation(double) { return 1.0; }
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
        const double share = least_share(Q);
        if (!(share >= worst_pivot)) worst_pivot = share;
        std::memcpy(G, AP.data(), sizeof(double) * d * d);
        cholesky_solve(d, d, U.data(), G);
        multiply(gemm, true, false, d, d, d, -1.0, AP.data(), G, 1.0, J, true);
        mirror(d, J);
    }

    // How far a predicted variance has fallen from the largest so far; where sums of disturbances
    // are wanted, also how small the noise is in it, as those are differences of such variances.
    double least_share(const double* Q) {
        double least = 1.0;
        for (int j = 0; j < d; ++j) {
            const double variance = P[j * d + j], noise = Q[j * d + j];
            if (!(variance <= top[j])) top[j] = variance;
            if (top[j] > 0.0)
                least = std::min(least, variance / top[j] / LEAST_SHARE * WORST_PIVOT);
            if (disturbances && noise > 0.0)
                least = std::min(least, noise / variance / LEAST_NOISE * WORST_PIVOT);
        }
        return least;
    }

    // C: smoothed covariance after -> before; lag := Cov(after, before)
    void retreat(const double* G, const double* J, double* C, double* lag_out) {
        multiply(gemm, false, false, d, d, d, 1.0, C, G, 0.0, lag_out);
        std::memcpy(C, J, sizeof(double) * d * d);
        multiply(gemm, true, false, d, d, d, 1.0, G, lag_out, 1.0, C, true);
        mirror(d, C);
    }
    void expand(const double* C, double* out) const {
        std::memcpy(out, C, sizeof(double) * d * d);
    }
};

// The square root R (R'R is the covariance), and smoothing without any division by it.
//
// With b ~ N(0, I) the state is s_t = m_t + R_t' b_t.  An orthogonal T turns what the next step is
// made of, (b_t, e) with w = Q_root' e, into (b, c) where s_{t+1} = A m_t + R' b and c says nothing
// about it, nor about anything later; another turns (noise, b) into (a, b_{t+1}) where a is what
// the observations tell.  Put together,
//     (b_t, e) = back' a + E' b_{t+1} + Y' c,   c ~ N(0, I) independent of all observations,
// so that backward, with b_t of mean beta and covariance T'T given everything,
//     beta_t = back' a + E' beta_{t+1},   T_t'T_t = E' T_{t+1}'T_{t+1} E + Y'Y.
// These are the rows of orthogonal matrices: no error grows, whatever is singular (the smoother
// of Rauch, Tung and Striebel in the coordinates of Kailath, Sayed and Hassibi 2000, chapter 12).
// One such step is a *link*: E (d, width), then Y (width, width), whose first d columns vanish
// below row d.  width is d, or 2 d where e is wanted as well.
//
// Where a gap lets an unstable state grow, its mean is kept as m + R' mu, so that the observation
// after the gap finds it in units of what is not known: see `shift`.
struct RootEngine {
    static constexpr bool square_root = true;
    int d, k, width;
    Gemm gemm;
    const double* Q_of_root;
    std::vector<double> R, Q_root, array, work, scale, floors, carry, mu, innovation_mean, kappa;
    std::vector<double> halves;
    std::vector<int> pivots, active;
    bool shifted = false;

    RootEngine(const Pass& p)
        : d(p.d), k(p.k), width(p.disturbances() ? 2 * p.d : p.smooths() ? p.d : 0), gemm(p.gemm),
          Q_of_root(nullptr), R(d * d), Q_root(d * d), scale(d), floors(k), mu(d),
          innovation_mean(k), kappa(d), pivots(k + d), active(k) {
        const Index rows = std::max(k, 2 * d) + d, columns = std::max(k, d) + d + width + 1;
        array.resize(rows * columns);
        work.resize(2 * rows + columns + rows * columns + 2 * d);
        carry.resize(static_cast<Index>(2 * d) * width);
        if (width > d) halves.resize(static_cast<Index>(4 * d) * (d + width));
    }

    static double log_variance(double f) { return 2.0 * std::log(f); }
    static double whitening(double f) { return 1.0 / f; }
    static double per_innovation(double f) { return 1.0 / f; }

    void start(const double* P0) {
        std::fill(scale.begin(), scale.end(), 0.0);
        semidefinite_root(d, P0, R.data(), work.data());
        std::fill(mu.begin(), mu.end(), 0.0);
        shifted = false;
    }
    Index slot() const { return static_cast<Index>(d) * d + 2 * d + 1; }
    void hold(double* out) const {
        std::memcpy(out, R.data(), sizeof(double) * d * d);
        std::memcpy(out + d * d, scale.data(), sizeof(double) * d);
        std::memcpy(out + d * d + d, mu.data(), sizeof(double) * d);
        out[d * d + 2 * d] = shifted;
    }
    void resume(const double* in) {
        std::memcpy(R.data(), in, sizeof(double) * d * d);
        std::memcpy(scale.data(), in + d * d, sizeof(double) * d);
        std::memcpy(mu.data(), in + d * d + d, sizeof(double) * d);
        shifted = in[d * d + 2 * d] != 0.0;
    }
    // out := C'C
    void expand(const double* C, double* out) const {
        multiply(gemm, true, false, d, d, d, 1.0, C, C, 0.0, out);
        symmetrise(d, out);
    }
    void covariance(double* out) const { expand(R.data(), out); }
    void root(double* out) const { std::memcpy(out, R.data(), sizeof(double) * d * d); }
    bool trusted() const { return true; }

    Index link_size() const { return static_cast<Index>(width) * (d + width); }

    // link: null, or completed for the step that `predict` began, with back (k, d)
    void update(const double* S, const double* noise, double* g, double* f, double* link,
                double* back) {
        const int n = choose_rows(S, noise, g, f);
        if (link) std::memset(back, 0, sizeof(double) * k * d);
        if (n == 0) {
            if (link) close_link(carry.data(), carry.data() + d * width, d, width, link);
            return;
        }
        const int carried = (link ? width : 0) + shifted, own = n + d, columns = own + carried;
        double* M = array.data();
        std::memset(M, 0, sizeof(double) * (n + d) * columns);
        for (int c = 0; c < n; ++c) {
            const int i = active[c];
            M[c * columns + c] = noise ? std::sqrt(noise[i]) : 1.0;
            for (int r = 0; r < d; ++r) {
                double acc = 0.0;
                for (int j = 0; j < d; ++j) acc += R[r * d + j] * S[i * d + j];
                M[(n + r) * columns + c] = acc;
            }
        }
        for (int r = 0; r < d; ++r) {
            double* row = M + (n + r) * columns + n;
            std::memcpy(row, R.data() + r * d, sizeof(double) * d);
            if (link) std::memcpy(row + d, carry.data() + r * width, sizeof(double) * width);
            if (shifted) row[d + carried - 1] = mu[r];
        }
        const int rank = triangularise(n + d, own, carried, M, n, floors.data(), pivots.data(),
                                       work.data());
        for (int c = 0; c < n; ++c) {
            const int i = active[c], r = pivots[c];
            innovation_mean[i] = 0.0;
            if (r < 0) {
                f[i] = -floors[c];
                continue;
            }
            const double* row = M + r * columns;
            const double sign = row[c] < 0.0 ? -1.0 : 1.0;
            f[i] = std::fabs(row[c]);
            for (int j = 0; j < d; ++j) g[i * d + j] = sign * row[n + j];
            if (link)
                for (int j = 0; j < d; ++j) back[i * d + j] = sign * row[own + j];
            if (shifted) innovation_mean[i] = sign * row[columns - 1];
        }
        if (rank < n) correct_known(n, S, noise, f, g);
        for (int r = 0; r < d; ++r) {
            std::memcpy(R.data() + r * d, M + (rank + r) * columns + n, sizeof(double) * d);
            if (shifted) mu[r] = M[(rank + r) * columns + columns - 1];
        }
        if (!link) return;
        const double* rest = M + rank * columns + own;
        if (shifted)
            for (int r = d; r < n + d - rank; ++r)
                add_kappa(rest[r * columns + width], rest + r * columns);
        // what comes after c: coordinates that the state has lost
        for (int r = 0; r < n + d - rank; ++r)
            std::memmove(M + r * width, rest + r * columns, sizeof(double) * width);
        std::memcpy(M + static_cast<Index>(n + d - rank) * width, carry.data() + d * width,
                    sizeof(double) * d * width);
        close_link(M, M + static_cast<Index>(d) * width, n - rank + d, width, link);
    }

    // wanted: begin the link from here to the step after
    void predict(const double* A, const double* Q, bool wanted) {
        root_of(Q);
        const int carried = (wanted ? width : 0) + shifted, columns = d + carried, rows = 2 * d;
        double* M = array.data();
        std::memset(M, 0, sizeof(double) * rows * columns);
        for (int r = 0; r < d; ++r) {
            for (int i = 0; i < d; ++i) {
                double acc = 0.0;
                for (int j = 0; j < d; ++j) acc += R[r * d + j] * A[i * d + j];
                M[r * columns + i] = acc;
                M[(d + r) * columns + i] = Q_root[r * d + i];
            }
            if (shifted) M[r * columns + columns - 1] = mu[r];
        }
        if (wanted)
            for (int r = 0; r < width; ++r) M[r * columns + d + r] = 1.0;
        triangularise(rows, d, carried, M, 0, nullptr, pivots.data(), work.data());
        if (wanted) std::fill(kappa.begin(), kappa.end(), 0.0);
        for (int r = 0; r < rows; ++r) {
            const double* row = M + r * columns;
            if (r < d) std::memcpy(R.data() + r * d, row, sizeof(double) * d);
            if (wanted)
                std::memcpy(carry.data() + r * width, row + d, sizeof(double) * width);
            if (!shifted) continue;
            if (r < d)
                mu[r] = row[columns - 1];
            else if (wanted)
                add_kappa(row[columns - 1], row + d);
        }
    }

    // ---- backward: T (d, d) as above, V = T R the root of the smoothed covariance

    // From the step after, whose V is given, to the one of root R_here: lag := Cov(after, before).
    // disturbances: null, or (2, d, d) := Cov(w, s_before) and Cov(w), with Q that of w.
    void retreat(const double* link, const double* R_here, const double* Q, double* T, double* V,
                 double* lag, double* disturbances) {
        const double* Y = link + d * width;
        double* M = array.data();  // (T E, Y): a root of the covariance of (b, e)
        multiply(gemm, false, false, d, width, d, 1.0, T, link, 0.0, M);
        std::memcpy(M + d * width, Y, sizeof(double) * width * width);
        double* half = work.data();
        for (int r = 0; r < d; ++r)
            std::memcpy(half + r * d, M + r * width, sizeof(double) * d);
        multiply(gemm, false, false, d, d, d, 1.0, half, R_here, 0.0, T);
        multiply(gemm, true, false, d, d, d, 1.0, V, T, 0.0, lag);
        if (disturbances) disturb(M, R_here, Q, disturbances);
        for (int r = 0; r < 2 * d; ++r)
            std::memmove(M + r * d, M + r * width, sizeof(double) * d);
        triangularise(2 * d, d, 0, M, 0, nullptr, pivots.data(), work.data());
        std::memcpy(T, M, sizeof(double) * d * d);
        multiply(gemm, false, false, d, d, d, 1.0, T, R_here, 0.0, V);
    }

    // beta := back' a + E' beta
    void retreat_mean(const double* link, const double* constant, const double* beta,
                      double* out) const {
        for (int j = 0; j < d; ++j) out[j] = constant ? constant[j] : 0.0;
        for (int l = 0; l < d; ++l)
            for (int j = 0; j < d; ++j) out[j] += beta[l] * link[l * width + j];
    }

    // ---- the steady step

    // Whether the pivots of R, as predicted, are those of the step before, and keeps them in `last`
    // (d,).  Variances stand still long before the standard deviation of a direction that fades
    // does, of which later observations still tell what it was at the start.
    bool stands_still(double* last) const {
        bool still = true;
        for (int j = 0; j < d; ++j) {
            double size = 0.0;
            for (int i = 0; i <= j; ++i) size = std::max(size, std::fabs(R[i * d + j]));
            const double pivot = std::fabs(R[j * d + j]);
            still = still && std::fabs(pivot - last[j]) <= NEGLIGIBLE * size;
            last[j] = pivot;
        }
        return still;
    }

    // R_here and this engine's R are roots of one covariance, a step apart, each in coordinates of
    // its own.  Both are turned into those in which the root is triangular, in one order of the
    // states; what the state does not reach any more joins Y.  link_here leads from here to this
    // engine's step, link_before to here.
    void align(double* R_here, double* link_before, double* link_here, double* back_here) {
        std::vector<double> turn_here(d * d), turn_next(d * d), next(R);
        std::vector<int> order(d, -1);
        const int rank = canonical(R_here, turn_here.data(), order.data(), -1);
        canonical(next.data(), turn_next.data(), order.data(), rank);
        turn_rows(link_before, turn_here.data(), rank);
        turn_rows(link_here, turn_next.data(), rank);
        turn_columns(link_here, d + width, width, turn_here.data());
        turn_columns(back_here, k, d, turn_here.data());
    }

    // Takes the mean into mu: m := 0 as far as the root reaches.  The coordinates b move by `moved`
    // (d,).
    void shift(double* m, double* moved) {
        for (int j = 0; j < d; ++j) {
            moved[j] = 0.0;
            double left = m[j], size = std::fabs(m[j]);
            for (int i = 0; i < j; ++i) {
                left -= R[i * d + j] * moved[i];
                size += std::fabs(R[i * d + j] * moved[i]);
            }
            const double pivot = R[j * d + j], step = left / pivot;
            if (std::fabs(step) <= FARTHEST) {
                moved[j] = step;
                left = 0.0;
            }
            m[j] = std::fabs(left) > 4.0 * EPS * size ? left : 0.0;
        }
        for (int j = 0; j < d; ++j) mu[j] += moved[j];
        shifted = true;
    }
    // The other way: m += R' mu
    void settle(double* m) {
        add_vector_matrix(d, d, mu.data(), R.data(), m, work.data());
        std::memcpy(m, work.data(), sizeof(double) * d);
        std::fill(mu.begin(), mu.end(), 0.0);
        shifted = false;
    }

private:
    static constexpr double FARTHEST = 1e8;   // standard deviations that a mean is moved
    static constexpr double NEGLIGIBLE = 1e-12;  // of a standard deviation

    // The rows that are there; g and f of the others.
    int choose_rows(const double* S, const double* noise, double* g, double* f) {
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
            innovation_mean[i] = 0.0;
            std::memset(g + i * d, 0, sizeof(double) * d);
            if (!seen) continue;
            floors[n] = variance > 0.0 ? 0.0 : 16.0 * EPS * floor;
            active[n++] = i;
        }
        return n;
    }

    // Gains of perfect observations of what is known: no news, but where an error of rounding would
    // grow without bound, they bring the mean back to what is observed.  They take the shortest
    // way, in units of the scale, that leaves the perfect observations before them as they are.
    void correct_known(int n, const double* S, const double* noise, const double* f, double* g) {
        std::vector<double> free(d * d, 0.0), h(d);
        for (int j = 0; j < d; ++j) free[j * d + j] = scale[j] * scale[j];
        for (int c = 0; c < n; ++c) {
            const int i = active[c];
            if (noise[i] > 0.0) continue;
            const double* s = S + static_cast<Index>(i) * d;
            double whole = 0.0;
            for (int j = 0; j < d; ++j) whole += s[j] * s[j] * scale[j] * scale[j];
            add_matrix_vector(d, d, free.data(), s, nullptr, h.data());
            const double variance = dot(d, s, h.data());
            if (!(variance > 1e-20 * whole)) continue;
            for (int j = 0; j < d; ++j) {
                if (!(f[i] > 0.0)) g[i * d + j] = h[j] / variance;
                subtract_multiple(d, h[j] / variance, h.data(), free.data() + j * d);
            }
        }
    }

    void root_of(const double* Q) {
        if (Q_of_root == Q) return;
        semidefinite_root(d, Q, Q_root.data(), work.data());
        Q_of_root = Q;
    }

    // kappa += mean * the first d of row
    void add_kappa(double mean, const double* row) {
        for (int j = 0; j < d; ++j) kappa[j] += mean * row[j];
    }

    // E (d, w) and the rows of Y, as many as may be, into a link
    void close_link(const double* E, const double* Y, int rows, int w, double* link) {
        std::memcpy(link, E, sizeof(double) * d * w);
        double* out = link + d * w;
        std::memset(out, 0, sizeof(double) * w * w);
        if (rows <= d) {
            std::memcpy(out, Y, sizeof(double) * rows * w);
            return;
        }
        std::vector<double> all(Y, Y + static_cast<Index>(rows) * w), room(2 * rows + w + rows * w);
        triangularise(rows, w, 0, all.data(), 0, nullptr, pivots.data(), room.data());
        std::memcpy(out, all.data(), sizeof(double) * std::min(rows, w) * w);
    }

    // M: the root ((d + width), 2 d) of the covariance of (b, e)
    void disturb(const double* M, const double* R_here, const double* Q, double* out) {
        root_of(Q);
        const int rows = d + width;
        double *b = halves.data(), *e = b + rows * d, *w = e + rows * d, *s = w + rows * d;
        for (int r = 0; r < rows; ++r) {
            std::memcpy(b + r * d, M + r * width, sizeof(double) * d);
            std::memcpy(e + r * d, M + r * width + d, sizeof(double) * d);
        }
        multiply(gemm, false, false, rows, d, d, 1.0, e, Q_root.data(), 0.0, w);
        multiply(gemm, false, false, rows, d, d, 1.0, b, R_here, 0.0, s);
        multiply(gemm, true, false, d, d, rows, 1.0, w, s, 0.0, out);
        multiply(gemm, true, false, d, d, rows, 1.0, w, w, 0.0, out + d * d);
    }

    // R := its triangular form in an order of columns, with positive pivots, and turn (d, d) so
    // that it is turn times R as it was.  wanted < 0 chooses the order, largest share left first, and
    // returns the rank; else order and rank are given.
    int canonical(double* R_any, double* turn, int* order, int wanted) {
        const int columns = 2 * d;
        std::vector<double> M(d * columns), w(columns), full(d);
        for (int r = 0; r < d; ++r) {
            std::memcpy(M.data() + r * columns, R_any + r * d, sizeof(double) * d);
            M[r * columns + d + r] = 1.0;
        }
        std::vector<char> used(d, 0);
        for (int j = 0; j < d; ++j) full[j] = norm_below(M.data(), columns, 0, j);
        int rank = 0;
        for (; rank < (wanted < 0 ? d : wanted); ++rank) {
            int best = wanted < 0 ? -1 : order[rank];
            double share = NEGLIGIBLE;
            for (int j = 0; j < d && wanted < 0; ++j) {
                if (used[j] || !(full[j] > 0.0)) continue;
                const double left = norm_below(M.data(), columns, rank, j) / full[j];
                if (left > share) {
                    share = left;
                    best = j;
                }
            }
            if (best < 0) break;
            order[rank] = best;
            used[best] = 1;
            eliminate_column(M.data(), columns, rank, best, w.data());
        }
        for (int r = 0; r < d; ++r) {
            std::memcpy(turn + r * d, M.data() + r * columns + d, sizeof(double) * d);
            if (r < rank)
                std::memcpy(R_any + r * d, M.data() + r * columns, sizeof(double) * d);
            else
                std::memset(R_any + r * d, 0, sizeof(double) * d);
        }
        return rank;
    }
    double norm_below(const double* M, int columns, int r, int c) const {
        double top = 0.0, total = 0.0;
        for (int i = r; i < d; ++i) top = std::max(top, std::fabs(M[i * columns + c]));
        if (!(top > 0.0)) return 0.0;
        for (int i = r; i < d; ++i) {
            const double x = M[i * columns + c] / top;
            total += x * x;
        }
        return top * std::sqrt(total);
    }
    // any column: it is brought to the front for `reflect`, and its pivot made positive
    void eliminate_column(double* M, int columns, int r, int c, double* w) {
        const double norm = norm_below(M, columns, r, c);
        if (!(norm > 0.0)) return;
        for (int i = 0; i < d; ++i) std::swap(M[i * columns], M[i * columns + c]);
        reflect(d, columns, r, 0, norm, M, w);
        const double sign = M[r * columns] < 0.0 ? -1.0 : 1.0;
        for (int j = 0; j < columns; ++j) M[r * columns + j] *= sign;
        for (int i = 0; i < d; ++i) std::swap(M[i * columns], M[i * columns + c]);
    }
    // E := turn E; its rows from rank on join Y
    void turn_rows(double* link, const double* turn, int rank) {
        const int lost = d - rank;
        std::vector<double> E(d * width), Y(static_cast<Index>(width + lost) * width);
        multiply(gemm, false, false, d, width, d, 1.0, turn, link, 0.0, E.data());
        std::memcpy(Y.data(), link + d * width, sizeof(double) * width * width);
        std::memcpy(Y.data() + width * width, E.data() + rank * width,
                    sizeof(double) * lost * width);
        std::fill(E.begin() + rank * width, E.end(), 0.0);
        if (lost == 0)
            std::memcpy(link, E.data(), sizeof(double) * d * width);
        else
            close_link(E.data(), Y.data(), width + lost, width, link);
    }
    // the first d of the columns of M (rows, columns): times turn'
    void turn_columns(double* M, int rows, int columns, const double* turn) const {
        std::vector<double> old(d);
        for (int r = 0; r < rows; ++r) {
            double* row = M + static_cast<Index>(r) * columns;
            std::memcpy(old.data(), row, sizeof(double) * d);
            add_matrix_vector(d, d, turn, old.data(), nullptr, row);
        }
    }
};
