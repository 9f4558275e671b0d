"""The Python module: what it computes, and that whatever it is handed wrongly is an exception of one sentence."""
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest

import attnbench
import numpy as np

RUNTIME = os.environ.pop("LD_PRELOAD", "")  # a sanitizer's, which is in this process by now; programs have their own, another Python has not

ROOT = pathlib.Path(__file__).resolve().parents[2]


def tensors(*shape, seed=1):
    return tuple(np.random.default_rng(seed).standard_normal((3, *shape)).astype("float32"))


def softmax_attention(q, k, v, causal=False):
    q, k, v = (x.astype("float64") for x in (q, k, v))
    logits = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    if causal:
        logits = np.where(np.tri(q.shape[-2], k.shape[-2], k.shape[-2] - q.shape[-2], dtype=bool), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


class Apply(unittest.TestCase):
    def test_full_is_softmax_attention_in_every_rank(self):
        for shape in ((65, 32), (2, 65, 32), (3, 2, 65, 32)):
            for causal in (False, True):
                q, k, v = tensors(*shape)
                out = attnbench.apply("full", q, k, v, causal=causal)
                self.assertEqual((out.shape, out.dtype), (shape, np.float32))
                np.testing.assert_allclose(out, softmax_attention(q, k, v, causal), atol=1e-5)

    def test_implementations_options_and_thread_counts_go_by_the_same_names(self):
        q, k, v = tensors(2, 100, 16)
        np.testing.assert_allclose(attnbench.apply("full@unfused", q, k, v), attnbench.apply("full", q, k, v), atol=1e-5)
        local = attnbench.apply("local:left=0,right=0", q, k, v, threads=1)
        np.testing.assert_allclose(local, v, atol=1e-6)

    def test_heads_may_share_keys_and_lengths_may_differ(self):
        (q, _, _), (k, v, _) = tensors(4, 7, 16), tensors(2, 30, 16, seed=2)
        out = attnbench.apply("full", q, k, v)
        np.testing.assert_allclose(out, softmax_attention(q, k.repeat(2, 0), v.repeat(2, 0)), atol=1e-5)

    def test_arrays_that_are_not_row_major_are_copied(self):
        q, k, v = tensors(2, 40, 16)
        expected = attnbench.apply("full", q, k, v)
        for odd in (np.asfortranarray, lambda x: x[:, ::-1][:, ::-1], lambda x: np.repeat(x, 2, -1)[..., ::2], lambda x: x[::-1][::-1],
                    lambda x: np.frombuffer(b"\0" + x.tobytes(), dtype="u1")[1:].view("float32").reshape(x.shape)):
            np.testing.assert_array_equal(attnbench.apply("full", odd(q), odd(k), odd(v)), expected)

    def test_parameters_can_be_read_and_given(self):
        q, k, v = tensors(1, 64, 16)
        drawn = attnbench.parameters("performer:m=8", q, k, v, seed=3)
        self.assertEqual(drawn["W"].shape, (8, 16))
        np.testing.assert_array_equal(attnbench.apply("performer:m=8", q, k, v, parameters=drawn),
                                      attnbench.apply("performer:m=8", q, k, v, seed=3))
        other = attnbench.apply("performer:m=8", q, k, v, parameters={"W": -drawn["W"]})
        self.assertGreater(abs(other - attnbench.apply("performer:m=8", q, k, v, seed=3)).max(), 1e-3)

    def test_what_has_the_array_interface_will_do(self):
        q, k, v = tensors(1, 20, 8)

        class Foreign:
            def __init__(self, array):
                self.kept, self.__array_interface__ = array, array.__array_interface__
        np.testing.assert_array_equal(attnbench.apply("full", Foreign(q), Foreign(k), Foreign(v)), attnbench.apply("full", q, k, v))

    def test_threads_of_python_call_side_by_side(self):
        q, k, v = tensors(2, 300, 32)
        expected, results = attnbench.apply("linear", q, k, v, threads=1), []
        workers = [threading.Thread(target=lambda: results.append(attnbench.apply("linear", q, k, v, threads=1))) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.assertEqual(len(results), 4)
        for result in results:
            np.testing.assert_array_equal(result, expected)


class BadInput(unittest.TestCase):
    def refused(self, kind, words, call, *arguments, **named):
        with self.assertRaises(kind) as caught:
            call(*arguments, **named)
        self.assertIn(words, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def test_other_types_of_elements(self):
        q, k, v = tensors(1, 20, 8)
        for other in (q.astype("int32"), q.astype("float64"), q.astype(">f4"), q.astype("complex64"), q.astype(bool), q.astype(object),
                      q.tolist(), "text", None):
            self.refused(TypeError, "accepted: float32 in this machine's byte order", attnbench.apply, "full", other, k, v)

    def test_shapes_that_do_not_go_together(self):
        q, k, v = tensors(2, 20, 8)
        self.refused(ValueError, "is empty", attnbench.apply, "full", q[:, :0], k, v)
        self.refused(ValueError, "is empty", attnbench.apply, "full", q, k[..., :0], v)
        self.refused(ValueError, "axes", attnbench.apply, "full", q[0, 0], k, v)
        self.refused(ValueError, "axes", attnbench.apply, "full", q[0], k, v)
        self.refused(ValueError, "different lengths: 19 and 20", attnbench.apply, "full", q, k[:, :19], v)
        self.refused(ValueError, "widths: 8 and 7", attnbench.apply, "full", q, k[..., :7], v)
        self.refused(ValueError, "different heads", attnbench.apply, "full", q, k[:1], v)
        self.refused(ValueError, "kv_heads", attnbench.apply, "full", q[:1], k, v)

    def test_names_options_and_problems(self):
        q, k, v = tensors(1, 20, 8)
        self.refused(ValueError, "did you mean 'full'", attnbench.apply, "ful", q, k, v)
        self.refused(ValueError, "is not a whole number", attnbench.apply, "local:left=x", q, k, v)
        self.refused(ValueError, "no causal form", attnbench.apply, "fnet", q, k, v, causal=True)
        self.refused(ValueError, "256", attnbench.apply, "full", *tensors(1, 4, 300))
        for threads, kind in ((0, ValueError), (-1, ValueError), (5000, ValueError), (1.5, TypeError), ("2", TypeError)):
            self.refused(kind, "threads", attnbench.apply, "full", q, k, v, threads=threads)
        self.refused(ValueError, "seed", attnbench.apply, "full", q, k, v, seed=-1)

    def test_parameters(self):
        q, k, v = tensors(1, 20, 8)
        self.refused(ValueError, "no parameter 'X'; accepted: W", attnbench.apply, "performer:m=4", q, k, v, parameters={"X": q})
        self.refused(ValueError, "accepted: [4,8]", attnbench.apply, "performer:m=4", q, k, v, parameters={"W": np.ones((3, 8), "f4")})
        self.refused(TypeError, "float32", attnbench.apply, "performer:m=4", q, k, v, parameters={"W": np.ones((4, 8))})
        self.refused(ValueError, "", attnbench.apply, "bigbird:block=4,random=1", q, k, v,
                     parameters={"random_blocks": np.full((1, 5, 1), 77, "f4")})

    def test_fidelity(self):
        q, k, v = tensors(1, 20, 8)
        self.refused(ValueError, "out has shape [1,1,19,8], accepted: [1,1,20,8]", attnbench.fidelity, q, k, v, v[:, :19])
        self.refused(TypeError, "out has elements", attnbench.fidelity, q, k, v, v.astype("int64"))


class Figures(unittest.TestCase):
    def test_fidelity_is_one_for_full_attention_and_none_for_the_mean(self):
        q, k, v = tensors(2, 200, 32)
        self.assertGreater(attnbench.fidelity(q, k, v, attnbench.apply("full", q, k, v))["skill"], 0.999999)
        mean = attnbench.fidelity(q, k, v, attnbench.apply("mean_v", q, k, v))
        self.assertAlmostEqual(mean["skill"], 0, places=4)
        out = attnbench.apply("local:left=8,right=8", q, k, v)
        exact = softmax_attention(q, k, v)
        self.assertAlmostEqual(attnbench.fidelity(q, k, v, out)["relative"], np.linalg.norm(out - exact) / np.linalg.norm(exact), places=5)

    def test_variants_are_those_of_the_list(self):
        known = {variant["id"]: variant for variant in attnbench.variants()}
        self.assertIn("unfused", [i["name"] for i in known["full"]["implementations"]])
        self.assertEqual({option["name"] for option in known["local"]["options"]}, {"left", "right", "sinks"})

    def test_every_function_tells_what_it_takes(self):
        for name in attnbench.__all__:
            self.assertTrue(getattr(attnbench, name).__doc__, name)


class Programs(unittest.TestCase):
    def test_a_sweep_is_a_table_and_advice_is_given_on_it(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "a.csv")
            rows = attnbench.sweep(variants=["full", "copy_v"], n="64,128", heads=1, samples=2, rounds=1, sample_time=0.001, pin=False,
                                   machine_root="/none", out=path, quiet=True)
            self.assertEqual(sorted(zip(rows["variant"], rows["q_len"])), [(v, n) for v in ("copy_v", "full") for n in (64, 128)])
            self.assertEqual(set(rows["status"]), {"ok"})
            advice = attnbench.advise(path, n=64, any_machine=True)
            self.assertIn("full", [answer["name"] for answer in advice["answers"]])
            beyond = attnbench.advise(path, n=1 << 20, any_machine=True)
            self.assertEqual(beyond["answers"], [])
            self.assertIn("unmeasured", beyond["not"][0]["why_not"])
            with self.assertRaises(attnbench.SweepFailed) as caught:
                attnbench.advise(os.path.join(folder, "b.csv"), n=64)
            self.assertIn("does not exist", str(caught.exception))

    def test_what_attn_sweep_refuses_is_an_exception(self):
        with self.assertRaises(attnbench.SweepFailed) as caught:
            attnbench.sweep(variants="ful", n=64, quiet=True)
        self.assertEqual(caught.exception.code, 2)
        self.assertIn("did you mean", str(caught.exception))

    def test_the_readme_s_lines_run_as_printed(self):
        text = (ROOT / "harness/python/README.md").read_text()
        block = text[text.index("import attnbench"):]
        block = block[:block.index("```")]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True,
                                  env={**os.environ, "LD_PRELOAD": RUNTIME, "ATTN_SAMPLES": "2", "ATTN_ROUNDS": "1", "ATTN_SAMPLE_TIME": "0.001"})
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
