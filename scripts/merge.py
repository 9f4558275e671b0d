#!/usr/bin/python3
"""One table from the shards of several nodes: merge.py shards/*.csv -o all.csv

Rows of several nodes stand in one table only where these are alike: the facts of machine, build and libraries in each shard's context
agree, the peaks of each node lie within the tolerance of the median of all, and so does the anchor cell that scripts/cluster/attn_shard
measures at the start and at the end of each block. Otherwise nothing is written, and a sentence names node and figure. Times are never
rescaled. Rows keep their order; the column `node` says who measured them.

exit codes: 0 merged, 2 bad input, 3 the nodes differ, 5 nothing to merge
"""
import argparse
import csv
import io
import itertools
import json
import os
import re
import statistics
import sys
from pathlib import Path

from attnscript import Refusal, script

TOLERANCE = "5%"
MACHINE = ("cpu", "stepping", "microcode", "packages", "cores", "processors", "numa_nodes", "caches", "usable_cores", "cpu_quota", "isas",
           "isa_used", "governor", "smt", "transparent_hugepages")
PEAKS = ("fma_gflops", "exp_gexps", "read_gbs", "triad_gbs")
CLOCKS_APART_S = 30
NODE = {"name": "node", "doc": "the machine that measured the row", "role": "fact", "holds": "text", "better": "neither"}


class Shard:
    """One CSV with what stands beside it. `facts` decide whether its rows may stand beside others."""

    def __init__(self, path):
        self.path = Path(path)
        self.name, self.torn = self.path.name, False
        self.header, self.rows = self.read_rows()
        real = self.path.resolve()  # a published shard is a link to the attempt
        stem = real.name.removesuffix(".csv")
        self.context = self.read_json(real.with_name(stem + ".context.json"), required=True)
        self.anchor = self.read_json(real.with_name(stem + ".anchor.json"), required=False)
        machine = self.context.get("machine", {})
        self.node = str(self.anchor.get("node") or machine.get("node") or machine.get("host") or self.name)
        self.facts = {f"machine.{fact}": machine.get(fact) for fact in MACHINE if fact in machine}
        for part in ("attnbench", "build", "libraries"):
            self.facts.update({f"{part}.{key}": value for key, value in self.context.get(part, {}).items()})
        self.facts["csv_schema"] = self.context.get("csv_schema")

    def read_rows(self):
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise Refusal(f"'{self.path}' cannot be read: {error.strerror}") from None
        if not data.strip():
            raise Refusal(f"'{self.path}' is empty", 5)
        self.torn = not data.endswith(b"\n")
        text = data[:data.rfind(b"\n") + 1].decode("utf-8-sig", "replace")
        try:
            records = list(csv.reader(text.splitlines(keepends=True), strict=True))
        except csv.Error as error:
            raise Refusal(f"'{self.path}' is not a CSV: {error}") from None
        if not records or "variant" not in records[0]:
            raise Refusal(f"'{self.path}' is no CSV of attn_sweep or attn_train")
        short = next((i for i, record in enumerate(records) if len(record) != len(records[0])), None)
        if short is not None:
            raise Refusal(f"'{self.path}' line {short + 1} has {len(records[short])} fields, not {len(records[0])}")
        return records[0], records[1:]

    def read_json(self, path, required):
        try:
            told = json.loads(path.read_text())
            if not isinstance(told, dict):
                raise ValueError
            return told
        except FileNotFoundError:
            if required:
                raise Refusal(f"'{path}' is missing: nobody can tell which node '{self.path}' comes from") from None
            return {}
        except (ValueError, UnicodeDecodeError):
            raise Refusal(f"'{path}' is no readable JSON") from None

    @property
    def block(self):
        """The number of its block, from a name such as shard-0017.csv; None of others."""
        found = re.fullmatch(r"shard-(\d+)\.csv", self.name)
        return int(found.group(1)) if found else None

    def keys(self):
        """What tells each row from every other."""
        columns = [c["name"] for c in self.context.get("columns", []) if c.get("role") == "key"]
        at = [self.header.index(name) for name in columns if name in self.header]
        if not at:
            raise Refusal(f"the context of '{self.path}' does not say which columns are keys: was it written by attn_sweep of this release?")
        return [tuple(row[i] for i in at) for row in self.rows]


def said(fact):
    text = json.dumps(fact) if isinstance(fact, (list, dict)) else str(fact)
    return text if len(text) < 80 else text[:77] + "..."


