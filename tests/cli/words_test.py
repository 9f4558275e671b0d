"""What programs say of themselves: help, lists, man pages, completion, versions, on terminals of some width."""
import fcntl
import os
import pty
import shutil
import struct
import subprocess
import tempfile
import termios
import unittest
from pathlib import Path

from sweep_case import Case, SWEEP, run

PROGRAMS = {"attn_sweep": SWEEP, "attn_train": os.environ["ATTN_TRAIN"], "attn_apply": os.environ["ATTN_APPLY"]}


def on_terminal(columns, *command):
    """What a terminal of this width shows of stdout."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    process.wait(timeout=300)
    return shown.decode().replace("\r\n", "\n")


class Help(unittest.TestCase):
    def test_it_fits_eighty_columns_in_groups_with_examples(self):
        for name, program in PROGRAMS.items():
            with self.subTest(name):
                text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
                self.assertLessEqual(max(map(len, text.splitlines())), 80)
                self.assertTrue(text.startswith(f"{name} [FLAGS]\n"))
                self.assertIn(f"Examples\n  {name} ", text)
                self.assertNotIn("--manual", text)

    def test_every_program_tells_its_version(self):
        told = {subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout for program in PROGRAMS.values()}
        self.assertEqual(len(told), 1)
        self.assertRegex(told.pop(), r"^attnbench-\d+\.\d+\.\d+\S* commit \S+\n")


class Lists(Case):
    def test_a_list_fits_the_terminal(self):
        for columns in (80, 60):
            for arguments in (["--list"], ["--list", "local"]):
                shown = on_terminal(columns, SWEEP, *arguments)
                self.assertIn("local", shown)
                too_long = [line for line in shown.splitlines() if len(line) > columns and " " in line.strip()[:columns - 30]]
                self.assertEqual(too_long, [])

    def test_one_variant_is_shown_whole(self):
        text = run("--list", "local").stdout
        for part in ("Sliding window", "sinks=0", "arXiv:2004.05150", "sparse"):
            self.assertIn(part.lower(), text.lower())
        self.assertNotIn("linformer", text)
        done = run("--list", "lokal")
        self.assertEqual(done.returncode, 2)
        self.assertIn("did you mean 'local'?", done.stderr)

    def test_ids_are_listed_for_programs(self):
        ids = run("--list=ids").stdout.split()
        self.assertIn("full@unfused", ids)
        self.assertEqual(len(ids), len(set(ids)))

    def test_a_table_fits_the_terminal(self):
        shown = on_terminal(70, SWEEP, "--variants", "full,local,linformer", "--n", "64", "--causal", "yes", "--samples", "1", "--rounds", "1",
                            "--sample-time", "0", "--machine-root", "/none", "--out", self.out)
        lines = [line for line in shown.splitlines() if not line.endswith(self.out)]
        self.assertLessEqual(max(map(len, lines)), 70)
        self.assertIn("vs full", shown)
        self.assertIn("linformer  unsupported", shown.replace("   ", "  "))

    def test_words_that_people_type(self):
        done = run("--variants", "flash,sliding_window,favor,lsh", "--n", "64", "--dry-run")
        self.assertIn("attn_sweep: flash is called full here\n", done.stderr)
        for name in ("full", "local:", "performer:", "reformer:"):
            self.assertIn(f"\n  {name}", done.stdout)
        self.refused("--variants", "mqa", "--n", "64", say=("'mqa' is no variant of its own", "--kv-heads 1"))


class Manual(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.share = Path(folder.name) / "share"
        for program in PROGRAMS.values():
            subprocess.run([program, "--manual", cls.share], check=True)

    def test_a_man_page_has_every_flag_and_no_error(self):
        for name, program in PROGRAMS.items():
            page = self.share / f"man/man1/{name}.1"
            told = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
            flags = {line.split()[0].rstrip(",") for line in told.splitlines() if line.startswith("  --")}
            text = page.read_text().replace("\\-", "-")
            self.assertGreater(len(flags), 10)
            for flag in flags:
                self.assertIn(f".B {flag}", text)
            if shutil.which("groff"):
                done = subprocess.run(["groff", "-man", "-Tascii", "-ww", page], capture_output=True, text=True)
                self.assertEqual((done.returncode, done.stderr), (0, ""))

    def completed(self, line):
        """What bash offers for the last word of the line."""
        words = line.split(" ")
        script = (f"PATH={Path(SWEEP).parent}:$PATH; . {self.share}/bash-completion/completions/{words[0]}; "
                  f"COMP_WORDS=({' '.join(w or chr(39) * 2 for w in words)}); COMP_CWORD={len(words) - 1}; _{words[0]}; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
        return subprocess.run(["bash", "-uc", script], capture_output=True, text=True, check=True).stdout.split()

    def test_bash_completes_flags_words_and_variants(self):
        self.assertEqual(self.completed("attn_sweep --head"), ["--heads", "--head-dim"])
        self.assertEqual(self.completed("attn_sweep --fidelity r"), ["rows"])
        self.assertEqual(self.completed("attn_sweep --variants full,mlp_"), ["full,mlp_mixer"])
        self.assertEqual(self.completed("attn_apply --compare f"), ["full"])
        self.assertEqual(self.completed("attn_train --jso"), [])

    def test_zsh_reads_its_functions(self):
        for name in PROGRAMS:
            text = (self.share / f"zsh/site-functions/_{name}").read_text()
            self.assertTrue(text.startswith(f"#compdef {name}\n"))
            if shutil.which("zsh"):
                subprocess.run(["zsh", "-n", self.share / f"zsh/site-functions/_{name}"], check=True)


if __name__ == "__main__":
    unittest.main()
