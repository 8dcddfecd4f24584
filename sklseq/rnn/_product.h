// C (rows, columns) = [C +] A (rows, depth) B (depth, columns), with B packed beforehand.
//
// Weights are packed once per minibatch instead of once per time step as a BLAS does.  Every entry
// of A B is one chain of fused multiply-adds over k = 0, 1, ..., depth - 1 whatever the tile it is
// in, and C is added to its end, so a row's result does not depend on the other rows: alone or in a
// batch, the same bits.
//
// Packed form: panels of SKLSEQ_PANEL_VECTORS vectors of columns (the last panel may be narrower);
// in a panel, row k of B after row k - 1; columns beyond the last are zero.

template <class T> SKLSEQ_TARGET Index packed_size(Index depth, Index columns) {
    const Index lanes = Lanes<T>::size;
    return depth * ((columns + lanes - 1) / lanes) * lanes;
}

template <class T>
SKLSEQ_TARGET void add_rows(Index rows, Index width, const T* from, Index stride, T* to) {
    for (Index row = 0; row < rows; row++, from += stride)
        for (Index j = 0; j < width; j++) to[j] += from[j];
}

// B[k, n] = weights[k * stride + n], or weights[n * stride + k] when transposed.
template <class T>
SKLSEQ_TARGET void pack(Index depth, Index columns, const T* weights, Index stride, bool transposed,
                        T* packed) {
    const Index lanes = Lanes<T>::size, width = SKLSEQ_PANEL_VECTORS * lanes;
    for (Index first = 0; first < columns; first += width) {
        const Index used = std::min(width, columns - first);
        const Index padded = ((used + lanes - 1) / lanes) * lanes;
        if (transposed) {
            for (Index n = 0; n < used; n++) {
                const T* source = weights + (first + n) * stride;
                for (Index k = 0; k < depth; k++) packed[k * padded + n] = source[k];
            }
            for (Index n = used; n < padded; n++)
                for (Index k = 0; k < depth; k++) packed[k * padded + n] = T(0);
        } else {
            for (Index k = 0; k < depth; k++) {
                std::memcpy(packed + k * padded, weights + k * stride + first, used * sizeof(T));
                for (Index n = used; n < padded; n++) packed[k * padded + n] = T(0);
            }
        }
        packed += depth * padded;
    }
}

// a[r * a_row + k * a_step]
template <class T, int ROWS, int VECTORS>
SKLSEQ_TARGET void tile(Index depth, const T* a, Index a_row, Index a_step, const T* panel, T* c,
                        Index c_stride, Index used, bool accumulate) {
    typedef typename Lanes<T>::type V;
    const Index lanes = Lanes<T>::size;
    const Index tail = used - (VECTORS - 1) * lanes;  // columns in the last vector
    V sums[ROWS][VECTORS];
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < VECTORS; v++) sums[r][v] = V{};
    for (Index k = 0; k < depth; k++) {
        V b[VECTORS];
        for (int v = 0; v < VECTORS; v++) b[v] = load(panel + v * lanes);
        panel += VECTORS * lanes;
        for (int r = 0; r < ROWS; r++) {
            const V broadcast = a[r * a_row] - V{};
            for (int v = 0; v < VECTORS; v++) sums[r][v] += broadcast * b[v];
        }
        a += a_step;
    }
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < VECTORS; v++) {
            T* to = c + r * c_stride + v * lanes;
            if (v < VECTORS - 1) store(to, accumulate ? load(to) + sums[r][v] : sums[r][v]);
            else store_some(to, accumulate ? load_some(to, tail) + sums[r][v] : sums[r][v], tail);
        }
}

template <class T, int VECTORS>
SKLSEQ_TARGET void panel_product(Index rows, Index depth, const T* a, Index a_row, Index a_step,
                                 const T* panel, T* c, Index c_stride, Index used, bool accumulate) {
    Index r = 0;
    for (; r + 6 <= rows; r += 6)
        tile<T, 6, VECTORS>(depth, a + r * a_row, a_row, a_step, panel, c + r * c_stride, c_stride,
                            used, accumulate);
    if (r + 4 <= rows) {
        tile<T, 4, VECTORS>(depth, a + r * a_row, a_row, a_step, panel, c + r * c_stride, c_stride,
                            used, accumulate);
        r += 4;
    }
    if (r + 2 <= rows) {
        tile<T, 2, VECTORS>(depth, a + r * a_row, a_row, a_step, panel, c + r * c_stride, c_stride,
                            used, accumulate);
        r += 2;
    }
    if (r < rows)
        tile<T, 1, VECTORS>(depth, a + r * a_row, a_row, a_step, panel, c + r * c_stride, c_stride,
                            used, accumulate);
}

