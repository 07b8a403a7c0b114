# SPDX-License-Identifier: GPL-2.0-or-later
"""The modules that run in the VM, known by their imports.

The image holds these modules and no others, so that a change of any other
module leaves the image as it is, and with it the result of every run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "vfio_p2p"
ENTRY = f"{PACKAGE}.places.sealed.inside"


def modules_inside(root: Path) -> dict[str, bytes]:
    """Find the modules that the VM imports, from `ENTRY` on.

    The ``__init__`` of a package is empty in the VM unless one of these
    modules imports a name from it: then it goes in whole, with everything
    that it imports.

    :param root: The folder of the package.
    :return: Contents by path, relative to the folder, in order.
    """
    files: dict[str, bytes] = {}
    todo = [ENTRY]
    while todo:
        path = _path(root, todo.pop())
        name = str(path.relative_to(root))
        if files.get(name):
            continue
        files[name] = path.read_bytes()
        todo += _imports(root, ast.parse(files[name]))
        for above in path.relative_to(root).parents:
            files.setdefault(str(above / "__init__.py"), b"")
    return dict(sorted(files.items()))


def _path(root: Path, module: str) -> Path:
    parts = module.split(".")[1:]
    package = root.joinpath(*parts, "__init__.py")
    return package if package.exists() else root.joinpath(*parts[:-1],
                                                          f"{parts[-1]}.py")


def _is_module(root: Path, name: str) -> bool:
    path = root.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").exists()


def _imports(root: Path, tree: ast.AST) -> Iterator[str]:
    """Names of the package's modules that a module imports when it runs."""
    for node in _statements(tree):
        match node:
            case ast.Import(names=names):
                yield from (x.name for x in names if _ours(x.name))
            case ast.ImportFrom(module=str(module), names=names, level=0):
                if not _ours(module):
                    continue
                for each in names:
                    inner = f"{module}.{each.name}"
                    yield inner if _is_module(root, inner) else module


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Everything in a module except what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for other in node.orelse:
                    yield other
                    yield from _statements(other)
            case ast.stmt() | ast.ExceptHandler() | ast.match_case():
                yield node
                yield from _statements(node)


def _ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")
