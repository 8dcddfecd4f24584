"""Speed of the character RNNs against torch on the CPU.

    PYTHONPATH=. python benchmarks/bench_rnn.py [lm] [names] [predict] [draw] [threads] [peak]

Needs torch==2.13.0.  Ours are the public estimators, validation and encoding included; torch gets
its batches ready-made.  Both run alternately in one process; one-thread figures are CPU time
(time.process_time), two-thread figures wall time; ratios are medians of the rounds' ratios.  That
both compute the same is asserted first.
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from sklseq.rnn import CharRNNClassifier, CharRNNLanguageModel
from sklseq.rnn import _recurrence as kernels

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from references_rnn_torch import Twin

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
LETTERS = [chr(48 + i) for i in range(63)]  # and unknown and end: 65 symbols
LM_SHAPES = [(64, 32, 64), (128, 50, 50), (256, 64, 128), (512, 64, 64)]
CELLS = [("rnn", False), ("gru", False), ("gru", True), ("lstm", False)]
ROUNDS = 5


def label_of(cell, reset_after):
    return "gru (reset after)" if reset_after else cell


def timed(function, clock=time.process_time):
    began = clock()
    function()
    return clock() - began


def ratio(ours, theirs, clock=time.process_time, rounds=ROUNDS):
    """Median seconds of both and the median of the rounds' ratios, alternated."""
    ours(), theirs()
    pairs = [(timed(ours, clock), timed(theirs, clock)) for _ in range(rounds)]
    a, b = np.array(pairs).T
    return np.median(a), np.median(b), np.median(b / a)


def random_text(n, seed=0):
    return "".join(np.random.RandomState(seed).choice(LETTERS, n))


def language_model(cell, reset_after, hidden, batch, steps, n_jobs=1):
    return CharRNNLanguageModel(
        cell, hidden, reset_after=reset_after, batch_size=batch, bptt_steps=steps, max_iter=1,
        n_jobs=n_jobs, random_state=0,
    )  # fmt: skip


def torch_epoch(twin, optimiser, windows):
    state = None
    for inputs, targets in windows:
        logits, state = twin(inputs, state)
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 64), targets.reshape(-1))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 5.0)
        optimiser.step()


def lm_pair(cell, reset_after, hidden, batch, steps, n_jobs=1):
    """One epoch of a text of a few windows: ours and torch's, as functions; and its length."""
    flops = batch * steps * hidden * hidden
    n_windows = max(2, int(1.5e9 / flops / (1 if cell == "rnn" else 4)))
    text = random_text(batch * steps * n_windows - 1)
    model = language_model(cell, reset_after, hidden, batch, steps, n_jobs)
    codes = np.array([1] + [ord(c) - 46 for c in text] + [1])
    inputs = torch.tensor(codes[:-1].reshape(batch, -1).T.copy())
    targets = torch.tensor(codes[1:].reshape(batch, -1).T.copy() - 1)
    windows = [
        (inputs[i : i + steps], targets[i : i + steps])
        for i in range(0, len(inputs), steps)
    ]
    twin = Twin(cell, 65, hidden, 64)
    optimiser = torch.optim.Adam(twin.parameters(), lr=3e-3)
    return lambda: model.fit([text]), lambda: torch_epoch(twin, optimiser, windows), len(text)


def check_agreement():
    """The same weights give the same log-probabilities in torch."""
    text = random_text(500)
    for cell, reset_after in CELLS:
        if (cell, reset_after) == ("gru", False):
            continue
        model = language_model(cell, reset_after, 64, 8, 16).fit([text])
        twin = Twin(cell, 65, 64, 64).load(model._network)
        codes = torch.tensor([[1] + [ord(c) - 46 for c in text]]).T
        with torch.inference_mode():
            logits, _ = twin(codes)
        log_probabilities = torch.log_softmax(logits[:, 0].double(), -1).numpy()
        theirs = log_probabilities[np.arange(500), np.array([ord(c) - 47 for c in text])]
        np.testing.assert_allclose(model.char_log_proba([text])[0], theirs, atol=1e-4)


