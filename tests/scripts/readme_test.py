"""readme.py: README.md is what results/reference gives; a section without its CSV is left out; what documents say agrees with the tree."""
import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

import synthetic
from testing import SCRIPTS, ScriptTest

import attncsv
import attnscript
import readme

ROOT = Path(SCRIPTS).parent


class Readme(ScriptTest):
    def test_it_is_fresh(self):
        self.run_script("readme.py", "--check")

    def test_it_is_short(self):
        self.assertLess(len((ROOT / "README.md").read_text().splitlines()), 300)

    def reference(self):
        """A folder of synthetic references, and a text with their marks."""
        folder = self.folder / "reference"
        folder.mkdir()
        synthetic.write(folder / "default-sweep.csv", synthetic.zoo((256, 512, 1024)))
        text = self.folder / "README.md"
        text.write_text("".join(f"<!-- {name}: scripts/readme.py -->\nold\n<!-- {name} end -->\n" for name in readme.SECTIONS))
        return ["--readme", text, "--reference", folder], folder, text

    def test_a_section_without_its_csv_is_empty_and_one_with_it_has_a_table(self):
        arguments, folder, text = self.reference()
        self.run_script("readme.py", *arguments, "--check", code=1)
        self.run_script("readme.py", *arguments)
        self.assertIn("### Prefill", text.read_text())
        self.assertNotIn("### Decode", text.read_text())
        self.assertNotIn("old", text.read_text())
        synthetic.write(folder / "decode.csv", [row for kind in ("f32", "q8") for row in (
            {**r, "kv_dtype": kind} for r in synthetic.steps())])
        self.run_script("readme.py", *arguments, "--check", code=1)
        self.run_script("readme.py", *arguments)
        decode = text.read_text().partition("### Decode")[2]
        self.assertRegex(decode, r"\| variant \| kv_dtype \| context =1024 \|.*\| state \|")
        self.assertRegex(decode, r"\| full \| q8 \|.* \| 64 MiB \|")
        self.run_script("readme.py", *arguments, "--check")

    def test_number_types_are_columns_beside_f32(self):
        arguments, folder, text = self.reference()
        rows = [{**row, "dtype": kind, "kv_dtype": kind, "compute": kind, "time_median_s": f"{float(row['time_median_s']) / slower:g}"}
                for kind, slower in (("f32", 1), ("bf16", 2)) for row in synthetic.zoo((512, 1024))]
        synthetic.write(folder / "dtypes.csv", rows)
        self.run_script("readme.py", *arguments)
        table = text.read_text().partition("### Number types")[2]
        self.assertIn("| variant | N | f32 | bf16 |", table)
        self.assertRegex(table, r"\| full \| 1024 \| [\d.]+ [mu]?s( ~)? \| 2x \| bf16 \|")

    def test_frameworks_are_told_by_how_many_times_as_fast_ours_is(self):
        arguments, folder, text = self.reference()
        ours = [{**row, "threads": threads} for threads in (1, 2) for row in synthetic.zoo((512, 1024)) if row["name"] == "full"]
        theirs = [{**row, "name": "full@torch", "implementation": "torch",
                   "time_median_s": f"{float(row['time_median_s']) * (3 if row['threads'] == 1 else 0.5):g}"} for row in ours]
        synthetic.write(folder / "guests.csv", ours + theirs)
        self.run_script("readme.py", *arguments)
        self.assertIn("| variant | N | f32, 1 thread | f32, 2 threads |\n|---|---:|---:|---:|\n| full@torch | 1024 | 3x | 0.5x |\n", text.read_text())

    def test_pictures_are_drawn_for_both_grounds_and_need_nothing_else(self):
        arguments, folder, _ = self.reference()
        self.run_script("readme.py", *arguments)
        for name in ("time-light", "time-dark", "skill-light", "skill-dark"):
            svg = (folder / "pictures" / f"{name}.svg").read_text()
            self.assertTrue(svg.startswith("<svg") and svg.endswith("</svg>\n"))
            self.assertNotRegex(svg, r"href|url\(|nan")
            self.assertIn(">full</text>" if name.startswith("time") else ">full (", svg)


class Documents(ScriptTest):
    def test_the_page_in_variants_readme_is_what_new_variant_writes(self):
        (page,) = re.findall(r"```cpp\n(.*?)```", (ROOT / "variants/README.md").read_text(), re.S)
        self.run_script("new_variant.py", "my_window", "sparse", "--root", self.folder)
        self.assertEqual(page, (self.folder / "variants/sparse/my_window.cpp").read_text())

    def test_versions_agree(self):
        (version,) = re.findall(r"project\(attnbench VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())
        self.assertEqual(attnscript.VERSION, version)
        self.assertIn(f"\nversion: {version}\n", (ROOT / "CITATION.cff").read_text())
        self.assertIn(f"report.py of attnbench {version}", self.run_script("report.py", "--version").stdout)

    def test_links_lead_somewhere(self):
        for document in [*ROOT.glob("*.md"), *ROOT.glob("[hrsv]*/**/README.md")]:
            for link in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", document.read_text()):
                target = "".join(link).partition("#")[0]
                if target and not target.startswith("http"):
                    self.assertTrue((document.parent / target).exists(), f"{document}: {target}")

    def test_no_figure_is_told_in_powers_of_ten(self):
        for value, said in ((1023 * 1024, "1023 KiB"), (1023.7 * 2**20, "1024 MiB"), (5, "5 B")):
            self.assertEqual(attncsv.size(value), said)
        self.assertEqual((attncsv.seconds(0.9996), attncsv.seconds(1234), attncsv.seconds(0.0123)), ("1000 ms", "1234 s", "12.3 ms"))

    def test_env_puts_the_programs_on_the_path(self):
        tree = self.folder / "tree"
        (tree / "build/release/bin").mkdir(parents=True)
        shutil.copytree(ROOT / "scripts", tree / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        program = tree / "build/release/bin/attn_sweep"
        program.write_text("#!/bin/sh\necho found\n")
        program.chmod(0o755)
        done = subprocess.run(["bash", "-euc", "source tree/scripts/env.sh; source tree/scripts/env.sh; attn_sweep; echo $PATH"],
                              cwd=self.folder, capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.splitlines()[0], "found")
        self.assertEqual(done.stdout.count(str(program.parent)), 1)


if __name__ == "__main__":
    sys.exit(unittest.main())
