// Up to eight states: several pieces of sequences side by side, one in each lane of a vector, each
// with its own covariance and its own pattern of missing entries.  The number of states is a
// compile-time constant, so that everything but the evidence lives in registers.  Included once per
// instruction set, inside a namespace, after the vector and the driver.
//
// A lane holds either a whole sequence, or a chunk of a long one that starts with a warm-up before
// its first step, from a guess that is forgotten; that it was forgotten is checked against the lane
// before it, and a sequence that remembers is worked again without chunks.

template <int D>
class Lanes {
    static constexpr int T = D * (D + 1) / 2;
    static constexpr int SLOT = D + D * D + T;  // filtered mean, gain, J of one step
    static constexpr int tri(int i, int j) { return i >= j ? i * (i + 1) / 2 + j : j * (j + 1) / 2 + i; }

    const Pass& p;
    int k;
    std::vector<double> memory, checkpoints, pattern_tri;

    // the state of all lanes
    Vec m[D], P[T];
    Vec quadratic, determinant, worst, pivot, top[D];
    double logs[LANES];
    // the lanes: rows of their first step, numbers of steps, times of their first step
    Index row[LANES], steps[LANES];
    Index limit[LANES];               // where the sequence of the lane ends
    bool begins[LANES], ends[LANES];  // whether the lane holds the sequence's first, last step
    bool heard[LANES];                // whether its smoothed states are wanted
    double A[D * D], Q[T];
    Vec final_m[D], final_P[T];  // filtered at the last step of each lane
    Vec next_m[D], next_P[T];    // predicted from there
    Vec after_m[D], after_C[T];  // smoothed at the step after the last, for lanes that do not end

public:
    explicit Lanes(const Pass& pass) : p(pass), k(pass.k) {}

    static Index segment_steps() {
        return std::max<Index>(64, (Index(1) << 21) / (SLOT * LANES * 8));
    }

    // Whole sequences members[0..count), sorted by decreasing length; form[] := 1 where the
    // square-root form must do it again.  Returns whether sums were added to for one of those.
    bool whole(const Index* members, int count) {
        Index longest = 0;
        for (int l = 0; l < LANES; ++l) {
            const Index i = members[std::min(l, count - 1)];
            row[l] = p.offsets[i];
            steps[l] = l < count ? p.offsets[i + 1] - p.offsets[i] : 1;
            limit[l] = row[l] + steps[l];
            begins[l] = ends[l] = true;
            longest = std::max(longest, steps[l]);
        }
        begin();
        const Index length = segment_steps();
        const Index n_segments = p.smooths() ? (longest + length - 1) / length : 1;
        if (p.smooths()) memory.resize(std::min(longest, length) * SLOT * LANES + LANES);
        if (n_segments > 1) checkpoints.resize(n_segments * (D + T) * LANES);
        for (Index segment = 0; segment < n_segments; ++segment) {
            if (n_segments > 1) hold(segment);
            const Index stop = n_segments > 1 ? std::min(longest, (segment + 1) * length) : longest;
            const bool last = segment + 1 == n_segments;
            forward(segment * length, stop, last && p.smooths(), true);
        }
        for (int l = 0; l < LANES; ++l) heard[l] = false;
        for (int l = 0; l < count; ++l) {
            finish(members[l], l);
            heard[l] = p.form[members[l]] == 0;
        }
        if (!p.smooths()) return false;
        Vec C[T] = {}, mean[D] = {};
        Sums sums;
        for (Index segment = n_segments - 1; segment >= 0; --segment) {
            const Index start = segment * length, stop = std::min(longest, start + length);
            if (segment + 1 < n_segments) {
                resume(segment);
                forward(start, stop, true, false);
            }
            backward(start, stop, C, mean, sums);
        }
        bool again = false;
        for (int l = 0; l < count; ++l) {
            const Index i = members[l];
            if (p.form[i] == 0 && !(pivot[l] >= WORST_PIVOT)) {
                p.form[i] = 1;
                again = true;
            }
            if (p.form[i] == 0) sums.add(p, l);
        }
        return again && p.sums();
    }

    static bool worth_chunks(Index n) { return n >= LANES * 4 * WARM_UP; }

