# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs on a host, with Python's standard library and nothing else.

A host may be this machine or another one, and the agent may run as root. It
is sent along as a zip file, so nothing has to be installed there but Python
3.9 or later. Its commands take JSON on stdin where they take more than a few
words, and each answers with one JSON document on stdout.
"""
