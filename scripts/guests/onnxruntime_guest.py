#!/usr/bin/env python3
"""A guest: full attention by ONNX Runtime's fused operators, MultiHeadAttention and, where heads share keys, GroupQueryAttention.

The operators' layout is [B,N,H*D]: tensors are brought there, and the output back, outside of the time that is taken.
"""
import attnguest

try:
    import numpy as np
    import onnxruntime as ort
    missing = None
except ImportError:
    missing = "needs ONNX Runtime: apt install python3-onnxruntime (Debian 13), or pip install onnxruntime"

guest = attnguest.Guest("onnxruntime", "ONNX Runtime", version=lambda: f"ONNX Runtime {ort.__version__}")
guest.missing = missing


# A model of one operator, in ONNX's protobuf (onnx.proto), so that the package onnx need not be there too.
FLOAT, INT32, INT_ATTRIBUTE = 1, 6, 2


def varint(value):
    text = b""
    while value > 127:
        text, value = text + bytes([value & 127 | 128]), value >> 7
    return text + bytes([value])


def field(number, value):
    """A number, or what has a length: text, or a message as the list of its fields."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    body = value.encode() if isinstance(value, str) else b"".join(value)
    return varint(number << 3 | 2) + varint(len(body)) + body


def value_info(name, kind, shape):
    dims = field(2, [field(1, [field(1, extent)]) for extent in shape])
    return [field(1, name), field(2, [field(1, [field(1, kind), dims])])]


def model(p, operator, inputs, outputs, attributes, results=()):
    """`inputs`: (name, kind, shape), or None for one that is left out. `results`: of the outputs, those that a run returns besides the first."""
    node = [field(1, given[0] if given else "") for given in inputs] + [field(2, name) for name in outputs]
    node += [field(4, operator), field(7, "com.microsoft")]
    node += [field(5, [field(1, name), field(3, value), field(20, INT_ATTRIBUTE)]) for name, value in attributes.items()]
    graph = [field(1, node), field(2, "attention")] + [field(11, value_info(*given)) for given in inputs if given]
    graph.append(field(12, value_info("out", FLOAT, (p.batch, p.q_len, p.heads * p.value_dim))))
    graph += [field(12, value_info(*result)) for result in results]
    opsets = [field(8, [field(1, domain), field(2, version)]) for domain, version in (("", 17), ("com.microsoft", 1))]
    return b"".join([field(1, 8), field(7, graph), *opsets])


def session(p, *given):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = p.threads, 1
    return ort.InferenceSession(model(p, *given), options, providers=["CPUExecutionProvider"])


def rows_of_heads(x):
    """[B,H,N,D] to [B,N,H*D]."""
    return np.ascontiguousarray(x.swapaxes(1, 2)).reshape(x.shape[0], x.shape[2], -1)


@guest.variant("full")
def full(p, _):
    if p.causal and p.q_len != p.kv_len and p.q_len != 1:
        raise attnguest.Refused("full@onnxruntime takes causal problems of as many queries as keys, or of one query")
    grouped, cached = p.kv_heads != p.heads, p.kv_heads != p.heads and p.q_len == 1 and p.kv_len > 1
    if grouped and (not p.causal or (p.q_len != p.kv_len and not cached) or p.head_dim != p.value_dim or p.head_dim % 8):
        raise attnguest.Refused("GroupQueryAttention takes causal self-attention or one query of a decode, and head_dim = value_dim, a multiple of 8")
    fresh = p.q_len if cached else p.kv_len
    inputs = [("q", FLOAT, (p.batch, p.q_len, p.heads * p.head_dim)), ("k", FLOAT, (p.batch, fresh, p.kv_heads * p.head_dim)),
              ("v", FLOAT, (p.batch, fresh, p.kv_heads * p.value_dim))]
    cache = (p.batch, p.kv_heads, p.kv_len, p.head_dim)
    if grouped:
        inputs += [("past_key", FLOAT, cache), ("past_value", FLOAT, cache)] if cached else [None, None]
        inputs += [("seqlens_k", INT32, (p.batch,)), ("total", INT32, (1,))]
        runner = session(p, "GroupQueryAttention", inputs, ["out", "present_key", "present_value"],
                         {"num_heads": p.heads, "kv_num_heads": p.kv_heads},
                         [("present_key", FLOAT, cache), ("present_value", FLOAT, cache)] if cached else [])
    else:
        runner = session(p, "MultiHeadAttention", inputs, ["out"],
                         {"num_heads": p.heads, "unidirectional": int(p.causal and p.q_len > 1)})

    def bound(t):
        binding = runner.io_binding()
        arrays = {"q": rows_of_heads(t.q), **{name: rows_of_heads(getattr(t, name)[:, :, p.kv_len - fresh:]) for name in "kv"}}
        if grouped:
            arrays["seqlens_k"] = np.full(p.batch, p.kv_len - 1, np.int32)
            arrays["total"] = np.array([p.kv_len], np.int32)
        t.kept = arrays  # the binding does not own them
        for name, array in arrays.items():
            binding.bind_cpu_input(name, array)
        if cached:  # the new token is written into the cache: past and present are one array, else each step copies them
            for name, array in (("key", t.k), ("value", t.v)):
                kept = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cpu")
                binding.bind_ortvalue_input("past_" + name, kept)
                binding.bind_ortvalue_output("present_" + name, kept)
                t.kept["past_" + name] = kept
        out = ort.OrtValue.ortvalue_from_shape_and_type((p.batch, p.q_len, p.heads * p.value_dim), np.float32, "cpu")
        binding.bind_ortvalue_output("out", out)
        return binding, out

    def run(t):
        if not hasattr(t, "bound"):
            t.bound = bound(t)
        binding, out = t.bound
        runner.run_with_iobinding(binding)
        return out
    return run


def heads_of_rows(out):
    p = guest.problem
    return np.ascontiguousarray(out.numpy().reshape(p.batch, p.q_len, p.heads, p.value_dim).swapaxes(1, 2))


guest.finish = heads_of_rows

if __name__ == "__main__":
    attnguest.serve(guest)
