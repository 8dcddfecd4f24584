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

inline void run(const Pass& p) {
    const Index dd = static_cast<Index>(p.d) * p.d;
    const bool exact = p.noise != nullptr;
    std::fill(p.form, p.form + p.n_sequences, static_cast<std::int8_t>(exact));
    const bool shared = p.pattern == nullptr;
    bool too_long = false;
    if (shared && !exact && together<PlainEngine>(p, too_long)) return;
    if (shared && !too_long && together<RootEngine>(p, too_long)) {
        std::fill(p.form, p.form + p.n_sequences, static_cast<std::int8_t>(1));
        return;
    }
    // A plain sequence that loses its pivots half-way has added to the sums already: start over
    // with that sequence in square-root form.
    Alone<PlainEngine> plain(p);
    Alone<RootEngine> root(p);
    std::vector<char> whole(p.n_sequences, 0);
    for (bool again = true; again;) {
        again = false;
        clear(p.sum_previous, dd);
        clear(p.sum_next, dd);
        clear(p.sum_lag, dd);
        clear(p.sum_first, dd);
        clear(p.sum_pattern, dd * p.n_patterns);
        const bool by_lanes = lanes(p, whole, again);
        if (again) continue;
        for (Index i = 0; i < p.n_sequences; ++i) {
            if (!by_lanes && p.form[i] == 0 && !plain.run(i)) {
                p.form[i] = 1;
                again = again || p.sums();
            }
            if (p.form[i] == 1) root.run(i);
        }
    }
}
