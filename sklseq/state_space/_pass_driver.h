// One sequence, or all sequences that share one covariance path, through filter and smoother.
// Included once per instruction set, inside a namespace, after the engines.

// The scalar updates of one step on the mean; returns its log-likelihood without constants.  Roots
// may expect whitened innovations other than 0 (`expected`, or null), and report them (`whitened`).
template <bool square_root>
inline double update_mean(int d, int k, const double* S, const double* g, const double* f,
                          const double* y, double* m, const double* expected = nullptr,
                          double* whitened = nullptr) {
    double quadratic = 0.0, determinant = 1.0, logs = 0.0;
    int known = 0;
    for (int i = 0; i < k; ++i) {
        const double* s = S + static_cast<Index>(i) * d;
        const double u = y[i] - dot(d, s, m);
        if (whitened) whitened[i] = 0.0;
        if (!(f[i] > 0.0)) {
            double size = std::fabs(y[i]);
            for (int j = 0; j < d; ++j) size += std::fabs(s[j] * m[j]);
            if (std::fabs(u) <= 1e-8 * (size - f[i])) {
                subtract_multiple(d, -u, g + static_cast<Index>(i) * d, m);
                ++known;
                continue;
            }
            return f[i] == f[i] && u == u ? -HUGE_VAL : NAN;
        }
        const double step = square_root ? u / f[i] : u;
        const double error = expected ? step - expected[i] : step;
        quadratic += square_root ? error * error : u * u / f[i];
        determinant *= f[i];
        if (!(determinant < 1e100 && determinant > 1e-100)) {
            logs += std::log(determinant);
            determinant = 1.0;
        }
        if (whitened) whitened[i] = step;
        subtract_multiple(d, -step, g + static_cast<Index>(i) * d, m);
    }
    logs += std::log(determinant);
    // the caller counts log(2 pi) / 2 for each observation, but one of what is known has no density
    if (square_root) return known * HALF_LOG_2PI - (logs + 0.5 * quadratic);
    return -0.5 * (logs + quadratic);
}

// One steady step without its prediction: the filtered mean into `keep`, if wanted, and the squared
// whitened innovation.
template <int D, int K>
inline double steady_update(const double* x, const double* now, const double* M,
                            const double* gain, const double* V, const double* W, double* keep) {
    double quadratic = 0.0;
    for (int i = 0; i < K; ++i) {
        double e = 0.0;
        for (int l = 0; l <= i; ++l) e += W[i * K + l] * x[l];
        for (int j = 0; j < D; ++j) e -= V[i * D + j] * now[j];
        quadratic += e * e;
    }
    if (keep)
        for (int j = 0; j < D; ++j) {
            double value = 0.0;
            for (int l = 0; l < K; ++l) value += gain[j * K + l] * x[l];
            for (int l = 0; l < D; ++l) value += M[j * D + l] * now[l];
            keep[j] = value;
        }
    return quadratic;
}

// out = base + M x, for N rows of x
template <int N, int L>
inline void affine(const double* base, const double* M, const double* x, double* out) {
    for (int j = 0; j < N; ++j) {
        double value = base ? base[j] : 0.0;
        for (int l = 0; l < L; ++l) value += M[j * L + l] * x[l];
        out[j] = value;
    }
}

// The steady steps of one sequence, all in registers: only the chain m_next = C m + D y waits for
// itself, which with one or two states is long against the work: there m_t+2 = C^2 m_t + ... goes two
// steps at a time.  m is the predicted mean of the first row; with `keep` the filtered means are
// stored.
template <int D, int K>
inline double steady_forward(Index rows, const double* y, const double* drift, const double* C,
                             const double* Dm, const double* M, const double* gain,
                             const double* V, const double* W, double log_det, double* m,
                             double* keep, double* step_ll) {
    double now[D], squared[D * D], total = 0.0;
    for (int j = 0; j < D; ++j) now[j] = m[j];
    for (int j = 0; j < D; ++j)
        for (int i = 0; i < D; ++i) {
            double value = 0.0;
            for (int l = 0; l < D; ++l) value += C[j * D + l] * C[l * D + i];
            squared[j * D + i] = value;
        }
    Index t = 0;
    for (; D <= 2 && t + 1 < rows; t += 2) {
        const double* x = y + t * K;
        double first[D], second[D], next[D];
        affine<D, K>(drift ? drift + t * D : nullptr, Dm, x, first);
        affine<D, K>(drift ? drift + (t + 1) * D : nullptr, Dm, x + K, second);
        affine<D, D>(second, C, first, second);
        affine<D, D>(first, C, now, next);
        const double here = steady_update<D, K>(x, now, M, gain, V, W, keep ? keep + t * D : keep);
        const double then = steady_update<D, K>(x + K, next, M, gain, V, W,
                                                keep ? keep + (t + 1) * D : keep);
        affine<D, D>(second, squared, now, next);
        for (int j = 0; j < D; ++j) now[j] = next[j];
        total += here + then;
        if (step_ll) {
            step_ll[t] = -0.5 * (log_det + here);
            step_ll[t + 1] = -0.5 * (log_det + then);
        }
    }
    for (; t < rows; ++t) {
        const double* x = y + t * K;
        const double here = steady_update<D, K>(x, now, M, gain, V, W, keep ? keep + t * D : keep);
        double first[D], next[D];
        affine<D, K>(drift ? drift + t * D : nullptr, Dm, x, first);
        affine<D, D>(first, C, now, next);
        for (int j = 0; j < D; ++j) now[j] = next[j];
        total += here;
        if (step_ll) step_ll[t] = -0.5 * (log_det + here);
    }
    for (int j = 0; j < D; ++j) m[j] = now[j];
    return -0.5 * (total + static_cast<double>(rows) * log_det);
}

