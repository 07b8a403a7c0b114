# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests from Python are checked as those of the command line are."""

from __future__ import annotations

from pathlib import Path

import pytest
from vfio_p2p.errors import UsageError
from vfio_p2p.places.job import Job, from_json
from vfio_p2p.plans.demo import DemoRequest, demonstrate
from vfio_p2p.plans.setting import Setting
from vfio_p2p.plans.validate import ValidateRequest, validate
from vfio_p2p.scenario.load import load
from workshops import FakeWorkshop, program_of


@pytest.mark.parametrize(
    "setting",
    [
        Setting(seeds=0),
        Setting(jobs=0),
        Setting(seed=-1),
        Setting(seed=1 << 63),
    ],
    ids=str,
)
def test_numbers_that_make_no_sense(setting: Setting) -> None:
    workshop = FakeWorkshop()
    with pytest.raises(UsageError):
        validate(ValidateRequest(setting=setting), workshop=workshop)
    assert workshop.built == []


def test_nothing_to_run(tmp_path: Path) -> None:
    request = ValidateRequest(setting=Setting(out=tmp_path), scenarios=())
    with pytest.raises(UsageError, match="nothing to run"):
        validate(request, workshop=FakeWorkshop())


def test_the_experiment_has_one_seed() -> None:
    with pytest.raises(UsageError, match="one seed"):
        demonstrate(
            DemoRequest(setting=Setting(seeds=2)), workshop=FakeWorkshop()
        )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"seed": 42', b'"seed": -1'),
        (b'"seed": 42', b'"seed": 9223372036854775808'),
        (b'"format": 1', b'"format": 0'),
    ],
)
def test_a_job_that_cannot_be_run(old: bytes, new: bytes) -> None:
    data = Job.of(program_of("patched"), load("one-device"), 42).to_json()
    assert from_json(data).seed == 42
    assert old in data
    with pytest.raises(UsageError, match="not a job"):
        from_json(data.replace(old, new, 1))
