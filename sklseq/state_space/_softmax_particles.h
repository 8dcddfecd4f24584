// The twisted particle filter (psi-APF) of one sequence, over a run of its steps.
// Included once per instruction set, inside a namespace, after the words.
//
// Particles move by the transitions of a Gaussian q(s_1..s_T) and are weighted by exp r_t,
//     r_t(x) = log p(y_t | x) + |z_t - S_t x|^2 / 2,
// where z_t = S_t s_t + e_t are the Gaussian sites that make q out of the prior (Guarniero, Johansen
// and Lee 2017; Vihola, Helske and Franks 2020, section 4.2).

// Systematic resampling when the effective sample size is below half.
inline bool resample(Index K, double uniform, double* log_weights, int* ancestors) {
    double sum = 0.0, squares = 0.0;
    for (Index i = 0; i < K; ++i) {
        const double w = std::exp(log_weights[i]);
        sum += w;
        squares += w * w;
    }
    if (sum * sum >= 0.5 * static_cast<double>(K) * squares) return false;
    double edge = 0.0;
    Index at = -1;
    for (Index i = 0; i < K; ++i) {
        const double target = (static_cast<double>(i) + uniform) / static_cast<double>(K) * sum;
        while (at < K - 1 && (at < 0 || edge < target)) edge += std::exp(log_weights[++at]);
        ancestors[i] = static_cast<int>(at);
    }
    for (Index i = 0; i < K; ++i) log_weights[i] = -std::log(static_cast<double>(K));
    return true;
}

inline void move_particles(const Particles& p, Index t, bool moved, const int* ancestors,
                           double* next) {
    const int d = p.words.d;
    const double* mean = p.means + t * d;
    const double* before = t ? mean - d : p.mean_before;
    const double* gain = p.gains + t * d * d;
    const double* root = p.roots + t * d * d;
    for (Index i = 0; i < p.K; ++i) {
        const double* from = p.states + (moved ? ancestors[i] : i) * d;
        const double* z = p.normals + (t * p.K + i) * d;
        for (int a = 0; a < d; ++a) {
            double value = mean[a];
            if (before)
                for (int b = 0; b < d; ++b) value += gain[a * d + b] * (from[b] - before[b]);
            for (int b = 0; b < d; ++b) value += root[a * d + b] * z[b];
            next[i * d + a] = value;
        }
    }
    std::memcpy(p.states, next, sizeof(double) * p.K * d);
}

// Adds r_t to the log-weights.
inline void weigh_particles(const Particles& p, Index t, double* x) {
    const int d = p.words.d;
    const double* S = p.S + t * d * d;
    double* lse = x + d * LANES;
    for (Index first = 0; first < p.K; first += LANES) {
        const int used = static_cast<int>(p.K - first < LANES ? p.K - first : LANES);
        for (int l = 0; l < used; ++l)
            for (int i = 0; i < d; ++i) x[i * LANES + l] = p.states[(first + l) * d + i];
        words_at(p.words, x, lse, nullptr);
        for (int l = 0; l < used; ++l) {
            double r = p.count_b[t] - p.totals[t] * lse[l];
            for (int i = 0; i < d; ++i) {
                r += p.count_B[t * d + i] * x[i * LANES + l];
                double miss = p.y[t * d + i];
                for (int j = i; j < d; ++j) miss -= S[i * d + j] * x[j * LANES + l];
                r += 0.5 * miss * miss;
            }
            p.log_weights[first + l] += r;
        }
    }
}

// log of the sum of weights, which are divided by it.
inline double normalise(Index K, double* log_weights) {
    double best = log_weights[0], sum = 0.0;
    for (Index i = 1; i < K; ++i) best = log_weights[i] > best ? log_weights[i] : best;
    for (Index i = 0; i < K; ++i) sum += std::exp(log_weights[i] - best);
    const double total = best + std::log(sum);
    for (Index i = 0; i < K; ++i) log_weights[i] -= total;
    return total;
}

// work: ((d + 1) LANES + K d) doubles, then K ints.
inline void run_particles(const Particles& p, double* work) {
    const int d = p.words.d;
    double* x = work;
    double* next = x + (d + 1) * LANES;
    int* ancestors = reinterpret_cast<int*>(next + p.K * d);
    for (int j = 0; j < d * LANES; ++j) x[j] = 0.0;
    for (Index t = 0; t < p.n_steps; ++t) {
        const bool opens = t == 0 && !p.mean_before;
        const bool moved = !opens && resample(p.K, p.uniforms[t], p.log_weights, ancestors);
        move_particles(p, t, moved, ancestors, next);
        p.increments[t] = 0.0;
        if (p.totals[t] != 0.0) {
            weigh_particles(p, t, x);
            p.increments[t] = normalise(p.K, p.log_weights);
        }
        if (p.paths) {
            std::memcpy(p.paths + t * p.K * d, p.states, sizeof(double) * p.K * d);
            std::memcpy(p.path_weights + t * p.K, p.log_weights, sizeof(double) * p.K);
        }
    }
}
