"""Which cases of a file are run: those that judge a time have an entry of ctest of their own, for which the machine does nothing else."""
import os
import unittest

WANTED = os.environ.pop("ATTN_CASES", None)  # programs would ask which flag that is


def alone(case):
    """Marks a case, or a class of them."""
    case.alone = True
    return case


class Cases(unittest.TestLoader):
    """Of ATTN_CASES=alone those that are marked, of ATTN_CASES=others all others; without it all."""

    def getTestCaseNames(self, case):
        names = super().getTestCaseNames(case)
        if WANTED is None:
            return names
        return [name for name in names if (hasattr(case, "alone") or hasattr(getattr(case, name), "alone")) == (WANTED == "alone")]


def main():
    unittest.main(testLoader=Cases())