// Rows first..first + rows of filtered means become smoothed means; the row after is smoothed.
template <int D>
inline void steady_backward(Index rows, const double* GA, const double* G, const double* drift,
                            double* means) {
    double after[D];
    for (int j = 0; j < D; ++j) after[j] = means[rows * D + j];
    for (Index t = rows - 1; t >= 0; --t) {
        double* mean = means + t * D;
        double now[D];
        for (int j = 0; j < D; ++j) {
            double value = 0.0;
            for (int l = 0; l < D; ++l) value += GA[j * D + l] * mean[l];
            if (drift)
                for (int l = 0; l < D; ++l) value -= G[l * D + j] * drift[t * D + l];
            now[j] = value;
        }
        for (int j = 0; j < D; ++j)
            for (int l = 0; l < D; ++l) now[j] += G[l * D + j] * after[l];
        for (int j = 0; j < D; ++j) mean[j] = after[j] = now[j];
    }
}

// `count` copies of a block of n doubles
inline void repeat(const double* block, Index n, Index count, double* out) {
    if (count <= 0) return;
    std::memcpy(out, block, sizeof(double) * n);
    Index done = 1;
    // double up to what stays in the first cache, then copy that
    while (done < count) {
        const Index more = std::min(std::min(done, count - done), std::max<Index>(1, 2048 / n));
        std::memcpy(out + done * n, out, sizeof(double) * n * more);
        done += more;
    }
}

inline void add_to(int n, const double* x, double* sum) {
    for (int j = 0; j < n; ++j) sum[j] += x[j];
}

inline void add_times(int n, double factor, const double* x, double* sum) {
    for (int j = 0; j < n; ++j) sum[j] += factor * x[j];
}

// cross += lag - A previous, second += next - A lag' - lag A' + A previous A'
inline void add_disturbances(const Pass& p, const double* A, const double* previous,
                             const double* next, const double* lag, double weight) {
    const int d = p.d;
    std::vector<double> cross(lag, lag + d * d), second(next, next + d * d);
    multiply(p.gemm, false, false, d, d, d, -1.0, A, previous, 1.0, cross.data());
    multiply(p.gemm, false, true, d, d, d, -1.0, A, lag, 1.0, second.data());
    multiply(p.gemm, false, true, d, d, d, -1.0, cross.data(), A, 1.0, second.data());
    symmetrise(d, second.data());
    add_times(d * d, weight, cross.data(), p.sum_cross);
    add_times(d * d, weight, second.data(), p.sum_second);
}

// A sequence whose covariances are its own.  The filtered means wait in the array of the smoothed
// ones; of a plain sequence whose covariances and lag-one covariances are wanted, what the backward
// pass needs waits in theirs.  Else it works in segments small enough for the cache: their forward
// pass is done again from a checkpoint, so that the memory grows with the square root of the
// length.
template <class Engine>
class Alone {
    static constexpr bool by_root = Engine::square_root;

public:
    Alone(const Pass& pass)
        : p(pass), d(pass.d), dd(static_cast<Index>(pass.d) * pass.d), engine(pass), g(pass.k * d),
          f(pass.k), back(pass.k * d), whitened(pass.k), m(d), lag(dd), C(dd), V(dd), expanded(dd),
          before(dd), difference(d), beta(d), disturbances(2 * dd),
          in_place(!by_root && pass.covs && pass.lag_one) {}

    // Returns false if the engine asks for the other form (sums may have been added to by then).
    bool run(Index sequence) {
        first = p.offsets[sequence];
        n = p.offsets[sequence + 1] - first;
        length = in_place ? n : segment_length();
        const Index n_segments = p.smooths() ? (n + length - 1) / length : 1;
        if (p.smooths()) prepare(n_segments);
        engine.start(p.P0);
        std::memcpy(m.data(), p.m0, sizeof(double) * d);
        gap_end = looked_to = 0;
        double total = 0.0;
        for (Index t = 0; t < n; ++t) {
            if (n_segments > 1 && t % length == 0) hold(t / length);
            total += step(t, p.smooths() && t >= (n_segments - 1) * length, true);
        }
        if (!engine.trusted()) return false;
        if (p.sequence_ll) p.sequence_ll[sequence] = total;
        if (p.final_means) {
            std::memcpy(p.final_means + sequence * d, m.data(), sizeof(double) * d);
            engine.covariance(p.final_covs + sequence * dd);
        }
        if (!p.smooths()) return true;
        for (Index segment = n_segments - 1; segment >= 0; --segment) {
            const Index start = segment * length, stop = std::min(n, start + length);
            if (segment < n_segments - 1) {
                resume(segment);
                for (Index t = start; t < stop; ++t) step(t, true, false);
                if constexpr (by_root) observe(stop, true);
            }
            backward(start, stop);
        }
        return engine.trusted();
    }

private:
    const Pass& p;
    int d;
    Index dd, first = 0, n = 0, length = 0;  // the sequence, and the length of its segments
    Engine engine;
    std::vector<double> g, f, back, whitened, m, lag, C, V, expanded, before, difference, beta;
    std::vector<double> disturbances;
    bool in_place;
    // of each step: plain G and J; roots R, the link to the step after, and back' a
    std::vector<double> G, J, roots, links, constants, checkpoints;
    // gap_end: up to there the mean of an unstable state is kept by the engine; looked_to: up to
    // there it is known whether that is needed
    Index gap_end = 0, looked_to = 0;

