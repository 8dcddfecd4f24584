// SKLSEQ_LANES doubles worked side by side.  Included once per instruction set, inside a
// namespace: no include guard.  GNU vectors where there are such, else a plain loop.

constexpr int LANES = SKLSEQ_LANES;

#ifdef __GNUC__
typedef double Vec __attribute__((vector_size(8 * SKLSEQ_LANES)));
typedef double LooseVec __attribute__((vector_size(8 * SKLSEQ_LANES), aligned(8), may_alias));

inline Vec spread(double x) { return Vec{} + x; }
inline Vec load(const double* x) { return *reinterpret_cast<const LooseVec*>(x); }
inline void store(double* x, Vec v) { *reinterpret_cast<LooseVec*>(x) = v; }
inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }
inline Vec smaller(Vec a, Vec b) { return a < b ? a : b; }
// x where the flag is positive, else 0, whatever x is
inline Vec keep_if(Vec flag, Vec x) { return flag > 0.0 ? x : Vec{}; }

// row[l][at] in lane l
inline Vec gather(const double* const* row, Index at) {
#if SKLSEQ_LANES == 2
    return Vec{row[0][at], row[1][at]};
#elif SKLSEQ_LANES == 4
    return Vec{row[0][at], row[1][at], row[2][at], row[3][at]};
#else
    return Vec{row[0][at], row[1][at], row[2][at], row[3][at],
               row[4][at], row[5][at], row[6][at], row[7][at]};
#endif
}

// with two lanes Pair and Vec are one type
typedef double Pair __attribute__((vector_size(16)));
typedef double LoosePair __attribute__((vector_size(16), aligned(8), may_alias));
#else
struct Vec {
    double x[LANES];
    double& operator[](int i) { return x[i]; }
    double operator[](int i) const { return x[i]; }
};
inline Vec spread(double value) {
    Vec v;
    for (int i = 0; i < LANES; ++i) v.x[i] = value;
    return v;
}
inline Vec load(const double* x) {
    Vec v;
    for (int i = 0; i < LANES; ++i) v.x[i] = x[i];
    return v;
}
inline Vec gather(const double* const* row, Index at) {
    Vec v;
    for (int i = 0; i < LANES; ++i) v.x[i] = row[i][at];
    return v;
}
inline void store(double* x, const Vec& v) {
    for (int i = 0; i < LANES; ++i) x[i] = v.x[i];
}
#define SKLSEQ_VEC_OPERATOR(op)                                          \
    inline Vec operator op(const Vec& a, const Vec& b) {                 \
        Vec v;                                                           \
        for (int i = 0; i < LANES; ++i) v.x[i] = a.x[i] op b.x[i];       \
        return v;                                                        \
    }                                                                    \
    inline Vec operator op(const Vec& a, double b) { return a op spread(b); } \
    inline Vec operator op(double a, const Vec& b) { return spread(a) op b; } \
    inline Vec& operator op##=(Vec& a, const Vec& b) { return a = a op b; }
SKLSEQ_VEC_OPERATOR(+)
SKLSEQ_VEC_OPERATOR(-)
SKLSEQ_VEC_OPERATOR(*)
SKLSEQ_VEC_OPERATOR(/)
#undef SKLSEQ_VEC_OPERATOR
inline Vec larger(const Vec& a, const Vec& b) {
    Vec v;
    for (int i = 0; i < LANES; ++i) v.x[i] = a.x[i] > b.x[i] ? a.x[i] : b.x[i];
    return v;
}
inline Vec smaller(const Vec& a, const Vec& b) {
    Vec v;
    for (int i = 0; i < LANES; ++i) v.x[i] = a.x[i] < b.x[i] ? a.x[i] : b.x[i];
    return v;
}
inline Vec keep_if(const Vec& flag, const Vec& x) {
    Vec v;
    for (int i = 0; i < LANES; ++i) v.x[i] = flag.x[i] > 0.0 ? x.x[i] : 0.0;
    return v;
}
#endif

inline double largest(const Vec& v) {
    double top = v[0];
    for (int i = 1; i < LANES; ++i) top = v[i] > top ? v[i] : top;
    return top;
}

// the sum of the lanes, as a tree
inline double sum_of(const Vec& v) {
    double part[LANES];
    store(part, v);
    for (int step = LANES / 2; step > 0; step /= 2)
        for (int i = 0; i < step; ++i) part[i] += part[i + step];
    return part[0];
}

// Loads and stores of a vector type, or of one double.
template <class V>
struct wide;
template <>
struct wide<double> {
    static constexpr int size = 1;
    static double load(const double* x) { return *x; }
    static void store(double* x, double v) { *x = v; }
};
#ifdef __GNUC__
#if SKLSEQ_LANES > 2
template <>
struct wide<Pair> {
    static constexpr int size = 2;
    static Pair load(const double* x) { return *reinterpret_cast<const LoosePair*>(x); }
    static void store(double* x, Pair v) { *reinterpret_cast<LoosePair*>(x) = v; }
};
#endif
template <>
struct wide<Vec> {
    static constexpr int size = LANES;
    static Vec load(const double* x) { return *reinterpret_cast<const LooseVec*>(x); }
    static void store(double* x, Vec v) { *reinterpret_cast<LooseVec*>(x) = v; }
};
#endif
