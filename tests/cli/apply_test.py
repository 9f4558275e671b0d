"""attn_apply: a variant on somebody's tensors, by the sweep's own path; and the races that fidelity decides."""
import csv
import json
import os
import pathlib
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile

import numpy

SWEEP = os.environ["ATTN_SWEEP"]
APPLY = os.environ["ATTN_APPLY"]
ROOT = pathlib.Path(__file__).resolve().parents[2]


def apply(*arguments, **options):
    return subprocess.run([APPLY, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        random = numpy.random.default_rng(1)
        self.q, self.k, self.v = (random.standard_normal((2, 96, 16), numpy.float32) for _ in range(3))
        self.files = [self.folder / f"{name}.npy" for name in "qkv"]
        for path, array in zip(self.files, (self.q, self.k, self.v)):
            numpy.save(path, array)
        self.qkv = ["--q", self.files[0], "--k", self.files[1], "--v", self.files[2]]
        self.out = self.folder / "o.npy"

    def sweep(self, *arguments):
        table = self.folder / "a.csv"
        done = subprocess.run([SWEEP, "--samples", "1", "--rounds", "1", "--sample-time", "0", "--threads", "2", "--force",
                               "--out", str(table), *map(str, arguments)], capture_output=True, text=True, timeout=300)
        self.assertIn(done.returncode, (0, 5), done.stderr)
        with open(table, newline="") as file:
            return list(csv.DictReader(file))

    def refused(self, *arguments, say):
        done = apply(*arguments)
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1), done.stderr)
        self.assertIn(str(say), done.stderr)
        self.assertFalse(self.out.exists())


