#!/usr/bin/python3
"""Whether the formulas of predict_ranks.py say what a network would do: replay_ranks.py results/ranks.csv --network A:2e-6,12e9

Writes each rank's messages and arithmetic as a trace, in the order of the scheme's schedule (harness/attn/ranks), and has SimGrid replay them on a
crossbar: a link in and a link out for each rank, nothing else in between. Arithmetic takes the time that the model says, without spread, so that what is
compared is the schedule: who waits for whom, what hides behind arithmetic. Needs SimGrid (scripts/setup.sh --replay).

exit codes: 0 all within --within, 1 one is not, 2 bad input, 5 no rows of one rank, 7 SimGrid is missing
"""
import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from attncsv import Refusal, render, script
from predict_ranks import counts_of, models_of, networks_of, traffic, usable

GIGA = 1e9  # a host computes so many flops a second: a trace's flops are its seconds


def arithmetic(rank, seconds):
    return f"{rank} compute {seconds * GIGA:.3f}"


def send(rank, to, size):
    return f"{rank} isend {to} 0 {size:.0f}"


def receive(rank, of, size):
    return f"{rank} irecv {of} 0 {size:.0f}"


def ring(rank, p, model, n):
    """A shard goes on to the next rank while one's own queries meet it."""
    sent = traffic(model.shape, n, p)[1] / (p - 1)
    step = arithmetic(rank, model.arithmetic(n / p, 2))
    for _ in range(p - 1):
        yield from (receive(rank, (rank - 1) % p, sent), send(rank, (rank + 1) % p, sent), step, f"{rank} waitall")
    yield step


def halo(rank, p, model, n):
    """Both neighbours at once; a window reaches no further than these."""
    messages, sent = traffic(model.shape, n, p)
    neighbours = [other for other in (rank - 1, rank + 1) if 0 <= other < p]
    for other in neighbours:
        yield receive(rank, other, sent / messages)
    for other in neighbours:
        yield send(rank, other, sent / messages)
    yield f"{rank} waitall"
    yield arithmetic(rank, model.own(n, p))


def ulysses(rank, p, model, n):
    """Q, K and V to the ranks of their heads, the output back to those of its tokens: to each other rank in turn."""
    s, rows = model.shape, n / p / p
    out = s["batch"] * 4 * s["heads"] * s["value_dim"] * rows
    of_q, of_k, of_v = (s["batch"] * s["e"] * s[heads] * s[dim] * rows
                        for heads, dim in (("heads", "head_dim"), ("kv_heads", "head_dim"), ("kv_heads", "value_dim")))

    def exchange(sizes):
        for step in range(1, p):
            yield from (receive(rank, (rank + step) % p, size) for size in sizes)
        for step in range(1, p):
            yield from (send(rank, (rank + step) % p, size) for size in sizes)
        yield f"{rank} waitall"

    yield from exchange((of_q, of_k, of_v))
    yield arithmetic(rank, model.own(n, p))
    yield from exchange((out,))


def sum_over_all(rank, p, model, n):
    """One's own tokens, then their sums in pairs at growing distance. Of the first ranks some speak for two where p is no power of two."""
    messages, sent = traffic(model.shape, n, p)
    size = sent / messages
    whole = 2 ** (p.bit_length() - 1)
    pairs = p - whole
    yield arithmetic(rank, model.own(n, p))
    if rank < 2 * pairs and rank % 2 == 0:
        yield from (send(rank, rank + 1, size), f"{rank} waitall", receive(rank, rank + 1, size), f"{rank} waitall")
        return
    if rank < 2 * pairs:
        yield from (receive(rank, rank - 1, size), f"{rank} waitall")
    group = rank // 2 if rank < 2 * pairs else rank - pairs
    distance = 1
    while distance < whole:
        other = group ^ distance
        speaker = 2 * other + 1 if other < pairs else other + pairs
        yield from (receive(rank, speaker, size), send(rank, speaker, size), f"{rank} waitall")
        distance *= 2
    if rank < 2 * pairs:
        yield from (send(rank, rank - 1, size), f"{rank} waitall")


