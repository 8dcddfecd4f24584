"""What the package promises to keep: names, version, typing, files that ship."""

import importlib.metadata
import importlib.resources
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import sklseq

# A name that leaves this list is a change that breaks users: write it in CHANGELOG.md.
NAMES = {
    "CategoricalHMM",
    "GaussianHMM",
    "GaussianMixtureHMM",
    "MultinomialHMM",
    "PoissonHMM",
    "SequenceClassifier",
    "Stepwise",
    "concat_sequences",
    "split_sequences",
}


def test_public_names():
    assert set(sklseq.__all__) >= NAMES
    assert len(set(sklseq.__all__)) == len(sklseq.__all__)
    for name in sklseq.__all__:
        assert getattr(sklseq, name) is not None
    public = {
        name
        for name, item in vars(sklseq).items()
        if not name.startswith("_") and not isinstance(item, type(sklseq))
    }
    assert public == set(sklseq.__all__), "what is public is in __all__, and nothing else"


def test_estimators_say_where_they_are_public():
    import sklseq.hmm

    for name in sklseq.hmm.__all__:
        assert getattr(sklseq.hmm, name) is getattr(sklseq, name)


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", sklseq.__version__)
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    if pyproject.is_file():
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        assert project["version"] == sklseq.__version__
        needs = {re.split(r"[<>=~! ]", line)[0] for line in project["dependencies"]}
        assert needs == {"numpy", "scipy", "scikit-learn"}
    try:
        installed = importlib.metadata.version("sklseq")
    except importlib.metadata.PackageNotFoundError:
        return  # built in place
    assert installed == sklseq.__version__


def test_typed_and_with_data():
    files = importlib.resources.files("sklseq")
    assert files.joinpath("py.typed").is_file()
    for name in ("nile", "earthquakes", "seizures"):
        assert files.joinpath(f"datasets/data/{name}.csv").is_file()


def test_importing_is_light(tmp_path):
    """No plotting, no frames, no peers at import; they come where they are asked for."""
    heavy = ["matplotlib", "pandas", "polars", "hmmlearn", "pykalman", "statsmodels", "torch"]
    code = (
        "import sys, sklearn.base, sklearn.mixture; before = set(sys.modules); import sklseq; "
        f"print([n for n in {heavy!r} if n in sys.modules and n not in before])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,  # not the clone, whose sklseq/ may have no kernels
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert out.stdout.strip() == "[]"


def test_fitting_prints_nothing(capsys):
    from sklseq.datasets import load_earthquakes

    sklseq.PoissonHMM(2, random_state=0).fit(load_earthquakes().data).predict(
        load_earthquakes().data
    )
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_annotations_are_real():
    """py.typed promises types: the public functions have them."""
    import typing

    for function in (sklseq.concat_sequences, sklseq.GaussianHMM.score, sklseq.GaussianHMM.aic):
        assert "return" in typing.get_type_hints(function)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the package needs 3.11")
def test_python_version_is_what_the_package_says():
    assert sys.version_info >= (3, 11)


def same(left, right):
    """Of the same class and content, however nested."""
    assert type(left) is type(right)
    if isinstance(left, tuple | list):
        assert getattr(left, "_fields", None) == getattr(right, "_fields", None)
        assert len(left) == len(right)
        for one, other in zip(left, right):
            same(one, other)
    else:
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("name", "method", "params"),
    [
        ("GaussianHMM", "forecast", {"n_steps": 2, "quantiles": [0.5]}),
        ("PoissonHMM", "forecast", {}),
        ("CategoricalHMM", "forecast", {}),
        ("GaussianHMM", "standard_errors", {}),
        ("GaussianHMM", "forward_backward", {}),
        ("GaussianHMM", "pseudo_residuals", {}),
        ("KalmanSmoother", "forecast", {}),
        ("KalmanSmoother", "filter", {}),
        ("KalmanSmoother", "smooth", {}),
        ("SoftmaxStateSpace", "forecast", {}),
        ("SoftmaxStateSpace", "filter", {}),
        ("SoftmaxStateSpace", "smooth", {}),
    ],
)
def test_results_pickle(name, method, params):
    X = np.random.default_rng(0).integers(0, 3, (30, 2)).astype(float)
    model = getattr(sklseq, name)(1, max_iter=500, tol=1e-3, random_state=0).fit(X)
    result = getattr(model, method)(X, **params)
    assert hasattr(result, "_fields")
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        same(pickle.loads(pickle.dumps(result, protocol)), result)
