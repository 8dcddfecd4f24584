"""Files of estimators hold plain arrays: skops is asked to trust no private class."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from registry import ENTRIES

from sklseq.utils import trusted_types

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def prepared(entry, how):
    """An estimator that was fitted, or has learned a chunk."""
    estimator = entry.make()
    X, y = entry.data()
    if how == "fit":
        return estimator.fit(X, y)
    return estimator.partial_fit(X, *(() if y is None else (y, np.unique(y))))


WAYS = [
    pytest.param(entry, how, id=f"{entry.name}-{how}")
    for entry in ENTRIES
    for how in ("fit", "partial_fit")
    if how == "fit" or hasattr(entry.make(), how)
]


def outputs(estimator, entry):
    X, y = entry.data()
    if not hasattr(estimator, "score"):
        return np.concatenate(estimator.transform(X))
    return np.array(estimator.score(X, y))


def test_names_are_those_of_the_public_estimators():
    assert set(trusted_types()) == {
        f"{type(e).__module__}.{type(e).__qualname__}" for e in (entry.make() for entry in ENTRIES)
    }


def same_after_a_round_trip(loaded, estimator, entry):
    np.testing.assert_array_equal(outputs(loaded, entry), outputs(estimator, entry))
    if not hasattr(estimator, "partial_fit"):
        return
    X, y = entry.data()
    for one in (loaded, estimator):  # what goes on does so from the same sums
        one.partial_fit(X, *(() if y is None else (y,)))
    np.testing.assert_array_equal(outputs(loaded, entry), outputs(estimator, entry))


@pytest.mark.parametrize("entry, how", WAYS)
def test_skops(entry, how):
    skops = pytest.importorskip("skops.io", reason="needs skops (the extra 'peers')")
    estimator = prepared(entry, how)
    data = skops.dumps(estimator)
    assert set(skops.get_untrusted_types(data=data)) <= set(trusted_types())
    same_after_a_round_trip(skops.loads(data, trusted=trusted_types()), estimator, entry)


def classes_in(data: bytes) -> set[str]:
    """Modules of what a pickle asks for."""
    found = set()

    class Looking(pickle.Unpickler):
        def find_class(self, module, name):
            found.add(f"{module}.{name}")
            return super().find_class(module, name)

    import io

    Looking(io.BytesIO(data)).load()
    return {name for name in found if name.startswith("sklseq.")}


@pytest.mark.parametrize("entry, how", WAYS)
def test_a_pickle_names_estimators_only(entry, how):
    estimator = prepared(entry, how)
    data = pickle.dumps(estimator)
    assert classes_in(data) <= set(trusted_types())
    same_after_a_round_trip(copy.deepcopy(estimator), pickle.loads(data), entry)


def test_a_class_that_is_none_of_ours_is_not_built():
    entry = next(entry for entry in ENTRIES if entry.name == "PoissonHMM")
    estimator = entry.make().fit(*entry.data())
    state = estimator.__getstate__()
    for name in ("os:system", "sklseq.hmm._chain:nothing", "sklseq._pickles:sys"):
        state["_stream"] = {"__sklseq_class__": name}
        with pytest.raises(ValueError, match="does not have"):
            entry.make().__setstate__(state)
