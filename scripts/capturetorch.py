"""Q, K and V of a PyTorch model's attentions.

  with capture_torch("captured/", model="mine"):
      model(x)

writes one .npz for each call of scaled_dot_product_attention and of nn.MultiheadAttention, named by the module that called, checks that
full attention on it gives what PyTorch computed, and prints a table. Needs PyTorch 1.13 or later and numpy.
"""
import inspect
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from captured import Attention, NotAttention, tidy, visible
from capturefolder import SAID, Folder, table_of

FORWARD = inspect.signature(F.multi_head_attention_forward)


def numbers(tensor):
    return tensor.detach().to("cpu", torch.float32).numpy().copy()


def additive(mask, hidden_is):
    """A mask of booleans, where `hidden_is` hides, or of numbers, as one that is added."""
    if mask.dtype == torch.bool:
        return np.where(mask.detach().cpu().numpy() == hidden_is, np.float32(-np.inf), np.float32(0))
    return numbers(mask)


def four_axes(x):
    return x.reshape((1,) * (4 - x.ndim) + x.shape) if x.ndim <= 4 else x.reshape(-1, *x.shape[-3:])


class capture_torch(TorchFunctionMode):
    """Captures at most `most` calls; after the block `records` says what was written. Arguments as of Folder in capturefolder.py."""

    def __init__(self, folder, model="model", dtype="f32", with_output=False, force=False, most=256):
        super().__init__()
        self.folder = Folder(folder, model, dtype, with_output, force)
        self.found, self.left_out, self.most = [], 0, most
        self.running, self.names, self.records = [], {}, []

    def __enter__(self):
        self.handles = [hooks.register_module_forward_pre_hook(self.begins), hooks.register_module_forward_hook(self.ends)]
        return super().__enter__()

    def __exit__(self, kind, error, trace):
        super().__exit__(kind, error, trace)
        for handle in self.handles:
            handle.remove()
        if kind is None:
            self.records = self.folder.write(self.found, "capture_torch, PyTorch " + torch.__version__)
            self.tell()

    def begins(self, module, _):
        if not self.running:
            self.names = {part: name for name, part in module.named_modules()}
        self.running.append(module)

    def ends(self, *_):
        if self.running:
            self.running.pop()

    def where(self, otherwise):
        """The innermost module that runs, by its name in the model."""
        module = self.running[-1] if self.running else None
        return self.names.get(module) or (type(module).__name__ if module is not None else otherwise)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if function is getattr(F, "scaled_dot_product_attention", None):
            self.keep(lambda: self.product(result, *args, **kwargs), "scaled_dot_product_attention")
        elif function is F.multi_head_attention_forward:
            told = FORWARD.bind(*args, **kwargs)
            told.apply_defaults()
            self.keep(lambda: self.heads(result[0], told), "MultiheadAttention")
        return result

    def keep(self, attention, kind):
        layer = self.where(kind)
        if len(self.found) == self.most:
            self.left_out += 1
            return
        try:
            with torch.no_grad():
                a = attention()
            a.layer, a.pattern = layer, kind
            self.found.append(tidy(a))
        except NotAttention as why:
            self.found.append((layer, why))

    @staticmethod
    def product(result, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        if dropout_p > 0:
            raise NotAttention("it drops weights: capture in eval mode")
        q, k, v, out = (four_axes(numbers(x)) for x in (query, key, value, result))
        mask = additive(attn_mask, hidden_is=False) if attn_mask is not None else None
        if mask is not None and mask.ndim > 4:
            mask = np.broadcast_to(mask, (*query.shape[:-1], key.shape[-2])).reshape(-1, *out.shape[1:3], k.shape[2])
        if is_causal:
            mask = np.where(visible(q.shape[2], k.shape[2]), np.float32(0), np.float32(-np.inf))
        return Attention("", "", q, k, v, out, scale or 1 / np.sqrt(q.shape[3]), mask)

    @staticmethod
    def heads(result, told):
        """The heads before the output projection, as PyTorch computes them when that is the identity."""
        a = told.arguments
        if a["training"] and a["dropout_p"] > 0:
            raise NotAttention("it drops weights: capture in eval mode")
        if a["add_zero_attn"] or any(a[name] is not None for name in ("bias_k", "bias_v", "static_k", "static_v")):
            raise NotAttention("it adds keys of its own")
        query, key, value = (x if x.dim() == 3 else x.unsqueeze(1) for x in (a["query"], a["key"], a["value"]))  # [N,B,E]
        width, heads = a["embed_dim_to_check"], a["num_heads"]
        weights = [a[f"{name}_proj_weight"] for name in "qkv"] if a["use_separate_proj_weight"] else a["in_proj_weight"].chunk(3)
        biases = a["in_proj_bias"].chunk(3) if a["in_proj_bias"] is not None else (None,) * 3

        def apart(x, weight, bias):
            return numbers(F.linear(x, weight, bias).reshape(*x.shape[:2], heads, width // heads).permute(1, 2, 0, 3))

        q, k, v = (apart(*tensors) for tensors in zip((query, key, value), weights, biases))
        own = dict(a, out_proj_weight=torch.eye(width, dtype=query.dtype, device=query.device), out_proj_bias=None)
        before = F.multi_head_attention_forward(**own)[0]
        again = F.linear(before, a["out_proj_weight"], a["out_proj_bias"])
        if not torch.allclose(again.float(), result.float(), rtol=1e-3, atol=1e-4):
            raise NotAttention("PyTorch computes its output another way")
        before = before if before.dim() == 3 else before.unsqueeze(1)
        out = numbers(before.reshape(*before.shape[:2], heads, -1).permute(1, 2, 0, 3))
        mask = None
        if a["attn_mask"] is not None:
            mask = additive(a["attn_mask"], hidden_is=True)
            mask = mask.reshape(q.shape[0], heads, *mask.shape[1:]) if mask.ndim == 3 else mask[None, None]
        if a["key_padding_mask"] is not None:
            padding = additive(a["key_padding_mask"], hidden_is=True)
            padding = padding.reshape(-1, 1, 1, k.shape[2])
            mask = padding if mask is None else mask + padding
        return Attention("", "", q, k, v, out, 1 / np.sqrt(width // heads), mask)

    def tell(self):
        rows = [[str(r.get(c, "")) for c in SAID] for r in table_of(self.records)]
        widths = [max(len(row[i]) for row in [SAID, *rows]) for i in range(len(SAID))]
        for row in [SAID, *rows]:
            print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
        if self.left_out:
            print(f"capture_torch: {self.left_out} more calls are left out (most={self.most})", file=sys.stderr)