class Outputs(Case):
    def test_closed_and_full_streams_do_not_spoil_the_output(self):
        for streams, code in ((">&- 2>&-", 0), (">/dev/full 2>/dev/full", 6)):
            words = [APPLY, *map(str, self.qkv), "--compare", "rows", "--out", str(self.out), "--force", streams]
            self.assertEqual(subprocess.run(["sh", "-c", " ".join(words)], timeout=60).returncode, code, streams)
            self.assertEqual(numpy.load(self.out).shape, (1, *self.q.shape))
            self.out.unlink()

    def test_an_id_of_before_is_taken_and_its_name_of_today_said(self):
        done = apply(*self.qkv, "--variant", "full_unfused", "--out", self.out)
        self.assertEqual((done.returncode, done.stderr), (0, "attn_apply: full_unfused is now called full@unfused\n"))

    def test_an_output_that_no_disk_takes_says_so_in_the_exit_code(self):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        done = apply(*self.qkv, "--out", self.out, preexec_fn=limit)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (6, 1), done.stderr)
        self.assertIn("--out: cannot write", done.stderr)
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["k.npy", "q.npy", "v.npy"])

    def test_a_link_as_output_stays_one(self):
        self.out.write_text("old")
        link = self.folder / "link.npy"
        link.symlink_to(self.out)
        self.assertEqual(apply(*self.qkv, "--out", link, "--force").returncode, 0)
        self.assertTrue(link.is_symlink())
        self.assertEqual(numpy.load(self.out).shape, (1, *self.q.shape))

    def test_outputs_that_are_not_finite_are_told(self):
        for path, array in zip(self.files, (1e20 * self.q, 1e20 * self.k)):
            numpy.save(path, array)
        done = apply(*self.qkv, "--out", self.out)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (0, 1), done.stderr)
        count = (~numpy.isfinite(numpy.load(self.out))).sum()
        self.assertIn(f"attn_apply: {count} of {self.q.size} outputs are not finite; --compare rows tells", done.stderr)

    def test_it_says_what_it_did(self):
        said = apply(*self.qkv, "--out", self.out, "--variant", "local:left=3", "--threads", "2").stdout
        self.assertEqual(said, f"{self.out}: [1,{self.q.shape[0]},{self.q.shape[1]},{self.v.shape[2]}] f32 by local:left=3 on 2 threads\n")
        said = apply(*self.qkv, "--out", self.out, "--force", "--variant", "performer", "--seed", "7").stdout
        self.assertTrue(said.endswith("; parameters drawn or fitted, seed 7\n"), said)
        self.assertEqual(apply(*self.qkv, "--out", self.out, "--force", "--quiet").stdout, "")

    def test_its_flags_are_variables_too(self):
        done = apply(*self.qkv, "--out", self.out, env={**os.environ, "ATTN_VARIANT": "copy_v"})
        self.assertIn(" by copy_v on ", done.stdout)

    def test_full_attention_is_what_numpy_says(self):
        self.assertEqual(apply(*self.qkv, "--out", self.out).returncode, 0)
        logits = self.q @ self.k.transpose(0, 2, 1) / 16 ** .5
        weights = numpy.exp(logits - logits.max(-1, keepdims=True))
        numpy.testing.assert_allclose(numpy.load(self.out)[0], weights / weights.sum(-1, keepdims=True) @ self.v, atol=1e-5)

    def test_the_check_in_the_readme(self):
        (check,) = re.findall(r"```python\n(import numpy;.*?)```", (ROOT / "harness/README.md").read_text(), re.S)
        self.assertEqual(check.count("\n"), 3)
        apply(*self.qkv, "--out", self.out)
        done = subprocess.run([sys.executable, "-c", check], cwd=self.folder, capture_output=True, text=True, check=True)
        self.assertLess(float(done.stdout), 1e-5)

    def test_the_sweep_computes_the_same_bits(self):
        variants = "full,local:left=5,right=3,linformer:k=8,linformer:k=8,sharing=none,weights=lstsq,linear,synth_random,performer,nystrom:landmarks=8,reformer,inducing"
        rows = self.sweep("--variants", variants, "--input", "npy:" + ",".join(map(str, self.files)), "--n", "96",
                          "--save-output", self.folder / "outputs", "--causal", "no")
        self.assertEqual(len(rows), 10)
        for row in rows:
            with self.subTest(row["variant"]):
                name = row["variant"] + (":" + row["options"] if row["options"] else "")
                done = apply(*self.qkv, "--variant", name, "--threads", "2", "--out", self.out, "--force")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(self.out.read_bytes(), pathlib.Path(row["output_file"]).read_bytes())

    def test_causal(self):
        apply(*self.qkv, "--causal", "--out", self.out)
        numpy.testing.assert_allclose(numpy.load(self.out)[0, :, 0], self.v[:, 0], atol=1e-6)

    def test_npz_and_safetensors_hold_the_same(self):
        numpy.savez(self.folder / "a.npz", q=self.q, k=self.k, v=self.v)
        apply(*self.qkv, "--out", self.out)
        other = self.folder / "p.npy"
        self.assertEqual(apply("--input", f"npz:{self.folder / 'a.npz'}", "--out", other).returncode, 0)
        self.assertEqual(self.out.read_bytes(), other.read_bytes())

    def test_axes_of_another_order_are_noted(self):
        for path in self.files:
            numpy.save(path, numpy.load(path).transpose(1, 0, 2)[None])  # [B,N,H,d]
        done = apply(*self.qkv, "--out", self.out)
        self.assertEqual((done.returncode, done.stderr), (0, "attn_apply: 96 heads of 2 tokens: axes are read as [B,H,N,d]\n"))

    def test_fidelity_is_printed_on_request(self):
        done = apply(*self.qkv, "--variant", "local:left=9,right=9", "--compare", "full", "--out", self.out)
        figures = dict(line.split(None, 1) for line in done.stdout.splitlines())
        self.assertLess(float(figures["err_relative"]), 1e-5)
        for name in ("fid_skill", "fid_relative", "fid_js", "fid_support_mass", "in_q_norm2"):
            float(figures[name])

    def test_parameters_are_saved_and_loaded(self):
        folder = self.folder / "learned"
        arguments = [*self.qkv, "--variant", "linformer:k=4,sharing=headwise", "--parameters", folder]
        self.assertEqual(apply(*arguments, "--out", self.out, "--seed", 5).returncode, 0)
        self.assertEqual(sorted(path.name for path in folder.iterdir()), ["E.npy", "F.npy"])
        other = self.folder / "p.npy"
        self.assertEqual(apply(*arguments, "--out", other, "--seed", 6).returncode, 0)
        self.assertEqual(self.out.read_bytes(), other.read_bytes())
        # Learned tensors from elsewhere: the first four keys and values instead of mixtures.
        first = numpy.eye(4, 96, dtype=numpy.float32)[None]
        numpy.save(folder / "E.npy", first)
        numpy.save(folder / "F.npy", first)
        apply(*arguments, "--out", other, "--force")
        logits = self.q @ self.k[:, :4].transpose(0, 2, 1) / 16 ** .5
        weights = numpy.exp(logits)
        numpy.testing.assert_allclose(numpy.load(other)[0], weights / weights.sum(-1, keepdims=True) @ self.v[:, :4], atol=1e-5)

    def test_a_fit_by_least_squares_is_numpys(self):
        random = numpy.random.default_rng(2)
        centres = 3 * random.standard_normal((6, 16))
        q, k = ((centres[random.integers(6, size=(2, 96))] + random.standard_normal((2, 96, 16))).astype("f4") for _ in range(2))
        for path, array in zip(self.files, (q, k)):
            numpy.save(path, array)
        variant = "linformer:k=8,sharing=none,weights=lstsq"
        done = apply(*self.qkv, "--variant", variant, "--parameters", self.folder / "fit", "--compare", "rows", "--out", self.out)
        self.assertEqual(done.returncode, 0, done.stderr)
        fitted = numpy.load(self.out)[0]

        def weights(keys):
            logits = q @ keys.swapaxes(-1, -2) / 4.0
            w = numpy.exp(logits - logits.max(-1, keepdims=True))
            return w / w.sum(-1, keepdims=True)
        means = numpy.repeat(numpy.eye(8), 12, 1) / 12
        mixed, exact = weights(means @ k), weights(k.astype("f8"))
        fits = numpy.stack([numpy.linalg.lstsq(c[::2], p[::2], rcond=1e-3)[0] for c, p in zip(mixed, exact)])

        def error(output, first):
            wanted = exact @ self.v
            return (((output - wanted)[:, first::2] ** 2).sum() / (wanted[:, first::2] ** 2).sum()) ** .5
        for first, share in ((0, 0.7), (1, 0.8)):  # the queries that the fit has seen, and those that it has not
            self.assertAlmostEqual(error(fitted, first), error(mixed @ fits @ self.v, first), delta=0.005)
            self.assertLess(error(fitted, first), share * error(mixed @ means @ self.v, first))

        # The tensors that were saved are those of the run; loaded, they serve other options too.
        self.assertLess(abs(numpy.load(self.folder / "fit" / "F.npy") - fits).max(), 0.01)
        for name in (variant, "linformer:k=8,sharing=none"):
            other = self.folder / "p.npy"
            again = apply(*self.qkv, "--variant", name, "--parameters", self.folder / "fit", "--compare", "rows", "--out", other, "--force")
            figures = [text.partition("\n")[2] for text in (again.stdout, done.stdout)]  # behind what was done
            self.assertEqual((again.returncode, figures[0]), (0, figures[1]))
            self.assertEqual(other.read_bytes(), self.out.read_bytes())


