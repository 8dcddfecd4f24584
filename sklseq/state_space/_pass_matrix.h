// Small dense matrices, row-major, no allocation.  Included once per instruction set, inside a
// namespace: no include guard, no includes.

// A block of N vectors V of x := (x - sum_l c[l] y[l, :]) * scale, kept in registers.  Few vectors
// are summed in two chains each, or they would wait for themselves.
template <class V, int N>
inline void eliminate_block(int terms, const double* c, Index c_stride, const double* y, Index ld,
                            double* x, double scale) {
    V even[N], odd[N];
    for (int v = 0; v < N; ++v) {
        even[v] = wide<V>::load(x + v * wide<V>::size);
        odd[v] = V();
    }
    int l = 0;
    for (; l + 2 <= terms; l += 2) {
        const double one = c[l * c_stride], two = c[(l + 1) * c_stride];
        const double* row = y + l * ld;
        for (int v = 0; v < N; ++v) {
            even[v] -= one * wide<V>::load(row + v * wide<V>::size);
            odd[v] -= two * wide<V>::load(row + ld + v * wide<V>::size);
        }
    }
    if (l < terms)
        for (int v = 0; v < N; ++v)
            even[v] -= c[l * c_stride] * wide<V>::load(y + l * ld + v * wide<V>::size);
    for (int v = 0; v < N; ++v)
        wide<V>::store(x + v * wide<V>::size, (even[v] + odd[v]) * scale);
}

// x (n,) := (x - sum_l c[l] y[l, :]) * scale
inline void eliminate(int n, int terms, const double* c, Index c_stride, const double* y, Index ld,
                      double* x, double scale) {
    int j = 0;
#ifdef __GNUC__
    for (; j + 4 * LANES <= n; j += 4 * LANES)
        eliminate_block<Vec, 4>(terms, c, c_stride, y + j, ld, x + j, scale);
    for (; j + 2 * LANES <= n; j += 2 * LANES)
        eliminate_block<Vec, 2>(terms, c, c_stride, y + j, ld, x + j, scale);
    for (; j + LANES <= n; j += LANES)
        eliminate_block<Vec, 1>(terms, c, c_stride, y + j, ld, x + j, scale);
    for (; j + 2 <= n; j += 2)
        eliminate_block<Pair, 1>(terms, c, c_stride, y + j, ld, x + j, scale);
#endif
    for (; j < n; ++j) eliminate_block<double, 1>(terms, c, c_stride, y + j, ld, x + j, scale);
}

// out = x' M (M: (n, m)), that is sum_l x[l] M[l, :]
inline void vector_matrix(int n, int m, const double* x, const double* M, double* out) {
    std::memset(out, 0, m * sizeof(double));
    eliminate(m, n, x, 1, M, m, out, -1.0);
}

// out = base + x' M
inline void add_vector_matrix(int n, int m, const double* x, const double* M, const double* base,
                              double* out) {
    for (int j = 0; j < m; ++j) out[j] = base ? -base[j] : 0.0;
    eliminate(m, n, x, 1, M, m, out, -1.0);
}

// x -= factor y
inline void subtract_multiple(int n, double factor, const double* y, double* x) {
    eliminate(n, 1, &factor, 1, y, n, x, 1.0);
}

// a'b in four chains, or in as many as a vector has lanes
inline double dot(int n, const double* a, const double* b) {
    int j = 0;
    double total = 0.0;
#ifdef __GNUC__
    if (n >= LANES) {
        Vec sum = load(a) * load(b);
        for (j = LANES; j + LANES <= n; j += LANES) sum += load(a + j) * load(b + j);
        total = sum_of(sum);
    }
#endif
    double one = 0.0, two = 0.0;
    for (; j + 2 <= n; j += 2) {
        one += a[j] * b[j];
        two += a[j + 1] * b[j + 1];
    }
    if (j < n) one += a[j] * b[j];
    return total + (one + two);
}

// out = base + M x, one dot product a row
inline void add_matrix_vector(int n, int m, const double* M, const double* x, const double* base,
                              double* out) {
    for (int i = 0; i < n; ++i)
        out[i] = (base ? base[i] : 0.0) + dot(m, M + static_cast<Index>(i) * m, x);
}