    Index kept() const {  // doubles a step
        if constexpr (by_root) return dd + engine.link_size() + d;
        return 2 * dd;
    }
    Index segment_length() const {
        const Index bytes = static_cast<Index>(sizeof(double)) * kept();
        return std::max<Index>(std::max<Index>(64, (Index(1) << 20) / bytes),
                               static_cast<Index>(std::sqrt(static_cast<double>(n))));
    }
    void prepare(Index n_segments) {
        const Index steps = std::min(n, length);
        if constexpr (by_root) {
            roots.resize(steps * dd);
            links.resize(steps * engine.link_size());
            constants.resize(steps * d);
        } else if (!in_place) {
            G.resize(steps * dd);
            J.resize(steps * dd);
        }
        if (n_segments > 1) checkpoints.resize(n_segments * (engine.slot() + d + 2));
    }
    // of the step from t to t + 1
    double* gain_of(Index t) {
        return in_place ? p.lag_one + (first + t + 1) * dd : G.data() + t % length * dd;
    }
    double* rest_of(Index t) {
        return in_place ? p.covs + (first + t) * dd : J.data() + t % length * dd;
    }
    double* root_of(Index t) { return roots.data() + t % length * dd; }
    double* link_of(Index t) { return links.data() + t % length * engine.link_size(); }
    double* constant_of(Index t) { return constants.data() + t % length * d; }
    void hold(Index segment) {
        double* slot = checkpoints.data() + segment * (engine.slot() + d + 2);
        std::memcpy(slot, m.data(), sizeof(double) * d);
        slot[d] = static_cast<double>(gap_end);
        slot[d + 1] = static_cast<double>(looked_to);
        engine.hold(slot + d + 2);
    }
    void resume(Index segment) {
        const double* slot = checkpoints.data() + segment * (engine.slot() + d + 2);
        std::memcpy(m.data(), slot, sizeof(double) * d);
        gap_end = static_cast<Index>(slot[d]);
        looked_to = static_cast<Index>(slot[d + 1]);
        engine.resume(slot + d + 2);
    }

    // Update with the step's observations; with `link`, complete the link from the step before.
    double observe(Index t, bool link) {
        const Index row = first + t, q = p.pattern_at(row);
        if constexpr (!by_root) {
            engine.update(p.S_of(q), p.noise_of(q), g.data(), f.data());
            return update_mean<false>(d, p.k, p.S_of(q), g.data(), f.data(), p.y + row * p.k,
                                      m.data());
        } else {
            engine.update(p.S_of(q), p.noise_of(q), g.data(), f.data(),
                          link ? link_of(t - 1) : nullptr, back.data());
            const bool expected = engine.shifted;
            const double ll = update_mean<true>(
                d, p.k, p.S_of(q), g.data(), f.data(), p.y + row * p.k, m.data(),
                expected ? engine.innovation_mean.data() : nullptr, whitened.data());
            if (link) {
                double* constant = constant_of(t - 1);
                for (int j = 0; j < d; ++j) constant[j] = expected ? engine.kappa[j] : 0.0;
                for (int i = 0; i < p.k; ++i)
                    add_times(d, whitened[i], back.data() + i * d, constant);
            }
            move_mean(t, link);
            return ll;
        }
    }

    // Where a gap lets the mean grow, the engine takes it over; after the gap it gives it back.
    void move_mean(Index t, bool link) {
        const bool observed = t >= gap_end;
        if (observed && engine.shifted) {
            std::memcpy(difference.data(), engine.mu.data(), sizeof(double) * d);
            engine.settle(m.data());
        } else {
            if (t > 0 && p.pattern && t >= looked_to) gap_end = end_of_growth(t);
            if (t >= gap_end) return;
            engine.shift(m.data(), difference.data());
            for (int j = 0; j < d; ++j) difference[j] = -difference[j];
        }
        if (!link) return;
        const double* E = link_of(t - 1);
        double* constant = constant_of(t - 1);
        for (int l = 0; l < d; ++l) add_times(d, difference[l], E + l * engine.width, constant);
    }

    // The end of the gap, of some observation at least, that begins after step t, if the mean would
    // grow in it beyond its digits; else 0.
    Index end_of_growth(Index t) {
        Index end = t + 1;
        double size = 0.0, largest = 0.0;
        std::vector<double> mean(m), next(d);
        for (int j = 0; j < d; ++j) size = std::max(size, std::fabs(mean[j]));
        for (; end < n && unobserved(end); ++end) advance(end, mean, next);
        looked_to = end;
        if (end == t + 1 || end == n) return 0;
        advance(end, mean, next);
        for (int j = 0; j < d; ++j) largest = std::max(largest, std::fabs(mean[j]));
        return largest <= GROWTH * size ? 0 : end;
    }
    static constexpr double GROWTH = 1e3;

    bool unobserved(Index t) const {
        const double* S = p.S_of(p.pattern_at(first + t));
        for (int i = 0; i < p.k; ++i) {
            bool seen = false;
            for (int j = 0; j < d; ++j) seen = seen || S[i * d + j] != 0.0;
            if (!seen) return true;
        }
        return false;
    }

