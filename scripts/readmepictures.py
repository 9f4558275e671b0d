"""The two pictures of README.md as SVG, for light and for dark ground: written by hand, so that the same CSV gives the same bytes."""
import math
from html import escape

import numpy as np

from attncsv import PAGE, in_group, labels, main_group, measured, seconds, size
from families import colours

WIDTH, HEIGHT = 760, 440
LEFT, TOP, BOTTOM = 66, 16, 50
GROUNDS = {"light": ("#ffffff", "#16181d", "#5b6270", "#d9dde4"), "dark": ("#0d1117", "#eceef2", "#9aa2b1", "#333844")}
LINE = 15  # of text, pixels
REFERENCE = "full"


def spread(places, least, low, high):
    """Places moved apart by at least so much, as little as that takes, within limits; in the order given."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = [places[i] for i in order]
    for _ in range(200):
        for a in range(len(moved) - 1):
            lacking = least - (moved[a + 1] - moved[a])
            if lacking > 0:
                moved[a] -= lacking / 2
                moved[a + 1] += lacking / 2
        moved = [min(max(y, low + least * i), high - least * (len(moved) - 1 - i)) for i, y in enumerate(moved)]
    result = [0.0] * len(places)
    for place, i in enumerate(order):
        result[i] = moved[place]
    return result


class Canvas:
    """A plot with its frame: `across` and `up` take a figure to 0..1."""

    def __init__(self, ground, right, across, up, title):
        self.paper, self.ink, self.soft, self.grid = GROUNDS[ground]
        self.right, self.across, self.up = right, across, up
        self.parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
                      f'font-family="system-ui, sans-serif" font-size="12" role="img">', f"<title>{escape(title)}</title>",
                      f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{self.paper}"/>']

    def x(self, value):
        return LEFT + self.across(value) * (WIDTH - LEFT - self.right)

    def y(self, value):
        return HEIGHT - BOTTOM - self.up(value) * (HEIGHT - BOTTOM - TOP)

    def text(self, x, y, words, anchor="start", colour=None):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour or self.soft}">{escape(words)}</text>')

    def line(self, points, colour, width=1.0, dash=""):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashes}/>')

    def dot(self, x, y, radius, colour, opacity=1.0):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}" fill-opacity="{opacity:g}" stroke="{colour}"/>')

    def frame(self, xs, ys, x_title, y_title):
        """Grid and ticks at these (figure, words)."""
        for value, words in xs:
            x = self.x(value)
            self.line([(x, TOP), (x, HEIGHT - BOTTOM)], self.grid)
            self.text(x, HEIGHT - BOTTOM + 18, words, "middle")
        for value, words in ys:
            y = self.y(value)
            self.line([(LEFT, y), (WIDTH - self.right, y)], self.grid)
            self.text(LEFT - 8, y + 4, words, "end")
        self.text((LEFT + WIDTH - self.right) / 2, HEIGHT - 10, x_title, "middle")
        middle = (TOP + HEIGHT - BOTTOM) / 2
        self.parts.append(f'<text transform="translate(14 {middle:.1f}) rotate(-90)" text-anchor="middle" fill="{self.soft}">{escape(y_title)}</text>')

    def svg(self):
        return "\n".join([*self.parts, "</svg>"]) + "\n"


def logarithmic(low, high):
    a, b = math.log(low), math.log(high)
    return lambda value: (math.log(value) - a) / (b - a)


def linear(low, high):
    return lambda value: (value - low) / (high - low)


def decades(low, high):
    return [10.0**e for e in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]


def time_chart(rows, ground):
    """Time against N, both logarithmic; each line's name at its end."""
    hues = {family: pair[ground == "dark"] for family, pair in colours(set(rows["family"])).items()}
    short = labels(rows)
    lengths = sorted(rows["n"].unique())
    low, high = rows["time_median_s"].min() / 1.3, rows["time_median_s"].max() * 1.3
    c = Canvas(ground, 150, logarithmic(lengths[0], lengths[-1]), logarithmic(low, high), "Time of attention variants against sequence length")
    c.frame([(n, str(n)) for n in lengths], [(t, seconds(t)) for t in decades(low, high)], "sequence length N", "time, logarithmic")
    ends = []
    for name, part in rows.groupby("name", sort=False):
        part = part.sort_values("n")
        colour = hues[part["family"].iloc[0]]
        points = [(c.x(n), c.y(t)) for n, t in zip(part["n"], part["time_median_s"])]
        c.line(points, colour, 2.4 if short[name] == REFERENCE else 1.6, "6 4" if "@" in name.partition(":")[0] else "")
        for point in points:
            c.dot(*point, 2.6, colour)
        ends.append((points[-1], short[name], colour))
    places = spread([y for (_, y), _, _ in ends], LINE, TOP + 4, HEIGHT - BOTTOM)
    for ((x, y), words, colour), place in zip(ends, places):
        c.line([(x + 4, y), (x + 14, place)], colour, 0.7)
        c.text(x + 17, place + 4, words, colour=colour)
    return c.svg()


