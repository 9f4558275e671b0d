#!/usr/bin/env python3
"""A guest: variants in NumPy, the formula as it stands. What "ten lines of Python" cost, and the shortest example of a guest."""
import attnguest

guest = attnguest.Guest("numpy", "NumPy")
try:
    import numpy as np
    np.seterr(all="ignore")  # infinities are among the tests
    guest.version = lambda: f"NumPy {np.__version__}"
except ImportError:
    guest.missing = "needs NumPy: apt install python3-numpy, or pip install numpy"


def softmax(logits, seen=None):
    """Over the last axis; a row that sees nothing is zeros."""
    if seen is not None:
        logits = np.where(seen, logits, -np.inf)
    top = logits.max(-1, keepdims=True)
    weights = np.exp(logits - np.where(np.isneginf(top), 0, top))
    total = weights.sum(-1, keepdims=True)
    return weights / np.where(total == 0, 1, total)


def transposed(x):
    return x.swapaxes(-1, -2)


def per_query_head(x, p):
    """K or V with a head for each query head."""
    return x if p.heads == p.kv_heads else np.repeat(x, p.heads // p.kv_heads, axis=1)


def positions(p):
    """Of queries [N,1] and keys [M]: the two sequences end together."""
    return np.arange(p.kv_len - p.q_len, p.kv_len)[:, None], np.arange(p.kv_len)


def visible(p):
    i, j = positions(p)
    return j <= i if p.causal else np.ones((p.q_len, p.kv_len), bool)


def attention_over(p, seen):
    scale = np.float32(p.scale)

    def run(t):
        k, v = per_query_head(t.k, p), per_query_head(t.v, p)
        return softmax(t.q @ transposed(k) * scale, seen) @ v
    return run


@guest.variant("full")
def full(p, _):
    return attention_over(p, visible(p) if p.causal else None)


@guest.variant("local")
def local(p, o):
    i, j = positions(p)
    window = (i - j <= int(o["left"])) & (j - i <= int(o["right"]))
    return attention_over(p, visible(p) & (window | (j < int(o["sinks"]))))


@guest.variant("copy_v")
def copy_v(p, _):
    return lambda t: per_query_head(t.v, p)[:, :, p.kv_len - p.q_len:].copy()


@guest.variant("mean_v")
def mean_v(p, _):
    seen = visible(p)
    weights = (seen / np.maximum(seen.sum(-1, keepdims=True), 1)).astype(np.float32)
    return lambda t: weights @ per_query_head(t.v, p)


@guest.variant("linear")
def linear(p, _):
    def phi(x):
        return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))

    def everything(t):
        k, v = per_query_head(phi(t.k), p), per_query_head(t.v, p)
        q = phi(t.q)
        return q @ (transposed(k) @ v) / (q @ k.sum(-2, keepdims=True).swapaxes(-1, -2) + np.float32(1e-6))

    seen = visible(p)

    def causal(t):
        k, v = per_query_head(phi(t.k), p), per_query_head(t.v, p)
        weights = np.where(seen, phi(t.q) @ transposed(k), 0)
        return weights @ v / (weights.sum(-1, keepdims=True) + np.float32(1e-6))
    return causal if p.causal else everything


@guest.variant("linformer")
def linformer(p, o):
    full_attention = attention_over(p, None)

    def run(t):
        e = t.parameters["E"][..., :p.kv_len]
        f = e if o["sharing"] == "kv" else t.parameters["F"][..., :p.kv_len]
        t = type(t)(q=t.q, k=e @ t.k, v=f @ t.v)
        return full_attention(t)
    return run


@guest.variant("performer")
def performer(p, o):
    if p.causal or o["kernel"] != "positive":
        raise attnguest.Refused("performer@numpy takes bidirectional problems and kernel=positive")
    root, plus, count = np.float32(p.scale**0.5), np.float32(o["plus"]), np.float32(int(o["m"]))
    bare = float(o["plus"]) == 0

    def features(x, w, axes):
        x = x * root
        u = x @ w.T
        return np.exp(u - (x * x).sum(-1, keepdims=True) / 2 - u.max(axes, keepdims=True)) + plus

    def run(t):
        w = t.parameters["W"]
        q, k, v = features(t.q, w, -1), features(per_query_head(t.k, p), w, (-1, -2)), per_query_head(t.v, p)
        n = q @ k.sum(-2, keepdims=True).swapaxes(-1, -2) / count
        n = np.where(np.abs(n) <= (0 if bare else 1e-6), n + np.float32(1 if bare else 2e-6), n)
        return q @ (transposed(k) @ v) / count / n
    return run


@guest.variant("fnet")
def fnet(p, _):
    return lambda t: np.fft.fft2(t.q).real.astype(np.float32)


@guest.variant("synth_random")
def synth_random(p, o):
    seen = visible(p) if p.causal else None

    def run(t):
        if o["cached"] == "yes":
            return t.parameters["P"] @ t.v
        return softmax(t.parameters["R"][:, :p.q_len, :p.kv_len], seen) @ t.v
    return run


if __name__ == "__main__":
    attnguest.serve(guest)
