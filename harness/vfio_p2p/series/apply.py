# SPDX-License-Identifier: GPL-2.0-or-later
"""Applying patches strictly, and all or nothing.

Patches are untrusted. They meet only copies of the files that they name,
in a scratch folder outside of any repository; what comes out is a plain
mapping, and the caller's tree is not touched.
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
    """What patches apply to; paths are relative, with slashes."""

    def kind_of(self, path: str) -> str | None:
        """Return "f" for a file, "x" for a program, "l" for a link.

        None is anything else: nothing, or a folder.
        """

    def read(self, path: str) -> bytes:
        """Return the content of a file."""


def check_patch(patch: Patch) -> None:
    """Refuse a patch that no tree can take.

    :raise PatchError: When it is malformed, binary, or reaches for what
                       is not below a tree.
    """
    _paths(patch, _parse(patch))


def apply_patches(
    tree: Tree, patches: Iterable[Patch], *, reverse: bool = False
) -> dict[str, bytes | None]:
    """Apply patches one after another.

    :param tree: What they apply to.
    :param patches: The patches, in order.
    :param reverse: Take each out instead, in the same order.
    :return: Each file that differs in the end, with its new content;
             None is a file that is gone.
    :raise PatchError: When one is malformed, does not apply exactly (line
                       numbers may be off, context may not), or reaches
                       for what is not a plain file of the tree.
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
    """Read the patch as unidiff does, which knows more than git tells."""
    # Only for a look: git gets the bytes as they are.
    text = patch.data.decode(errors="replace")
    try:
        files = list(PatchSet.from_string(text))
    except UnidiffParseError as error:
        # It says what is wrong and not where, but it goes line by line.
        raise PatchError(
            patch.name, *_broken_hunk(text), str(error).strip()
        ) from error
    if not files:
        raise PatchError(patch.name, None, None, "no diff in it")
    for file in files:
        if file.is_binary_file:
            raise PatchError(patch.name, file.path, None, "a binary patch")
        for line in map(str, file.patch_info or ()):
            mode = re.match(r"(?:new|new file|old) mode (\d+)", line)
            if mode and mode[1] != PLAIN_MODE:
                raise PatchError(
                    patch.name, file.path, None,
                    f"makes a file of mode {mode[1]}, "
                    "only plain files are allowed",
                )
        _check_ends(patch, file, text.split("\n"))
    return files


def _check_ends(patch: Patch, file: PatchedFile, lines: list[str]) -> None:
    """Refuse a hunk that is longer than its header says.

    git takes the surplus for the end of the mail, and leaves it out.
    """
    for hunk in file:
        end = hunk[-1].diff_line_no or 0
        # A mail's signature starts with "--" as well, and the next file.
        if any(re.match("[ +]|-(?!-( ?$|- ))", x) for x in lines[end:][:1]):
            raise PatchError(
                patch.name, file.path, _header(str(hunk)),
                "the hunk is longer than it says",
            )


def _broken_hunk(text: str) -> tuple[str | None, str | None]:
    """Find where a parser gives up: the file and the hunk."""
    # Not splitlines(), which knows more ends of a line than a patch has.
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
    """A hunk's header without the function's name behind it."""
    match = re.match(r"@@ .*? @@", line)
    return match[0] if match else line.strip()


def _paths(patch: Patch, files: list[PatchedFile]) -> list[str]:
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
                    patch.name, name, None, "the prefixes a/ and b/ lack"
                )
            parts = PurePosixPath(path).parts
            if (
                path.startswith("/")
                or not parts
                or {"..", ".git"} & {x.lower() for x in parts}
                or str(PurePosixPath(path)) != path
            ):
                raise PatchError(
                    patch.name, name, None, "a path outside of the tree"
                )
            paths.append(path)
    return paths


def _check_place(tree: Tree, patch: Patch, path: str) -> None:
    """Refuse links, and files below what is no folder."""
    for parent in PurePosixPath(path).parents:
        if tree.kind_of(str(parent)):
            raise PatchError(
                patch.name, path, None, f"{parent} is not a folder"
            )
    if tree.kind_of(path) == "l":
        raise PatchError(patch.name, path, None, "is a symbolic link")


def _check_result(
    patch: Patch, known: Mapping[str, object], scratch: Path
) -> None:
    """Refuse what git made of the patch and unidiff did not see in it."""
    for path in scratch.rglob("*"):
        name = str(path.relative_to(scratch))
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and name in known):
            continue
        raise PatchError(patch.name, name, None, "an ambiguous patch")


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
        # Below a repository, git would take the patch's paths for paths
        # of that repository, and skip them without a word.
        "GIT_CEILING_DIRECTORIES": str(scratch.parent),
        # apply.whitespace and apply.ignoreWhitespace make it lenient.
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
    """Turn git's words into the file and the hunk."""
    match = re.search(r"patch failed: (.*):(\d+)$", message, re.MULTILINE)
    if match:
        for file in files:
            for hunk in file:
                # For an empty file git says 1 where the hunk says 0.
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
