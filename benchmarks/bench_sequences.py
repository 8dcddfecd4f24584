"""What the input door costs: 5,000 short sequences, and one small array.

Goals (issue 2): well under 0.1 s, and under 0.1 ms.  CPU time, medians.

Run: python benchmarks/bench_sequences.py
"""

import statistics
import time

import numpy as np

from sklseq import GaussianHMM, concat_sequences
from sklseq._sequences import check_sequences


def cpu(call, repeats):
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main():
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(20, 3)) for _ in range(5000)]
    X, groups = concat_sequences(sequences)
    lengths = [20] * 5000
    small = rng.normal(size=(100, 3))
    model = GaussianHMM(2, n_init=1, max_iter=2, tol=1.0, random_state=0).fit(small)
    cases = {
        "5,000 sequences, list": (lambda: check_sequences(model, sequences), 20),
        "5,000 sequences, groups": (lambda: check_sequences(model, X, groups=groups), 20),
        "5,000 sequences, lengths": (lambda: check_sequences(model, X, lengths=lengths), 20),
        "one array of 100 x 3": (lambda: check_sequences(model, small), 500),
    }
    for name, (call, repeats) in cases.items():
        print(f"{name:26s} {1e3 * cpu(call, repeats):8.3f} ms")


if __name__ == "__main__":
    main()
