"""Sweeps over a folder of captures: advise.py picks a variant for each layer, the report says which layers a variant serves."""
import json
import unittest

import numpy as np

import synthetic
from testing import ScriptTest

# layer -> variant -> (seconds at N=1024, skill)
PLANTED = {"layer0": {"full": (10e-3, 1.0), "local:left=64,right=64": (2e-3, 0.97), "nystrom": (4e-3, 0.80)},
           "layer1": {"full": (10e-3, 1.0), "local:left=64,right=64": (2e-3, 0.60), "nystrom": (4e-3, 0.96)},
           "layer2": {"full": (20e-3, 1.0), "local:left=64,right=64": (2e-3, 0.20), "nystrom": (30e-3, 0.99)}}


def rows(folder="captured", lengths=(512, 1024), causal=0):
    out = []
    for layer, variants in PLANTED.items():
        for n in lengths:
            for name, (time_s, skill) in variants.items():
                out.append(synthetic.row(name, n, np.full(9, time_s * n / 1024), skill=skill, input=f"npz:{folder}/{layer}.npz", causal=causal))
    return out


class Models(ScriptTest):
    def setUp(self):
        super().setUp()
        self.path = synthetic.write(self.folder / "a.csv", rows())

    def advise(self, *arguments, code=0):
        return json.loads(self.run_script("advise.py", self.path, "--model", "captured/", "--format", "json", *arguments, code=code).stdout)

    def test_each_layer_has_the_fastest_variant_of_enough_skill(self):
        told = self.advise("--skill", 0.95)
        self.assertEqual([p["take"] for p in told["layers"]], ["local:left=64,right=64", "nystrom", "full"])
        self.assertEqual([p["n"] for p in told["layers"]], [1024] * 3)
        self.assertAlmostEqual(told["full_s"], 40e-3)
        self.assertAlmostEqual(told["time_s"], 2e-3 + 4e-3 + 20e-3)
        self.assertAlmostEqual(told["gain"], 40 / 26)
        self.assertAlmostEqual(told["least_skill"], 0.96)
        self.assertEqual([round(p["share"], 6) for p in told["layers"]], [0.25, 0.25, 0.5])
        self.assertEqual(told["one_for_all"], "full")

    def test_a_carried_model_is_one_as_a_folder_is(self):
        carried = [{**row, "input": row["input"].replace("npz:captured/layer", "model:ocr,layer=").removesuffix(".npz")} for row in rows()]
        self.path = synthetic.write(self.folder / "ocr.csv", carried)
        told = json.loads(self.run_script("advise.py", self.path, "--model", "model:ocr", "--format", "json", "--skill", 0.95).stdout)
        self.assertEqual([(p["file"], p["take"]) for p in told["layers"]],
                         [("layer0", "local:left=64,right=64"), ("layer1", "nystrom"), ("layer2", "full")])
        self.assertIn("model model:ocr, 3 layers:", self.run_script("report.py", self.path, "--summary", "-o", "a.html").stdout)

    def test_less_skill_is_one_variant_for_all(self):
        told = self.advise("--skill", 0.1)
        self.assertEqual((told["one_for_all"], told["gain"]), ("local:left=64,right=64", 40 / 6))

    def test_a_length_may_be_asked_for(self):
        self.assertAlmostEqual(self.advise("--skill", 0.95, "--n", 512)["full_s"], 20e-3)

    def test_causal_captures_need_no_flag(self):
        self.path = synthetic.write(self.folder / "causal.csv", rows(causal=1))
        self.assertEqual(len(self.advise("--skill", 0.95)["layers"]), 3)

    def test_names_of_layers_are_those_of_the_capture(self):
        (self.folder / "captured").mkdir()
        told = {"layers": [{"file": "layer1.npz", "layer": "/encoder/1"}, {"file": "", "layer": "odd", "why_not": "x"}]}
        (self.folder / "captured/capture.json").write_text(json.dumps(told))
        said = self.run_script("advise.py", self.path, "--model", "captured", "--skill", 0.95).stdout
        self.assertIn("layer1.npz, /encoder/1", said)
        self.assertIn("1.54 times as fast; least skill 0.960", said)
        (self.folder / "captured/capture.json").write_text("{")
        self.run_script("advise.py", self.path, "--model", "captured", "--skill", 0.95)

    def test_layers_of_several_lengths_are_judged_at_their_own(self):
        mixed = [row for row in rows() if not (row["input"].endswith("layer2.npz") and row["q_len"] == 1024)]
        self.path = synthetic.write(self.folder / "mixed.csv", mixed)
        self.assertEqual([p["n"] for p in self.advise("--skill", 0.95)["layers"]], [1024, 1024, 512])
        self.assertIn("2 lengths", self.run_script("advise.py", self.path, "--model", "captured").stdout)

    def test_what_was_not_measured_is_not_advised(self):
        self.refused(5, "no cell with an input of the folder 'other'; measured: captured; attn_sweep --input npz:other/", "advise.py", self.path,
                     "--model", "other")
        bare = synthetic.write(self.folder / "bare.csv", [row for row in rows() if row["variant"] != "full"])
        self.refused(5, "full was not measured on layer0.npz", "advise.py", bare, "--model", "captured")
        self.refused(2, "--input is given besides", "advise.py", self.path, "--model", "captured", "--input", "text")
        self.refused(2, "give --n", "advise.py", self.path)

    def test_the_report_says_which_layers_a_variant_serves(self):
        said = self.run_script("report.py", self.path, "--summary", "-o", "a.html").stdout
        self.assertIn("model captured, 3 layers: faster than full with skill 0.9: local:left=64,right=64 in 1 (layer0); nystrom in 1 (layer1)", said)
        plain = synthetic.write(self.folder / "plain.csv", synthetic.zoo((512,)))
        self.assertNotIn("model ", self.run_script("report.py", plain, "--summary", "-o", "b.html").stdout)


if __name__ == "__main__":
    unittest.main()
