#!/usr/bin/env python3
"""A guest: patterns as masks of PyTorch's flex_attention, which torch.compile makes a kernel of while planning."""
import textwrap

import attnguest
import pytorch
from pytorch import torch

missing = pytorch.missing
if not missing:
    try:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    except ImportError:
        missing = f"needs PyTorch 2.6 or newer, not {torch.__version__}: pip install torch"

guest = attnguest.Guest("flex", "PyTorch flex_attention", dtypes=("f32", "bf16"), convert=pytorch.convert, finish=pytorch.finish,
                        version=pytorch.guest.version)
guest.missing = missing


def masked(p, sees):
    """Runs under the mask sees(i, j), of a query's and a key's places; where it is none, of all keys."""
    def mask_mod(_b, _h, query, key):
        return sees(query + (p.kv_len - p.q_len), key)

    mask = create_block_mask(mask_mod, None, None, p.q_len, p.kv_len, device="cpu") if sees else None
    compiled = torch.compile(flex_attention, dynamic=False)

    def run(t):
        return compiled(t.q, t.k, t.v, block_mask=mask, enable_gqa=p.heads != p.kv_heads)

    def zeros(heads, length, width):
        return torch.zeros(p.batch, heads, length, width, dtype=pytorch.TYPES[p.dtype])
    try:
        run(attnguest.types.SimpleNamespace(q=zeros(p.heads, p.q_len, p.head_dim), k=zeros(p.kv_heads, p.kv_len, p.head_dim),
                                            v=zeros(p.kv_heads, p.kv_len, p.value_dim)))
    except Exception as why:  # no compiler, or a shape that it has no kernel for
        said = [line.strip() for line in str(why).splitlines() if line.strip()]
        raise attnguest.Refused(f"torch.compile makes no kernel of flex_attention here: {textwrap.shorten(' '.join(said[:2]), 300, placeholder=' ...')}")
    return run


@pytorch.variant("full", guest)
def full(p, _):
    pytorch.refuse_rows_without_keys(p)
    return masked(p, (lambda i, j: j <= i) if p.causal and p.q_len > 1 else None)


@pytorch.variant("local", guest)
def local(p, o):
    left, right, sinks = int(o["left"]), int(o["right"]), int(o["sinks"])

    def sees(i, j):
        near = ((i - j <= left) & (j - i <= right)) | (j < sinks)
        return near & (j <= i) if p.causal else near
    return masked(p, sees)


if __name__ == "__main__":
    attnguest.serve(guest)
