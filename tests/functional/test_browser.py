# SPDX-License-Identifier: GPL-2.0-or-later
"""The HTML report in a real browser: it is drawn, and loads nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from avocado import Test
from browser import Browser, find_chromium
from msgspec.structs import replace
from testbed import program, run
from vfio_p2p.history.database import Metric
from vfio_p2p.history.entry import entry_of
from vfio_p2p.history.trend import Trend, trends
from vfio_p2p.report import html
from vfio_p2p.report.collect import collect
from vfio_p2p.report.document import Document

_EVIL = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"


class InABrowser(Test):
    """The page as people see it."""

    timeout = 900

    def setUp(self) -> None:
        self.chromium = find_chromium() or ""
        if not self.chromium:
            self.cancel(
                "no Chromium to look with: as root, 'apt-get install "
                "--no-install-recommends chromium' (packages-test.txt)"
            )

    def _document(self) -> Document:
        """Report on one device, without the series and with it."""
        paths = [Path(self.workdir, name) for name in ("base", "patched")]
        for path in paths:
            run(program(path.name), "one-device", path)
        return collect(paths)

    def _write(
        self, document: Document, history: list[Trend] | None = None
    ) -> Path:
        page = Path(self.outputdir, "report.html")
        page.write_text(html.render(document, history))
        return page

    def test_lanes_are_drawn_and_can_be_zoomed(self) -> None:
        document = self._document()
        page = self._write(document)
        with Browser(self.chromium) as browser:
            browser.open(page)
            self.assertEqual(browser.ask(_count(".panel")), 2)
            # The screen shows the blackout and its surroundings.
            self.assertGreater(browser.ask(_count(".panel g.s3 .bar")), 0)
            self.assertGreater(browser.ask(_count(".panel g.phase")), 10)
            names = browser.ask(
                "[...document.querySelectorAll('.panel > text')]"
                ".map(x => x.textContent)"
            )
            self.assertEqual(names.count("src0"), 2)
            self.assertEqual(names.count("dst0"), 2)
            before = _bars(browser)
            browser.ask("document.querySelector('[data-view=whole]').click()")
            whole = _bars(browser)
            self.assertNotEqual(before, whole)
            self.assertGreater(len(whole), len(before))
            browser.ask(
                "document.querySelector('[data-view=blackout]').click()"
            )
            self.assertEqual(_bars(browser), before)
            browser.ask("document.querySelector('[data-view=in]').click()")
            self.assertNotEqual(_bars(browser), before)
            self._is_quiet(browser, page)

    def test_what_is_hovered_is_told(self) -> None:
        page = self._write(self._document())
        with Browser(self.chromium) as browser:
            browser.open(page)
            x, y = browser.ask(
                "(() => {"
                " const bar = document.querySelector('.panel g.s3 .bar');"
                " bar.scrollIntoView({block: 'center'});"
                " const box = bar.getBoundingClientRect();"
                " return [box.x + box.width / 2, box.y + box.height / 2];"
                "})()"
            )
            browser.send(
                "Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y
            )
            tip = browser.ask("document.getElementById('tip').textContent")
            self.assertIn("STOP_COPY\nsrc0, source\n", tip)
            self.assertIn("lasts ", tip)
            self._is_quiet(browser, page)

    def test_a_drag_zooms_in(self) -> None:
        page = self._write(self._document())
        with Browser(self.chromium) as browser:
            browser.open(page)
            before = _bars(browser)
            x, y = browser.ask(
                "(() => {"
                " const panel = document.querySelector('.panel');"
                " panel.scrollIntoView({block: 'center'});"
                " const box = panel.getBoundingClientRect();"
                " return [box.x + box.width / 2, box.y + box.height / 2];"
                "})()"
            )
            for kind, place in (
                ("mousePressed", x),
                ("mouseMoved", x + 40),
                ("mouseMoved", x + 80),
                ("mouseReleased", x + 80),
            ):
                browser.send(
                    "Input.dispatchMouseEvent", type=kind, x=place, y=y,
                    button="left", buttons=1, clickCount=1,
                )
            self.assertNotEqual(_bars(browser), before)
            self.assertEqual(browser.ask(_count(".select")), 0)
            self._is_quiet(browser, page)

    def test_history_shows_where_it_changed(self) -> None:
        path = Path(self.workdir, "patched")
        first = entry_of(
            run(program(path.name), "one-device", path),
            qemu_revision="",
            qemu_revision_s=None,
            project_revision=_EVIL,
            recorded_s=0,
        )
        history = trends(
            [
                dataclasses.replace(
                    first,
                    qemu_revision=f"{number:040x}",
                    qemu_revision_s=number,
                    metrics=(Metric("blackout", value_ns, "ns"),),
                )
                for number, value_ns in enumerate(
                    [300_000_000] * 9 + [303_000_000] * 8
                )
            ],
            "blackout",
        )
        page = self._write(collect([path]), history)
        with Browser(self.chromium) as browser:
            browser.open(page)
            points = browser.ask(_boxes("#history .point"))
            (change,) = browser.ask(_boxes("#history .change"))
            ((left, top, right, bottom),) = browser.ask(_boxes(".trend"))
            self.assertEqual(len(points), 17)
            for box in (*points, change):
                self.assertLessEqual(left, box[0])
                self.assertLessEqual(box[2], right)
            for box in points:
                self.assertLess(top, box[1])
                self.assertLess(box[3], bottom)
            # The level rises from the ninth point to the tenth.
            self.assertLess(points[9][3], points[8][1])
            self.assertLess(points[8][2], change[0])
            self.assertLess(change[2], points[9][0])
            self.assertNotEqual(
                browser.ask(
                    "getComputedStyle(document.querySelector('.change'))"
                    ".stroke"
                ),
                "none",
            )
            text = browser.ask("document.querySelector('#history').innerText")
            self.assertIn("+3.000 ms (+1.00 %)", text)
            self.assertIn(f"{9:040x}"[:12], text)
            self._is_quiet(browser, page)

    def test_hostile_texts_stay_texts(self) -> None:
        document = self._document()
        runs = tuple(
            replace(
                one,
                tree=_EVIL,
                lanes=tuple(
                    replace(lane, device=_EVIL) for lane in one.lanes
                ),
                marks=tuple(replace(x, text=_EVIL) for x in one.marks),
                notes=(_EVIL,),
            )
            for one in document.runs
        )
        page = self._write(Document.of(runs, qemu=_EVIL))
        with Browser(self.chromium) as browser:
            browser.open(page)
            self.assertEqual(
                browser.ask("document.title"), "pass: vfio-p2p report"
            )
            self.assertEqual(browser.ask(_count("script")), 2)
            self.assertEqual(browser.ask(_count("img")), 0)
            self.assertGreater(browser.ask(_count(".panel g.s3 .bar")), 0)
            self._is_quiet(browser, page)

    def test_nobody_elses_script_would_run(self) -> None:
        page = self._write(self._document())
        text = page.read_text()
        page.write_text(
            text.replace("</body>", "<script>owned = 1</script></body>")
        )
        with Browser(self.chromium) as browser:
            browser.open(page)
            self.assertEqual(browser.ask("typeof owned"), "undefined")
            self.assertTrue(browser.complaints())

    def _is_quiet(self, browser: Browser, page: Path) -> None:
        """Check that the console is empty and only the page was requested."""
        self.assertEqual(browser.complaints(), [])
        asked = [x for x in browser.requests() if not x.startswith("data:")]
        self.assertEqual(asked, [page.resolve().as_uri()])


def _count(selector: str) -> str:
    return f"document.querySelectorAll('{selector}').length"


def _boxes(selector: str) -> str:
    """Return left, top, right and bottom of elements, in pixels."""
    return (
        f"[...document.querySelectorAll('{selector}')].map(x => {{"
        " const box = x.getBoundingClientRect();"
        " return [box.left, box.top, box.right, box.bottom]; })"
    )


def _bars(browser: Browser) -> list[str]:
    found: list[str] = browser.ask(
        "[...document.querySelectorAll('.panel .bar')].map(x =>"
        " x.getAttribute('x') + ' ' + x.getAttribute('width'))"
    )
    return found
