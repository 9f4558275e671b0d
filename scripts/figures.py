"""The report's curves as SVG and PNG for papers: one set of files for each combination of the axes that vary."""
import re

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from attncsv import PAGE, axes_of, groups, labels, native_of, plain, seconds, size  # noqa: E402
from families import colours  # noqa: E402

MARKS = "o^sD*XPv"
DASHES = ["-", "--", ":", "-."]


class Looks:
    """A family's colour, a mark for each variant of it, and dashes; implementations of a variant share colour and mark, and differ
    in their dashes."""

    def __init__(self, rows):
        self.labels = labels(rows)
        self.family = dict(zip(rows["name"], rows["family"]))
        self.hues = {family: light for family, (light, _) in colours(self.family.values()).items()}
        self.order = sorted(self.family, key=lambda n: (list(self.hues).index(self.family[n]), n))
        self.place = {}  # of the variant in its family, of the implementation in its variant
        for name in self.order:
            kin = [other for other in self.place if self.family[other] == self.family[name]]
            variants = list(dict.fromkeys(native_of(other) for other in kin))
            alike = [other for other in kin if native_of(other) == native_of(name)]
            self.place[name] = variants.index(native_of(name)) if alike else len(variants), len(alike)

    def of(self, name):
        variant, implementation = self.place[name]
        return {"color": self.hues[self.family[name]], "marker": MARKS[variant % len(MARKS)],
                "linestyle": DASHES[(variant + implementation) % len(DASHES)],
                "label": self.labels[name], "linewidth": 1.2, "markersize": 4}


