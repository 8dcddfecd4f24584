// The moment-matched (assumed-density) filter: after each step the Gaussian with the moments of
// predicted density times likelihood, by quadrature centred where that product is.
// Included once per instruction set, inside a namespace, after the sites.
//
// In coordinates z with s = m + L z, predicted N(0, I): first the KL-optimal Gaussian of this one
// step (the fixed point of the sites), then twice the moments under a finer rule centred there
// (Zoeter and Heskes 2011 call it adaptive quadrature).

// Points of the larger rule, filled up to whole blocks of lanes.
inline int matched_lanes(const Matched& p) {
    const int n = p.n_nodes > p.n_fine ? p.n_nodes : p.n_fine;
    return (n + LANES - 1) / LANES * LANES;
}

// (n_nodes,) log p(y | m + L z), z = centre + root * node; states of all nodes are kept in z.
inline void log_words_at(const Matched& p, Index t, const double* m, const double* L,
                         const double* centre, const double* root, int n_nodes,
                         const double* nodes, double* z, double* log_p, double* mean, double* x) {
    const int d = p.words.d;
    double* lse = x + d * LANES;
    for (int first = 0; first < n_nodes; first += LANES) {
        const int used = n_nodes - first < LANES ? n_nodes - first : LANES;
        for (int l = 0; l < used; ++l) {
            double* at = z + (first + l) * d;
            const double* node = nodes + static_cast<Index>(first + l) * d;
            for (int i = 0; i < d; ++i) {
                at[i] = centre[i];
                for (int j = 0; j <= i; ++j) at[i] += root[i * d + j] * node[j];
            }
            for (int i = 0; i < d; ++i) {
                double value = m[i];
                for (int j = 0; j <= i; ++j) value += L[i * d + j] * at[j];
                x[i * LANES + l] = value;
            }
        }
        words_at(p.words, x, lse, mean ? mean + first * d : nullptr);
        for (int l = 0; l < used; ++l) {
            double value = p.count_b[t] - p.totals[t] * lse[l];
            for (int i = 0; i < d; ++i) value += p.count_B[t * d + i] * x[i * LANES + l];
            log_p[first + l] = value;
        }
    }
}

// Covariance (I + H)^-1 and mean of prior N(0, I) times site (h, H); false if not positive.
inline bool with_site(int d, const double* H, const double* h, double* mean, double* cov,
                      double* work) {
    double* K = work;            // factor of I + H
    double* inverse = K + d * d; // of K
    for (int i = 0; i < d * d; ++i) K[i] = H[i];
    for (int i = 0; i < d; ++i) K[i * d + i] += 1.0;
    for (int j = 0; j < d; ++j)
        for (int i = j; i < d; ++i) {
            double value = K[i * d + j];
            for (int k = 0; k < j; ++k) value -= K[i * d + k] * K[j * d + k];
            if (i == j && !(value > 1e-12)) return false;
            K[i * d + j] = i == j ? std::sqrt(value) : value / K[j * d + j];
        }
    for (int c = 0; c < d; ++c)
        for (int i = 0; i < d; ++i) {
            double value = i == c ? 1.0 : 0.0;
            for (int k = c; k < i; ++k) value -= K[i * d + k] * inverse[k * d + c];
            inverse[i * d + c] = i < c ? 0.0 : value / K[i * d + i];
        }
    for (int i = 0; i < d; ++i)
        for (int j = 0; j < d; ++j) {
            double value = 0.0;
            for (int k = i > j ? i : j; k < d; ++k) value += inverse[k * d + i] * inverse[k * d + j];
            cov[i * d + j] = value;
        }
    for (int i = 0; i < d; ++i) {
        mean[i] = 0.0;
        for (int j = 0; j < d; ++j) mean[i] += cov[i * d + j] * h[j];
    }
    return true;
}