    enum Chunked { DONE, REMEMBERS, OTHER_FORM };

    // One long sequence, cut into chunks: a block of as many chunks as lanes at a time.
    Chunked chunked(Index sequence) {
        const Index first = p.offsets[sequence], n = p.offsets[sequence + 1] - first;
        const Index length = std::max<Index>(segment_steps(), 4 * WARM_UP);
        const Index n_blocks = (n + LANES * length - 1) / (LANES * length);
        begin();
        double total = 0.0;
        Vec worst_of_all = spread(0.0);
        if (p.smooths()) memory.resize((n / (n_blocks * LANES) + 2) * SLOT * LANES + LANES);
        checkpoints.resize(n_blocks * (D + T) * LANES);
        for (Index block = 0; block < n_blocks; ++block) {
            warm_up(first, n, block, n_blocks);
            hold(block);
            forward(0, steps[0], p.smooths() && block + 1 == n_blocks, true);
            if (!continuous(block)) return REMEMBERS;
            for (int l = 0; l < LANES; ++l)
                total -= 0.5 * (logs[l] + std::log(determinant[l]) + quadratic[l]);
            worst_of_all = larger(worst_of_all, worst);
        }
        if (!(largest(worst_of_all) <= WORST_VARIANCE)) return OTHER_FORM;
        if (p.sequence_ll) p.sequence_ll[sequence] = total;
        if (p.final_means) {
            for (int j = 0; j < D; ++j) p.final_means[sequence * D + j] = final_m[j][LANES - 1];
            write(final_P, LANES - 1, p.final_covs + sequence * D * D);
        }
        return p.smooths() ? chunked_backward(first, n, n_blocks) : DONE;
    }

private:
    static constexpr Index WARM_UP = 256;
    static constexpr double FORGOTTEN = 1e-13;

    void place(Index first, Index n, Index block, Index n_blocks) {
        const Index start = n * block / n_blocks, rows = n * (block + 1) / n_blocks - start;
        Index at = first + start;
        for (int l = 0; l < LANES; ++l) {
            row[l] = at;
            steps[l] = rows / LANES + (l < rows % LANES ? 1 : 0);
            at += steps[l];
            limit[l] = first + n;
            begins[l] = block == 0 && l == 0;
            ends[l] = block + 1 == n_blocks && l + 1 == LANES;
        }
    }

    // Every lane at the predicted state of its first step: lane 0 goes on from the block before,
    // the others from a guess WARM_UP steps earlier.
    void warm_up(Index first, Index n, Index block, Index n_blocks) {
        double own_m[D], own_P[T];
        for (int j = 0; j < D; ++j) own_m[j] = block ? next_m[j][LANES - 1] : m[j][0];
        for (int e = 0; e < T; ++e) own_P[e] = block ? next_P[e][LANES - 1] : P[e][0];
        place(first, n, block, n_blocks);
        for (int l = 0; l < LANES; ++l) {
            row[l] -= l ? WARM_UP : 0;
            steps[l] += WARM_UP + 1;  // past what is run here, so that no lane ends
        }
        for (int j = 0; j < D; ++j) m[j] = spread(own_m[j]);
        for (int e = 0; e < T; ++e) P[e] = spread(own_P[e]);
        forward(0, WARM_UP, false, false);
        place(first, n, block, n_blocks);
        for (int j = 0; j < D; ++j) m[j][0] = own_m[j];
        for (int e = 0; e < T; ++e) P[e][0] = own_P[e];
        quadratic = worst = spread(0.0);
        determinant = spread(1.0);
        if (block == 0) pivot = spread(1.0);
        for (int l = 0; l < LANES; ++l) logs[l] = 0.0;
    }

