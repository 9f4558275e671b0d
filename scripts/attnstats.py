"""The statistics of the reports: two samples compared, many comparisons corrected, crossovers and exponents."""
from functools import lru_cache

import numpy as np
from scipy import stats
from scipy.special import ndtri

EXACT_UP_TO = 60  # samples of both sides together; above it the normal approximation is as good


@lru_cache(maxsize=4096)
def rank_sum_distribution(doubled_ranks, count):
    """P(sum of `count` of these ranks, drawn without replacement = s) for every s: exact, ties included."""
    ways = np.zeros((count + 1, sum(doubled_ranks) + 1))
    ways[0, 0] = 1
    for rank in doubled_ranks:
        grown = ways[:-1, :ways.shape[1] - rank].copy()
        ways[1:, rank:] += grown
    return ways[count] / ways[count].sum()


def mann_whitney(a, b):
    """Two-sided p of the rank-sum test. Exact with ties too, where scipy falls back to the normal approximation, whose
    smallest p at 9 samples a side is ten times too large to survive a correction for a few hundred cells."""
    if len(a) + len(b) > EXACT_UP_TO:
        return stats.mannwhitneyu(a, b, alternative="two-sided", method="asymptotic").pvalue
    doubled = np.rint(2 * stats.rankdata(np.concatenate([a, b]))).astype(int)
    chance = rank_sum_distribution(tuple(np.sort(doubled)), len(a))
    expected = len(a) * (len(a) + len(b) + 1)
    distance = abs(doubled[:len(a)].sum() - expected)
    return min(1.0, chance[np.abs(np.arange(len(chance)) - expected) >= distance].sum())


@lru_cache(maxsize=1024)
def interval_rank(n, m, confidence):
    """How many of the n*m sorted differences lie outside the interval on either side."""
    alpha = (1 - confidence) / 2
    if n + m > EXACT_UP_TO:
        return max(0, int(n * m / 2 - stats.norm.isf(alpha) * np.sqrt(n * m * (n + m + 1) / 12)))
    chance = rank_sum_distribution(tuple(range(2, 2 * (n + m) + 1, 2)), n)
    below = np.cumsum(chance[n * (n + 1)::2])  # P(U <= u), the doubled rank sum being n(n+1) + 2U
    return int(np.searchsorted(below, alpha, side="right"))


def hodges_lehmann(base, new, confidence=0.95):
    """(estimate, low, high) of log(new/base): the median of all pairwise differences with the interval that inverts the
    rank-sum test. With too few samples for this confidence the interval is everything."""
    differences = np.sort(np.subtract.outer(np.log(new), np.log(base)).ravel())
    outside = interval_rank(len(base), len(new), confidence)
    if outside == 0:
        return float(np.median(differences)), -np.inf, np.inf
    return float(np.median(differences)), differences[outside - 1], differences[-outside]


def holm(p):
    """p corrected for the number of comparisons (Holm 1979): reject where the corrected p is below alpha."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def round_slices(count, number):
    """attn_sweep spreads `count` samples over `number` rounds, the remainder over the first."""
    edges = np.cumsum([0] + [count // number + (r < count % number) for r in range(number)])
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:])]


def round_factor(cells):
    """How much wider an interval must be than if all samples were independent: samples of one round share the machine's
    mood. `cells` are (samples, rounds). For exchangeable samples the share of the variance that lies between rounds
    has mean (rounds-1)/(samples-1); its excess, averaged over the cells, is the variance inflation."""
    excess = []
    for values, number in cells:
        number = min(number, len(values))
        if number < 2 or number == len(values):
            continue
        logs = np.log(values)
        total = ((logs - logs.mean())**2).sum()
        if total == 0:
            continue
        parts = [logs[s] for s in round_slices(len(logs), number)]
        between = sum(len(part) * (part.mean() - logs.mean())**2 for part in parts)
        excess.append(between / total * (len(logs) - 1) / (number - 1))
    return float(np.sqrt(max(1.0, np.mean(excess)))) if excess else 1.0


def smallest_effect(standard_error, comparisons, alpha=0.05, power=0.8):
    """Ratio - 1 that `comparisons` tests corrected at alpha would find with this power."""
    z = ndtri(1 - alpha / (2 * max(1, comparisons))) + ndtri(power)
    return float(np.expm1(z * standard_error))


def bootstrap_log_medians(values, draws, factor, rng):
    """Log of the median of `draws` resamples, their scatter stretched by the round factor."""
    logs = np.sort(np.log(values))
    medians = np.median(logs[rng.integers(0, len(logs), (draws, len(logs)))], axis=1)
    centre = np.median(logs)
    return centre + factor * (medians - centre)


def last_crossing(n, log_ratio):
    """For each row of log_ratio (draws x lengths): the length from which the ratio stays below one, by interpolation in
    log-log; 0 where it is below at every length, infinity where it is not at the longest."""
    x = np.log(np.asarray(n, dtype=float))
    log_ratio = np.atleast_2d(log_ratio)
    behind = log_ratio >= 0
    last = len(x) - 1 - np.argmax(behind[:, ::-1], axis=1)
    result = np.zeros(len(log_ratio))
    result[behind[:, -1]] = np.inf
    rows = np.flatnonzero(behind.any(axis=1) & ~behind[:, -1])
    i = last[rows]
    y0, y1 = log_ratio[rows, i], log_ratio[rows, i + 1]
    result[rows] = np.exp(x[i] + (x[i + 1] - x[i]) * y0 / (y0 - y1))
    return result


def crossover(n, log_ratio, drawn, confidence=0.95):
    """(N*, low, high) from the log ratio at each length and its bootstrap draws (draws x lengths); 0 is below the shortest
    length, infinity above the longest."""
    crossings = np.sort(last_crossing(n, drawn))
    tail = (1 - confidence) / 2 * (len(crossings) - 1)
    low, high = crossings[int(np.floor(tail))], crossings[int(np.ceil(len(crossings) - 1 - tail))]
    return float(last_crossing(n, log_ratio)[0]), float(low), float(high)


def exponent(n, values, confidence=0.95):
    """(slope, low, high) of log(values) over log(n) by least squares, with Student's interval."""
    if len(n) < 3:
        return np.nan, np.nan, np.nan
    fit = stats.linregress(np.log(n), np.log(values))
    half = stats.t.isf((1 - confidence) / 2, len(n) - 2) * fit.stderr
    return float(fit.slope), float(fit.slope - half), float(fit.slope + half)
