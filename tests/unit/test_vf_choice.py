# SPDX-License-Identifier: GPL-2.0-or-later
"""The preflight: which functions it is about, and pairs of hosts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from inventories import (
    PF,
    PREPARE,
    USER,
    VFS,
    Change,
    changed,
    devlink,
    function,
    good,
    host,
    lines,
    odd,
    of,
    without,
)
from vfio_p2p.devices.vf.check import check, exit_code
from vfio_p2p.devices.vf.inventory import (
    Migratability,
    VfPort,
)
from vfio_p2p.devices.vf.wanted import HostsWanted, HostWanted, Needed
from vfio_p2p.errors import SkipError, UsageError


def test_more_vfs_than_there_are() -> None:
    wanted = of(Needed(PF, 6))
    found = {x.subject: x for x in odd(lines(good(), wanted))}
    assert set(found) == {f"{PF} VFs", f"{PF} VFs at a time"}
    assert found[f"{PF} VFs"].mend == f"Run '{PREPARE} --replace'."
    line = found[f"{PF} VFs at a time"]
    assert (line.is_, line.wanted) == (
        "6", "at most 4 of one PF migrate at a time"
    )


def test_both_sides_of_one_pf_count_together() -> None:
    wanted = HostWanted("box", "mlx5", (
        Needed(vfs=VFS[:2]), Needed(vfs=VFS[2:]),
    ))
    found = lines(good(), wanted)
    assert odd(found) == []
    (line,) = (x for x in found if x.subject == f"{PF} VFs at a time")
    assert line.is_ == "4"
    assert f"{VFS[3]} driver" in [x.subject for x in found]


def test_the_limit_of_one_pf_is_for_each_side() -> None:
    one, other = Needed(PF, 3), Needed(vfs=VFS[:2])
    wanted = HostWanted("box", "mlx5", (one, other))
    inventory = function(PF, numvfs=8)(good())
    (line,) = odd(lines(inventory, wanted))
    assert (line.subject, line.ok) == (f"{PF} VFs at a time", None)
    wanted = HostWanted("box", "mlx5", (Needed(PF, 5),))
    (line,) = odd(lines(inventory, wanted))
    assert (line.subject, line.ok) == (f"{PF} VFs at a time", False)


def test_a_group_of_two_vfs_that_are_both_ours() -> None:
    both = VFS[:2]
    inventory = good()
    for address in both:
        inventory = function(address, group_members=both)(inventory)
    assert odd(lines(inventory)) == []
    (line,) = odd(lines(inventory, of(Needed(vfs=VFS[1:3]))))
    assert line.subject == f"{VFS[1]} IOMMU group"
    assert line.is_ == f"31, with {VFS[0]}"


def test_a_command_that_does_not_know_the_card() -> None:
    wanted = replace(of(Needed(PF, 3)), known=False)
    inventory = function(VFS[2], driver="mlx5_core")(good())
    assert odd(lines(inventory, wanted)) == []
    inventory = function(VFS[0], driver="mlx5_core")(inventory)
    (line,) = odd(lines(inventory, wanted))
    assert line.subject == f"{VFS[0]} driver"
    known = f"{PREPARE} --pf {PF} --count 3 --driver mlx5"
    assert line.mend == f"Run '{known}'."


def test_the_vfs_that_are_taken() -> None:
    """Those of the driver come first, and those in use come last."""
    inventory = function(VFS[0], users=(USER,))(good())
    inventory = function(VFS[1], driver="")(inventory)
    inventory = function(VFS[2], busy=True)(inventory)
    found = inventory.vfs_for(inventory.functions[0], "mlx5_vfio_pci")
    assert [x.address for x in found] == [VFS[3], VFS[1], VFS[0], VFS[2]]
    found = inventory.vfs_for(inventory.functions[0], "x")
    assert [x.address for x in found] == [VFS[1], VFS[3], VFS[0], VFS[2]]
    (line,) = odd(lines(inventory, of(Needed(PF, 2))))
    assert line.subject == f"{VFS[1]} driver"


def test_a_vf_that_has_another_driver_has_no_features() -> None:
    nothing = Migratability("probe", (), "")
    inventory = function(VFS[1], driver="vfio-pci", migration=nothing)(good())
    (line,) = odd(lines(inventory))
    assert line.subject == f"{VFS[1]} driver"


def test_named_functions() -> None:
    found = lines(good(), of(Needed(vfs=(VFS[0], "0000:09:00.1"))))
    (line,) = odd(found)
    assert (line.subject, line.is_) == (
        "0000:09:00.1", "there is no such function"
    )
    assert "host list" in line.mend
    assert lines(good(), of(Needed(vfs=(PF,)), "mlx5"))[-1].ok is not True


def test_there_is_no_such_pf() -> None:
    gone = of(Needed("0000:09:00.0", 2), "mlx5")
    (line,) = odd(lines(good(), gone))
    assert line.subject == "0000:09:00.0"
    assert line.is_ == "there is no such physical function"
    assert line.wanted == f"one of {PF}"
    with pytest.raises(UsageError, match=r"at 0000:09:00\.0"):
        lines(good(), of(Needed("0000:09:00.0", 2)))


def test_a_vf_is_no_pf() -> None:
    (line,) = odd(lines(good(), of(Needed(VFS[0], 2), "mlx5")))
    assert line.is_ == "15b3:101e cannot have virtual functions"


def test_the_best_pf_is_chosen() -> None:
    other = "0000:02:00.0"
    pf = changed(good().functions[0], address=other, totalvfs=64, numvfs=0)
    inventory = changed(good(), functions=(*good().functions, pf))
    assert odd(lines(inventory)) == []
    inventory = function(PF, routes=("ssh",))(inventory)
    assert [x.subject for x in odd(lines(inventory))] == [f"{other} VFs"]


def test_there_is_nothing_to_test_on() -> None:
    with pytest.raises(SkipError, match="box has no function that a"):
        lines(changed(good(), functions=()))
    with pytest.raises(SkipError, match="box has no function that a"):
        lines(without(*VFS)(function(PF, vendor="1234")(good())))
    with pytest.raises(SkipError, match="for the driver qat_vfio_pci"):
        lines(good(), of(Needed(), "qat"))
    with pytest.raises(UsageError, match="no variant driver 'mlx4'"):
        lines(good(), of(Needed(), "mlx4"))
    assert SkipError.exit_code == 4


@pytest.fixture
def pair() -> HostsWanted:
    wanted = [
        HostWanted(x, "mlx5", (Needed(PF, 2),)) for x in ("one", "other")
    ]
    return HostsWanted(tuple(wanted))


PAIRS: dict[str, tuple[Change, str, bool | None, str]] = {
    "another PSID": (
        devlink(psid="MT_2"), "PSID", False, "MT_0000000834 and MT_2",
    ),
    "an unknown PSID": (
        lambda x: function(PF, firmware=changed(
            x.functions[0].firmware, psid=""
        ))(devlink(psid="")(x)),
        "PSID", None, "MT_0000000834 and not known",
    ),
    "other firmware": (
        devlink(fw_version="28.44.0"),
        "firmware", False, "28.43.1014 and 28.44.0",
    ),
    "other capabilities": (
        lambda x: function(VFS[1], port=VfPort("p", {
            "migratable": "enable", "roce": "enable",
        }))(function(VFS[0], port=VfPort("p", {
            "migratable": "enable", "roce": "enable",
        }))(x)),
        "capabilities of the ports", False,
        "migratable enable, roce disable and migratable enable, roce enable",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_hosts_differ(name: str, pair: HostsWanted) -> None:
    change, subject, ok, is_ = PAIRS[name]
    assert odd(check([good(), good()], pair)) == []
    found = check([good(), change(good())], pair)
    (line,) = odd(found)
    assert (line.host, line.subject, line.ok) == (
        "one and other", subject, ok
    )
    assert line.is_ == is_
    assert line.mend
    assert exit_code(found) == (2 if ok is False else 0)


def test_each_host_of_a_pair_has_lines(pair: HostsWanted) -> None:
    found = check([good(), host(kernel="5.0")(good())], pair)
    (line,) = odd(found)
    assert (line.host, line.subject) == ("other", "kernel")
    assert {x.host for x in found} == {"one", "other", "one and other"}
