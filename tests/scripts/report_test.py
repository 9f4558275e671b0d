"""report.py: the page's size, speed and self-containment, the figures, the summary."""
import json
import os
import re
import time
import unittest
from pathlib import Path

import synthetic
from testing import SCRIPTS, ScriptTest

import families


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1))


class Report(ScriptTest):
    def page(self, *arguments):
        out = self.folder / "page.html"
        done = self.run_script("report.py", *arguments, "-o", out)
        return done, out.read_text()

    def test_forty_variants(self):
        """40 variants x 8 lengths x 3 inputs: below 5 s of processor time and 3 MB."""
        path = synthetic.write(self.folder / "forty.csv", synthetic.forty())
        before, begin = os.times(), time.monotonic()
        _, page = self.page(path)
        after, wall = os.times(), time.monotonic() - begin
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        print(f"40 variants x 8 lengths x 3 inputs: {wall:.1f} s ({cpu:.1f} s of processor), {len(page.encode()) / 1e6:.2f} MB")
        self.assertLess(cpu, 5)  # the wall clock is at the mercy of what else the machine does
        self.assertLess(len(page.encode()), 3e6)
        self.assertEqual(len(data_of(page)["columns"]["n"]), 40 * 8 * 3)

    def test_everything_is_inside(self):
        path = synthetic.write(self.folder / "zoo.csv", synthetic.zoo())
        train = synthetic.train(self.folder / "zoo.train.csv")
        _, page = self.page(path, train)
        self.assertNotRegex(page, r'(?i)<(script|link|img)[^>]+(src|href)\s*=')
        self.assertNotRegex(page, r"url\(|@import")
        data = data_of(page)
        self.assertEqual(data["tasks"], ["majority", "mqar_packed"])
        rows = data["columns"]
        commands = [rows["command"]["words"][c].replace("\1", data["command_stem"]) for c in rows["command"]["codes"]]
        self.assertTrue(all(c.startswith("attn_sweep --variants ") for c in commands))
        self.assertEqual({(r["name"], r["status"]) for r in data["refused"]}, {("full@unfused", "timed_out")})
        self.assertTrue(any("unstable" in c for c in data["caveats"]))
        self.assertIn(["machine.cpu", "Test CPU"], data["context"][0]["facts"])

    def test_the_summary_says_that_a_winner_has_no_skill(self):
        rows = []
        for n in (256, 512):
            rows += [synthetic.row("full", n, [1e-8 * n * n] * 3, skill=1), synthetic.row("linear", n, [1e-6 * n] * 3, family="kernelized", skill=0.05)]
        path = synthetic.write(self.folder / "hollow.csv", rows)
        said = self.run_script("report.py", path, "-o", self.folder / "h.html", "--summary").stdout
        self.assertIn("fastest: linear at N=256..512, but skill 0.05\n", said)
        self.assertIn("fastest with skill 0.9: full at N=256..512\n", said)
        path = synthetic.write(self.folder / "unasked.csv", [{**row, "fid_skill": "", "fid_reason": ""} for row in rows])
        said = self.run_script("report.py", path, "-o", self.folder / "u.html", "--summary").stdout
        self.assertIn("fastest: linear at N=256..512, whose skill was not measured\n", said)

    def test_what_a_report_lacks_it_says_instead_of_drawing_it(self):
        one = synthetic.write(self.folder / "one.csv", [synthetic.row("full", 512, [1e-3] * 3, skill=1), synthetic.row("local", 512, [5e-4] * 3, skill=0.9)])
        done, page = self.page(one, "--summary")
        self.assertIn("one length, N=512: no curves and no crossovers; --n with several adds them", done.stdout)
        self.assertIn("One length was measured, N=512: a curve needs two, such as --n 128..512*2.", data_of(page)["missing"]["time"])
        self.assertNotIn("bubble", data_of(page)["missing"])
        bare = synthetic.write(self.folder / "bare.csv", [synthetic.row("local", n, [1e-6 * n] * 3, skill=0.9) for n in (256, 512)])
        done, page = self.page(bare, "--summary")
        self.assertIn("full was not measured: no crossovers, nothing relative to it; attn_sweep --variants full adds it", done.stdout)
        self.assertIn("'full' was not measured: no speed is relative to it.", data_of(page)["missing"]["bubble"])
        self.assertNotIn("time", data_of(page)["missing"])

    def test_the_pareto_front_is_drawn_in_steps(self):
        self.assertIn("stepped: 'before'", (SCRIPTS / "page/page.js").read_text())
        import matplotlib
        matplotlib.use("Agg")
        import figures
        from attncsv import read
        rows = read(synthetic.write(self.folder / "zoo.csv", synthetic.zoo())).rows
        part = rows[rows["ok"] & (rows["input"] == rows["input"].iloc[0]) & (rows["causal"] == 0)]
        figure = figures.bubbles(part, figures.Looks(part))
        self.assertEqual({line.get_drawstyle() for line in figure.axes[0].lines}, {"steps-post"})

    def test_a_task_point_is_the_best_rate_over_its_seeds(self):
        path = synthetic.write(self.folder / "zoo.csv", synthetic.zoo())
        train = synthetic.train(self.folder / "zoo.train.csv")
        _, page = self.page(path, train)
        points = [(r["name"], r["task"], r["n"]) for r in data_of(page)["train"]]
        self.assertEqual(len(points), len(set(points)))
        accuracy = {(r["name"], r["n"]): r["accuracy"] for r in data_of(page)["train"] if r["task"] == "mqar_packed"}
        self.assertAlmostEqual(accuracy["linear", 64], 0.87)
        self.assertEqual(accuracy["full", 256], 1.0)
        self.assertEqual({r["verdict"] for r in data_of(page)["train"] if r["task"] == "majority" and r["n"] == 256}, {"inconclusive"})

    def test_the_reference_results(self):
        reference = Path(SCRIPTS).parent / "results/reference"
        _, page = self.page(reference / "default-sweep.csv", reference / "train.csv")
        data = data_of(page)
        self.assertIn("mqar:kv=8, width 64, mlp 128, batch 32", data["tasks"])
        self.assertTrue(any(r["name"] == "full" and r["accuracy"] > 0.9 for r in data["train"]))

    def test_models_of_two_shapes_are_two_tasks(self):
        path = synthetic.write(self.folder / "zoo.csv", synthetic.zoo())
        train = synthetic.train(self.folder / "zoo.train.csv")
        wide = train.read_text().replace(",32,1,1,layers,64,", ",128,1,1,layers,64,").split("\n", 1)[1]
        train.write_text(train.read_text() + wide)
        _, page = self.page(path, train)
        self.assertEqual(data_of(page)["tasks"], sorted(f"{task}, width {width}" for task in ("majority", "mqar_packed") for width in (32, 128)))

    def test_crossovers_are_those_of_crossover(self):
        path = synthetic.write(self.folder / "zoo.csv", synthetic.zoo())
        told = json.loads(self.run_script("crossover.py", path, "--format", "json", "--draws", 400).stdout)
        _, page = self.page(path)
        says = {(c["name"], c["reference"], c["metric"]): c["says"] for c in data_of(page)["crossovers"]}
        self.assertEqual(says, {(c["name"], c["reference"], c["metric"]): c["says"] for c in told["crossovers"]})

    def test_summary_is_ten_lines(self):
        path = synthetic.write(self.folder / "zoo.csv", synthetic.zoo(threads=(1, 2), causal=(0, 1), inputs=("text", "iid:1")))
        done, _ = self.page(path, "--summary")
        lines = done.stdout.splitlines()
        self.assertLessEqual(len(lines), 10)
        self.assertTrue(lines[0].startswith("report: "))
        for word in ("fastest: ", "ahead of full in time: ", "unstable: ", "not measured: "):
            self.assertTrue(any(line.startswith(word) for line in lines), word)

    def test_without_a_reference(self):
        path = synthetic.write(self.folder / "alone.csv", [r for r in synthetic.zoo() if not r["variant"].startswith("full")])
        done, page = self.page(path, "--summary")
        self.assertEqual(data_of(page)["crossovers"], [])
        self.assertTrue(any("'full' was not measured" in c for c in data_of(page)["caveats"]))

    def test_decodes_have_time_per_token_and_state(self):
        rows = [*synthetic.steps(), *synthetic.steps(step=4), *synthetic.zoo((256, 512))]
        _, page = self.page(synthetic.write(self.folder / "steps.csv", rows), "--figures", self.folder / "figures")
        columns = data_of(page)["columns"]
        cells = [dict(zip(columns, values)) for values in zip(*(
            [c["words"][i] for i in c["codes"]] if isinstance(c, dict) else c for c in columns.values()))]
        steps = {(c["name"], c["n"], c["step"]): c for c in cells if c["pass"] == "decode"}
        self.assertEqual(len(steps), 18)
        for step in (1, 4):
            self.assertAlmostEqual(steps["linear", 4096, step]["token_s"] / 2e-6, 1, delta=0.05)
            self.assertEqual(steps["full", 4096, step]["state_bytes"], 4096 * 4096)
        self.assertEqual({c["token_s"] for c in cells if c["pass"] == "forward"}, {None})
        for what in ("token", "state"):
            self.assertEqual(len(list((self.folder / "figures").glob(f"{what}*.svg"))), 2)  # of each step

    def test_one_cell(self):
        path = synthetic.write(self.folder / "one.csv", [synthetic.row("full", 512, [1e-3] * 9, skill=1.0)])
        self.page(path, "--summary", "--figures", self.folder / "one")

    def test_figures(self):
        path = synthetic.write(self.folder / "zoo.csv", synthetic.zoo((256, 512, 1024)))
        self.page(path, synthetic.train(self.folder / "zoo.train.csv"), "--figures", self.folder / "figures")
        names = {p.name for p in (self.folder / "figures").iterdir()}
        for what in ("time", "memory", "roof", "skill", "bubble", "task-majority"):
            for kind in ("svg", "png"):
                self.assertIn(f"{what}.{kind}", names)
        self.assertGreater((self.folder / "figures/time.png").stat().st_size, 20_000)

    def test_families_have_a_colour(self):
        """families.json names the folders of variants/; a family that it does not name gets a spare colour."""
        for family in (p.name for p in (Path(SCRIPTS).parent / "variants").iterdir() if p.is_dir()):
            self.assertIn(family, families.TOLD["families"])
        for family in ("gated", "selective", "latent", "graph"):
            self.assertIn(family, families.TOLD["families"])
        hues = families.colours(["strange", "sparse", "scores", "odd"])
        self.assertEqual(list(hues), ["scores", "sparse", "odd", "strange"])
        pairs = [tuple(pair) for pair in [*families.TOLD["families"].values(), *families.TOLD["spare"]]]
        self.assertEqual(len(pairs), len(set(pairs)))
        rows = [{**row, "family": row["family"].replace("sparse", "strange")} for row in synthetic.zoo((256, 512))]
        path = synthetic.write(self.folder / "strange.csv", rows)
        _, page = self.page(path, "--figures", self.folder / "figures")
        told = data_of(page)["families"]
        self.assertEqual(list(told)[-1], "strange")
        self.assertEqual(told["strange"], families.TOLD["spare"][0])
        self.assertNotIn("#1f6fd0", (SCRIPTS / "page/page.js").read_text() + (SCRIPTS / "report.py").read_text())


