# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration of the documentation site; 'make docs' builds it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE))

_PACKAGE = tomllib.loads((_HERE.parent / "pyproject.toml").read_text())

project = "vfio-p2p"
version = release = _PACKAGE["project"]["version"]
project_copyright = "the vfio-p2p authors, GPL-2.0-or-later"

extensions = [
    "extensions.generated",
    "extensions.signatures",
    "myst_parser",
    "sphinx.ext.autodoc",
]
exclude_patterns = ["extensions", "examples"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
autodoc_preserve_defaults = True

# Most blocks show commands and what they print.
highlight_language = "none"

html_theme = "furo"
html_title = f"vfio-p2p {release}"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
