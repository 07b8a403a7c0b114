# SPDX-License-Identifier: GPL-2.0-or-later
"""The properties of vfio-pci that real devices get, and why."""

from __future__ import annotations

from pathlib import Path

import msgspec
from bundles import make_bundle
from vfio_p2p.bundle.provenance import (
    FunctionProvenance,
    HostProvenance,
    MachineProvenance,
)
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.choice import PlaceChoice
from vfio_p2p.devices import Driver
from vfio_p2p.devices.vf.drivers import find_driver
from vfio_p2p.places import open_place
from vfio_p2p.places.hosts.accelerator import Accelerator
from vfio_p2p.places.hosts.config import Functions, HostEntry
from vfio_p2p.places.hosts.station import Station
from vfio_p2p.qemu.program import KnownPrograms
from vfio_p2p.report.document import Document
from vfio_p2p.report.formats import render
from vfio_p2p.report.runs import run_of
from vfio_p2p.report.setup import remarks_of, setup_of
from vfio_p2p.scenario.load import load

PLAIN = load("two-devices")
MAPPED = load("mapped-bars")
VFS = Functions(vfs=("0000:01:10.0", "0000:01:10.2"))


def station(**properties: str) -> Station:
    """A side of a place whose hosts.toml has these properties."""
    entry = HostEntry(driver="p2pvf", source=VFS, properties=properties)
    return Station.of("box", entry, VFS)


def test_what_the_driver_needs() -> None:
    used = station().properties(PLAIN, Accelerator.TCG)
    assert used["x-no-mmap"] == "on"
    assert used["enable-migration"] == "on"
    reasons = station().reasons(PLAIN, Accelerator.TCG)
    assert reasons.keys() == used.keys()
    assert "MSI-X table" in reasons["x-no-mmap"]


def test_who_has_the_last_word() -> None:
    assert station().properties(MAPPED, Accelerator.TCG)["x-no-mmap"] == "off"
    there = station(**{"x-no-mmap": "off", "x-more": "1"})
    assert there.properties(PLAIN, Accelerator.TCG)["x-no-mmap"] == "off"
    assert there.properties(PLAIN, Accelerator.TCG)["x-more"] == "1"
    again = station(**{"x-no-mmap": "on"})
    assert again.properties(MAPPED, Accelerator.TCG)["x-no-mmap"] == "off"
    # What the driver did not decide was not its reason.
    assert "x-no-mmap" not in station().reasons(MAPPED, Accelerator.TCG)
    assert "x-no-mmap" not in there.reasons(PLAIN, Accelerator.TCG)


def test_kvm_does_not_need_what_tcg_needs() -> None:
    driver = find_driver("p2pvf")
    assert "x-no-mmap" in driver.properties_with("tcg")
    assert "x-no-mmap" not in driver.properties_with("kvm")
    assert "enable-migration" in driver.properties_with("kvm")


def test_only_functions_can_be_mapped() -> None:
    place = open_place(PlaceChoice(), KnownPrograms())
    assert "x-no-mmap" in place.refusal(MAPPED)
    assert place.refusal(PLAIN) == ""
    (device,) = MAPPED.devices
    own = msgspec.structs.replace(
        MAPPED,
        properties={"x-no-mmap": "on"},
        devices=(
            msgspec.structs.replace(device, properties=MAPPED.properties),
        ),
    )
    assert "x-no-mmap" in place.refusal(own)
    other = msgspec.structs.replace(
        MAPPED, properties={"migration-events": "on"}
    )
    assert place.refusal(other) == ""
    functions = open_place(PlaceChoice(driver=Driver.P2PVF), KnownPrograms())
    assert functions.refusal(MAPPED) == ""


def test_reports_say_so(tmp_path: Path) -> None:
    machine = MachineProvenance(
        name="box",
        hostname="box.example",
        kernel="6.12",
        cpu="A CPU",
        cores=2,
        driver="p2pvf",
        functions=(FunctionProvenance(address=VFS.vfs[0], ids="8086:10ca"),),
        properties="x-no-mmap=on,x-more=1",
        reasons={"x-no-mmap": "The table does not fill a page."},
    )
    place = HostProvenance(name="box", source=machine, destination=machine)
    sealed = run_of(open_bundle(make_bundle(tmp_path / "sealed")))
    assert remarks_of(sealed) == ()
    run = run_of(open_bundle(make_bundle(tmp_path / "real", place=place)))
    remark = "box: vfio-pci has x-no-mmap=on. The table does not fill a page."
    assert remarks_of(run) == (remark,)
    setup = dict(setup_of(run))
    assert setup["host, x-no-mmap"] == "on: The table does not fill a page."
    assert setup["host, x-more"] == "1"
    assert setup["migration over"] == "a Unix socket"
    text = render("table", Document.of([run, run], qemu="", base=""))
    assert " ".join(text.split()).count(remark) == 1
    place = HostProvenance(
        name="pair", source=machine, destination=machine, transport="tls"
    )
    bundle = make_bundle(
        tmp_path / "tls", place=place, variant="installed", build=""
    )
    run = run_of(open_bundle(bundle))
    assert remarks_of(run) == (
        "pair: the migration was encrypted with TLS.", remark
    )  # fmt: skip
    setup = dict(setup_of(run))
    assert setup["migration over"] == "TLS, encrypted"
    assert setup["QEMU"].endswith("installed on the host")
    assert "build" not in setup
