"""Files that people have: pictures, sound, compressed arrays; what is torn or a pickle is refused."""
import math
import os
import subprocess
import unittest
import wave

import numpy

from sweep_case import Case, QUICK, ROOT, rows_of, run

CORPUS = ROOT / "tests/fuzz/corpus"
APPLY = os.environ["ATTN_APPLY"]


class Files(Case):
    def values_of(self, name, n):
        """What the input gives as V."""
        folder = self.folder / f"out{len(os.listdir(self.folder))}"
        done = run("--variants", "copy_v", "--n", str(n), "--heads", "1", "--samples", "1", "--rounds", "1", "--sample-time", "0", "--machine-root",
                   "/none", "--force", "--out", self.out, "--input", name, "--save-output", str(folder))
        self.assertEqual(done.returncode, 0, done.stderr)
        (file,) = folder.glob("*.npy")
        return numpy.load(file)

    def torn(self, file, keep):
        path = self.folder / file.name
        path.write_bytes(file.read_bytes()[:keep])
        return path

    def test_a_picture_is_the_same_in_each_format(self):
        pixels = (numpy.arange(4 * 6 * 3).reshape(4, 6, 3) * 3).astype(numpy.uint8)
        ppm = self.folder / "a.ppm"
        ppm.write_bytes(b"P6 6 4 255\n" + pixels.tobytes())
        expected = self.values_of(f"image:{ppm}", 24)
        for name in ("rgb.png", "alpha.png"):
            numpy.testing.assert_array_equal(self.values_of(f"image:{CORPUS}/image/{name}", 24), expected, name)
        large = numpy.kron(pixels, numpy.ones((4, 4, 1), numpy.uint8))
        ppm.write_bytes(b"P6 24 16 255\n" + large.tobytes())
        near = self.values_of(f"image:{CORPUS}/image/rgb.jpg,patch=4", 24)
        self.assertLess(abs(near - self.values_of(f"image:{ppm},patch=4", 24)).max(), 0.5)  # as far as JPEG at quality 90 goes

    def test_sound_is_the_same_in_each_format(self):
        path = self.folder / "a.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 8000, 400, "NONE", ""))
            file.writeframes(numpy.array([round(32767 * 0.5 * math.sin(2 * math.pi * t / 8)) for t in range(400)], "<i2").tobytes())
        expected = self.values_of(f"wav:{path}", 3)
        for name in ("tone.flac", "tone_float.wav", "tone.aiff"):
            near = self.values_of(f"wav:{CORPUS}/wav/{name}", 3)
            # Bands without the tone hold the rounding of samples alone, whose logarithm may be anything small.
            self.assertGreater(numpy.corrcoef(near.ravel(), expected.ravel())[0, 1], 0.9, name)

    def test_compressed_arrays_are_those_that_were_compressed(self):
        rng = numpy.random.default_rng(1)
        arrays = {name: rng.normal(size=(2, 40, 8)).astype(numpy.float32) for name in "qkv"}
        numpy.savez(self.folder / "a.npz", **arrays)
        numpy.savez_compressed(self.folder / "b.npz", **arrays)
        outputs = []
        for name in "ab":
            done = subprocess.run([APPLY, "--input", f"npz:{self.folder}/{name}.npz", "--out", self.folder / f"{name}.npy"], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            outputs.append((self.folder / f"{name}.npy").read_bytes())
        self.assertEqual(*outputs)
        whole = bytearray((self.folder / "b.npz").read_bytes())
        whole[200] ^= 0xff
        (self.folder / "b.npz").write_bytes(whole)
        done = subprocess.run([APPLY, "--input", f"npz:{self.folder}/b.npz", "--out", self.folder / "c.npy"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, "b.npz': byte .*(the compressed bytes are torn|CRC-32 of member)")

    def capture(self, file, shape=(2, 40, 8), **more):
        rng = numpy.random.default_rng(3)
        arrays = {name: rng.normal(size=shape).astype(numpy.float32) for name in "qkv"}
        (self.folder / "captured").mkdir(exist_ok=True)
        numpy.savez(self.folder / "captured" / file, **arrays, **more)
        return f"npz:{self.folder}/captured/{file}", arrays

    def applied(self, name, variant="full"):
        out = self.folder / "applied.npy"
        done = subprocess.run([APPLY, "--input", name, "--variant", variant, "--out", out, "--force"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return numpy.load(out)[0], done.stderr

    def test_each_file_of_a_folder_is_an_input_of_its_own_shape(self):
        self.capture("layer0.npz")
        self.capture("layer1.npz", shape=(3, 24, 16))
        folder = f"npz:{self.folder}/captured/"
        done = run(*QUICK, "--variants", "full,local", "--n", "24", "--input", folder, "--out", self.out)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([(r["input"][-10:], r["heads"], r["q_len"], r["head_dim"], r["status"]) for r in rows_of(self.out)],
                         [("layer0.npz", "2", "24", "8", "ok")] * 2 + [("layer1.npz", "3", "24", "16", "ok")] * 2)
        os.remove(self.out)
        numpy.savez(self.folder / "captured" / "layer2.npz", q=numpy.zeros((2, 8, 4), numpy.float32))
        self.refused("--n", "24", "--input", folder, say=("layer2.npz': ", "there is no member k.npy"))

    def test_a_mask_is_added_or_hides_or_is_left_out_and_who_takes_none_says_so(self):
        rng = numpy.random.default_rng(4)
        mask = rng.normal(size=(2, 40, 40)).astype(numpy.float32)
        mask[rng.random(mask.shape) < 0.3] = -numpy.inf
        mask[1, 5] = -numpy.inf
        name, a = self.capture("masked.npz", mask=mask)

        def attention(added):
            scores = a["q"].astype(float) @ a["k"].swapaxes(-1, -2) / 8**0.5 + added
            with numpy.errstate(invalid="ignore"):
                weights = numpy.exp(scores - scores.max(-1, keepdims=True))
            return numpy.nan_to_num(weights / weights.sum(-1, keepdims=True)) @ a["v"]

        for variant in ("full", "full@unfused", "local:left=40,right=40"):
            out, said = self.applied(name, variant)
            numpy.testing.assert_allclose(out, attention(mask), rtol=0, atol=2e-6, err_msg=variant)
            self.assertIn("its mask [1,2,40,40] is added to the logits", said)
        out, said = self.applied(name + ",mask=none")
        numpy.testing.assert_allclose(out, attention(0), rtol=0, atol=2e-6)
        self.assertIn("its mask is left out", said)
        near = numpy.abs(numpy.subtract.outer(numpy.arange(40), numpy.arange(40))) <= 3
        out, _ = self.applied(name, "local:left=3,right=3")
        numpy.testing.assert_allclose(out, attention(numpy.where(near, mask, -numpy.inf)), rtol=0, atol=2e-6)

        done = run(*QUICK, "--variants", "full,local:left=3,right=3,performer", "--n", "40", "--input", name, "--out", self.out)
        self.assertEqual(done.returncode, 0, done.stderr)
        full, local, performer = sorted(rows_of(self.out), key=lambda row: ["full", "local", "performer"].index(row["variant"]))
        self.assertEqual((full["status"], local["status"], performer["status"]), ("ok", "ok", "unsupported"), full["reason"] + local["reason"])
        self.assertIn("performer takes no mask but the causal one; a file's is left out by ',mask=none' after its name", performer["reason"])
        self.assertGreater(float(full["fid_skill"]), 0.999)
        self.assertLess(float(local["fid_skill"]), 0.9)

    def test_a_mask_of_booleans_hides_keys_where_it_is_false(self):
        seen = numpy.arange(40) % 3 != 1
        name, a = self.capture("padded.npz", mask=seen[None])
        out, _ = self.applied(name)
        name, _ = self.capture("shorter.npz", mask=numpy.where(seen, 0, -numpy.inf).astype(numpy.float32))
        numpy.testing.assert_array_equal(out, self.applied(name)[0])
        bad, _ = self.capture("bad.npz", mask=numpy.full(40, numpy.nan, numpy.float32))
        done = run(*QUICK, "--variants", "full", "--n", "40", "--input", bad, "--out", self.out)
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertIn("element 0 is nan; accepted: numbers up to 1000000000, and -inf or what is below -1000000000 to hide a key", rows_of(self.out)[0]["reason"])

    def test_a_carried_model_needs_no_file(self):
        done = run(*QUICK, "--variants", "full", "--n", "256", "--input", "model:ocr", "--out", self.out)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([(r["input"], r["heads"], r["head_dim"], r["status"]) for r in rows_of(self.out)],
                         [("model:ocr,layer=0", "8", "15", "ok"), ("model:ocr,layer=1", "8", "15", "ok")])
        os.remove(self.out)
        self.refused("--input", "model:bert", say=("no capture that attnbench carries; accepted: ocr",))

    def test_torn_files_are_refused(self):
        for kind, name, keep, words in (("image", "rgb.png", 60, "a torn PNG: "), ("image", "rgb.jpg", 700, "a torn JPEG: "),
                                        ("image", "rgb.jpg", 100, "JPEG: "), ("wav", "tone.flac", 100, "torn: ")):
            self.refused("--input", f"{kind}:{self.torn(CORPUS / kind / name, keep)}", say=(name, words))

    def test_a_pickle_is_refused_with_what_converts_it(self):
        done = run("--input", "npz:model.pt", "--dry-run")
        self.assertEqual(done.returncode, 2)
        first, *lines = done.stderr.splitlines()
        self.assertIn("'model.pt' is a pickle of PyTorch's, which may run programs; two lines of Python convert it:", first)
        self.assertEqual(lines, ["  import numpy, torch; t = torch.load('model.pt', map_location='cpu', weights_only=True)",
                                 "  numpy.savez('model.npz', **{name: t[name].float().numpy() for name in 'qkv'})"])
        done = subprocess.run([APPLY, "--q", "q.pt", "--k", "k.pt", "--v", "v.pt", "--out", self.folder / "o.npy"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("  numpy.save('q.npy', t.float().numpy())", done.stderr)

    def test_a_file_without_its_kind_is_told_it(self):
        for file, kind in (("a.png", "image"), ("a.flac", "wav"), ("a.txt", "text"), ("a.npz", "npz")):
            self.refused("--input", file, say=(f"did you mean '{kind}:{file}'?",))


if __name__ == "__main__":
    unittest.main()
