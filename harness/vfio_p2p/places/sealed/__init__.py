# SPDX-License-Identifier: GPL-2.0-or-later
"""The outer VM: a real kernel with real VFIO, and sealed runs in it.

Nothing is imported here: `vfio_p2p.places.sealed.inside` runs in the VM, where
every import costs guest time.
"""
