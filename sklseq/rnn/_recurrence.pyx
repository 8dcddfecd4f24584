# distutils: language = c++
"""Kernels of the recurrent networks: thin, typed doors to the C++ headers beside this file.

Every array is C-contiguous, float32 or float64 throughout a call (``floating``), and allocated by
the caller.  ``H`` is the hidden size, ``N`` the number of (sequence, step) pairs of a batch in
packed order (step after step, sequences sorted by falling length), ``counts[t]`` the number of
sequences that have a step t; ``_layer.h`` explains the three row orders.  An array that a cell does
not need is passed empty.  Nothing here checks its input: the network does.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t
from libcpp cimport bool as cpp_bool
from libcpp.vector cimport vector

ctypedef fused floating:
    float
    double


cdef extern from "_instruction_sets.h" namespace "sklseq" nogil:
    cdef cppclass LayerWeights[T]:
        Py_ssize_t cell, hidden, n_gates, n_stored
        const T* recurrent
        const T* candidate
        const T* recurrent_bias

    int& instruction_set()
    int widest_instruction_set()
    Py_ssize_t c_packed_size "sklseq::packed_size"[T](Py_ssize_t, Py_ssize_t)
    void c_pack "sklseq::pack"[T](Py_ssize_t, Py_ssize_t, const T*, Py_ssize_t, cpp_bool, T*)
    void c_product "sklseq::product"[T](
        Py_ssize_t, Py_ssize_t, Py_ssize_t, const T*, Py_ssize_t, const T*, T*, Py_ssize_t,
        cpp_bool)
    void c_add_weight_gradient "sklseq::add_weight_gradient"[T](
        Py_ssize_t, Py_ssize_t, Py_ssize_t, const T*, Py_ssize_t, const T*, Py_ssize_t, T*,
        Py_ssize_t)
    void c_layer_forward "sklseq::layer_forward"[T](
        LayerWeights[T], Py_ssize_t, const int64_t*, cpp_bool, cpp_bool, const int32_t*, const T*,
        T*, T*, T*, T*)
    void c_layer_backward "sklseq::layer_backward"[T](
        LayerWeights[T], Py_ssize_t, const int64_t*, cpp_bool, cpp_bool, const T*, const T*,
        const T*, T*, T*, T*, T*)
    void c_input_gradient "sklseq::input_gradient"[T](
        LayerWeights[T], Py_ssize_t, const int64_t*, const int32_t*, const T*, T*)
    void c_pool_forward "sklseq::pool_forward"[T](
        Py_ssize_t, const int64_t*, Py_ssize_t, Py_ssize_t, const T*, T*, int32_t*)
    void c_pool_backward "sklseq::pool_backward"[T](
        Py_ssize_t, const int64_t*, Py_ssize_t, Py_ssize_t, const T*, const int32_t*, T*)
    void c_dropout "sklseq::dropout"[T](Py_ssize_t, uint32_t, double, const T*, T*)
    void c_softmax "sklseq::softmax"[T](Py_ssize_t, Py_ssize_t, T*)
    double c_cross_entropy "sklseq::cross_entropy"[T](
        Py_ssize_t, Py_ssize_t, const int32_t*, const T*, T*, double*)
    double c_sum_of_squares "sklseq::sum_of_squares"[T](Py_ssize_t, const T*)
    void c_adam_step "sklseq::adam_step"[T](
        Py_ssize_t, Py_ssize_t, T, T, T, T, T, T, T, T, const T*, T*, T*, T*)
    void c_move_average "sklseq::move_average"[T](Py_ssize_t, T, const T*, T*)
    void c_add_rows "sklseq::add_rows"[T](Py_ssize_t, Py_ssize_t, const T*, Py_ssize_t, T*)
    void c_draw_symbols "sklseq::draw_symbols"[T](
        Py_ssize_t, const LayerWeights[T]*, const T**, const T**, const T*, const T*, Py_ssize_t,
        Py_ssize_t, Py_ssize_t, const double*, double, Py_ssize_t, double, T*, T*, int32_t*,
        int32_t*)


def use_instruction_set(int number):
    """Choose 0 baseline, 1 AVX2 or 2 AVX-512 (at most what the machine has); return the choice."""
    cdef int* chosen = &instruction_set()
    chosen[0] = min(number, widest_instruction_set())
    return chosen[0]


cdef inline floating* vector_data(floating[::1] x) noexcept nogil:
    return &x[0] if x.shape[0] > 0 else NULL


cdef inline const floating* const_vector_data(const floating[::1] x) noexcept nogil:
    return &x[0] if x.shape[0] > 0 else NULL


cdef inline floating* data(floating[:, ::1] x) noexcept nogil:
    return &x[0, 0] if x.shape[0] > 0 and x.shape[1] > 0 else NULL


cdef inline const floating* const_data(const floating[:, ::1] x) noexcept nogil:
    return &x[0, 0] if x.shape[0] > 0 and x.shape[1] > 0 else NULL


cdef inline const int32_t* codes_data(const int32_t[::1] codes) noexcept nogil:
    return &codes[0] if codes.shape[0] > 0 else NULL


cdef inline LayerWeights[floating] layer_weights(
        Py_ssize_t cell, Py_ssize_t hidden, Py_ssize_t n_gates, Py_ssize_t n_stored,
        const floating[::1] recurrent, const floating[::1] candidate,
        const floating[::1] recurrent_bias) noexcept nogil:
    cdef LayerWeights[floating] weights
    weights.cell = cell
    weights.hidden = hidden
    weights.n_gates = n_gates
    weights.n_stored = n_stored
    weights.recurrent = const_vector_data(recurrent)
    weights.candidate = const_vector_data(candidate)
    weights.recurrent_bias = const_vector_data(recurrent_bias)
    return weights


def packed_size(Py_ssize_t depth, Py_ssize_t columns, const floating[::1] like):
    """Length of the packed form of a (depth, columns) matrix of the type of ``like``."""
    if floating is float:
        return c_packed_size[float](depth, columns)
    else:
        return c_packed_size[double](depth, columns)


def pack(const floating[:, :] weights, bint transposed, floating[::1] packed):
    """Pack a matrix (or its transpose) for ``product``.

    IN   weights (rows, columns), a block of columns of a C-contiguous matrix
    OUT  packed (packed_size,)
    """
    cdef Py_ssize_t stride = weights.strides[0] // <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t depth = weights.shape[1] if transposed else weights.shape[0]
    cdef Py_ssize_t columns = weights.shape[0] if transposed else weights.shape[1]
    with nogil:
        c_pack(depth, columns, &weights[0, 0], stride, transposed, &packed[0])


def product(const floating[:, ::1] a, const floating[::1] packed, bint accumulate,
            floating[:, ::1] out):
    """out = [out +] a times the packed matrix, each row in a fixed order of additions.

    IN   a (rows, depth), packed; OUT out (rows, columns)
    """
    if a.shape[0] == 0:
        return
    with nogil:
        c_product(a.shape[0], a.shape[1], out.shape[1], const_data(a), a.shape[1],
                  const_vector_data(packed), data(out), out.shape[1], accumulate)


def add_weight_gradient(const floating[:, :] left, const floating[:, :] right,
                        floating[:, :] out):
    """out += left' right: the gradient of a weight matrix over all rows of a batch.

    IN   left (rows, m), right (rows, n): blocks of columns of C-contiguous matrices
    OUT  out (m, n), likewise
    """
    cdef Py_ssize_t size = sizeof(floating)
    if left.shape[0] == 0 or left.shape[1] == 0 or right.shape[1] == 0:
        return
    with nogil:
        c_add_weight_gradient(left.shape[0], left.shape[1], right.shape[1], &left[0, 0],
                              left.strides[0] // size, &right[0, 0], right.strides[0] // size,
                              &out[0, 0], out.strides[0] // size)


def count_alive(const Py_ssize_t[::1] lengths, Py_ssize_t first, int64_t[::1] counts):
    """Sequences longer than first + t at each t; returns the sum over t.

    IN   lengths (rows,), falling; OUT counts (steps,)
    """
    cdef Py_ssize_t alive = lengths.shape[0], total = 0, t
    with nogil:
        for t in range(counts.shape[0]):
            while alive > 0 and lengths[alive - 1] <= first + t:
                alive -= 1
            counts[t] = alive
            total += alive
    return total


def fill_window(const Py_ssize_t[::1] starts, Py_ssize_t first, const int64_t[::1] counts,
                Py_ssize_t[::1] index, Py_ssize_t[::1] rows):
    """Where in the flat inputs each (sequence, step) lies, in packed order, and its sequence.

    IN   starts (rows,), counts (steps,); OUT index, rows (N,)
    """
    cdef Py_ssize_t k = 0, t, row
    with nogil:
        for t in range(counts.shape[0]):
            for row in range(counts[t]):
                index[k] = starts[row] + first + t
                rows[k] = row
                k += 1


def layer_forward(Py_ssize_t cell, const int64_t[::1] counts, bint start, bint alike,
                  const int32_t[::1] codes, const floating[:, ::1] inputs,
                  const floating[::1] recurrent, const floating[::1] candidate,
                  const floating[::1] recurrent_bias, floating[:, ::1] states,
                  floating[:, ::1] memory, floating[:, ::1] gates, floating[:, ::1] reset):
    """All steps of one layer.

    IN   counts (steps,); start: the initial states are zero (and hold zeros); alike: besides, all
         read the same symbol first
         codes (N,) rows of inputs to gather, or empty: inputs is then in packed order
         inputs (n_codes or N, n_gates H); recurrent, candidate packed; recurrent_bias (H,)
    IN/OUT  states, memory (counts[0] + N, H): the first counts[0] rows are read
    OUT  gates (counts[0] + N, n_stored H): gate activations; reset: r * h before each step
    """
    cdef Py_ssize_t H = states.shape[1]
    cdef LayerWeights[floating] weights = layer_weights(
        cell, H, inputs.shape[1] // H, gates.shape[1] // H, recurrent, candidate, recurrent_bias)
    with nogil:
        c_layer_forward(
            weights, counts.shape[0], &counts[0], start, alike, codes_data(codes),
            const_data(inputs), data(states), data(memory), data(gates), data(reset))


def layer_backward(Py_ssize_t cell, Py_ssize_t n_gates, const int64_t[::1] counts, bint start,
                   bint alike, const floating[:, ::1] d_outputs, const floating[::1] recurrent,
                   const floating[::1] candidate, const floating[:, ::1] states,
                   const floating[:, ::1] memory, floating[:, ::1] gates,
                   floating[:, ::1] d_state, floating[:, ::1] d_memory,
                   floating[:, ::1] scratch):
    """Back-propagation through all steps of one layer.

    IN   d_outputs (N, H); recurrent, candidate: the *transposed* matrices packed
         states, memory of layer_forward
    IN/OUT  gates: activations in, gradients of the pre-activations out; of alike rows, at step 0,
            with the right sum over rows only
            d_state, d_memory (counts[0], H): zeros in; scratch (counts[0], H)
    """
    cdef Py_ssize_t H = states.shape[1]
    cdef LayerWeights[floating] weights = layer_weights(
        cell, H, n_gates, gates.shape[1] // H, recurrent, candidate, recurrent)
    with nogil:
        c_layer_backward(
            weights, counts.shape[0], &counts[0], start, alike, const_data(d_outputs),
            const_data(states), const_data(memory), data(gates), data(d_state), data(d_memory),
            data(scratch))


def input_gradient(Py_ssize_t cell, const int64_t[::1] counts, const int32_t[::1] codes,
                   const floating[:, ::1] gates, Py_ssize_t H, floating[:, ::1] d_inputs):
    """Gradient of a layer's inputs, from the gates after layer_backward.

    IN   codes (N,): OUT d_inputs (n_codes, n_gates H) is *added* to, or codes empty: OUT d_inputs
         (N, n_gates H) is written
    """
    cdef const floating[::1] none = gates[0, :0]
    cdef LayerWeights[floating] weights = layer_weights(
        cell, H, d_inputs.shape[1] // H, gates.shape[1] // H, none, none, none)
    with nogil:
        c_input_gradient(weights, counts.shape[0], &counts[0], codes_data(codes),
                         const_data(gates), data(d_inputs))


def pool_forward(const int64_t[::1] counts, Py_ssize_t kinds, const floating[:, ::1] outputs,
                 floating[:, ::1] features, int32_t[:, ::1] rows_of_max):
    """Pool hidden states (N, H) into features (counts[0], blocks H); kinds is a sum of Pool bits.

    OUT  features; rows_of_max (counts[0], H), the packed row of each maximum (empty without MAX)
    """
    cdef int32_t* where = &rows_of_max[0, 0] if rows_of_max.shape[0] > 0 else NULL
    with nogil:
        c_pool_forward(counts.shape[0], &counts[0], outputs.shape[1], kinds,
                       const_data(outputs), data(features), where)


def pool_backward(const int64_t[::1] counts, Py_ssize_t kinds, const floating[:, ::1] d_features,
                  const int32_t[:, ::1] rows_of_max, floating[:, ::1] d_outputs):
    """Add the gradient of pooled features to d_outputs (N, H)."""
    cdef const int32_t* where = &rows_of_max[0, 0] if rows_of_max.shape[0] > 0 else NULL
    with nogil:
        c_pool_backward(counts.shape[0], &counts[0], d_outputs.shape[1], kinds,
                        const_data(d_features), where, data(d_outputs))


def dropout(const floating[:, ::1] x, uint32_t seed, double rate, floating[:, ::1] out):
    """out = x with a share ``rate`` zeroed and the rest scaled up; same seed, same mask."""
    with nogil:
        c_dropout(x.shape[0] * x.shape[1], seed, rate, const_data(x), data(out))


def softmax(floating[:, ::1] logits):
    """Softmax of each row in place."""
    with nogil:
        c_softmax(logits.shape[0], logits.shape[1], data(logits))


def cross_entropy(const int32_t[::1] targets, const floating[::1] weights,
                  floating[:, ::1] logits, double[::1] log_probabilities):
    """Log-probability of each row's target, the loss -sum(weights * log p) and its gradient.

    IN   targets (rows,), negative: log-probability -inf and no gradient; weights (rows,)
    IN/OUT  logits (rows, width): logits in, gradient out
    OUT  log_probabilities (rows,); returns the loss
    """
    cdef double loss = 0.0
    if logits.shape[0] == 0:
        return loss
    with nogil:
        loss = c_cross_entropy(logits.shape[0], logits.shape[1], &targets[0],
                               const_vector_data(weights), data(logits), &log_probabilities[0])
    return loss


def sum_of_squares(const floating[::1] x):
    """Sum of squares in float64 and a fixed order."""
    cdef double result
    with nogil:
        result = c_sum_of_squares(x.shape[0], const_vector_data(x))
    return result


def adam_step(Py_ssize_t n_penalised, double scale, double penalty, double shrinkage, double step,
              double root_correction, double beta_1, double beta_2, double epsilon,
              const floating[::1] gradient, floating[::1] parameters, floating[::1] mean,
              floating[::1] square):
    """One Adam step in place on parameters, mean and square.

    The penalty and the shrinkage are for the first n_penalised parameters.
    """
    with nogil:
        c_adam_step(
            gradient.shape[0], n_penalised, <floating> scale, <floating> penalty,
            <floating> shrinkage, <floating> step, <floating> root_correction, <floating> beta_1,
            <floating> beta_2, <floating> epsilon, const_vector_data(gradient),
            vector_data(parameters), vector_data(mean), vector_data(square))


def move_average(double rate, const floating[::1] parameters, floating[::1] average):
    """average += rate * (parameters - average), in place."""
    with nogil:
        c_move_average(parameters.shape[0], <floating> rate, const_vector_data(parameters),
                       vector_data(average))


def add_rows(const floating[:, :] x, floating[::1] out):
    """out (width,) += the sum of the rows of x, a block of columns of a C-contiguous matrix."""
    cdef Py_ssize_t size = sizeof(floating)
    if x.shape[0] == 0:
        return
    with nogil:
        c_add_rows(x.shape[0], x.shape[1], &x[0, 0], x.strides[0] // size, &out[0])


def draw_symbols(list layers, const floating[::1] head, const floating[::1] head_bias,
                 const double[:, ::1] uniforms, double temperature, Py_ssize_t top_k,
                 double top_p, floating[:, :, :, ::1] states, floating[:, :, :, ::1] memory,
                 int32_t[::1] codes, int32_t[:, ::1] symbols):
    """Draw ``steps`` symbols for each stream from softmax(head(h) / temperature).

    IN   layers: per layer (cell, n_gates, n_stored, recurrent, candidate, recurrent_bias, inputs,
         bias); inputs of the first the table flattened, of the others packed
         head packed, head_bias (width,); uniforms (streams, steps); top_k 0 and
         top_p 1: no restriction
    IN/OUT  states, memory (n_layers, 2, streams, H): entry 0 of the second axis is the state
            codes (streams,): the last symbol's code
    OUT  symbols (streams, steps): column of the head
    """
    cdef vector[LayerWeights[floating]] weights
    cdef vector[const floating*] inputs, biases
    cdef const floating[::1] recurrent, candidate, recurrent_bias, table, bias
    cdef Py_ssize_t streams = symbols.shape[0], steps = symbols.shape[1], n_layers = len(layers)
    cdef floating* memory_data = &memory[0, 0, 0, 0] if memory.shape[0] > 0 else NULL
    for cell, n_gates, n_stored, recurrent, candidate, recurrent_bias, table, bias in layers:
        weights.push_back(layer_weights(<Py_ssize_t> cell, states.shape[3], <Py_ssize_t> n_gates,
                                        <Py_ssize_t> n_stored, recurrent, candidate,
                                        recurrent_bias))
        inputs.push_back(const_vector_data(table))
        biases.push_back(const_vector_data(bias))
    with nogil:
        c_draw_symbols(
            n_layers, weights.data(), inputs.data(), biases.data(), const_vector_data(head),
            const_vector_data(head_bias), head_bias.shape[0], streams, steps, &uniforms[0, 0],
            temperature, top_k, top_p, &states[0, 0, 0, 0], memory_data, &codes[0], &symbols[0, 0])
