# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports in the formats of services that follow figures or collect tests."""