    // Whether lane l of (a, A) ends where lane l + 1 of (b, B) began.
    static bool same(const Vec* a, const Vec* A, const Vec* b, const Vec* B) {
        for (int l = 0; l + 1 < LANES; ++l)
            for (int i = 0; i < D; ++i) {
                const double size = std::sqrt(B[tri(i, i)][l + 1]);
                const double mean = b[i][l + 1];
                if (!(std::fabs(a[i][l] - mean) <= FORGOTTEN * (size + std::fabs(mean))))
                    return false;
                for (int j = 0; j <= i; ++j) {
                    const double scale = size * std::sqrt(B[tri(j, j)][l + 1]);
                    if (!(std::fabs(A[tri(i, j)][l] - B[tri(i, j)][l + 1]) <= FORGOTTEN * scale))
                        return false;
                }
            }
        return true;
    }
    bool continuous(Index block) {
        Vec start_m[D], start_P[T];
        const double* slot = checkpoints.data() + block * (D + T) * LANES;
        for (int j = 0; j < D; ++j) start_m[j] = load(slot + j * LANES);
        for (int e = 0; e < T; ++e) start_P[e] = load(slot + (D + e) * LANES);
        return same(next_m, next_P, start_m, start_P);
    }

    Chunked chunked_backward(Index first, Index n, Index n_blocks) {
        Vec C[T] = {}, mean[D] = {}, lag[D * D];
        Sums sums;
        for (int l = 0; l < LANES; ++l) heard[l] = true;
        for (Index block = n_blocks - 1; block >= 0; --block) {
            place(first, n, block, n_blocks);
            if (block + 1 < n_blocks) {
                resume(block);
                forward(0, steps[0], true, false);
            }
            // the state after the block, exact, for the last lane
            double own_m[D], own_C[T];
            for (int j = 0; j < D; ++j) own_m[j] = mean[j][0];
            for (int e = 0; e < T; ++e) own_C[e] = C[e][0];
            const double* slot = memory.data() + (WARM_UP - 1) * SLOT * LANES;
            for (int j = 0; j < D; ++j) mean[j] = load(slot + j * LANES + 1);
            for (int e = 0; e < T; ++e) C[e] = load(slot + (D + D * D + e) * LANES + 1);
            for (Index t = WARM_UP - 2; t >= 0; --t)
                retreat(memory.data() + t * SLOT * LANES, t, C, mean, lag, true);
            for (int j = 0; j < D; ++j) {
                after_m[j] = mean[j];
                after_m[j][LANES - 1] = own_m[j];
            }
            for (int e = 0; e < T; ++e) {
                after_C[e] = C[e];
                after_C[e][LANES - 1] = own_C[e];
            }
            backward(0, steps[0], C, mean, sums);
            if (!same(after_m, after_C, mean, C)) return REMEMBERS;
        }
        double least = 1.0;
        for (int l = 0; l < LANES; ++l) least = pivot[l] >= least ? least : pivot[l];
        if (!(least >= WORST_PIVOT)) return OTHER_FORM;
        for (int l = 0; l < LANES; ++l) sums.add(p, l);
        return DONE;
    }

    struct Sums {
        Vec previous[T], next[T], lag[D * D], first[T];
        Sums() {
            for (int e = 0; e < T; ++e) previous[e] = next[e] = first[e] = spread(0.0);
            for (int e = 0; e < D * D; ++e) lag[e] = spread(0.0);
        }
        void add(const Pass& p, int l) const {
            if (!p.sums()) return;
            for (int i = 0; i < D; ++i)
                for (int j = 0; j < D; ++j) {
                    p.sum_previous[i * D + j] += previous[tri(i, j)][l];
                    p.sum_next[i * D + j] += next[tri(i, j)][l];
                    p.sum_first[i * D + j] += first[tri(i, j)][l];
                    p.sum_lag[i * D + j] += lag[i * D + j][l];
                }
        }
    };

    void begin() {
        for (int j = 0; j < D; ++j) m[j] = spread(p.m0[j]);
        for (int i = 0; i < D; ++i)
            for (int j = 0; j <= i; ++j) P[tri(i, j)] = spread(p.P0[i * D + j]);
        quadratic = spread(0.0);
        determinant = pivot = spread(1.0);
        worst = spread(0.0);
        for (int l = 0; l < LANES; ++l) logs[l] = 0.0;
        for (int j = 0; j < D; ++j) top[j] = spread(0.0);
        use_chain(0);
    }
    void use_chain(Index t) {
        std::memcpy(A, p.A_at(t), sizeof(A));
        for (int i = 0; i < D; ++i)
            for (int j = 0; j <= i; ++j) Q[tri(i, j)] = p.Q_at(t)[i * D + j];
    }
    void hold(Index segment) {
        double* slot = checkpoints.data() + segment * (D + T) * LANES;
        for (int j = 0; j < D; ++j) store(slot + j * LANES, m[j]);
        for (int e = 0; e < T; ++e) store(slot + (D + e) * LANES, P[e]);
    }
    void resume(Index segment) {
        const double* slot = checkpoints.data() + segment * (D + T) * LANES;
        for (int j = 0; j < D; ++j) m[j] = load(slot + j * LANES);
        for (int e = 0; e < T; ++e) P[e] = load(slot + (D + e) * LANES);
    }