// The KL-optimal Gaussian of one step: mean and cov in z, by damped fixed-point iteration.
inline void fit_step(const Matched& p, Index t, const double* m, const double* L, double* mean,
                     double* cov, double* work) {
    const int d = p.words.d, dd = d * d;
    const int n_lanes = matched_lanes(p);
    double* x = work;                      // (d, LANES), then lse (LANES,)
    double* mean_B = x + (d + 1) * LANES;  // (n_lanes / LANES, d, LANES)
    double* z = mean_B + n_lanes * d;      // (n_nodes, d)
    double* log_p = z + n_lanes * d;       // (n_nodes,)
    double* root = log_p + n_lanes;        // (d, d)
    double* G = root + dd;
    double* H = G + dd;
    double* new_H = H + dd;
    double* try_H = new_H + dd;
    double* scratch = try_H + dd;                 // (2, d, d)
    double* old_cov = scratch + 2 * dd;
    double* h = old_cov + dd;
    double* new_h = h + d;
    double* try_h = new_h + d;
    double* slope = try_h + d;
    double* old_mean = slope + d;
    for (int i = 0; i < dd; ++i) H[i] = cov[i] = 0.0;
    for (int i = 0; i < d; ++i) h[i] = mean[i] = 0.0, cov[i * d + i] = 1.0;
    for (int j = 0; j < d * LANES; ++j) x[j] = 0.0;
    double bound = -1e300, size = 1.0;
    for (int iteration = 0; iteration < 60; ++iteration) {
        factor(d, cov, root);
        log_words_at(p, t, m, L, mean, root, p.n_nodes, p.nodes, z, log_p, mean_B, x);
        double now = 0.0;
        for (int i = 0; i < d; ++i) slope[i] = 0.0;
        for (int i = 0; i < dd; ++i) G[i] = 0.0;
        for (int k = 0; k < p.n_nodes; ++k) {
            now += p.weights[k] * log_p[k];
            const double* eb = mean_B + (k / LANES) * LANES * d + k % LANES;
            for (int i = 0; i < d; ++i) {
                double g = 0.0;  // L' (y'B - n E_p B)
                for (int j = i; j < d; ++j)
                    g += L[j * d + i] * (p.count_B[t * d + j] - p.totals[t] * eb[j * LANES]);
                g *= p.weights[k];
                slope[i] += g;
                for (int j = 0; j < d; ++j) G[i * d + j] += g * p.nodes[k * d + j];
            }
        }
        for (int i = 0; i < d; ++i)
            now += std::log(root[i * d + i]) - 0.5 * (cov[i * d + i] + mean[i] * mean[i] - 1.0);
        if (now < bound - 1e-10 * std::fabs(bound) && size > 1e-3) {
            size *= 0.5;  // too far: nearer to the last good site
        } else {
            if (iteration && std::fabs(now - bound) <= 1e-9 * (1.0 + std::fabs(now))) return;
            bound = now;
            size = 1.0;
            for (int i = 0; i < dd; ++i) H[i] = iteration ? try_H[i] : 0.0, old_cov[i] = cov[i];
            for (int i = 0; i < d; ++i) h[i] = iteration ? try_h[i] : 0.0, old_mean[i] = mean[i];
            curvature(d, root, G, scratch, new_H);
            for (int i = 0; i < d; ++i) {
                new_h[i] = slope[i];
                for (int j = 0; j < d; ++j) new_h[i] += new_H[i * d + j] * mean[j];
            }
        }
        for (;;) {
            for (int i = 0; i < dd; ++i) try_H[i] = H[i] + size * (new_H[i] - H[i]);
            for (int i = 0; i < d; ++i) try_h[i] = h[i] + size * (new_h[i] - h[i]);
            if (with_site(d, try_H, try_h, mean, cov, scratch)) break;
            size *= 0.5;
            if (size < 1e-3) {
                for (int i = 0; i < dd; ++i) cov[i] = old_cov[i];
                for (int i = 0; i < d; ++i) mean[i] = old_mean[i];
                return;
            }
        }
    }
}

