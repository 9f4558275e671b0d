"""The page of attn_apply --map in a headless Chromium, by file://. Skipped with exit code 77 where Debian's chromium and chromium-driver, or
attn_apply, are absent."""
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import browser

APPLY = os.environ.get("ATTN_APPLY", "")
READING = "return document.getElementById('reading').textContent"
KEY = """const node = document.querySelector(arguments[0]); node.focus();
    document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: arguments[1], bubbles: true }));"""
# Of the matrix: how many different colours it has.
COLOURS = """const c = document.querySelector('#matrix canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    const seen = new Set(); for (let i = 0; i < d.length; i += 4) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return seen.size;"""


class Map(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        folder = Path(cls.folder.name)
        (folder / "a.pgm").write_bytes(b"P5 8 8 255\n" + bytes(range(0, 256, 4)))
        (folder / "a.txt").write_text("<b id=evil>x</b>\n" * 4)
        pages = {"text": (f"text:{folder / 'a.txt'}", 48, "local"), "picture": (f"image:{folder / 'a.pgm'}", 64, "full"),
                 "graph": ("graph:molecules", 48, "graph:degree=6"), "long": ("text", 200, "linear"), "numbers": ("iid:1", 32, "light_conv")}
        for name, (source, n, variant) in pages.items():
            subprocess.run([APPLY, "--input", source, "--n", str(n), "--heads", "4", "--head-dim", "8", "--variant", variant, "--map",
                            folder / f"{name}.html", "--out", folder / f"{name}.npy"], check=True, capture_output=True)
        cls.page = browser.Browser()

    @classmethod
    def tearDownClass(cls):
        cls.page.__exit__()
        cls.folder.cleanup()

    def open(self, name):
        self.page.log("performance"), self.page.log("browser")
        self.page.open(f"{self.folder.name}/{name}.html")

    def tearDown(self):
        self.assertEqual([e for e in self.page.log("browser") if e["level"] in ("SEVERE", "WARNING") and "readback" not in e["message"]], [])

    def test_every_kind_is_drawn_without_a_network(self):
        for name, spots in (("text", "#place.text span"), ("picture", "#place.picture span"), ("graph", "#place circle"), ("numbers", "#place.list span")):
            with self.subTest(name):
                self.open(name)
                self.assertGreater(self.page.run(COLOURS), 8)
                self.assertEqual(self.page.run("return document.querySelectorAll('#heads canvas').length"), 4)
                self.assertEqual(self.page.run("return document.querySelectorAll(arguments[0]).length", spots), self.page.run("return data.keys"))
                self.assertGreater(self.page.run("return document.querySelectorAll('#lines line').length"), 20)
                asked = [e["message"] for e in self.page.log("performance") if '"Network.requestWillBeSent"' in e["message"]]
                self.assertEqual([a for a in asked if '"url":"file://' not in a], [])
                self.assertIsNone(self.page.run("return document.getElementById('evil')"))

    def test_the_keyboard_reaches_heads_weights_and_tokens(self):
        self.open("text")
        self.assertIn("head 0, query 47", self.page.run(READING))
        self.page.run(KEY, "#heads [aria-checked=true]", "ArrowRight")
        self.assertEqual(self.page.run("return document.activeElement.getAttribute('aria-checked')"), "true")
        self.page.run(KEY, "#matrix", "ArrowUp"), self.page.run(KEY, "#matrix", "ArrowRight")
        self.assertIn("head 1, query 46", self.page.run(READING))
        self.assertIn("key 1 ", self.page.run(READING))
        self.page.run(KEY, "#place", "ArrowLeft")
        self.assertIn("query 45", self.page.run(READING))
        self.assertEqual(self.page.run("return document.querySelector('#place [aria-selected=true]').id"), "token-45")
        self.page.run("const s = document.getElementById('way'); s.value = 'to'; s.dispatchEvent(new Event('change'))")
        self.page.run(KEY, "#place", "ArrowRight")
        self.assertIn("key 2 ", self.page.run(READING))

    def test_the_reading_is_the_weight_of_the_array(self):
        self.open("numbers")
        shape = self.page.run("return [data.heads.length, data.queries, data.keys]")
        self.assertEqual(shape, [4, 32, 32])
        total = self.page.run("let s = 0; for (let j = 0; j < keys; ++j) s += weight(0, 5, j); return s")
        low, high = self.page.run("return data.heads[0].sums")
        self.assertTrue(low - 1e-2 <= total <= high + 1e-2, (low, total, high))

    def test_a_click_chooses(self):
        self.open("picture")
        self.page.run("document.querySelector('#token-9').dispatchEvent(new MouseEvent('click', { bubbles: true }))")
        self.assertIn("query 9 ", self.page.run(READING))
        self.page.run("""const b = document.querySelector('#matrix canvas').getBoundingClientRect();
            document.querySelector('#matrix').dispatchEvent(new MouseEvent('click', { clientX: b.left + b.width * 10.5 / 64, clientY: b.top + b.height * 20.5 / 64, bubbles: true }))""")
        self.assertIn("query 20 → key 10:", self.page.run(READING))

    def test_light_and_dark(self):
        self.open("text")
        theme = "return document.documentElement.dataset.theme"
        before, picture = self.page.run(theme), self.page.run("return document.querySelector('#matrix canvas').toDataURL()")
        self.page.run("document.getElementById('theme').click()")
        self.assertNotEqual(self.page.run(theme), before)
        self.assertNotEqual(self.page.run("return document.querySelector('#matrix canvas').toDataURL()"), picture)
        self.page.run("document.getElementById('theme').click()")
        self.assertEqual(self.page.run("return document.querySelector('#matrix canvas').toDataURL()"), picture)

    def test_a_long_text_draws_the_lines_of_one_query(self):
        self.open("long")
        self.assertLessEqual(self.page.run("return document.querySelectorAll('#lines line').length"), 200)
        self.assertIn("chosen query alone", self.page.run("return document.getElementById('lines-note').textContent"))

    def test_phone(self):
        with browser.Browser(390, 844, phone=True) as phone:
            phone.open(f"{self.folder.name}/text.html")
            self.assertLessEqual(phone.run("return document.documentElement.scrollWidth"), 390)


if __name__ == "__main__":
    if not Path(APPLY).is_file():
        print("skipped: attn_apply is not built")
        sys.exit(77)
    if not browser.available():
        sys.exit(77)
    unittest.main()
