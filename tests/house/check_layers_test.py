"""A small tree with one mistake of each kind: check_layers.py must name every one of them and nothing else."""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

CHECKER = Path(__file__).parents[2] / "scripts/check_layers.py"

FLOORS = """
# attn_floor(ghost USES nothing)
attn_floor(core)
attn_floor(exec USES core
                LINKS TBB::tbb)
attn_floor(kernels USES core exec LINKS PkgConfig::hwy)
attn_floor(variant USES core exec kernels)
attn_floor(measure USES core variant LINKS benchmark::benchmark)
"""
GOOD = {
    "harness/attn/core/view.hpp": "#include <vector>\n",
    "harness/attn/exec/arena.cpp": '#include "attn/core/view.hpp"\n#include <tbb/task_arena.h>\n',
    "harness/attn/kernels/exp-inl.hpp": "#include <hwy/highway.h>\n",
    "harness/attn/kernels/exp.cpp": '#include "attn/kernels/exp-inl.hpp"\n',
    "harness/apps/attn_sweep.cpp": '#include "attn/measure/gate.hpp"\n#include "attn/exec/arena.hpp"\n',
    "variants/scores/full.cpp": '#include "attn/variant/variant.hpp"\n#include "attn/kernels/exp.hpp"\n',
}


class CheckLayers(unittest.TestCase):
    def run_on(self, files):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            rules = {
                "harness/CMakeLists.txt": FLOORS,
                "harness/apps/CMakeLists.txt": "attn_app(attn_sweep attn_measure SOURCES early.cpp)\nattn_app(attn_micro attn_kernels SOURCES early.cpp)\n",
            }
            for name, text in {**rules, **GOOD, **files}.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            done = subprocess.run([sys.executable, CHECKER, root], capture_output=True, text=True)
            return done.returncode, done.stdout.splitlines()

    def refused(self, name, text, line, words):
        code, said = self.run_on({name: text})
        self.assertEqual(code, 1)
        self.assertEqual(len(said), 1, said)
        self.assertTrue(said[0].startswith(f"{name}:{line}: "), said[0])
        self.assertIn(words, said[0])

    def test_good_tree_passes(self):
        self.assertEqual(self.run_on({}), (0, []))

    def test_upward(self):
        self.refused("harness/attn/core/view.hpp", '#pragma once\n#include "attn/exec/arena.hpp"\n', 2, "floor core may include")

    def test_not_in_uses(self):
        self.refused("harness/attn/measure/gate.cpp", '#include "attn/kernels/exp.hpp"\n', 1, "floor measure may include")

    def test_library_of_another_floor(self):
        self.refused("harness/attn/measure/gate.cpp", "#  include <tbb/task_arena.h>\n", 1, "TBB::tbb is not in its LINKS")

    def test_private_library_in_public_header(self):
        self.refused("harness/attn/exec/arena.hpp", "#include <oneapi/tbb.h>\n", 1, "public header")

    def test_private_header_of_another_floor(self):
        self.refused("variants/scores/full.cpp", '#include "attn/kernels/exp-inl.hpp"\n', 1, "private to floor kernels")

    def test_variant_and_clock(self):
        self.refused("variants/scores/full.cpp", '#include "attn/measure/clock.hpp"\n', 1, "a variant may include")

    def test_variant_and_variant(self):
        self.refused("variants/scores/full.cpp", '#include "local.cpp"\n', 1, "only")

    def test_variant_and_intrinsics(self):
        self.refused("variants/scores/full.cpp", "#include <immintrin.h>\n", 1, "may not include immintrin.h")

    def test_a_file_of_two_programs_may_include_what_both_may(self):
        self.assertEqual(self.run_on({"harness/apps/early.cpp": '#include "attn/exec/arena.hpp"\n'}), (0, []))
        self.refused("harness/apps/early.cpp", '#include "attn/variant/variant.hpp"\n', 1, "app early")

    def test_a_header_of_a_program_may_include_what_the_program_may(self):
        main = {"harness/apps/attn_micro.cpp": '#include "micro.hpp"\n'}
        self.assertEqual(self.run_on({**main, "harness/apps/micro.hpp": '#include "attn/kernels/exp.hpp"\n'}), (0, []))
        code, said = self.run_on({**main, "harness/apps/micro.hpp": '#include "attn/variant/variant.hpp"\n'})
        self.assertEqual((code, len(said)), (1, 1))

    def test_app_beyond_its_links(self):
        self.refused("harness/apps/attn_other.cpp", '#include "attn/core/view.hpp"\n', 1, "app attn_other")

    def test_folder_without_floor(self):
        self.refused("harness/attn/cellar/wine.hpp", "", 1, "no attn_floor()")


if __name__ == "__main__":
    unittest.main()
