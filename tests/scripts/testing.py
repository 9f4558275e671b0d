"""Runs a script as a user does; a traceback is a failure wherever it appears."""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
sys.dont_write_bytecode = True


class ScriptTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_script(self, script, *arguments, code=0):
        done = subprocess.run([sys.executable, SCRIPTS / script, *map(str, arguments)], capture_output=True, text=True,
                              cwd=self.folder)
        self.assertNotIn("Traceback", done.stderr)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def refused(self, code, words, script, *arguments):
        """The script ends with this code and one sentence on stderr."""
        done = self.run_script(script, *arguments, code=code)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        self.assertIn(words, done.stderr)
