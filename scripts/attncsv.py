"""What the reports share: sweep and training CSVs as typed tables, their context, refusals, output formats.

A file that cannot be used is refused with one sentence and an exit code, never a traceback: 2 bad input, 3 regression,
4 ambiguous, 5 nothing measured or nothing comparable.
"""
import json
import shlex
import sys
from pathlib import Path

try:
    import numpy as np
    import pandas as pd
    import scipy  # noqa: F401 - missing here, it would be a traceback later
except ImportError as missing:
    sys.exit(f"{Path(sys.argv[0]).name}: {missing.name} is missing for {sys.executable}; "
             "scripts/setup.sh installs it for /usr/bin/python3")

import attncolumns
from attncolumns import ASKED, KEYS, NAMING, SCHEMA, TRAIN
from attnscript import Refusal, script  # noqa: F401 - of every script

PAGE = 4096  # bytes: memory smaller than a page is drawn as one, since a logarithm has no zero


class Run:
    """One CSV: its rows, its context ({} where the file is missing) and what a reader of its figures must know."""

    def __init__(self, path, rows, context, columns, notes):
        self.path, self.rows, self.context, self.columns, self.notes = path, rows, context, columns, notes

    @property
    def trains(self):
        return "task" in self.rows

    @property
    def machine(self):
        """The facts that decide whether two runs may be compared. Host names are not among them: containers change theirs."""
        machine = self.context.get("machine", {})
        return {fact: machine[fact] for fact in ("cpu", "packages", "cores", "usable_cores", "caches") if fact in machine}


def context_path(csv):
    csv = Path(csv)
    if csv.is_symlink():  # a shard that scripts/cluster published: its context lies beside the attempt
        csv = csv.resolve()
    return csv.with_name((csv.name[:-4] if csv.name.endswith(".csv") else csv.name) + ".context.json")


def read_context(csv, notes):
    path = context_path(csv)
    try:
        context = json.loads(path.read_text())
        if not isinstance(context, dict):
            raise ValueError
        return context
    except FileNotFoundError:
        notes.append(f"{path.name} is missing: nobody can tell which machine and build {Path(csv).name} comes from")
    except (ValueError, UnicodeDecodeError):
        notes.append(f"{path.name} is not readable JSON: nobody can tell which machine and build {Path(csv).name} comes from")
    return {}


