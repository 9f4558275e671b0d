"""Bad input: every script answers with one sentence and the right exit code."""
import unittest

import synthetic
from testing import ScriptTest


class BadInput(ScriptTest):
    def calls(self, path):
        """Every script that reads a sweep, on this file."""
        return [("report.py", path), ("crossover.py", path), ("advise.py", path, "--n", 512), ("compare.py", path, path)]

    def each(self, path, code, words):
        for call in self.calls(path):
            with self.subTest(call[0]):
                self.refused(code, words, *call)

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def good(self, name="good.csv", **more):
        return synthetic.write(self.folder / name, synthetic.zoo((256, 512, 1024)), **more)

    def test_missing(self):
        self.each(self.folder / "none.csv", 2, "does not exist")

    def test_folder(self):
        self.each(self.folder, 2, "cannot be read")

    def test_empty(self):
        self.each(self.file("empty.csv", ""), 5, "is empty")

    def test_header_only(self):
        self.each(self.file("header.csv", synthetic.text([])), 5, "no rows")

    def test_another_csv(self):
        self.each(self.file("other.csv", "a,b\n1,2\n"), 2, "lacks the columns")

    def test_no_csv(self):
        self.each(self.file("noise.csv", 'x"y,"\n"a"b"\x01\n1,2,3\n'), 2, "noise.csv")

    def test_binary(self):
        path = self.folder / "binary.csv"
        path.write_bytes(bytes(range(256)) * 20)
        self.each(path, 2, "binary.csv")

    def test_newer_schema(self):
        rows = synthetic.zoo((256, 512))
        for row in rows:
            row["schema"] = 3
        self.each(synthetic.write(self.folder / "newer.csv", rows), 2, "has schema 3, these scripts read schema 2")

    def test_only_refused_rows(self):
        rows = [synthetic.row("full", n, status="timed_out", reason="no answer within --timeout 60 s") for n in (256, 512)]
        path = synthetic.write(self.folder / "refused.csv", rows)
        for call in self.calls(path)[:3]:
            self.refused(5, "2 timed_out", *call)
        self.refused(5, "no cell was measured in both", "compare.py", path, path)

    def test_mixed_machines(self):
        one = self.good()
        two = self.good("two.csv", machine={**synthetic.MACHINE, "cpu": "Another CPU"})
        for call in [("report.py", one, two), ("crossover.py", one, two), ("advise.py", one, two, "--n", 512)]:
            self.refused(2, "mixed machines", *call)
        self.refused(2, "differ in cpu: 'Test CPU' and 'Another CPU'", "compare.py", one, two)
        self.run_script("report.py", one, two, "--any-machine")
        self.run_script("compare.py", one, two, "--any-machine")

    def test_unknown_machine(self):
        one, two = self.good(), self.good("two.csv", context=False)
        self.refused(2, "two.context.json does not say the machine", "compare.py", one, two)
        (self.folder / "two.context.json").write_text("{ torn")
        self.refused(2, "does not say the machine", "compare.py", one, two)
        self.assertIn("not readable JSON", self.run_script("crossover.py", two).stdout)

    def test_figures_that_are_none(self):
        rows = synthetic.zoo((256, 512, 1024))
        rows[0].update(time_median_s="nan", samples_s="nan;inf")
        rows[1].update(time_median_s="inf")
        rows[2].update(fid_skill="nan", peak_rss_bytes="unknown")
        rows[3].update(samples_s="")
        rows[4].update(samples_s="1e-3;;x;-5;nan", command="attn_sweep 'torn")
        rows[5].update(time_median_s="0")
        path = synthetic.write(self.folder / "nan.csv", rows)
        for call in self.calls(path):
            self.run_script(*call)
        self.assertIn("count as not measured", self.run_script("crossover.py", path).stdout)

    def test_torn_last_line(self):
        path = self.good()
        path.write_text(path.read_text()[:-40])
        self.assertIn("torn", self.run_script("crossover.py", path).stdout)

    def test_a_later_attnbench_adds_columns(self):
        rows = synthetic.zoo((256, 512))
        for row in rows:
            row.update(energy_j="1.5", colour="blue")
        path = synthetic.write(self.folder / "more.csv", rows, columns=synthetic.COLUMNS + ["energy_j", "colour"])
        for call in self.calls(path):
            self.run_script(*call)

    def test_twice_the_same_cell(self):
        rows = synthetic.zoo((256, 512))
        path = synthetic.write(self.folder / "twice.csv", rows + rows)
        self.assertIn("more than once", self.run_script("crossover.py", path).stdout)

    def test_hostile_words_stay_words(self):
        rows = synthetic.zoo((256, 512))
        for row in rows:
            row.update(name="<img src=x onerror=alert(2)>", reason="</script><script>alert(1)</script>", input="<img src=x onerror=alert(1)>@DATA@")
        path = synthetic.write(self.folder / "hostile.csv", rows)
        self.run_script("report.py", path, "-o", "hostile.html")
        page = (self.folder / "hostile.html").read_text()
        self.assertNotIn("<script>alert", page)
        self.assertNotIn("<img src=x", page)

    def test_usage(self):
        path = self.good()
        for call, words in [(("compare.py", path, path, "--min-effect", "x"), "not a share"),
                            (("compare.py", path, path, "--fail-on", "worse"), "--fail-on takes"),
                            (("compare.py", path, path, "--noise", "none.json"), "not a noise floor"),
                            (("crossover.py", path, "--attn-sweep", "no/such/program"), "is not a program"),
                            (("crossover.py", path, "--draws", "3"), "at least 100"),
                            (("advise.py", path, "--n", 0), "at least 1"), (("advise.py", path, "--n", 512, "--memory", "much"), "not a size"),
                            (("report.py", path, "--chartjs", "none.js"), "Chart.js was not found"),
                            (("report.py", path, "-o", "/proc/none/x.html"), "/proc/none")]:
            with self.subTest(call):
                self.refused(2, words, *call)
        for code, words, call in [(5, "no reference", ("crossover.py", path, "--reference", "nobody")),
                                  (5, "unmeasured: no causal cell", ("advise.py", path, "--n", 512, "--causal"))]:
            self.refused(code, words, *call)


if __name__ == "__main__":
    unittest.main()
