# SPDX-License-Identifier: GPL-2.0-or-later
"""Apply patches strictly: all of them apply exactly, or none is applied.

Patches are untrusted.  git applies them to copies of the files that they
name, in a scratch folder outside of any repository.  The result is a plain
mapping; the caller's tree stays as it is.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol

from vfio_p2p.errors import MissingToolError, PatchError
from vfio_p2p.machine.temporary import temporary_folder
from vfio_p2p.series.diff import NO_FILE, FileDiff, read_diff
from vfio_p2p.series.patch import Patch

PLAIN_MODE = "100644"
NO_DIFF = "it contains no diff"

# git looks for the place of a hunk in the whole file, for each hunk anew.
_GIT_LIMIT_S = 120


#: The new content of files; None for a file that is deleted.
Changes = Mapping[str, bytes | None]


class Tree(Protocol):
    """A tree of files that patches apply to.

    Paths are relative to its top and have slashes.
    """

    def kind_of(self, path: str) -> str | None:
        """Return the kind of a file.

        :return: "f" for a plain file, "x" for an executable one, "l" for a
                 symbolic link.  None if there is nothing, or a folder.
        """

    def read(self, path: str) -> bytes:
        """Return the content of a file."""


def check_patch(patch: Patch) -> None:
    """Refuse a patch that cannot apply to any tree.

    :raise PatchError: When the patch is malformed or binary, or names a
                       path outside of the tree.
    """
    _first_good(patch, lambda diff: _paths(patch, _parse(patch, diff)))


def apply_patches(
    tree: Tree, patches: Iterable[Patch], *, reverse: bool = False
) -> Changes:
    """Apply patches one after another.

    :param tree: The tree that they apply to.
    :param patches: The patches, in order.
    :param reverse: Revert each patch instead, in the order given.
    :return: Each file that differs in the end.
    :raise PatchError: When a patch is malformed, does not apply exactly
                       (line numbers may be off, context may not), or names
                       anything but a plain file of the tree.
    :raise MissingToolError: When git is missing.
    """
    before: dict[str, bytes | None] = {}
    with temporary_folder() as name:
        scratch = Path(name).resolve()

        def apply(patch: Patch, diff: bytes) -> None:
            files = _parse(patch, diff)
            for path in _paths(patch, files):
                if path in before:
                    continue
                _check_place(tree, patch, path)
                before[path] = None
                if tree.kind_of(path):
                    before[path] = tree.read(path)
                    _write(scratch / path, tree.read(path))
            _git_apply(patch, diff, files, scratch, reverse)

        for patch in patches:
            _first_good(patch, partial(apply, patch))
            _check_result(patch, before, scratch)
        after = {path: _content(scratch / path) for path in before}
    return {
        path: after[path]
        for path in sorted(before)
        if after[path] != before[path]
    }


def _first_good(patch: Patch, use: Callable[[bytes], object]) -> None:
    """Use the first reading of a patch that can be used.

    :raise PatchError: When none can; the error is that of the likeliest.
    """
    first: PatchError | None = None
    for diff in patch.readings:
        try:
            use(diff)
        except PatchError as error:
            first = first or error
        else:
            return
    raise first or PatchError(patch.name, None, None, NO_DIFF)


def _parse(patch: Patch, diff: bytes) -> list[FileDiff]:
    """Read a diff, and refuse what must not be applied."""
    # The decoded text is only examined: git gets the bytes as they are.
    files = read_diff(patch.name, diff.decode(errors="replace"))
    if not files:
        raise PatchError(patch.name, None, None, NO_DIFF)
    for file in files:
        if file.binary:
            raise PatchError(
                patch.name, file.path, None, "the patch is binary"
            )
        for mode in file.modes:
            if mode != PLAIN_MODE:
                raise PatchError(
                    patch.name, file.path, None,
                    f"the patch gives the file mode {mode}; only "
                    f"{PLAIN_MODE} is allowed",
                )
    return files


def _paths(patch: Patch, files: list[FileDiff]) -> list[str]:
    """Return the paths that a patch names, without their prefixes."""
    paths = []
    for file in files:
        for name, prefix in ((file.source, "a/"), (file.target, "b/")):
            if name == NO_FILE:
                continue
            path = name.removeprefix(prefix)
            if path == name:
                raise PatchError(
                    patch.name, name, None,
                    "the path lacks the prefix a/ or b/",
                )
            parts = PurePosixPath(path).parts
            if "\0" in path or any(len(x.encode()) > 255 for x in parts):
                raise PatchError(
                    patch.name, name[:80], None,
                    "no file can have such a path",
                )
            if (
                path.startswith("/")
                or not parts
                or {"..", ".git"} & {x.lower() for x in parts}
                or str(PurePosixPath(path)) != path
            ):
                raise PatchError(
                    patch.name, name, None,
                    "the path leads outside of the tree",
                )
            paths.append(path)
    return paths


def _check_place(tree: Tree, patch: Patch, path: str) -> None:
    """Refuse a link, and a file whose parent is not a folder."""
    for parent in PurePosixPath(path).parents:
        if tree.kind_of(str(parent)):
            raise PatchError(
                patch.name, path, None, f"{parent} is not a folder"
            )
    if tree.kind_of(path) == "l":
        raise PatchError(
            patch.name, path, None, "the file is a symbolic link"
        )


def _check_result(
    patch: Patch, known: Mapping[str, object], scratch: Path
) -> None:
    """Refuse a patch that git and our reader read differently."""
    for path in scratch.rglob("*"):
        name = str(path.relative_to(scratch))
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and name in known):
            continue
        raise PatchError(patch.name, name, None, "the patch is ambiguous")


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _git_apply(
    patch: Patch,
    diff: bytes,
    files: list[FileDiff],
    scratch: Path,
    reverse: bool,
) -> None:
    environment = {x: y for x, y in os.environ.items() if x[:4] != "GIT_"}
    environment |= {
        # Inside a repository, git would resolve the patch's paths against
        # its top and silently skip those outside of the current folder.
        "GIT_CEILING_DIRECTORIES": str(scratch.parent),
        # apply.whitespace and apply.ignoreWhitespace would make git lenient.
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C",
    }
    direction = ["--reverse"] if reverse else []
    try:
        result = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", *direction, "-"],
            input=diff,
            cwd=scratch,
            env=environment,
            capture_output=True,
            check=False,
            timeout=_GIT_LIMIT_S,
        )
    except FileNotFoundError as error:
        raise MissingToolError("git", "git") from error
    except subprocess.TimeoutExpired as error:
        raise PatchError(
            patch.name, None, None,
            f"git did not apply it within {_GIT_LIMIT_S} s",
        ) from error
    if result.returncode:
        message = result.stderr.decode(errors="replace")
        raise _explain(patch, files, message)


def _explain(
    patch: Patch, files: list[FileDiff], message: str
) -> PatchError:
    """Turn git's message into an error with the file and the hunk."""
    match = re.search(r"patch failed: (.*):(\d+)$", message, re.MULTILINE)
    if match:
        for file in files:
            for hunk in file.hunks:
                # For an empty file, git prints 1 where the hunk has 0.
                if file.path == match[1] and max(
                    hunk.source_start, 1
                ) == int(match[2]):
                    return PatchError(
                        patch.name, file.path, hunk.header,
                        "the hunk does not apply",
                    )
    first = next(iter(message.splitlines()), "git gave no reason")
    why = first.removeprefix("error: ")
    for file in files:
        if why.startswith(f"{file.path}: "):
            why = why.removeprefix(f"{file.path}: ")
            return PatchError(patch.name, file.path, None, why)
    return PatchError(patch.name, None, None, why)
