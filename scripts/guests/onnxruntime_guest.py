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

guest = attnguest.Guest("onnxruntime", "ONNX Runtime", dtypes=("f32", "f16"), version=lambda: f"ONNX Runtime {ort.__version__}")
guest.missing = missing


# A model of one operator, in ONNX's protobuf (onnx.proto), so that the package onnx need not be there too.
FLOAT, INT32, FLOAT16, INT_ATTRIBUTE = 1, 6, 10, 2


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


def model(operator, inputs, outputs, attributes):
    """`inputs` and `outputs`: (name, kind, shape), or None for an input that is left out."""
    node = [field(1, given[0] if given else "") for given in inputs] + [field(2, given[0]) for given in outputs]
    node += [field(4, operator), field(7, "com.microsoft")]
    node += [field(5, [field(1, name), field(3, value), field(20, INT_ATTRIBUTE)]) for name, value in attributes.items()]
    graph = [field(1, node), field(2, "attention")] + [field(11, value_info(*given)) for given in inputs if given]
    graph += [field(12, value_info(*given)) for given in outputs]
    opsets = [field(8, [field(1, domain), field(2, version)]) for domain, version in (("", 17), ("com.microsoft", 1))]
    return b"".join([field(1, 8), field(7, graph), *opsets])


def session(p, *given):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = p.threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")  # with a run, or threads spin on the next one's processors
    return ort.InferenceSession(model(*given), options, providers=["CPUExecutionProvider"])


def rows_of_heads(x):
    """[B,H,N,D] to [B,N,H*D]."""
    return np.ascontiguousarray(x.swapaxes(1, 2)).reshape(x.shape[0], x.shape[2], -1)


def rows_of(p, kind):
    """Declarations of q, k and v as the operators take them, and of the output."""
    inputs = [("q", kind, (p.batch, p.q_len, p.heads * p.head_dim)), ("k", kind, (p.batch, p.kv_len, p.kv_heads * p.head_dim)),
              ("v", kind, (p.batch, p.kv_len, p.kv_heads * p.value_dim))]
    return inputs, ("out", kind, (p.batch, p.q_len, p.heads * p.value_dim))


def multi_head(p):
    inputs, out = rows_of(p, FLOAT)
    runner = session(p, "MultiHeadAttention", inputs, [out], {"num_heads": p.heads, "unidirectional": int(p.causal and p.q_len > 1)})
    return runner, lambda t: ({name: rows_of_heads(getattr(t, name)) for name in "qkv"}, {})


def grouped(p, kind):
    """The last q_len tokens after a cache of all, in whose memory the operator leaves theirs: keys are taken up within its time."""
    whole, new = p.kv_len == p.q_len, p.q_len
    inputs, out = rows_of(p, kind)
    inputs[1:] = [(name, kind, (p.batch, new, p.kv_heads * p.head_dim)) for name in "kv"]
    cache = (p.batch, p.kv_heads, p.kv_len, p.head_dim)
    inputs += [None, None] if whole else [("past_key", kind, cache), ("past_value", kind, cache)]
    inputs += [("seqlens_k", INT32, (p.batch,)), ("total", INT32, (1,))]
    runner = session(p, "GroupQueryAttention", inputs, [out, ("present_key", kind, cache), ("present_value", kind, cache)],
                     {"num_heads": p.heads, "kv_num_heads": p.kv_heads})

    def arrays(t):
        given = {"q": rows_of_heads(t.q), "seqlens_k": np.full(p.batch, p.kv_len - 1, np.int32), "total": np.array([p.kv_len], np.int32)}
        given.update({name: rows_of_heads(getattr(t, name)[:, :, -new:]) for name in "kv"})
        presents = {f"present_{name}": np.ascontiguousarray(cached).copy() for name, cached in (("key", t.k), ("value", t.v))}
        if not whole:
            given.update({name.replace("present", "past"): array for name, array in presents.items()})
        return given, presents
    return runner, arrays


@guest.variant("full")
def full(p, _):
    steps = p.causal and p.q_len != p.kv_len and p.q_len > 1
    if p.heads != p.kv_heads or p.dtype == "f16" or steps:
        if not (p.causal or p.q_len == 1) or p.q_len > p.kv_len or p.head_dim != p.value_dim or p.head_dim % 8:
            raise attnguest.Refused("GroupQueryAttention, which has grouped heads, f16 and causal queries after a cache, takes causal problems of "
                                    "q_len up to kv_len, and head_dim = value_dim, a multiple of 8")
        runner, arrays = grouped(p, FLOAT16 if p.dtype == "f16" else FLOAT)
    else:
        runner, arrays = multi_head(p)

    def bound(t):
        binding = runner.io_binding()
        given, presents = t.kept = arrays(t)  # the binding does not own them
        for name, array in given.items():
            binding.bind_cpu_input(name, array)
        for name, array in presents.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        out = ort.OrtValue.ortvalue_from_shape_and_type((p.batch, p.q_len, p.heads * p.value_dim), t.q.dtype.type, "cpu")
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
    rows = out.numpy().astype(np.float32, copy=False)
    return np.ascontiguousarray(rows.reshape(p.batch, p.q_len, p.heads, p.value_dim).swapaxes(1, 2))


guest.finish = heads_of_rows

if __name__ == "__main__":
    attnguest.serve(guest)