inline void transpose(int n, const double* M, double* out) {
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j) out[j * n + i] = M[i * n + j];
}

// R rows and N vectors V of C := alpha A B + beta C, kept in registers; a_l and a_i are the strides
// of A's columns and rows, so that A may be transposed.
template <class V, int R, int N>
inline void product_block(int terms, const double* A, Index a_i, Index a_l, const double* B, int n,
                          double alpha, double beta, double* C) {
    V sum[R][N];
    for (int i = 0; i < R; ++i)
        for (int v = 0; v < N; ++v) sum[i][v] = V();
    for (int l = 0; l < terms; ++l) {
        V row[N];
        for (int v = 0; v < N; ++v) row[v] = wide<V>::load(B + v * wide<V>::size);
        for (int i = 0; i < R; ++i) {
            const double factor = A[i * a_i];
            for (int v = 0; v < N; ++v) sum[i][v] += factor * row[v];
        }
        A += a_l;
        B += n;
    }
    for (int i = 0; i < R; ++i)
        for (int v = 0; v < N; ++v) {
            double* out = C + static_cast<Index>(i) * n + v * wide<V>::size;
            V value = alpha * sum[i][v];
            if (beta != 0.0) value += beta * wide<V>::load(out);
            wide<V>::store(out, value);
        }
}

template <int R>
inline void product_rows(int columns, int n, int terms, const double* A, Index a_i, Index a_l,
                         const double* B, double alpha, double beta, double* C) {
    int j = 0;
#ifdef __GNUC__
    for (; j + 2 * LANES <= columns; j += 2 * LANES)
        product_block<Vec, R, 2>(terms, A, a_i, a_l, B + j, n, alpha, beta, C + j);
    for (; j + LANES <= columns; j += LANES)
        product_block<Vec, R, 1>(terms, A, a_i, a_l, B + j, n, alpha, beta, C + j);
    for (; j + 2 <= columns; j += 2)
        product_block<Pair, R, 1>(terms, A, a_i, a_l, B + j, n, alpha, beta, C + j);
#endif
    for (; j < columns; ++j)
        product_block<double, R, 1>(terms, A, a_i, a_l, B + j, n, alpha, beta, C + j);
}

constexpr int OWN_PRODUCT = 32;  // inner dimension and columns up to which BLAS is slower

// Whole vectors that hold the lower triangle of rows i..i + 3 of n columns.
inline int lower_columns(int i, int n) { return std::min(n, (i + 3) / LANES * LANES + LANES); }

// C (m, n) = alpha op(A) op(B) + beta C, inner dimension r; with `lower` at least its lower triangle
inline void multiply(Gemm gemm, bool ta, bool tb, int m, int n, int r, double alpha,
                     const double* A, const double* B, double beta, double* C,
                     bool lower = false) {
    if (n > OWN_PRODUCT || r > OWN_PRODUCT) {
        char fa = tb ? 'T' : 'N', fb = ta ? 'T' : 'N';
        int lda = tb ? r : n, ldb = ta ? m : r;
        gemm(&fa, &fb, &n, &m, &r, &alpha, const_cast<double*>(B), &lda, const_cast<double*>(A),
             &ldb, &beta, C, &n);
        return;
    }
    double turned[OWN_PRODUCT * OWN_PRODUCT];
    if (tb) {
        for (int j = 0; j < n; ++j)
            for (int l = 0; l < r; ++l) turned[l * n + j] = B[j * r + l];
        B = turned;
    }
    const Index a_i = ta ? 1 : r, a_l = ta ? m : 1;
    int i = 0;
    for (; i + 4 <= m; i += 4)
        product_rows<4>(lower ? lower_columns(i, n) : n, n, r, A + i * a_i, a_i, a_l, B, alpha, beta,
                        C + static_cast<Index>(i) * n);
    for (; i < m; ++i)
        product_rows<1>(n, n, r, A + i * a_i, a_i, a_l, B, alpha, beta,
                        C + static_cast<Index>(i) * n);
}

inline void set_identity(int d, double* M) {
    std::memset(M, 0, sizeof(double) * d * d);
    for (int i = 0; i < d; ++i) M[static_cast<Index>(i) * d + i] = 1.0;
}

