"""attn_sweep --verify: every property can fail, a crash or a hang is that property's failure, and the verdict says how to repeat it."""
import json
import os
import pathlib
import re
import shlex
import subprocess
import time
import unittest

from cases import alone, main
from sanitizer import SANITIZED, unsanitized

SWEEP = os.environ["ATTN_SWEEP"]
FAULTY = os.environ["ATTN_FAULTY"]
ROOT = pathlib.Path(__file__).resolve().parents[2]


def verify(*arguments):
    return subprocess.run([SWEEP, "--verify", "--quiet", *arguments], capture_output=True, text=True, timeout=500)


def faulty(how, *arguments):
    names = ",".join(f"faulty:how={one}" for one in ([how] if isinstance(how, str) else how))
    return verify("--plugin", FAULTY, "--variants", names, *arguments)


def failures(document):
    """{variant: {property: finding}} of what failed."""
    return {entry["variant"]: {f["property"]: f for f in entry["findings"] if not f["holds"]} for entry in document["variants"]}


def properties():
    done = verify("--variants", "copy_v", "--format", "json")
    return [entry["id"] for entry in json.loads(done.stdout)["properties"]]


def ways_to_fail():
    """What `how` of the faulty variant may be."""
    listed = subprocess.run([SWEEP, "--plugin", FAULTY, "--list=json"], capture_output=True, text=True, check=True).stdout
    (entry,) = [entry for entry in json.loads(listed) if entry["id"] == "faulty"]
    return re.findall(r"\w+", entry["options"][0]["range"])


class Properties(unittest.TestCase):
    maxDiff = None

    def failing(self, chosen, by):
        """{how: the properties that it fails} of the faulty variants whose property is one of `by`, of the chosen properties; and whose each is."""
        known = properties()
        ways = {how: how.split("_")[0] for how in ways_to_fail() if how.split("_")[0] in known}
        self.assertEqual(sorted(set(ways.values())), sorted(known))
        ways = {how: name for how, name in ways.items() if by(name)}
        done = faulty(sorted(ways), "--property", ",".join(name for name in known if chosen(name)), "--format", "json")
        self.assertEqual(done.returncode, 1, done.stderr)
        return {variant.split("=")[1]: sorted(failed) for variant, failed in failures(json.loads(done.stdout)).items()}, ways

    @alone
    @unsanitized
    def test_what_fails_by_the_clock_fails_nothing_else(self):
        seen, ways = self.failing(chosen=lambda _: True, by=lambda name: name == "cost")
        self.assertEqual(seen, {how: [name] for how, name in ways.items()})

    @unsanitized
    def test_each_property_has_variants_that_fail_it_and_nothing_else(self):
        def untimed(name):  # the clock is not read: a second for each
            return name != "cost"

        seen, ways = self.failing(chosen=untimed, by=untimed)
        # Plans of stored numbers and of masks are run apart, their scratch and output filled with NaN and guarded.
        also = {how: ["dtypes", "mask"] for how in ("bounds_scratch", "output", "scratch")}
        # What lies before an array that is not guarded there is memory of something else, or of nothing.
        seen["bounds_before"] = sorted(set(seen["bounds_before"]) - {"dtypes"})
        self.assertEqual(seen, {how: sorted([broken, *also.get(how, [])]) for how, broken in ways.items()})

    @alone
    def test_a_sound_variant_passes_every_property(self):
        done = faulty("none", "--format", "json")
        self.assertEqual(done.returncode, 0, done.stdout)
        for entry in json.loads(done.stdout)["properties"]:
            if not (SANITIZED and entry["id"] in ("allocations", "arena")):  # the sanitizer has the calls that they count
                self.assertGreater(entry["cases"], 0, entry["id"])

    @alone
    def test_the_pages_of_the_readme_and_of_new_variant_pass_in_a_minute(self):
        for page in ("ATTN_README_PAGE", "ATTN_NEW_PAGE"):
            begin = time.monotonic()
            done = verify("--plugin", os.environ[page])
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assertLess(time.monotonic() - begin, 60)

    def test_plugins_without_variants_verifies_what_they_bring(self):
        done = verify("--plugin", FAULTY, "--property", "agreement", "--format", "json")
        self.assertEqual([entry["variant"] for entry in json.loads(done.stdout)["variants"]], ["faulty:how=none"])

    def test_the_table_in_contributing_has_the_properties_in_order_and_all_hold(self):
        lines = verify("--variants", "copy_v", "--format", "md").stdout.splitlines()
        head = [line.split("|")[1:3] for line in lines]
        text = (ROOT / "CONTRIBUTING.md").read_text()
        table = re.search(r"\| property \| what holds .*?(?=\n\n)", text, re.S)[0].splitlines()
        self.assertEqual([line.split("|")[1:3] for line in table], head)
        for line in table[2:]:
            self.assertEqual(line.split("|")[5].strip(), "holds", line)
            self.assertGreater(int(line.split("|")[3]), 0, line)


