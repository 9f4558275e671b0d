"""attnbench installed, and a stranger's project that builds a plugin against it: plugin_test.py Installed|Uninstalled."""
import csv
import os
import shlex
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

BUILD, SOURCE = Path(os.environ["ATTN_BUILD"]), Path(os.environ["ATTN_SOURCE"])
CMAKE, CXX = os.environ["CMAKE"], os.environ["CXX"]
STRANGER = Path(__file__).parent / "stranger"
CXXFLAGS = shlex.split(os.environ.get("CXXFLAGS", ""))  # the sanitizer of this build, if any


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)


def must(*command, **options):
    done = run(*command, **options)
    if done.returncode != 0:
        raise AssertionError(f"{shlex.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def configure_stranger(build, *more):
    must(CMAKE, "-S", STRANGER, "-B", build, "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={CXX}", "-DCMAKE_BUILD_TYPE=Release", *more)


class Swept(unittest.TestCase):
    """What both ways of getting attnbench must show."""

    def sweeps(self, attn_sweep, plugin):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.csv"
            must(attn_sweep, "--plugin", plugin, "--variants", "uniform_window:left=8,right=8", "--n", "64,128", "--out", out,
                 cwd="/")
            with open(out, newline="") as file:
                rows = list(csv.DictReader(file))
        self.assertEqual([row["status"] for row in rows], ["ok"] * len(rows), rows)
        self.assertEqual({row["variant"] for row in rows}, {"uniform_window"})


class Installed(Swept):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="plugin_test.", dir=BUILD))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        # Moved after installing: nothing may remember where it was put first.
        must(CMAKE, "--install", BUILD, "--prefix", cls.folder / "first")
        cls.prefix = (cls.folder / "first").rename(cls.folder / "prefix")
        cls.attn_sweep = cls.prefix / "bin/attn_sweep"
        configure_stranger(cls.folder / "stranger", f"-DCMAKE_PREFIX_PATH={cls.prefix}")
        must(CMAKE, "--build", cls.folder / "stranger")
        cls.plugin = cls.folder / "stranger/uniform_window.so"

    def refused(self, *arguments, saying):
        """Exit 2, one sentence with these words, and no file written."""
        out = self.folder / "refused.csv"
        done = run(self.attn_sweep, *arguments, "--n", "64", "--out", out, cwd=self.folder)
        self.assertEqual(done.returncode, 2, done)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        for words in saying:
            self.assertIn(words, done.stderr)
        self.assertFalse(out.exists())

    def compile(self, name, source, *flags):
        library = self.folder / name
        must(CXX, "-shared", "-fPIC", *CXXFLAGS, *flags, source, "-o", library)
        return library

    def compile_page(self, name, *flags):
        # What pkg-config says must be enough to build a plugin with any build system.
        env = {**os.environ, "PKG_CONFIG_PATH": str(self.prefix / "lib/pkgconfig")}
        cflags = shlex.split(must("pkg-config", "--cflags", "attnbench", env=env))
        return self.compile(name, STRANGER / "uniform_window.cpp", *cflags, "-DATTN_PLUGIN", '-DATTN_FAMILY="plugin"', *flags)

    def test_installed_program_runs_from_anywhere(self):
        self.assertIn("full", must(self.attn_sweep, "--list", cwd="/"))

    def test_installed_reports_find_the_installed_program(self):
        must(self.prefix / "share/attnbench/scripts/noise_floor.sh", "--variants", "copy_v", "--n", "256", "--threads", "1", cwd=self.folder)
        self.assertIn("noise_floor", (self.folder / "noise_floor.json").read_text())

    def test_plugin_is_listed(self):
        self.assertIn("uniform_window", must(self.attn_sweep, "--plugin", self.plugin, "--list"))

    def test_plugin_is_swept(self):
        self.sweeps(self.attn_sweep, self.plugin)

    def test_pkg_config_plugin_is_swept(self):
        self.sweeps(self.attn_sweep, self.compile_page("by_pkg_config.so"))

    def test_another_release_is_refused(self):
        older = self.compile_page("older.so", "-UATTN_VERSION", '-DATTN_VERSION="0.0.1"')
        self.refused("--plugin", older, saying=["older.so", "attnbench-0.0.1", "accepts", "rebuild"])

    def test_another_abi_is_refused(self):
        source = self.folder / "abi.cpp"
        for version in (1, 999):  # older, newer
            source.write_text('extern "C" { extern const struct { unsigned abi; const char *tag, *id; void (*enter)(void*); }\n'
                              f'attn_plugin; decltype(attn_plugin) attn_plugin{{{version}, "", "", nullptr}}; }}\n')
            self.refused("--plugin", self.compile("abi.so", source), saying=["abi.so", f"ABI version {version},", "accepts"])

    def test_a_library_that_is_no_plugin_is_refused(self):
        source = self.folder / "other.cpp"
        source.write_text("int answer() { return 42; }\n")
        self.refused("--plugin", self.compile("other.so", source), saying=["other.so", "attn_plugin", "attnbench_add_plugin"])

    def test_a_file_that_is_no_library_is_refused(self):
        text = self.folder / "text.so"
        text.write_text("not a library\n")
        self.refused("--plugin", text, saying=["text.so", "cannot be loaded"])

    def test_a_missing_file_is_refused(self):
        self.refused("--plugin", self.folder / "missing.so", saying=["missing.so", "cannot be loaded"])

    def test_the_same_variant_twice_is_refused(self):
        self.refused("--plugin", self.plugin, "--plugin", self.plugin, saying=["uniform_window", "exists already"])


class Uninstalled(Swept):
    def test_by_add_subdirectory(self):
        # Beside the build, not in it: at the same depth ccache finds what the build has compiled.
        with tempfile.TemporaryDirectory(prefix="plugin_test.", dir=BUILD.parent) as folder:
            flags = [f"-DCMAKE_CXX_FLAGS={shlex.join(CXXFLAGS)}"] if CXXFLAGS else []
            configure_stranger(folder, f"-DATTNBENCH_SOURCE={SOURCE}", "-DATTN_WERROR=ON", *flags)
            must(CMAKE, "--build", folder, "--target", "uniform_window", "attn_sweep_app")
            self.sweeps(f"{folder}/attnbench/bin/attn_sweep", f"{folder}/uniform_window.so")


if __name__ == "__main__":
    unittest.main()
