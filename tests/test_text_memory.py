"""Text models of many symbols: a fitted model answers in no more memory than its fit took."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sklseq
from sklseq.rnn import CharRNNClassifier, CharRNNLanguageModel

# One process, whose peak of resident memory can be set back.
PEAKS = """
import json, sys
from pathlib import Path
import numpy as np
from sklseq.rnn import CharRNNLanguageModel

def above(call):
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    call()
    return (peak() - before) / 2**20

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

n_symbols, hidden, n_steps = map(int, sys.argv[1:])
tokens = np.array([f"w{i}" for i in range(n_symbols)], dtype=object)
random = np.random.RandomState(0)
texts = [random.choice(tokens, n_steps).tolist() for _ in range(260)]
texts[0] = tokens.tolist()
model = CharRNNLanguageModel("gru", hidden, max_iter=1, random_state=0)
CharRNNLanguageModel("gru", 2, max_iter=1).fit(["warm"]).score(["warm"])
found = {"fit": above(lambda: model.fit(texts[:80]))}
# (260, n_symbols) of float64 is what predict_proba hands back
found["proba"] = above(lambda: model.predict_proba(texts)) - 260 * n_symbols * 8 / 2**20
for name in ("score", "char_log_proba", "predict", "perplexity"):
    found[name] = above(lambda: getattr(model, name)(texts))
print(json.dumps(found))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc"
)
@pytest.mark.parametrize("n_symbols, hidden, n_steps", [(4_000, 16, 30), (30, 256, 40)])
def test_a_language_model_scores_in_less_memory_than_it_is_fitted_in(
    tmp_path, n_symbols, hidden, n_steps
):
    here = {**os.environ, "PYTHONPATH": str(Path(sklseq.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-c", PEAKS, *map(str, (n_symbols, hidden, n_steps))],
        capture_output=True, text=True, check=True, timeout=300, cwd=tmp_path, env=here,
    )  # fmt: skip
    found = json.loads(run.stdout)
    print(found)
    assert len(found) == 6
    assert {name: mib for name, mib in found.items() if mib > found["fit"]} == {}


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_how_rows_and_steps_are_cut_does_not_show(monkeypatch, n_jobs):
    random = np.random.RandomState(0)
    texts = ["".join(random.choice(list("abcd"), n)) for n in (0, 1, 40, 300, 7)]
    model = CharRNNLanguageModel(hidden_size=9, n_layers=2, max_iter=1, n_jobs=n_jobs).fit(texts)
    names = ("score_samples", "predict_proba", "predict", "transform")
    whole = [getattr(model, name)(texts) for name in names]
    monkeypatch.setattr("sklseq.rnn._network.LOGITS", 17)
    monkeypatch.setattr("sklseq.rnn._network.INFERENCE_STATES", 7 * 256 * 9)
    for name, expected in zip(names, whole):
        np.testing.assert_array_equal(getattr(model, name)(texts), expected)
    labels = [0, 1, 0, 1, 0]
    classifier = CharRNNClassifier(hidden_size=9, max_iter=1).fit(texts, labels)
    cut = classifier.predict_proba(texts)
    monkeypatch.undo()
    np.testing.assert_allclose(classifier.predict_proba(texts), cut, rtol=1e-5)