class Refusals(Case):
    def test_parameters_that_do_not_fit(self):
        folder = self.folder / "learned"
        folder.mkdir()
        numpy.save(folder / "E.npy", numpy.zeros((1, 4, 95), numpy.float32))
        arguments = [*self.qkv, "--out", self.out, "--parameters", folder]
        self.refused(*arguments, "--variant", "linformer:k=4", say="[1,4,95]")
        self.refused(*arguments, "--variant", "linformer:k=4,sharing=headwise", say="F.npy")
        numpy.save(folder / "E.npy", numpy.full((1, 4, 96), numpy.nan, numpy.float32))
        self.refused(*arguments, "--variant", "linformer:k=4", say="E.npy': element 0 is not a finite float")

    def test_tables_that_name_rows_which_are_not_there(self):
        folder = self.folder / "tables"
        arguments = [*self.qkv, "--parameters", folder, "--variant", "clustered:clusters=8"]
        self.assertEqual(apply(*arguments, "--out", self.out).returncode, 0)
        self.out.unlink()
        starts = numpy.load(folder / "starts.npy")
        for bad in (96, -1, 0.5):
            starts.flat[3] = bad
            numpy.save(folder / "starts.npy", starts)
            self.refused(*arguments, "--out", self.out, say="starts.npy': element 3 is no whole number from 0 to 95")

    def test_tables_that_name_blocks_which_are_not_there(self):
        folder = self.folder / "blocks"
        arguments = [*self.qkv, "--parameters", folder, "--variant", "bigbird:block=8,random=2"]
        self.assertEqual(apply(*arguments, "--out", self.out).returncode, 0)
        self.out.unlink()
        blocks = numpy.load(folder / "random_blocks.npy")
        for bad in (12, -2, 3.5):
            blocks.flat[40] = bad
            numpy.save(folder / "random_blocks.npy", blocks)
            self.refused(*arguments, "--out", self.out, say="random_blocks.npy': element 40 is no whole number from -1 to 11")

    def test_cached_weights_of_later_keys_are_refused_when_causal(self):
        folder = self.folder / "weights"
        arguments = [*self.qkv, "--parameters", folder, "--variant", "synth_random"]
        self.assertEqual(apply(*arguments, "--out", self.out).returncode, 0)
        self.out.unlink()
        self.refused(*arguments, "--causal", "--out", self.out,
                     say="P.npy': element 1 is the weight of key 1 for row 0, which must be 0 when causal")

    def test_bad_tensors(self):
        cut = self.folder / "cut.npy"
        cut.write_bytes(self.files[0].read_bytes()[:-20])
        short = self.folder / "short.npy"
        numpy.save(short, self.k[:, :50])
        big_endian = self.folder / "big.npy"
        numpy.save(big_endian, self.q.astype(">f4"))
        q, k, v = self.files
        self.refused("--q", cut, "--k", k, "--v", v, "--out", self.out, say=cut)
        self.refused("--q", q, "--k", short, "--v", v, "--out", self.out, say=short)
        self.refused("--q", big_endian, "--k", k, "--v", v, "--out", self.out, say=big_endian)
        self.refused("--q", self.folder / "none.npy", "--k", k, "--v", v, "--out", self.out, say="none.npy")

    def malformed(self, kind, path, *say):
        self.refused(*(["--q", path, "--k", path, "--v", path] if kind == "npy" else ["--input", f"{kind}:{path}"]),
                     "--out", self.out, say=path)
        done = apply(*(["--q", path, "--k", path, "--v", path] if kind == "npy" else ["--input", f"{kind}:{path}"]), "--out", self.out)
        for words in say:
            self.assertRegex(done.stderr, words)

    def test_malformed_files_are_refused_by_field_and_byte(self):
        def file(name, data):
            path = self.folder / name
            path.write_bytes(data)
            return path
        npy = self.files[0].read_bytes()
        self.malformed("npy", file("magic.npy", b"PK" + npy[2:]), "byte 0: magic")
        self.malformed("npy", file("long.npy", npy[:8] + b"\xff\xff" + npy[10:200]), "byte 8: header length 65535")
        self.malformed("npy", file("cut.npy", npy[:-4]), r"byte \d+: shape \[2,96,16\] needs 12288 bytes")
        self.malformed("npy", file("big.npy", npy.replace(b"<f4", b">f4")), r"byte \d+: descr '>f4' is big-endian")
        numpy.save(self.folder / "objects.npy", numpy.array([{}, {}]), allow_pickle=True)
        self.malformed("npy", self.folder / "objects.npy", r"byte \d+: descr '\|O' holds Python objects")
        numpy.savez(self.folder / "a.npz", q=self.q, k=self.k, v=self.v)
        npz = (self.folder / "a.npz").read_bytes()
        with zipfile.ZipFile(self.folder / "c.npz", "w", zipfile.ZIP_BZIP2) as archive:
            archive.write(self.files[0], "q.npy")
        self.malformed("npz", file("magic.npz", b"XX" + npz[2:]), "byte 0: magic")
        self.malformed("npz", file("cut.npz", npz[:-30]), r"byte \d+: .*cut short")
        self.malformed("npz", self.folder / "c.npz", r"byte \d+: member q.npy is compressed by method 12; accepted: 0 and 8")
        at = npz.index(b"PK\1\2") + 42
        self.malformed("npz", file("offset.npz", npz[:at] + b"\x05\0\0\0" + npz[at + 4:]), f"byte {at}: offset of member q.npy")
        numpy.savez(self.folder / "kv.npz", k=self.k, v=self.v)
        self.malformed("npz", self.folder / "kv.npz", r"byte \d+: there is no member q.npy among k.npy, v.npy")

        def safetensors(name, q, data=24):
            text = '{"q":' + q + "}"
            return file(name, struct.pack("<Q", len(text)) + text.encode() + bytes(data))
        good = '{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}'
        self.malformed("safetensors", file("h.safetensors", struct.pack("<Q", 1 << 40) + b"{}"), "byte 0: header length 1099511627776")
        self.malformed("safetensors", safetensors("t.safetensors", good.replace("F32", "I64")), r"byte \d+: q.dtype is I64")
        self.malformed("safetensors", safetensors("o.safetensors", good.replace("[0,24]", "[0,25]")), r"byte \d+: q.data_offsets are \[0,25\]")
        self.malformed("safetensors", safetensors("s.safetensors", good.replace("[2,3]", "[2,4]")), r"byte \d+: q.shape \[2,4\] needs 32")
        two = safetensors("two.safetensors", good + ',"k":' + good)
        self.malformed("safetensors", two, r"byte \d+: q.data_offsets \[0,24\] overlap those of k")
        self.malformed("safetensors", safetensors("more.safetensors", good, 25), r"byte 9: q.data_offsets end the tensors at 24")

    def test_a_file_larger_than_memory_is_refused_before_it_is_read(self):
        huge = self.folder / "huge.npy"
        huge.write_bytes(b"\x93NUMPY\1\0\x76\0" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 274877906913, 1), }".ljust(117) + b"\n")
        os.truncate(huge, 128 + 4 * 274877906913)  # 1 TiB that no disk holds
        self.malformed("npy", huge, r"1099511627780 bytes are more than the \d+ bytes of memory available")

    def test_parameters_larger_than_memory_are_refused_before_they_are_drawn(self):
        for path in self.files:
            numpy.save(path, numpy.zeros((64, 64, 16), numpy.float32))
        self.refused(*self.qkv, "--out", self.out, "--variant", "synth_random:cached=no,max_len=65536",  # 1 TiB
                     say="takes 1099511627776 bytes of parameters and ")

    def test_bad_usage(self):
        self.refused("--q", "a,b.npy", *self.qkv[2:], "--out", self.out, say="--q: 'a,b.npy' has a comma")
        self.refused(*self.qkv, "--out", self.folder / "none" / "o.npy", say="--out: there is no folder")
        self.refused(*self.qkv, "--out", self.folder, "--force", say="is a folder")
        self.refused("--q", self.files[0], "--out", self.out, say="--k")
        self.refused("--input", "iid:1", "--out", self.out, say="no shape")
        self.refused(*self.qkv, "--out", self.out, "--variant", "linformr", say="linformer")
        self.refused(*self.qkv, "--out", self.out, "--variant", "linformer:k=4", "--causal", say="causal")
        self.refused(*self.qkv, "--out", self.out, "--compare", "much", say="--compare")
        self.out.write_text("precious")
        done = apply(*self.qkv, "--out", self.out)
        self.assertEqual((done.returncode, self.out.read_text()), (2, "precious"))
        self.assertIn("--force", done.stderr)


