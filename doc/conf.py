"""Sphinx configuration: ``make -C doc html`` builds everything, offline, warnings are errors."""

import os
import re
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))
os.environ["MPLBACKEND"] = "Agg"
os.environ["SKLSEQ_DOCS"] = "../.."  # from a page of the gallery to the root of the pages

import sklseq  # noqa: E402  (the path must be set first)

project = "sklseq"
author = "the sklseq developers"
copyright = f"2026, {author}"
release = version = sklseq.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "mathml",
]
html_math_renderer = "mathml"
templates_path = ["_templates"]
exclude_patterns = ["_build", "**/GALLERY_HEADER.rst"]
default_role = "literal"  # `name` in a docstring is a name

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc says it in words
autodoc_default_options = {"members": True, "inherited-members": True}
numpydoc_show_class_members = False  # the members stand below, in full
numpydoc_validation_checks = set()  # tests/test_docstrings.py does it, without Sphinx

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    # the comparison with hmmlearn is run where that is installed, which the extra doc does without
    "filename_pattern": r"plot_" if find_spec("hmmlearn") else r"plot_(?!peers)",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "doc_module": ("sklseq",),
    "backreferences_dir": "api/backreferences",
    "reference_url": {"sklseq": None},
    "show_signature": False,
    "min_reported_time": 1,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "sklseq"
html_static_path = ["_static"]
html_css_files = ["sklseq.css"]
html_show_sourcelink = False
toc_object_entries_show_parents = "hide"
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "show_nav_level": 1,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
}
html_sidebars = {"index": [], "install": [], "whats_new": []}

# reStructuredText takes n_iter_ in "ndarray of shape (n_iter_ + 1,)" for a link
_FITTED = re.compile(r"(?<![\w`])([A-Za-z]\w*)_(?=[\s,+)])")


def _escape_fitted_names(app, what, name, obj, options, lines):
    for i, line in enumerate(lines):
        head, colon, kind = line.partition(" : ")
        if colon:
            lines[i] = head + colon + _FITTED.sub(r"\1\_", kind)


def _skip_what_scikit_learn_brings(app, what, name, obj, skip, options):
    """get_params and its like are described there."""
    return True if (getattr(obj, "__module__", None) or "").startswith("sklearn.") else None


def setup(app):
    app.connect("autodoc-process-docstring", _escape_fitted_names, priority=100)
    app.connect("autodoc-skip-member", _skip_what_scikit_learn_brings)


# An example that warns is an example that teaches a fault.
warnings.filterwarnings("error", category=UserWarning, module="sklseq")
