"""What the programs' tests must know of the build that they test."""
import os
import unittest

SANITIZED = bool(os.environ.get("ATTN_SANITIZE"))
# A sanitizer intercepts calls, catches signals and reserves terabytes of addresses for itself.
unsanitized = unittest.skipIf(SANITIZED, "not under a sanitizer, which takes this over")
