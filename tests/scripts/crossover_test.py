"""crossover.py and advise.py: planted crossings and exponents come back; what is unmeasured is said to be."""
import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

import numpy as np

import synthetic
from testing import ScriptTest

import attnstats
from attncsv import read
from crossover import contracts, crossovers

LENGTHS = (128, 256, 512, 1024, 2048, 4096)
FAKE = Path(__file__).resolve().with_name("fake_sweep.py")


class Planted(ScriptTest):
    def sweep(self, rng, crossing, power=1.0, **noise):
        """full ~ N^2 and a variant ~ N^power that meet at `crossing`."""
        rows = []
        for n in LENGTHS:
            rows.append(synthetic.row("full", n, synthetic.noisy(1e-8 * n**2, rng, **noise)))
            rows.append(synthetic.row("linear", n, synthetic.noisy(1e-8 * crossing**(2 - power) * n**power, rng, **noise)))
        return read(synthetic.write(self.folder / "planted.csv", rows)).rows

    def test_recovered(self):
        rng = np.random.default_rng(1)
        for noise in ({"noise": 0.02}, {"noise": 0.05}, {"noise": 0.02, "round_noise": 0.04}):
            hit = 0
            for _ in range(100):
                crossing = float(np.exp(rng.uniform(np.log(150), np.log(3500))))
                found = crossovers(self.sweep(rng, crossing, **noise), ["full"], ["time"], draws=400)
                record = next(r for r in found if r["name"] == "linear")
                hit += record["low"] <= crossing <= record["high"]
            print(f"planted crossovers within their interval, {noise}: {hit} of 100")
            self.assertGreaterEqual(hit, 90, noise)

    def test_beyond_the_lengths(self):
        rng = np.random.default_rng(2)
        for crossing, star in ((20, 0), (1e6, np.inf)):
            record = crossovers(self.sweep(rng, crossing, noise=0.01), ["full"], ["time"], draws=200)[0]
            self.assertEqual((record["n_star"], record["low"], record["high"]), (star, star, star))

    def test_exponent_covers(self):
        rng = np.random.default_rng(3)
        hit = 0
        for _ in range(400):
            values = np.exp(rng.normal(0, 0.03, 5)) * np.array(LENGTHS[:5])**1.5
            _, low, high = attnstats.exponent(LENGTHS[:5], values)
            hit += low <= 1.5 <= high
        self.assertGreater(hit, 368)

    def test_contract(self):
        rng = np.random.default_rng(4)
        kept = contracts(self.sweep(rng, 700, 1.0, noise=0.01), {"full": 2.0, "linear": 1.0}, 0.25)
        self.assertEqual([r["contract"] for r in kept], ["OK", "OK"])
        broken = contracts(self.sweep(rng, 700, 1.6, noise=0.01), {"full": 2.0, "linear": 1.0}, 0.25)
        self.assertEqual({r["name"]: r["contract"] for r in broken}, {"full": "OK", "linear": "BROKEN"})


class Decodes(ScriptTest):
    def rows(self, *given):
        return read(synthetic.write(self.folder / "steps.csv", synthetic.steps(*given))).rows

    def test_a_crossover_is_of_the_context(self):
        found = {(r["name"], r["metric"]): r for r in crossovers(self.rows((512, 2048, 8192)), ["full"], draws=200)}
        self.assertTrue(found["linear", "time"]["low"] <= 1000 <= found["linear", "time"]["high"], found["linear", "time"])
        self.assertIn("pass decode", found["linear", "time"]["where"])

    def test_a_step_grows_as_one_row_of_what_is_declared(self):
        kept = {r["name"]: r for r in contracts(self.rows((1024, 4096, 16384, 65536)), {"full": 2.0, "linear": 1.0}, 0.25)}
        self.assertEqual({name: (r["declared"], r["contract"]) for name, r in kept.items() if r["declared"] is not None},
                         {"full": (1.0, "OK"), "linear": (0.0, "OK")})
        broken = contracts(self.rows((1024, 4096, 16384, 65536)), {"full": 1.0}, 0.25)
        self.assertEqual([r["contract"] for r in broken if r["name"] == "full"], ["BROKEN"])

    def test_a_state_counts_as_memory(self):
        rows = self.rows()
        full = rows[rows["name"] == "full"].set_index("n")
        self.assertEqual(full["memory_bytes"].to_dict(), {n: 2**16 + 4096 * n for n in (1024, 4096, 16384)})

    def test_steps_and_whole_problems_are_never_compared(self):
        rows = [*synthetic.steps((512, 2048)), *synthetic.zoo((256, 512, 1024, 2048), causal=(1,))]
        found = crossovers(read(synthetic.write(self.folder / "both.csv", rows)).rows, ["full"], ["time"], draws=200)
        self.assertEqual({r["axes"]["pass"] for r in found if r["name"] == "linear"}, {"forward", "decode"})
        times = {r["axes"]["pass"]: r["n_star"] for r in found if r["name"] == "linear"}
        self.assertNotEqual(times["forward"], times["decode"])


