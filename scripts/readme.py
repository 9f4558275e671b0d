#!/usr/bin/python3
"""README.md's tables and pictures, made from results/reference: readme.py [--check]; or CONTRIBUTING.md's table of conformance, from what
attn_sweep --verify --variants all --format md prints: readme.py --conformance FILE

A table stands between two marks of README.md and comes from one CSV; where the CSV is missing the section is empty. Pictures are
results/reference/pictures/*.svg, each for light and for dark ground.

exit codes: 0 written, or fresh; 1 with --check: what is written is not what the CSVs give; 2 bad input
"""
import argparse
import re
import sys
from pathlib import Path

from attncsv import Refusal, decodes, digits, group_title, id_of, in_group, labels, main_group, measured, read, script, seconds, size
from families import colours
from readmepictures import pictures

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = "full"
MOST_LENGTHS = 3
# Lines of the table of decode, whose file has all variants that decode.
SERVED = ("full", "local", "blockwise", "quest", "compressed", "linear", "performer", "retention", "mamba2", "gated_delta", "kda", "rwkv7", "gru")


def thinned(values, most=MOST_LENGTHS):
    """At most so many of a list, evenly spaced, the last one among them."""
    step = -(-len(values) // most)
    return values[::-1][::step][::-1]


def times(value):
    return digits(value) + "x"


def time(row):
    return seconds(row["time_median_s"]) + (" ~" if row["unstable"] == 1 else "")


def over(row, other):
    return times(row["time_median_s"] / other["time_median_s"]) if other is not None else ""


def roof(row):
    return f"{row['roof_fraction']:.2f} {row['roof_binds']}" if row["roof_fraction"] == row["roof_fraction"] else ""


def skill(row):
    return f"{row['fid_skill']:.3f}" if row["fid_skill"] == row["fid_skill"] else "-"


class Table:
    """Lines of one problem in several lengths. `extra` are axes that lines differ in besides the variant."""

    def __init__(self, rows, extra=(), baselines=True, most=MOST_LENGTHS):
        short = labels(rows)
        ok = measured(rows)
        if not baselines:
            ok = ok[ok["family"] != "baseline"]
        alike = ok.drop(columns=[axis for axis in extra if axis in ok])
        self.axes = main_group(alike)
        self.rows = in_group(ok, self.axes)
        self.extra = [axis for axis in extra if axis in self.rows and self.rows[axis].nunique() > 1]
        self.lengths = thinned(sorted(self.rows["n"].unique()), most)
        self.cells = {(r["name"], *(r[axis] for axis in self.extra), r["n"]): r for r in self.rows.to_dict("records")}
        self.short = short
        self.keys = list(dict.fromkeys(key[:-1] for key in self.cells))
        family = dict(zip(self.rows["name"], self.rows["family"]))
        order = list(colours(set(family.values())))
        self.keys.sort(key=lambda key: (order.index(family[key[0]]), id_of(key[0]) != REFERENCE, id_of(key[0]), "@" in key[0].partition(":")[0]))

    def at(self, key, n):
        return self.cells.get((*key, n))

    def markdown(self, columns, cell=time, of="N"):
        """`columns`: head and what the cell of a line's longest length says under it."""
        heads = ["variant", *self.extra, *(f"{of}={n}" for n in self.lengths), *(head for head, _ in columns)]
        lines = ["| " + " | ".join(heads) + " |", "|---" * (1 + len(self.extra)) + "|" + "---:|" * (len(heads) - 1 - len(self.extra))]
        for key in self.keys:
            there = [self.at(key, n) for n in self.lengths]
            last = next((row for row in reversed(there) if row is not None), None)
            fields = [self.short[key[0]], *map(str, key[1:]), *("" if row is None else cell(row) for row in there),
                      *("" if last is None else told(key, last) for _, told in columns)]
            lines.append("| " + " | ".join(field.replace("|", "\\|") for field in fields) + " |")
        return "\n".join(lines) + "\n"


def problem(run, table, apart=()):
    """The sentence above a table: file, machine, and what its cells share: all but these axes and the table's own."""
    host, first = run.context.get("machine", {}), table.rows.iloc[0]
    heads = f"{first['heads']:g} heads of {first['head_dim']:g}"
    if first["kv_heads"] != first["heads"]:
        heads = f"{first['heads']:g} query and {first['kv_heads']:g} kv heads of {first['head_dim']:g}"
    shared = [f"batch {first['batch']:g}", heads]
    shared += [f"{axis} {first[axis]}" for axis in ("dtype", "kv_dtype", "cache")
               if axis in table.rows and axis not in (*table.extra, *apart) and first[axis] not in ("f32", "hot")]
    shared += [group_title({axis: value for axis, value in table.axes.items() if axis not in (*table.extra, *apart, "head_dim", "pass")}, table.rows)]
    where = f"`results/reference/{Path(run.path).name}`"
    return f"From {where}: {host.get('usable_cores', '?')} cores of {host.get('cpu', 'an unknown machine')}, {first['isa']}; {', '.join(shared)}.\n\n"


def prefill(run):
    table = Table(run.rows[~decodes(run.rows)])
    full = next((key for key in table.keys if table.short[key[0]] == REFERENCE), None)
    return problem(run, table) + table.markdown([
        ("vs full", lambda key, row: over(row, table.at(full, row["n"]) if full else None)),
        ("of roof", lambda key, row: roof(row)),
        ("memory", lambda key, row: size(row["memory_bytes"])),
        ("error", lambda key, row: f"{row['err_relative']:.0e}"),
        ("skill", lambda key, row: skill(row))])


def decode(run):
    rows = run.rows[decodes(run.rows) & run.rows["name"].map(id_of).isin(SERVED)]
    compared = rows.groupby(["n", "heads", "head_dim"])["name"].transform("nunique") > 2  # one or two alone are another question
    table = Table(rows[compared], extra=("kv_dtype",), most=4)
    first = next((key for key in table.keys if table.short[key[0]] == REFERENCE), None)
    return problem(run, table) + table.markdown([
        ("vs full", lambda key, row: over(row, table.at(first, row["n"]) if first else None)),
        ("of roof", lambda key, row: roof(row)),
        ("state", lambda key, row: size(row["state_bytes"]))],
        cell=lambda row: seconds(row["token_s"]) + (" ~" if row["unstable"] == 1 else ""), of="context ")


def beside(run, line_of, column_of, cell, further=()):
    """A table with a line for each problem and a column for each way to compute it, at the longest N of the line; empty where nothing was
    measured. `line_of` and `column_of` say where a row stands (None: nowhere); `cell` what is told of it, `further` of the whole line."""
    lines, columns = {}, {}
    for row in measured(run.rows).to_dict("records"):
        line, column = line_of(row), column_of(row)
        if line is not None and column is not None:
            columns[column] = None
            lines.setdefault(line, {}).setdefault(row["n"], {})[column] = row
    head = ["variant", "N", *columns, *(name for name, _ in further)]
    told = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for line in sorted(lines, key=lambda line: (not line.startswith(REFERENCE), line)):
        lengths = lines[line]
        there = lengths[max(lengths)]
        fields = [line, f"{max(lengths):g}", *(cell(there, column) if column in there else "" for column in columns),
                  *(tell(there) for _, tell in further)]
        told.append("| " + " | ".join(fields) + " |")
    return "\n".join(told) + "\n"


def asked(row):
    """What is computed, in words: the mask, or a step and its heads."""
    if row["pass"] == "decode":
        return f", one token, {row['heads']:g}/{row['kv_heads']:g} heads of {row['head_dim']:g}"
    return ", causal" if row["causal"] else ""


def dtypes(run):
    usual = ["isa", "input"]  # the file has other instruction sets, and inputs that show what storage costs
    run.rows = run.rows[(run.rows[usual] == run.rows[usual].mode().iloc[0]).all(axis=1)]
    short = labels(run.rows)

    def line_of(row):
        width = "" if row["head_dim"] == 64 or row["pass"] == "decode" else f", D={row['head_dim']:g}"
        return short[row["name"]] + asked(row) + width

    def cell(there, kind):
        if kind == "f32":
            return time(there[kind])
        return times(there["f32"]["time_median_s"] / there[kind]["time_median_s"]) if "f32" in there else ""

    return problem(run, Table(run.rows[~decodes(run.rows)], extra=("dtype", "kv_dtype"))) + "Of f32 the time, of others how many times as fast.\n\n" + beside(
        run, line_of, lambda row: row["kv_dtype"], cell,
        [("bf16 products in", lambda there: there["bf16"]["compute"] if "bf16" in there else ""),
         ("of roof", lambda there: roof(there["bf16"]) if "bf16" in there else ""),
         ("storage error", lambda there: f"{there['bf16']['storage_error']:.0e}" if "bf16" in there else "")])


def guests(run):
    ours = {(id_of(row["name"]), row["pass"], row["causal"], row["dtype"], row["threads"], row["n"]): row
            for row in measured(run.rows).to_dict("records") if "@" not in row["name"].partition(":")[0]}

    def own(row):
        return ours.get((id_of(row["name"]), row["pass"], row["causal"], row["dtype"], row["threads"], row["n"]))

    def line_of(row):
        stem = row["name"].partition(":")[0]
        return stem + asked(row) if "@" in stem and own(row) is not None else None

    def column_of(row):
        return f"{row['dtype']}, {row['threads']:g} thread{'s' if row['threads'] > 1 else ''}"

    return problem(run, Table(run.rows, extra=("dtype", "kv_dtype")), ("causal", "threads")) + (
        "How many times as fast attnbench's own implementation is; below 1 the other one is faster.\n\n") + beside(
            run, line_of, column_of, lambda there, column: over(there[column], own(there[column])))


def hybrid(run):
    table = Table(run.rows[~decodes(run.rows)], baselines=False)
    full = next((key for key in table.keys if table.short[key[0]] == REFERENCE), None)
    return problem(run, table) + table.markdown([
        ("vs full", lambda key, row: over(row, table.at(full, row["n"]) if full else None)),
        ("of roof", lambda key, row: roof(row)),
        ("memory", lambda key, row: size(row["memory_bytes"])),
        ("skill", lambda key, row: skill(row))])


# section: its CSV, its heading and what makes it
SECTIONS = {
    "prefill": ("default-sweep.csv", "Prefill", prefill),
    "hybrid": ("modern.csv", "Layers of hybrid models", hybrid),
    "decode": ("decode.csv", "Decode: time of one token", decode),
    "dtypes": ("dtypes.csv", "Number types", dtypes),
    "guests": ("guests.csv", "Frameworks", guests),
}


def section(name, folder):
    """Heading and table; nothing where the CSV is not there."""
    file, heading, make = SECTIONS[name]
    if not (folder / file).exists():
        return ""
    return f"### {heading}\n\n{make(read(folder / file))}\n"


def between(text, name, made):
    """The text with this between the marks of that name."""
    pattern = re.compile(rf"(<!-- {name}: [^\n]* -->\n).*?(<!-- {name} end -->\n)", re.S)
    if not pattern.search(text):
        raise Refusal(f"there are no marks '<!-- {name}: ... -->' and '<!-- {name} end -->'")
    return pattern.sub(lambda marks: marks[1] + made + marks[2], text)


def filled(text, folder):
    """The text with all that stands between marks made anew."""
    for name in SECTIONS:
        text = between(text, name, section(name, folder))
    return text


def conformance(told):
    """The table itself, whatever stands around it."""
    lines = [line for line in told.splitlines() if line.startswith("|")]
    if not lines or not lines[0].startswith("| property | what holds |"):
        raise Refusal("--conformance takes what attn_sweep --verify --variants all --format md prints")
    return "\n" + "\n".join(lines) + "\n\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", action="store_true", help="write nothing; say what is not fresh")
    p.add_argument("--readme", type=Path, default=ROOT / "README.md", help="the text with the marks")
    p.add_argument("--reference", type=Path, default=ROOT / "results/reference", help="folder of the CSVs")
    p.add_argument("--conformance", type=Path, metavar="FILE", help="put its table into CONTRIBUTING.md, nothing else")
    args = p.parse_args()
    if args.conformance:
        path = ROOT / "CONTRIBUTING.md"
        path.write_text(between(path.read_text(), "conformance", conformance(args.conformance.read_text())))
        print(path)
        return 0
    made = {args.readme: filled(args.readme.read_text(), args.reference)}
    made.update(pictures(read(args.reference / SECTIONS["prefill"][0]), args.reference / "pictures"))
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if args.check:
        for path in stale:
            print(f"readme.py: {path} is not what the CSVs give; scripts/readme.py writes it", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[path])
        print(path)
    return 0


if __name__ == "__main__":
    script(main)