def signature(shard):
    return json.dumps(shard.facts, sort_keys=True)


def most(counted):
    """(value, whether it is alone at the top) of {value: count}."""
    top = max(counted.values())
    return next(value for value, count in counted.items() if count == top), list(counted.values()).count(top) == 1


def odd_facts(shards):
    """{node: sentence} of nodes whose facts differ from those that most nodes share; refuses a node that differs from itself."""
    by_node = {}
    for shard in shards:
        first = by_node.setdefault(shard.node, shard)
        if signature(first) != signature(shard):
            fact = differing(first, shard)
            raise Refusal(f"node {shard.node} is not one: '{first.name}' and '{shard.name}' differ in {fact}: {said(first.facts.get(fact))} and "
                          f"{said(shard.facts.get(fact))}", 3)
    counted = {}
    for shard in by_node.values():
        counted[signature(shard)] = counted.get(signature(shard), 0) + 1
    usual, alone = most(counted)
    reference = next(shard for shard in by_node.values() if signature(shard) == usual)
    odd = {}
    for node, shard in by_node.items():
        if signature(shard) != usual:
            fact = differing(reference, shard)
            odd[node] = (f"node {node} ('{shard.name}') differs in {fact}: {said(shard.facts.get(fact))}, node {reference.node} has "
                         f"{said(reference.facts.get(fact))}")
    return odd, alone


def differing(a, b):
    return next(fact for fact in [*a.facts, *b.facts] if a.facts.get(fact) != b.facts.get(fact))


def odd_figures(figures, tolerance, what):
    """{node: sentence} of nodes whose figure is farther than the tolerance from the median; `figures`: {what: {node: value}}."""
    odd = {}
    for name, by_node in figures.items():
        middle = statistics.median(by_node.values())
        for node, value in by_node.items():
            if middle <= 0 or abs(value / middle - 1) > tolerance:
                odd.setdefault(node, f"node {node}: {what} {name} is {value:.4g}, {100 * (value / middle - 1):+.1f} % from the median {middle:.4g} of "
                                     f"{len(by_node)} nodes")
    return odd


def peaks_of(shards):
    """{'fma_gflops (avx512, 2 threads)': {node: median over its shards}}"""
    found = {}
    for shard in shards:
        for peak in shard.context.get("peaks", []):
            for name in PEAKS:
                if isinstance(peak.get(name), (int, float)):
                    where = f"{name} ({peak.get('isa')}, {peak.get('threads')} threads)"
                    found.setdefault(where, {}).setdefault(shard.node, []).append(peak[name])
    return {where: {node: statistics.median(values) for node, values in by_node.items()} for where, by_node in found.items()}


def anchors_of(shards, tolerance):
    """({cell: {node: median}}, {node: sentence} of blocks during which it drifted)."""
    found, drifted = {}, {}
    for shard in shards:
        ends = [shard.anchor.get(end) for end in ("begin_s", "end_s")]
        if not all(isinstance(end, (int, float)) and end > 0 for end in ends):
            continue
        found.setdefault(str(shard.anchor.get("cell")), {}).setdefault(shard.node, []).extend(ends)
        if abs(ends[1] / ends[0] - 1) > 2 * tolerance:  # of two single measurements
            drifted.setdefault(shard.node, f"node {shard.node}: the anchor cell went from {ends[0]:.4g} s to {ends[1]:.4g} s while '{shard.name}' was "
                                           "measured")
    return {cell: {node: statistics.median(values) for node, values in by_node.items()} for cell, by_node in found.items()}, drifted


def odd_nodes(shards, tolerance, without_anchor):
    """({node: sentence}, whether most nodes agree on one side)."""
    nodes = {shard.node for shard in shards}
    odd, alone = odd_facts(shards)
    alike = [shard for shard in shards if shard.node not in odd]
    anchors, drifted = ({}, {}) if without_anchor else anchors_of(alike, tolerance)
    if len(nodes) > 1 and not without_anchor:
        bare = next((shard for shard in alike if not shard.anchor), None)
        if bare is not None:
            raise Refusal(f"no anchor cell was measured beside '{bare.path}' (node {bare.node}): nobody tested that it is like the others; "
                          "--no-anchor goes by facts and peaks alone")
    for more in (odd_figures(peaks_of(alike), tolerance, "peak"), odd_figures(anchors, tolerance, "anchor"), drifted):
        for node, sentence in more.items():
            odd.setdefault(node, sentence)
    return odd, alone and 2 * len(odd) < len(nodes)


