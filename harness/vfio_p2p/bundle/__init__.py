# SPDX-License-Identifier: GPL-2.0-or-later
"""The files that a run leaves: one folder, or a zip file of it.

::

    manifest.json   format version, hashes of all inputs, how the run ended,
                    hash and size of every other file
    digest          SHA-256 of manifest.json: the name of the whole bundle
    scenario.json   the scenario, defaults spelled out
    result.json     `vfio_p2p.scenario.result.Result`
    source/         trace.log  qmp.jsonl  stderr.txt
    destination/    the same
    source-2/       the same for the second QEMU with the source's devices,
                    and so on, in scenarios with several migrations, which
                    `legs` in result.json lists
    devices/        a log for each simulated device, with the kernel's clock
    console.txt     the outer VM's console

A bundle does not record when or how fast it was made, so that two sealed
runs of the same inputs have the same digest.  `read` is pure; only `write`
changes the machine.
"""
