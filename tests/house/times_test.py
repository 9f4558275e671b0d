"""times.py names the part that grew, whatever the machine's pace."""
import unittest

import times

THEN = {"test a": 10.0, "test b": 40.0, "test c": 5.0, "build kernels": 100.0}
LOG = """Start testing
----
1/2 Testing: a
1/2 Test: a
Command: "x"
<end of output>
Test time =  12.50 sec
----
2/2 Testing: b
2/2 Test: b
<end of output>
Test time =   0.25 sec
"""


class Times(unittest.TestCase):
    def test_a_slower_machine_is_no_growth(self):
        self.assertEqual(times.grown({part: 3 * s for part, s in THEN.items()}, THEN), [])

    def test_the_part_that_grew_is_named_with_what_was_expected(self):
        now = {part: 2 * s for part, s in THEN.items()} | {"test b": 160.0}
        self.assertEqual(times.grown(now, THEN), [("test b", 160.0, 80.0)])

    def test_a_new_part_counts_from_nothing_and_a_short_one_not_at_all(self):
        self.assertEqual(times.grown(THEN | {"test new": 60.0, "test short": 3.0}, THEN), [("test new", 60.0, 0.0)])
        self.assertEqual(times.grown(THEN | {"test c": 12.0}, THEN), [])

    def test_logs_are_read(self):
        self.assertEqual(times.test_times(LOG), {"test a": 12.5, "test b": 0.25})
        ninja = "# ninja log v5\n0\t2000\t1\tx/CMakeFiles/k.dir/a.cpp.o\th\n0\t500\t1\tx/CMakeFiles/k.dir/a.cpp.o\th\n5\t1005\t1\tx/CMakeFiles/k.dir/b.cpp.o\th\n0\t9\t1\tlib.so\th\n"
        self.assertEqual(times.build_times(ninja), {"build k": 1.5})


if __name__ == "__main__":
    unittest.main()
