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
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchedFile, PatchSet

from vfio_p2p.errors import MissingToolError, PatchError
from vfio_p2p.series.patch import Patch

PLAIN_MODE = "100644"


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
    _paths(patch, _parse(patch))


def apply_patches(
    tree: Tree, patches: Iterable[Patch], *, reverse: bool = False
) -> dict[str, bytes | None]:
    """Apply patches one after another.

    :param tree: The tree that they apply to.
    :param patches: The patches, in order.
    :param reverse: Revert each patch instead, in the order given.
    :return: The new content of each file that differs in the end; None for
             a file that was deleted.
    :raise PatchError: When a patch is malformed, does not apply exactly
                       (line numbers may be off, context may not), or names
                       anything but a plain file of the tree.
    :raise MissingToolError: When git is missing.
    """
    before: dict[str, bytes | None] = {}
    with tempfile.TemporaryDirectory(prefix="vfio-p2p-") as name:
        scratch = Path(name).resolve()
        for patch in patches:
            files = _parse(patch)
            for path in _paths(patch, files):
                if path in before:
                    continue
                _check_place(tree, patch, path)
                before[path] = None
                if tree.kind_of(path):
                    before[path] = tree.read(path)
                    _write(scratch / path, tree.read(path))
            _git_apply(patch, files, scratch, reverse)
            _check_result(patch, before, scratch)
        after = {path: _content(scratch / path) for path in before}
    return {
        path: after[path]
        for path in sorted(before)
        if after[path] != before[path]
    }


def _parse(patch: Patch) -> list[PatchedFile]:
    """Parse the patch with unidiff, which reports more than git does."""
    # The decoded text is only examined: git gets the bytes as they are.
    text = patch.data.decode(errors="replace")
    try:
        files = list(PatchSet.from_string(text))
    except UnidiffParseError as error:
        # unidiff reports what is wrong, but not where.
        raise PatchError(
            patch.name, *_broken_hunk(text), str(error).strip()
        ) from error
    if not files:
        raise PatchError(patch.name, None, None, "it contains no diff")
    for file in files:
        if file.is_binary_file:
            raise PatchError(
                patch.name, file.path, None, "the patch is binary"
            )
        for line in map(str, file.patch_info or ()):
            mode = re.match(r"(?:new|new file|old) mode (\d+)", line)
            if mode and mode[1] != PLAIN_MODE:
                raise PatchError(
                    patch.name, file.path, None,
                    f"the patch gives the file mode {mode[1]}; only "
                    f"{PLAIN_MODE} is allowed",
                )
        _check_ends(patch, file, text.split("\n"))
    return files


def _check_ends(patch: Patch, file: PatchedFile, lines: list[str]) -> None:
    """Refuse a hunk that is longer than its header says.

    git would take the surplus lines for the end of the mail and ignore
    them.
    """
    for hunk in file:
        end = hunk[-1].diff_line_no or 0
        # The signature of a mail and the header of the next file start with
        # "--", too.
        if any(re.match("[ +]|-(?!-( ?$|- ))", x) for x in lines[end:][:1]):
            raise PatchError(
                patch.name, file.path, _header(str(hunk)),
                "the hunk is longer than its header says",
            )


def _broken_hunk(text: str) -> tuple[str | None, str | None]:
    """Find the file and the hunk at which the parser gives up."""
    # splitlines() would also split at characters that end no line of a patch.
    lines = [f"{x}\n" for x in text.split("\n")]
    starts = [
        n for n, x in enumerate(lines) if x.startswith(("@@ ", "diff --git "))
    ]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        try:
            PatchSet.from_string("".join(lines[:end]))
        except UnidiffParseError:
            if not lines[start].startswith("@@ "):
                return lines[start].strip(), None
            names = re.findall(
                r"^\+\+\+ b/(.*)$", "".join(lines[:start]), re.MULTILINE
            )
            return names[-1] if names else None, _header(lines[start])
    return None, None


def _header(line: str) -> str:
    """Return a hunk's header without the function's name that follows it."""
    match = re.match(r"@@ .*? @@", line)
    return match[0] if match else line.strip()


def _paths(patch: Patch, files: list[PatchedFile]) -> list[str]:
    """Return the paths that a patch names, without their prefixes."""
    paths = []
    for file in files:
        for name, prefix in (
            (file.source_file, "a/"), (file.target_file, "b/")
        ):
            if name == "/dev/null":
                continue
            path = name.removeprefix(prefix)
            if path == name:
                raise PatchError(
                    patch.name, name, None,
                    "the path lacks the prefix a/ or b/",
                )
            parts = PurePosixPath(path).parts
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
    """Refuse a patch that git and unidiff read differently."""
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
    patch: Patch, files: list[PatchedFile], scratch: Path, reverse: bool
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
            input=patch.data,
            cwd=scratch,
            env=environment,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingToolError("git", "git") from error
    if result.returncode:
        message = result.stderr.decode(errors="replace")
        raise _explain(patch, files, message)


def _explain(
    patch: Patch, files: list[PatchedFile], message: str
) -> PatchError:
    """Turn git's message into an error with the file and the hunk."""
    match = re.search(r"patch failed: (.*):(\d+)$", message, re.MULTILINE)
    if match:
        for file in files:
            for hunk in file:
                # For an empty file, git prints 1 where the hunk has 0.
                if file.path == match[1] and max(
                    hunk.source_start, 1
                ) == int(match[2]):
                    return PatchError(
                        patch.name, file.path, _header(str(hunk)),
                        "the hunk does not apply",
                    )
    first = next(iter(message.splitlines()), "git gave no reason")
    why = first.removeprefix("error: ")
    for file in files:
        if why.startswith(f"{file.path}: "):
            why = why.removeprefix(f"{file.path}: ")
            return PatchError(patch.name, file.path, None, why)
    return PatchError(patch.name, None, None, why)
