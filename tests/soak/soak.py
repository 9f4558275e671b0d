#!/usr/bin/env python3
"""Sweeps of random cells under random faults, for some minutes: soak.py [--minutes M] [--seed S] (ATTN_SWEEP, ATTN_FAULTY).

Each round draws variants, shapes, number types, passes, inputs, a plugin that fails or a guest, and one fault from outside: a signal to
the sweep or a worker, a file that may not grow, a limit of memory, or none. Whatever happens: rows on disk are whole and stand once, a
resumed sweep keeps them and adds the others, exit codes are documented ones, and no process of the sweep is left. One sweep of many
cells runs besides, whose descriptors and memory do not grow. A round that fails prints its seed and command, and the soak ends with 1."""
import argparse
import csv
import os
import random
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SWEEP, FAULTY = os.environ["ATTN_SWEEP"], os.environ["ATTN_FAULTY"]
GUEST = f"{sys.executable} {ROOT / 'scripts/guests/numpy_reference.py'}"
QUICK = ["--samples", "2", "--rounds", "1", "--sample-time", "0.001", "--machine-root", "/none", "--fidelity", "none", "-q"]
VARIANTS = ["full", "local:left=8", "linear", "performer:m=16", "rfa:m=16", "retention", "gated_delta", "bigbird:block=16", "linformer:k=8",
            "reformer:chunk=16", "nystrom:landmarks=8", "additive:size=8", "aft:form=simple", "fnet", "gru", "copy_v", "mean_v", "moba:block=16"]
HOW = ["none", "crash", "wrong", "raise", "leave", "fork", "deaf", "hang", "spin"]
CODES = {0, 1, 2, 5, 6, 130, -signal.SIGKILL}
MARK = "ATTN_SOAK_MARK"


class Failed(Exception):
    pass