    void finish(Index sequence, int l) {
        if (!(worst[l] <= WORST_VARIANCE)) p.form[sequence] = 1;
        if (p.form[sequence]) return;
        const double total = -0.5 * (logs[l] + std::log(determinant[l]) + quadratic[l]);
        if (p.sequence_ll) p.sequence_ll[sequence] = total;
        if (!p.final_means) return;
        for (int j = 0; j < D; ++j) p.final_means[sequence * D + j] = final_m[j][l];
        for (int i = 0; i < D; ++i)
            for (int j = 0; j < D; ++j)
                p.final_covs[(sequence * D + i) * D + j] = final_P[tri(i, j)][l];
    }

    // Steps start..stop of all lanes; `keep` stores what the backward pass needs, `report` writes
    // results.  A lane past its end goes on with its last row, unheard.
    SKLSEQ_NOINLINE void forward(Index start, Index stop, bool keep, bool report) {
        double* slot = memory.data();
        const bool per_step = report && (p.step_ll || p.filtered_means || p.filtered_covs);
        for (Index t = start; t < stop; ++t) {
            Index at[LANES];
            Vec active = spread(0.0);
            bool all = true;
            for (int l = 0; l < LANES; ++l) {
                const bool inside = t < steps[l];
                at[l] = row[l] + (inside ? t : steps[l] - 1);
                active[l] = inside ? 1.0 : 0.0;
                all = all && inside;
            }
            update(at, active, all, report, per_step, t);
            if (keep)
                for (int j = 0; j < D; ++j) store(slot + j * LANES, m[j]);
            for (int l = 0; l < LANES; ++l)
                if (t + 1 == steps[l]) {
                    for (int j = 0; j < D; ++j) final_m[j][l] = m[j][l];
                    for (int e = 0; e < T; ++e) final_P[e][l] = P[e][l];
                }
            predict(at, t, keep ? slot + D * LANES : nullptr);
            for (int l = 0; l < LANES; ++l)
                if (t + 1 == steps[l] && !ends[l]) {
                    for (int j = 0; j < D; ++j) next_m[j][l] = m[j][l];
                    for (int e = 0; e < T; ++e) next_P[e][l] = P[e][l];
                }
            slot += keep ? SLOT * LANES : 0;
        }
    }

    void update(const Index* at, Vec active, bool all, bool report, bool per_step, Index t) {
        Vec step_det = spread(1.0), step_quadratic = spread(0.0);
        const double *S_of[LANES], *y_of[LANES];
        for (int l = 0; l < LANES; ++l) {
            S_of[l] = p.S_of(p.pattern_at(at[l]));
            y_of[l] = p.y + at[l] * k;
        }
        for (int i = 0; i < k; ++i) {
            Vec s[D], h[D];
            for (int j = 0; j < D; ++j) s[j] = gather(S_of, i * D + j);
            Vec f = spread(1.0), v = gather(y_of, i);
            for (int j = 0; j < D; ++j) {
                Vec total = P[tri(j, 0)] * s[0];
                for (int l = 1; l < D; ++l) total += P[tri(j, l)] * s[l];
                h[j] = total;
            }
            for (int j = 0; j < D; ++j) {
                f += s[j] * h[j];
                v -= s[j] * m[j];
            }
            const Vec inverse = 1.0 / f;
            const Vec scaled = v * inverse;
            for (int a = 0; a < D; ++a) {
                m[a] += h[a] * scaled;
                const Vec factor = h[a] * inverse;
                for (int b = 0; b <= a; ++b) P[tri(a, b)] -= factor * h[b];
            }
            step_det *= f;
            step_quadratic += v * scaled;
            // a NaN stays: a variance that is not finite fails every comparison with a bound
            worst = all ? larger(worst, f) : larger(worst, keep_if(active, f));
        }
        if (!report) return;
        if (per_step) report_step(at, active, step_det, step_quadratic, t);
        if (!all) {
            step_det = 1.0 + keep_if(active, step_det - 1.0);
            step_quadratic = keep_if(active, step_quadratic);
        }
        quadratic += step_quadratic;
        determinant *= step_det;
        if (!(largest(determinant) < 1e100)) {
            for (int l = 0; l < LANES; ++l) {
                logs[l] += std::log(determinant[l]);
                determinant[l] = 1.0;
            }
        }
    }

