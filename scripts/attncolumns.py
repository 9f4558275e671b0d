"""What the columns of a CSV are: the context file beside it says so; for files of schema 1 schema1.json does."""
import json
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
SCHEMA = 2  # the newest that these scripts read: csv_schema in harness/attn/record/row.hpp

# What the scripts ask for by name, and what it must be. A sweep's CSV without one of these is refused.
ASKED = {"variant": str, "options": str, "family": str, "exactness": str, "q_len": float, "kv_len": float, "head_dim": float,
         "causal": float, "input": str, "threads": float, "isa": str, "status": str, "reason": str, "time_median_s": float,
         "unstable": float, "roof_fraction": float, "workspace_bytes": float, "parameter_bytes": float, "peak_rss_bytes": float,
         "meters_agree": float, "fid_skill": float, "samples_s": str, "command": str}
# What they ask for where a file has it.
LATER = {"step": float, "state_bytes": float}
# The same of a training's, by the names used here.
TRAIN = {"n": "n", "accuracy": "accuracy", "low": "accuracy_ci_low", "high": "accuracy_ci_high", "floor": "floor", "skill": "skill",
         "verdict": "verdict"}
# Keys of every file that a script has read, in order: what makes two cells comparable is what any of them calls a key.
KEYS = []
# They make up the variant's name and its length.
NAMING = ("variant", "options", "implementation", "q_len", "n", "task")


class Columns:
    """{name: {"role", "holds", "better", "unit", "doc", "usual"}} of one file, as far as anybody says."""

    def __init__(self, told):
        self.told = {column["name"]: column for column in told}
        for name, column in self.told.items():
            if column.get("role") == "key" and name not in KEYS:
                KEYS.append(name)

    def keys(self):
        return [name for name, column in self.told.items() if column.get("role") == "key"]

    def is_text(self, name):
        """True, False or None: unknown."""
        column = self.told.get(name)
        return None if column is None else column.get("holds") == "text"

    def usual(self):
        """{key: what a file from before it held throughout}."""
        return {name: column["usual"] for name, column in self.told.items() if column.get("role") == "key" and column.get("usual")}

    def about(self, name):
        """'median of the samples, seconds a run [s], lower is better'"""
        column = self.told.get(name, {})
        better = column.get("better", "neither")
        return (column.get("doc", "") + (f" [{column['unit']}]" if column.get("unit") else "")
                + (f", {better} is better" if better != "neither" else ""))


def of_context(context):
    """As a context of schema 2 or later tells them; None where it does not."""
    told = context.get("columns")
    if not isinstance(told, list) or not all(isinstance(column, dict) and isinstance(column.get("name"), str) for column in told):
        return None
    return Columns(told) if told else None


def of_schema1(table):
    old = json.loads((HERE / "schema1.json").read_text())
    kind = old["train" if "task" in table else "sweep"]
    told = [{"name": name, "role": "key" if name in kind["keys"] else "fact", "holds": "text" if name in kind["text"] else "number",
             "usual": old["usual"].get(name, "")} for name in dict.fromkeys([*kind["keys"], *table])]
    return Columns(told + ([] if "task" in table else [{"name": name, "role": "key", "holds": "number" if usual.isdigit() else "text",
                                                         "usual": usual}
                                                        for name, usual in old["usual"].items() if name not in kind["keys"]]))


def guessed(table):
    """Of a file whose context does not tell: the keys stand before the status, and numbers look like numbers."""
    names = list(table)
    end = next((i for i, name in enumerate(names) if name in ("status", "verdict")), len(names))
    described = ("schema", "name", "family", "exactness")
    told = []
    for i, name in enumerate(names):
        number = name != "verdict" and (name in TRAIN.values() or bool(pd.to_numeric(table[name], errors="coerce").notna().any()))
        if name in ASKED | LATER:
            number = (ASKED | LATER)[name] is float
        says = bool((table[name] != "").any())  # a key of which nothing is told tells no two rows apart
        told.append({"name": name, "role": "key" if i < end and says and name not in described else "fact",
                     "holds": "number" if number else "text"})
    return Columns(told)


def modern(table, notes, file):
    """A table of schema 1 in the words of today."""
    old = json.loads((HERE / "schema1.json").read_text())
    said = []
    if "family" in table:
        for was, now in old["families"].items():
            if (table["family"] == was).any():
                said.append(f"family {was} is read as {now}")
                table["family"] = table["family"].replace(was, now)
    for was, now in old["variants"].items():
        here = table["variant"] == was
        if here.any():
            said.append(f"{was} is read as {now}")
            table["implementation"] = table.get("implementation", old["usual"]["implementation"])
            table.loc[here, ["variant", "implementation"]] = now.split("@")
    notes.append(f"{file} is of schema 1: its columns are those of schema1.json" + "".join(f", {word}" for word in said))
    return table
