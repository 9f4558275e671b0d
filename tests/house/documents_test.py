"""Every command that a document prints runs as printed, in its order, in one shell: documents_test.py Documents.test_readme ...

Lengths are an eighth of those printed and samples few, unless ATTN_CLONE names a folder: then the tree is cloned and built there, and
everything runs as it stands, new page and its test too.
"""
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ["ATTN_BUILD"]) if "ATTN_BUILD" in os.environ else ROOT / "build/release"
CLONE = os.environ.get("ATTN_CLONE", "")
FEW = {"ATTN_SAMPLES": "1", "ATTN_ROUNDS": "1", "ATTN_SAMPLE_TIME": "0", "ATTN_MACHINE_ROOT": "/none", "ATTN_FIDELITY_SEEDS": "1", "ATTN_THREADS": "1"}

# What no test runs as a reader does, and who looks at it.
ELSEWHERE = {
    r"git clone ": "the tree is here",
    r"cmake --install": "tests/plugin",
    r"scripts/setup\.sh": "it asks a network; .ci/run begins with it",
    r"scripts/run_tests\.sh( *$| +#| --all| -L)": "that is us",
    r"scripts/cluster/": "test_scripts_cluster, test_scripts_slurm",
}
# In a clone only: they write into the tree and build it.
IN_A_CLONE = {r"scripts/run_sweep\.sh": "a build", r"scripts/run_tests\.sh -R": "a build", r"--variants my_window": "its page is not built"}
# Of a document whose commands would take minutes: what is put behind them.
SHORTER = {r"--verify": "--property heads", r"^attn_train --task": "--steps 3 --test-samples 16 --jobs 2 --force", r"--cache hot,cold": "--n 64"}