    void report_step(const Index* at, Vec active, Vec det, Vec square, Index) {
        for (int l = 0; l < LANES; ++l) {
            if (active[l] == 0.0) continue;
            if (p.step_ll) p.step_ll[at[l]] = -0.5 * (std::log(det[l]) + square[l]);
            if (p.filtered_means)
                for (int j = 0; j < D; ++j) p.filtered_means[at[l] * D + j] = m[j][l];
            if (p.filtered_covs) write(P, l, p.filtered_covs + at[l] * D * D);
        }
    }

    static void write(const Vec* packed, int l, double* out) {
        for (int i = 0; i < D; ++i)
            for (int j = 0; j < D; ++j) out[i * D + j] = packed[tri(i, j)][l];
    }

    // P := A P A' + Q, m := A m + drift; with `slot` also the gain and J of the step.
    void predict(const Index* at, Index t, double* slot) {
        if (p.time_varying()) {
            Index longest = 0;
            for (int l = 0; l < LANES; ++l) longest = std::max(longest, steps[l]);
            use_chain(std::min(t + 1, longest - 1));
        }
        Vec AP[D * D], next[T], mean[D];
        for (int i = 0; i < D; ++i)
            for (int j = 0; j < D; ++j) {
                Vec total = P[tri(0, j)] * A[i * D];
                for (int l = 1; l < D; ++l) total += P[tri(l, j)] * A[i * D + l];
                AP[i * D + j] = total;
            }
        for (int i = 0; i < D; ++i)
            for (int j = 0; j <= i; ++j) {
                Vec total = spread(Q[tri(i, j)]);
                for (int l = 0; l < D; ++l) total += AP[i * D + l] * A[j * D + l];
                next[tri(i, j)] = total;
            }
        for (int i = 0; i < D; ++i) {
            Vec total = m[0] * A[i * D];
            for (int l = 1; l < D; ++l) total += m[l] * A[i * D + l];
            mean[i] = total;
        }
        if (p.drift)
            for (int l = 0; l < LANES; ++l)
                if (at[l] + 1 < limit[l])
                    for (int j = 0; j < D; ++j) mean[j][l] += p.drift[(at[l] + 1) * D + j];
        if (slot) gains(AP, next, slot);
        for (int j = 0; j < D; ++j) m[j] = mean[j];
        for (int e = 0; e < T; ++e) P[e] = next[e];
    }