    // The mean at step t from that of the step before.
    void advance(Index t, std::vector<double>& mean, std::vector<double>& next) const {
        add_matrix_vector(d, d, p.A_at(t), mean.data(),
                          p.drift ? p.drift + (first + t) * d : nullptr, next.data());
        mean.swap(next);
    }

    // Update with the step's observations, then predict the next: m and the engine move on.
    double step(Index t, bool smooth, bool report) {
        const Index row = first + t;
        const bool linked = smooth && t % length != 0;
        const double ll = observe(t, linked);
        if (report) {
            if (p.step_ll) p.step_ll[row] = ll;
            if (p.filtered_means) report_mean(p.filtered_means + row * d);
            if (p.filtered_covs) engine.covariance(p.filtered_covs + row * dd);
        }
        if (smooth) {
            std::memcpy(p.means + row * d, m.data(), sizeof(double) * d);
            if constexpr (by_root) engine.root(root_of(t));
        }
        if (t + 1 == n) {
            if (smooth) begin_backward();
            return ll;
        }
        if constexpr (by_root)
            engine.predict(p.A_at(t + 1), p.Q_at(t + 1), smooth);
        else
            engine.predict(p.A_at(t + 1), p.Q_at(t + 1), smooth ? gain_of(t) : nullptr,
                           smooth ? rest_of(t) : nullptr, smooth);
        advance(t + 1, m, difference);
        return ll;
    }
    void report_mean(double* out) {
        std::memcpy(out, m.data(), sizeof(double) * d);
        if constexpr (by_root)
            if (engine.shifted)
                add_vector_matrix(d, d, engine.mu.data(), engine.R.data(), m.data(), out);
    }

    void begin_backward() {
        engine.root(by_root ? V.data() : C.data());
        if constexpr (by_root) {
            set_identity(d, C.data());
            std::fill(beta.begin(), beta.end(), 0.0);
        }
    }

    void backward(Index start, Index stop) {
        for (Index t = stop - 1; t >= start; --t) {
            const Index row = first + t;
            if (t + 1 < n) retreat(t);
            if (p.covs) engine.expand(by_root ? V.data() : C.data(), p.covs + row * dd);
            if (p.sum_pattern) add_covariance(p.sum_pattern + p.pattern_at(row) * dd);
            if (t == 0) {
                if (p.sums()) add_covariance(p.sum_first);
                if (p.lag_one) std::memset(p.lag_one + row * dd, 0, sizeof(double) * dd);
            }
        }
    }

    // From the smoothed moments of step t + 1 to those of step t.
    void retreat(Index t) {
        double* mean = p.means + (first + t) * d;
        const bool own_disturbances = p.disturbances() && (by_root || p.time_varying());
        if (p.sums()) add_covariance(p.sum_next);
        if constexpr (by_root) {
            engine.retreat_mean(link_of(t), constant_of(t), beta.data(), difference.data());
            beta.swap(difference);
            add_vector_matrix(d, d, beta.data(), root_of(t), mean, m.data());
            engine.retreat(link_of(t), root_of(t), p.Q_at(t + 1), C.data(), V.data(), lag.data(),
                           own_disturbances ? disturbances.data() : nullptr);
        } else {
            if (own_disturbances) before = C;
            add_matrix_vector(d, d, p.A_at(t + 1), mean,
                              p.drift ? p.drift + (first + t + 1) * d : nullptr,
                              difference.data());
            for (int j = 0; j < d; ++j) difference[j] = mean[d + j] - difference[j];
            add_vector_matrix(d, d, difference.data(), gain_of(t), mean, m.data());
            engine.retreat(gain_of(t), rest_of(t), C.data(), lag.data());
            if (own_disturbances)
                add_disturbances(p, p.A_at(t + 1), C.data(), before.data(), lag.data(), 1.0);
        }
        std::memcpy(mean, m.data(), sizeof(double) * d);
        if (p.lag_one)
            std::memcpy(p.lag_one + (first + t + 1) * dd, lag.data(), sizeof(double) * dd);
        if (by_root && own_disturbances) {
            add_to(dd, disturbances.data(), p.sum_cross);
            add_to(dd, disturbances.data() + dd, p.sum_second);
        }
        if (p.sums()) {
            add_to(dd, lag.data(), p.sum_lag);
            add_covariance(p.sum_previous);
        }
    }
    void add_covariance(double* sum) {
        if (by_root) {
            engine.expand(V.data(), expanded.data());
            add_to(dd, expanded.data(), sum);
        } else {
            add_to(dd, C.data(), sum);
        }
    }
};

// All sequences see the same pattern at every step: their covariances do not depend on the data.
// The path of gains is computed once, until it stands still (or the longest sequence ends).
template <class Engine>
class Together {
public:
    enum Outcome { DONE, OTHER_FORM, TOO_LONG };

    Together(const Pass& pass)
        : p(pass), d(pass.d), k(pass.k), dd(static_cast<Index>(pass.d) * pass.d), engine(pass) {}

