// Which sequence goes which way.  Included once per instruction set, inside a namespace, last.

inline void clear(double* sum, Index n) {
    if (sum) std::fill(sum, sum + n, 0.0);
}

template <class Engine>
inline bool together(const Pass& p, bool& tried_long) {
    Together<Engine> all(p);
    const auto outcome = all.run();
    tried_long = outcome == Together<Engine>::TOO_LONG;
    return outcome == Together<Engine>::DONE;
}

// What the square-root engine adds up, beside what the plain one does.
inline void add_root_sums(const Pass& p, const std::vector<double>& sums) {
    const int dd = p.d * p.d;
    double* out[] = {p.sum_previous, p.sum_next, p.sum_lag, p.sum_first, p.sum_cross, p.sum_second};
    for (int i = 0; i < 6; ++i)
        if (out[i]) add_to(dd, sums.data() + i * dd, out[i]);
}

inline Pass with_root_sums(const Pass& p, std::vector<double>& sums) {
    Pass root = p;
    if (!p.sums()) return root;
    const int dd = p.d * p.d;
    sums.assign(6 * dd, 0.0);
    double** out[] = {&root.sum_previous, &root.sum_next, &root.sum_lag, &root.sum_first,
                      &root.sum_cross, &root.sum_second};
    for (int i = 0; i < (p.disturbances() ? 6 : 4); ++i) *out[i] = sums.data() + i * dd;
    return root;
}

inline void run(const Pass& p) {
    const Index dd = static_cast<Index>(p.d) * p.d;
    const bool exact = p.noise != nullptr;
    std::fill(p.form, p.form + p.n_sequences, static_cast<std::int8_t>(exact));
    const bool shared = p.pattern == nullptr;
    // where A is one, the disturbances of plain sequences come of all sums at once
    const bool at_end = p.disturbances() && !p.time_varying();
    const auto finish = [&] {
        if (at_end) add_disturbances(p, p.A, p.sum_previous, p.sum_next, p.sum_lag, 1.0);
    };
    bool too_long = false;
    if (shared && !exact && together<PlainEngine>(p, too_long)) return finish();
    if (shared && !too_long && together<RootEngine>(p, too_long)) {
        std::fill(p.form, p.form + p.n_sequences, static_cast<std::int8_t>(1));
        return;
    }
    // A plain sequence that loses its pivots half-way has added to the sums already: start over
    // with that sequence in square-root form.
    std::vector<double> sums;
    const Pass by_root = with_root_sums(p, sums);
    Alone<PlainEngine> plain(p);
    Alone<RootEngine> root(by_root);
    std::vector<char> whole(p.n_sequences, 0);
    for (bool again = true; again;) {
        again = false;
        clear(p.sum_previous, dd);
        clear(p.sum_next, dd);
        clear(p.sum_lag, dd);
        clear(p.sum_first, dd);
        clear(p.sum_pattern, dd * p.n_patterns);
        clear(p.sum_cross, dd);
        clear(p.sum_second, dd);
        std::fill(sums.begin(), sums.end(), 0.0);
        const bool by_lanes = (at_end || !p.disturbances()) && lanes(p, whole, again);
        if (again) continue;
        for (Index i = 0; i < p.n_sequences; ++i) {
            if (!by_lanes && p.form[i] == 0 && !plain.run(i)) {
                p.form[i] = 1;
                again = again || p.sums();
            }
            if (p.form[i] == 1) root.run(i);
        }
    }
    finish();
    if (p.sums()) add_root_sums(p, sums);
}