    // X = next^-1 AP by the factorisation L D L', J = P - AP'X
    void gains(const Vec* AP, const Vec* next, double* slot) {
        Vec L[T], inverse[D], X[D * D];
        Vec least = spread(1.0);
        for (int i = 0; i < D; ++i) {
            for (int j = 0; j <= i; ++j) {
                Vec total = next[tri(i, j)];
                for (int l = 0; l < j; ++l) total -= L[tri(i, l)] * L[tri(j, l)] * inverse[l];
                L[tri(i, j)] = total;  // times the pivot of column j
            }
            const Vec diagonal = next[tri(i, i)], left = L[tri(i, i)];
            inverse[i] = 1.0 / left;
            least = smaller(least, left / diagonal);
            // how far the variance has fallen, and how small the noise is in it
            top[i] = larger(top[i], diagonal);
            least = smaller(least, diagonal / top[i] * (WORST_PIVOT / LEAST_SHARE));
            if (p.disturbances() && Q[tri(i, i)] > 0.0)
                least = smaller(least, Q[tri(i, i)] / LEAST_NOISE * WORST_PIVOT / diagonal);
            for (int l = 0; l < LANES; ++l)  // a NaN must not pass a comparison
                if (!(left[l] > 0.0)) least[l] = -1.0;
        }
        for (int l = 0; l < LANES; ++l)
            if (!(pivot[l] <= least[l])) pivot[l] = least[l];
        for (int j = 0; j < D; ++j) {
            for (int i = 0; i < D; ++i) {
                Vec total = AP[i * D + j];
                for (int l = 0; l < i; ++l) total -= L[tri(i, l)] * X[l * D + j];
                X[i * D + j] = total * inverse[i];
            }
            for (int i = D - 1; i >= 0; --i) {
                Vec total = spread(0.0);
                for (int l = i + 1; l < D; ++l) total += L[tri(l, i)] * X[l * D + j];
                X[i * D + j] -= total * inverse[i];
            }
        }
        for (int e = 0; e < D * D; ++e) store(slot + e * LANES, X[e]);
        for (int i = 0; i < D; ++i)
            for (int j = 0; j <= i; ++j) {
                Vec total = P[tri(i, j)];
                for (int l = 0; l < D; ++l) total -= AP[l * D + i] * X[l * D + j];
                store(slot + (D * D + tri(i, j)) * LANES, total);
            }
    }

    // Steps stop-1..start of all lanes; C and mean are those of step `stop` on entry.
    SKLSEQ_NOINLINE void backward(Index start, Index stop, Vec* C, Vec* mean, Sums& sums) {
        Vec lag[D * D] = {};
        for (Index t = stop - 1; t >= start; --t) {
            const double* slot = memory.data() + (t - start) * SLOT * LANES;
            Vec active = spread(0.0);
            bool any = false, moves[LANES];
            for (int l = 0; l < LANES; ++l) {
                moves[l] = t < steps[l] && !(ends[l] && t + 1 == steps[l]);
                active[l] = moves[l] ? 1.0 : 0.0;
                any = any || moves[l];
                if (t + 1 == steps[l] && !ends[l]) {
                    for (int j = 0; j < D; ++j) mean[j][l] = after_m[j][l];
                    for (int e = 0; e < T; ++e) C[e][l] = after_C[e][l];
                }
            }
            if (any) {
                if (p.sums())
                    for (int e = 0; e < T; ++e) sums.next[e] += keep_if(active, C[e]);
                retreat(slot, t, C, mean, lag, false);
            }
            for (int l = 0; l < LANES; ++l)
                if (t + 1 == steps[l] && ends[l]) {
                    for (int j = 0; j < D; ++j) mean[j][l] = final_m[j][l];
                    for (int e = 0; e < T; ++e) C[e][l] = final_P[e][l];
                    for (int e = 0; e < D * D; ++e) lag[e][l] = 0.0;
                }
            if (any && p.sums()) {
                for (int e = 0; e < T; ++e) sums.previous[e] += keep_if(active, C[e]);
                for (int e = 0; e < D * D; ++e) sums.lag[e] += keep_if(active, lag[e]);
            }
            for (int l = 0; l < LANES; ++l) {
                if (!heard[l]) continue;
                const bool first = t == 0 && begins[l];
                if (first)
                    for (int e = 0; e < T; ++e) sums.first[e][l] = C[e][l];
                if (t < steps[l]) write_step(row[l] + t, l, moves[l], first, C, mean, lag);
            }
        }
    }

