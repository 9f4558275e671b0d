"""The operators change code and nothing else, one line at a time, and a seed draws the same faults again."""
import unittest

import operators

SOURCE = """#include "a < b"
// a < b
  if (i < n && p.causal) return refuse("i < n");
  const double mean = sum / count;  // a + b
  log("a + b");
  std::copy_n(from, to, count);
"""


class Operators(unittest.TestCase):
    def test_comments_strings_and_includes_stay(self):
        for number, _, new in operators.mutants_of(SOURCE):
            self.assertNotIn(number, (0, 1))
            self.assertNotIn("a - b", new)
            self.assertNotIn('"i <= n"', new)
        self.assertEqual(operators.blanked('x = "a // \\" b" + c; // d').rstrip(), 'x = "' + "\0" * 9 + '" + c;')

    def test_each_makes_the_fault_of_its_name(self):
        made = {(number, operator, new.strip()) for number, operator, new in operators.mutants_of(SOURCE)}
        for fault in ((2, "bound", 'if (i <= n && p.causal) return refuse("i < n");'), (2, "logic", 'if (i < n || p.causal) return refuse("i < n");'),
                      (2, "mask", 'if (i < n && !p.causal) return refuse("i < n");'), (3, "product", "const double mean = sum * count;  // a + b"),
                      (4, "left out", ";"), (5, "merge order", "std::copy_n(to, from, count);")):
            self.assertIn(fault, made)

    def test_a_seed_draws_the_same_faults_from_every_folder_in_turn(self):
        sources = {"one": [("a.cpp", SOURCE)], "two": [("b.cpp", SOURCE), ("c.cpp", SOURCE)], "none": [("d.cpp", "")]}
        drawn = operators.drawn(sources, 6, 1)
        self.assertEqual(drawn, operators.drawn(sources, 6, 1))
        self.assertNotEqual(drawn, operators.drawn(sources, 6, 2))
        self.assertEqual([fault[0] for fault in drawn], ["one", "two"] * 3)
        self.assertEqual(len(operators.drawn({"one": [("a.cpp", SOURCE)]}, 10**4, 1)), len(set(operators.mutants_of(SOURCE))))


if __name__ == "__main__":
    unittest.main()
