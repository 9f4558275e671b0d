"""Operators that are an attention in one node: com.microsoft Attention, MultiHeadAttention and GroupQueryAttention, ai.onnx Attention.

Shapes and meanings: ONNX Runtime's docs/ContribOperators.md, ONNX' docs/Operators.md (Attention, since 23).
"""
import numpy as np

from captured import Attention, NotAttention, tidy, visible


def heads_apart(x, heads):
    """[B,N,H*D] as [B,H,N,D]; four axes stay."""
    if x.ndim == 4:
        return x
    batch, n, width = x.shape
    return x.reshape(batch, n, heads, width // heads).transpose(0, 2, 1, 3)


def added(mask, more):
    return more if mask is None else mask + more


def hiding(seen, value=-np.inf):
    return np.where(seen, np.float32(0), np.float32(value))


class Fused:
    """One node; `at[i]` is the value of its i-th input or None, `out[i]` of an output."""

    outputs = (0,)

    def __init__(self, node, told):
        self.node, self.told = node, told
        self.layer = node.name or node.output[0]
        for i in self.outputs:
            while len(node.output) <= i:
                node.output.append("")
            if not node.output[i]:
                node.output[i] = f"{self.layer}/output{i}"
        self.wants = [name for name in node.input if name] + [node.output[i] for i in self.outputs]

    def attention(self, values, batch):
        at = [values[name] if name else None for name in self.node.input] + [None] * 16
        out = {i: values[self.node.output[i]] for i in self.outputs}
        if self.told.get("softcap"):
            raise NotAttention(f"its scores are capped at {self.told['softcap']:g}")
        q, k, v, mask = self.tensors(at, out)
        scale = self.told.get("scale") or 1 / np.sqrt(q.shape[3])
        return tidy(Attention(self.layer, self.node.op_type, q, k, v, heads_apart(out[0], q.shape[1]), scale, mask))

    def mask(self, padding, bias, past, q, k):
        """What com.microsoft's operators add to the logits: of padded keys, of a bias, of keys behind a query."""
        mask = None
        if padding is not None:
            mask = hiding(key_padding(padding, q, k), self.told.get("mask_filter_value", -10000.0))
        if bias is not None:
            mask = added(mask, bias.astype(np.float32))
        if self.told.get("unidirectional"):
            mask = added(mask, hiding(np.tri(q.shape[2], k.shape[2], past, dtype=bool)))
        return mask


def key_padding(padding, q, k):
    """Of com.microsoft operators: which keys a sequence has, by their number or one by one."""
    batch, m = q.shape[0], k.shape[2]
    if padding.shape == (batch,):
        return (np.arange(m) < padding[:, None])[:, None, None]
    if padding.shape == (batch, m):
        return padding.astype(bool)[:, None, None]
    if padding.shape == (batch, q.shape[2], m):
        return padding.astype(bool)[:, None]
    raise NotAttention(f"its mask has shape {list(padding.shape)}")


class MicrosoftAttention(Fused):
    """input, weights, bias, mask_index, past, attention_bias"""

    def tensors(self, at, out):
        heads = self.told["num_heads"]
        if self.told.get("do_rotary"):
            raise NotAttention("it rotates its queries itself")
        projected = at[0].astype(np.float32) @ at[1].astype(np.float32)
        if at[2] is not None:
            projected = projected + at[2].astype(np.float32)
        sizes = self.told.get("qkv_hidden_sizes") or [projected.shape[2] // 3] * 3
        q, k, v = (heads_apart(x, heads) for x in np.split(projected, np.cumsum(sizes)[:2], axis=2))
        past = 0
        if at[4] is not None:
            past = at[4].shape[3]
            k, v = (np.concatenate([at[4][i].astype(np.float32), x], axis=2) for i, x in enumerate((k, v)))
        return q, k, v, self.mask(at[3], at[5], past, q, k)


class MultiHeadAttention(Fused):
    """query, key, value, bias, key_padding_mask, attention_bias, past_key, past_value"""

    def tensors(self, at, out):
        heads = self.told["num_heads"]
        query, key, value = at[:3]
        if any(x is not None and x.ndim == 5 for x in (query, key)):
            raise NotAttention("its queries, keys and values are packed, which ONNX Runtime does not run on CPUs")
        if key is None or value is None:
            raise NotAttention("it has no keys or values")
        widths = [x.shape[-1] if x.ndim == 3 else heads * x.shape[-1] for x in (query, key, value)]
        tensors = [heads_apart(x, heads).astype(np.float32) for x in (query, key, value)]
        if at[3] is not None:
            biases = np.split(at[3].astype(np.float32), np.cumsum(widths)[:2])
            given = [x.ndim == 3 for x in (query, key, value)]  # keys of another sequence come with theirs
            tensors = [x + bias.reshape(1, heads, 1, -1) if add else x for x, bias, add in zip(tensors, biases, given)]
        q, k, v = tensors
        past = 0
        if at[6] is not None:
            past = at[6].shape[2]
            k, v = np.concatenate([at[6].astype(np.float32), k], 2), np.concatenate([at[7].astype(np.float32), v], 2)
        return q, k, v, self.mask(at[4], at[5], past, q, k)


class GroupQueryAttention(Fused):
    """query, key, value, past_key, past_value, seqlens_k, total_sequence_length, cos_cache, sin_cache; causal. Keys and values are those
    that it hands out for the next step, so they are rotated and hold the past."""

    outputs = (0, 1, 2)

    def tensors(self, at, out):
        if self.told.get("smooth_softmax") or any(x is not None for x in at[9:]):
            raise NotAttention("it has sinks, position ids or a bias")
        heads, kv_heads = self.told["num_heads"], self.told["kv_num_heads"]
        query = at[0]
        if at[1] is None:  # packed: heads of queries, of keys, of values
            dim = query.shape[2] // (heads + 2 * kv_heads)
            query = query[:, :, :heads * dim]
        q = heads_apart(query, heads).astype(np.float32)
        lengths = at[5].reshape(-1) + 1
        if len(set(lengths.tolist())) != 1:
            raise NotAttention("its sequences have different lengths")
        total, n = int(lengths[0]), q.shape[2]
        k, v = (out[i][:, :, :total].astype(np.float32) for i in (1, 2))
        if self.told.get("do_rotary"):
            q = rotated(q, at[7].astype(np.float32), at[8].astype(np.float32), total - n, self.told.get("rotary_interleaved", 0))
        ahead = np.arange(total - n, total)[:, None] - np.arange(total)
        seen = ahead >= 0
        window = self.told.get("local_window_size", -1)
        if window > 0:
            seen &= ahead < window
        return q, k, v, None if seen.all() else hiding(seen)[None, None]


def rotated(x, cos, sin, first, interleaved):
    """Rotary positions first, first + 1, ... on the first 2 * cos.shape[1] elements of each head."""
    n, half = x.shape[2], cos.shape[1]
    cos, sin, head, rest = cos[first:first + n], sin[first:first + n], x[..., :2 * half], x[..., 2 * half:]
    a, b = (head[..., 0::2], head[..., 1::2]) if interleaved else (head[..., :half], head[..., half:])
    parts = (a * cos - b * sin, a * sin + b * cos)
    turned = np.stack(parts, -1).reshape(head.shape) if interleaved else np.concatenate(parts, -1)
    return np.concatenate([turned, rest], -1).astype(np.float32)


class OnnxAttention(Fused):
    """Q, K, V, attn_mask, past_key, past_value"""

    def tensors(self, at, out):
        q_heads, kv_heads = self.told.get("q_num_heads", 0), self.told.get("kv_num_heads", 0)
        q, k, v = heads_apart(at[0], q_heads), heads_apart(at[1], kv_heads), heads_apart(at[2], kv_heads)
        q, k, v = (x.astype(np.float32) for x in (q, k, v))
        past = 0
        if at[4] is not None:
            past = at[4].shape[2]
            k, v = np.concatenate([at[4].astype(np.float32), k], 2), np.concatenate([at[5].astype(np.float32), v], 2)
        mask = None
        if at[3] is not None:
            mask = hiding(at[3]) if at[3].dtype == bool else at[3].astype(np.float32)
        if self.told.get("is_causal"):
            seen = visible(q.shape[2], k.shape[2]) if not past else np.tri(q.shape[2], k.shape[2], past, dtype=bool)
            mask = added(mask, hiding(seen))
        return q, k, v, mask


FUSED = {("com.microsoft", "Attention"): MicrosoftAttention, ("com.microsoft", "MultiHeadAttention"): MultiHeadAttention,
         ("com.microsoft", "GroupQueryAttention"): GroupQueryAttention, ("", "Attention"): OnnxAttention}
