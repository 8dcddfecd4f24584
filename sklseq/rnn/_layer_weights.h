// The weights of one layer as the kernels see them, and the numbers that name cells and poolings
// (the same as in _cells.py).

typedef std::ptrdiff_t Index;

enum Cell { RNN = 0, GRU = 1, GRU_RESET_AFTER = 2, LSTM = 3 };

enum Pool { LAST = 1, MEAN = 2, MAX = 4 };

template <class T> struct LayerWeights {
    Index cell, hidden, n_gates, n_stored;  // n_stored: gate blocks in a row of the gate buffer
    const T* recurrent;                    // packed (H, n_gates H), for GRU the (u, r) part
    const T* candidate;                    // packed (H, H), GRU only
    const T* recurrent_bias;               // (H), GRU_RESET_AFTER only
};
