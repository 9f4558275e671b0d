"""The Debian package that cpack makes: it declares what it is linked to, unpacks, and runs from there."""
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

BUILD, CPACK = Path(os.environ["ATTN_BUILD"]), os.environ["CPACK"]


def must(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="package_test.", dir=BUILD))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        must(CPACK, "-G", "DEB", "--config", BUILD / "CPackConfig.cmake", "-B", cls.folder)
        (cls.deb,) = cls.folder.glob("*.deb")
        # Unpacked into an empty system, whose libraries stay this machine's. Configuring would call a shell and ldconfig there.
        cls.root = cls.folder / "root"
        (cls.root / "var/lib/dpkg/updates").mkdir(parents=True)
        (cls.root / "var/lib/dpkg/info").mkdir()
        (cls.root / "var/lib/dpkg/status").touch()
        must("dpkg", f"--root={cls.root}", "--force-not-root", "--force-depends", "--unpack", cls.deb)
        cls.attn_sweep = cls.root / "usr/bin/attn_sweep"

    def test_it_depends_on_what_it_is_linked_to(self):
        depends = must("dpkg-deb", "--field", self.deb, "Depends")
        for library in ("libc6", "libstdc++6", "libtbb", "libhwloc", "dnnl", "libbenchmark"):
            self.assertIn(library, depends)

    def test_its_dependencies_are_met_where_it_was_built(self):
        for wanted in must("dpkg-deb", "--field", self.deb, "Depends").split(","):
            name = wanted.split("|")[0].split("(")[0].strip()
            self.assertEqual(must("dpkg-query", "-W", "-f", "${db:Status-Status}\n", name).splitlines()[0], "installed", name)

    def test_dpkg_knows_it(self):
        status = must("dpkg-query", f"--admindir={self.root}/var/lib/dpkg", "-W", "-f", "${Package} ${db:Status-Status}", "attnbench")
        self.assertEqual(status, "attnbench unpacked")

    def test_its_libraries_are_its_own(self):
        found = [line for line in must("ldd", self.attn_sweep).splitlines() if "libattn_" in line]
        self.assertTrue(found)
        for line in found:
            self.assertIn(str(self.root), os.path.realpath(line.split("=>")[1].split("(")[0].strip()), line)

    def test_what_is_unpacked_lists_and_sweeps(self):
        self.assertIn("linformer", must(self.attn_sweep, "--list", cwd="/"))
        out = self.folder / "out.csv"
        must(self.attn_sweep, "--variants", "full,local", "--n", "64", "--out", out, cwd="/")
        with open(out, newline="") as file:
            self.assertEqual([row["status"] for row in csv.DictReader(file)], ["ok", "ok"])

    def test_it_brings_man_pages_and_completion(self):
        held = must("dpkg-deb", "--contents", self.deb)
        for program in ("attn_sweep", "attn_apply", "attn_train"):
            for place in (f"man/man1/{program}.1", f"bash-completion/completions/{program}", f"zsh/site-functions/_{program}"):
                self.assertIn(f"./usr/share/{place}\n", held)

    def test_all_of_it_lies_below_usr(self):
        for line in must("dpkg-deb", "--contents", self.deb).splitlines():
            self.assertRegex(line.split()[5], r"^\./(usr/.*)?$", line)


if __name__ == "__main__":
    missing = [tool for tool in ("dpkg", "dpkg-deb", "dpkg-shlibdeps") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"package_test.py needs {', '.join(missing)}: scripts/setup.sh --all installs them on Debian (dpkg-dev)")
    unittest.main()