class Verdicts(unittest.TestCase):
    def failure(self, how, *arguments):
        done = faulty(how, "--property", "scratch", "--format", "json", *arguments)
        self.assertEqual(done.returncode, 1, done.stderr)
        (failed,) = failures(json.loads(done.stdout)).values()
        return failed["scratch"]

    @unsanitized
    def test_a_crash_is_a_failure_with_its_signal_and_its_case(self):
        failure = self.failure("crash")["failure"]
        self.assertIn("signal 11", failure)
        self.assertIn("q_len=1 ", failure)

    def test_a_hang_is_a_failure_with_its_case(self):
        for how in ("hang", "spin"):
            failure = self.failure(how, "--timeout", "1")["failure"]
            self.assertIn("no answer within --timeout 1 s", failure)
            self.assertIn("q_len=1 ", failure)

    @alone
    @unsanitized
    def test_what_takes_much_longer_than_all_other_cases_hangs(self):
        begin = time.monotonic()
        failure = faulty("stall", "--property", "repeat", "--format", "json")
        self.assertLess(time.monotonic() - begin, 12)
        words = failures(json.loads(failure.stdout))["faulty:how=stall"]["repeat"]["failure"]
        self.assertRegex(words, r"^hangs: nothing for 5\.0 s at .*q_len=63 .*; no other case took more than .* s$")

    @alone
    def test_three_hangs_end_the_variant(self):
        begin = time.monotonic()
        done = faulty("spin", "--timeout", "1", "--format", "json")
        self.assertLess(time.monotonic() - begin, 20)
        (entry,) = json.loads(done.stdout)["variants"]
        self.assertEqual([f["property"] for f in entry["findings"] if not f["holds"]], ["agreement", "output", "bounds"])
        self.assertEqual({f["none"] for f in entry["findings"][3:]}, {"3 other properties hung"})

    def test_a_hang_is_told_of_when_it_is_found(self):
        done = subprocess.run([SWEEP, "--verify", "--plugin", FAULTY, "--variants", "faulty:how=spin", "--property", "heads",
                               "--timeout", "1"], capture_output=True, text=True, timeout=60)
        self.assertIn("heads: no answer within --timeout 1 s", done.stderr)

    def test_a_wrong_output_names_query_and_keys(self):
        done = faulty("shifted", "--property", "agreement", "--format", "json")
        words = failures(json.loads(done.stdout))["faulty:how=shifted"]["agreement"]["failure"]
        self.assertRegex(words, r"; worst at batch 0, head \d, query 0, channel \d+: \S+ instead of \S+; query 0 of that head is off")
        self.assertTrue(words.endswith("query 0 weighs key 1 (1), which the definition does not and does not weigh key 0 (1), "
                                       "which the definition does"), words)

    @unsanitized
    def test_memory_beyond_the_limit_is_a_failure_and_the_command_repeats_the_limit(self):
        failed = self.failure("hog", "--memory-limit", "16M")
        self.assertIn("--memory-limit 16M", failed["repeat"])
        self.assertIn("bad_alloc", failed["failure"])

    def test_leaving_the_process_is_a_failure(self):
        self.assertIn("the worker ended with code 0", self.failure("leave")["failure"])

    def test_an_exception_is_a_failure_with_its_words(self):
        self.assertIn("thrown on purpose", self.failure("raise")["failure"])

    @unsanitized
    def test_the_command_of_a_failure_repeats_just_that_failure(self):
        command = shlex.split(self.failure("crash")["repeat"])
        self.assertEqual(command[0], "attn_sweep")
        done = subprocess.run([SWEEP, *command[1:]], capture_output=True, text=True, timeout=100)
        self.assertEqual(done.returncode, 1)
        self.assertIn("signal 11", done.stdout)
        self.assertEqual(len([line for line in done.stdout.splitlines() if "FAILED" in line]), 1)

    def test_text_has_a_line_a_property_and_the_command_below(self):
        done = faulty("heads", "--property", "heads,repeat")
        lines = done.stdout.splitlines()
        self.assertRegex(lines[1], r"^heads +\d+ +1  FAILED by faulty:how=heads$")
        self.assertRegex(lines[2], r"^repeat +\d+ +1  holds$")
        self.assertIn("repeat: attn_sweep --verify --variants faulty:how=heads --property heads", done.stdout)

    def test_what_is_not_tried_has_a_reason(self):
        done = verify("--variants", "linformer", "--property", "causality")
        self.assertEqual(done.returncode, 0)
        self.assertIn("causality not tried: has no causal form", done.stdout)


class Refusals(unittest.TestCase):
    def refused(self, *arguments):
        done = verify(*arguments)
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1), done.stderr)
        return done.stderr

    def test_an_unknown_property_names_the_nearest(self):
        self.assertIn("did you mean 'causality'?", self.refused("--property", "causalty"))

    def test_an_unknown_variant_names_the_nearest(self):
        self.assertIn("did you mean 'full'?", self.refused("--variants", "ful"))

    def test_threads_is_one_number(self):
        self.assertIn("one number", self.refused("--threads", "1,2"))

    def test_a_memory_limit_that_is_no_size(self):
        self.assertIn("'lots' is not a size", self.refused("--memory-limit", "lots"))

    def test_an_unknown_format(self):
        self.assertIn("json", self.refused("--format", "xml"))


if __name__ == "__main__":
    main()
