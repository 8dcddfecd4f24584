// The vector of one instruction set: loads, stores, exp, sigmoid, tanh.
//
// This header and the other bodies (_product.h, _cell_steps.h, _layer.h, _heads.h) have no include
// guard: _instruction_sets.h includes them once per instruction set, each time in a namespace of its
// own with SKLSEQ_LANE_BYTES, SKLSEQ_PANEL_VECTORS and SKLSEQ_TARGET set.  Every function carries
// SKLSEQ_TARGET (a pragma does not reach templates in all compilers); helpers that take vectors by
// value are always inlined, so no vector ever crosses a call.
//
// All arithmetic is lane by lane: a number's result does not depend on which lane it sits in, nor
// on whether its vector is full.  That makes a text's output the same alone and in a batch.

#if defined(__GNUC__)
#define SKLSEQ_INLINE SKLSEQ_TARGET inline __attribute__((always_inline))
#else
#define SKLSEQ_INLINE inline
#endif

template <class T> struct Bits;
template <> struct Bits<float> { typedef std::uint32_t type; };
template <> struct Bits<double> { typedef std::uint64_t type; };

template <class T> struct Lanes {
#if SKLSEQ_LANE_BYTES > 0
    static constexpr Index size = SKLSEQ_LANE_BYTES / static_cast<Index>(sizeof(T));
    typedef T type __attribute__((vector_size(SKLSEQ_LANE_BYTES)));
    typedef typename Bits<T>::type bits __attribute__((vector_size(SKLSEQ_LANE_BYTES)));
#else  // plain C++: one lane, the compiler vectorises what it can
    static constexpr Index size = 1;
    typedef T type;
    typedef typename Bits<T>::type bits;
#endif
};

template <class T> SKLSEQ_INLINE typename Lanes<T>::type load(const T* from) {
    typename Lanes<T>::type value;
    std::memcpy(&value, from, sizeof(value));
    return value;
}

template <class T> SKLSEQ_INLINE void store(T* to, typename Lanes<T>::type value) {
    std::memcpy(to, &value, sizeof(value));
}

// The first `count` numbers; the other lanes are zero.
template <class T> SKLSEQ_INLINE typename Lanes<T>::type load_some(const T* from, Index count) {
    if (count >= Lanes<T>::size) return load(from);
    T buffer[Lanes<T>::size] = {};
    for (Index i = 0; i < count; i++) buffer[i] = from[i];
    return load(buffer);
}

template <class T> SKLSEQ_INLINE void store_some(T* to, typename Lanes<T>::type value, Index count) {
    if (count >= Lanes<T>::size) {
        store(to, value);
        return;
    }
    T buffer[Lanes<T>::size];
    store(buffer, value);
    for (Index i = 0; i < count; i++) to[i] = buffer[i];
}

// e^x to 1e-7 relative (float) and 4e-16 (double), argument clipped to the finite range: write
// x = n ln 2 + r with |r| <= (ln 2)/2, a polynomial for e^r, and n straight into the exponent bits.
SKLSEQ_INLINE Lanes<float>::type exponential(Lanes<float>::type x) {
    typedef Lanes<float>::type V;
    typedef Lanes<float>::bits B;
    const V zero = {};
    const V low = zero - 87.0f, high = zero + 88.0f;
    x = x < low ? low : x;
    x = x > high ? high : x;
    const V shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23 leaves n in the low bits
    const V n = shifted - 12582912.0f;
    const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * r) * r + r + 1.0f;
    B bits;
    std::memcpy(&bits, &shifted, sizeof(bits));
    bits = (bits << 23) + 0x3F800000u;
    V scale;
    std::memcpy(&scale, &bits, sizeof(scale));
    return p * scale;
}

SKLSEQ_INLINE Lanes<double>::type exponential(Lanes<double>::type x) {
    typedef Lanes<double>::type V;
    typedef Lanes<double>::bits B;
    const V zero = {};
    const V low = zero - 707.0, high = zero + 708.0;
    x = x < low ? low : x;
    x = x > high ? high : x;
    const V shifted = x * 1.4426950408889634 + 6755399441055744.0;  // 1.5 * 2^52
    const V n = shifted - 6755399441055744.0;
    const V r = (x - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6;
    V p = r * 1.6059043836821613e-10 + 2.0876756987868099e-9;  // 1/13!, 1/12!, ...
    p = p * r + 2.5052108385441720e-8;
    p = p * r + 2.7557319223985893e-7;
    p = p * r + 2.7557319223985888e-6;
    p = p * r + 2.4801587301587302e-5;
    p = p * r + 1.9841269841269841e-4;
    p = p * r + 1.3888888888888889e-3;
    p = p * r + 8.3333333333333332e-3;
    p = p * r + 4.1666666666666664e-2;
    p = p * r + 1.6666666666666666e-1;
    p = p * r + 0.5;
    p = (p * r) * r + r + 1.0;
    B bits;
    std::memcpy(&bits, &shifted, sizeof(bits));
    bits = (bits << 52) + 0x3FF0000000000000ull;
    V scale;
    std::memcpy(&scale, &bits, sizeof(scale));
    return p * scale;
}

template <class T>
SKLSEQ_INLINE typename Lanes<T>::type sigmoid(typename Lanes<T>::type x) {
    const typename Lanes<T>::type zero = {};
    return T(1) / (T(1) + exponential(zero - x));
}

template <class T>
SKLSEQ_INLINE typename Lanes<T>::type hyperbolic_tangent(typename Lanes<T>::type x) {
    return T(1) - T(2) / (T(1) + exponential(x + x));
}
