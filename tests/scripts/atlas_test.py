"""atlas.py: a site of many machines: what it compares, what it refuses, its size and that nothing in it is markup but its own."""
import json
import os
import re
import time
import unittest

import numpy as np

import synthetic
from testing import ScriptTest

LENGTHS = [128 * 2**i for i in range(10)]


def data_of(path):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S).group(1))


def rows(speed=1.0, variants=("full", "linear", "local:left=64,right=64"), lengths=LENGTHS, **more):
    """full ~ N^2 and the others ~ N, which they beat from N = 1024 / (i + 1)."""
    out = []
    for n in lengths:
        for i, name in enumerate(variants):
            time_s = speed * 1e-8 * (n * n if i == 0 else 1024 * n / i)
            out.append(synthetic.row(name, n, np.full(9, time_s), skill=1.0 if i == 0 else 0.5, family="scores" if i == 0 else "sparse", **more))
    return out


class Atlas(ScriptTest):
    def machine(self, name, speed=1.0, cores=2, file=None, table=None, writer=synthetic.write, **more):
        machine = {**synthetic.MACHINE, "cpu": name, "usable_cores": cores}
        return writer(self.folder / (file or f"{name.replace(' ', '')}.csv"), table or rows(speed, threads=cores, **more), machine=machine)

    def site(self, *paths, code=0):
        done = self.run_script("atlas.py", *(paths or [self.folder]), "-o", "site", code=code)
        return self.folder / "site", done

    def case(self, site):
        only, = [path for path in site.glob("*.html") if data_of(path)["kind"] == "case"]
        return data_of(only)

    def test_across_machines_stand_ratios_and_crossovers_and_no_times(self):
        self.machine("Fast", 1.0)
        self.machine("Slow", 7.0)
        site, done = self.site()
        self.assertIn("2 machines, 2 files, 4 pages", done.stdout)
        case = self.case(site)
        self.assertEqual([m["title"] for m in case["machines"]], ["Fast, 2 cores", "Slow, 2 cores"])
        names = [v["name"] for v in case["variants"]]
        linear, at = names.index("linear"), case["lengths"].index(4096)
        self.assertEqual([case["figures"][m][linear][at][0] for m in (0, 1)], [0.25, 0.25])
        for m in (0, 1):
            self.assertAlmostEqual(case["crossings"][m][linear][0], 1024, delta=5)
        local = names.index("local:left=64,right=64")
        self.assertAlmostEqual(case["crossings"][0][local][0], 512, delta=5)
        self.assertEqual({len(f) for m in case["figures"] for v in m for f in v if f}, {3})  # ratio, roof, tokens
        slow = data_of(site / "machine-slow-2.html")
        self.assertAlmostEqual(slow["cases"][0]["figures"][names.index("full")][at][0], 7e-8 * 4096**2, delta=1e-3)

    def test_a_ratio_is_of_one_file(self):
        self.machine("One", file="a.csv", table=rows(1.0, variants=("full",)))
        self.machine("One", file="b.csv", table=[row for row in rows(100.0) if row["variant"] == "linear"])
        site, _ = self.site()
        case = self.case(site)
        linear = [v["name"] for v in case["variants"]].index("linear")
        self.assertEqual({f[0] for f in case["figures"][0][linear]}, {None})
        self.assertEqual(case["crossings"][0][linear], 0)

    def test_threads_and_instruction_sets_are_told_by_what_they_are_of_the_machine(self):
        self.machine("Small", cores=2)
        self.machine("Large", cores=64)
        site, _ = self.site()
        self.assertIn("all threads", self.case(site)["title"])

    def test_files_of_both_schemas_stand_together(self):
        self.machine("Old", writer=lambda path, table, machine: synthetic.write_schema1(path, table, machine=machine))
        self.machine("New")
        site, _ = self.site()
        self.assertEqual(len(self.case(site)["machines"]), 2)

    def test_decodes_have_rates(self):
        self.machine("Steps", table=rows(1.0, **{"pass": "decode", "step": 1, "causal": 1, "tokens_per_s": 123.0}))
        site, _ = self.site()
        case = self.case(site)
        self.assertEqual(case["pass"], "decode")
        self.assertEqual(case["figures"][0][0][0][2], 123.0)

    def test_each_csv_is_there_to_be_downloaded(self):
        path = self.machine("One")
        site, _ = self.site()
        self.assertEqual((site / "data/one-2/One.csv").read_bytes(), path.read_bytes())

    def test_names_are_text_wherever_they_come_from(self):
        evil = "</script><img src=x onerror=alert(1)>"
        self.machine(evil.replace("/", "|"), file="a.csv", table=rows(1.0, variants=("full", evil.replace(",", "")), input=f"text:{evil}"))
        self.machine(evil, file="b&b.csv")
        site, _ = self.site()
        for path in site.glob("*.html"):
            page = path.read_text()
            self.assertNotIn("<img", page)
            self.assertEqual(page.count("</script>"), 2)
            self.assertNotIn("<", path.name)
        self.assertNotRegex((site / "index.html").read_text(), r"(?i)<(script|link|img)[^>]+(src|href)\s*=\s*.https?:")

    def test_what_may_not_be_mixed_is_refused(self):
        path = self.machine("One")
        bare = synthetic.write(self.folder / "bare.csv", rows(), context=False)
        self.refused(2, "does not say its machine", "atlas.py", path, bare, "-o", "site")
        bare.unlink()
        (self.folder / "more").mkdir()
        self.machine("One", file="more/One.csv")
        self.refused(2, "two files of one machine are called 'One.csv'", "atlas.py", self.folder, "-o", "site")

    def test_the_reference_results_make_a_site(self):
        site, done = self.site(synthetic.ROOT / "results/reference")
        self.assertIn("2 machines", done.stdout)
        index = data_of(site / "index.html")
        self.assertEqual(len(index["machines"]), 2)
        self.assertGreaterEqual(sum(case["machines"] == 2 for case in index["cases"]), 5)

    def test_bad_input(self):
        (self.folder / "empty").mkdir()
        self.refused(5, "has no CSV", "atlas.py", "empty", "-o", "site")
        self.refused(2, "does not exist", "atlas.py", "none.csv", "-o", "site")
        (self.folder / "empty/other.csv").write_text("a,b\n1,2\n")
        self.refused(5, "no file is a sweep with a measured cell", "atlas.py", "empty", "-o", "site")
        path = self.machine("One")
        self.refused(2, "is no folder", "atlas.py", path, "-o", path)
        self.site(self.folder)
        self.assertIn("passed over", self.site(self.folder)[1].stdout)

    def test_twenty_machines_of_sixty_variants_and_ten_lengths(self):
        """Built within 20 s of processor time, every page below 1 MB."""
        variants = ("full", *(f"variant_{i}:option={i}" for i in range(59)))
        for m in range(20):
            self.machine(f"Machine {m}", 1 + m / 7, cores=2 + m, table=rows(1 + m / 7, variants=variants, threads=2 + m))
        before, begin = os.times(), time.monotonic()
        site, _ = self.site()
        after, wall = os.times(), time.monotonic() - begin
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        largest = max(path.stat().st_size for path in site.glob("*.html"))
        print(f"20 machines x 60 variants x 10 lengths: {wall:.1f} s ({cpu:.1f} s of processor), pages up to {largest / 1e6:.2f} MB")
        self.assertLess(cpu, 20)
        self.assertLess(largest, 1e6)
        case = self.case(site)
        self.assertEqual((len(case["machines"]), len(case["variants"]), len(case["lengths"])), (20, 60, 10))


if __name__ == "__main__":
    unittest.main()
