"""How Sphinx builds these pages: `make docs`."""

from nbqueue import _version

project = "nbqueue"
author = "nbqueue contributors"
release = _version.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.mermaid"]
myst_fence_as_directive = ["mermaid"]
default_role = "code"
html_theme = "furo"
html_title = f"nbqueue {release}"
exclude_patterns = ["_build", "adr/0000-template.md"]
myst_heading_anchors = 3
