"""attn_apply --map: the weights that a variant has, or would have, as an array and as a page."""
import base64
import json
import os
import pathlib
import re
import struct
import subprocess
import tempfile
import unittest
import zlib

import numpy

APPLY = os.environ["ATTN_APPLY"]


def apply(*arguments):
    return subprocess.run([APPLY, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def data_of(page):
    """What the page draws, and its weights [heads, queries, keys]."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)
    data = json.loads(text)
    numbers = numpy.frombuffer(base64.b64decode(data["weights"]), "<i2").reshape(len(data["heads"]), data["queries"], data["keys"])
    return data, numbers * numpy.array([head["largest"] for head in data["heads"]])[:, None, None] / 32767


def softmax(logits):
    weights = numpy.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def png(path, rows):
    """Grey pixels."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))  # noqa: E731
    lines = b"".join(b"\0" + bytes(row) for row in rows)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        random = numpy.random.default_rng(1)
        self.q, self.k, self.v = (random.standard_normal((2, 24, 16), numpy.float32) for _ in range(3))
        numpy.savez(self.folder / "a.npz", q=self.q, k=self.k, v=self.v)
        self.tensors = ["--input", f"npz:{self.folder / 'a.npz'}", "--out", self.folder / "o.npy"]
        self.map = self.folder / "map.npy"
        self.page = self.folder / "map.html"

    def weights(self, variant, *more):
        done = apply(*self.tensors, "--force", "--variant", variant, "--map", self.map, *more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return numpy.load(self.map)

    def refused(self, *arguments, say):
        done = apply(*arguments)
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1), done.stderr)
        self.assertIn(say, done.stderr)
        self.assertEqual(sorted(path.name for path in self.folder.iterdir() if path.suffix in (".npy", ".html")), [])


class Weights(Case):
    def test_those_of_full_attention_are_softmax_rows(self):
        exact = softmax(self.q @ self.k.transpose(0, 2, 1) / 16 ** .5)
        found = self.weights("full")
        self.assertEqual(found.shape, (1, 2, 24, 24))
        numpy.testing.assert_allclose(found[0], exact, atol=2e-6)
        numpy.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)

    def test_causal_ones_are_zero_above_the_diagonal(self):
        found = self.weights("full", "--causal")[0]
        self.assertEqual(abs(numpy.triu(found, 1)).max(), 0)
        numpy.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)

    def test_outside_a_window_they_are_zero_and_inside_a_softmax_of_it(self):
        rows, columns = numpy.indices((24, 24))
        inside = (columns >= rows - 3) & (columns <= rows + 2)
        found = self.weights("local:left=3,right=2")[0]
        self.assertEqual(abs(found[:, ~inside]).max(), 0)
        numpy.testing.assert_allclose(found, softmax(numpy.where(inside, self.q @ self.k.transpose(0, 2, 1) / 4, -numpy.inf)), atol=2e-6)

    def test_a_variant_without_weights_has_those_that_give_its_output(self):
        for variant in ("linear", "performer:m=32", "nystrom:landmarks=4", "synth_random"):
            with self.subTest(variant):
                found = self.weights(variant)[0]
                out = numpy.load(self.folder / "o.npy")[0]
                numpy.testing.assert_allclose(found @ self.v, out, atol=1e-4 * abs(out).max())

    def test_an_operator_that_reads_x_has_those_of_x(self):
        found = self.weights("light_conv:width=5")[0]
        numpy.testing.assert_allclose(found @ self.q, numpy.load(self.folder / "o.npy")[0], atol=1e-5)
        self.assertTrue((found[:, 10, 8:13] > 0).all())
        self.assertEqual(abs(found[:, 10, :8]).max(), 0)

    def test_without_out_no_output_is_written(self):
        done = subprocess.run([APPLY, *map(str, self.tensors[:2]), "--variant", "performer", "--seed", "7", "--map", "w.npy"], capture_output=True, text=True,
                              cwd=self.folder)
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["a.npz", "w.npy"])
        self.assertEqual(done.stdout.splitlines()[0],
                         "w.npy: weights of 2 heads of 24 queries and 24 keys by performer; parameters drawn or fitted, seed 7")

    def test_figures_are_told_a_line_a_head(self):
        numpy.savez(self.folder / "b.npz", q=numpy.zeros_like(self.q), k=self.k, v=self.v)
        said = apply("--input", f"npz:{self.folder / 'b.npz'}", "--out", self.folder / "o.npy", "--map", self.map).stdout.splitlines()
        self.assertEqual(said[1], f"{self.map}: weights of 2 heads of 24 queries and 24 keys by full")
        apart = abs(numpy.subtract(*numpy.indices((24, 24)))).mean()
        self.assertEqual(said[2], f"head 0   entropy {numpy.log2(24):.2f} bits, distance {apart:.1f} tokens, sink {1 / 24:.3f} on token 0, rows sum to 1..1")
        self.assertEqual(len(said), 4)