def bench_lm():
    torch.set_num_threads(1)
    print("\nLM training, one thread, CPU time (1000 characters/s)")
    for hidden, batch, steps in LM_SHAPES:
        for cell, reset_after in CELLS:
            ours, theirs, n = lm_pair(cell, reset_after, hidden, batch, steps)
            a, b, r = ratio(ours, theirs)
            print(
                f"  {hidden:4d},{batch:3d},{steps:4d}  {label_of(cell, reset_after):18s}"
                f"ours {n / a / 1e3:7.0f}   torch {n / b / 1e3:7.0f}   ratio {r:5.2f}", flush=True,
            )  # fmt: skip


def bench_threads():
    torch.set_num_threads(2)
    print("\nLM training, two threads, wall time")
    for hidden, batch, steps in LM_SHAPES:
        for cell, reset_after in CELLS:
            one, _, n = lm_pair(cell, reset_after, hidden, batch, steps, 1)
            two, theirs, _ = lm_pair(cell, reset_after, hidden, batch, steps, 2)
            one(), two(), theirs()
            times = np.array([
                [timed(f, time.perf_counter) for f in (one, two, theirs)] for _ in range(ROUNDS)
            ])
            print(
                f"  {hidden:4d},{batch:3d},{steps:4d}  {label_of(cell, reset_after):18s}"
                f"two threads {n / np.median(times[:, 1]) / 1e3:7.0f}   "
                f"scaling {np.median(times[:, 0] / times[:, 1]):5.2f}   "
                f"torch / ours {np.median(times[:, 2] / times[:, 1]):5.2f}", flush=True,
            )  # fmt: skip
    torch.set_num_threads(1)


def read_names():
    texts, labels = [], []
    for path in sorted((DATA / "names").glob("*.txt")):
        lines = [line.strip() for line in path.read_text(encoding="utf8").splitlines()]
        texts += [line for line in lines if line]
        labels += [path.stem] * sum(map(bool, lines))
    order = np.random.RandomState(0).permutation(len(texts))
    return [texts[i] for i in order], np.array(labels)[order]


def torch_batches(texts, labels, size, sort=False):
    """One-hot-ready packed batches: (padded codes, lengths, labels)."""
    symbols = {c: i + 1 for i, c in enumerate(sorted(set("".join(texts))))}
    order = np.argsort([-len(t) for t in texts], kind="stable") if sort else np.arange(len(texts))
    batches = []
    for first in range(0, len(texts), size):
        rows = order[first : first + size]
        lengths = torch.tensor([len(texts[i]) for i in rows])
        padded = torch.zeros((int(lengths.max()), len(rows)), dtype=torch.int64)
        for column, i in enumerate(rows):
            padded[: len(texts[i]), column] = torch.tensor([symbols[c] for c in texts[i]])
        batches.append((padded, lengths, torch.tensor(labels[rows])))
    return batches, len(symbols) + 1


def torch_last_state(twin, padded, lengths, enforce_sorted):
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        twin.one_hot(padded), lengths, enforce_sorted=enforce_sorted
    )
    _, state = twin.layers(packed)
    return twin.head((state[0] if isinstance(state, tuple) else state)[-1])


def bench_names():
    torch.set_num_threads(1)
    texts, labels = read_names()
    # distinct pairs, so that an epoch is the same work for both
    pairs = list(dict.fromkeys(zip(texts, labels.tolist())))[:8000]
    texts, labels = [p[0] for p in pairs], np.array([p[1] for p in pairs])
    classes, numbers = np.unique(labels, return_inverse=True)
    batches, n_symbols = torch_batches(texts, numbers, 32)
    n = sum(map(len, texts))
    print("\nnames, hidden 128, batch 32, one thread, CPU time (1000 characters/s)")
    for cell, reset_after in CELLS:
        model = CharRNNClassifier(
            cell, 128, reset_after=reset_after, batch_size=32, max_iter=1, pooling="last",
            dropout=0.0, next_char_weight=0.0, random_state=0, n_jobs=1,
        )  # fmt: skip
        twin = Twin(cell, n_symbols, 128, len(classes))
        optimiser = torch.optim.Adam(twin.parameters(), lr=3e-3)

        def theirs(twin=twin, optimiser=optimiser):
            for padded, lengths, target in batches:
                logits = torch_last_state(twin, padded, lengths, False)
                loss = torch.nn.functional.cross_entropy(logits, target)
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(twin.parameters(), 5.0)
                optimiser.step()

        a, b, r = ratio(lambda model=model: model.fit(texts, labels), theirs)
        print(
            f"  {label_of(cell, reset_after):18s}ours {n / a / 1e3:7.0f}   "
            f"torch packed {n / b / 1e3:7.0f}   ratio {r:5.2f}", flush=True,
        )  # fmt: skip


