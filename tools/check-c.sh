#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Check the C of images/ with sparse, gcc's analyzer and more warnings.
#
# usage: tools/check-c.sh [MODULE...]
#
# By default all modules and the guest.  Whatever is said is an error.  The
# kernel's headers are those of the testbed's kit; VFIO_P2P is the command that
# fetches it.  smatch would find more, but Debian 12 has no package of it.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

command -v sparse >/dev/null || {
	echo "check-c: there is no sparse" >&2
	echo "Install the Debian package sparse." >&2
	exit 5
}
# gcc, as sparse takes its own headers from there
kit=$("$python" -c '
from vfio_p2p.places.sealed.kit import get_kit, read_recipe
from vfio_p2p.progress import silent

kit = get_kit(read_recipe(), silent)
print(kit.root.resolve(), kit.release)
')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A module of the kernel: its log is empty if all is well.
module() {
	make -C "images/$1" HEADERS="${kit% *}" VERSION="${kit#* }" \
		OUT="$work/$1" C=2 W=1 CHECKS=-fanalyzer >"$work/$1.all" 2>&1 ||
		echo "images/$1 does not build" >"$work/$1.log"
	grep -E "(warning|error):|^\*\*\*|Error [0-9]" "$work/$1.all" \
		>>"$work/$1.log" || :
	# Nothing is not "clean": sparse must have seen each file.
	seen=$(grep -c "CHECK  " "$work/$1.all" || :)
	built=$(find "$work/$1" -name "*.o" ! -name "*.mod.o" ! -name "$1.o" \
		! -name ".*" |
		wc -l)
	[ "$built" -gt 0 ] && [ "$seen" -ge "$built" ] ||
		echo "sparse saw $seen of $built files of images/$1" \
			>>"$work/$1.log"
	echo yes >"$work/$1.done"
}

# The guest has no kernel's Makefile, so the options are here.
guest() {
	set -- -m32 -ffreestanding -std=gnu11 -Wall -Wextra
	{
		for console in "" -DCONSOLE; do
			gcc "$@" $console -march=i386 -Os -fno-pic -fanalyzer \
				-Wunused -Wmissing-prototypes \
				-Wmissing-declarations -Wshadow \
				-c -o "$work/guest.o" images/guest/guest.c
			sparse "$@" $console -Wsparse-all -Wno-decl \
				images/guest/guest.c
		done
	} >"$work/guest.log" 2>&1 || echo "images/guest failed" \
		>>"$work/guest.log"
	echo yes >"$work/guest.done"
}

all=${*:-p2psim p2pvf labpf guest}
for what in $all; do
	case $what in
	guest) guest & ;;
	*) module "$what" & ;;
	esac
done
wait
status=0
for what in $all; do
	if [ ! -s "$work/$what.done" ]; then
		status=1
		echo "images/$what: the check itself failed"
	elif [ -s "$work/$what.log" ]; then
		status=1
		sed "s|$work/|images/|" "$work/$what.log"
	else
		echo "images/$what: clean"
	fi
done
exit $status
