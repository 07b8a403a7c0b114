# SPDX-License-Identifier: GPL-2.0-or-later
"""Where runs happen: processes and files of the machine."""
