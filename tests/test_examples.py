"""Every example of the gallery runs, keeps the rules of the gallery, and draws what can be read.

The gallery takes a minute or two: ``-m "not examples"`` leaves it out.
"""

import ast
import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(ROOT.rglob("plot_*.py"))
LINES = 80
LONGER = {"plot_word_order": 115}  # four models on one text, each with its own form of it

pytestmark = [
    pytest.mark.examples,
    pytest.mark.skipif(not EXAMPLES, reason="the examples are in the source tree"),
]


def needed(source: str) -> list[str]:
    """What an example imports besides sklseq and its dependencies."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return sorted(names & {"matplotlib", "pandas", "hmmlearn", "pykalman", "statsmodels"})


def run(path: Path, monkeypatch, folder: Path):
    """Run an example as the gallery does; the figures that it leaves open."""
    source = path.read_text(encoding="utf-8")
    for module in needed(source):
        pytest.importorskip(module, reason=f"{path.name} uses {module}")
    matplotlib = pytest.importorskip("matplotlib", reason="examples draw")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.close("all")
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: None)
    monkeypatch.chdir(folder)  # pictures that it saves go there
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)  # ConvergenceWarning is one
        exec(compile(source, str(path), "exec"), {"__name__": "__main__", "__file__": str(path)})
    return [plt.figure(number) for number in plt.get_fignums()]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_its_figures_can_be_read(path, monkeypatch, tmp_path):
    figures = run(path, monkeypatch, tmp_path)
    assert figures, "an example answers with a figure"
    for figure in figures:
        assert sum(len(ax.get_children()) for ax in figure.axes)
        labelled = [ax for ax in figure.axes if ax.get_xlabel() or ax.get_ylabel() or not ax.axison]
        assert labelled, "no axis of the figure says what it shows"
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_keeps_the_rules(path):
    source = path.read_text(encoding="utf-8")
    n_lines = sum(bool(line.strip()) for line in source.split("\n"))
    limit = LONGER.get(path.stem, LINES)
    assert n_lines <= limit, f"at most {limit} lines that say something, got {n_lines}"
    assert "shared" not in re.sub(r"#.*", "", source), "only data that ships"
    docstring = ast.get_docstring(ast.parse(source))
    title = next(line for line in docstring.split("\n") if line.strip("= "))
    assert title.endswith("?"), f"the title asks a question: {title!r}"


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in EXAMPLES}), ids=lambda folder: folder.name
)
def test_folder_has_a_header_for_the_gallery(folder):
    headers = [name for name in ("GALLERY_HEADER.rst", "README.rst") if (folder / name).is_file()]
    assert len(headers) == 1