def bench_predict():
    torch.set_num_threads(1)
    texts, labels = read_names()
    texts, labels = texts[:10_000], labels[:10_000]
    numbers = np.unique(labels, return_inverse=True)[1]
    print("\npredict 10,000 names, hidden 128, one thread, CPU time (ms)")
    for cell, reset_after in CELLS:
        model = CharRNNClassifier(
            cell, 128, reset_after=reset_after, max_iter=1, pooling="last", random_state=0,
            n_jobs=1,
        ).fit(texts[:2000], labels[:2000])  # fmt: skip
        results = []
        for size in (128, 512):
            batches, n_symbols = torch_batches(texts, numbers, size, sort=True)
            twin = Twin(cell, n_symbols, 128, 18)

            def theirs(twin=twin, batches=batches):
                with torch.inference_mode():
                    for padded, lengths, _ in batches:
                        torch_last_state(twin, padded, lengths, True).argmax(-1)

            results.append(ratio(lambda model=model: model.predict(texts), theirs))
        a, b, r = min(results, key=lambda result: result[1])  # torch at its better batch size
        print(
            f"  {label_of(cell, reset_after):18s}ours {1e3 * a:6.1f}   "
            f"torch packed, sorted {1e3 * b:6.1f}   ratio {r:5.2f}", flush=True,
        )  # fmt: skip


def torch_draw(cell, hidden, n):
    kind = {"rnn": "RNNCell", "gru": "GRUCell", "lstm": "LSTMCell"}[cell]
    step, head = getattr(torch.nn, kind)(65, hidden), torch.nn.Linear(hidden, 64)
    one_hot = torch.eye(65)

    def draw():
        with torch.inference_mode():
            state, code = None, 1
            for _ in range(n):
                state = step(one_hot[code][None], state)
                h = state[0] if isinstance(state, tuple) else state
                code = int(torch.multinomial(torch.softmax(head(h)[0], -1), 1)) + 1

    return draw


def bench_draw():
    torch.set_num_threads(1)
    print("\ndrawing one text, one thread, CPU time (microseconds a character)")
    text = random_text(3000)
    for hidden in (128, 512):
        for cell, reset_after in CELLS:
            model = language_model(cell, reset_after, hidden, 8, 16).fit([text])
            model._network.views["next_bias"][0] = -1e4  # never end
            n = 1000 if hidden == 128 else 500
            a, b, r = ratio(
                lambda model=model, n=n: model.sample(1, max_length=n, random_state=0),
                torch_draw(cell, hidden, n),
            )
            print(
                f"  {hidden:4d}  {label_of(cell, reset_after):18s}ours {1e6 * a / n:6.1f}   "
                f"torch cell {1e6 * b / n:6.1f}   ratio {r:5.1f}", flush=True,
            )  # fmt: skip


def bench_peak():
    """Useful flops of training as a share of the best matrix product of this core."""
    from scipy.linalg.blas import sgemm
    from threadpoolctl import threadpool_limits

    print("\nshare of sgemm's peak (1024^3) that training reaches, useful flops only")
    with threadpool_limits(1, user_api="blas"):
        a = np.asfortranarray(np.random.RandomState(0).standard_normal((1024, 1024)), np.float32)
        peak = 2e-9 * 1024**3 / min(timed(lambda: sgemm(1.0, a, a)) for _ in range(7))
    print(f"  sgemm {peak:.0f} GFLOP/s; instruction set {kernels.use_instruction_set(2)}")
    for hidden, batch, steps in LM_SHAPES:
        for (cell, reset_after), gates in zip(CELLS, (1, 3, 3, 4)):
            ours, _, n = lm_pair(cell, reset_after, hidden, batch, steps)
            ours()
            speed = n / min(timed(ours) for _ in range(3))
            flops = 6 * (gates * hidden * hidden + hidden * 64) * speed * 1e-9
            print(f"  {hidden:4d},{batch:3d},{steps:4d}  {label_of(cell, reset_after):18s}"
                  f"{flops:6.1f} GFLOP/s  {100 * flops / peak:4.0f} %", flush=True)  # fmt: skip


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    chosen = sys.argv[1:] or ["lm", "names", "predict", "draw", "threads", "peak"]
    check_agreement()
    for name in chosen:
        globals()[f"bench_{name}"]()
