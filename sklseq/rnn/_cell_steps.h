// One time step of each cell, forward and backward, over the rows of a batch: what happens between
// the matrix products.  The equations stand in _cells.py; here are their derivatives.
//
// Gate columns, in order: rnn (h); gru (u, r, c); lstm (f, i, c~, o).  A row of the gate buffer
// holds pre-activations before the step, activations after it, and in the backward pass the
// gradients of the pre-activations.  The gru with the reset after the product has a fourth block:
// (u, r, h W_c + b, input part, then c, of the candidate).

#define SKLSEQ_FOR_LANES(H)                                                                     \
    for (Index j = 0, count = 0; count = std::min((H) - j, Lanes<T>::size), j < (H);             \
         j += Lanes<T>::size)

template <class T> SKLSEQ_TARGET void rnn_forward(Index rows, Index H, const T* gates, T* next) {
    typedef typename Lanes<T>::type V;
    for (Index row = 0; row < rows; row++, gates += H, next += H)
        SKLSEQ_FOR_LANES(H) {
            const V h = hyperbolic_tangent<T>(load_some(gates + j, count));
            store_some(next + j, h, count);
        }
}

template <class T>
SKLSEQ_TARGET void rnn_backward(Index rows, Index H, const T* next, const T* d_next, T* gates) {
    typedef typename Lanes<T>::type V;
    for (Index row = 0; row < rows; row++, gates += H, next += H, d_next += H)
        SKLSEQ_FOR_LANES(H) {
            const V h = load_some(next + j, count);
            store_some(gates + j, load_some(d_next + j, count) * (T(1) - h * h), count);
        }
}

template <class T>
SKLSEQ_TARGET void lstm_forward(Index rows, Index H, T* gates, const T* memory, T* next_memory,
                                T* next) {
    typedef typename Lanes<T>::type V;
    for (Index row = 0; row < rows; row++, gates += 4 * H, memory += H, next_memory += H, next += H)
        SKLSEQ_FOR_LANES(H) {
            const V f = sigmoid<T>(load_some(gates + j, count));
            const V i = sigmoid<T>(load_some(gates + H + j, count));
            const V candidate = hyperbolic_tangent<T>(load_some(gates + 2 * H + j, count));
            const V o = sigmoid<T>(load_some(gates + 3 * H + j, count));
            const V c = f * load_some(memory + j, count) + i * candidate;
            store_some(gates + j, f, count);
            store_some(gates + H + j, i, count);
            store_some(gates + 2 * H + j, candidate, count);
            store_some(gates + 3 * H + j, o, count);
            store_some(next_memory + j, c, count);
            store_some(next + j, o * hyperbolic_tangent<T>(c), count);
        }
}

// d_memory: in the gradient of c_t, out that of c_{t-1}.
template <class T>
SKLSEQ_TARGET void lstm_backward(Index rows, Index H, const T* memory, const T* next_memory,
                                 const T* d_next, T* d_memory, T* gates) {
    typedef typename Lanes<T>::type V;
    for (Index row = 0; row < rows; row++, gates += 4 * H, memory += H, next_memory += H,
              d_next += H, d_memory += H)
        SKLSEQ_FOR_LANES(H) {
            const V f = load_some(gates + j, count), i = load_some(gates + H + j, count);
            const V candidate = load_some(gates + 2 * H + j, count);
            const V o = load_some(gates + 3 * H + j, count);
            const V dh = load_some(d_next + j, count);
            const V squashed = hyperbolic_tangent<T>(load_some(next_memory + j, count));
            const V dc = load_some(d_memory + j, count) + dh * o * (T(1) - squashed * squashed);
            store_some(gates + j, dc * load_some(memory + j, count) * f * (T(1) - f), count);
            store_some(gates + H + j, dc * candidate * i * (T(1) - i), count);
            store_some(gates + 2 * H + j, dc * i * (T(1) - candidate * candidate), count);
            store_some(gates + 3 * H + j, dh * squashed * o * (T(1) - o), count);
            store_some(d_memory + j, dc * f, count);
        }
}

