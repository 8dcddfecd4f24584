// What sits on the hidden states: pooling, dropout, softmax and its loss, and the optimiser's step.

// outputs (N, H) packed; features (counts[0], blocks * H), one block per kind in the order last,
// mean, max; steps_of_max (counts[0], H): packed row where the maximum was first met.
template <class T>
SKLSEQ_TARGET void pool_forward(Index steps, const std::int64_t* counts, Index H, Index kinds,
                                const T* outputs, T* features, std::int32_t* rows_of_max) {
    const Index mean_at = kinds & LAST ? H : 0, max_at = mean_at + (kinds & MEAN ? H : 0);
    const Index width = max_at + (kinds & MAX ? H : 0);
    std::memset(features, 0, counts[0] * width * sizeof(T));
    Index packed = 0;
    for (Index t = 0; t < steps; t++) {
        const Index staying = t + 1 < steps ? counts[t + 1] : 0;
        for (Index row = 0; row < counts[t]; row++, packed++) {
            const T* h = outputs + packed * H;
            T* to = features + row * width;
            const bool ends = row >= staying;
            if ((kinds & LAST) && ends) std::memcpy(to, h, H * sizeof(T));
            if (kinds & MEAN) {
                for (Index j = 0; j < H; j++) to[mean_at + j] += h[j];
                if (ends)
                    for (Index j = 0; j < H; j++) to[mean_at + j] /= T(t + 1);
            }
            if (kinds & MAX) {
                T* best = to + max_at;
                std::int32_t* where = rows_of_max + row * H;
                const std::int32_t here = static_cast<std::int32_t>(packed);
                if (t == 0) {
                    std::memcpy(best, h, H * sizeof(T));
                    for (Index j = 0; j < H; j++) where[j] = here;
                } else {
                    for (Index j = 0; j < H; j++) {
                        where[j] = h[j] > best[j] ? here : where[j];
                        best[j] = h[j] > best[j] ? h[j] : best[j];
                    }
                }
            }
        }
    }
}

// Adds to d_outputs.
template <class T>
SKLSEQ_TARGET void pool_backward(Index steps, const std::int64_t* counts, Index H, Index kinds,
                                 const T* d_features, const std::int32_t* rows_of_max,
                                 T* d_outputs) {
    const Index mean_at = kinds & LAST ? H : 0, max_at = mean_at + (kinds & MEAN ? H : 0);
    const Index width = max_at + (kinds & MAX ? H : 0);
    std::vector<T> share(counts[0]);  // 1 / length
    for (Index t = 0; t < steps; t++)
        for (Index row = t + 1 < steps ? counts[t + 1] : 0; row < counts[t]; row++)
            share[row] = T(1) / T(t + 1);
    Index packed = 0;
    for (Index t = 0; t < steps; t++) {
        const Index staying = t + 1 < steps ? counts[t + 1] : 0;
        for (Index row = 0; row < counts[t]; row++, packed++) {
            const T* from = d_features + row * width;
            T* to = d_outputs + packed * H;
            if ((kinds & LAST) && row >= staying)
                for (Index j = 0; j < H; j++) to[j] += from[j];
            if (kinds & MEAN)
                for (Index j = 0; j < H; j++) to[j] += from[mean_at + j] * share[row];
        }
    }
    if (kinds & MAX)
        for (Index row = 0; row < counts[0]; row++)
            for (Index j = 0; j < H; j++)
                d_outputs[rows_of_max[row * H + j] * H + j] += d_features[row * width + max_at + j];
}

// to = from with a random share `rate` of the numbers set to zero and the others divided by
// 1 - rate.  The mask is a hash of (seed, position): the backward pass draws the same one again.
template <class T>
SKLSEQ_TARGET void dropout(Index size, std::uint32_t seed, double rate, const T* from, T* to) {
    const std::uint32_t threshold = static_cast<std::uint32_t>(rate * 4294967295.0);
    const T scale = static_cast<T>(1.0 / (1.0 - rate));
    for (Index i = 0; i < size; i++) {
        std::uint32_t x = static_cast<std::uint32_t>(i) * 0x9E3779B9u + seed;
        x = (x ^ (x >> 16)) * 0x7FEB352Du;
        x = (x ^ (x >> 15)) * 0x846CA68Bu;
        x ^= x >> 16;
        to[i] = x >= threshold ? from[i] * scale : T(0);
    }
}