template <class T>
SKLSEQ_TARGET void any_panel(Index vectors, Index rows, Index depth, const T* a, Index a_row,
                             Index a_step, const T* panel, T* c, Index c_stride, Index used,
                             bool accumulate) {
    switch (vectors) {
    case 1:
        panel_product<T, 1>(rows, depth, a, a_row, a_step, panel, c, c_stride, used, accumulate);
        break;
    case 2:
        panel_product<T, 2>(rows, depth, a, a_row, a_step, panel, c, c_stride, used, accumulate);
        break;
#if SKLSEQ_PANEL_VECTORS > 2
    case 3:
        panel_product<T, 3>(rows, depth, a, a_row, a_step, panel, c, c_stride, used, accumulate);
        break;
    default:
        panel_product<T, 4>(rows, depth, a, a_row, a_step, panel, c, c_stride, used, accumulate);
        break;
#endif
    }
}

template <class T>
SKLSEQ_TARGET void product(Index rows, Index depth, Index columns, const T* a, Index a_stride,
                           const T* packed, T* c, Index c_stride, bool accumulate) {
    const Index lanes = Lanes<T>::size, width = SKLSEQ_PANEL_VECTORS * lanes;
    for (Index first = 0; first < columns; first += width) {
        const Index used = std::min(width, columns - first);
        const Index vectors = (used + lanes - 1) / lanes;
        any_panel(vectors, rows, depth, a, a_stride, Index(1), packed, c + first, c_stride, used,
                  accumulate);
        packed += depth * vectors * lanes;
    }
}

// C += A B where all rows of A are the one given: the same bits for the work of one row.
template <class T>
SKLSEQ_TARGET void add_product_of_one(Index rows, Index depth, Index columns, const T* a,
                                      const T* packed, T* c, Index c_stride) {
    std::vector<T> once(columns);
    product(Index(1), depth, columns, a, depth, packed, once.data(), columns, false);
    for (Index row = 0; row < rows; row++, c += c_stride)
        for (Index j = 0; j < columns; j++) c[j] += once[j];
}

// As product(), but only for the sum over the rows of A B: that goes to the first row of C, and
// nothing to the others.
template <class T>
SKLSEQ_TARGET void product_of_sum(Index rows, Index depth, Index columns, const T* a,
                                  Index a_stride, const T* packed, T* c, bool accumulate) {
    std::vector<T> sum(depth);
    add_rows(rows, depth, a, a_stride, sum.data());
    if (!accumulate) std::memset(c, 0, rows * columns * sizeof(T));
    product(Index(1), depth, columns, sum.data(), depth, packed, c, columns, accumulate);
}

// out (m, n) += left' right, with left (rows, m) and right (rows, n): the gradient of a weight
// matrix over all rows of a batch.  Blocks of rows, a panel of `right` packed at a time, so that
// what the tiles read stays in the second-level cache.
template <class T>
SKLSEQ_TARGET void add_weight_gradient(Index rows, Index m, Index n, const T* left,
                                       Index left_stride, const T* right, Index right_stride,
                                       T* out, Index out_stride) {
    const Index lanes = Lanes<T>::size, width = SKLSEQ_PANEL_VECTORS * lanes;
    const Index most = m * n > 200000 ? 256 : 128;  // an out beyond the cache: pass it less often
    std::vector<T> panel(std::min(rows, most) * width);
    for (Index block = 0; block < rows; block += most) {
        const Index depth = std::min(most, rows - block);
        const T* a = left + block * left_stride;
        for (Index first = 0; first < n; first += width) {
            const Index used = std::min(width, n - first);
            pack(depth, used, right + block * right_stride + first, right_stride, false,
                 panel.data());
            any_panel((used + lanes - 1) / lanes, m, depth, a, Index(1), left_stride,
                      panel.data(), out + first, out_stride, used, true);
        }
    }
}
