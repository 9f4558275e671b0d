"""Attention variants on CPUs: applied to your arrays, measured, compared.

    import attnbench, numpy
    q, k, v = (numpy.random.randn(8, 1024, 64).astype("float32") for _ in range(3))
    out = attnbench.apply("local:left=64,right=64", q, k, v, causal=True)
    attnbench.fidelity(q, k, v, out, causal=True)["skill"]
    rows = attnbench.sweep(variants="full,linear", n="512..4096*2")

What cannot be done is a ValueError, of what has the wrong type a TypeError, each of one sentence.
"""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Mapping, Optional

import numpy

from . import _native

__all__ = ["SweepFailed", "advise", "apply", "fidelity", "parameters", "sweep", "variants"]
__version__: str = _native.version


class SweepFailed(RuntimeError):
    """attn_sweep, or a script, ended without a result; `code` is its exit code."""

    def __init__(self, sentence: str, code: int):
        super().__init__(sentence)
        self.code = code


def variants() -> list[dict[str, Any]]:
    """Every variant: id, family, title, formula, paper, exactness, causal, options (name, type, range, default, doc), implementations."""
    return json.loads(_native.variants_json())


def apply(name: str, q, k, v, *, causal: bool = False, parameters: Optional[Mapping[str, Any]] = None, seed: int = 1,
          threads: Optional[int] = None) -> numpy.ndarray:
    """The variant's output on these arrays, by the code that the sweep times.

    name        id with options, such as "performer:m=256", or "full@unfused"
    q, k, v     float32, [N,D], [H,N,D] or [B,H,N,D]; k and v may have fewer heads and another length; whatever has the array
                interface, such as a tensor of PyTorch. Row-major ones are read where they lie, others are copied.
    parameters  learned tensors and random tables by name; what is not given is drawn from `seed`, or fitted to q, k and v
    threads     of the pool; None: as many as this process may use

    Returns float32 of q's leading axes, [...,N,Dv]. Raises TypeError for arrays of another type, ValueError for shapes that do not
    go together, unknown names, and problems that the variant refuses.
    """
    arrays = [_floats(what, array) for what, array in (("q", q), ("k", k), ("v", v))]
    rank = _common_rank(arrays)
    given = {key: _floats(f"parameter '{key}'", value, ranks=None) for key, value in (parameters or {}).items()}
    out = _native.apply(str(name), *(_four_axes(array) for array in arrays), bool(causal), given, _seed(seed), _threads(threads))
    return out.reshape(out.shape[4 - rank:])


def parameters(name: str, q, k, v, *, causal: bool = False, seed: int = 1) -> dict[str, numpy.ndarray]:
    """The learned tensors and random tables that apply() with this seed draws or fits, by name: to look at, change and hand back."""
    arrays = [_floats(what, array) for what, array in (("q", q), ("k", k), ("v", v))]
    _common_rank(arrays)
    return _native.parameters(str(name), *(_four_axes(array) for array in arrays), bool(causal), _seed(seed))


def fidelity(q, k, v, out, *, causal: bool = False, threads: Optional[int] = None) -> dict[str, float]:
    """How near `out`, of q's shape but for its width, comes to softmax attention on q, k and v: skill (1 perfect, 0 no better than
    the mean of v), relative (Frobenius), row_p50, row_p95, worst_row (relative errors of rows), cosine_p50. Arrays as in apply()."""
    arrays = [_floats(what, array) for what, array in (("q", q), ("k", k), ("v", v), ("out", out))]
    _common_rank(arrays)
    return _native.fidelity(*(_four_axes(array) for array in arrays), bool(causal), _threads(threads))


def sweep(*, out: Optional[os.PathLike | str] = None, quiet: bool = False, **flags: Any):
    """Runs attn_sweep and returns its rows as a pandas.DataFrame, with progress on stderr unless `quiet`.

    Flags are those of attn_sweep --help with '_' for '-': sweep(variants="full,linear", n="512..4096*2", threads=2, causal="both").
    Lists are joined by commas, but for `plugin`, `guest` and `input`, which may be given several times; True gives a switch, False
    its opposite (pin=False: --no-pin). `out` keeps the CSV; its folder must be there. Rows that were not measured are rows too: see `status`.
    Guests in Python, such as full@numpy, run in this Python unless ATTN_PYTHON names another.
    Raises SweepFailed, with the sentence of attn_sweep, when there are no rows.
    """
    import pandas
    with tempfile.TemporaryDirectory() as folder:
        path = os.fspath(out) if out is not None else os.path.join(folder, "sweep.csv")
        command = [_program("attn_sweep"), "--out", path, *_as_arguments(flags)] + (["--quiet"] if quiet else [])
        code, said = _run(command, quiet)
        if not os.path.exists(path) or code in (2, 6):
            raise SweepFailed(said or f"attn_sweep ended with code {code}", code)
        return pandas.read_csv(path)


