#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Install the Debian packages of a list as root, or print the command. This
# script never fails: a command that needs a missing package reports it.

list=$1

if ! command -v dpkg-query >/dev/null; then
    echo "This is not a Debian machine: install the equivalents of the" \
        "packages in $list."
    exit 0
fi

# A package may have another name and provide the old one: libelf1t64 does.
installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}, ${Provides}\n' |
    sed -n 's/^installed //p' | tr ',' '\n' | sed 's/ *(.*//; s/ //g')

missing=
for package in $(sed 's/#.*//' "$list"); do
    echo "$installed" | grep -qxF "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    echo "Installing:$missing"
    # The first attempt uses the package lists of this machine, if any.
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    # shellcheck disable=SC2086  # $missing is a list of words
    apt-get install -y -qq --no-install-recommends $missing \
        >/dev/null 2>&1 && exit 0
    apt-get update -qq &&
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends $missing >/dev/null &&
    exit 0
    echo "These packages could not be installed:$missing" >&2
else
    echo "Packages are missing. As root, run:"
    echo "  apt-get install --no-install-recommends$missing"
fi
exit 0
