"""Large and read-only data: nothing is copied as a whole, nothing of the caller's is written to."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.preprocessing import StandardScaler

from sklseq import (
    CategoricalHMM,
    CharRNNClassifier,
    GaussianHMM,
    GaussianMixtureHMM,
    KalmanSmoother,
    MultinomialHMM,
    PoissonHMM,
    SequenceClassifier,
    SoftmaxStateSpace,
    Stepwise,
)
from sklseq.state_space import _linear_gaussian as linear_gaussian
from sklseq.topics import TopicMixture

# One process, whose peak of resident memory can be set back; mapped pages count as well.
PEAKS = """
import json, sys, warnings
from pathlib import Path
import numpy as np
import sklseq

warnings.simplefilter("ignore")

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

path, n = sys.argv[1], int(sys.argv[2])
ratios = {}
for name in ("GaussianHMM", "CategoricalHMM", "PoissonHMM", "MultinomialHMM",
             "GaussianMixtureHMM", "KalmanSmoother"):
    small = np.random.default_rng(0).integers(0, 4, size=(500, 5)).astype(float)
    model = getattr(sklseq, name)(2, max_iter=2, random_state=0).fit(small)
    model.score(small)
    for lengths in (None, np.full(n // 1000, 1000)):
        X = np.memmap(path, mode="r", dtype=float, shape=(n, 5))
        Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        model.score(X, lengths=lengths)
        key = name + (" one" if lengths is None else " many")
        ratios[key] = (peak() - before) / X.nbytes
        del X
print(json.dumps(ratios))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc"
)
def test_score_of_a_memory_map_copies_no_more_than_a_third(tmp_path):
    n, path = 1_500_000, tmp_path / "X.dat"  # 60 MB
    X = np.memmap(path, mode="w+", dtype=float, shape=(n, 5))
    X[:] = np.random.default_rng(0).integers(0, 4, size=(n, 5))
    X.flush()
    run = subprocess.run(
        [sys.executable, "-c", PEAKS, str(path), str(n)],
        capture_output=True, text=True, check=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    ratios = json.loads(run.stdout)
    assert len(ratios) == 12
    assert {name: ratio for name, ratio in ratios.items() if ratio > 1.3} == {}


def test_a_long_sequence_is_scored_in_blocks_without_a_seam(monkeypatch, rng):
    X = np.cumsum(rng.normal(size=(3000, 2)), axis=0)
    X[rng.random(X.shape) < 0.1] = np.nan
    u = rng.normal(size=(3000, 1))
    for inputs_to in ("state", "observation"):
        model = KalmanSmoother(2, inputs_to=inputs_to, max_iter=3, tol=1.0).fit(X, inputs=u)
        whole = model.score(X, inputs=u)
        monkeypatch.setattr(linear_gaussian, "LONG", 700)
        assert model.score(X, inputs=u) == pytest.approx(whole, rel=1e-11)
        assert model.score_samples(X, inputs=u).mean() == pytest.approx(whole, rel=1e-11)
        monkeypatch.undo()


def test_codes_of_many_categories_are_not_cut_short(rng):
    """Past 16 bits."""
    table = np.full((1, 40_000), 1 / 40_000)
    model = CategoricalHMM.from_parameters(startprob=[1], transmat=[[1]], emissionprob=table)
    assert model.score([[39_999.0], [np.nan]]) == pytest.approx(-np.log(40_000) / 2)
    with pytest.raises(ValueError, match="Unknown category 70000"):
        model.score([[70_000.0]])


# --- Read-only ------------------------------------------------------------------------------------


def read_only(*arrays):
    for array in arrays:
        array.flags.writeable = False
    return arrays


def methods_run(model, X, **aligned):
    """Every method that takes X, on data that cannot be written to."""
    known = {name: value for name, value in aligned.items() if name != "states"}
    for name in ("score", "score_samples", "score_sequences", "predict", "predict_proba", "decode",
                 "transform", "filter", "smooth", "forecast", "aic", "bic", "sample_posterior",
                 "pseudo_residuals", "forward_backward"):  # fmt: skip
        if hasattr(model, name) and not (name == "pseudo_residuals" and "Softmax" in repr(model)):
            extra = {}
            if name == "forecast" and "inputs" in known:
                extra = {"future_inputs": read_only(np.ones((1, 1)))[0]}
            getattr(model, name)(X, **known, **extra)


def table(rng, n_columns=2):
    return rng.integers(0, 4, size=(60, n_columns)).astype(float)


@pytest.mark.parametrize(
    "make", [CategoricalHMM, GaussianHMM, GaussianMixtureHMM, MultinomialHMM, PoissonHMM]
)
def test_read_only_input_of_the_hmms(make, rng):
    (X, states), gaps = read_only(table(rng), np.arange(60) // 10 % 2), table(rng)
    params = {"max_iter": 2, "tol": 10.0, "random_state": 0, "n_init": 2}
    methods_run(make(**params).fit(X, states=states), X)
    (lengths,) = read_only(np.array([20, 40]))
    model = make(**params).fit(X, lengths=lengths)
    methods_run(model, X, lengths=lengths)
    model.partial_fit(X, states=states, groups=read_only(np.repeat([1, 2], 30))[0])
    if make is not MultinomialHMM:
        gaps[3, 0] = np.nan
        methods_run(make(**params).fit([read_only(gaps)[0], X]), [gaps, X])


@pytest.mark.parametrize("kind", ["diag", "full", "spherical"])
def test_read_only_input_of_the_kalman_smoother(kind, rng):
    X, u, states = read_only(rng.normal(size=(60, 3)), np.ones((60, 1)), np.ones((60, 1)))
    gaps = X.copy()
    gaps[rng.random(X.shape) < 0.2] = np.nan
    read_only(gaps)
    params = {"max_iter": 2, "tol": 10.0, "observation_covariance_type": kind}
    for data in (X, gaps):
        for inputs_to in ("state", "observation"):
            model = KalmanSmoother(inputs_to=inputs_to, **params).fit(data, inputs=u)
            methods_run(model, data, inputs=u)
        KalmanSmoother(**params).partial_fit(data).partial_fit(data)
        KalmanSmoother(2, **params).fit([data, data])
    KalmanSmoother(**params).fit(X, states=states + 0.1 * X[:, :1])


@pytest.mark.parametrize("sparse_input", [False, True])
def test_read_only_input_of_the_word_models(sparse_input, rng):
    X = rng.poisson(0.7, size=(60, 5)).astype(float)
    if sparse_input:
        X = sparse.csr_array(X)
        X.indices[:2] = X.indices[:2][::-1].copy()  # not in order: it must not be put in order here
        X.has_sorted_indices = X.has_canonical_format = False
        read_only(X.data, X.indices, X.indptr)
    else:
        read_only(X)
    model = SoftmaxStateSpace(max_iter=2, tol=10.0, n_particles=20).fit(X)
    methods_run(model, X)
    topics = TopicMixture(2, max_iter=2, tol=10.0, random_state=0, n_particles=5).fit(X)
    methods_run(topics, X)


def test_read_only_input_of_what_stands_around(rng):
    X, y = read_only(table(rng, 6), np.arange(60) % 2)
    classifier = CharRNNClassifier(max_iter=1, hidden_size=4, tol=10.0, n_iter_no_change=1)
    classifier.fit(X, y).predict_proba(X)
    classifier.partial_fit(X, y)
    sequences = [X, X + 1.0, X, X + 1.0]
    read_only(*sequences)
    Stepwise(StandardScaler()).fit_transform(sequences)
    SequenceClassifier(GaussianHMM(max_iter=1, tol=10.0)).fit(
        sequences, read_only(np.array([0, 1, 0, 1]))[0]
    ).predict(sequences)


def test_a_memory_mapped_fit_is_that_of_the_array(tmp_path, rng):
    X = rng.normal(size=(300, 2))
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    here, there = (GaussianHMM(2, random_state=0, max_iter=3, tol=10.0).fit(one)
                   for one in (X, mapped))  # fmt: skip
    np.testing.assert_array_equal(there.means_, here.means_)
    assert there.score(mapped) == here.score(X)
