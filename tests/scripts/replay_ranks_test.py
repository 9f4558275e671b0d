"""replay_ranks.py: traces are schedules in which every message arrives, and, where SimGrid is, it replays them in the time that the formulas say."""
import collections
import shutil
import unittest

import numpy as np

import synthetic
from testing import ScriptTest

import predict_ranks
import replay_ranks

NETWORK = (2e-6, 1 / 12e9)
VARIANTS = {"full@ring": 1e-8, "full@ulysses": 1e-8, "linear@scan": 2e-7, "local@halo:left=128,right=128,sinks=0": 1e-6, "linformer@reduce:k=256": 3e-7}
NEEDS_SIMGRID = unittest.skipIf(shutil.which("smpirun") is None, "scripts/setup.sh --replay installs SimGrid")


class ReplayRanks(ScriptTest):
    def rows(self):
        return synthetic.write(self.folder / "ranks.csv", [
            synthetic.row(name, n, np.full(9, scale * n ** (2 if name.startswith("full") else 1)), ranks=1, threads=1)
            for name, scale in VARIANTS.items() for n in (4096, 16384)])

    def models(self):
        _, single = predict_ranks.usable([self.rows()])
        return predict_ranks.models_of(single, NETWORK)

    def test_every_message_that_is_sent_is_awaited_and_no_rank_sends_more_than_its_formula_says(self):
        for name, model in self.models().items():
            for p in (2, 3, 4, 6, 8):
                sent, awaited, bytes_of = collections.Counter(), collections.Counter(), collections.Counter()
                messages = collections.Counter()
                for rank in range(p):
                    lines = [line.split() for line in replay_ranks.trace(rank, p, model, 16384)]
                    self.assertEqual((lines[0], lines[-1]), ([str(rank), "init"], [str(rank), "finalize"]))
                    for words in lines:
                        if words[1] == "isend":
                            sent[rank, int(words[2]), words[4]] += 1
                            messages[rank] += 1
                            bytes_of[rank] += int(words[4])
                        if words[1] == "irecv":
                            awaited[int(words[2]), rank, words[4]] += 1
                self.assertEqual(sent, awaited, (name, p))
                most, size = predict_ranks.traffic(model.shape, 16384, p)
                self.assertEqual(max(messages.values()), most, (name, p))
                self.assertAlmostEqual(max(bytes_of.values()), size, delta=4 * most, msg=(name, p))

    @NEEDS_SIMGRID
    def test_the_formulas_are_within_a_hundredth_of_a_replay(self):
        for network in ("fast:2e-6,12e9", "slow:30e-6,1.1e9"):
            out = self.run_script("replay_ranks.py", self.rows(), "--network", network, "--ranks", "2,3,8,32").stdout
            self.assertEqual(sum("%" in line for line in out.splitlines()), 5 * 4 - 1, out)  # Ulysses has 8 heads for 32 ranks

    @NEEDS_SIMGRID
    def test_a_formula_that_is_too_far_off_is_told_by_the_exit_code(self):
        self.run_script("replay_ranks.py", self.rows(), "--network", "slow:30e-6,1.1e9", "--ranks", "3", "--within", "1e-9", code=1)

    def test_without_simgrid_it_says_what_installs_it(self):
        if shutil.which("smpirun") is None:
            self.refused(7, "scripts/setup.sh --replay installs SimGrid", "replay_ranks.py", self.rows(), "--network", "A:2e-6,12e9")
        self.refused(2, "--ranks 1: a replay is of 2 ranks or more", "replay_ranks.py", self.rows(), "--network", "A:2e-6,12e9", "--ranks", "1")


if __name__ == "__main__":
    unittest.main()
