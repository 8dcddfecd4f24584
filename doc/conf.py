"""Sphinx configuration: ``make -C doc html`` builds everything, offline, warnings are errors."""

import os
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))
sys.path.insert(0, str(HERE.parent))  # the checkout, built in place, comes before an installed copy
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
# what scikit-learn's base classes bring is described there
autodoc_default_options = {
    "members": True,
    "inherited-members": True,
    "exclude-members": ",".join(
        ["get_params", "set_params", "get_metadata_routing", "set_output"]
        + [
            f"set_{method}_request"
            for method in (
                "fit partial_fit predict predict_proba predict_log_proba decision_function score "
                "transform inverse_transform"
            ).split()
        ]
    ),
}
numpydoc_show_class_members = False  # the members stand below, in full
numpydoc_validation_checks = set()  # tests/test_docstrings.py does it, without Sphinx

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
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
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "show_nav_level": 1,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 8,
}
html_sidebars = {"index": [], "install": [], "whats_new": []}

# An example that warns is an example that teaches a fault.
warnings.filterwarnings("error", category=UserWarning, module="sklseq")