def check_rows(shards):
    header, first = shards[0].header, shards[0]
    seen = {}
    for shard in shards:
        if shard.header != header:
            other = next((a or b for a, b in itertools.zip_longest(shard.header, header) if a != b), "")
            raise Refusal(f"'{shard.path}' (node {shard.node}) has other columns than '{first.path}': {other}")
        for key in shard.keys():
            if key in seen:
                other = seen[key]
                where = f"'{shard.path}' twice" if other is shard else (f"'{other.path}' (node {other.node}) and '{shard.path}' "
                                                                        f"(node {shard.node})")
                raise Refusal(f"one cell stands in {where}: {', '.join(filter(None, key))}")
            seen[key] = shard


def read_plan(path):
    """({block: cells}, build)."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise Refusal(f"'{path}' cannot be read: {error.strerror}") from None
    if not lines or not lines[0].startswith("# attnbench plan 1"):
        raise Refusal(f"'{path}' is no plan of attn_sweep --plan")
    build = next((line.removeprefix("# build ") for line in lines if line.startswith("# build ")), "")
    rows = [line.split("\t") for line in lines if line[:1].isdigit()]
    return {int(row[0]): int(row[2]) for row in rows}, build


def check_plan(path, shards, partial):
    blocks, build = read_plan(path)
    there = {shard.block: shard for shard in shards}
    for shard in shards:
        commit = shard.context.get("attnbench", {}).get("commit", "")
        if build and not build.endswith("commit " + commit):
            raise Refusal(f"'{shard.path}' (node {shard.node}) is of commit {commit}, the plan '{path}' of {build}")
        if shard.block not in blocks:
            raise Refusal(f"'{shard.path}' is no block of the plan '{path}'")
        if len(shard.rows) != blocks[shard.block]:
            raise Refusal(f"'{shard.path}' (node {shard.node}) has {len(shard.rows)} rows, its block has {blocks[shard.block]} cells")
    missing = [block for block in blocks if block not in there]
    if missing and not partial:
        raise Refusal(f"{len(missing)} of {len(blocks)} blocks are missing, the first is {missing[0]}; --partial merges what is there")
    return missing


def clock_notes(shards):
    """Nodes whose clock is not that of the disk they share."""
    apart = {}
    for shard in shards:
        skew = shard.anchor.get("clock_ahead_s")
        if isinstance(skew, (int, float)) and abs(skew) > CLOCKS_APART_S:
            apart[shard.node] = max(apart.get(shard.node, 0), skew, key=abs)
    return [f"the clock of node {node} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the shared disk's: its rows' `started` is"
            for node, skew in apart.items()]


def write_whole(path, text):
    """The file appears whole or not at all."""
    part = Path(f"{path}.{os.getpid()}.part")
    try:
        with open(part, "w", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise Refusal(f"'{path}' was not written: {error.strerror}", 2) from None


def table(shards):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keeps = "node" in shards[0].header
    writer.writerow(shards[0].header + ([] if keeps else ["node"]))
    for shard in shards:
        writer.writerows(shard.rows if keeps else (row + [shard.node] for row in shard.rows))
    return out.getvalue()


def median_peak(peak, shards):
    """Each figure of this peak as the median of all shards'."""
    which = lambda p: (p.get("isa"), p.get("threads"))  # noqa: E731
    alike = [p for shard in shards for p in shard.context.get("peaks", []) if which(p) == which(peak)]
    figures = {key: [p[key] for p in alike if isinstance(p.get(key), (int, float))] for key, value in peak.items() if isinstance(value, float)}
    return {**peak, **{key: statistics.median(values) for key, values in figures.items()}}


def merged_context(shards, command):
    """The first shard's, with the nodes; peaks are the medians of theirs."""
    context = dict(shards[0].context)
    context["command_line"] = command
    context["columns"] = [c for c in context.get("columns", []) if c.get("name") != "node"] + [NODE]
    by_node = {}
    for shard in shards:
        by_node.setdefault(shard.node, []).append(shard)
    anchors, _ = anchors_of(shards, 1)
    context["nodes"] = [{"node": node, "shards": len(of), "rows": sum(len(s.rows) for s in of),
                         "anchor_s": next((values[node] for values in anchors.values() if node in values), None)} for node, of in by_node.items()]
    context["machine"] = {**context.get("machine", {}), "host": ", ".join(by_node), "node": ", ".join(by_node)}
    context["peaks"] = [median_peak(peak, shards) for peak in context.get("peaks", [])]
    return json.dumps(context, indent=1) + "\n"