def bubble_chart(rows, ground):
    """Of the longest length: how many times faster than full, against skill; the area is the memory."""
    hues = {family: pair[ground == "dark"] for family, pair in colours(set(rows["family"])).items()}
    short = labels(rows)
    n = rows["n"].max()
    here = rows[(rows["n"] == n) & rows["fid_skill"].notna()]
    full = rows[(rows["n"] == n) & (rows["name"].map(short) == REFERENCE)]["time_median_s"].iloc[0]
    here = here.assign(speed=full / here["time_median_s"], skill=here["fid_skill"].clip(lower=-1))
    low, high = min(here["speed"].min() / 1.6, 0.5), here["speed"].max() * 2.2
    c = Canvas(ground, 20, logarithmic(low, high), linear(min(-0.1, here["skill"].min() - 0.15), 1.15),
               "Speed, skill and memory of attention variants")
    skills = [v / 2 for v in range(-2, 3) if v / 2 >= here["skill"].min() - 0.15]
    steps = [s * d for d in decades(low / 10, high) for s in (1, 2, 5) if low <= s * d <= high]
    if len(steps) > 8:
        steps = decades(low, high)
    c.frame([(s, f"{s:g}x") for s in steps], [(v, f"{v:g}") for v in skills],
            f"speed relative to full attention at N={n}, logarithmic", "skill: 1 is softmax attention, 0 the mean of V")
    largest = max(here["memory_bytes"].max(), PAGE)
    bubbles = [(c.x(row["speed"]), c.y(row["skill"]), 4 + 26 * math.sqrt(np.nan_to_num(row["memory_bytes"]) / largest), row)
               for row in here.sort_values("memory_bytes", ascending=False).to_dict("records")]
    taken = [(x - radius, y - radius, x + radius, y + radius) for x, y, radius, _ in bubbles]
    for x, y, radius, row in bubbles:
        colour = hues[row["family"]]
        c.dot(x, y, radius, colour, 0.35)
        words = short[row["name"]] + (f" ({size(row['memory_bytes'])})" if row["memory_bytes"] >= PAGE else "")
        if row["fid_skill"] < -1:
            words += f", skill {row['fid_skill']:.0f}"
        place(c, taken, x, y, radius, words, colour)
    return c.svg()


def place(c, taken, x, y, radius, words, colour):
    """The name beside its bubble, where no other name is."""
    width = 6.4 * len(words)
    spots = [(x + radius + 4, y + 4), (x - radius - 4 - width, y + 4), (x - width / 2, y - radius - 5), (x - width / 2, y + radius + 14)]
    spots += [(x + radius + 4, y + 4 + step * LINE) for step in (1, -1, 2, -2, 3, -3)] + [(x - radius - 4 - width, y + 4 + LINE)]

    def free(spot):
        left, base = spot
        box = (left, base - 11, left + width, base + 3)
        inside = LEFT <= box[0] and box[2] <= WIDTH - 4 and box[1] >= 2 and box[3] <= HEIGHT - BOTTOM
        return inside and not any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken)

    left, base = next(filter(free, spots), spots[0])
    taken.append((left, base - 11, left + width, base + 3))
    c.text(left, base, words, colour=colour)


def pictures(run, folder):
    """{path: text} of both pictures on both grounds, from the main problem of a sweep."""
    ok = measured(run.rows)
    ok = in_group(ok, main_group(ok))
    kinds = {"time": time_chart, "skill": bubble_chart}
    drawn = ok[ok["family"] != "baseline"]
    return {folder / f"{kind}-{ground}.svg": chart(drawn, ground) for kind, chart in kinds.items() for ground in GROUNDS}