class ByHand(unittest.TestCase):
    def test_last_crossing(self):
        n = [100, 200, 400]
        cases = [([1, -1, -1], 141.42), ([1, 1, -1], 282.84), ([-1, -1, -1], 0), ([-1, 1, 1], np.inf), ([-1, 3, -1], 336.36),
                 ([0, -1, -1], 100), ([1, 1, 0], np.inf)]
        for ratio, star in cases:
            self.assertAlmostEqual(attnstats.last_crossing(n, ratio)[0], star, places=1, msg=ratio)

    def test_draws_at_once_are_draws_one_by_one(self):
        rng = np.random.default_rng(5)
        ratios = rng.normal(0, 1, (200, 5))
        n = [1, 2, 4, 8, 16]
        one_by_one = [attnstats.last_crossing(n, row)[0] for row in ratios]
        np.testing.assert_array_equal(attnstats.last_crossing(n, ratios), one_by_one)


class Program(ScriptTest):
    def sweep(self):
        path = self.folder / "sweep.csv"
        subprocess.run([sys.executable, FAKE, "--out", path], check=True)
        return path

    def test_text_and_json(self):
        path = self.sweep()
        said = self.run_script("crossover.py", path, "--attn-sweep", FAKE).stdout
        self.assertRegex(said, r"linear +full +time +from N=\d+ \(\d+\.\.\d+\)")
        self.assertRegex(said, r"2\.0\d \(.*\) +2 +OK")
        told = json.loads(self.run_script("crossover.py", path, "--format", "json", "--attn-sweep", FAKE).stdout)
        record = next(r for r in told["crossovers"] if r["name"] == "linear" and r["metric"] == "time")
        self.assertTrue(record["low"] <= 710 and 690 <= record["high"])
        self.assertEqual({e["name"]: e["contract"] for e in told["exponents"]}, {"full": "OK", "linear": "OK"})
        self.run_script("crossover.py", path, "--format", "csv", "--attn-sweep", FAKE)
        self.run_script("crossover.py", path, "--format", "md", "--attn-sweep", FAKE)

    def test_refine(self):
        os.environ["FAKE_NOISE"] = "0.08"
        self.addCleanup(os.environ.pop, "FAKE_NOISE")
        path = self.sweep()
        os.environ["FAKE_NOISE"] = "0.003"
        done = self.run_script("crossover.py", path, "--refine", "--width", "1.02", "--metric", "time", "--format", "json", "--attn-sweep", FAKE)
        self.assertIn("refine 1/5: N=720", done.stderr)
        record = next(r for r in json.loads(done.stdout)["crossovers"] if r["name"] == "linear")
        self.assertLess(record["high"] / record["low"], 1.05)
        self.assertTrue(660 < record["n_star"] < 740, record)

    def test_noise_floor_script(self):
        environment = {**os.environ, "ATTN_SWEEP": str(FAKE), "ATTN_NOISE_FLOOR": str(self.folder / "noise_floor.json")}
        script = FAKE.parents[2] / "scripts/noise_floor.sh"
        done = subprocess.run([script], capture_output=True, text=True, env=environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Noise floor", done.stdout)
        self.assertLess(json.loads((self.folder / "noise_floor.json").read_text())["noise_floor"], 0.05)
        done = subprocess.run([script], capture_output=True, text=True, env={**environment, "ATTN_SWEEP": "/none"})
        self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1))