class Page(Case):
    def test_it_holds_the_weights_of_the_array(self):
        exact = self.weights("full")[0]
        self.assertEqual(apply(*self.tensors, "--force", "--map", self.page).returncode, 0)
        data, weights = data_of(self.page)
        numpy.testing.assert_allclose(weights, exact, atol=exact.max() / 32767)
        self.assertEqual((data["variant"], data["words"], data["columns"], data["edges"]), ("full", [], 0, []))
        self.assertNotRegex(self.page.read_text(), r"(?:src|href)=|https?://(?!www\.w3\.org/2000/svg)")

    def test_heads_have_their_figures(self):
        exact = self.weights("local:left=3,right=2")[0].astype(float)
        apply(*self.tensors, "--force", "--variant", "local:left=3,right=2", "--map", self.page)
        apart = abs(numpy.subtract(*numpy.indices((24, 24))))
        for told, w in zip(data_of(self.page)[0]["heads"], exact):
            self.assertAlmostEqual(told["entropy"], -(w * numpy.log2(numpy.where(w > 0, w, 1))).sum(-1).mean(), places=4)
            self.assertAlmostEqual(told["distance"], (w * apart).sum(-1).mean(), places=4)
            self.assertEqual(told["sink"], w.mean(0).argmax())
            self.assertAlmostEqual(told["share"], w.mean(0).max(), places=4)

    def draw(self, *arguments):
        done = apply("--out", self.folder / "o.npy", "--force", "--heads", 2, "--head-dim", 8, "--map", self.page, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return data_of(self.page)[0]

    def test_a_text_has_its_letters(self):
        text = self.folder / "a.txt"
        text.write_bytes("Zwölf </script>\n".encode())
        self.assertEqual(self.draw("--input", f"text:{text}", "--n", 17)["words"],
                         ["Z", "w", "\\xc3", "\\xb6", "l", "f", " ", "<", "/", "s", "c", "r", "i", "p", "t", ">", "\n"])

    def test_a_picture_has_its_patches(self):
        png(self.folder / "a.png", [[0, 0, 255, 255]] * 2 + [[255, 255, 0, 102]] * 2)
        data = self.draw("--input", f"image:{self.folder / 'a.png'},patch=2", "--n", 4)
        self.assertEqual((data["columns"], data["colours"]), (2, ["#000000", "#ffffff", "#ffffff", "#333333"]))

    def test_a_graph_has_its_edges_and_weights_along_them_alone(self):
        (self.folder / "edges.txt").write_text("0 1\n1 2\n2 3\n")
        data = self.draw("--input", f"graph:{self.folder / 'edges.txt'}", "--n", 4, "--variant", "graph:loops=added")
        self.assertEqual(data["edges"], [[0, 1], [1, 2], [2, 3]])
        weights = data_of(self.page)[1]
        self.assertTrue((weights[:, [0, 0, 1, 3], [2, 3, 3, 0]] == 0).all())
        self.assertTrue((weights[:, [0, 1, 2, 3], [1, 2, 3, 3]] > 0).all())

    def test_tokens_of_a_file_name_those_of_captured_tensors(self):
        names = self.folder / "names.txt"
        names.write_text("".join(f"t{i}\n" for i in range(24)))
        self.assertEqual(apply(*self.tensors, "--map", self.page, "--tokens", names).returncode, 0)
        self.assertEqual(data_of(self.page)[0]["words"], [f"t{i}" for i in range(24)])


class Refusals(Case):
    def test_another_ending(self):
        self.refused(*self.tensors, "--map", self.folder / "map.png", say="ends neither in .npy nor in .html")

    def test_more_than_a_page_holds(self):
        self.refused("--input", "iid:1", "--n", 1024, "--out", self.folder / "o.npy", "--map", self.page,
                     say="8 heads of 1024 x 1024 are 8388608 weights, a page holds 4194304; accepted: fewer tokens, or FILE.npy")
        self.refused("--input", "iid:1", "--n", 4096, "--heads", 1, "--out", self.folder / "o.npy", "--map", self.map, say="up to 2048 queries and keys")

    def test_an_operator_that_is_no_matrix_times_v(self):
        self.refused(*self.tensors, "--variant", "fnet", "--map", self.map, say="--map: fnet: the output is not a matrix times x")
        self.refused(*self.tensors, "--variant", "dynamic_conv", "--map", self.map, say="not a matrix times x")

    def test_an_input_of_any_shape_wants_a_length(self):
        self.refused("--input", "text", "--out", self.folder / "o.npy", "--map", self.page, say="input text has no shape of its own")
        self.refused(*self.tensors, "--n", 24, say="has a shape of its own; accepted: one of them")

    def test_tokens_of_another_number(self):
        (self.folder / "names.txt").write_text("one\ntwo\n")
        self.refused(*self.tensors, "--map", self.page, "--tokens", self.folder / "names.txt", say="has 2 lines, the input has 24 keys")
        self.refused(*self.tensors, "--tokens", self.folder / "names.txt", say="give --map too")

    def test_blocks_and_states(self):
        self.refused(*self.tensors, "--kv-dtype", "q8", "--map", self.map, say="q8")
        self.refused(*self.tensors, "--causal", "--state", self.folder / "s.npz", "--map", self.map, say="--map shows a whole sequence")


if __name__ == "__main__":
    unittest.main()
