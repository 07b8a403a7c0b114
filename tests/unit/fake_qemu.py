# SPDX-License-Identifier: GPL-2.0-or-later
"""A tree that looks like QEMU, and builds in no time."""

from __future__ import annotations

from pathlib import Path

_CONFIGURE = """\
#!/bin/sh
cat > build.ninja <<'EOF'
rule compile
  command = sh ../tree/scripts/compile.sh $in $out
  description = Compiling $in
rule link
  command = cc -o $out $in
build migration.o: compile ../tree/hw/vfio/migration.c
build other.o: compile ../tree/util/other.c
build qemu-system-x86_64: link migration.o other.o
EOF
echo configured "$@"
"""

_MIGRATION = """\
#include <stdio.h>
const char *other(void);
int main(void)
{
    printf("QEMU emulator version 10.0.99 %s\\n", other());
    return 0;
}
"""

_FILES = {
    "VERSION": "10.0.99\n",
    "configure": _CONFIGURE,
    "meson.build": "v = cc.has_header('valgrind/valgrind.h')\n",
    "hw/vfio/migration.c": _MIGRATION,
    "hw/vfio/trace-events": "",
    "pc-bios/meson.build": "fds = ['edk2-x86_64-code.fd']\n",
    "roms/Makefile": "",
    "roms/seabios/main.c": "",
    "scripts/compile.sh": 'exec cc -c -o "$2" "$1"\n',
    "subprojects/keycodemapdb/README": "",
    "subprojects/keycodemapdb.wrap": "",
    "util/other.c": 'const char *other(void) { return "stock"; }\n',
}


def make_tree(root: Path) -> Path:
    """Write the tree, and return its root."""
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "configure").chmod(0o755)
    (root / "link").symlink_to("VERSION")
    return root


def other_patch(old: str, new: str) -> bytes:
    """Return a patch that changes the text in ``util/other.c``."""
    return (
        "diff --git a/util/other.c b/util/other.c\n"
        "--- a/util/other.c\n"
        "+++ b/util/other.c\n"
        "@@ -1 +1 @@\n"
        f'-const char *other(void) {{ return "{old}"; }}\n'
        f'+const char *other(void) {{ return "{new}"; }}\n'
    ).encode()
