# SPDX-License-Identifier: GPL-2.0-or-later
"""No public class name stands for two things in the package."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import vfio_p2p

ROOT = Path(vfio_p2p.__file__).parent


def classes(root: Path) -> Iterator[tuple[str, str]]:
    """Yield each public class at the top of a module, and the module."""
    for path in sorted(root.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name[0] != "_":
                yield node.name, str(path.relative_to(root))


def twice(root: Path) -> dict[str, list[str]]:
    """Return the names that are defined more than once, with the modules."""
    found = defaultdict(list)
    for name, module in classes(root):
        found[name].append(module)
    return {name: where for name, where in found.items() if len(where) > 1}


def test_no_class_name_is_used_twice() -> None:
    assert len(list(classes(ROOT))) > 100
    assert twice(ROOT) == {}


def test_a_name_that_is_used_twice_is_seen(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("class One:\n    pass\n")
    assert twice(tmp_path) == {"One": ["a.py", "b.py"]}