    Outcome run() {
        longest = 0;
        for (Index i = 0; i < p.n_sequences; ++i)
            longest = std::max(longest, p.offsets[i + 1] - p.offsets[i]);
        if (!make_path()) return TOO_LONG;
        if (!engine.trusted()) return OTHER_FORM;
        if (steady) make_steady();
        for (Index i = 0; i < p.n_sequences; ++i) {
            const Index n = p.offsets[i + 1] - p.offsets[i];
            if (by_root && p.smooths()) whitened.assign(n * k, 0.0);
            const double ll = forward(p.offsets[i], n, p.final_means ? p.final_means + i * d
                                                                     : nullptr);
            if (by_root && p.smooths()) backward_means_by_root(p.offsets[i], n);
            if (p.sequence_ll) p.sequence_ll[i] = ll;
            if (p.final_covs)
                std::memcpy(p.final_covs + i * dd, filtered.data() + std::min(n, n_path) * dd - dd,
                            sizeof(double) * dd);
        }
        if (p.filtered_covs) fill_filtered_covariances();
        if (p.smooths()) {
            for (Index i = 0; i < p.n_sequences && !by_root; ++i)
                backward_means(p.offsets[i], p.offsets[i + 1] - p.offsets[i]);
            backward_covariances();
        }
        return DONE;
    }

private:
    static constexpr bool by_root = Engine::square_root;
    static constexpr Index BLOCK = 128;
    const Pass& p;
    int d, k;
    Index dd, longest = 0, n_path = 0;
    bool steady = false;
    Engine engine;
    // the path, one entry a step: backward plain G and J; roots the link to the step after, back
    std::vector<double> g, f, log_f, G, J, links, backs, ends, filtered;
    std::vector<double> whitened;  // innovations (n, k) of the sequence at work, for roots
    // the steady step: m_next = C m_p + D y, m_f = M m_p + K y, e = W y - V m_p, whitened
    std::vector<double> M, K, V, W, C, C_transposed, D, GA;
    std::vector<double> predicted, drive, errors, scratch;

    bool make_path() {
        Index doubles = 4 * dd + static_cast<Index>(k) * d;
        if constexpr (by_root) doubles += engine.link_size();
        const Index cap = std::max<Index>(512, (Index(1) << 21) / doubles);
        std::vector<double> before(dd), now(dd), last_pivots(d);
        const bool wanted = p.smooths();
        int hits = 0;
        engine.start(p.P0);
        for (Index t = 0; t < longest; ++t) {
            if (t == cap) return false;
            const double* noise = p.noise_of(0);
            g.resize((t + 1) * k * d);
            f.resize((t + 1) * k);
            update_path(t, noise);
            double logs = 0.0;
            for (int i = 0; i < k; ++i)
                if (f[t * k + i] > 0.0) logs += Engine::log_variance(f[t * k + i]);
            log_f.push_back(logs);
            if (p.filtered_covs || p.final_covs) {
                filtered.resize((t + 1) * dd);
                engine.covariance(filtered.data() + t * dd);
            }
            if (wanted) {
                ends.resize((t + 1) * dd);
                engine.root(ends.data() + t * dd);
            }
            n_path = t + 1;
            if (t + 1 == longest) break;
            predict_path(t, wanted);
            engine.covariance(now.data());
            if (!engine.trusted()) return true;
            bool still = !p.time_varying() && t > 0 && stands_still(before.data(), now.data());
            if constexpr (by_root)
                if (wanted) still = engine.stands_still(last_pivots.data()) && still;
            hits = still ? hits + 1 : 0;
            if (hits == 2) {
                // exact observations keep the careful scalar updates
                steady = true;
                if constexpr (by_root)
                    if (wanted) close_path();
                return true;
            }
            before.swap(now);
        }
        return true;
    }

    void update_path(Index t, const double* noise) {
        double *gains = g.data() + t * k * d, *scales = f.data() + t * k;
        if constexpr (by_root) {
            const bool linked = p.smooths() && t > 0;
            if (linked) {
                links.resize(t * engine.link_size());
                backs.resize(t * k * d);
            }
            engine.update(p.S_of(0), noise, gains, scales, linked ? link_of(t - 1) : nullptr,
                          linked ? backs.data() + (t - 1) * k * d : nullptr);
        } else {
            engine.update(p.S_of(0), noise, gains, scales);
        }
    }
    void predict_path(Index t, bool wanted) {
        if constexpr (by_root) {
            engine.predict(p.A_at(t + 1), p.Q_at(t + 1), wanted);
        } else {
            if (wanted) {
                G.resize((t + 1) * dd);
                J.resize((t + 1) * dd);
            }
            engine.predict(p.A_at(t + 1), p.Q_at(t + 1), wanted ? G.data() + t * dd : nullptr,
                           wanted ? J.data() + t * dd : nullptr, wanted);
        }
    }
    double* link_of(Index t) { return links.data() + t * engine.link_size(); }

    // The link of the steady step, from the end of the path to the step after it.
    void close_path() {
        std::vector<double> gains(k * d), scales(k);
        links.resize(n_path * engine.link_size());
        backs.resize(n_path * k * d);
        double* back = backs.data() + (n_path - 1) * k * d;
        engine.update(p.S_of(0), p.noise_of(0), gains.data(), scales.data(), link_of(n_path - 1),
                      back);
        engine.align(ends.data() + (n_path - 1) * dd, link_of(n_path - 2), link_of(n_path - 1),
                     back);
    }

    bool stands_still(const double* before, const double* now) const {
        for (int i = 0; i < d; ++i)
            for (int j = 0; j <= i; ++j) {
                const double size = std::sqrt(now[i * d + i] * now[j * d + j]);
                if (!(std::fabs(now[i * d + j] - before[i * d + j]) <= STEADY * size))
                    return false;
            }
        return true;
    }

