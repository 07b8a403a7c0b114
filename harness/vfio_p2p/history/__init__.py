# SPDX-License-Identifier: GPL-2.0-or-later
"""Results that are kept, over revisions."""
