/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SELFTEST_TESTS_H
#define SELFTEST_TESTS_H

/* test-device.c */
void test_configfs(void);
void test_pci(void);
void test_life(void);
void test_latency(void);
void test_heartbeat(void);
void test_log(void);
void test_log_names(void);
void test_open_early(void);

/* test-arcs.c */
void test_arcs(void);

/* test-stream.c */
void test_precopy(void);
void test_poll(void);
void test_touched(void);
void test_reinit(void);
void test_transfer(void);
void test_bad_streams(void);

/* test-peers.c */
void test_peers(void);

/* test-bandwidth.c */
void test_bandwidth(void);

/* test-dma.c */
void test_dma(void);

/* test-drivers.c */
void test_drivers(void);

/* test-faults.c */
void test_faults(void);

/* test-memory.c */
void test_memory(void);

/* test-hostile.c */
void test_hostile(void);

#endif
