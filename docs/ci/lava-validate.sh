#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Validate at a place, in a LAVA test shell:
#
#   lava-validate.sh PLACE [OPTION OF vfio-p2p validate]...
#
# Each command is a test case, and so is each run, with its blackout in
# milliseconds. The test shell fails if the infrastructure did, as LAVA tells
# that apart from a failed test.
set -u

place=$1
shift
out=out-$$

trap 'vfio-p2p host restore --at "$place"' EXIT
trap 'exit 143' INT TERM HUP

# Return the exit code of a command, and report it as a test case.
report() {
    name=$1
    shift
    "$@"
    code=$?
    case $code in
    0) result=pass ;;
    1 | 2) result=fail ;;
    4) result=skip ;;
    *) result=unknown ;;
    esac
    lava-test-case "$name" --result "$result"
    return "$code"
}

report host-prepare vfio-p2p host prepare --at "$place" &&
    report host-check vfio-p2p host check --at "$place" &&
    report validate vfio-p2p validate --at "$place" --out "$out" "$@"
code=$?
if [ -e "$out/report.json" ]; then
    vfio-p2p report "$out/report.json" --format lava
fi
if [ "$code" = 5 ]; then
    lava-test-raise "vfio-p2p: the infrastructure failed"
fi
exit 0
