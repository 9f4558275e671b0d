"""Runs attn_sweep for a question: what advise.py --measure asks."""
import hashlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

from attnscript import Refusal

ROOT = Path(__file__).resolve().parents[1]
PASSED_ON = ("head_dim", "heads", "batch", "threads", "input", "shape", "step")


def racers(sweep):
    """full and every variant of the tree that aims at softmax attention as it stands, untrained."""
    try:
        told = json.loads(subprocess.run([sweep, "--list=json"], capture_output=True, text=True, timeout=60).stdout)
        ids = [entry["id"] for entry in told if entry["family"] != "baseline" and entry["exactness"] in ("pattern", "approximation")]
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        raise Refusal(f"--measure: '{sweep} --list=json' did not answer ({type(error).__name__})") from None
    return ",".join(["full", *ids])


def arguments_of(args, variants):
    """attn_sweep's, but for the output."""
    words = ["--variants", variants, "--n", str(args.n)]
    if args.kind == "forward":
        words += ["--causal", "yes" if args.causal else "no"]
    else:
        words += ["--pass", args.kind]
    for axis in PASSED_ON:
        value = getattr(args, axis)
        if value is not None:
            words += ["--" + axis.replace("_", "-"), str(value)]
    if args.shape is not None and "--causal" in words:  # the shape says
        at = words.index("--causal")
        del words[at:at + 2]
    if args.skill is not None:
        words += ["--iso-skill", f"{args.skill:g}"]
    if args.budget is not None:
        words += ["--budget", f"{args.budget:g}"]
    return words


def measure(args, sweep):
    """The CSV of what is asked. The same question again goes on with its file, and measures what that lacks."""
    if sweep is None:
        raise Refusal("--measure: no attn_sweep was found: scripts/build.sh builds it, --attn-sweep names it")
    words = arguments_of(args, args.variants or racers(sweep))
    name = hashlib.sha256(shlex.join(w for w in words).encode()).hexdigest()[:8]
    out = Path(args.out) if args.out else ROOT / "results" / f"advise-{name}.csv"
    out.parent.mkdir(parents=True, exist_ok=True)
    print(f"advise.py: {shlex.join([sweep, *words, '--out', str(out)])}", file=sys.stderr, flush=True)
    again = ["--resume"] if out.exists() and out.stat().st_size else []
    code = subprocess.run([sweep, *words, "--out", str(out), *again], stdout=subprocess.DEVNULL).returncode
    if code == 130:
        raise Refusal("interrupted: the same command goes on", 130)
    if code == 2 or not out.exists():
        raise Refusal("--measure: attn_sweep refused this, see above")
    return str(out)
