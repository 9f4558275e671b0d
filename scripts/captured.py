"""An attention that ran in somebody's model: its tensors in the form that attnbench reads, checked and kept as .npz.

Arrays of a file: q [B,H,N,D], k [B,Hk,M,D], v [B,Hk,M,Dv], so that softmax(q k^T / sqrt(D) + mask) v is what the model computed,
under the causal mask where `causal` is 1. `mask` is additive, [B,H,N,M] with 1 where it is the same along an axis, -inf where a key is
hidden; no mask, no array. `scale` is the model's own; where it is not 1 / sqrt(D), q was multiplied by scale * sqrt(D).
`model`, `layer` and `pattern` are text.
"""
from dataclasses import dataclass, field

import numpy as np

# Smaller additive masks hide nothing: Swin shifts windows by -100. Larger ones hide all in f16: BERT writes -10000.
HIDDEN = -9999.0
# Largest difference from the model's own output, over the larger of 1 and its largest element, by what it or the file is kept in.
TOLERANCE = {"float64": 1e-5, "float32": 1e-5, "float16": 4e-3}


class NotAttention(Exception):
    """This is not softmax attention of scaled products, and why."""


@dataclass
class Attention:
    """q, k, v and output as the model had them, [B,H,N,D]; k and v may have fewer heads, or one sequence for all. `mask` is additive and
    broadcasts to [B,H,N,M]; `scale` is a number, or broadcasts to [B,H,1,1]."""
    layer: str
    pattern: str
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    output: np.ndarray
    scale: object = 1.0
    mask: object = None
    causal: bool = False
    notes: list = field(default_factory=list)

    @property
    def shape(self):
        """The words of a problem."""
        (batch, heads, n, dim), (_, kv_heads, m, _) = self.q.shape, self.k.shape
        return {"batch": batch, "heads": heads, "kv_heads": kv_heads, "q_len": n, "kv_len": m, "head_dim": dim,
                "value_dim": self.v.shape[3]}


def visible(n, m):
    """Under the causal mask: query i sees keys up to i."""
    return np.tri(n, m, dtype=bool)