class States(Case):
    """Sequences that go on, call after call."""

    def setUp(self):
        super().setUp()
        self.state = self.folder / "s.npz"

    def go_on(self, first, end, *arguments, code=0):
        """Outputs of these tokens."""
        paths = []
        for name, array in zip("qkv", (self.q, self.k, self.v)):
            paths += [f"--{name}", self.folder / f"{name}_part.npy"]
            numpy.save(paths[-1], array[:, first:end])
        done = apply(*paths, "--state", self.state, "--out", self.out, "--force", *arguments)
        self.assertEqual(done.returncode, code, done.stderr)
        return numpy.load(self.out)[0] if code == 0 else done.stderr

    def whole(self, *arguments):
        self.assertEqual(apply(*self.qkv, "--causal", "--out", self.out, "--force", *arguments).returncode, 0)
        return numpy.load(self.out)[0]

    def test_a_sequence_in_parts_is_the_sequence(self):
        for variant, more in (("full", []), ("linear", ["--context", "96"]), ("cosformer", ["--context", "96"]), ("performer:m=16", ["--context", "96"])):
            with self.subTest(variant):
                if self.state.exists():
                    self.state.unlink()
                whole = self.whole("--variant", variant)
                parts = [self.go_on(first, end, "--variant", variant, *(more if first == 0 else []))
                         for first, end in ((0, 40), (40, 41), (41, 96))]
                numpy.testing.assert_allclose(numpy.concatenate(parts, 1), whole, atol=2e-5)

    def test_the_file_is_an_archive_of_arrays_and_says_what_it_is(self):
        self.go_on(0, 40)
        with numpy.load(self.state) as state:
            numpy.testing.assert_array_equal(state["k"][0], self.k[:, :40])
            numpy.testing.assert_array_equal(state["v"][0], self.v[:, :40])
            told = json.loads(state["state.json"])
        self.assertEqual((told["variant"], told["dtype"], told["length"], told["heads"]), ("full", "f32", 40, 2))
        self.assertIn("attnbench-", told["build"])
        self.go_on(40, 50)
        with numpy.load(self.state) as state:
            self.assertEqual(state["k"].shape, (1, 2, 50, 16))

    def rewritten(self, **changes):
        with zipfile.ZipFile(self.state) as old:
            members = {name: old.read(name) for name in old.namelist()}
        told = json.loads(members["state.json"])
        members["state.json"] = json.dumps({**told, **changes})
        with zipfile.ZipFile(self.state, "w") as new:
            for name, data in members.items():
                new.writestr(name, data)

    def test_a_state_of_something_else_is_refused(self):
        self.go_on(0, 40, "--variant", "local:left=8")
        kept = self.state.read_bytes()
        for say, *arguments in (("is a state of variant \"local:", "--variant", "full"),
                                ("is a state of variant \"local:", "--variant", "local:left=9"),
                                ("--compare holds a whole sequence", "--variant", "local:left=8", "--compare", "rows")):
            self.assertIn(say, self.go_on(40, 50, *arguments, code=2))
        for say, change in (("is a state of build \"attnbench-0.0.1-gcc-1\", this call has", {"build": "attnbench-0.0.1-gcc-1"}),
                            ("is a state of dtype \"bf16\"", {"dtype": "bf16"}), ("is a state of heads 4, this call has 2", {"heads": 4}),
                            ("state.json describes no state", {"length": -1}), ("state.json describes no state", {"length": "40"})):
            self.state.write_bytes(kept)
            self.rewritten(**change)
            said = self.go_on(40, 50, "--variant", "local:left=8", code=2)
            self.assertIn(say, said)
            self.assertEqual(said.count("\n"), 1)
        at = kept.index(self.k[:, :40].tobytes()[:64])
        self.state.write_bytes(kept[:at] + b"\xff" + kept[at + 1:])
        self.assertIn("CRC-32 of member k.npy", self.go_on(40, 50, "--variant", "local:left=8", code=2))
        self.state.unlink()
        self.go_on(0, 40)
        self.rewritten(length=60)
        self.assertIn("has shape", self.go_on(40, 50, code=2))
        numpy.savez(self.state, k=self.k)
        self.assertIn("there is no member state.json", self.go_on(40, 50, "--variant", "local:left=8", code=2))

    def test_a_state_made_with_other_random_tables_is_refused(self):
        self.go_on(0, 40, "--variant", "performer:m=16", "--context", "96")
        self.assertIn("is a state of parameters", self.go_on(40, 50, "--variant", "performer:m=16", "--seed", "2", code=2))

    def test_sums_are_for_a_context_that_is_known_from_the_start(self):
        self.go_on(0, 40, "--variant", "linear")
        self.assertIn("40 tokens and 10 more do not fit a context of 40; accepted: --context 50 or more from the first call on",
                      self.go_on(40, 50, "--variant", "linear", code=2))
        self.assertIn("is for a context of 40 tokens, not 90", self.go_on(40, 50, "--variant", "linear", "--context", "90", code=2))

    def test_bad_usage(self):
        numpy.save(self.files[1], self.k[:, :50])
        numpy.save(self.files[2], self.v[:, :50])
        self.refused(*self.qkv, "--state", self.state, "--out", self.out, say="--state: 96 queries and 50 keys are given")
        self.refused(*self.qkv, "--context", 9, "--out", self.out, say="--context is of a state: give --state too")
        self.assertFalse(self.state.exists())
        for variant, say in (("linformer:k=4", "has no causal form"), ("nystrom", "no causal form")):
            self.assertIn(say, self.go_on(0, 40, "--variant", variant, code=2))
        self.state = self.folder / "none" / "s.npz"
        self.assertIn("--state: cannot write", self.go_on(0, 40, code=6))


