"""Every public estimator has an entry in the registry, and every entry works."""

import warnings

import pytest
from golden import METHODS, compare, results_of
from registry import ENTRIES, public_estimators
from sklearn.exceptions import ConvergenceWarning


def test_every_public_class_has_an_entry():
    assert {type(entry.make()).__name__ for entry in ENTRIES} == set(public_estimators())
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)


def test_every_public_method_has_a_golden_result_or_a_reason():
    """A new method must not be forgotten when results are compared before and after a move."""
    known = set(METHODS) | {
        "fit", "partial_fit", "fit_predict", "fit_transform", "from_parameters",  # they make models
        "get_params", "set_params", "set_output", "get_metadata_routing", "get_feature_names_out",
        "inverse_transform", "filter_update", "sort_states", "align_states",  # other arguments
        "generate",
    }  # fmt: skip
    for name, item in public_estimators().items():
        public = {
            method for method in dir(item)
            if not method.startswith("_") and callable(getattr(item, method))
        }  # fmt: skip
        missing = {one for one in public - known if not one.startswith("set_")}
        assert not missing, f"{name}: {sorted(missing)}"


@pytest.mark.parametrize("entry", ENTRIES[::5], ids=lambda entry: entry.name)
def test_results_repeat_and_differences_are_found(entry):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        one, two = results_of(entry), results_of(entry)
    assert compare(one, two) == []
    name = next(name for name, value in two.items() if getattr(value, "dtype", "") == "f8")
    two[name] = two[name] + 1e-12
    assert [line.split(":")[0] for line in compare(one, two)] == [name]
