// The sums over time: one layer forward and backward over a ragged, length-sorted batch.
//
// Sequences are sorted by falling length; counts[t] of them have a step t.  Three row orders:
//   packed   step after step, counts[t] rows each: inputs, outputs, targets (N = sum counts);
//   states   a first block of counts[0] initial states, then the packed outputs (counts[0] + N);
//   gates    block t lies beside the states *before* step t, so it has counts[t - 1] rows of which
//            the first counts[t] are real and the others are zeroed in the backward pass.
// So states[:rows]' gates[:rows] is the gradient of the recurrent weights in one product, ragged
// batch or not, and nothing is copied.

template <class T>
SKLSEQ_TARGET void gather_inputs(const LayerWeights<T>& w, Index rows, const std::int32_t* codes,
                                 const T* inputs, T* gates) {
    const Index width = w.n_gates * w.hidden, H = w.hidden;
    for (Index row = 0; row < rows; row++) {
        const T* from = inputs + (codes ? static_cast<Index>(codes[row]) : row) * width;
        T* to = gates + row * w.n_stored * H;
        if (w.cell == GRU_RESET_AFTER) {
            std::memcpy(to, from, 2 * H * sizeof(T));
            std::memcpy(to + 2 * H, w.recurrent_bias, H * sizeof(T));
            std::memcpy(to + 3 * H, from + 2 * H, H * sizeof(T));
        } else {
            std::memcpy(to, from, width * sizeof(T));
        }
    }
}

// One step.  Of previous states that are ZERO no product is formed, of EQUAL ones that of a row.
enum Previous { ANY, ZERO, EQUAL };

template <class T>
SKLSEQ_TARGET void step_forward(const LayerWeights<T>& w, Index rows, Previous known,
                                const T* previous, const T* memory, T* gates, T* reset, T* next,
                                T* next_memory) {
    const Index H = w.hidden, stride = w.n_stored * H;
    const Index first = w.cell == GRU ? 2 * H : w.n_gates * H;
    if (known == ANY) product(rows, H, first, previous, H, w.recurrent, gates, stride, true);
    if (known == EQUAL) add_product_of_one(rows, H, first, previous, w.recurrent, gates, stride);
    switch (w.cell) {
    case RNN: rnn_forward(rows, H, gates, next); break;
    case LSTM: lstm_forward(rows, H, gates, memory, next_memory, next); break;
    case GRU_RESET_AFTER: gru_after_forward(rows, H, gates, previous, next); break;
    default:
        gru_gates(rows, H, gates, previous, reset);
        if (known != ZERO) product(rows, H, H, reset, H, w.candidate, gates + 2 * H, stride, true);
        gru_forward(rows, H, gates, previous, next);
    }
}

// `alike`: all sequences start from zero and read the same symbol first, so that the rows of the
// first block are all equal.
template <class T>
SKLSEQ_TARGET void layer_forward(const LayerWeights<T>& w, Index steps, const std::int64_t* counts,
                                 bool start, bool alike, const std::int32_t* codes,
                                 const T* inputs, T* states, T* memory, T* gates, T* reset) {
    const Index H = w.hidden;
    Index block = 0, packed = 0;
    for (Index t = 0; t < steps; t++) {
        const Index rows = counts[t], before = t ? counts[t - 1] : counts[0];
        const Index after = block + before;
        const Previous known = start && t == 0 ? ZERO : alike && t == 1 ? EQUAL : ANY;
        T* gates_here = gates + block * w.n_stored * H;
        gather_inputs(w, rows, codes ? codes + packed : nullptr,
                      codes ? inputs : inputs + packed * w.n_gates * H, gates_here);
        step_forward(w, rows, known, states + block * H,
                     memory ? memory + block * H : nullptr, gates_here,
                     reset ? reset + block * H : nullptr, states + after * H,
                     memory ? memory + after * H : nullptr);
        if (reset && before > rows)
            std::memset(reset + (block + rows) * H, 0, (before - rows) * H * sizeof(T));
        block = after;
        packed += rows;
    }
}

