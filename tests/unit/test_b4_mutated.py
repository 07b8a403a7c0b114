# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever happens to a mail, ``b4-check`` gives an answer or an error."""

from __future__ import annotations

import string
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from b4_mails import BAD, GOOD, NOTHING
from hypothesis import given, settings
from hypothesis import strategies as st
from mails import COMMIT
from vfio_p2p.errors import InputError
from vfio_p2p.plans.b4 import Check, PatchRequest, check_patch
from vfio_p2p.qemu import Source
from vfio_p2p.series import Patch
from vfio_p2p.series import check_patch as check_form
from workshops import FakeWorkshop

MAILS = [
    *GOOD.values(),
    *(data for data, _, _ in NOTHING.values()),
    *(data for data, _ in BAD.values()),
]


@dataclass
class Reading(FakeWorkshop):
    """Only read patches, which is fast."""

    def check_patches(
        self, source: Source, patches: Sequence[Patch]
    ) -> None:
        if patches[-1].name == "standard input":
            check_form(patches[-1])


TOKENS = (
    b"", b"\n", b"\r\n", b"\n\n", b" ", b"\0", b"\xff", b"=", b"=?utf-8?q?",
    b"?=", b"--=-x", b"--=-x--", b"From a@b Wed Aug  2 08:14:48 2023\n",
    b"\nSubject: [PATCH 2/6] x\n", b"\nContent-Type: ", b"multipart/mixed",
    b"; boundary=", b"message/rfc822", b"; charset=", b"utf-16", b"punycode",
    b"\nContent-Transfer-Encoding: ", b"base64", b"quoted-printable", b"8bit",
    b"; format=flowed", b"charset*=x'y'%zz", b"\ndiff --git a/x b/x\n",
    b"@@ -1 +1 @@\n", b"@@ -0,0 +0,0 @@\n", b"@@ -1,99999999999 +1 @@\n",
    b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n", b"\\ No newline at end of file\n",
    b"rename from x\n", b"new file mode 100644\n", b"Binary files a and b",
    b"-- >8 --\n", b"8<", COMMIT, b"\x80\x81", b"\xef\xbb\xbf", b"\xff\xfe",
    b"diff --git a/\0 b/\0\n--- a/\0\n+++ b/\0\n@@ -1 +1 @@\n-a\n+b\n",
)  # fmt: skip
Change = tuple[int, int, bytes]


def mutated(data: bytes, changes: Sequence[Change]) -> bytes:
    """Replace parts of a mail, each at an offset in thousandths."""
    for at, length, token in changes:
        start = len(data) * at // 1000
        data = data[:start] + token + data[start + length :]
    return data


@settings(max_examples=400)
@given(
    st.sampled_from(MAILS),
    st.lists(
        st.tuples(
            st.integers(0, 1000),
            st.sampled_from([0, 1, 5, 80, 5000]),
            st.sampled_from(TOKENS) | st.binary(max_size=8),
        ),
        max_size=5,
    ),
)
def test_mutated_mails_lead_to_an_answer_or_an_error(
    data: bytes, changes: list[Change]
) -> None:
    request = PatchRequest(mutated(data, changes))
    checks: tuple[Check, ...] = ()
    # Errors of other kinds would be mistakes of ours.
    with suppress(InputError):
        checks = check_patch(request, workshop=Reading())
        assert checks
    for check in checks:
        assert check.status in ("pass", "warn", "fail")
        assert set(check.summary) <= set(string.printable) - set("\n")
