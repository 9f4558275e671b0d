#!/usr/bin/env python3
"""Checks who includes whom: check_layers.py [ROOT].

The rules are the attn_floor() lines of harness/CMakeLists.txt: a floor includes itself and its USES; the headers of a
library only where LINKS names it, and then in no public header. A variant includes what the floor `variant` may.
"""
import re
import sys
from pathlib import Path

# Headers by the library that brings them. An include that matches none is the standard library's.
LIBRARIES = {
    "TBB::tbb": ("tbb/", "oneapi/tbb"),
    "PkgConfig::hwloc": ("hwloc",),
    "PkgConfig::hwy": ("hwy/", "immintrin.h", "xmmintrin.h", "emmintrin.h", "x86intrin.h", "arm_neon.h"),  # SIMD in any form lives in one place
    "attn_dnnl": ("dnnl", "oneapi/dnnl"),
    "Eigen3::Eigen": ("Eigen/", "unsupported/Eigen/"),
    "benchmark::benchmark": ("benchmark/",),
    "fmt::fmt": ("fmt/",),
    "nlohmann_json::nlohmann_json": ("nlohmann/",),
    "tomlplusplus::tomlplusplus": ("toml++/",),
    "CLI11::CLI11": ("CLI/",),
    "MPI::MPI_CXX": ("mpi.h",),
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)')


def read_calls(cmake_file, function):
    """{name: {"": [...], "USES": [...], "LINKS": [...], "SOURCES": [...]}} of every function(name ...) in the file."""
    text = re.sub(r"#.*", "", cmake_file.read_text()) if cmake_file.exists() else ""
    calls = {}
    for body in re.findall(rf"^\s*{function}\(([^)]*)\)", text, re.M):
        name, *words = body.split()
        lists = {"": [], "USES": [], "LINKS": [], "SOURCES": []}
        key = ""
        for word in words:
            if word in lists:
                key = word
            else:
                lists[key].append(word)
        calls[name] = lists
    return calls


class Place:
    """A file's rights: the floors and libraries it may include."""

    def __init__(self, what, floors, links, public=False, beside=()):
        self.what, self.floors, self.links, self.public, self.beside = what, set(floors), set(links), public, set(beside)


def is_private(header):
    """Highway's *-inl.hpp are compiled once per target by their floor and neither installed nor included elsewhere."""
    return header.endswith("-inl.hpp")


def complaint(place, quote, name):
    """Why this place may not include this name, or None."""
    if name.startswith("attn/"):
        floor = name.split("/")[1]
        if floor not in place.floors:
            return f"{place.what} may include attn/{{{','.join(sorted(place.floors))}}}, not {name}"
        if is_private(name) and place.what != f"floor {floor}":
            return f"{name} is private to floor {floor}"
        return None
    for library, prefixes in LIBRARIES.items():
        if name.startswith(prefixes):
            if library not in place.links:
                return f"{place.what} may not include {name}: {library} is not in its LINKS"
            if place.public:
                return f"a public header of {place.what} may not include {name}: its users need not have {library}"
            return None
    if quote == '"' and name not in place.beside:
        return f'{place.what} may include "attn/<floor>/..." only, not "{name}"'
    return None


def programs_with(file, apps):
    """The programs that a file of harness/apps is part of: by name or SOURCES, a header by who includes it."""
    sources = {name: {file.parent / part for part in [f"{name}.cpp", *lists["SOURCES"]]} for name, lists in apps.items()}
    if file.suffix == ".cpp":
        return [name for name, parts in sources.items() if file in parts]
    line = f'#include "{file.name}"'
    return [name for name, parts in sources.items() if any(part.exists() and line in part.read_text() for part in parts)]


def places(root):
    """(file, Place) for everything checked."""
    floors = read_calls(root / "harness/CMakeLists.txt", "attn_floor")
    apps = read_calls(root / "harness/apps/CMakeLists.txt", "attn_app")

    def closure(names):
        reached = set()
        todo = list(names)
        while todo:
            floor = todo.pop()
            if floor in floors and floor not in reached:
                reached.add(floor)
                todo += floors[floor]["USES"]
        return reached

    for file in sorted((root / "harness/attn").rglob("*.[ch]pp")):
        floor = file.relative_to(root / "harness/attn").parts[0]
        if floor not in floors:
            yield file, None
            continue
        public = file.suffix == ".hpp" and not is_private(file.name)
        yield file, Place(f"floor {floor}", [floor, *floors[floor]["USES"]], floors[floor]["LINKS"], public)
    folder = root / "harness/apps"
    headers = {file.name for file in folder.glob("*.hpp")}
    for file in sorted(folder.glob("*.[ch]pp")):
        # A file of several programs may include what all of them may.
        linked = [apps[name][""] for name in programs_with(file, apps)]
        floors_of_each = [closure(name.removeprefix("attn_") for name in names) for names in linked]
        yield file, Place(f"app {file.stem}", set.intersection(*floors_of_each) if linked else [],
                          set.intersection(*map(set, linked)) if linked else [], beside=headers)
    for file in sorted((root / "variants").rglob("*.cpp")):
        yield file, Place("a variant", ["variant", *floors.get("variant", {"USES": []})["USES"]], [])


def check(root):
    """One sentence for each wrong include, as file:line: sentence."""
    wrong = []
    for file, place in places(root):
        shown = file.relative_to(root)
        if place is None:
            wrong.append(f"{shown}:1: harness/CMakeLists.txt has no attn_floor() for this folder")
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            include = INCLUDE.match(line)
            why = include and complaint(place, *include.groups())
            if why:
                wrong.append(f"{shown}:{number}: {why}")
    return wrong


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    if not (root / "harness/CMakeLists.txt").exists():
        sys.exit(f"check_layers.py: {root} has no harness/CMakeLists.txt")
    wrong = check(root)
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