    void make_steady() {
        const double* gain = g.data() + (n_path - 1) * k * d;
        const double* variance = f.data() + (n_path - 1) * k;
        const double* S = p.S_of(0);
        M.assign(dd, 0.0);
        K.assign(static_cast<Index>(d) * k, 0.0);
        V.assign(static_cast<Index>(k) * d, 0.0);
        W.assign(static_cast<Index>(k) * k, 0.0);
        for (int j = 0; j < d; ++j) M[j * d + j] = 1.0;
        std::vector<double> sM(d), sK(k);
        for (int i = 0; i < k; ++i) {
            for (int j = 0; j < d; ++j) {
                double acc = 0.0;
                for (int l = 0; l < d; ++l) acc += S[i * d + l] * M[l * d + j];
                sM[j] = acc;
            }
            for (int j = 0; j < k; ++j) {
                double acc = 0.0;
                for (int l = 0; l < d; ++l) acc += S[i * d + l] * K[l * k + j];
                sK[j] = acc;
            }
            const double root = variance[i] > 0.0 ? Engine::whitening(variance[i]) : 0.0;
            const double per = variance[i] > 0.0 ? Engine::per_innovation(variance[i]) : 1.0;
            for (int j = 0; j < d; ++j) V[i * d + j] = root * sM[j];
            for (int j = 0; j < k; ++j) W[i * k + j] = root * ((i == j) - sK[j]);
            for (int l = 0; l < d; ++l) {
                const double step = gain[i * d + l] * per;
                for (int j = 0; j < d; ++j) M[l * d + j] -= step * sM[j];
                for (int j = 0; j < k; ++j) K[l * k + j] += step * ((i == j) - sK[j]);
            }
        }
        C.resize(dd);
        D.resize(static_cast<Index>(d) * k);
        multiply(p.gemm, false, false, d, d, d, 1.0, p.A, M.data(), 0.0, C.data());
        multiply(p.gemm, false, false, d, k, d, 1.0, p.A, K.data(), 0.0, D.data());
        C_transposed.resize(dd);
        transpose(d, C.data(), C_transposed.data());
        predicted.resize((BLOCK + 1) * d);
        drive.resize(BLOCK * d);
        errors.resize(BLOCK * k);
        scratch.resize(BLOCK * std::max(d, k));
        if (p.smooths() && !by_root) {
            // GA = (I - G A), G stored transposed
            GA.assign(dd, 0.0);
            for (int j = 0; j < d; ++j) GA[j * d + j] = 1.0;
            multiply(p.gemm, true, false, d, d, d, -1.0, G.data() + (n_path - 1) * dd, p.A, 1.0,
                     GA.data());
        }
    }

    bool exact() const { return p.noise != nullptr; }

    double forward(Index first, Index n, double* last) {
        std::vector<double> m(p.m0, p.m0 + d), next(d);
        double total = 0.0;
        Index t = 0;
        const Index careful = steady && !exact() ? std::min(n, n_path) : n;
        double* keep = p.smooths() ? p.means : p.filtered_means;
        for (; t < careful; ++t) {
            const Index at = std::min(t, n_path - 1), row = first + t;
            const double ll = update_mean<by_root>(
                d, k, p.S_of(0), g.data() + at * k * d, f.data() + at * k, p.y + row * k, m.data(),
                nullptr, whitened.empty() ? nullptr : whitened.data() + t * k);
            total += ll;
            if (p.step_ll) p.step_ll[row] = ll;
            if (keep) std::memcpy(keep + row * d, m.data(), sizeof(double) * d);
            if (t + 1 == n) {
                if (last) std::memcpy(last, m.data(), sizeof(double) * d);
                return total;
            }
            add_matrix_vector(d, d, p.A_at(t + 1), m.data(),
                              p.drift ? p.drift + (row + 1) * d : nullptr, next.data());
            m.swap(next);
        }
        if (whitened.empty() && small_forward(first, t, n, m.data(), keep, total)) {
            if (last) std::memcpy(last, m.data(), sizeof(double) * d);
            return total;
        }
        for (; t < n; t += BLOCK)
            total += forward_block(first + t, static_cast<int>(std::min(BLOCK, n - t)),
                                   t + BLOCK < n, m.data(), keep,
                                   whitened.empty() ? errors.data() : whitened.data() + t * k);
        if (last) {
            // predicted still holds the last block
            const Index at = (n - careful - 1) % BLOCK;
            add_matrix_vector(d, d, M.data(), predicted.data() + at * d, nullptr, last);
            add_matrix_vector(d, k, K.data(), p.y + (first + n - 1) * k, last, next.data());
            std::memcpy(last, next.data(), sizeof(double) * d);
        }
        return total;
    }

    // The steady steps from t on for up to four states; m ends as the last filtered mean.
    bool small_forward(Index first, Index t, Index n, double* m, double* keep, double& total) {
        if (d > 4 || k > d) return false;
        switch (d * 8 + k) {
            case 9: return small_steps<1, 1>(first, t, n, m, keep, total);
            case 17: return small_steps<2, 1>(first, t, n, m, keep, total);
            case 18: return small_steps<2, 2>(first, t, n, m, keep, total);
            case 25: return small_steps<3, 1>(first, t, n, m, keep, total);
            case 26: return small_steps<3, 2>(first, t, n, m, keep, total);
            case 27: return small_steps<3, 3>(first, t, n, m, keep, total);
            case 33: return small_steps<4, 1>(first, t, n, m, keep, total);
            case 34: return small_steps<4, 2>(first, t, n, m, keep, total);
            case 35: return small_steps<4, 3>(first, t, n, m, keep, total);
            case 36: return small_steps<4, 4>(first, t, n, m, keep, total);
        }
        return false;
    }