def marked(mark):
    """Living processes that carry a mark in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if f"{MARK}={mark}\0".encode() in (folder / "environ").read_bytes() and (folder / "stat").read_text().split(") ")[1][0] != "Z":
                    found.append(int(folder.name))
            except OSError:
                pass
    return found


def whole_rows(path):
    if not path.exists():
        return []
    text = path.read_text()
    with_end = text[:text.rfind("\n") + 1]  # what a killed sweep was writing is no row, and is cut off when it is resumed
    rows = list(csv.DictReader(with_end.splitlines()))
    keys = [tuple(row[k] for k in ("variant", "implementation", "options", "q_len", "heads", "dtype", "pass", "input", "causal")) for row in rows]
    if any(None in row or None in row.values() for row in rows):
        raise Failed("a row is torn")
    if len(keys) != len(set(keys)):
        raise Failed("a row stands twice")
    return rows


def drawn(dice):
    """(arguments, cells) of a sweep."""
    variants = dice.sample(VARIANTS, dice.randint(1, 4))
    lengths = sorted(dice.sample([1, 2, 17, 64, 100, 255, 256], dice.randint(1, 2)))
    arguments = ["--heads", str(dice.choice([1, 2, 3])), "--head-dim", str(dice.choice([8, 16, 33])), "--threads", str(dice.choice([1, 2]))]
    arguments += ["--dtype", dice.choice(["f32", "f32", "bf16", "f16"]), "--causal", dice.choice(["no", "yes"])]
    arguments += dice.choice([[], [], ["--pass", "forward_backward"], ["--pass", "decode"]])
    arguments += ["--input", dice.choice(["iid:1", "iid:4", "local:0.9"]), "--seed", str(dice.randint(1, 9)), "--timeout", "4"]
    if dice.random() < 0.4:
        variants.append("faulty:how=" + dice.choice(HOW))
        arguments += ["--plugin", FAULTY]
    if dice.random() < 0.2 and Path(GUEST.split()[1]).exists():
        variants.append("full@numpy")
        arguments += ["--guest", GUEST]
    dice.shuffle(variants)
    return ["--variants", ",".join(variants), "--n", ",".join(map(str, lengths)), *arguments], len(variants) * len(lengths)


def strike(process, mark, number, after_s, at_worker):
    time.sleep(after_s)
    victims = [pid for pid in marked(mark) if pid != process.pid] if at_worker else [process.pid]
    for pid in victims[:1]:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def one_round(seed, folder):
    dice = random.Random(seed)
    arguments, cells = drawn(dice)
    out, mark = folder / f"{seed}.csv", f"{os.getpid()}-{seed}"
    fault = dice.choice(["none", "none", "interrupt", "terminate", "kill", "worker", "file", "memory"])
    command = [SWEEP, *QUICK, *arguments, "--out", str(out), *(["--memory-limit", "300M"] if fault == "memory" else [])]
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))) if fault == "file" else None
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                               env={**os.environ, MARK: mark}, preexec_fn=limit)
    number = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM, "kill": signal.SIGKILL, "worker": signal.SIGKILL}.get(fault)
    if number:
        threading.Thread(target=strike, args=(process, mark, number, dice.uniform(0.3, 4), fault == "worker"), daemon=True).start()
    try:
        try:
            said = process.communicate(timeout=200)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            raise Failed("did not end within 200 s") from None
        if process.returncode not in CODES:
            raise Failed(f"exit {process.returncode}: {said[-500:]}")
        end = time.monotonic() + 10
        while (left := marked(mark)) and time.monotonic() < end:  # workers of a killed sweep see their pipe close
            time.sleep(0.1)
        if left:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise Failed(f"{len(left)} processes are left")
        before = whole_rows(out)
        if process.returncode in (0, 1) and len(before) != cells:
            raise Failed(f"{len(before)} rows of {cells} cells")
        again = subprocess.run([SWEEP, *QUICK, *arguments, "--out", str(out), "--resume"], capture_output=True, text=True, timeout=300)
        after = whole_rows(out)
        if after[:len(before)] != before:
            raise Failed("a row was lost or changed when the sweep was resumed")
        if process.returncode != 2 and (len(after) != cells or again.returncode not in (0, 1, 5)):
            raise Failed(f"resumed: exit {again.returncode}, {len(after)} rows of {cells} cells: {again.stderr[-500:]}")
    except Failed as failure:
        raise Failed(f"seed {seed}, fault '{fault}': {failure}\n  {shlex.join(command)}") from None
    return fault, len(after)


class Long:
    """A sweep of many cells, watched: after its first cells, neither its descriptors nor its memory grow."""

    def __init__(self, folder):
        command = [SWEEP, *QUICK, "--variants", "copy_v,mean_v,faulty:how=crash,full", "--plugin", FAULTY, "--n", "1..64+1", "--seed", "1..40",
                   "--threads", "1", "--heads", "1", "--out", str(folder / "long.csv")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        self.seen = []

    def look(self):
        proc = Path(f"/proc/{self.process.pid}")
        try:
            resident = int((proc / "statm").read_text().split()[1]) * resource.getpagesize()
            self.seen.append((len(list((proc / "fd").iterdir())), resident))
        except OSError:
            pass

    def judge(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        later = self.seen[len(self.seen) // 4:]
        if len(later) < 4:
            raise Failed("the long sweep was not watched for long enough")
        half = len(later) // 2
        for what, index, slack in (("descriptors", 0, 2), ("bytes resident", 1, 8 << 20)):
            first, last = max(s[index] for s in later[:half]), max(s[index] for s in later[half:])
            if last > first + slack:
                raise Failed(f"the long sweep grew from {first} to {last} {what}")
        return f"{len(self.seen)} looks at the long sweep: {later[0][0]}..{later[-1][0]} descriptors, {later[0][1] >> 20}..{later[-1][1] >> 20} MiB"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=3)
    arguments.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000, help="of the first round; the next ones follow")
    given = arguments.parse_args()
    print(f"first seed {given.seed}", flush=True)
    end, seed, faults, rows = time.monotonic() + 60 * given.minutes, given.seed, {}, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        watched = Long(folder)
        try:
            while time.monotonic() < end:
                watched.look()
                fault, count = one_round(seed, folder)
                faults[fault], rows, seed = faults.get(fault, 0) + 1, rows + count, seed + 1
            said = watched.judge()
        except Failed as failure:
            print(failure)
            return 1
        finally:
            watched.process.kill()
            watched.process.wait()
    print(f"{seed - given.seed} rounds, {rows} rows; faults: {', '.join(f'{k} {v}' for k, v in sorted(faults.items()))}\n{said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