SCHEDULES = {"ring": ring, "halo": halo, "ulysses": ulysses, "scan": sum_over_all, "reduce": sum_over_all}


def trace(rank, p, model, n):
    """The lines of a rank: of two ranks or more."""
    return [f"{rank} init", *SCHEDULES[model.shape["scheme"]](rank, p, model, n), f"{rank} finalize"]


def platform(p, network):
    """Each rank with a link in and one out, of half the latency each."""
    alpha, beta = network
    return ('<?xml version="1.0"?>\n<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">\n<platform version="4.1">\n'
            f'  <cluster id="crossbar" prefix="rank" suffix="" radical="0-{p - 1}" speed="1Gf" bw="{1 / beta:.9g}Bps" lat="{alpha / 2:.9g}s" '
            'sharing_policy="SPLITDUPLEX"/>\n</platform>\n')


def replay(model, n, p):
    """Seconds that SimGrid says."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        names = []
        for rank in range(p):
            names.append(folder / f"rank{rank}.txt")
            names[-1].write_text("\n".join(trace(rank, p, model, n)) + "\n")
        (folder / "traces").write_text("".join(f"{name}\n" for name in names))
        (folder / "hosts").write_text("".join(f"rank{rank}\n" for rank in range(p)))
        (folder / "platform.xml").write_text(platform(p, model.network))
        done = subprocess.run(
            ["smpirun", "-np", str(p), "-hostfile", "hosts", "-platform", "platform.xml", "-replay", "traces", "-no-privatize",
             "--cfg=smpi/host-speed:1Gf", "--cfg=network/model:CM02", "--cfg=network/crosstraffic:0", "--cfg=smpi/display-timing:yes"],
            cwd=folder, capture_output=True, text=True)
    told = re.search(r"Simulat(?:ed|ion) time:? *([\d.eE+-]+)", done.stdout + done.stderr)
    if done.returncode != 0 or told is None:
        last = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise Refusal(f"SimGrid does not replay {p} ranks of {model.shape['id']}@{model.shape['scheme']}: {last}", 7)
    return float(told[1])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", nargs="+", type=Path)
    parser.add_argument("--network", action="append", default=[], metavar="NAME:ALPHA,BANDWIDTH",
                        help="seconds a message and bytes a second, such as A:2e-6,12e9; several times (default: fitted to the rows)")
    parser.add_argument("--ranks", default="2,3,8,64", help="numbers of ranks, such as 8,64,256")
    parser.add_argument("--n", type=int, help="tokens (default: the longest measured)")
    parser.add_argument("--within", type=float, default=0.01, help="how far the formula may be from the replay (default: 0.01)")
    parser.add_argument("--format", choices=("text", "md"), default="text")
    return parser.parse_args()


def main():
    args = arguments()
    counts = counts_of(args.ranks)
    if min(counts) < 2:
        raise Refusal(f"--ranks {args.ranks}: a replay is of 2 ranks or more")
    if shutil.which("smpirun") is None:
        raise Refusal("there is no smpirun here: scripts/setup.sh --replay installs SimGrid", 7)
    rows, single = usable(args.csv)
    networks, _ = networks_of(args.network, rows)
    n = args.n or int(single["n"].max())
    records, far = [], False
    for network, figures in networks.items():
        for name, model in models_of(single, figures).items():
            model.arithmetic.spread = 0
            for p in counts:
                if model.shape["scheme"] == "ulysses" and p > model.shape["kv_heads"]:
                    continue
                formula, simulated = model.seconds(n, p), replay(model, n, p)
                off = formula / simulated - 1
                far = far or abs(off) > args.within
                records.append({"network": network, "variant": name, "ranks": p, "N": n, "formula s": f"{formula:.6g}", "replay s": f"{simulated:.6g}",
                                "formula beside replay": f"{100 * off:+.3f} %"})
    print(render(records, list(records[0]), args.format))
    return 1 if far else 0


if __name__ == "__main__":
    script(main)