class Advice(ScriptTest):
    def setUp(self):
        super().setUp()
        self.path = synthetic.write(self.folder / "zoo.csv", synthetic.zoo(inputs=("text", "local:0.9"), causal=(0, 1)))

    def ask(self, *arguments, code=0):
        return self.run_script("advise.py", self.path, "--format", "json", *arguments, code=code)

    def test_ranks_what_satisfies(self):
        told = json.loads(self.ask("--n", 2048, "--skill", 0.8, "--input", "local", "--memory", "1M").stdout)
        self.assertTrue(told["answers"])
        self.assertEqual(told["case"]["input"], "local:0.9")
        times = [r["time_s"] for r in told["answers"]]
        self.assertEqual(times, sorted(times))
        for record in told["answers"]:
            self.assertGreaterEqual(record["skill"], 0.8)
            self.assertLessEqual(record["memory_bytes"], 2**20)
            self.assertEqual(record["basis"], "measured")
        because = {r["name"]: r["why_not"] for r in told["not"]}
        self.assertIn("different operator", because["linear"])

    def test_interpolates_between_lengths(self):
        told = json.loads(self.ask("--n", 1500, "--input", "text").stdout)
        full = next(r for r in told["answers"] if r["name"] == "full")
        self.assertEqual(full["basis"], "interpolated between N=1024 and 2048")
        self.assertAlmostEqual(full["time_s"], 10e-3 * (1500 / 1024)**2 * 1.9 / 2**0.9, delta=0.0015)

    def test_never_guesses(self):
        told = json.loads(self.ask("--n", 16384, "--input", "text", code=5).stdout)
        self.assertTrue(all("unmeasured" in r["why_not"] for r in told["not"]))
        self.refused(5, "no cell with head_dim 80; measured: 64", "advise.py", self.path, "--n", 512, "--head-dim", 80)
        self.refused(5, "no cell with threads 7", "advise.py", self.path, "--n", 512, "--threads", 7)
        told = json.loads(self.ask("--n", 2048, "--causal", "--input", "text").stdout)
        self.assertIn("unsupported at N=2048", next(r["why_not"] for r in told["not"] if r["name"] == "reformer"))

    def test_decodes(self):
        rows = [*synthetic.steps(), *synthetic.steps(step=4)[:3], *synthetic.zoo((1024, 4096), causal=(1,))]
        path = synthetic.write(self.folder / "steps.csv", rows)
        told = json.loads(self.run_script("advise.py", path, "--pass", "decode", "--n", 8192, "--format", "json").stdout)
        self.assertEqual((told["case"]["pass"], told["case"]["step"], told["case"]["causal"]), ("decode", 1, 1))
        self.assertEqual([r["name"] for r in told["answers"]], ["linear", "local:left=1024,right=0", "full"])
        full = told["answers"][-1]
        self.assertAlmostEqual(full["tokens_per_s"] * full["time_s"], 1)
        self.assertAlmostEqual(full["state_bytes"] / (8192 * 4096), 1, delta=0.01)
        self.assertEqual(full["basis"], "interpolated between N=4096 and 16384")
        said = self.run_script("advise.py", path, "--pass", "decode", "--n", 4096).stdout
        self.assertRegex(said, r"rank +variant +time +over full +tokens/s +state")
        self.assertIn("pass decode", said)
        four = json.loads(self.run_script("advise.py", path, "--pass", "decode", "--step", 4, "--n", 4096, "--format", "json").stdout)
        self.assertEqual(four["case"]["step"], 4)
        self.assertAlmostEqual(four["answers"][0]["tokens_per_s"] * four["answers"][0]["time_s"], 4)
        self.refused(2, "--step is of a decode", "advise.py", path, "--n", 4096, "--step", 4)
        self.refused(5, "no cell with pass decode; measured: forward", "advise.py", self.path, "--n", 512, "--pass", "decode")
        self.assertNotIn("tokens/s", self.run_script("advise.py", path, "--n", 4096, "--causal").stdout)

    def test_what_else_was_measured_is_named(self):
        said = self.run_script("advise.py", self.path, "--n", 512).stdout.splitlines()[0]
        self.assertIn("also measured: ", said)
        told = json.loads(self.ask("--n", 512).stdout)
        others = {value for value in told["also_measured"]["input"]} | {told["case"]["input"]}
        self.assertEqual(others, set(read(self.path).rows["input"]))
        self.assertNotIn(told["case"]["input"], told["also_measured"]["input"])

    def test_causal_is_yes_or_no_as_in_all_programs(self):
        for words, causal in ((["--causal"], 1), (["--causal", "yes"], 1), (["--causal", "no"], 0), (["--no-causal"], 0), ([], 0)):
            self.assertEqual(json.loads(self.ask("--n", 512, *words).stdout)["case"]["causal"], causal, words)

    def test_text(self):
        self.assertIn("Repeat the first: attn_sweep", self.run_script("advise.py", self.path, "--n", 512).stdout)
        self.assertIn("--n 600 ", self.run_script("advise.py", self.path, "--n", 600).stdout)


class Measured(ScriptTest):
    QUESTION = ["--n", 256, "--heads", 2, "--threads", 2, "--input", "local", "--skill", 0.9]

    def test_one_command_measures_and_answers(self):
        if not os.environ.get("ATTN_SWEEP") or not Path(os.environ["ATTN_SWEEP"]).exists():
            self.skipTest("attn_sweep is not built")
        call = ["advise.py", "--measure", *self.QUESTION, "--variants", "full,local,linear", "--out", self.folder / "a.csv",
                "--attn-sweep", os.environ["ATTN_SWEEP"]]
        done = self.run_script(*call)
        self.assertRegex(done.stdout, r"rank +variant +time .*\n1 +\S.*\n2 +\S")
        self.assertIn("--iso-skill 0.9", done.stderr)
        self.assertIn("searching for a skill of 0.9", done.stderr)
        (left_out,) = [line for line in done.stdout.splitlines() if line.startswith("linear")]
        self.assertIn("has no budget to raise and a skill of", left_out)
        again = self.run_script(*call)
        self.assertNotIn("searching", again.stderr)
        self.assertEqual(again.stdout, done.stdout)

    def test_bad_questions(self):
        self.refused(2, "--measure needs --n", "advise.py", "--measure", "--attn-sweep", FAKE)
        self.refused(2, "--measure writes a CSV of its own, 'a.csv' is given; accepted: one of them", "advise.py", "a.csv", "--measure", "--n", 64)
        self.refused(2, "--budget is of --measure", "advise.py", "--n", 64, "--budget", 3)
        self.refused(2, "'/no/sweep' is not a program", "advise.py", "--measure", "--n", 64, "--attn-sweep", "/no/sweep")


if __name__ == "__main__":
    unittest.main()
