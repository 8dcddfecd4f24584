// Drawing symbols one after another, several streams at once.

// The weight below which symbols are no part of the nucleus: the fewest largest weights that make
// the share top_p of their total (Holtzman et al. 2020).  sorted (width) is work.
inline double nucleus_threshold(Index width, const double* weights, double total, double top_p,
                                double* sorted) {
    std::memcpy(sorted, weights, width * sizeof(double));
    std::sort(sorted, sorted + width, std::greater<double>());
    double reached = 0.0;
    for (Index j = 0; j < width; j++) {
        reached += sorted[j];
        if (reached >= top_p * total) return sorted[j];
    }
    return 0.0;
}

// A draw from softmax(logits / temperature) restricted to the top_k largest (0: all), and of these
// to the share top_p (1: all), by inverting the distribution function at `uniform`; temperature 0
// takes the largest.  Symbols alike at the border all stay.
template <class T>
SKLSEQ_TARGET Index draw_one(Index width, const T* logits, double temperature, Index top_k,
                            double top_p, double uniform, double* work) {
    Index best = 0;
    for (Index j = 1; j < width; j++)
        if (logits[j] > logits[best]) best = j;
    if (temperature == 0.0) return best;
    for (Index j = 0; j < width; j++) work[j] = (logits[j] - logits[best]) / temperature;
    if (top_k > 0 && top_k < width) {
        double* sorted = work + width;
        std::memcpy(sorted, work, width * sizeof(double));
        std::nth_element(sorted, sorted + (top_k - 1), sorted + width, std::greater<double>());
        const double threshold = sorted[top_k - 1];
        for (Index j = 0; j < width; j++)
            if (work[j] < threshold) work[j] = -std::numeric_limits<double>::infinity();
    }
    double total = 0.0;
    const Index lanes = Lanes<double>::size;
    for (Index j = 0; j < width; j += lanes) {
        const Index count = std::min(lanes, width - j);
        double e[Lanes<double>::size];
        store(e, exponential(load_some(work + j, count)));
        for (Index i = 0; i < count; i++) {  // exponential() clips at e^-707: keep the zeros zero
            work[j + i] = work[j + i] < -700.0 ? 0.0 : e[i];
            total += work[j + i];
        }
    }
    if (top_p < 1.0) {
        const double threshold = nucleus_threshold(width, work, total, top_p, work + width);
        total = 0.0;
        for (Index j = 0; j < width; j++) {
            if (work[j] < threshold) work[j] = 0.0;
            total += work[j];
        }
    }
    double left = uniform * total;
    Index last = best;
    for (Index j = 0; j < width; j++)
        if (work[j] > 0.0) {
            last = j;
            left -= work[j];
            if (left < 0.0) return j;
        }
    return last;
}

// layers (n_layers); inputs[0]: the table (codes, n_gates H) with the bias added; inputs[l > 0]:
// the packed input weights and biases[l] the bias; head packed (H, width).  states, memory
// (n_layers, 2, streams, H): the first of each two is the state so far; so it is on return.
// codes (streams): in the last symbol's code, out the last drawn one's.  symbols (streams, steps).
template <class T>
SKLSEQ_TARGET void draw_symbols(Index n_layers, const LayerWeights<T>* layers,
                                const T* const* inputs, const T* const* biases, const T* head,
                                const T* head_bias, Index width, Index streams, Index steps,
                                const double* uniforms, double temperature, Index top_k,
                                double top_p, T* states, T* memory, std::int32_t* codes,
                                std::int32_t* symbols) {
    const Index H = layers[0].hidden, size = streams * H;
    std::vector<T> gates(4 * size), rows(4 * size), reset(size), logits(streams * width);
    std::vector<double> work(2 * width);
    for (Index t = 0; t < steps; t++) {
        for (Index l = 0; l < n_layers; l++) {
            T* state = states + 2 * l * size;
            T* cell = memory ? memory + 2 * l * size : nullptr;
            if (l == 0) {
                gather_inputs(layers[0], streams, codes, inputs[0], gates.data());
            } else {
                const Index gate_width = layers[l].n_gates * H;
                for (Index s = 0; s < streams; s++)
                    std::memcpy(rows.data() + s * gate_width, biases[l], gate_width * sizeof(T));
                product(streams, H, gate_width, states + (2 * l - 2) * size, H, inputs[l],
                        rows.data(), gate_width, true);
                gather_inputs(layers[l], streams, static_cast<const std::int32_t*>(nullptr),
                              rows.data(), gates.data());
            }
            step_forward(layers[l], streams, ANY, state, cell, gates.data(), reset.data(),
                         state + size, cell ? cell + size : nullptr);
            std::memcpy(state, state + size, size * sizeof(T));
            if (cell) std::memcpy(cell, cell + size, size * sizeof(T));
        }
        for (Index s = 0; s < streams; s++)
            std::memcpy(logits.data() + s * width, head_bias, width * sizeof(T));
        product(streams, H, width, states + (2 * n_layers - 2) * size, H, head, logits.data(),
                width, true);
        for (Index s = 0; s < streams; s++) {
            const Index symbol = draw_one(width, logits.data() + s * width, temperature, top_k,
                                         top_p, uniforms[s * steps + t], work.data());
            symbols[s * steps + t] = static_cast<std::int32_t>(symbol);
            codes[s] = static_cast<std::int32_t>(symbol + 1);  // code 0 is the unknown symbol
        }
    }
}