    // One step back in every lane.  `shifted`: lane l works on what lane l + 1 has stored.
    void retreat(const double* slot, Index t, Vec* C, Vec* mean, Vec* lag, bool shifted) {
        if (shifted) ++slot;  // the lanes are neighbours in memory; the last lane gets rubbish
        if (p.time_varying()) {
            Index longest = 0;
            for (int l = 0; l < LANES; ++l) longest = std::max(longest, steps[l]);
            use_chain(std::min(t + 1, longest - 1));
        }
        Vec filtered[D], difference[D], X[D * D];
        for (int j = 0; j < D; ++j) filtered[j] = load(slot + j * LANES);
        for (int e = 0; e < D * D; ++e) X[e] = load(slot + (D + e) * LANES);
        for (int i = 0; i < D; ++i) {
            Vec total = mean[i];
            for (int l = 0; l < D; ++l) total -= filtered[l] * A[i * D + l];
            difference[i] = total;
        }
        if (p.drift)
            for (int l = 0; l < LANES; ++l) {
                const Index at = row[shifted && l + 1 < LANES ? l + 1 : l] + t + 1;
                if (at < limit[l])
                    for (int j = 0; j < D; ++j) difference[j][l] -= p.drift[at * D + j];
            }
        for (int j = 0; j < D; ++j) {
            Vec total = filtered[j];
            for (int l = 0; l < D; ++l) total += X[l * D + j] * difference[l];
            mean[j] = total;
        }
        for (int i = 0; i < D; ++i)
            for (int j = 0; j < D; ++j) {
                Vec total = C[tri(i, 0)] * X[j];
                for (int l = 1; l < D; ++l) total += C[tri(i, l)] * X[l * D + j];
                lag[i * D + j] = total;
            }
        const double* J = slot + (D + D * D) * LANES;
        for (int i = 0; i < D; ++i)
            for (int j = 0; j <= i; ++j) {
                Vec total = load(J + tri(i, j) * LANES);
                for (int l = 0; l < D; ++l) total += X[l * D + i] * lag[l * D + j];
                C[tri(i, j)] = total;
            }
    }

    void write_step(Index at, int l, bool lagged, bool first, const Vec* C, const Vec* mean,
                    const Vec* lag) {
        for (int j = 0; j < D; ++j) p.means[at * D + j] = mean[j][l];
        if (p.covs) write(C, l, p.covs + at * D * D);
        if (p.lag_one) {
            if (lagged) {
                double* out = p.lag_one + (at + 1) * D * D;
                for (int e = 0; e < D * D; ++e) out[e] = lag[e][l];
            }
            if (first) std::memset(p.lag_one + at * D * D, 0, sizeof(double) * D * D);
        }
        if (p.sum_pattern) {
            double* out = p.sum_pattern + p.pattern_at(at) * D * D;
            for (int i = 0; i < D; ++i)
                for (int j = 0; j < D; ++j) out[i * D + j] += C[tri(i, j)][l];
        }
    }
};

// All sequences of form 0, longest first: long ones in chunks, the rest in groups of as many as
// there are lanes.  `whole` remembers which long ones cannot be cut.  Returns whether sums have to
// be made anew.
template <int D>
inline bool lanes_of(const Pass& p, std::vector<char>& whole) {
    std::vector<Index> order;
    Lanes<D> lanes(p);
    bool again = false;
    for (Index i = 0; i < p.n_sequences; ++i) {
        if (p.form[i]) continue;
        const Index n = p.offsets[i + 1] - p.offsets[i];
        if (whole[i] || p.time_varying() || !Lanes<D>::worth_chunks(n)) {
            order.push_back(i);
            continue;
        }
        const auto outcome = lanes.chunked(i);
        if (outcome == Lanes<D>::DONE) continue;
        again = again || p.sum_pattern;
        if (outcome == Lanes<D>::OTHER_FORM) {
            p.form[i] = 1;
        } else {
            whole[i] = 1;
            order.push_back(i);
        }
    }
    sort_by_length(p, order, true);
    for (std::size_t i = 0; i < order.size() && !again; i += LANES)
        again = lanes.whole(order.data() + i,
                            static_cast<int>(std::min<std::size_t>(LANES, order.size() - i)));
    return again;
}

// Returns whether it was there for this number of states; `again`: sums must be made anew.
inline bool lanes(const Pass& p, std::vector<char>& whole, bool& again) {
    switch (p.d) {
        case 1: again = lanes_of<1>(p, whole); return true;
        case 2: again = lanes_of<2>(p, whole); return true;
        case 3: again = lanes_of<3>(p, whole); return true;
        case 4: again = lanes_of<4>(p, whole); return true;
        case 5: again = lanes_of<5>(p, whole); return true;
        case 6: again = lanes_of<6>(p, whole); return true;
        case 7: again = lanes_of<7>(p, whole); return true;
        case 8: again = lanes_of<8>(p, whole); return true;
    }
    return false;
}