def read_text_table(path):
    """The CSV as text fields; a torn last line of an interrupted sweep is left out."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise Refusal(f"'{path}' does not exist") from None
    except OSError as error:
        raise Refusal(f"'{path}' cannot be read: {error.strerror}") from None
    if not data.strip():
        raise Refusal(f"'{path}' is empty", 5)
    torn = not data.endswith(b"\n")
    if torn and b"\n" in data:
        data = data[:data.rindex(b"\n") + 1]
    try:
        from io import BytesIO
        table = pd.read_csv(BytesIO(data), dtype=str, keep_default_na=False, na_filter=False, encoding="utf-8-sig",
                            encoding_errors="replace")
    except (ValueError, pd.errors.ParserError) as error:
        raise Refusal(f"'{path}' is not a CSV: {' '.join(str(error).split())}") from None
    return table, torn


def typed(table, columns, notes):
    """Numbers where the column holds numbers. Infinities and words are not figures, so they count as not measured."""
    wrong = []
    for column in table:
        text = columns.is_text(column)
        if text or (text is None and column in ASKED and ASKED[column] is str):
            continue
        figures = pd.to_numeric(table[column], errors="coerce").replace([np.inf, -np.inf], np.nan)
        lost = (table[column] != "") & figures.isna()
        if lost.any() and text is None and not figures.notna().any():
            continue  # a text column that nobody told of
        if lost.any():
            wrong.append(f"{int(lost.sum())} of {column}")
        table[column] = figures
    if wrong:
        notes.append("fields that are no finite numbers count as not measured: " + ", ".join(wrong))
    return table


def columns_of(path, table, context, notes):
    """What the columns are; a table of schema 1 becomes one of today."""
    name = Path(path).name
    newest = pd.to_numeric(table["schema"], errors="coerce").max() if "schema" in table else np.nan
    if newest > SCHEMA:
        raise Refusal(f"'{path}' has schema {newest:g}, these scripts read schema {SCHEMA}: "
                      "use those of the attnbench that wrote it")
    columns = attncolumns.of_context(context)
    if columns is None and not newest > 1:
        table = attncolumns.modern(table, notes, name)
        columns = attncolumns.of_schema1(table)
    if columns is None:
        notes.append(f"what the columns of {name} are is not told beside it: keys are those before the status, numbers what looks like them")
        columns = attncolumns.guessed(table)
    for key, usual in columns.usual().items():
        table[key] = table[key].replace("", usual) if key in table else usual
    return table, columns


def canonical(table):
    """The variant's name with its implementation, where it is not the variant's own, and all options."""
    name = table["variant"].copy()
    if "implementation" in table:
        name += table["implementation"].map(lambda by: "" if by in ("", "native") else "@" + by)
    return name + table["options"].map(lambda options: ":" + options if options else "")


def id_of(name):
    """'full' of 'full@unfused:...'"""
    return name.partition(":")[0].partition("@")[0]


def read(path):
    """A sweep's or a training's CSV."""
    notes = []
    table, torn = read_text_table(path)
    if torn:
        notes.append(f"the last line of {Path(path).name} is torn (the sweep was interrupted) and left out")
    needed = ["variant", "task"] if "task" in table else list(ASKED)
    missing = [column for column in needed if column not in table]
    if missing:
        raise Refusal(f"'{path}' lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}: is it a CSV of attn_sweep?")
    if table.empty:
        raise Refusal(f"'{path}' has a header and no rows", 5)
    context = read_context(path, notes)
    table, columns = columns_of(path, table, context, notes)
    table = typed(table, columns, notes)
    for column in ("options", "family"):
        if column not in table:
            table[column] = ""
    table["short"] = table["name"] if "name" in table else ""
    table["name"] = canonical(table)
    table["file"] = Path(path).name
    rows = train_rows(path, table, columns) if "task" in table else sweep_rows(path, table, notes)
    if "node" in rows and rows["node"].nunique() > 1:
        notes.append(f"the rows of {Path(path).name} come from {rows['node'].nunique()} nodes ({', '.join(sorted(set(rows['node'])))}), which merge.py "
                     "found alike: ratios of cells of one block are those of one node")
    return Run(str(path), rows, context, columns, notes)


# Of one model: how it was trained, and how long it was tested.
TRIED = ("rate", "seed", "steps_budget", "test_samples")


def train_rows(path, table, columns):
    missing = [column for column in TRAIN.values() if column not in table]
    if missing:
        raise Refusal(f"'{path}' lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}: is it a CSV of attn_train?")
    for name, column in TRAIN.items():
        table[name] = table[column]
    # Models of several shapes are tasks apart; what all runs of a task share goes without saying.
    shapes = [key for key in columns.keys() if key in table and key not in (*NAMING, *TRIED)]
    for shape in [c for c in shapes if table.groupby("task")[c].nunique().max() > 1]:
        table["task"] += table[shape].map(lambda value: f", {shape} {plain(value)}")
    return one_row_a_model(table, shapes) if {"rate", "train_accuracy"} <= set(table) else table


def one_row_a_model(table, shapes):
    """Of several learning rates the one that learned best, judged on training batches and not on the test; then the mean over
    seeds, with the range of their intervals, and the verdict of most concern."""
    model = ["task", "n", "name", *shapes]
    learned = table.groupby(model + ["rate"])["train_accuracy"].transform("mean").fillna(-1)
    best = learned == learned.groupby([table[key] for key in model]).transform("max")
    table = table[best]
    table = table[table["rate"] == table.groupby(model)["rate"].transform("min")]  # rates that learned alike
    concern = {verdict: rank for rank, verdict in enumerate(["ok", "still_improving", "inconclusive"])}
    rows = []
    for _, seeds in table.groupby(model, sort=False):
        row = seeds.iloc[0].copy()
        for name in ("accuracy", "floor", "skill"):
            row[name] = seeds[name].mean()
        row["low"], row["high"] = seeds["low"].min(), seeds["high"].max()
        row["verdict"] = max(seeds["verdict"], key=lambda verdict: concern.get(verdict, len(concern)))
        rows.append(row)
    return pd.DataFrame(rows).reset_index(drop=True)


def sweep_rows(path, table, notes):
    name = Path(path).name
    bad = table[["q_len", "threads", "head_dim"]].isna().any(axis=1) | (table["q_len"] <= 0)
    if bad.any():
        notes.append(f"{int(bad.sum())} rows of {name} without q_len, threads or head_dim are left out")
        table = table[~bad]
    if table.empty:
        raise Refusal(f"no row of '{path}' says its q_len, threads and head_dim", 5)
    table = table.rename(columns={"q_len": "n"})
    table["n"] = table["n"].astype(int)
    same_length = table["kv_len"] == table["n"]
    table["kv"] = np.where(same_length, "N", table["kv_len"].map(lambda v: f"{v:g}"))

    timed = (table["status"] == "ok") & (table["time_median_s"] > 0)
    untimed = (table["status"] == "ok") & ~timed
    if untimed.any():
        notes.append(f"{int(untimed.sum())} rows of {name} say ok but have no time: they count as not measured")
    table["ok"] = timed
    # Booked bytes are exact, the resident set comes in pages and with slack: where both agree the booked ones are finer,
    # and where they do not the resident set is the truth.
    booked = table["workspace_bytes"] + table["parameter_bytes"] + (table["state_bytes"].fillna(0) if "state_bytes" in table else 0)
    trust = (table["meters_agree"] == 1) | table["peak_rss_bytes"].isna()
    table["memory_bytes"] = booked.where(trust, table["peak_rss_bytes"]).clip(lower=0)

    if "step" in table:
        table["token_s"] = (table["time_median_s"] / table["step"]).where(decodes(table))

    keys = ["name", "n"] + axes_of(table)
    twice = table.duplicated(keys, keep="last")
    if twice.any():
        notes.append(f"{int(twice.sum())} cells of {name} were measured more than once: the last counts")
        table = table[~twice]
    if "peak_fma_gflops" in table:  # of the start, or beside the cell where that was more
        spread = table.groupby([key for key in ("isa", "threads", "ranks") if key in table])["peak_fma_gflops"].agg(lambda v: v.max() / v.min()).max()
        if spread > 1.25:
            notes.append(f"the FMA peak varies {spread:.1f}-fold within {name}: other programs ran beside the sweep, or its rows "
                         "come from several machines")
    return table.reset_index(drop=True)


def decodes(rows):
    """Which rows are of steps: their N is the context."""
    return rows["pass"] == "decode" if "pass" in rows else pd.Series(False, rows.index)


def axes_of(rows):
    """What makes two cells comparable, beside the variant and its length."""
    return [axis for axis in ("kv" if key == "kv_len" else key for key in KEYS if key not in NAMING) if axis in rows]


def complete(runs):
    """Keys that some of the files have and others not: these hold the usual value, where there is one."""
    for kind in (False, True):
        alike = [run for run in runs if run.trains == kind]
        usual = {key: value if run.columns.is_text(key) else float(value)
                 for run in alike for key, value in run.columns.usual().items()}
        for run in alike:
            for key in usual.keys() - set(run.rows):
                run.rows[key] = usual[key]
    return runs


def read_all(paths, any_machine=False):
    """(sweep rows, training rows or None, runs); refuses when the sweeps come from several machines."""
    runs = complete([read(path) for path in paths])
    sweeps = [run for run in runs if not run.trains]
    if not sweeps:
        raise Refusal("none of the files is a CSV of attn_sweep")
    for run in sweeps[1:]:
        if not any_machine and sweeps[0].machine != run.machine:
            raise Refusal(f"mixed machines: '{sweeps[0].path}' and '{run.path}' {machine_difference(sweeps[0], run)}; "
                          "--any-machine takes them together nevertheless")
    rows = pd.concat([run.rows for run in sweeps], ignore_index=True)
    twice = rows.duplicated(["name", "n"] + axes_of(rows), keep="last")
    if twice.any():
        runs[-1].notes.append(f"{int(twice.sum())} cells stand in more than one file: the last file's count")
        rows = rows[~twice].reset_index(drop=True)
    trained = [run.rows for run in runs if run.trains]
    return rows, (pd.concat(trained, ignore_index=True) if trained else None), runs


def machine_difference(a, b):
    for run in (a, b):
        if not run.machine:
            return f"cannot be told apart or together, since {context_path(run.path).name} does not say the machine"
    for fact in a.machine.keys() | b.machine.keys():
        if a.machine.get(fact) != b.machine.get(fact):
            return f"differ in {fact}: {short(a.machine.get(fact))} and {short(b.machine.get(fact))}"
    return "are of one machine"


def short(fact):
    if isinstance(fact, list):
        return "/".join(size(c.get("bytes", 0)) for c in fact)
    return f"'{fact}'"


def measured(rows, paths="the files"):
    """The rows with a time; refuses when there is none."""
    ok = rows[rows["ok"]]
    if ok.empty:
        counts = ", ".join(f"{count} {status}" for status, count in rows["status"].value_counts().items())
        raise Refusal(f"no cell of {paths} was measured ({counts}); first reason: {first_reason(rows)}", 5)
    return ok


def first_reason(rows):
    reasons = [reason for reason in rows["reason"] if reason]
    return reasons[0] if reasons else "none given"


def groups(rows):
    """(axes as a dict, rows) for each combination of the axes."""
    axes = axes_of(rows)
    for values, part in rows.groupby(axes, sort=True, dropna=False):
        yield dict(zip(axes, values)), part


def main_group(rows):
    """The axes that stand for a file where none are asked for: most cells, then structured input, most threads."""
    def weight(group):
        axes, part = group
        return len(part), not axes["input"].startswith("iid"), axes["threads"], not axes["causal"]
    return max(groups(rows), key=weight)[0]


def in_group(rows, axes):
    return rows[(rows[list(axes)] == list(axes.values())).all(axis=1)]


def group_title(axes, rows):
    """Names only the axes that vary, and always those that a reader asks for first."""
    words = []
    for axis, value in axes.items():
        unusual = axis == "pass" and value != "forward"
        if axis in ("threads", "causal", "head_dim", "input") or unusual or rows[axis].nunique() > 1:
            words.append(("causal" if value else "not causal") if axis == "causal" else f"{axis} {plain(value)}")
    return ", ".join(words)


def plain(value):
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)


def labels(*tables):
    """{name: short name} of the variants of these tables: as the CSV tells it, with the options that differ from the defaults. Of
    files that do not, the id alone where it has one set of options, else with those options that differ. What no definition vouches
    for, a guest without a reference, is marked."""
    short_names, by_stem = {}, {}
    for table in tables:
        for name, short in zip(table["name"], table["short"]):
            if short:
                short_names[name] = short
    for name in sorted({name for table in tables for name in table["name"]} - set(short_names)):
        by_stem.setdefault(name.partition(":")[0], []).append(name)
    for stem, full_names in by_stem.items():
        sets = [set(filter(None, name.partition(":")[2].split(","))) for name in full_names]
        common = set.intersection(*sets)
        for name in full_names:
            rest = [option for option in name.partition(":")[2].split(",") if option and option not in common]
            short_names[name] = stem + (":" + ",".join(rest) if rest else "")
    # Two that would look alike, such as defaults of two builds, are told in full.
    twice = [short for short in short_names.values() if list(short_names.values()).count(short) > 1]
    unvouched = {name for table in tables if "err_scope" in table for name in table.loc[table["err_scope"] == "ungated", "name"]}
    return {name: (name if short in twice else short) + (" (ungated)" if name in unvouched else "")
            for name, short in short_names.items()}


def native_of(name):
    """'local:left=3' of 'local@torch:left=3': whose colour and mark all implementations have."""
    stem, colon, options = name.partition(":")
    return stem.partition("@")[0] + colon + options


def samples(row):
    """Every timed sample of a row, seconds; figures that are no positive numbers are dropped."""
    values = []
    for field in str(row["samples_s"]).split(";"):
        try:
            value = float(field)
        except ValueError:
            continue
        if np.isfinite(value) and value > 0:
            values.append(value)
    return np.array(values) if values else np.array([row["time_median_s"]])


def rounds(row):
    """In how many rounds the samples were taken, from the command that repeats the row; 1 where it does not say."""
    try:
        words = shlex.split(str(row["command"]))
        return max(1, int(words[words.index("--rounds") + 1]))
    except (ValueError, IndexError):
        return 1


def digits(value):
    """Three, and all before the point of larger numbers: 0.0123, 12.3, 1023."""
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def seconds(value):
    if not np.isfinite(value):
        return ""
    for unit, scale in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{digits(value / scale)} {unit}"
    return f"{digits(value / 1e-9)} ns"


def size(value):
    if not np.isfinite(value):
        return ""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= scale:
            return f"{digits(value / scale)} {unit}"
    return f"{value:.0f} B"


def parse_size(text):
    units = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
    word = text.strip().lower().removesuffix("b").removesuffix("i")
    try:
        value = float(word[:-1]) * units[word[-1]] if word[-1:] in units else float(word)
    except ValueError:
        value = -1
    if not value > 0:
        raise Refusal(f"'{text}' is not a size such as 512M or 2G")
    return value


def parse_percent(text):
    try:
        value = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1
    if not 0 <= value < 10:
        raise Refusal(f"'{text}' is not a share such as 5% or 0.05")
    return value


def render(records, columns, style):
    """Records as text, md, csv or json. `columns` are the keys in order; json and csv keep raw figures."""
    if style == "json":
        return json.dumps([{c: jsonable(r.get(c)) for c in columns} for r in records], indent=2) + "\n"
    if style == "csv":
        return pd.DataFrame(records, columns=columns).to_csv(index=False)
    cells = [[str(r.get(c, "")) for c in columns] for r in records]
    if style == "md":
        lines = [columns, ["---"] * len(columns)] + [[c.replace("|", "\\|") for c in row] for row in cells]
        return "".join("| " + " | ".join(line) + " |\n" for line in lines)
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    return "".join("  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() + "\n" for line in [columns, *cells])


def jsonable(value):
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.generic):
        return value.item()
    return value
