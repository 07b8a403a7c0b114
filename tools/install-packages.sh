#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Install the Debian packages of a list, or say how; never stop for them:
# what is really missing is reported by whoever needs it.

list=$1

if ! command -v dpkg-query >/dev/null; then
    echo "Not a Debian machine: install what $list names by your own means."
    exit 0
fi

missing=
for package in $(sed 's/#.*//' "$list"); do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    echo "Installing:$missing"
    # Two attempts: the first with the lists that are here, if any.
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    # shellcheck disable=SC2086  # a list of words
    apt-get install -y -qq --no-install-recommends $missing \
        >/dev/null 2>&1 && exit 0
    apt-get update -qq &&
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends $missing >/dev/null &&
    exit 0
    echo "Could not install:$missing" >&2
else
    echo "Missing packages. As root, run:"
    echo "  apt-get install --no-install-recommends$missing"
fi
exit 0