// Moments (in z) and log of the integral of N(z; 0, I) p(y | z), nodes placed by (mean, cov).
inline double match(const Matched& p, Index t, const double* m, const double* L, double* mean,
                    double* cov, double* work) {
    const int d = p.words.d, dd = d * d;
    const int n_lanes = matched_lanes(p);
    double* x = work;
    double* z = x + ((d + 1) * LANES + n_lanes * d);
    double* log_w = z + n_lanes * d;
    double* root = log_w + n_lanes;
    for (int j = 0; j < d * LANES; ++j) x[j] = 0.0;
    factor(d, cov, root);
    log_words_at(p, t, m, L, mean, root, p.n_fine, p.fine_nodes, z, log_w, nullptr, x);
    double best = -1e300, sum = 0.0, log_det = 0.0;
    for (int i = 0; i < d; ++i) log_det += std::log(root[i * d + i]);
    for (int k = 0; k < p.n_fine; ++k) {
        for (int i = 0; i < d; ++i) {
            const double node = p.fine_nodes[k * d + i], at = z[k * d + i];
            log_w[k] += 0.5 * (node * node - at * at);
        }
        best = log_w[k] > best ? log_w[k] : best;
    }
    for (int i = 0; i < d; ++i) mean[i] = 0.0;
    for (int i = 0; i < dd; ++i) cov[i] = 0.0;
    for (int k = 0; k < p.n_fine; ++k) {
        log_w[k] = p.fine_weights[k] * std::exp(log_w[k] - best);
        sum += log_w[k];
        for (int i = 0; i < d; ++i) mean[i] += log_w[k] * z[k * d + i];
    }
    for (int i = 0; i < d; ++i) mean[i] /= sum;
    for (int k = 0; k < p.n_fine; ++k)
        for (int i = 0; i < d; ++i)
            for (int j = 0; j < d; ++j)
                cov[i * d + j] += log_w[k] / sum * (z[k * d + i] - mean[i]) * (z[k * d + j] - mean[j]);
    return best + std::log(sum) + log_det;
}

// cov = F C F' for (d, d) matrices.
inline void sandwich(int d, const double* F, const double* C, double* out, double* work) {
    for (int i = 0; i < d; ++i)
        for (int j = 0; j < d; ++j) {
            double value = 0.0;
            for (int k = 0; k < d; ++k) value += F[i * d + k] * C[k * d + j];
            work[i * d + j] = value;
        }
    for (int i = 0; i < d; ++i)
        for (int j = 0; j <= i; ++j) {
            double value = 0.0;
            for (int k = 0; k < d; ++k) value += work[i * d + k] * F[j * d + k];
            out[i * d + j] = out[j * d + i] = value;
        }
}

// All sequences.  work: see matched_work in the .pyx.
inline void run_matched(const Matched& p, double* work) {
    const int d = p.words.d, dd = d * d;
    double* m = work + ((d + 1) * LANES + matched_lanes(p) * (2 * d + 1) + 8 * dd + 5 * d);
    double* P = m + d;        // predicted covariance
    double* L = P + dd;
    double* mean = L + dd;
    double* cov = mean + d;
    double* scratch = cov + dd;
    for (Index s = 0; s < p.n_sequences; ++s)
        for (Index t = p.offsets[s]; t < p.offsets[s + 1]; ++t) {
            double* out_mean = p.out_means + t * d;
            double* out_cov = p.out_covs + t * dd;
            if (t == p.offsets[s]) {
                for (int i = 0; i < d; ++i) m[i] = p.m0[i];
                for (int i = 0; i < dd; ++i) P[i] = p.P0[i];
            } else {
                for (int i = 0; i < d; ++i) {
                    m[i] = 0.0;
                    for (int j = 0; j < d; ++j) m[i] += p.A[i * d + j] * out_mean[j - d];
                }
                sandwich(d, p.A, out_cov - dd, P, scratch);
                for (int i = 0; i < dd; ++i) P[i] += p.Gamma[i];
            }
            p.log_p[t] = 0.0;
            if (p.totals[t] == 0.0) {
                for (int i = 0; i < d; ++i) out_mean[i] = m[i];
                for (int i = 0; i < dd; ++i) out_cov[i] = P[i];
                continue;
            }
            factor(d, P, L);
            fit_step(p, t, m, L, mean, cov, work);
            match(p, t, m, L, mean, cov, work);
            p.log_p[t] = match(p, t, m, L, mean, cov, work);
            for (int i = 0; i < d; ++i) {
                out_mean[i] = m[i];
                for (int j = 0; j <= i; ++j) out_mean[i] += L[i * d + j] * mean[j];
            }
            sandwich(d, L, cov, out_cov, scratch);
        }
}