def softmax_attention(q, k, v, mask=None, causal=False):
    """softmax(q k^T / sqrt(D) + mask) v in double, one head after the other; a query that sees no key gives NaN."""
    batch, heads, n, dim = q.shape
    group = heads // k.shape[1]
    out = np.empty((batch, heads, n, v.shape[3]))
    for b in range(batch):
        for h in range(heads):
            scores = q[b, h].astype(float) @ k[b, h // group].astype(float).T / np.sqrt(dim)
            if mask is not None:
                scores += mask[b % mask.shape[0], h % mask.shape[1]]
            if causal:
                scores[~visible(*scores.shape)] = -np.inf
            with np.errstate(invalid="ignore"):
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                weights /= weights.sum(-1, keepdims=True)
            out[b, h] = weights @ v[b, h // group].astype(float)
    return out


def difference(attention, mask="own"):
    """Full attention on these tensors against the model's output: the largest difference over max(1, largest element)."""
    own = attention.output.astype(float)
    ours = softmax_attention(attention.q, attention.k, attention.v, attention.mask if mask == "own" else mask, attention.causal)
    if not own.size or not np.isfinite(own).all() or not np.isfinite(ours).all():
        return np.inf
    return float(abs(ours - own).max() / max(1.0, abs(own).max()))


def agrees(a):
    """Whether full attention on these tensors gives the model's output, within what its number type can hold."""
    return difference(a) <= TOLERANCE.get(a.output.dtype.name, 0)


def fold_scale(a):
    """q such that the scale is 1 / sqrt(D)."""
    usual = 1 / np.sqrt(a.q.shape[3])
    scale = np.asarray(a.scale, dtype=float)
    if scale.size and np.allclose(scale, scale.flat[0], rtol=1e-6, atol=0):
        scale = np.asarray(scale.flat[0])
    if abs(scale / usual - 1).max() > 1e-6:
        a.q = (a.q * (scale / usual)).astype(np.float32)
    if scale.ndim:
        a.notes.append("each head has a scale of its own")
    a.scale = scale


def keep_groups(a):
    """One of each set of neighbouring k and v heads that are the same bits, as grouped-query attention repeats them."""
    heads = a.k.shape[1]
    for group in range(heads, 1, -1):
        if heads % group or a.q.shape[1] % (heads // group):
            continue
        parts = [x.reshape(x.shape[0], heads // group, group, *x.shape[2:]) for x in (a.k, a.v)]
        if all((part == part[:, :, :1]).all() for part in parts):
            a.k, a.v = (np.ascontiguousarray(part[:, :, 0]) for part in parts)
            return


def recognise_mask(a):
    """Causality told apart from what else is hidden; the rest along as few axes as it varies on."""
    if a.mask is None:
        return
    n, m = a.q.shape[2], a.k.shape[2]
    mask = np.asarray(a.mask, dtype=np.float32)
    mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    hidden = mask <= HIDDEN
    blind = np.broadcast_to(hidden, (*mask.shape[:2], n, m)).all(-1)
    if blind.any():  # its weights are those of the finite mask: as the model has them
        a.notes.append(f"{int(blind.sum())} queries have every key hidden: the mask stays as the model has it")
        a.mask = mask
        return
    mask = np.where(hidden, np.float32(-np.inf), mask)
    free = np.zeros((n, m), bool)
    if n > 1 and mask.shape[2:] == (n, m) and hidden[:, :, ~visible(n, m)].all() and not visible(n, m).all():
        a.causal, free = True, ~visible(n, m)
    a.mask = smallest(mask, free)


def smallest(mask, free):
    """`mask` with extent 1 along each axis on which it is constant, whatever stands where it is `free`; None where it is 0 throughout."""
    if free.any():
        mask = np.where(free, np.float32(0), mask)
        along = np.where(free, np.float32(np.nan), mask)
        column = np.fmax.reduce(along, axis=2, keepdims=True)  # of what each key says to those who may see it
        if np.array_equal(np.where(free, 0, column), mask):
            mask = column
    for axis in range(4):
        first = np.take(mask, [0], axis)
        if mask.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, mask.shape), mask):
            mask = first
    return None if not mask.any() else mask


def describe_mask(a):
    if a.mask is None:
        return "none"
    if a.mask.shape[1:3] == (1, 1) and np.isin(a.mask, (0, -np.inf)).all():
        return f"padding: {int(np.isneginf(a.mask).sum(-1).max())} of {a.mask.shape[3]} keys"
    hidden = np.isneginf(a.mask)
    kind = "hides keys" if hidden.any() else "bias"
    if hidden.any() and (a.mask[~hidden] != 0).any():
        kind = "bias, hides keys"
    return f"{kind}, [{','.join(map(str, a.mask.shape))}]"


def tidy(a):
    """In attnbench's form; refuses by NotAttention what has no such form."""
    batch = a.q.shape[0]
    for x in (a.q, a.k, a.v, a.output):
        if x.ndim != 4:
            raise NotAttention(f"a tensor has {x.ndim} axes")
        if not np.isfinite(x.astype(np.float32)).all():
            raise NotAttention("a tensor is not finite")
    a.k, a.v = (np.broadcast_to(x, (batch, *x.shape[1:])) if x.shape[0] == 1 else x for x in (a.k, a.v))
    if a.v.shape[1] != a.k.shape[1]:
        heads = max(a.k.shape[1], a.v.shape[1])
        if min(a.k.shape[1], a.v.shape[1]) != 1:
            raise NotAttention(f"k has {a.k.shape[1]} heads and v {a.v.shape[1]}")
        a.k, a.v = (np.broadcast_to(x, (batch, heads, *x.shape[2:])) for x in (a.k, a.v))
    if a.q.shape[3] != a.k.shape[3] or a.k.shape[2] != a.v.shape[2] or a.q.shape[1] % a.k.shape[1]:
        raise NotAttention(f"q {list(a.q.shape)}, k {list(a.k.shape)} and v {list(a.v.shape)} do not fit each other")
    if a.output.shape != (*a.q.shape[:3], a.v.shape[3]):
        raise NotAttention(f"its output {list(a.output.shape)} is not [B,H,N,Dv] of q {list(a.q.shape)} and v {list(a.v.shape)}")
    a.q, a.k, a.v = (np.ascontiguousarray(x, dtype=np.float32) for x in (a.q, a.k, a.v))
    keep_groups(a)
    fold_scale(a)
    recognise_mask(a)
    return a


def save(path, a, model, dtype=np.float32, with_output=False):
    """Writes the file; returns the difference of what it holds from the model's own output."""
    a.q, a.k, a.v = (x.astype(dtype) for x in (a.q, a.k, a.v))
    arrays = {"q": a.q, "k": a.k, "v": a.v, "causal": np.array([a.causal], np.float32), "scale": np.asarray(a.scale, np.float32),
              "model": np.array(model), "layer": np.array(a.layer), "pattern": np.array(a.pattern)}
    if a.mask is not None:
        arrays["mask"] = a.mask
    if with_output:
        arrays["output"] = a.output.astype(dtype)
    np.savez(path, **arrays)
    return difference(a)