def blocks(path):
    """[(language, text)] of a document's fenced blocks; what has no language is for a shell."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.S | re.M)


def shortened(line):
    """The command on an eighth of its lengths."""
    def eighth(match):
        return match[1] + re.sub(r"(?<![*\d])\d+", lambda n: str(max(1, int(n[0]) // 8)), match[2])

    line = re.sub(r"(--n )(\S+)", eighth, line) if "attn_train" not in line else line
    line = re.sub(r"(uniform:)(\S+)", eighth, line)
    code, hash_, comment = line.partition(" #")
    more = " ".join(words for pattern, words in SHORTER.items() if re.search(pattern, line) and words.split()[0] not in code)
    return f"{code} {more}{hash_}{comment}" if more else line


def allowed(line):
    """0, and the exit codes that the comment tells of."""
    told = re.search(r"#.*?\bexit ([\d:;, a-z]+)", line)
    return {0, *map(int, re.findall(r"\d+", told[1]))} if told else {0}


class Documents(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if CLONE:
            cls.folder = Path(CLONE)
            shutil.rmtree(cls.folder, ignore_errors=True)
            subprocess.run(["git", "clone", "-q", ROOT, cls.folder], check=True)
        else:
            temporary = tempfile.TemporaryDirectory()
            cls.addClassCleanup(temporary.cleanup)
            cls.folder = Path(temporary.name)
            for name in ("scripts", "harness", "README.md", "CONTRIBUTING.md"):
                (cls.folder / name).symlink_to(ROOT / name)
            for name in ("variants/sparse", "tests/variants", "results", "build", "captured"):  # where a page and its test are written
                (cls.folder / name).mkdir(parents=True)
            (cls.folder / "build/release").symlink_to(BUILD)
        cls.own_files()

    @classmethod
    def own_files(cls):
        """What a reader has: a text, arrays, a model, layers of one."""
        rng = numpy.random.default_rng(1)
        (cls.folder / "book.txt").write_text((ROOT / "README.md").read_text() * 8)
        (cls.folder / "names.tsv").write_text("Chad\tTchad\nPeru\tP\u00e9rou\nCuba\tCuba\nSpain\tEspagne\nItaly\tItalie\nChina\tChine\n")
        (cls.folder / "sentences.tsv").write_text("le chat dort\tfr\ndie Katze ruht\tde\nle chien court\tfr\nder Hund rennt\tde\n")
        q, k, v = rng.standard_normal((3, 2, 256, 32), dtype="float32")
        for name, array in (("q", q), ("k", k), ("v", v)):
            numpy.save(cls.folder / f"{name}.npy", array)
        try:
            sys.path[:0] = [str(ROOT / "tests/scripts"), str(ROOT / "scripts")]
            import onnx_models
            import onnxrun  # noqa: F401
            onnx_models.scale_behind(cls.folder / "model.onnx")
            numpy.save(cls.folder / "x.npy", onnx_models.X)
        except ImportError:
            print("without ONNX no model is captured: layers that are there already stand in", file=sys.stderr)
        (cls.folder / "captured").mkdir(exist_ok=True)
        for layer in ("layer0", "layer1"):
            numpy.savez(cls.folder / "captured" / f"{layer}.npz", q=q, k=k, v=v)

    def skipped(self, line):
        there = ELSEWHERE if CLONE else {**ELSEWHERE, **IN_A_CLONE}
        if "capture.py" in line and not (self.folder / "model.onnx").exists():
            return True
        return any(re.search(pattern, line) for pattern in there)

    def script(self, path):
        """The document's commands with a mark behind each, and the commands by their marks."""
        said, lines = [], []
        for language, text in blocks(path):
            if language == "":
                for line in filter(None, map(str.strip, text.splitlines())):
                    if self.skipped(line):
                        continue
                    line = line if CLONE else shortened(line)
                    line = line.replace(" -o captured/", " -o captured/ --force")  # layers lie there already
                    lines.append(line)
                    said += [f"echo '@@ {len(lines) - 1} begins'", f"{line}\necho \"@@ {len(lines) - 1} $?\""]
            elif language == "python" and ("import attnbench" not in text or (BUILD / "python").exists()):
                lines.append(text)
                said.append(f"/usr/bin/python3 -c {shlex.quote(text)}\necho \"@@ {len(lines) - 1} $?\"")
        return "\n".join(said), lines

    def run_document(self, name, before=""):
        commands, lines = self.script(ROOT / name)
        path = f"/usr/bin:{os.environ['PATH']}"  # whose python3 has what setup.sh installs
        environment = {**os.environ, "PATH": path, "ATTN_SKIP_SETUP": "1", **({} if CLONE else FEW)}
        begin = "source scripts/env.sh\n" + before
        done = subprocess.run(["bash", "-c", begin + commands], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        codes = {int(i): int(code) for i, code in re.findall(r"^@@ (\d+) (\d+)$", done.stdout, re.M)}
        self.assertGreater(len(lines), 0)
        for i, line in enumerate(lines):
            with self.subTest(line):
                self.assertIn(codes.get(i), allowed(line), done.stdout.partition(f"@@ {i} begins\n")[2].partition(f"@@ {i} ")[0])

    def test_readme(self):
        self.run_document("README.md")

    HAS = "".join(f"attn_sweep --variants full,local,linear --n 64,128,256,512 --out results/{name}.csv -q --force >/dev/null\n" for name in "ab")

    def test_variants(self):
        self.run_document("variants/README.md")

    def test_results(self):
        self.run_document("results/README.md", self.HAS)

    def test_harness(self):
        self.run_document("harness/README.md")

    def test_scripts(self):
        trained = "attn_train --task mqar:kv=4 --n 32 --variants full --steps 2 --test-samples 16 --out results/a.train.csv -q --force >/dev/null\n"
        self.run_document("scripts/README.md", self.HAS + trained)

    def test_train(self):
        self.run_document("harness/attn/train/README.md", self.HAS)

    def test_python(self):
        self.assertEqual([language for language, _ in blocks(ROOT / "harness/python/README.md")], ["python"])


if __name__ == "__main__":
    unittest.main()