class Implementations(ScriptTest):
    def rows(self):
        import attncsv
        cells = [synthetic.row(variant, n, [1e-3] * 3, family="scores", **more) for n in (256, 512)
                 for variant, more in (("full", {}), ("full@torch", {}), ("full@unfused", {}), ("relu", {}), ("mine", {"err_scope": "ungated"}))]
        return attncsv.read(synthetic.write(self.folder / "a.csv", cells)).rows

    def test_implementations_of_a_variant_share_colour_and_mark_and_differ_in_stroke(self):
        from figures import Looks
        rows = self.rows()
        looks = Looks(rows)
        of = {name: looks.of(name) for name in set(rows["name"])}
        for other in ("full@torch", "full@unfused"):
            self.assertEqual((of[other]["color"], of[other]["marker"]), (of["full"]["color"], of["full"]["marker"]))
        self.assertEqual(len({of[name]["linestyle"] for name in ("full", "full@torch", "full@unfused")}), 3)
        self.assertNotEqual(of["relu"]["marker"], of["full"]["marker"])

    def test_what_nobody_vouches_for_is_marked(self):
        import attncsv
        labels = attncsv.labels(self.rows())
        self.assertEqual((labels["mine"], labels["full"]), ("mine (ungated)", "full"))


if __name__ == "__main__":
    unittest.main()
