# SPDX-License-Identifier: GPL-2.0-or-later
"""The testbed: an outer VM with a real kernel, real VFIO and sealed runs.

`vfio_p2p.places.sealed.inside` is the program that runs in the VM.
"""
