#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Make a labgrid place of a pair of hosts, once:
#
#   labgrid-pair.sh NAME [TAG=VALUE]...
#
# NAME is the name of the pair in hosts.toml. The place has no resources: the
# hosts are reached by what hosts.toml says.
set -eu

name=$1
shift
labgrid-client -p "$name" create
labgrid-client -p "$name" set-tags kind=vfio-pair "$@"
labgrid-client -p "$name" set-comment "two hosts for vfio-p2p --at $name"