// In: logits (rows, width).  Out: exp(logit - maximum) in their place; the maximum and the sum.
template <class T>
SKLSEQ_TARGET void exponentiate(Index width, T* logits, double* maximum, double* sum) {
    typedef typename Lanes<T>::type V;
    const Index lanes = Lanes<T>::size, full = width - width % lanes;
    T parts[Lanes<T>::size];
    T best = logits[0];
    if (full > 0) {
        V highest = load(logits);
        for (Index j = lanes; j < full; j += lanes) {
            const V x = load(logits + j);
            highest = x > highest ? x : highest;
        }
        store(parts, highest);
        for (Index j = 0; j < lanes; j++) best = parts[j] > best ? parts[j] : best;
    }
    for (Index j = full; j < width; j++) best = logits[j] > best ? logits[j] : best;
    V sums = {};
    for (Index j = 0; j < full; j += lanes) {
        const V e = exponential(load(logits + j) - best);
        store(logits + j, e);
        sums += e;
    }
    store(parts, sums);
    double total = 0.0;
    for (Index j = 0; j < lanes; j++) total += parts[j];
    if (full < width) {
        store(parts, V(exponential(load_some(logits + full, width - full) - best)));
        for (Index j = full; j < width; j++) {
            logits[j] = parts[j - full];
            total += parts[j - full];
        }
    }
    *maximum = best;
    *sum = total;
}

template <class T> SKLSEQ_TARGET void softmax(Index rows, Index width, T* logits) {
    for (Index row = 0; row < rows; row++, logits += width) {
        double maximum, sum;
        exponentiate(width, logits, &maximum, &sum);
        for (Index j = 0; j < width; j++) logits[j] = static_cast<T>(logits[j] / sum);
    }
}

// In: logits (rows, width), targets (rows; negative: no such class), weights (rows).
// Out: log_probabilities (rows) of the targets, -inf where there is none; in place of the logits
// weight * (probability - [class is target]), the gradient of the weighted negative log-likelihood,
// which is returned.
template <class T>
SKLSEQ_TARGET double cross_entropy(Index rows, Index width, const std::int32_t* targets,
                                 const T* weights, T* logits, double* log_probabilities) {
    double loss = 0.0;
    for (Index row = 0; row < rows; row++, logits += width) {
        const Index target = targets[row];
        const double logit = target >= 0 ? static_cast<double>(logits[target]) : 0.0;
        double maximum, sum;
        exponentiate(width, logits, &maximum, &sum);
        log_probabilities[row] = target >= 0 ? logit - maximum - std::log(sum)
                                             : -std::numeric_limits<double>::infinity();
        const T factor = static_cast<T>(target >= 0 ? weights[row] / sum : 0.0);
        for (Index j = 0; j < width; j++) logits[j] *= factor;
        if (target >= 0) {
            logits[target] -= weights[row];
            loss -= weights[row] * log_probabilities[row];
        }
    }
    return loss;
}

template <class T> SKLSEQ_TARGET double sum_of_squares(Index size, const T* x) {
    double sums[8] = {};
    const Index full = size - size % 8;
    for (Index i = 0; i < full; i += 8)
        for (int j = 0; j < 8; j++) sums[j] += static_cast<double>(x[i + j]) * x[i + j];
    for (Index i = full; i < size; i++) sums[0] += static_cast<double>(x[i]) * x[i];
    double total = 0.0;
    for (int j = 0; j < 8; j++) total += sums[j];
    return total;
}

// One step of Adam (Kingma & Ba 2015) on gradient * scale + penalty * parameters, of which
// shrinkage (Loshchilov & Hutter 2019) is the decoupled form; neither after the first n_penalised.
template <class T>
SKLSEQ_TARGET void adam_step(Index size, Index n_penalised, T scale, T penalty, T shrinkage, T step,
                             T root_correction, T beta_1, T beta_2, T epsilon, const T* gradient,
                             T* parameters, T* mean, T* square) {
    for (Index i = 0, end = n_penalised; i < size; end = size, penalty = shrinkage = T(0))
        for (; i < end; i++) {
            const T g = gradient[i] * scale + penalty * parameters[i];
            const T m = mean[i] + (T(1) - beta_1) * (g - mean[i]);
            const T v = beta_2 * square[i] + (T(1) - beta_2) * g * g;
            mean[i] = m;
            square[i] = v;
            parameters[i] = parameters[i] * (T(1) - shrinkage) -
                            step * m / (std::sqrt(v) * root_correction + epsilon);
        }
}

template <class T>
SKLSEQ_TARGET void move_average(Index size, T rate, const T* parameters, T* average) {
    for (Index i = 0; i < size; i++) average[i] += rate * (parameters[i] - average[i]);
}
