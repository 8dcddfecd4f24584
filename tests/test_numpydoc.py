"""numpydoc's own validation of every public docstring."""

import importlib
import inspect

import pytest

validation = pytest.importorskip("numpydoc.validate", reason="numpydoc validates docstrings")

MODULES = ["sklseq", "sklseq.datasets", "sklseq.inspection", "sklseq.topics", "sklseq.utils"]

# What the house does otherwise, and why.
WAIVED = {
    "ES01": "one sentence is enough where one sentence says it",
    "SA01": "estimators and functions have See Also; methods stand beside each other on one page",
    "EX01": "estimators and functions have examples; methods are used in those",
    "PR04": "X, y, groups, lengths: as in fit",
    "PR07": "the type says it: X, an array of this shape",
    "RT03": "the type says it: self, an array of this shape",
    "RT04": "a description goes on from the type: 'log p(path, x) in nats'",
    "SS02": "scikit-learn is written small",
    "SS05": "takes Akaike's and Gibbs for verbs in the third person",
}


def public_items():
    """Names of what stands by itself, and of the methods of what does."""
    items, methods = [], []
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            item = getattr(module, name)
            items.append(f"{module_name}.{name}")
            if not inspect.isclass(item):
                continue
            for method, function in inspect.getmembers(item, callable):
                ours = (getattr(function, "__module__", None) or "").startswith("sklseq")
                if ours and not method.startswith("_"):
                    methods.append(f"{module_name}.{name}.{method}")
    return sorted(items), sorted(methods)


ITEMS, METHODS = public_items()


@pytest.mark.parametrize("name", ITEMS + METHODS)
def test_docstring(name):
    errors = validation.validate(name)["errors"]
    waived = WAIVED if name in METHODS else {k: v for k, v in WAIVED.items() if k != "EX01"}
    told = [f"{code}: {text}" for code, text in errors if code not in waived]
    assert not told, "\n".join([name, *told])
