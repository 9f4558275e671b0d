#!/usr/bin/env python3
"""Which part of building and testing has grown: times.py BUILD [--write].

Parts are tests, by the last ctest run, and folders of objects, by ninja's log. Each is held against tests/golden/times.json, which
--write makes of this run; a machine's pace is the median over the parts, so that another machine, or a loaded one, is no growth.
Prints the longest parts and those that grew by half and by 15 s at least; exit 1 if one did."""
import json
import re
import statistics
import sys
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[1] / "golden/times.json"
LEAST_S, GROWN, GROWN_S = 1.0, 1.5, 15.0


def test_times(log):
    names = re.findall(r"^\d+/\d+ Test: (\S+)$", log, re.M)
    seconds = re.findall(r"^Test time = +([\d.]+) sec$", log, re.M)
    return {f"test {name}": float(s) for name, s in zip(names, seconds)}


def build_times(log):
    """Seconds that compiling took, summed over what was built last, by target."""
    last, parts = {}, {}
    for line in log.splitlines():
        fields = line.split("\t")
        if len(fields) >= 4 and fields[3].endswith(".o"):
            last[fields[3]] = (int(fields[1]) - int(fields[0])) / 1000
    for path, seconds in last.items():
        target = re.search(r"CMakeFiles/(\w+)\.dir", path)
        name = f"build {target[1] if target else 'other'}"
        parts[name] = parts.get(name, 0) + seconds
    return parts


def grown(now, then):
    """[(part, seconds now, seconds expected)] of the parts that grew, by how much; new ones are expected to take nothing."""
    ratios = [now[part] / then[part] for part in now if part in then and min(now[part], then[part]) >= LEAST_S]
    pace = statistics.median(ratios) if ratios else 1.0
    found = [(part, seconds, pace * then.get(part, 0)) for part, seconds in now.items()
             if seconds > GROWN * pace * then.get(part, 0) and seconds - pace * then.get(part, 0) > GROWN_S]
    return sorted(found, key=lambda f: f[2] - f[1])


def main():
    build = Path(sys.argv[1])
    log, ninja = build / "Testing/Temporary/LastTest.log", build / ".ninja_log"
    now = {**(test_times(log.read_text(errors="replace")) if log.exists() else {}), **(build_times(ninja.read_text()) if ninja.exists() else {})}
    if "--write" in sys.argv[2:]:
        GOLDEN.write_text(json.dumps({part: round(now[part], 1) for part in sorted(now)}, indent=1) + "\n")
        return 0
    if not GOLDEN.exists():
        print(f"no times to compare with: {sys.argv[0]} {build} --write makes them of this run")
        return 0
    longest = sorted(now.items(), key=lambda item: -item[1])[:8]
    print("longest: " + ", ".join(f"{part} {seconds:.0f} s" for part, seconds in longest))
    found = grown(now, json.loads(GOLDEN.read_text()))
    for part, seconds, expected in found:
        print(f"grew: {part} takes {seconds:.0f} s, {expected:.0f} s at this machine's pace")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