// the upper triangle := the lower one
inline void mirror(int d, double* P) {
    for (int i = 1; i < d; ++i)
        for (int j = 0; j < i; ++j) P[j * d + i] = P[i * d + j];
}

inline void symmetrise(int d, double* P) {
    for (int i = 0; i < d; ++i)
        for (int j = 0; j < i; ++j)
            P[i * d + j] = P[j * d + i] = 0.5 * (P[i * d + j] + P[j * d + i]);
}

// Upper U with U'U = P in place of P's upper triangle; a pivot that has vanished gives a zero row.
// Returns the smallest pivot relative to its diagonal entry.
inline double cholesky(int d, double* P) {
    double worst = 1.0;
    for (int i = 0; i < d; ++i) {
        double* row = P + static_cast<Index>(i) * d;
        const double diagonal = row[i];
        eliminate(d - i, i, P + i, d, P + i, d, row + i, 1.0);
        const double pivot = row[i];
        // not (pivot > ...) also catches NaN
        if (!(pivot > 1e-14 * diagonal)) {
            worst = diagonal > 0.0 || !(diagonal == 0.0) ? 0.0 : worst;
            for (int j = i; j < d; ++j) row[j] = 0.0;
            continue;
        }
        worst = std::min(worst, pivot / diagonal);
        const double scale = 1.0 / std::sqrt(pivot);
        for (int j = i; j < d; ++j) row[j] *= scale;
    }
    return worst;
}

// X (d, n) := (U'U)^-1 X; zero rows of U give zero rows of X
inline void cholesky_solve(int d, int n, const double* U, double* X) {
    for (int i = 0; i < d; ++i) {
        const double pivot = U[i * d + i];
        eliminate(n, i, U + i, d, X, n, X + static_cast<Index>(i) * n,
                  pivot > 0.0 ? 1.0 / pivot : 0.0);
    }
    for (int i = d - 1; i >= 0; --i) {
        const double pivot = U[i * d + i];
        const Index next = i + 1;
        eliminate(n, d - 1 - i, U + i * d + next, 1, X + next * n, n,
                  X + static_cast<Index>(i) * n, pivot > 0.0 ? 1.0 / pivot : 0.0);
    }
}

// A root R (d, d) with R'R = P for a positive semi-definite P: Cholesky of the correlations with
// diagonal pivoting, so that tiny and huge variances are kept alike.  work: d * d + 2 d
inline void semidefinite_root(int d, const double* P, double* R, double* work) {
    double* C = work;
    double* scale = work + d * d;
    double* used = scale + d;
    for (int i = 0; i < d; ++i) {
        scale[i] = P[i * d + i] > 0.0 ? std::sqrt(P[i * d + i]) : 0.0;
        used[i] = 0.0;
    }
    for (int i = 0; i < d; ++i)
        for (int j = 0; j < d; ++j)
            C[i * d + j] = scale[i] * scale[j] > 0.0 ? P[i * d + j] / scale[i] / scale[j] : 0.0;
    std::memset(R, 0, sizeof(double) * d * d);
    for (int row = 0; row < d; ++row) {
        int best = -1;
        for (int i = 0; i < d; ++i)
            if (used[i] == 0.0 && (best < 0 || C[i * d + i] > C[best * d + best])) best = i;
        if (!(C[best * d + best] > 4.0 * d * EPS)) break;
        const double pivot = std::sqrt(C[best * d + best]);
        used[best] = 1.0;
        double* out = R + static_cast<Index>(row) * d;
        for (int j = 0; j < d; ++j)
            if (used[j] == 0.0 || j == best) out[j] = C[best * d + j] / pivot;
        for (int i = 0; i < d; ++i)
            if (used[i] == 0.0)
                for (int j = 0; j < d; ++j)
                    if (used[j] == 0.0) C[i * d + j] -= out[i] * out[j];
        for (int j = 0; j < d; ++j) out[j] *= scale[j];
    }
}

// 2^e with x 2^e near 1, for a reflection whose squares neither vanish nor overflow (LAPACK's
// dlarfg scales likewise); a power of two changes no digit.
inline double unit_scale(double x) {
    int exponent = 0;
    std::frexp(x, &exponent);
    return std::ldexp(1.0, -std::min(std::max(exponent, -1000), 1000));
}

