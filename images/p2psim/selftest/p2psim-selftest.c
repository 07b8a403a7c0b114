// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * p2psim against the VFIO migration uAPI, as root in a VM that has the module
 *
 * Prints TAP, exits 0 when all is well.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "tests.h"
#include "vfio.h"

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (geteuid())
		die("this needs to be root");
	test_configfs();
	test_pci();
	test_life();
	test_arcs();
	test_latency();
	test_heartbeat();
	test_log();
	test_log_names();
	test_open_early();
	test_precopy();
	test_poll();
	test_touched();
	test_reinit();
	test_transfer();
	test_bad_streams();
	test_peers();
	test_bandwidth();
	test_dma();
	test_drivers();
	test_faults();
	test_hostile();
	test_memory();
	return done_testing();
}