class Races(Case):
    def test_iso_error_races_the_smallest_budgets(self):
        rows = self.sweep("--variants", "full,local,mean_v", "--n", "256", "--heads", "2", "--input", "local", "--iso-error", "0.3")
        row = {row["variant"]: row for row in rows}
        self.assertEqual((row["full"]["status"], row["local"]["status"]), ("ok", "ok"))
        window = int(row["local"]["options"].split(",")[0].removeprefix("left="))
        self.assertTrue(4 <= window < 128, window)
        self.assertIn(f"right={window}", row["local"]["options"])
        self.assertLessEqual(float(row["local"]["fid_relative"]), 0.3)
        self.assertEqual(row["mean_v"]["status"], "unsupported")
        self.assertIn("no budget", row["mean_v"]["reason"])

    def test_iso_skill_races_them_too_and_each_row_is_written_when_it_is_found(self):
        out = self.folder / "skill.csv"
        process = subprocess.Popen([SWEEP, "--variants", "full,local,mean_v,nystrom", "--n", "256", "--heads", "2", "--input", "local",
                                    "--iso-skill", "0.9", "--samples", "2", "--rounds", "2", "--sample-time", "0.001", "--threads", "2", "--machine-root", "/none", "--out", out],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        rows_seen, said = [], []
        for line in process.stderr:
            said.append(line)
            if ": searching for a skill of 0.9" in line:
                rows_seen.append(out.read_text().count("\n") - 1)
        self.assertEqual(process.wait(60), 0, "".join(said))
        self.assertEqual(rows_seen, [0, 1, 2, 3])
        self.assertRegex(said[0], r"^attn_sweep: the machine's peaks, then 4 cells, about .* s$")
        self.assertRegex(said[1], r"^\[0/8\] each variant with the smallest budget that reaches a skill of 0.9  \(about \d+ s left\)$")
        self.assertTrue(any("local" in line and "left=right=" in line and "a skill of" in line for line in said), said)
        with open(out, newline="") as file:
            row = {row["variant"]: row for row in csv.DictReader(file)}
        self.assertEqual((row["full"]["status"], row["local"]["status"]), ("ok", "ok"))
        self.assertGreaterEqual(float(row["local"]["fid_skill"]), 0.9)
        self.assertEqual(row["mean_v"]["status"], "unsupported")
        self.assertRegex(row["mean_v"]["reason"], "has no budget to raise and a skill of .*, less than 0.9")

    def test_full_fidelity_and_its_absence(self):
        (row,) = self.sweep("--variants", "local:left=8,right=8", "--n", "128", "--heads", "2", "--fidelity", "full")
        self.assertGreater(float(row["fid_support_mass"]), 0)
        self.assertIn("--fidelity full", row["command"])
        (row,) = self.sweep("--variants", "local:left=8,right=8", "--n", "128", "--heads", "2", "--fidelity", "none")
        self.assertEqual(row["fid_skill"], "")
        self.assertGreater(float(row["in_logit_std"]), 0)


if __name__ == "__main__":
    unittest.main()