// d_state, d_memory (counts[0], H): in zero (or the gradient of the final states), out the gradient
// of the initial states (unless `start`).  scratch (counts[0], H).  With `alike` rows what step 1
// hands down to step 0 is handed to the first row in sum: there, only the sum over rows is used.
template <class T>
SKLSEQ_TARGET void layer_backward(const LayerWeights<T>& w, Index steps, const std::int64_t* counts,
                                  bool start, bool alike, const T* d_outputs, const T* states,
                                  const T* memory, T* gates, T* d_state, T* d_memory,
                                  T* scratch) {
    const Index H = w.hidden, stride = w.n_stored * H;
    Index packed = 0, block = 0;
    for (Index t = 0; t < steps; t++) packed += counts[t];
    for (Index t = 0; t < steps - 1; t++) block += t ? counts[t - 1] : counts[0];
    for (Index t = steps - 1; t >= 0; t--) {
        const Index rows = counts[t], before = t ? counts[t - 1] : counts[0];
        const Index after = block + before;
        T* d_gates = gates + block * stride;
        const T* previous = states + block * H;
        packed -= rows;
        if (before > rows)
            std::memset(d_gates + rows * stride, 0, (before - rows) * stride * sizeof(T));
        const T* d_here = d_outputs + packed * H;
        for (Index i = 0; i < rows * H; i++) d_state[i] += d_here[i];
        const bool last = start && t == 0;
        const auto hand_down = [&](Index depth, bool accumulate) {
            if (last) return;
            if (alike && t == 1)
                product_of_sum(rows, depth, H, d_gates, stride, w.recurrent, d_state, accumulate);
            else
                product(rows, depth, H, d_gates, stride, w.recurrent, d_state, H, accumulate);
        };
        switch (w.cell) {
        case RNN:
            rnn_backward(rows, H, states + after * H, d_state, d_gates);
            hand_down(H, false);
            break;
        case LSTM:
            lstm_backward(rows, H, memory + block * H, memory + after * H, d_state, d_memory,
                          d_gates);
            hand_down(4 * H, false);
            break;
        case GRU_RESET_AFTER:
            gru_after_backward(rows, H, previous, d_state, d_gates);
            hand_down(3 * H, true);
            break;
        default:
            gru_backward(rows, H, previous, d_state, d_gates);
            if (last) {  // h_{-1} = 0: the gradient of r is zero
                for (Index row = 0; row < rows; row++)
                    std::memset(d_gates + row * stride + H, 0, H * sizeof(T));
                break;
            }
            product(rows, H, H, d_gates + 2 * H, stride, w.candidate, scratch, H, false);
            gru_backward_reset(rows, H, previous, scratch, d_state, d_gates);
            hand_down(2 * H, true);
        }
        if (t > 0) block -= t > 1 ? counts[t - 2] : counts[0];
    }
}

// Gradient of the inputs: added to the table's rows in packed order (codes given: a fixed order, no
// atomics), or copied out to d_inputs (N, n_gates H).
template <class T>
SKLSEQ_TARGET void input_gradient(const LayerWeights<T>& w, Index steps, const std::int64_t* counts,
                                  const std::int32_t* codes, const T* gates, T* d_inputs) {
    const Index H = w.hidden, width = w.n_gates * H, stride = w.n_stored * H;
    const Index split = w.cell == GRU_RESET_AFTER ? 2 * H : width;
    Index block = 0, packed = 0;
    for (Index t = 0; t < steps; t++) {
        for (Index row = 0; row < counts[t]; row++, packed++) {
            const T* from = gates + (block + row) * stride;
            if (codes) {
                T* to = d_inputs + static_cast<Index>(codes[packed]) * width;
                for (Index j = 0; j < split; j++) to[j] += from[j];
                for (Index j = split; j < width; j++) to[j] += from[j + H];
            } else {
                T* to = d_inputs + packed * width;
                std::memcpy(to, from, split * sizeof(T));
                if (split < width) std::memcpy(to + split, from + split + H, H * sizeof(T));
            }
        }
        block += t ? counts[t - 1] : counts[0];
    }
}
