# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that are files of their own, and no part of the package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def load_script(path: Path) -> ModuleType:
    """Load a program as a module that has its name.

    :param path: Its file.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look there for the types of their fields.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def load_tool(name: str) -> ModuleType:
    """Load a program of the folder ``tools``.

    :param name: Its name, without ``.py``.
    """
    return load_script(ROOT / "tools" / f"{name}.py")
