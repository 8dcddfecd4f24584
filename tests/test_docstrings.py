"""Every public parameter and fitted attribute is documented, in numpydoc's sections."""

import ast
import inspect
import re
import warnings

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import StandardScaler

import sklseq
import sklseq.datasets
import sklseq.utils

PUBLIC = {
    f"sklseq.{name}": getattr(sklseq, name) for name in sklseq.__all__
} | {
    f"sklseq.{module.__name__.split('.')[-1]}.{name}": getattr(module, name)
    for module in (sklseq.datasets, sklseq.utils)
    for name in module.__all__
}
CLASSES = {name: item for name, item in PUBLIC.items() if inspect.isclass(item)}
ESTIMATORS = {n: c for n, c in CLASSES.items() if issubclass(c, BaseEstimator)}
INHERITED = {
    "get_params", "set_params", "get_metadata_routing", "set_output", "get_feature_names_out",
}  # fmt: skip


def public_methods():
    for name, cls in CLASSES.items():
        for method, function in inspect.getmembers(cls, callable):
            if method.startswith("_") or method in INHERITED:
                continue
            if re.match(r"set_\w+_request", method):
                continue
            if getattr(function, "__module__", "").startswith("sklseq"):
                yield f"{name}.{method}", function


FUNCTIONS = {
    **{name: item for name, item in PUBLIC.items() if inspect.isfunction(item)},
    **dict(public_methods()),
}


def sections(doc: str) -> dict[str, str]:
    """numpydoc's sections by title."""
    doc = inspect.cleandoc(doc or "")
    found, title, lines = {}, "summary", []
    rows = doc.split("\n")
    skip = False
    for row, following in zip(rows, [*rows[1:], ""]):
        if skip:
            skip = False
            continue
        if row.strip() and set(following.strip()) == {"-"} and len(following) >= len(row):
            found[title] = "\n".join(lines)
            title, lines, skip = row.strip(), [], True
        else:
            lines.append(row)
    found[title] = "\n".join(lines)
    return found


def entries(section: str) -> list[str]:
    """Names of a section's entries, in order; ``a, b : type`` gives two."""
    names = []
    for line in section.split("\n"):
        match = re.match(r"^(\*{0,2}[A-Za-z_][\w, *]*?)\s*(:.*)?$", line)
        if match and not line.startswith(" "):
            names += [name.strip().lstrip("*") for name in match.group(1).split(",")]
    return names


def parameters_of(function) -> list[str]:
    return [
        name for name in inspect.signature(function).parameters if name not in ("self", "cls")
    ]


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_and_methods(name):
    function = FUNCTIONS[name]
    parts = sections(function.__doc__)
    assert parts["summary"].strip(), f"{name} has no summary"
    summary = parts["summary"].strip().split("\n")[0]
    assert summary.endswith("."), f"the summary of {name} is one sentence: {summary!r}"
    wanted = parameters_of(function)
    documented = entries(parts.get("Parameters", ""))
    assert documented == wanted, f"{name}: documented {documented}, parameters {wanted}"
    assert "Returns" in parts or "Yields" in parts, f"{name} does not say what it returns"


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_parameters_of_estimators(name):
    parts = sections(ESTIMATORS[name].__doc__)
    wanted = parameters_of(ESTIMATORS[name].__init__)
    assert entries(parts.get("Parameters", "")) == wanted
    for title in ("Attributes", "Examples", "See Also"):
        assert title in parts, f"{name} has no section {title}"
    # every parameter with a default says which
    for parameter in inspect.signature(ESTIMATORS[name].__init__).parameters.values():
        if parameter.name != "self" and parameter.default is not inspect.Parameter.empty:
            line = re.search(rf"^{parameter.name} ?:.*(?:\n[^\n]*)?", parts["Parameters"], re.M)
            assert line, f"{name}: {parameter.name}"
            told = re.search(r"default=([^\n]+)", line.group())
            assert told, f"{name}: {parameter.name} does not say default={parameter.default!r}"
            assert ast.literal_eval(told.group(1)) == parameter.default, line.group()


def fitted_on_something(cls):
    """One fitted estimator for each kind of input."""
    rng = np.random.default_rng(0)
    frame = pytest.importorskip("pandas").DataFrame(
        rng.integers(0, 4, (40, 2)), columns=["a", "b"]
    )
    inner = {sklseq.Stepwise: StandardScaler(), sklseq.SequenceClassifier: sklseq.GaussianHMM()}
    given = {sklseq.CharRNNClassifier: [frame, TEXTS], sklseq.CharRNNLanguageModel: [TEXTS]}
    for X in given.get(cls, [frame]):
        estimator = cls(inner[cls]) if cls in inner else cls()
        y = [rng.permutation(40) % 2] if isinstance(estimator, ClassifierMixin) else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield estimator.fit(X, *y)


TEXTS = ["ab", "ba", "aab", "b"] * 10


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_fitted_attributes(name):
    documented = entries(sections(ESTIMATORS[name].__doc__)["Attributes"])
    hidden = {"final_stateprob_"}  # serves continues=True
    absent = set(documented)
    for estimator in fitted_on_something(ESTIMATORS[name]):
        fitted = {
            attribute
            for attribute in vars(estimator)
            if attribute.endswith("_") and not attribute.startswith("_")
        }
        missing = fitted - set(documented) - hidden
        assert not missing, f"{name}: {sorted(missing)} not documented"
        absent -= {attribute for attribute in documented if hasattr(estimator, attribute)}
    assert not absent, f"{name}: {sorted(absent)} documented but not there after fit"


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_estimators_cite_their_source(name):
    if name == "sklseq.Stepwise":
        return
    parts = sections(ESTIMATORS[name].__doc__)
    assert "References" in parts
    assert re.search(r"\b(1[89]|20)\d\d\b", parts["References"]), "a year"


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_examples_run(name):
    import doctest

    item = PUBLIC[name]
    finder = doctest.DocTestFinder(recurse=True)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in finder.find(item, name, globs={"np": np}):
        if test.examples:
            runner.run(test)
    assert runner.failures == 0
