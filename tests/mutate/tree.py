"""A copy of the tree in which faults are put, and the tests that are run there."""
import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# As deep as the tree itself, so that ccache knows the commands.
COPY = Path(os.environ.get("ATTN_MUTATE_COPY", ROOT / "build/mutate"))
BUILD = COPY / "build/release"
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable  # whose NumPy and pandas setup.sh installs
PROGRAMS = ("attn_sweep_app", "attn_apply_app", "faulty")  # that the scripts of tests/cli ask
ENVIRONMENT = {"ATTN_SWEEP": f"{BUILD}/bin/attn_sweep", "ATTN_APPLY": f"{BUILD}/bin/attn_apply", "ATTN_TRAIN": "",
               "ATTN_FAULTY": f"{BUILD}/lib/faulty.so", "ATTN_SANITIZE": "", "PYTHONDONTWRITEBYTECODE": "1"}


def run(command, seconds=None, at=COPY, **more):
    environment = dict(os.environ, CCACHE_BASEDIR=str(ROOT.parent), CCACHE_NOHASHDIR="1", **more)
    try:
        done = subprocess.run(command, cwd=at, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds)
    except subprocess.TimeoutExpired:
        return None, "took too long"
    return done.returncode, done.stdout


def copy_tree():
    """The tracked files, with their times, so that what did not change is not built again. What differs in the copy, from a fault that a
    stopped run left there too, is written anew: its object is of the other text."""
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        source, copy = ROOT / name, COPY / name
        if not source.is_file():
            continue
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
        elif not filecmp.cmp(source, copy, shallow=False):
            shutil.copyfile(source, copy)
    if not (BUILD / "build.ninja").exists():
        # Without precompiled headers ccache knows every object that has not changed.
        code, said = run(["cmake", "--preset", "release", "-DCMAKE_LINK_DEPENDS_NO_SHARED=ON", "-DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON"])
        if code != 0:
            sys.exit(said[-4000:])


def build(*targets):
    return run(["ninja", "-C", str(BUILD), *targets]) if targets else (0, "")


class Test(NamedTuple):
    """What is built, and what is run then."""
    name: str
    targets: tuple
    command: tuple
    at: Path = COPY
    environment: tuple = ()

    def run(self, seconds=None):
        return run(list(self.command), seconds, self.at, **dict(self.environment))


def cases(program, *arguments, **environment):
    """Cases of a test program, by Catch2's arguments."""
    name = " ".join([program, *(environment.values() or arguments)])
    return Test(name, (program,), (f"{BUILD}/bin/{program}", *arguments), environment=tuple(environment.items()))


def named(case):
    """Catch2's pattern of one case."""
    return "".join("\\" + c if c in "\\,[" else c for c in case)


def script(path, *names):
    """Classes or cases of a script below tests/; all without names."""
    file = COPY / "tests" / path
    targets = PROGRAMS if file.parent.name == "cli" else ()
    return Test(" ".join([path, *names]), targets, (PYTHON, file.name, *names), file.parent, tuple(ENVIRONMENT.items()))
