"""The pages: every example in them runs, every public name is in the reference."""

import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

DOC = Path(__file__).parents[1] / "doc"
PAGES = sorted(DOC.glob("*.rst"))
WITH_EXAMPLES = [page for page in PAGES if ">>>" in page.read_text(encoding="utf-8")]
MODULES = ["sklseq", "sklseq.datasets", "sklseq.inspection", "sklseq.topics", "sklseq.utils"]
PEERS = {  # page -> what it converts from or runs on, which is not installed everywhere
    "cluster": ["distributed", "ray"],
    "from_hmmlearn": ["hmmlearn"],
    "from_pykalman": ["pykalman"],
    "from_statsmodels": ["statsmodels"],
}

pytestmark = pytest.mark.skipif(
    not PAGES, reason="the pages are in the source tree, beside the tests"
)


@pytest.fixture(autouse=True)
def plain_arrays(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    with np.printoptions(precision=8, suppress=False):
        yield


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.stem)
def test_examples_in_pages_run(page):
    for module in PEERS.get(page.stem, []):
        pytest.importorskip(module, reason=f"{page.name} needs {module}")
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r">>> from sklseq import (.*)", text):
        import sklseq

        absent = [one for one in name.split(", ") if not hasattr(sklseq, one)]
        if absent:
            pytest.skip(f"the page waits for {', '.join(absent)}")
    if re.search(r"inspection|matplotlib", text):
        pytest.importorskip("matplotlib", reason="the page draws")
    if re.search(r"pandas|as_frame", text):
        pytest.importorskip("pandas", reason="the page uses frames")
    result = doctest.testfile(
        str(page),
        module_relative=False,
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS,
        globs={"np": np},
    )
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_python_block_is_run(page):
    """A block of Python that is no doctest would be one that nobody runs."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"\.\. code-block:: python\n((?:\n|[ ]+.*\n?)+)", text):
        code = [line for line in block.split("\n") if line.strip() and ":" not in line[:5]]
        assert code[0].lstrip().startswith(">>>"), f"{page.name}: {code[0]!r} is never run"


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference(module):
    listed = set((DOC / "api.rst").read_text(encoding="utf-8").split())
    inner = module.removeprefix("sklseq").lstrip(".")
    for name in importlib.import_module(module).__all__:
        entries = {name, f"{inner}.{name}"} if inner else {name}
        assert entries & listed, f"doc/api.rst does not list {name} of {module}"


def test_reference_lists_nothing_that_is_gone():
    import sklseq

    text = (DOC / "api.rst").read_text(encoding="utf-8")
    for entry in re.findall(r"^   ([A-Za-z][\w.]*)$", text, flags=re.M):
        item = sklseq
        for part in entry.split("."):
            if item is sklseq and not hasattr(item, part):
                importlib.import_module(f"sklseq.{part}")
            item = getattr(item, part)


def test_versions_agree():
    import sklseq

    root = DOC.parent
    assert f"version: {sklseq.__version__}\n" in (root / "CITATION.cff").read_text()
    assert sklseq.__version__ in (DOC / "whats_new.rst").read_text()


def test_estimators_link_to_their_page(monkeypatch):
    """The link of the HTML representation leads to a page that api.rst makes."""
    import inspect

    from sklearn.base import BaseEstimator

    import sklseq

    listed = set((DOC / "api.rst").read_text(encoding="utf-8").split())
    monkeypatch.setenv("SKLSEQ_DOCS", "/docs/")
    for name in sklseq.__all__:
        item = getattr(sklseq, name)
        if not (inspect.isclass(item) and issubclass(item, BaseEstimator)):
            continue
        link = item(*_wrapped_by(item))._get_doc_link()
        assert link == f"/docs/api/sklseq.{name}.html", name
        assert name in listed


def _wrapped_by(cls) -> list:
    """An estimator for each parameter without a default: Stepwise, SequenceClassifier."""
    import inspect

    import sklseq

    parameters = inspect.signature(cls).parameters.values()
    return [sklseq.GaussianHMM() for p in parameters if p.default is inspect.Parameter.empty]


def test_representation_shows_what_was_fitted(monkeypatch):
    from sklseq import GaussianHMM

    monkeypatch.setenv("SKLSEQ_DOCS", "/docs")
    model = GaussianHMM(random_state=0).fit(np.arange(10.0).reshape(-1, 1))
    html = model._repr_html_()
    assert "/docs/api/sklseq.GaussianHMM.html" in html
    import sklearn

    if tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 9):
        assert "transmat_" in html