    template <int E, int F>
    bool small_steps(Index first, Index t, Index n, double* m, double* keep, double& total) {
        if (t >= n) return true;
        const Index row = first + t;
        // the last step alone, since no step follows it whose drift could be read
        for (Index part = 0; part < 2; ++part) {
            const Index start = part ? n - 1 - t : 0, rows = part ? 1 : n - 1 - t;
            if (part) std::memcpy(predicted.data(), m, sizeof(double) * E);
            total += steady_forward<E, F>(
                rows, p.y + (row + start) * F,
                p.drift && !part ? p.drift + (row + 1) * E : nullptr, C.data(), D.data(), M.data(),
                K.data(), V.data(), W.data(), log_f[n_path - 1], m,
                keep ? keep + (row + start) * E : nullptr,
                p.step_ll ? p.step_ll + row + start : nullptr);
        }
        add_matrix_vector(E, E, M.data(), predicted.data(), nullptr, drive.data());
        add_matrix_vector(E, F, K.data(), p.y + (first + n - 1) * F, drive.data(), m);
        return true;
    }

    bool small_backward(Index row, Index rows) {
        const double* gain = G.data() + (n_path - 1) * dd;
        const double* drift = p.drift ? p.drift + (row + 1) * d : nullptr;
        double* means = p.means + row * d;
        switch (d) {
            case 1: steady_backward<1>(rows, GA.data(), gain, drift, means); return true;
            case 2: steady_backward<2>(rows, GA.data(), gain, drift, means); return true;
            case 3: steady_backward<3>(rows, GA.data(), gain, drift, means); return true;
            case 4: steady_backward<4>(rows, GA.data(), gain, drift, means); return true;
        }
        return false;
    }

    // A block of steady steps: everything but the chain C m is a product over the block.
    double forward_block(Index row, int rows, bool more, double* m, double* keep,
                         double* errors) {
        const double* y = p.y + row * k;
        multiply(p.gemm, false, true, rows, d, k, 1.0, y, D.data(), 0.0, drive.data());
        if (p.drift) {
            const int there = more ? rows : rows - 1;
            for (Index j = 0; j < static_cast<Index>(there) * d; ++j)
                drive[j] += p.drift[(row + 1) * d + j];
        }
        std::memcpy(predicted.data(), m, sizeof(double) * d);
        for (int t = 0; t < rows; ++t)
            add_vector_matrix(d, d, predicted.data() + t * d, C_transposed.data(),
                              drive.data() + t * d, predicted.data() + (t + 1) * d);
        std::memcpy(m, predicted.data() + rows * d, sizeof(double) * d);
        if (keep) {
            multiply(p.gemm, false, true, rows, d, d, 1.0, predicted.data(), M.data(), 0.0,
                     keep + row * d);
            multiply(p.gemm, false, true, rows, d, k, 1.0, y, K.data(), 1.0, keep + row * d);
        }
        multiply(p.gemm, false, true, rows, k, k, 1.0, y, W.data(), 0.0, errors);
        multiply(p.gemm, false, true, rows, k, d, -1.0, predicted.data(), V.data(), 1.0,
                 errors);
        const double log_det = log_f[n_path - 1];
        double total = 0.0;
        for (int t = 0; t < rows; ++t) {
            double quadratic = 0.0;
            for (int i = 0; i < k; ++i) quadratic += errors[t * k + i] * errors[t * k + i];
            const double ll = -0.5 * (log_det + quadratic);
            if (p.step_ll) p.step_ll[row + t] = ll;
            total += ll;
        }
        return total;
    }

    // p.means holds the filtered means; they are overwritten from the end
    void backward_means(Index first, Index n) {
        std::vector<double> difference(d);
        Index t = n - 2;
        if (steady && n > n_path) {
            Index stop = n - 1;
            if (small_backward(first + n_path, stop - n_path)) stop = n_path;
            while (stop > n_path) {
                const Index start = std::max(n_path, stop - BLOCK);
                backward_block(first + start, static_cast<int>(stop - start));
                stop = start;
            }
            t = n_path - 1;
        }
        for (; t >= 0; --t) {
            const Index row = first + t, at = std::min(t, n_path - 1);
            double* mean = p.means + row * d;
            add_matrix_vector(d, d, p.A_at(t + 1), mean,
                              p.drift ? p.drift + (row + 1) * d : nullptr, difference.data());
            for (int j = 0; j < d; ++j) difference[j] = mean[d + j] - difference[j];
            const double* gain = G.data() + at * dd;
            for (int l = 0; l < d; ++l)
                for (int j = 0; j < d; ++j) mean[j] += difference[l] * gain[l * d + j];
        }
    }

    void backward_block(Index row, int rows) {
        const double* gain = G.data() + (n_path - 1) * dd;
        multiply(p.gemm, false, true, rows, d, d, 1.0, p.means + row * d, GA.data(), 0.0,
                 drive.data());
        if (p.drift)
            multiply(p.gemm, false, false, rows, d, d, -1.0, p.drift + (row + 1) * d, gain, 1.0,
                     drive.data());
        for (int t = rows - 1; t >= 0; --t)
            add_vector_matrix(d, d, p.means + (row + t + 1) * d, gain, drive.data() + t * d,
                              p.means + (row + t) * d);
    }

