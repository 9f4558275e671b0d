"""lecture.sh --quick: whole, in seconds; and the picture that it ends with. Skipped with exit code 77 where the programs are not built."""
import os
import subprocess
import sys
import unittest
from pathlib import Path

import numpy as np

import synthetic
from testing import SCRIPTS, ScriptTest

PROGRAMS = [os.environ.get(name, "") for name in ("ATTN_SWEEP", "ATTN_TRAIN")]


class Lecture(ScriptTest):
    def lecture(self, *arguments, code=0):
        done = subprocess.run([SCRIPTS / "lecture.sh", *arguments], capture_output=True, text=True, timeout=600,
                              env={**os.environ, "ATTN_LECTURE": str(self.folder / "out"), "ATTN_JOBS": "2"})
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def test_one_command_makes_the_picture_and_goes_on_where_it_was(self):
        self.lecture("--quick")
        out = self.folder / "out"
        self.assertEqual({path.name for path in out.iterdir()},
                         {"speed.csv", "speed.context.json", "tasks.train.csv", "tasks.train.context.json", "lecture.html", "figures"})
        self.assertTrue(list((out / "figures").glob("closing*.svg")))
        rows = (out / "tasks.train.csv").read_text()
        for task in ("listops", "retrieval:asks=words", "glyphs", "pathfinder"):
            self.assertIn(f"attn_train --task {task} ", rows)
        self.lecture("--quick")
        self.assertEqual((out / "tasks.train.csv").read_text(), rows)

    def test_another_argument_is_refused(self):
        self.assertIn("accepted: --quick", self.lecture("--fast", code=2).stderr)


class Picture(ScriptTest):
    def drawn(self):
        import figures
        from attncsv import read_all
        import pandas

        sweep = synthetic.write(self.folder / "a.csv", synthetic.zoo((128, 512)))
        rows, train, _ = read_all([sweep, synthetic.train(self.folder / "a.train.csv")])
        rows = rows[rows["ok"]]
        return rows, train, figures.closing(rows, train, figures.Looks(pandas.concat([rows, train], ignore_index=True)))

    def test_a_panel_a_task_with_its_floor_and_a_bubble_a_variant(self):
        rows, train, figure = self.drawn()
        panels = [ax for ax in figure.axes if ax.get_visible()]
        self.assertEqual([ax.get_title().partition(",")[0] for ax in panels], ["majority", "mqar_packed"])
        for ax, floor in zip(panels, (0.5, 0.125)):
            self.assertEqual([list(line.get_ydata()) for line in ax.lines], [[floor, floor]])
            self.assertEqual(len(ax.collections), train["name"].nunique())
        times = rows[rows["n"] == 512].set_index("name")["time_median_s"]
        (linear,) = [c.get_offsets()[0] for c, text in zip(panels[1].collections, panels[1].texts) if text.get_text() == "linear"]
        self.assertAlmostEqual(linear[0], times["full"] / times["linear"], places=6)

    def test_a_task_whose_control_missed_its_bar_is_hollow_and_says_so(self):
        _, _, figure = self.drawn()
        majority, recall = [ax for ax in figure.axes if ax.get_visible()]
        self.assertIn("inconclusive", majority.get_title())
        self.assertNotIn("inconclusive", recall.get_title())
        self.assertTrue(all(len(c.get_facecolor()) == 0 for c in majority.collections))
        self.assertTrue(all(np.size(c.get_facecolor()) for c in recall.collections))


if __name__ == "__main__":
    if not all(program and Path(program).is_file() for program in PROGRAMS):
        print("skipped: the lecture's test needs attn_sweep and attn_train, which are not built")
        sys.exit(77)
    unittest.main()