def curves(rows, looks, column, title, logarithmic, words=None, floor=None, length="N (sequence length)"):
    figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name in looks.order:
        part = rows[(rows["name"] == name) & rows[column].notna()].sort_values("n")
        if len(part):
            ax.plot(part["n"], part[column].clip(lower=floor), **looks.of(name))
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0f}"))
    if logarithmic:
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(NullFormatter())
    if words:
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: words(v)))
    ax.set_xlabel(length)
    ax.set_ylabel(title)
    ax.grid(True, linewidth=0.4, alpha=0.5)
    handles, names = ax.get_legend_handles_labels()
    if handles:
        ax.legend(handles, names, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=7, frameon=False, ncols=1 + len(names) // 24)
    return figure


def bubbles(rows, looks):
    """Speed relative to full against skill at the longest length that both have, bubble area is memory."""
    full = rows[rows["name"] == "full"].set_index("n")["time_median_s"]
    scored = rows[rows["fid_skill"].notna() & rows["n"].isin(full.index)]
    if scored.empty:
        return None
    n = scored["n"].max()
    part = scored[scored["n"] == n].assign(speed=lambda r: full[n] / r["time_median_s"])
    figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    largest = max(part["memory_bytes"].max(), 1)
    for row in part.sort_values("memory_bytes", ascending=False).to_dict("records"):
        colour = looks.hues[row["family"]]
        point = row["speed"], max(-1, row["fid_skill"])
        ax.scatter(*point, s=20 + 900 * np.nan_to_num(row["memory_bytes"]) / largest, color=colour, alpha=0.5)
        ax.annotate(looks.labels[row["name"]], point, fontsize=7, color=colour, xytext=(4, 4), textcoords="offset points")
    front, best = [], -np.inf
    for row in part[part["family"] != "baseline"].sort_values("speed", ascending=False).to_dict("records"):
        if row["fid_skill"] > best:
            best = row["fid_skill"]
            front.append((row["speed"], max(-1, best)))
    if front:
        ax.plot(*zip(*front), "--", color="#1f6fd0", linewidth=1, drawstyle="steps-post")  # nothing was measured between its points
    ax.set_xscale("log")
    ax.set_xlabel(f"speed relative to full, N={n}")
    ax.set_ylabel("fidelity skill")
    ax.grid(True, linewidth=0.4, alpha=0.5)
    return figure


def scored(train, task, n):
    """Of one task the models of the trained length nearest to n: (rows, floor, whether its control passed)."""
    part = train[(train["task"] == task) & train["accuracy"].notna()]
    part = part[part["n"] == min(part["n"], key=lambda trained: abs(np.log(trained / n)))] if len(part) else part
    return part, part["floor"].max() if len(part) else np.nan, not (part["verdict"] == "inconclusive").any()


def closing(rows, train, looks):
    """What a variant learned against how fast it is, a panel a task, bubble area is memory: the question that a choice is made by. Speed is
    that of the longest length which full has; a panel is hollow where full attention, its control, missed its bar."""
    full = rows[rows["name"] == "full"].set_index("n")["time_median_s"]
    timed = rows[rows["n"].isin(full.index)]
    tasks = [task for task in sorted(set(train["task"])) if len(scored(train, task, 1)[0])]
    if timed.empty or not tasks:
        return None
    n = timed["n"].max()
    speed = (full[n] / timed[timed["n"] == n].set_index("name")["time_median_s"]).to_dict()
    memory = timed[timed["n"] == n].set_index("name")["memory_bytes"].fillna(0).to_dict()
    columns = min(2, len(tasks))
    figure, panels = plt.subplots(-(-len(tasks) // columns), columns, figsize=(6.6 * columns, 4.6 * -(-len(tasks) // columns)), layout="constrained",
                                  squeeze=False)
    for ax in panels.flat[len(tasks):]:
        ax.set_visible(False)
    largest = max(max(memory.values()), 1)
    for task, ax in zip(tasks, panels.flat):
        part, floor, passed = scored(train, task, n)
        for row in part[part["name"].isin(speed)].to_dict("records"):
            colour, point = looks.hues[row["family"]], (speed[row["name"]], row["accuracy"])
            ax.scatter(*point, s=20 + 900 * memory[row["name"]] / largest, facecolor=colour if passed else "none", edgecolor=colour, alpha=0.5 if passed else 1)
            ax.annotate(looks.labels[row["name"]], point, fontsize=6.5, color=colour, xytext=(4, 4), textcoords="offset points")
        ax.axhline(floor, color="#777777", linestyle=":", linewidth=1)
        ax.annotate("floor", (1, floor), xycoords=("axes fraction", "data"), fontsize=7, color="#777777", ha="right", va="bottom")
        trained = int(part["n"].iloc[0])
        ax.set_title(f"{task}, trained at N={trained}" + ("" if passed else ": inconclusive, full attention missed its bar"), fontsize=9)
        ax.set_xscale("log")
        ax.margins(x=0.15)
        for axis_formatter in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
            axis_formatter(FuncFormatter(lambda v, _: f"{v:g}x" if f"{v:e}"[0] in "125" else ""))
        ax.set_xlabel(f"speed relative to full, N={n}")
        ax.set_ylabel("accuracy")
        ax.grid(True, linewidth=0.4, alpha=0.5)
    return figure


def save(figure, path):
    if figure is None:
        return
    for kind in ("svg", "png"):
        figure.savefig(path.with_name(f"{path.name}.{kind}"), dpi=200, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)


def write_figures(folder, rows, train):
    folder.mkdir(parents=True, exist_ok=True)
    ok, looks = rows[rows["ok"]], Looks(rows)
    varying = [axis for axis in axes_of(rows) if rows[axis].nunique() > 1]
    for axes, part in groups(ok):
        suffix = "".join(f"-{axis}_{plain(axes[axis])}" for axis in varying)
        path = lambda what: folder / re.sub(r"[^\w.=-]", "_", what + suffix)  # noqa: E731
        save(curves(part, looks, "time_median_s", "time", True, seconds), path("time"))
        save(curves(part, looks, "memory_bytes", "memory beyond inputs and output", True, size, PAGE), path("memory"))
        if "token_s" in part and part["token_s"].notna().any():
            save(curves(part, looks, "token_s", "time per token", True, seconds, length="context (tokens)"), path("token"))
            save(curves(part, looks, "state_bytes", "state", True, size, length="context (tokens)"), path("state"))
        save(curves(part, looks, "roof_fraction", "fraction of the roof", False), path("roof"))
        save(curves(part, looks, "fid_skill", "fidelity skill", False, floor=-1), path("skill"))
        save(bubbles(part, looks), path("bubble"))
        if train is not None:
            save(closing(part, train, Looks(pd.concat([rows, train], ignore_index=True))), path("closing"))
    if train is not None:
        looks = Looks(train)
        for task, part in train.groupby("task"):
            save(curves(part, looks, "accuracy", f"accuracy, {task}", False), folder / re.sub(r"[^\w.=-]", "_", f"task-{task}"))
