"""The link to the documentation in an estimator's HTML representation."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import metadata


class DocumentationLink:
    """Mixin: the question mark in the HTML representation leads to the estimator's page.

    scikit-learn documents these two attributes for third parties ("Developer API for HTML
    representation").  The root of the pages is the environment variable ``SKLSEQ_DOCS`` (the URL or
    the folder of a built documentation), else the URL that the package's metadata gives; where
    there is neither, there is no link rather than a dead one.
    """

    _doc_link_module = "sklseq"

    @property
    def _doc_link_template(self) -> str:
        root = os.environ.get("SKLSEQ_DOCS") or _url_in_metadata()
        return f"{root.rstrip('/')}/api/sklseq.{{estimator_name}}.html" if root else ""


@lru_cache(maxsize=1)
def _url_in_metadata() -> str:
    try:
        urls = metadata.metadata("sklseq").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:  # built in place, not installed
        return ""
    named = dict(url.split(", ", 1) for url in urls)
    return named.get("Documentation", "")
