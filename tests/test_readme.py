"""The front door: README's code blocks run as they stand, its first two commands are one line."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

import sklseq

README = Path(__file__).parents[1] / "README.md"
pytestmark = pytest.mark.skipif(not README.is_file(), reason="no README.md beside tests/")


def blocks(language):
    text = README.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.M | re.S)


def test_python_blocks_as_doctests():
    found = blocks("python")
    assert len(found) >= 3
    session = {}
    parser = doctest.DocTestParser()
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    with np.printoptions(precision=3, suppress=True):
        for number, block in enumerate(found):
            assert ">>>" in block, f"block {number} is not a session: {block}"
            test = parser.get_doctest(block, session, f"README block {number}", str(README), 0)
            runner.run(test, clear_globs=False)
            session = test.globs
    assert runner.failures == 0


def test_the_first_two_bash_blocks_are_one_line_each():
    first, second = blocks("bash")[:2]
    for block in (first, second):
        assert len(block.strip().splitlines()) == 1
        assert "pip install" in block
        assert "../shared" not in block
    assert "examples/hmm/" in first
    assert "pytest" in second


def test_every_estimator_is_in_the_table():
    text = README.read_text(encoding="utf-8")
    for name in sklseq.__all__:
        if isinstance(getattr(sklseq, name), type):
            assert f"`{name}`" in text, name
