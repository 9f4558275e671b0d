"""compare.py: its statistics against scipy and closed forms, its verdicts on planted data, its exit codes."""
import itertools
import json
import unittest

import numpy as np
from scipy import stats as scipy_stats

import synthetic
from testing import ScriptTest

import attnstats
import compare


class Statistics(unittest.TestCase):
    def test_rank_sum_is_scipys_where_that_is_exact(self):
        rng = np.random.default_rng(1)
        for n, m in [(1, 1), (2, 5), (5, 5), (9, 9), (8, 12)]:
            for shift in (0, 0.5, 3):
                a, b = rng.normal(0, 1, n), rng.normal(shift, 1, m)
                theirs = scipy_stats.mannwhitneyu(a, b, method="exact").pvalue
                self.assertAlmostEqual(attnstats.mann_whitney(a, b), theirs, places=12)

    def test_rank_sum_with_ties_is_the_permutation_test(self):
        rng = np.random.default_rng(2)
        for _ in range(20):
            a, b = rng.integers(0, 4, 4).astype(float), rng.integers(1, 5, 5).astype(float)
            ranks = scipy_stats.rankdata(np.concatenate([a, b]))
            centre = 4 * 10 / 2
            seen = abs(ranks[:4].sum() - centre)
            sums = [abs(sum(c) - centre) for c in itertools.combinations(ranks, 4)]
            expected = np.mean([s >= seen - 1e-9 for s in sums])
            self.assertAlmostEqual(attnstats.mann_whitney(a, b), expected, places=12)

    def test_separated_samples_have_the_least_p(self):
        self.assertAlmostEqual(attnstats.mann_whitney(np.arange(9.), np.arange(9.) + 100), 2 / 48620, places=12)

    def test_holm_by_hand(self):
        np.testing.assert_allclose(attnstats.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
        np.testing.assert_allclose(attnstats.holm([0.9, 0.8]), [1, 1])

    def test_hodges_lehmann_by_hand(self):
        middle, low, high = attnstats.hodges_lehmann(np.array([1., 2., 4.]), np.array([2., 4., 8.]))
        self.assertAlmostEqual(middle, np.log(2))
        self.assertEqual((low, high), (-np.inf, np.inf))  # three against three samples cannot give 95 %

    def test_interval_inverts_the_test(self):
        """A shift is outside the interval exactly where the test at 5 % rejects it."""
        rng = np.random.default_rng(3)
        for _ in range(10):
            base, new = np.exp(rng.normal(0, 1, 9)), np.exp(rng.normal(0.5, 1, 9))
            _, low, high = attnstats.hodges_lehmann(base, new)
            for shift in rng.uniform(-2, 3, 20):
                p = attnstats.mann_whitney(np.log(base) + shift, np.log(new))
                self.assertEqual(p > 0.05, low < shift < high)

    def test_interval_covers(self):
        rng = np.random.default_rng(4)
        hit = 0
        for _ in range(1000):
            _, low, high = attnstats.hodges_lehmann(np.exp(rng.normal(0, 0.05, 9)), 1.1 * np.exp(rng.normal(0, 0.05, 9)))
            hit += low <= np.log(1.1) <= high
        self.assertGreater(hit, 930)

    def test_round_factor(self):
        rng = np.random.default_rng(5)
        free = [(synthetic.noisy(1, rng, 0.02), 3) for _ in range(200)]
        bound = [(synthetic.noisy(1, rng, 0.001, round_noise=0.05), 3) for _ in range(200)]
        self.assertLess(attnstats.round_factor(free), 1.1)
        self.assertAlmostEqual(attnstats.round_factor(bound), 2.0, delta=0.05)  # three values instead of nine: sqrt(8/2)
        self.assertEqual(attnstats.round_factor([(np.ones(9), 1)]), 1.0)


class Verdicts(unittest.TestCase):
    CELLS = 40

    def verdicts(self, rng, slower=1.0, **noise):
        """Of one comparison: the first cell has the planted factor, the others are the same program."""
        cells = [(synthetic.noisy(1e-3, rng, **noise), synthetic.noisy(1e-3 * (slower if i == 0 else 1), rng, **noise), 3)
                 for i in range(self.CELLS)]
        return [record["verdict"] for record in compare.judge(cells, 0.05)[0]]

    def test_a_against_a(self):
        rng = np.random.default_rng(6)
        for noise in ({"noise": 0.02}, {"noise": 0.10}, {"noise": 0.02, "round_noise": 0.03}, {"noise": 0.02, "round_noise": 0.08}):
            false = sum(bool({"slower", "faster"} & set(self.verdicts(rng, **noise))) for _ in range(200))
            print(f"false verdicts in 200 comparisons of {self.CELLS} cells, {noise}: {false / 2:.1f} %")
            self.assertLessEqual(false, 10, noise)

    def test_ten_percent_slower(self):
        rng = np.random.default_rng(7)
        for noise in ({"noise": 0.01}, {"noise": 0.03}, {"noise": 0.01, "round_noise": 0.01}):
            found = sum(self.verdicts(rng, 1.10, **noise)[0] == "slower" for _ in range(200))
            print(f"10 % slowdown of one cell in {self.CELLS} found, {noise}: {found / 2:.1f} %")
            self.assertGreaterEqual(found, 190, noise)


class Pairs(ScriptTest):
    def cells(self, *variants):
        rng = np.random.default_rng(3)
        return synthetic.write(self.folder / "a.csv", [synthetic.row(variant, n, synthetic.noisy(factor * n * 1e-6, rng, 0.01), **more)
                                                       for variant, factor, more in variants for n in (256, 512)])

    def test_implementations_of_one_file_are_compared_with_its_test(self):
        path = self.cells(("full", 1, {}), ("full@torch", 1.5, {}), ("linear", 1, {}))
        said = json.loads(self.run_script("compare.py", path, "--pair", "full,full@torch", "--format", "json").stdout)
        self.assertEqual([cell["verdict"] for cell in said["cells"]], ["slower", "slower"])
        self.assertAlmostEqual(said["cells"][0]["ratio"], 1.5, delta=0.05)
        self.assertEqual({cell["name"] for cell in said["cells"]}, {"full@torch / full"})
        said = self.run_script("compare.py", path, "--pair", "full@torch,full", "--pair", "full,linear").stdout
        self.assertIn("full / full@torch", said)
        self.assertIn("4 cells: 0 slower, 2 faster, 2 same", said)

    def test_options_pair_with_their_like(self):
        path = self.cells(("local:left=8,right=8", 1, {}), ("local:left=64,right=64", 1, {}), ("local@torch:left=8,right=8", 1, {}),
                          ("local@torch:left=64,right=64", 2, {}), ("full", 1, {}))
        said = json.loads(self.run_script("compare.py", path, "--pair", "local,local@torch", "--format", "json").stdout)
        self.assertEqual({cell["name"]: cell["verdict"] for cell in said["cells"]},
                         {"local@torch / local:left=8,right=8": "same", "local@torch / local:left=64,right=64": "slower"})
        said = self.run_script("compare.py", path, "--pair", "local:left=8,right=8,local@torch:left=64,right=64").stdout
        self.assertIn("2 slower", said)
        self.refused(2, "name the options", "compare.py", path, "--pair", "local,full")

    def test_what_cannot_be_paired_is_refused(self):
        path = self.cells(("full", 1, {}))
        self.refused(5, "no row of 'full@torch'", "compare.py", path, "--pair", "full,full@torch")
        self.refused(2, "takes two variants", "compare.py", path, "--pair", "full")
        self.refused(2, "give two CSVs", "compare.py", path)
        self.refused(2, "no second one", "compare.py", path, path, "--pair", "full,full")


class ExitCodes(ScriptTest):
    def sweep(self, name, slower=1.0, noise=0.01, status=None, seed=1, **more):
        rng = np.random.default_rng(seed)
        rows = []
        for variant in ("full", "linear", "local:left=64,right=64"):
            for n in (256, 512, 1024):
                factor = slower if (variant, n) == ("linear", 512) else 1
                broken = status and (variant, n) == ("linear", 512)
                rows.append(synthetic.row(variant, n, [] if broken else synthetic.noisy(factor * n * 1e-6, rng, noise),
                                          status=status if broken else "ok", reason="it broke" if broken else ""))
        return synthetic.write(self.folder / name, rows, **more)

    def setUp(self):
        super().setUp()
        self.base = self.sweep("base.csv")

    def test_same(self):
        said = self.run_script("compare.py", self.base, self.sweep("new.csv", seed=2), "--fail-on", "slower:5%").stdout
        self.assertIn("9 cells: 0 slower, 0 faster, 9 same, 0 ambiguous", said)
        self.assertIn("Smallest effect that can be claimed", said)

    def test_slower(self):
        new = self.sweep("new.csv", 1.2, seed=2)
        self.assertIn("slower", self.run_script("compare.py", self.base, new).stdout)
        self.run_script("compare.py", self.base, new, "--fail-on", "slower:5%", code=3)
        self.run_script("compare.py", self.base, new, "--fail-on", "slower:50%")
        self.run_script("compare.py", new, self.base, "--fail-on", "slower:5%")
        self.run_script("compare.py", new, self.base, "--fail-on", "faster:5%", code=3)

    def test_layers_are_not_compared_with_mixers(self):
        def cells(scopes, seed):
            rng = np.random.default_rng(seed)
            return [synthetic.row(variant, n, synthetic.noisy(n * 1e-6 * (3 if scope == "layer" else 1), rng, 0.01), scope=scope)
                    for variant in ("full", "linear") for n in (256, 512) for scope in scopes]
        before = [column for column in synthetic.COLUMNS if column not in ("pass", "scope", "mixer_share")]
        rows = [{key: value for key, value in row.items() if key in before} for row in cells(["mixer"], 1)]
        base = synthetic.write(self.folder / "before.csv", rows, columns=before)
        both = synthetic.write(self.folder / "both.csv", cells(["mixer", "layer"], 2))
        self.assertIn("4 cells: 0 slower, 0 faster, 4 same", self.run_script("compare.py", base, both).stdout)
        self.assertIn("8 cells: 0 slower, 0 faster, 8 same", self.run_script("compare.py", both, both).stdout)
        told = json.loads(self.run_script("crossover.py", both, "--format", "json").stdout)
        self.assertEqual({e["axes"]["scope"] for e in told["exponents"]}, {"mixer", "layer"}, told["exponents"])

    def test_ambiguous(self):
        self.run_script("compare.py", self.base, self.sweep("new.csv", noise=0.3, seed=2), "--fail-on", "slower:5%", code=4)

    def test_a_cell_that_broke_is_a_regression(self):
        new = self.sweep("new.csv", status="crashed", seed=2)
        said = self.run_script("compare.py", self.base, new, "--fail-on", "slower:5%", code=3).stdout
        self.assertIn("no longer measured: linear N=512: crashed (it broke)", said)
        skipped = self.sweep("skipped.csv", status="skipped_budget", seed=2)
        self.run_script("compare.py", self.base, skipped, "--fail-on", "slower:5%")

    def test_nothing_comparable(self):
        other = synthetic.write(self.folder / "other.csv", [synthetic.row("fnet", 256, [1e-3] * 9)])
        self.refused(5, "no cell was measured in both", "compare.py", self.base, other)

    def test_too_few_samples_say_so(self):
        rows = [synthetic.row("full", n, [1e-3, 1.1e-3]) for n in (256, 512)]
        few = synthetic.write(self.folder / "few.csv", rows)
        said = self.run_script("compare.py", few, few).stdout
        self.assertIn("no test can tell one of 2 cells apart", said)

    def test_formats(self):
        new = self.sweep("new.csv", 1.2, seed=2)
        told = json.loads(self.run_script("compare.py", self.base, new, "--format", "json").stdout)
        self.assertEqual(told["verdicts"], {"slower": 1, "faster": 0, "same": 8, "ambiguous": 0})
        slow = next(c for c in told["cells"] if c["verdict"] == "slower")
        self.assertTrue(slow["low"] < 1.2 < slow["high"])
        self.assertEqual(len(self.run_script("compare.py", self.base, new, "--format", "csv").stdout.splitlines()), 10)
        self.assertIn("| slower | linear | 512 |", self.run_script("compare.py", self.base, new, "--format", "md").stdout)

    def test_noise_floor(self):
        floor = self.folder / "noise_floor.json"
        said = self.run_script("compare.py", self.base, self.sweep("new.csv", seed=2), "--write-noise", floor).stdout
        self.assertIn("Noise floor", said)
        told = json.loads(floor.read_text())
        self.assertEqual(told["false_verdicts"], 0)
        floor.write_text(json.dumps({**told, "noise_floor": 0.25}))
        said = self.run_script("compare.py", self.base, self.sweep("slow.csv", 1.2, seed=2), "--noise", floor).stdout
        self.assertIn("0 slower", said)
        self.assertIn("noise floor of this machine 25.0%", said)
        floor.write_text(json.dumps({**told, "machine": {}}))
        self.refused(2, "measured on another machine", "compare.py", self.base, self.base, "--noise", floor)


if __name__ == "__main__":
    unittest.main()
