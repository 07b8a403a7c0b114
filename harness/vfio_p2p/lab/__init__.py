# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab: virtual machines that are like hosts with SR-IOV devices.

A machine without such devices tries with it what works on real hosts: virtual
functions, IOMMU groups, variant drivers, ownership and limits, SSH, and two
hosts with clocks of their own. Nothing in the lab is sealed: times depend on
this machine.
"""
