"""compare.py: its statistics against scipy and closed forms, its verdicts on planted data, its exit codes."""
import itertools
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
from scipy import stats as scipy_stats

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import attnstats  # noqa: E402
import compare  # noqa: E402
from attncsv import read  # noqa: E402

import synthetic  # noqa: E402

VARIANTS = synthetic.ZOO[:8]


def run(script, *arguments):
    done = subprocess.run([sys.executable, SCRIPTS / script, *map(str, arguments)], capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


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
