#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Run the unit tests on Debian 13, in a chroot that is kept in the cache.
#
# Everything that needs a network is fetched from outside of the chroot, with
# this machine's own settings for apt and pip. Where a chroot cannot be made,
# the tests are skipped, and a line says why.
set -eu
cd "$(dirname "$0")/.."

python=.venv/bin/python
home=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/vfio-p2p/debian13
root=$home/root

skip() {
    echo "debian13: skipped: $1"
    exit 0
}

[ "$(id -u)" = 0 ] || skip "only root can make a chroot"
command -v apt-get >/dev/null || skip "this is not a Debian machine"
unshare --mount true 2>/dev/null || skip "this machine allows no mounts"
if ! command -v debootstrap >/dev/null; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends debootstrap >/dev/null 2>&1 ||
        skip "the package debootstrap cannot be installed"
fi
mirror=$(PYTHONPATH=harness $python -c \
    'from vfio_p2p.qemu.apt_sources import find_archive as f; print(f().uri)')

# The unit tests start no testbed, but ask whether its packages are there.
# libelf1 has another name in Debian 13, and debootstrap knows no virtual
# packages.
packages=$(sed -e 's/#.*//' -e '/^libelf1$/d' packages.txt |
    tr -s '\n' ' ' | sed 's/^ //; s/ $//; s/ /,/g')

if [ "$(cat "$home/packages" 2>/dev/null)" != "$packages" ]; then
    echo "debian13: making the chroot"
    rm -rf "$home"
    mkdir -p "$home"
    debootstrap --variant=minbase --include="$packages" trixie "$root" \
        "$mirror" >"$home/log" 2>&1 ||
        skip "debootstrap failed: $(tail -n 1 "$home/log") ($home/log)"
    echo "$packages" >"$home/packages"
fi

sum=$(cat requirements.txt requirements-dev.txt | sha256sum | cut -c -16)
if [ ! -e "$root/venv/$sum" ]; then
    rm -rf "$root/venv" "$root/wheels"
    $python -m pip download --quiet --require-hashes --only-binary=:all: \
        --implementation cp --python-version 3.13 \
        --abi cp313 --abi abi3 --abi none \
        --dest "$root/wheels" -r requirements.txt -r requirements-dev.txt ||
        skip "pip cannot fetch the packages for Python 3.13"
    cp requirements.txt requirements-dev.txt "$root/wheels"
    chroot "$root" python3 -m venv /venv
    chroot "$root" /venv/bin/python -m pip install --quiet --no-index \
        --find-links /wheels --require-hashes \
        -r /wheels/requirements.txt -r /wheels/requirements-dev.txt
    touch "$root/venv/$sum"
fi

rm -rf "$root/src"
mkdir "$root/src"
git ls-files -z --cached --others --exclude-standard |
    tar --create --null --files-from - --ignore-failed-read \
        --warning=no-failed-read | tar --extract --directory "$root/src"
chroot "$root" /venv/bin/python -m pip install --quiet --no-deps --no-index \
    --no-build-isolation --editable /src

echo "debian13: unit tests"
# The mounts vanish together with the namespace.
# shellcheck disable=SC2016  # the inner shell expands it
exec unshare --mount --fork sh -c '
    mount -t proc proc "$1/proc" &&
    mount --rbind /dev "$1/dev" &&
    exec chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        LC_ALL=C.UTF-8 sh -c "cd /src && exec /venv/bin/pytest -q tests/unit"
' sh "$root"
