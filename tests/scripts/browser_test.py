"""The page in a headless Chromium. Skipped with exit code 77 where no Chromium begins a session."""
import sys
import tempfile
import unittest
from pathlib import Path
import subprocess

import browser
import synthetic
from testing import SCRIPTS

# How many pixels of a canvas are not background: a chart that was drawn has thousands.
INK = """const c = document.getElementById(arguments[0]), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
let ink = 0; for (let i = 3; i < d.length; i += 4) ink += d[i] > 0; return ink;"""
PICTURE = "return document.getElementById(arguments[0]).toDataURL()"
CHARTS = ["time", "memory", "roof", "skill", "inputs", "bubble", "task"]


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        folder = Path(cls.folder.name)
        rows = synthetic.zoo((128, 512, 2048), inputs=("text", "iid:1"), threads=(1, 2), causal=(0, 1))
        sweep = synthetic.write(folder / "zoo.csv", rows)
        cls.path = folder / "zoo.html"
        subprocess.run([sys.executable, SCRIPTS / "report.py", sweep, synthetic.train(folder / "zoo.train.csv"), "-o", cls.path],
                       check=True, capture_output=True)
        steps = synthetic.write(folder / "steps.csv", synthetic.steps())
        cls.steps = folder / "steps.html"
        subprocess.run([sys.executable, SCRIPTS / "report.py", steps, "-o", cls.steps], check=True, capture_output=True)
        cls.types, cls.one = folder / "types.html", folder / "one.html"
        both = [{**row, "dtype": kind, "kv_dtype": kind} for kind in ("f32", "bf16") for row in synthetic.zoo((256, 512))]
        cls.shapes = folder / "shapes.html"
        carried = [{**row, "head_dim": 15, "value_dim": 15} for row in synthetic.zoo((1024,), inputs=("model:ocr,layer=0",))]
        for page, rows in ((cls.types, both), (cls.one, synthetic.zoo((512,))), (cls.shapes, synthetic.zoo((512, 1024)) + carried)):
            sweep = synthetic.write(page.with_suffix(".csv"), rows)
            subprocess.run([sys.executable, SCRIPTS / "report.py", sweep, "-o", page], check=True, capture_output=True)
        cls.unasked = folder / "unasked.html"
        sweep = synthetic.write(folder / "unasked.csv", [{**row, "fid_skill": "", "fid_reason": ""} for row in synthetic.zoo((256, 512))])
        subprocess.run([sys.executable, SCRIPTS / "report.py", sweep, "-o", cls.unasked], check=True, capture_output=True)
        cls.page = browser.Browser()

    @classmethod
    def tearDownClass(cls):
        cls.page.__exit__()
        cls.folder.cleanup()

    def setUp(self):
        self.page.log("performance"), self.page.log("browser")
        self.page.open(self.path)

    def tearDown(self):
        # Reading pixels back is what this test does, not the page.
        errors = [e for e in self.page.log("browser") if e["level"] in ("SEVERE", "WARNING") and "readback" not in e["message"]]
        self.assertEqual(errors, [])

    def choose(self, axis, value):
        self.page.run("""const s = document.getElementById('filter-' + arguments[0]);
            s.selectedIndex = [...s.options].findIndex(o => o.textContent === arguments[1]); s.dispatchEvent(new Event('change'));""",
                      axis, value)

    def test_without_skill_the_answer_says_who_is_fastest_and_what_measures_it(self):
        self.page.open(self.unasked)
        (told,) = self.page.run(self.ANSWER)
        self.assertRegex(told, r"^No skill was measured on text at N=512 \(--fidelity rows does\)\. The fastest is linear: .* the time of full\.$")

    def test_charts_are_drawn(self):
        for chart in CHARTS:
            self.assertGreater(self.page.run(INK, chart), 5000, chart)

    def test_decodes_have_cards_of_their_own(self):
        hidden = "return ['token-card', 'state-card'].map(id => document.getElementById(id).hidden)"
        self.assertEqual(self.page.run(hidden), [True, True])
        self.page.open(self.steps)
        self.assertEqual(self.page.run(hidden), [False, False])
        for chart in ("token-time", "state-bytes"):
            self.assertGreater(self.page.run(INK, chart), 5000, chart)

    ANSWER = "return [...document.querySelectorAll('#answer-words p')].map(p => p.textContent)"

    def test_the_answer_stands_first_and_follows_the_choices(self):
        self.assertEqual(self.page.run("return document.querySelector('main section').id"), "answer")
        self.choose("threads", "2"), self.choose("causal", "no"), self.choose("input", "text")
        skill = "const s = document.getElementById('answer-skill'); s.value = '{}'; s.dispatchEvent(new Event('change'))"
        self.page.run(skill.format(0.95))
        told = self.page.run(self.ANSWER)
        self.assertEqual(len(told), 3)
        self.assertRegex(told[0], r"^full is the fastest with skill 0\.95 or more on text at N=2048: .* ms \(.* to .*\)\.$")
        self.assertRegex(told[1], r"^Faster with less: linear, .*× the time of full, whose distance to softmax attention says nothing\.$")
        self.assertRegex(told[2], r"^full takes .*iB beyond inputs and output\.$")
        self.page.run(skill.format(0.8))
        told = self.page.run(self.ANSWER)
        self.assertRegex(told[0], r"^local:left=64,right=64 is the fastest with skill 0\.8 or more .*× the time of full\.$")
        self.assertRegex(told[1], r"^Ahead of full: .*\.$")
        self.choose("input", "iid:1")
        self.assertRegex(self.page.run(self.ANSWER)[0], r" on iid:1 ")

    def test_of_a_decode_the_answer_is_a_token_s_time_and_state(self):
        self.page.open(self.steps)
        told = " ".join(self.page.run(self.ANSWER))
        self.assertIn(" a token", told)
        self.assertIn("of its context", told)

    def test_number_types_and_implementations_have_views(self):
        hidden = "return ['types-card', 'implementations-card'].map(id => document.getElementById(id).hidden)"
        self.assertEqual(self.page.run(hidden), [True, False])  # full@unfused is there
        self.page.open(self.types)
        self.assertEqual(self.page.run(hidden), [False, False])
        over = self.page.run("return [...document.querySelectorAll('#types tbody tr')].map(r => [...r.children].map(c => c.textContent))")
        self.assertEqual({row[2] for row in over}, {"f32", "bf16"})
        self.assertTrue(all(row[5].endswith("×") for row in over), over)

    def test_a_curve_of_one_point_is_not_there(self):
        shown = "return document.getElementById('time').checkVisibility()"
        self.assertTrue(self.page.run(shown))
        self.page.open(self.one)
        self.assertFalse(self.page.run(shown))
        self.assertTrue(self.page.run("return document.getElementById('cells').checkVisibility()"))

    def test_an_input_of_a_shape_of_its_own_stands_beside_the_others(self):
        self.page.open(self.shapes)
        self.choose("head_dim", "64"), self.choose("input", "text")
        self.assertEqual(self.page.run("return charts.inputs.options.scales.x.labels"), ["model:ocr,layer=0", "text"])
        points = self.page.run("return charts.inputs.data.datasets.map(s => s.data.map(p => p.row.head_dim))")
        self.assertIn([15, 64], points)

    def test_what_scrolls_is_reached_by_tab(self):
        self.assertEqual(self.page.run("return [...document.querySelectorAll('.scroll')].filter(s => s.tabIndex !== 0).length"), 0)

    def test_no_network(self):
        asked = [e["message"] for e in self.page.log("performance") if '"Network.requestWillBeSent"' in e["message"]]
        self.assertEqual([a for a in asked if '"url":"file://' not in a], [])
        self.assertEqual(self.page.run("return performance.getEntriesByType('resource').length"), 0)

    def test_toggle_changes_the_charts(self):
        before = {chart: self.page.run(PICTURE, chart) for chart in CHARTS}
        for name in ("full", "linformer:k=256"):
            self.page.run("document.querySelector(`.chip[data-key='${arguments[0]}']`).click()", name)
            pressed = self.page.run("return document.querySelector(`.chip[data-key='${arguments[0]}']`).ariaPressed", name)
            self.assertEqual(pressed, "false")
        for chart in CHARTS:
            self.assertNotEqual(before[chart], self.page.run(PICTURE, chart), chart)
        self.page.run("document.getElementById('show-all').click()")
        self.assertEqual(before["time"], self.page.run(PICTURE, "time"))

    def test_filters(self):
        cells = "return [...document.querySelectorAll('#cells tbody tr')].map(r => r.textContent).join()"
        for axis, value in (("threads", "1"), ("causal", "yes"), ("input", "iid:1")):
            picture, table = self.page.run(PICTURE, "time"), self.page.run(cells)
            self.choose(axis, value)
            self.assertNotEqual(picture, self.page.run(PICTURE, "time"), axis)
            self.assertNotEqual(table, self.page.run(cells), axis)
        commands = self.page.run("""return [...document.querySelectorAll('#cells tbody tr')].map(r => {
            r.click(); return document.getElementById('drawer-command').textContent; })""")
        self.assertTrue(commands)
        for command in commands:
            for word in ("--threads 1 ", "--causal yes ", "--input iid:1 "):
                self.assertIn(word, command)
        for axis in ("head_dim", "dtype"):
            self.assertTrue(self.page.run("return document.getElementById('filter-' + arguments[0]).disabled", axis))

    def test_relative_and_choices(self):
        pick = "const s = document.getElementById('{}'); s.selectedIndex = {}; s.dispatchEvent(new Event('change'))"
        for action, chart in [("document.getElementById('relative').click()", "time"), (pick.format("bubble-n", 0), "bubble"),
                              (pick.format("bubble-y", 1), "bubble"), (pick.format("inputs-n", 0), "inputs"),
                              (pick.format("task-name", 1), "task"), ("document.getElementById('theme').click()", "time")]:
            before = self.page.run(PICTURE, chart)
            self.page.run(action)
            self.assertNotEqual(before, self.page.run(PICTURE, chart), action)
            self.assertGreater(self.page.run(INK, chart), 3000, action)

    def test_paper_is_light_and_the_screen_gets_its_theme_back(self):
        theme = "return document.documentElement.dataset.theme"
        before = self.page.run(theme)
        self.page.run("document.documentElement.dataset.theme = 'dark'; dispatchEvent(new Event('beforeprint'))")
        self.assertEqual(self.page.run(theme), "light")
        self.page.run("dispatchEvent(new Event('afterprint'))")
        self.assertEqual(self.page.run(theme), "dark")
        self.page.run("document.documentElement.dataset.theme = arguments[0]", before)

    def test_hover_shows_row_and_command(self):
        shown = self.page.until("""const p = charts.time.getDatasetMeta(0).data[1], r = charts.time.canvas.getBoundingClientRect();
            charts.time.canvas.dispatchEvent(new MouseEvent('mousemove', { clientX: r.left + p.x, clientY: r.top + p.y, bubbles: true }));
            return !document.getElementById('drawer').hidden""")
        self.assertTrue(shown)
        self.assertIn("N=512", self.page.run("return document.getElementById('drawer-facts').textContent"))
        self.assertIn("attn_sweep --variants", self.page.run("return document.getElementById('drawer-command').textContent"))

    def test_keyboard(self):
        facts = []
        for _ in range(2):
            self.page.run("document.getElementById('time').dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight' }))")
            facts.append(self.page.run("return document.getElementById('drawer-facts').textContent"))
        self.assertIn("N=128", facts[0])
        self.assertIn("N=512", facts[1])
        self.page.run("document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape' }))")
        self.assertTrue(self.page.run("return document.getElementById('drawer').hidden"))
        self.page.run("document.querySelector('#cells tbody tr').focus()")
        self.page.run("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }))")
        self.assertFalse(self.page.run("return document.getElementById('drawer').hidden"))

    def test_tables_sort(self):
        column = "return [...document.querySelectorAll('#cells tbody tr')].map(r => +r.children[2].textContent)"
        self.page.run("document.querySelectorAll('#cells th button')[2].click()")
        up = self.page.run(column)
        self.assertEqual(up, sorted(up))
        self.page.run("document.querySelectorAll('#cells th button')[2].click()")
        self.assertEqual(self.page.run(column), sorted(up, reverse=True))

    def test_phone(self):
        with browser.Browser(390, 844, phone=True) as phone:
            phone.open(self.path)
            self.assertLessEqual(phone.run("return document.documentElement.scrollWidth"), 390)
            self.assertGreater(phone.run(INK, "time"), 3000)
            self.assertEqual([e for e in phone.log("browser") if e["level"] == "SEVERE"], [])


if __name__ == "__main__":
    if not browser.available():
        sys.exit(77)
    unittest.main()