def advise(*csv: os.PathLike | str, n: int, **flags: Any) -> dict[str, Any]:
    """What scripts/advise.py says of these CSVs, as its --format json: which measured variant to take at sequence length `n`.

    advise("results/a.csv", n=16384, causal=True, skill=0.9)["answers"], the fastest first; none where nothing measured serves, and "not"
    says why of each. Raises SweepFailed with its sentence for files and cases that it cannot use.
    """
    script = _beside("advise.py")
    command = ["/usr/bin/python3" if sys.prefix != sys.base_prefix and os.path.exists("/usr/bin/python3") else sys.executable, script,
               *map(os.fspath, csv), "--n", str(int(n)), "--format", "json", *_as_arguments(flags)]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout.startswith("{"):
        raise SweepFailed(done.stderr.strip() or f"advise.py ended with code {done.returncode}", done.returncode)
    return json.loads(done.stdout)


# What a user hands over.

def _floats(what: str, array, ranks=(2, 3, 4)) -> numpy.ndarray:
    """The array itself where it is row-major float32, else a copy that is."""
    if hasattr(array, "detach"):  # a tensor of PyTorch, whose array interface refuses what has a gradient
        array = array.detach()
    given = numpy.asarray(array)
    if given.dtype.newbyteorder("=") != numpy.dtype("float32") or not given.dtype.isnative:
        raise TypeError(f"{what} has elements of type {given.dtype.str}, accepted: float32 in this machine's byte order")
    if ranks is not None and given.ndim not in ranks:
        raise ValueError(f"{what} has {given.ndim} axes, accepted: [N,D], [H,N,D] or [B,H,N,D]")
    if given.size == 0:
        raise ValueError(f"{what} of shape {list(given.shape)} is empty")
    return numpy.require(given, requirements=["C", "A"])


def _common_rank(arrays) -> int:
    ranks = {array.ndim for array in arrays}
    if len(ranks) != 1:
        raise ValueError(f"q, k and v have {', '.join(map(str, sorted(ranks)))} axes; accepted: as many each")
    return ranks.pop()


def _four_axes(array: numpy.ndarray) -> numpy.ndarray:
    return array.reshape((1,) * (4 - array.ndim) + array.shape)


def _threads(threads: Optional[int]) -> int:
    return len(os.sched_getaffinity(0)) if threads is None else _whole("threads", threads, 1, 4096)


def _seed(seed: int) -> int:
    return _whole("seed", seed, 0, 2**62)


def _whole(what: str, value: int, low: int, high: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what} is {value!r}, a whole number is accepted")
    value = value.__index__()
    if not low <= value <= high:
        raise ValueError(f"{what}={value} is outside {low}..{high}")
    return value


# Programs.

_SEVERAL = ("plugin", "guest", "input")


def _as_arguments(flags: Mapping[str, Any]) -> list[str]:
    arguments = []
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            arguments.append(flag)
        elif value is False:
            arguments.append("--no-" + name.replace("_", "-"))
        elif value is not None and not isinstance(value, (str, bytes, os.PathLike)) and hasattr(value, "__iter__"):
            texts = [str(one) for one in value]
            arguments += [text for one in texts for text in (flag, one)] if name in _SEVERAL else [flag, ",".join(texts)]
        elif value is not None:
            arguments += [flag, str(value)]
    return arguments


def _places():
    """Folders that may hold bin/ and the scripts: of a build, its source tree, or where it is installed."""
    yield from Path(__file__).absolute().parents
    yield from Path(__file__).resolve().parents


def _program(name: str) -> str:
    given = os.environ.get(name.upper())
    if given:
        return given
    for place in _places():
        if os.access(place / "bin" / name, os.X_OK):
            return str(place / "bin" / name)
    found = shutil.which(name)
    if not found:
        raise SweepFailed(f"{name} is neither near {Path(__file__).parent} nor in PATH; {name.upper()} may name it", 127)
    return found


def _beside(script: str) -> str:
    for place in _places():
        for folder in (place / "scripts", place / "share/attnbench/scripts"):
            if (folder / script).exists():
                return str(folder / script)
    raise SweepFailed(f"{script} is nowhere near {Path(__file__).parent}", 127)


def _run(command: list[str], quiet: bool) -> tuple[int, str]:
    """The exit code, and the last line on stderr. A terminal has it at once; elsewhere, such as in a notebook, it is passed on by line."""
    terminal = not quiet and sys.stderr is not None and sys.stderr.isatty()
    environment = {"ATTN_PYTHON": sys.executable or "python3", **os.environ}  # guests find what is installed for this Python
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=None if terminal else subprocess.PIPE, text=True, errors="replace",
                               env=environment)
    last = ""
    try:
        with process:
            for line in process.stderr or ():
                last = line.strip() or last
                if not quiet and sys.stderr is not None:
                    sys.stderr.write(line)
        return process.returncode, last
    except BaseException:  # KeyboardInterrupt: attn_sweep keeps its finished rows
        process.terminate()
        process.wait()
        raise
