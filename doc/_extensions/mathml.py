"""Formulas as MathML, which browsers draw themselves: no script and no network is needed."""

import re

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)
SYNONYMS = {r"\dots": r"\ldots"}  # commands that docutils knows by another name


def visit_math(self, node):
    self.body.append(_mathml(node, as_block=False))
    raise SkipNode


def visit_displaymath(self, node):
    self.body.append(f'<div class="math">{_mathml(node, as_block=True)}</div>')
    raise SkipNode


def _mathml(node, *, as_block: bool) -> str:
    source = node.astext()
    for command, known in SYNONYMS.items():
        source = re.sub(re.escape(command) + r"(?![a-zA-Z])", known.replace("\\", r"\\"), source)
    if as_block and (r"\\" in source or "&" in source) and r"\begin" not in source:
        source = rf"\begin{{aligned}}{source}\end{{aligned}}"
    try:
        return tex2mathml(source, as_block=as_block)
    except (MathError, SyntaxError) as error:
        logger.warning("formula %r: %s", source, error, location=node)
        return f"<code>{source}</code>"


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