// Reflects rows r.. of M (rows, width) so that column c, of that norm there, ends in row r; columns
// after c follow.  w: width
inline void reflect(int rows, int width, int r, int c, double norm, double* M, double* w) {
    const double scale = unit_scale(norm), head = M[r * width + c];
    const double alpha = head > 0.0 ? -norm : norm;
    // v = column - alpha e_r, beta = 2 / v'v = 1 / (norm (norm + |head|)), in units of the scale
    M[r * width + c] = head - alpha;
    const double size = norm * scale;
    const double beta = 1.0 / (size * (size + std::fabs(head) * scale));
    for (int j = c + 1; j < width; ++j) w[j] = 0.0;
    for (int i = r; i < rows; ++i) {
        const double v = M[i * width + c] * scale;
        if (v == 0.0) continue;
        for (int j = c + 1; j < width; ++j) w[j] += v * M[i * width + j];
    }
    for (int i = r; i < rows; ++i) {
        const double v = beta * (M[i * width + c] * scale);
        if (v == 0.0) continue;
        for (int j = c + 1; j < width; ++j) M[i * width + j] -= v * w[j];
    }
    M[r * width + c] = alpha;
    for (int i = r + 1; i < rows; ++i) M[i * width + c] = 0.0;
}

// Householder triangularisation of the first `cols` columns of M (rows, cols + carried) after
// sorting its rows by decreasing magnitude there (without the sort a vague prior costs twelve
// digits); the carried columns are transformed alike.  The first `tested` columns are tested for
// rank: a column that is not above its entry of floors (tested,) takes no pivot row, so its rows
// stay for the columns after it.  pivot_row (tested,): row of the pivot, or -1.  Returns the rank
// of the tested columns; rows from there on are triangular in the other columns.
// work: 2 rows + cols + carried + rows * (cols + carried)
inline int triangularise(int rows, int cols, int carried, double* M, int tested,
                         const double* floors, int* pivot_row, double* work) {
    const int width = cols + carried;
    double* magnitude = work;
    double* w = work + rows;
    double* copy = w + width;
    std::memcpy(copy, M, sizeof(double) * rows * width);
    for (int i = 0; i < rows; ++i) {
        double top = 0.0;
        for (int j = 0; j < cols; ++j) top = std::max(top, std::fabs(copy[i * width + j]));
        magnitude[i] = top;
    }
    // insertion by selection of the largest: rows are few
    for (int i = 0; i < rows; ++i) {
        int best = i;
        for (int l = i + 1; l < rows; ++l)
            if (magnitude[l] > magnitude[best]) best = l;
        if (best != i) {
            std::swap(magnitude[i], magnitude[best]);
            for (int j = 0; j < width; ++j)
                std::swap(copy[i * width + j], copy[best * width + j]);
        }
    }
    std::memcpy(M, copy, sizeof(double) * rows * width);
    int r = 0, rank = 0;
    for (int c = 0; c < cols; ++c) {
        if (c < tested) pivot_row[c] = -1;
        if (r >= rows) continue;
        // the row of the largest entry is the pivot's: a larger row without a share in the column
        // must not be led through it (Powell and Reid 1969)
        double top = 0.0;
        bool finite = true;
        int best = r;
        for (int i = r; i < rows; ++i) {
            const double size = std::fabs(M[i * width + c]);
            finite = finite && size <= LARGEST;
            if (size > top) {
                top = size;
                best = i;
            }
        }
        if (best != r)
            for (int j = 0; j < width; ++j) std::swap(M[r * width + j], M[best * width + j]);
        const double threshold = c < tested ? floors[c] : 0.0;
        double norm = 0.0;
        if (top > 0.0) {
            for (int i = r; i < rows; ++i) {
                const double x = M[i * width + c] / top;
                norm += x * x;
            }
            norm = top * std::sqrt(norm);
        }
        if (!finite) norm = NAN;  // passes the comparison, and into all that follows
        if (norm <= threshold) {
            for (int i = r; i < rows; ++i) M[i * width + c] = 0.0;
            if (c >= tested) ++r;
            continue;
        }
        reflect(rows, width, r, c, norm, M, w);
        if (c < tested) {
            pivot_row[c] = r;
            ++rank;
        }
        ++r;
    }
    return rank;
}
