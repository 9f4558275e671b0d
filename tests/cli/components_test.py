"""--version names a CycloneDX list of what the program is linked to."""
import json
import os
import pathlib
import re
import subprocess
import unittest

SWEEP = os.environ["ATTN_SWEEP"]
# The compiler's and the C library's own, and what other libraries bring along (oneDNN: OpenCL and OpenMP; hwloc: udev; libsndfile:
# its codecs).
SYSTEM = (r"linux-vdso|ld-linux|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|udev|OpenCL|gomp|asan|ubsan|tsan|resolv)\.so|libclang_rt|libattn_|"
          r"lib(FLAC|vorbis|vorbisenc|opus|ogg|mpg123|mp3lame)\.so")


class Components(unittest.TestCase):
    def setUp(self):
        said = subprocess.run([SWEEP, "--version"], capture_output=True, text=True, check=True).stdout
        path = re.search(r"^components: (.+)$", said, re.M)[1]
        self.told = json.loads(pathlib.Path(path).read_text())

    def test_the_list_is_of_cyclonedx_and_every_component_has_a_version(self):
        self.assertEqual((self.told["bomFormat"], self.told["specVersion"], self.told["version"]), ("CycloneDX", "1.5", 1))
        self.assertEqual(self.told["metadata"]["component"]["name"], "attnbench")
        self.assertEqual(len({c["bom-ref"] for c in self.told["components"]}), len(self.told["components"]))
        for component in self.told["components"]:
            self.assertRegex(component["version"], r"^\d+\.\d+", component["name"])
            self.assertEqual(component["purl"], f"pkg:generic/{component['name']}@{component['version']}")
            self.assertTrue(component["licenses"][0]["license"]["id"])

    def test_every_library_that_the_program_loads_is_in_it(self):
        loaded = [line.split()[0] for line in subprocess.run(["ldd", SWEEP], capture_output=True, text=True, check=True).stdout.splitlines()]
        listed = [p["value"] for c in self.told["components"] for p in c.get("properties", [])]
        missing = [name for name in loaded if not re.search(SYSTEM, name) and not any(name.startswith(prefix) for prefix in listed)]
        self.assertEqual(missing, [])


if __name__ == "__main__":
    unittest.main()
