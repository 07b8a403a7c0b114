#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Reserve a pair of hosts with labgrid, lock it, and validate on it:
#
#   labgrid-validate.sh [OPTION OF vfio-p2p validate]...
#
# A labgrid place stands for both hosts of a pair, and has the name of the
# pair in hosts.toml. $LG_TAGS says which places will do, and $LG_WAIT_S how
# long to wait for one. The exit code is that of vfio-p2p; it is 4 if no place
# is free in time, and 5 if labgrid does not answer.
set -u

tags=${LG_TAGS:-kind=vfio-pair}
wait_s=${LG_WAIT_S:-3600}
place=
child=

give_up() {
    echo "labgrid-validate: $2" >&2
    exit "$1"
}

# A signal ends vfio-p2p first, since its QEMUs use the place.
finish() {
    code=$?
    trap '' INT TERM HUP
    if [ -n "$child" ]; then
        kill "$child" 2>/dev/null
        wait "$child"
    fi
    if [ -n "$place" ]; then
        vfio-p2p host restore --at "$place" ||
            echo "labgrid-validate: $place is not as it was" >&2
        labgrid-client -p "$place" unlock
    fi
    labgrid-client cancel-reservation >/dev/null 2>&1
    exit "$code"
}

# $tags is split into words on purpose.
# shellcheck disable=SC2086
reserved=$(labgrid-client reserve --shell $tags) ||
    give_up 5 "no reservation could be made; does the coordinator run?"
eval "$reserved"
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The wait ends without an error if the reservation has expired; then it
# cannot be locked.
echo "labgrid-validate: waiting for a place with $tags" >&2
timeout "$wait_s" labgrid-client wait >/dev/null
case $? in
0) ;;
124) give_up 4 "no place with $tags became free in $wait_s s" ;;
*) give_up 5 "the reservation was lost" ;;
esac
labgrid-client -p + lock >&2 ||
    give_up 4 "the reserved place could not be locked"
place=$(labgrid-client -p + show | sed -n "s/^Place '\(.*\)':\$/\1/p")
[ -n "$place" ] || give_up 5 "labgrid does not say which place is locked"

run() {
    "$@" &
    child=$!
    wait "$child"
    code=$?
    child=
    return "$code"
}

run vfio-p2p host prepare --at "$place" || exit
run vfio-p2p validate --at "$place" "$@"
