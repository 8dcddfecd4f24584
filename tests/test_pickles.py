"""Pickles say which version made them; those of versions before load, and say so.

``tests/house/pickles.py`` writes the files, once a release.
"""

import copy
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning

import sklseq

FILES = sorted(Path(__file__).parent.glob("house/pickles-*.pkl"))


def kept():
    return [
        pytest.param(path.stem.removeprefix("pickles-"), *entry, id=f"{path.stem}-{name}")
        for path in FILES
        for name, entry in pickle.loads(path.read_bytes()).items()
    ]


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="written by NumPy 2")
@pytest.mark.parametrize("version, dump, X, says", kept())
def test_a_model_of_a_version_before_loads_says_so_and_says_the_same(version, dump, X, says):
    with pytest.warns(InconsistentVersionWarning, match=f"pickled by sklseq {version}, this is"):
        model = pickle.loads(dump)
    if not isinstance(X[0], str) and np.ndim(X[0]) == 2:
        X = [np.array(one) for one in X]
    for name in ("score_samples", "predict_proba", "transform"):
        if hasattr(model, name):
            np.testing.assert_allclose(getattr(model, name)(X)[0], says, rtol=1e-6, atol=1e-9)
            return


def test_a_pickle_of_this_version_is_silent_and_one_of_another_is_not(monkeypatch):
    X = np.random.default_rng(0).normal(size=(30, 2))
    model = sklseq.GaussianHMM(1, random_state=0).fit(X)
    dump = pickle.dumps(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = pickle.loads(dump)
        copy.deepcopy(model)
        clone(model)
    assert again.score(X) == model.score(X)
    assert vars(again).keys() == vars(model).keys()
    monkeypatch.setattr(sys.modules["sklseq"], "__version__", "99.0")
    with pytest.warns(InconsistentVersionWarning, match=r"GaussianHMM.*this is 99\.0"):
        assert pickle.loads(dump).score(X) == model.score(X)


def test_there_is_a_file_of_the_first_version_with_every_class():
    names = pickle.loads((Path(__file__).parent / "house/pickles-0.1.0.pkl").read_bytes())
    assert {name for name in sklseq.__all__ if name[0].isupper()} <= set(names)