// First half of the gru: both gates, and r * h_{t-1} for the candidate's product.
template <class T>
SKLSEQ_TARGET void gru_gates(Index rows, Index H, T* gates, const T* previous, T* reset) {
    typedef typename Lanes<T>::type V;
    for (Index row = 0; row < rows; row++, gates += 3 * H, previous += H, reset += H)
        SKLSEQ_FOR_LANES(H) {
            const V u = sigmoid<T>(load_some(gates + j, count));
            const V r = sigmoid<T>(load_some(gates + H + j, count));
            store_some(gates + j, u, count);
            store_some(gates + H + j, r, count);
            store_some(reset + j, r * load_some(previous + j, count), count);
        }
}

template <class T>
SKLSEQ_TARGET void gru_forward(Index rows, Index H, T* gates, const T* previous, T* next) {
    typedef typename Lanes<T>::type V;
    for (Index row = 0; row < rows; row++, gates += 3 * H, previous += H, next += H)
        SKLSEQ_FOR_LANES(H) {
            const V u = load_some(gates + j, count);
            const V c = hyperbolic_tangent<T>(load_some(gates + 2 * H + j, count));
            store_some(gates + 2 * H + j, c, count);
            store_some(next + j, u * load_some(previous + j, count) + (T(1) - u) * c, count);
        }
}

// Before the candidate's product: r stays an activation; d_next becomes its direct part u * d_next.
template <class T>
SKLSEQ_TARGET void gru_backward(Index rows, Index H, const T* previous, T* d_next, T* gates) {
    typedef typename Lanes<T>::type V;
    for (Index row = 0; row < rows; row++, gates += 3 * H, previous += H, d_next += H)
        SKLSEQ_FOR_LANES(H) {
            const V u = load_some(gates + j, count), c = load_some(gates + 2 * H + j, count);
            const V dh = load_some(d_next + j, count);
            store_some(gates + j, dh * (load_some(previous + j, count) - c) * u * (T(1) - u),
                       count);
            store_some(gates + 2 * H + j, dh * (T(1) - u) * (T(1) - c * c), count);
            store_some(d_next + j, dh * u, count);
        }
}

// After it: d_reset is the gradient of r * h_{t-1}.
template <class T>
SKLSEQ_TARGET void gru_backward_reset(Index rows, Index H, const T* previous, const T* d_reset,
                                      T* d_next, T* gates) {
    typedef typename Lanes<T>::type V;
    for (Index row = 0; row < rows;
         row++, gates += 3 * H, previous += H, d_reset += H, d_next += H)
        SKLSEQ_FOR_LANES(H) {
            const V r = load_some(gates + H + j, count), d = load_some(d_reset + j, count);
            store_some(gates + H + j, d * load_some(previous + j, count) * r * (T(1) - r), count);
            store_some(d_next + j, load_some(d_next + j, count) + d * r, count);
        }
}

template <class T>
SKLSEQ_TARGET void gru_after_forward(Index rows, Index H, T* gates, const T* previous, T* next) {
    typedef typename Lanes<T>::type V;
    for (Index row = 0; row < rows; row++, gates += 4 * H, previous += H, next += H)
        SKLSEQ_FOR_LANES(H) {
            const V u = sigmoid<T>(load_some(gates + j, count));
            const V r = sigmoid<T>(load_some(gates + H + j, count));
            const V c = hyperbolic_tangent<T>(load_some(gates + 3 * H + j, count) +
                                              r * load_some(gates + 2 * H + j, count));
            store_some(gates + j, u, count);
            store_some(gates + H + j, r, count);
            store_some(gates + 3 * H + j, c, count);
            store_some(next + j, u * load_some(previous + j, count) + (T(1) - u) * c, count);
        }
}

template <class T>
SKLSEQ_TARGET void gru_after_backward(Index rows, Index H, const T* previous, T* d_next, T* gates) {
    typedef typename Lanes<T>::type V;
    for (Index row = 0; row < rows; row++, gates += 4 * H, previous += H, d_next += H)
        SKLSEQ_FOR_LANES(H) {
            const V u = load_some(gates + j, count), r = load_some(gates + H + j, count);
            const V product = load_some(gates + 2 * H + j, count);
            const V c = load_some(gates + 3 * H + j, count);
            const V dh = load_some(d_next + j, count);
            const V dc = dh * (T(1) - u) * (T(1) - c * c);
            store_some(gates + j, dh * (load_some(previous + j, count) - c) * u * (T(1) - u),
                       count);
            store_some(gates + H + j, dc * product * r * (T(1) - r), count);
            store_some(gates + 2 * H + j, dc * r, count);
            store_some(gates + 3 * H + j, dc, count);
            store_some(d_next + j, dh * u, count);
        }
}