def parse_share(text):
    try:
        value = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1
    if not 0 < value < 1:
        raise Refusal(f"--tolerance: '{text}' is not a share such as 5% or 0.05")
    return value


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("shard", nargs="+", help="CSVs, or folders of them, each with its context; anchors beside them")
    p.add_argument("-o", "--out", required=True, help="the table; its context and, with --quarantine, OUT.quarantined.csv are written beside it")
    p.add_argument("--tolerance", default=TOLERANCE, help=f"of peaks and anchors from the median of all nodes (default {TOLERANCE.replace('%', '%%')})")
    p.add_argument("--quarantine", nargs="?", const="", metavar="NODES", help="keep odd nodes, or these, apart instead of refusing")
    p.add_argument("--no-anchor", action="store_true", help="take facts and peaks for it: anchor cells may be missing, and say nothing")
    p.add_argument("--plan", help="of attn_sweep --plan: every block must be there")
    p.add_argument("--partial", action="store_true", help="with --plan: blocks may be missing")
    p.add_argument("--force", action="store_true", help="replace OUT")
    return p.parse_args()


def expanded(paths):
    files = []
    for path in paths:
        here = sorted(Path(path).glob("*.csv")) if Path(path).is_dir() else [Path(path)]
        if not here:
            raise Refusal(f"the folder '{path}' has no CSV", 5)
        files += here
    return files


def main():
    args = arguments()
    tolerance = parse_share(args.tolerance)
    if Path(args.out).exists() and not args.force:
        raise Refusal(f"'{args.out}' exists; --force replaces it")
    shards = [Shard(path) for path in expanded(args.shard)]
    named = [node for node in (args.quarantine or "").split(",") if node]
    unknown = [node for node in named if node not in {shard.node for shard in shards}]
    if unknown:
        raise Refusal(f"--quarantine: there is no node {unknown[0]}; nodes are {', '.join(sorted({s.node for s in shards}))}")
    apart = [shard for shard in shards if shard.node in named]
    reasons = {node: f"node {node}: as asked" for node in named}
    kept = [shard for shard in shards if shard.node not in named]
    for shard in [s for s in kept if s.torn]:
        sentence = f"'{shard.path}' (node {shard.node}) ends in a torn line: its sweep was interrupted"
        if args.quarantine is None:
            raise Refusal(sentence + "; --quarantine keeps the shard apart")
        kept.remove(shard)
        apart.append(shard)
        reasons[shard.path] = sentence
    if kept:
        check_rows(kept)
    odd, alone = odd_nodes(kept, tolerance, args.no_anchor) if kept else ({}, True)
    if odd and (args.quarantine is None or not alone):
        more = f"; {len(odd) - 1} more nodes are odd" if len(odd) > 1 else ""
        how = ("--quarantine keeps odd nodes apart" if alone else "most nodes do not agree, so none is odd: --quarantine NODES keeps those apart")
        raise Refusal(f"{next(iter(odd.values()))}{more}; {how}", 3)
    reasons.update(odd)
    apart += [shard for shard in kept if shard.node in odd]
    kept = [shard for shard in kept if shard.node not in odd]
    if not kept:
        raise Refusal("no shard is left to merge", 5)
    missing = check_plan(args.plan, kept, args.partial or bool(apart)) if args.plan else []
    command = "merge.py " + " ".join(sys.argv[1:])
    stem = args.out.removesuffix(".csv")
    if apart:
        alike = len({tuple(shard.header) for shard in apart}) == 1
        write_whole(stem + ".quarantined.csv", table(apart) if alike else "".join(table([shard]) for shard in apart))
    write_whole(stem + ".context.json", merged_context(kept, command))
    write_whole(args.out, table(kept))
    for sentence in reasons.values():
        print(f"apart: {sentence}")
    for note in clock_notes(kept):
        print(f"{note} not comparable with others'.")
    if missing:
        print(f"missing: {len(missing)} blocks, the first is {missing[0]}.")
    nodes = {shard.node for shard in kept}
    print(f"{sum(len(shard.rows) for shard in kept)} rows of {len(kept)} shards and {len(nodes)} node{'s' * (len(nodes) != 1)} in {args.out}"
          + (f"; {sum(len(shard.rows) for shard in apart)} rows apart in {stem}.quarantined.csv" if apart else ""))
    return 0


if __name__ == "__main__":
    script(main)
