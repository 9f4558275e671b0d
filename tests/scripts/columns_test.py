"""What scripts know of columns: told by the context beside a CSV, by schema1.json for old files, guessed where nobody tells."""
import json
import unittest
from pathlib import Path

import synthetic
from testing import SCRIPTS, ScriptTest

import attncsv

REFERENCE = Path(SCRIPTS).parent / "results/reference"
NEW_AXIS = {"name": "shards", "doc": "processes", "role": "key", "holds": "number", "better": "neither", "usual": "1"}


def with_shards(rows):
    """Each row for one rank and, half as long, for two."""
    out = []
    for row in rows:
        times = [float(s) / 2 for s in row["samples_s"].split(";") if s]
        faster = {"time_median_s": float(row["time_median_s"]) / 2, "samples_s": ";".join(f"{t:.6g}" for t in times)} if times else {}
        out += [{**row, "shards": 1}, {**row, "shards": 2, **faster}]
    return out


class Columns(ScriptTest):
    def setUp(self):
        super().setUp()
        attncsv.KEYS.clear()

    def ranked(self, name, **more):
        columns = list(synthetic.COLUMNS)
        columns.insert(columns.index("seed") + 1, "shards")
        told = [*synthetic.SWEEP[:5], NEW_AXIS, *synthetic.SWEEP[5:]]
        return synthetic.write(self.folder / name, with_shards(synthetic.zoo((256, 512, 1024))), columns=columns, told=told, **more)

    def exponents(self, *paths):
        return json.loads(self.run_script("crossover.py", *paths, "--any-machine", "--format", "json").stdout)

    def test_an_axis_that_only_the_context_names_tells_cells_apart(self):
        told = self.exponents(self.ranked("shards.csv"))
        self.assertEqual({e["axes"]["shards"] for e in told["exponents"]}, {1, 2})
        self.assertFalse(any("more than once" in note for note in told["notes"]), told["notes"])
        self.run_script("report.py", self.ranked("shards.csv"), "-o", "shards.html")
        page = (self.folder / "shards.html").read_text()
        self.assertIn('"shards"', page)

    def test_a_file_from_before_an_axis_holds_its_usual_value(self):
        before = synthetic.write(self.folder / "before.csv", synthetic.zoo((256, 512, 1024), seed=2))
        said = self.run_script("compare.py", before, self.ranked("shards.csv")).stdout
        cells = len([r for r in synthetic.zoo((256, 512, 1024)) if r["status"] == "ok"])
        self.assertIn(f"{cells} cells: 0 slower, 0 faster", said)
        runs = attncsv.complete([attncsv.read(before), attncsv.read(self.folder / "shards.csv")])
        self.assertEqual(set(runs[0].rows["shards"]), {1})

    def test_types_are_the_context_s(self):
        rows = synthetic.zoo((256, 512))
        for row in rows:
            row.update(commit="12345678", energy_j="1.5", colour="7")
        columns = [*synthetic.COLUMNS, "energy_j", "colour"]
        told = [*synthetic.SWEEP, {"name": "energy_j", "role": "measure", "holds": "number", "better": "lower", "unit": "J", "doc": "energy"},
                {"name": "colour", "role": "fact", "holds": "text", "better": "neither"}]
        run = attncsv.read(synthetic.write(self.folder / "more.csv", rows, columns=columns, told=told))
        self.assertEqual(set(run.rows["commit"]), {"12345678"})
        self.assertEqual(set(run.rows["energy_j"]), {1.5})
        self.assertEqual(set(run.rows["colour"]), {"7"})
        self.assertEqual(run.columns.about("energy_j"), "energy [J], lower is better")

    def test_a_csv_without_its_context_is_read_by_its_looks(self):
        path = self.ranked("lone.csv", context=False)
        told = self.exponents(path)
        self.assertEqual({e["axes"]["shards"] for e in told["exponents"]}, {1, 2})
        self.assertTrue(any("what the columns of lone.csv are is not told beside it" in note for note in told["notes"]), told["notes"])
        run = attncsv.read(path)
        context = attncsv.read(self.ranked("told.csv"))
        # Of steps a file without decodes says nothing but its context.
        self.assertEqual(set(run.columns.keys()), set(context.columns.keys()) - {"step"})
        for column in ("n", "time_median_s", "options", "reason", "samples_s", "status", "kv_dtype"):
            self.assertEqual(run.rows[column].dtype, context.rows[column].dtype, column)
        for call in [("report.py", path, "-o", "lone.html"), ("advise.py", path, "--n", 512), ("compare.py", path, path, "--any-machine")]:
            self.run_script(*call)

    def test_a_training_without_its_context_is_read_by_its_looks(self):
        path = synthetic.train(self.folder / "zoo.train.csv")
        told = attncsv.read(path)
        (self.folder / "zoo.train.context.json").unlink()
        guessed = attncsv.read(path)
        self.assertEqual(told.rows[["task", "n", "name", "accuracy", "verdict"]].to_dict("records"),
                         guessed.rows[["task", "n", "name", "accuracy", "verdict"]].to_dict("records"))

    def test_a_file_of_schema_1_says_the_same_as_one_of_today(self):
        rows = synthetic.zoo((256, 512, 1024))
        new, old = synthetic.write(self.folder / "new.csv", rows), synthetic.write_schema1(self.folder / "old.csv", rows)
        found = [self.exponents(path) for path in (new, old)]
        key = lambda e: (e["name"], str(sorted(e["axes"].items())))  # noqa: E731
        for part in ("crossovers", "exponents"):
            bare = [sorted(({**e, "where": ""} for e in told[part]), key=key) for told in found]
            self.assertEqual(bare[0], bare[1])
        self.assertIn("full@unfused", {e["name"] for e in found[1]["exponents"]})
        (note,) = [note for note in found[1]["notes"] if "schema 1" in note]
        for words in ("old.csv is of schema 1", "family exact is read as scores", "full_unfused is read as full@unfused"):
            self.assertIn(words, note)
        self.assertFalse(any("schema" in note for note in found[0]["notes"]))
        self.assertEqual(set(attncsv.read(old).rows["family"]), set(attncsv.read(new).rows["family"]))

    def test_files_of_schema_1_and_2_are_compared_and_reported_together(self):
        rows = synthetic.zoo((256, 512, 1024))
        old = synthetic.write_schema1(self.folder / "old.csv", rows)
        new = synthetic.write(self.folder / "new.csv", synthetic.zoo((256, 512, 1024), seed=3))
        said = self.run_script("compare.py", old, new).stdout
        self.assertIn(f"{sum(r['status'] == 'ok' for r in rows)} cells: 0 slower, 0 faster", said)
        self.assertIn("old.csv is of schema 1", said)
        more = synthetic.write(self.folder / "more.csv", synthetic.zoo((2048, 4096)))
        self.run_script("report.py", old, more, synthetic.train(self.folder / "zoo.train.csv"), "-o", "both.html")
        page = (self.folder / "both.html").read_text()
        self.assertIn("old.csv is of schema 1", page)
        self.assertNotIn("full_unfused:", page)
        rows, _, runs = attncsv.read_all([old, more])
        self.assertEqual(len(rows.groupby(attncsv.axes_of(rows))), 1, attncsv.axes_of(rows))

    def test_every_reference_file_is_read(self):
        files = [path for path in sorted(REFERENCE.glob("**/*.csv")) if "micro" not in path.name]
        self.assertGreater(len(files), 15)
        for path in files:
            run = attncsv.read(path)
            old = not path.read_text().splitlines()[1].startswith("2,")
            self.assertEqual(any(f"{path.name} is of schema 1" in note for note in run.notes), old, path)
            self.assertFalse(any("no finite numbers" in note for note in run.notes), run.notes)
            self.assertNotIn("exact", set(run.rows["family"]))
            self.assertFalse(run.rows["name"].str.contains("full_unfused").any())

    def test_legends_show_the_short_names_that_the_file_tells(self):
        rows = [synthetic.row(name, n, [1e-3] * 9, name=short) for n in (256, 512)
                for name, short in (("local:left=64,right=64,sinks=0", "local:left=64"), ("full@unfused", "full@unfused"), ("full", "full"))]
        run = attncsv.read(synthetic.write(self.folder / "short.csv", rows))
        self.assertEqual(attncsv.labels(run.rows), {"local:left=64,right=64,sinks=0": "local:left=64", "full@unfused": "full@unfused",
                                                    "full": "full"})
        said = self.run_script("crossover.py", self.folder / "short.csv").stdout
        self.assertNotIn("sinks", said)

    def test_short_names_that_two_variants_share_are_told_in_full(self):
        rows = [synthetic.row(name, 256, [1e-3] * 9, name="local") for name in ("local:left=64", "local:left=128")]
        run = attncsv.read(synthetic.write(self.folder / "twice.csv", rows))
        self.assertEqual(set(attncsv.labels(run.rows).values()), {"local:left=64", "local:left=128"})


if __name__ == "__main__":
    unittest.main()
