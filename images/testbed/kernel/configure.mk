# SPDX-License-Identifier: GPL-2.0-or-later
#
# make --no-print-directory -f configure.mk p2pconfig CONF=PROGRAM FRAGMENT=FILE
#
# CONF      conf of Debian's linux-kbuild: Linux's own would need flex and bison
# FRAGMENT  what is on; all else is off
#
# Copied into Linux's tree.  conf wants the variables of Linux's Makefile, which
# take it for one of its own targets, since it ends with "config".  Without
# --no-print-directory that Makefile would run another one, without this file.

include Makefile

p2pconfig:
	KCONFIG_ALLCONFIG=$(FRAGMENT) $(CONF) --allnoconfig Kconfig
	$(CONF) --syncconfig Kconfig
