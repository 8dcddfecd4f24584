"""Imports go strictly down, wings never import each other, scikit-learn stays public."""

import ast
from pathlib import Path

import pytest

import sklseq

ROOT = Path(sklseq.__file__).parent
WINGS = ("hmm", "state_space", "rnn", "topics")

# The floors of the house.  A module may import modules of lower floors only; what is not listed is
# named in the failure, so that a new room gets its floor here.
GROUND = {
    "_documentation", "_notices", "_pickles", "_progress", "_validation", "_sequences",
    "_covariance", "_workers", "_em", "_online", "_base",
}  # fmt: skip


def modules():
    return sorted(path for path in ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported(path: Path) -> set[str]:
    """Dotted names of everything a module imports, at any depth of its code."""
    names = set()
    package = ("sklseq", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (base, node.module or "") if part)
            names |= {source} | {f"{source}.{alias.name}" for alias in node.names}
    return names


def floor(name: str) -> int:
    """0 the ground; 1 kernels and chains; 2 faces; 3 families; 4 packages; 5 the roof."""
    head, _, tail = name.partition(".")
    if name == "":
        return 6
    if head in WINGS:
        if not tail:
            return 5
        if tail == "_base":
            return 3
        return 4 if tail in FAMILIES else 2
    if head in GROUND_FLOOR:
        return 0
    return {"_sequences": 0, "_workers": 0, "_em": 1, "_online": 1, "_base": 2}.get(head, 5)


GROUND_FLOOR = {
    "datasets", "_documentation", "_notices", "_pickles", "_progress", "_validation",
    "_covariance", "_scratch",
}  # fmt: skip
FAMILIES = {
    "_gaussian", "_categorical", "_poisson", "_gaussian_mixture", "_multinomial", "_kalman",
    "_time_axis",
    "_softmax", "_char_rnn", "_classifier", "_language_model", "_topic_mixture",
}  # fmt: skip


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_down(path):
    mine = name_of(path)
    here = {name_of(other) for other in modules()}
    for name in imported(path):
        if not name.startswith("sklseq."):
            assert name != "sklseq" or mine == "", f"{mine} imports the roof"
            continue
        inner = name.removeprefix("sklseq.")
        if inner not in here or inner == mine or inner + "." in mine + ".":
            continue  # an object inside a module, a compiled kernel, or the module itself
        assert floor(inner) <= floor(mine), f"{mine} imports {inner}, which stands above it"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_wings_never_import_each_other(path):
    wing = name_of(path).partition(".")[0]
    others = [other for other in WINGS if other != wing]
    if wing not in WINGS and wing not in GROUND:
        return  # the roof, and what joins wings on purpose
    for name in imported(path):
        for other in others:
            assert not name.startswith(f"sklseq.{other}"), f"{name_of(path)} imports {name}"


def test_no_import_goes_in_a_circle():
    graph = {}
    here = {name_of(path): path for path in modules()}
    for name, path in here.items():
        targets = {
            other.removeprefix("sklseq.") for other in imported(path) if other.startswith("sklseq.")
        }
        graph[name] = {target for target in targets if target in here and target != name}

    def visit(name, trail):
        assert name not in trail, " -> ".join([*trail, name])
        for target in graph[name]:
            if target and not name.startswith(f"{target}."):  # a package may be named by its rooms
                visit(target, (*trail, name))

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_only_public_scikit_learn_and_the_three_dependencies(path):
    allowed = {"sklearn", "numpy", "scipy", "sklseq", "joblib", "threadpoolctl"}
    optional = {"matplotlib", "pandas", "ray"}  # imported inside functions, where asked for
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top_level = {
        name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else ([node.module] if node.module and not node.level else [])
        )
    }
    import sys

    for name in imported(path):
        root = name.split(".")[0]
        if not root or root in sys.stdlib_module_names:
            continue
        assert root in allowed | optional, f"{name_of(path)} imports {name}"
        if root in ("sklearn", "scipy", "numpy"):
            private = [part for part in name.split(".") if part.startswith("_")]
            assert not private, f"{name_of(path)} imports {name}, which is private"
    assert not {name.split(".")[0] for name in top_level} & optional