    // Likewise for roots: m := m + R' beta, beta := back' a + E' beta.
    void backward_means_by_root(Index first, Index n) {
        if constexpr (by_root) {
            std::vector<double> beta(d), next(d);
            for (Index t = n - 2; t >= 0; --t) {
                const Index at = std::min(t, n_path - 1);
                const double *a = whitened.data() + (t + 1) * k, *back = backs.data() + at * k * d;
                engine.retreat_mean(link_of(at), nullptr, beta.data(), next.data());
                for (int i = 0; i < k; ++i) add_times(d, a[i], back + i * d, next.data());
                beta.swap(next);
                double* mean = p.means + (first + t) * d;
                add_vector_matrix(d, d, beta.data(), ends.data() + at * dd, mean, next.data());
                std::memcpy(mean, next.data(), sizeof(double) * d);
            }
        }
    }

    void fill_filtered_covariances() {
        for (Index i = 0; i < p.n_sequences; ++i)
        {
            const Index n = p.offsets[i + 1] - p.offsets[i], own = std::min(n, n_path);
            double* out = p.filtered_covs + p.offsets[i] * dd;
            std::memcpy(out, filtered.data(), sizeof(double) * dd * own);
            repeat(filtered.data() + (own - 1) * dd, dd, n - own, out + own * dd);
        }
    }

    // The smoothed covariances depend on the length alone: one recursion for each length.
    void backward_covariances() {
        if (!p.covs && !p.lag_one && !p.sums() && !p.sum_pattern) return;
        std::vector<Index> order(p.n_sequences);
        for (Index i = 0; i < p.n_sequences; ++i) order[i] = i;
        sort_by_length(p, order, false);
        const Index* offsets = p.offsets;
        for (Index i = 0; i < p.n_sequences;) {
            const Index n = offsets[order[i] + 1] - offsets[order[i]];
            Index j = i;
            while (j < p.n_sequences && offsets[order[j] + 1] - offsets[order[j]] == n) ++j;
            backward_of_length(n, order.data() + i, j - i);
            i = j;
        }
    }

    void put(const double* block, Index t, Index steps, double* out, const Index* members,
             Index count) {
        if (!out) return;
        for (Index i = 0; i < count; ++i)
            repeat(block, dd, steps, out + (p.offsets[members[i]] + t) * dd);
    }

    void backward_of_length(Index n, const Index* members, Index count) {
        // form: the engine's own form of what is smoothed; root: its state's, by roots
        std::vector<double> form(dd), root(dd), lag(dd), now(dd), before(dd), own(2 * dd);
        const double weight = static_cast<double>(count);
        const double* end = ends.data() + std::min(n, n_path) * dd - dd;
        std::memcpy(root.data(), end, sizeof(double) * dd);
        if (by_root)
            set_identity(d, form.data());
        else
            form = root;
        engine.expand(root.data(), now.data());
        put(now.data(), n - 1, 1, p.covs, members, count);
        if (p.sum_pattern) add_times(dd, weight, now.data(), p.sum_pattern);
        std::vector<double> still = gram_of(form.data());
        int hits = 0;
        for (Index t = n - 2; t >= 0; --t) {
            before = now;
            const Index at = std::min(t, n_path - 1);
            const double repeats = hits == 2 && t >= n_path ? static_cast<double>(t - n_path + 1)
                                                            : 1.0;
            if (p.sums()) add_times(dd, weight * repeats, before.data(), p.sum_next);
            retreat(t, at, form, root, lag, own);
            engine.expand(by_root ? root.data() : form.data(), now.data());
            if (p.disturbances()) add_own_disturbances(t, weight * repeats, now, before, lag, own);
            std::vector<double> gram = by_root ? gram_of(form.data()) : now;
            hits = stands_still(still.data(), gram.data()) ? std::min(hits + 1, 2) : 0;
            still.swap(gram);
            if (p.sums()) {
                add_times(dd, weight * repeats, lag.data(), p.sum_lag);
                add_times(dd, weight * repeats, now.data(), p.sum_previous);
            }
            if (p.sum_pattern) add_times(dd, weight * repeats, now.data(), p.sum_pattern);
            const Index last = t - static_cast<Index>(repeats) + 1;
            put(lag.data(), last + 1, t - last + 1, p.lag_one, members, count);
            put(now.data(), last, t - last + 1, p.covs, members, count);
            t = last;
        }
        if (p.sums()) add_times(dd, weight, now.data(), p.sum_first);
        std::fill(lag.begin(), lag.end(), 0.0);
        put(lag.data(), 0, 1, p.lag_one, members, count);
    }

    std::vector<double> gram_of(const double* form) const {
        std::vector<double> gram(dd);
        engine.expand(form, gram.data());
        return gram;
    }

    void retreat(Index t, Index at, std::vector<double>& form, std::vector<double>& root,
                 std::vector<double>& lag, std::vector<double>& own) {
        if constexpr (by_root)
            engine.retreat(link_of(at), ends.data() + at * dd, p.Q_at(t + 1), form.data(),
                           root.data(), lag.data(), p.disturbances() ? own.data() : nullptr);
        else
            engine.retreat(G.data() + at * dd, J.data() + at * dd, form.data(), lag.data());
    }

    void add_own_disturbances(Index t, double weight, const std::vector<double>& now,
                              const std::vector<double>& after, const std::vector<double>& lag,
                              const std::vector<double>& own) {
        if (by_root) {
            add_times(dd, weight, own.data(), p.sum_cross);
            add_times(dd, weight, own.data() + dd, p.sum_second);
        } else if (p.time_varying()) {
            add_disturbances(p, p.A_at(t + 1), now.data(), after.data(), lag.data(), weight);
        }
    }
};
