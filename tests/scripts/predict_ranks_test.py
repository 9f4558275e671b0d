"""predict_ranks.py: a planted machine and network come back; what it prints says that it is predicted."""
import unittest

import numpy as np

import synthetic
from testing import ScriptTest

ALPHA, BETA = 3e-6, 1 / 4e9  # of the planted network


def planted(name, n, ranks, arithmetic, messages, sent):
    """A row whose time is its arithmetic and its messages, without noise; a window's go out at once."""
    messages_s = ALPHA * (min(messages, 1) if "halo" in name else messages) + BETA * sent
    variant, _, rest = name.partition("@")
    return synthetic.row(name, n, np.full(9, arithmetic + messages_s), ranks=ranks, threads=1, rank_messages=messages if ranks > 1 else "",
                         rank_sent_bytes=sent if ranks > 1 else "", rank_messages_s=messages_s if ranks > 1 else "")


class PredictRanks(ScriptTest):
    def rows(self):
        rows = []
        for n in (1024, 2048, 4096, 8192):
            state = 4 * 8 * 64 * 65  # S and z of linear: 8 heads of 64 features
            window = 4 * 8 * 128 * 256  # K and V of 128 tokens on each side
            for ranks, messages in ((1, 0), (2, 1), (4, 2)):
                rows.append(planted("linear@scan", n, ranks, 2e-7 * n / ranks, messages, state * messages))
                rows.append(planted("local@halo:left=128,right=128,sinks=0", n, ranks, 1e-6 * n / ranks, messages, window * messages / 2))
            rows.append(planted("full@ring", n, 1, 1e-8 * n * n, 0, 0))
        return synthetic.write(self.folder / "ranks.csv", rows)

    def test_the_planted_network_comes_back_and_so_do_rows_that_nothing_was_fitted_to(self):
        out = self.run_script("predict_ranks.py", self.rows()).stdout
        self.assertIn("alpha 3e-06 s a message, 4 GB/s", out)
        checked = [line.split() for line in out.splitlines() if line.startswith(("linear@scan", "local@halo")) and "%" in line]
        self.assertEqual(len(checked), 16)
        for *_, error, percent in checked:
            self.assertLessEqual(abs(int(error)), 2, checked)
            self.assertEqual(percent, "%")

    def test_a_given_network_is_predicted_and_called_so(self):
        out = self.run_script("predict_ranks.py", self.rows(), "--network", "A:2e-6,12e9", "--ranks", "8,64").stdout
        self.assertIn("predicted: network A, alpha 2e-06 s, 12 GB/s", out)
        self.assertIn("extrapolates 128-fold in N and 64-fold in ranks", out)
        ring = [line.split() for line in out.split("predicted: network A")[1].split("predicted:")[0].splitlines() if line.startswith("full@ring")]
        self.assertEqual([row[1] for row in ring], ["8", "64"])
        # 1 M tokens on 8 ranks, messages hidden: an eighth of 1e-8 * 2^40 s
        self.assertAlmostEqual(float(ring[0][-1]), 1e-8 * 2**40 / 8, delta=0.01 * 1e-8 * 2**40 / 8)

    def test_a_window_asks_as_many_ranks_as_it_reaches(self):
        def row(name):
            return synthetic.row(name, 4096, np.full(9, 1.0), ranks=1, threads=1)

        import predict_ranks
        path = synthetic.write(self.folder / "halo.csv", [row("dilated@halo:window=64,step=4"), row("blockwise@halo:block=128,before=1,after=0"),
                                                          row("local@halo:left=unlimited,right=0,sinks=0")])
        _, single = predict_ranks.usable([path])
        shapes = {r["variant"]: predict_ranks.shape_of(r) for r in single.to_dict("records")}
        token = 4 * 8 * (64 + 64)  # K and V of 8 heads of 64
        self.assertEqual(predict_ranks.traffic(shapes["dilated"], 4096, 4), (2, 512 * token))  # 256 tokens from each side
        self.assertEqual(predict_ranks.traffic(shapes["dilated"], 512, 4), (3, 384 * token))  # all others
        self.assertEqual(predict_ranks.traffic(shapes["blockwise"], 4096, 4), (1, 128 * token))
        self.assertEqual(predict_ranks.traffic(shapes["local"], 4096, 4), (3, 3072 * token))
        self.run_script("predict_ranks.py", path, "--network", "A:2e-6,12e9")

    def test_what_it_cannot_use_is_refused(self):
        self.refused(2, "--network B:fast is not NAME:ALPHA,BANDWIDTH", "predict_ranks.py", self.rows(), "--network", "B:fast")
        tree = synthetic.write(self.folder / "tree.csv", [synthetic.row("full@tree", 1024, np.full(9, 1.0), ranks=1)])
        self.refused(2, "there is no model of @tree; there are those of @ring, @halo, @ulysses, @scan, @reduce", "predict_ranks.py", tree)
        native = synthetic.write(self.folder / "native.csv", [synthetic.row("full", 1024, np.full(9, 1.0))])
        self.refused(5, "no row of one rank", "predict_ranks.py", native)


if __name__ == "__main__":
    unittest.main()
