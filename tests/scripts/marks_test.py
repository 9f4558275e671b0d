#!/usr/bin/env python3
"""What is uncertain is marked as such, and nothing else is: in the report, its page, in advice and in contracts."""
import json
import re
import subprocess
import sys
import unittest

import numpy as np

import browser
import synthetic
from testing import SCRIPTS, ScriptTest

from attncsv import read  # noqa: E402  (testing puts scripts/ into the path)
from crossover import contracts  # noqa: E402

LENGTHS = (256, 512, 1024)
SHAKY = [("linear", 512), ("linear", 1024), ("strided", 256)]


def rows_of(shaky):
    """Full, linear and strided without noise, but for the cells named: they spread by 30 %."""
    rng = np.random.default_rng(5)
    seconds = {"full": 10e-3, "linear": 1.5e-3, "strided": 4e-3}
    return [synthetic.row(name, n, synthetic.noisy(s * n / 1024, rng, 0.1 if (name, n) in shaky else 1e-3),
                          exactness="exact" if name == "full" else "pattern", skill=1.0 if name == "full" else 0.5)
            for name, s in seconds.items() for n in LENGTHS]


class Marks(ScriptTest):
    def report(self, shaky):
        path = synthetic.write(self.folder / "cells.csv", rows_of(shaky))
        done = self.run_script("report.py", path, "--summary", "-o", self.folder / "cells.html")
        page = (self.folder / "cells.html").read_text()
        return done.stdout, json.loads(re.search(r'<script[^>]* id="data"[^>]*>(.*?)</script>', page, re.S)[1])

    def test_the_report_lists_every_unstable_cell_and_no_other(self):
        said, data = self.report(SHAKY)
        self.assertEqual({(r["name"], r["n"]) for r in data["unstable"]}, set(SHAKY))
        for record in data["unstable"]:
            self.assertGreater(record["width"], 0.1)
            self.assertIn(f"--n {record['n']} ", record["command"])
        self.assertIn("unstable: 3 of 9 cells, most in linear (2), strided (1)", said)
        self.assertIn("3 of 9 measured cells are unstable", " ".join(data["caveats"]))

    def test_where_none_is_unstable_the_report_says_none(self):
        said, data = self.report([])
        self.assertEqual(data["unstable"], [])
        self.assertIn("unstable: none", said)
        self.assertNotIn("unstable", " ".join(data["caveats"]))

    def test_advice_marks_a_time_that_rests_on_an_unstable_cell(self):
        path = synthetic.write(self.folder / "cells.csv", rows_of(SHAKY))
        for n, marked in ((1024, {"linear"}), (256, {"strided"}), (700, {"linear"}), (300, {"linear", "strided"})):
            said = self.run_script("advise.py", path, "--n", n).stdout
            lines = [line for line in said.splitlines() if re.match(r" *\d+ ", line)]
            self.assertEqual(len(lines), 3, said)
            self.assertEqual({line.split()[1] for line in lines if "(unstable)" in line}, marked, said)

    def test_a_contract_that_the_interval_leaves_open_is_undecided(self):
        rng = np.random.default_rng(6)
        for exponent, noise, verdict in ((1.25, 0.3, "undecided"), (1.7, 0.003, "BROKEN"), (1.0, 0.003, "OK")):
            rows = [synthetic.row("linear", n, synthetic.noisy(1e-3 * (n / 1024)**exponent, rng, noise)) for n in (512, 1024, 2048, 4096, 8192)]
            found, = contracts(read(synthetic.write(self.folder / f"{verdict}.csv", rows)).rows, {"linear": 1.0}, 0.25)
            self.assertEqual(found["contract"], verdict, found)


@unittest.skipUnless(browser.available(), "needs chromium and chromedriver")
class Page(ScriptTest):
    def test_points_of_unstable_cells_are_hollow_and_their_status_says_so(self):
        path = synthetic.write(self.folder / "cells.csv", rows_of(SHAKY))
        html = self.folder / "cells.html"
        subprocess.run([sys.executable, SCRIPTS / "report.py", path, "-o", html], check=True, capture_output=True)
        with browser.Browser() as page:
            page.open(html)
            hollow = page.until("""const card = getComputedStyle(document.documentElement).getPropertyValue('--card').trim();
                return charts.time.data.datasets.flatMap(d => d.data.map((p, i) => [d.variant, p.x, d.pointBackgroundColor[i].trim() === card]))""")
            self.assertEqual({(name, n) for name, n, is_hollow in hollow if is_hollow}, set(SHAKY))
            self.assertEqual(len(hollow), 9)
            status = page.run("""return [...document.querySelectorAll('#cells tbody tr')].map(r => [...r.cells].map(c => c.textContent))""")
            self.assertEqual(sum("unstable" in cells for cells in status), len(SHAKY))
            self.assertEqual(sum("ok" in cells for cells in status), 9 - len(SHAKY))


if __name__ == "__main__":
    unittest.main()
