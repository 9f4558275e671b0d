"""Every planted fault has its place in the tree and the case that must notice it in the tests: else it would show nothing."""
import re
import unittest

from planted import planted
from tree import ROOT


class Planted(unittest.TestCase):
    def test_each_has_one_place_and_changes_it(self):
        for fault in planted():
            with self.subTest(fault.path, wrong=fault.wrong):
                self.assertEqual((ROOT / fault.path).read_text().count(fault.right), 1, "tests/mutate/planted.tsv: the line has changed")
                self.assertNotEqual(fault.right, fault.wrong)

    def test_each_names_a_case_that_there_is(self):
        sources = [path.read_text() for path in (ROOT / "tests").glob("**/*_test.cpp")]
        cases = {name for text in sources for name in re.findall(r'TEST_CASE\("([^"]+)"', text)}
        for fault in planted():
            with self.subTest(fault.path, case=fault.case):
                if fault.test.endswith(".py"):
                    group, name = fault.case.split(".")
                    text = (ROOT / "tests" / fault.test).read_text()
                    self.assertIn(f"class {group}(", text)
                    self.assertIn(f"def {name}(self)", text)
                else:
                    self.assertIn(fault.case, cases)


if __name__ == "__main__":
    unittest.main()
