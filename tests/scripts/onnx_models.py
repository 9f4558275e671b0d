"""ONNX models with one attention each, written out node by node as exporters do, and what their Q, K and V must be."""
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BATCH, HEADS, N, DIM = 2, 4, 6, 8
WIDTH = HEADS * DIM
RNG = np.random.Generator(np.random.Philox(7))
X = RNG.standard_normal((BATCH, N, WIDTH)).astype(np.float32)
W = {name: (RNG.standard_normal((WIDTH, WIDTH)) / 4).astype(np.float32) for name in "qkv"}


def heads(x, count=HEADS):
    """[B,N,H*D] as [B,H,N,D]."""
    return x.reshape(*x.shape[:2], count, -1).transpose(0, 2, 1, 3)


Q, K, V = (heads(X @ W[name]) for name in "qkv")

BIAS = RNG.standard_normal((HEADS, N, N)).astype(np.float32)


class Model:
    """Nodes in order; a tensor is called as the node that makes it, a constant as it is added."""

    def __init__(self, opset=17, domains=(), ir=8):
        self.nodes, self.stored, self.inputs, self.opset, self.domains, self.ir = [], [], [], opset, domains, ir

    def add(self, op, *inputs, outputs=1, domain="", name=None, **told):
        name = name or f"{op}_{len(self.nodes)}"
        names = [f"{name}_out{i}" if i else f"{name}_out" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=name, domain=domain, **told))
        return names[0] if outputs == 1 else names

    def constant(self, value):
        name = f"constant_{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def input(self, name, shape, kind=TensorProto.FLOAT):
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def save(self, path, *outputs):
        graph = helper.make_graph(self.nodes, "test", self.inputs, [onnx.ValueInfoProto(name=name) for name in outputs], self.stored)
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in self.domains)]
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = self.ir
        onnx.save(model, str(path))
        return path

    # What most models begin with: q, k and v from x, heads apart.
    def projected(self, name, perm=(0, 2, 1, 3)):
        flat = self.add("MatMul", "x", self.constant(W[name]))
        apart = self.add("Reshape", flat, self.constant(np.array([0, 0, HEADS, -1])))
        return self.add("Transpose", apart, perm=list(perm))

    def start(self):
        self.input("x", ["batch", "tokens", WIDTH])
        return self

    def number(self, value):
        return self.constant(np.float32(value))

    def softmax(self, scores):
        return self.add("Softmax", scores, axis=-1)


def lower(value):
    return np.where(np.tri(N, dtype=bool), np.float32(0), np.float32(value))


def scale_behind(path, op="Div", by=np.sqrt(DIM)):
    m = Model().start()
    scores = m.add("MatMul", m.projected("q"), m.projected("k", (0, 2, 3, 1)), name="/layer0/scores")
    out = m.add("MatMul", m.softmax(m.add(op, scores, m.number(by))), m.projected("v"))
    return m.save(path, out)


def scale_before(path):
    m = Model(opset=12).start()
    q = m.add("Mul", m.projected("q"), m.number(DIM**-0.5))
    scores = m.add("MatMul", q, m.projected("k", (0, 2, 3, 1)))
    return m.save(path, m.add("MatMul", m.add("Softmax", scores, axis=3), m.projected("v")))


def scale_on_both(path):
    """As PyTorch writes scaled_dot_product_attention: the scale from a shape, its root on both sides, a causal mask added."""
    m = Model().start()
    q, k = m.projected("q"), m.projected("k", (0, 2, 3, 1))
    extent = m.add("Gather", m.add("Shape", q), m.constant(np.array(-1)))
    root = m.add("Sqrt", m.add("Div", m.number(1), m.add("Sqrt", m.add("Cast", extent, to=TensorProto.FLOAT))))
    scores = m.add("MatMul", m.add("Mul", q, root), m.add("Mul", k, root))
    weights = m.softmax(m.add("Add", scores, m.constant(lower(-np.inf))))
    return m.save(path, m.add("MatMul", weights, m.projected("v")))


def causal_by_where(path):
    m = Model().start()
    scores = m.add("Mul", m.add("MatMul", m.projected("q"), m.projected("k", (0, 2, 3, 1))), m.number(DIM**-0.5))
    masked = m.add("Where", m.constant(~np.tri(N, dtype=bool)), m.number(-1e9), scores)
    return m.save(path, m.add("MatMul", m.add("Cast", m.softmax(masked), to=TensorProto.FLOAT), m.projected("v")))


def causal_by_product(path):
    """As GPT-2 was written: scores * mask - 10000 * (1 - mask)."""
    m = Model().start()
    seen = np.tri(N, dtype=np.float32)
    scores = m.add("Div", m.add("MatMul", m.projected("q"), m.projected("k", (0, 2, 3, 1))), m.number(np.sqrt(DIM)))
    masked = m.add("Sub", m.add("Mul", scores, m.constant(seen)), m.constant((1 - seen) * np.float32(10000)))
    return m.save(path, m.add("MatMul", m.softmax(masked), m.projected("v")))


def padded(path):
    """As BERT: (1 - mask) * -10000 of a mask that is fed."""
    m = Model().start()
    m.input("mask", ["batch", "tokens"])
    hidden = m.add("Mul", m.add("Sub", m.number(1), "mask"), m.number(-10000))
    hidden = m.add("Unsqueeze", hidden, m.constant(np.array([1, 2])))
    scores = m.add("Div", m.add("MatMul", m.projected("q"), m.projected("k", (0, 2, 3, 1))), m.number(np.sqrt(DIM)))
    return m.save(path, m.add("MatMul", m.softmax(m.add("Add", scores, hidden)), m.projected("v")))


def biased(path, bias_first=False):
    """A bias of each head, itself a product: a relative position's."""
    m = Model().start()
    bias = m.add("MatMul", m.constant(np.linalg.qr(RNG.standard_normal((HEADS, N, N)))[0].astype(np.float32)), m.input("b", [HEADS, N, N]))
    scores = m.add("Div", m.add("MatMul", m.projected("q"), m.projected("k", (0, 2, 3, 1))), m.number(np.sqrt(DIM)))
    return m.save(path, m.add("MatMul", m.softmax(m.add("Add", *([bias, scores] if bias_first else [scores, bias]))), m.projected("v")))


def einsum(path):
    """Heads stay behind tokens: bihd,bjhd->bhij."""
    m = Model().start()
    apart = [m.add("Reshape", m.add("MatMul", "x", m.constant(W[name])), m.constant(np.array([0, 0, HEADS, -1]))) for name in "qkv"]
    scores = m.add("Mul", m.add("Einsum", *apart[:2], equation="bihd,bjhd->bhij"), m.number(DIM**-0.5))
    return m.save(path, m.add("Einsum", m.softmax(scores), apart[2], equation="bhij,bjhd->bihd"))


def heads_and_sequences_as_one(path):
    """[B*H,N,D], with the mask added while they are apart: as BLOOM."""
    m = Model().start()
    joint = [m.add("Reshape", m.projected(name), m.constant(np.array([-1, N, DIM]))) for name in "qkv"]
    scores = m.add("MatMul", joint[0], m.add("Transpose", joint[1], perm=[0, 2, 1]))
    apart = m.add("Reshape", m.add("Mul", scores, m.number(DIM**-0.5)), m.constant(np.array([BATCH, HEADS, N, N])))
    masked = m.add("Reshape", m.softmax(m.add("Add", apart, m.constant(lower(-1e9)))), m.constant(np.array([-1, N, N])))
    return m.save(path, m.add("MatMul", masked, joint[2]))


def groups_as_an_axis(path):
    """Heads of queries in groups, [B,Hk,G,N,D], by heads of keys, [B,Hk,1,D,M]."""
    m = Model().start()
    q = m.add("Transpose", m.add("Reshape", m.add("MatMul", "x", m.constant(W["q"])), m.constant(np.array([0, 0, 2, 2, DIM]))), perm=[0, 2, 3, 1, 4])
    k, v = (m.add("Reshape", m.add("MatMul", "x", m.constant(W[name][:, :2 * DIM])), m.constant(np.array([0, 0, 2, 1, DIM]))) for name in "kv")
    scores = m.add("Mul", m.add("MatMul", q, m.add("Transpose", k, perm=[0, 2, 3, 4, 1])), m.constant(np.float32([DIM**-0.5])))
    return m.save(path, m.add("MatMul", m.softmax(scores), m.add("Transpose", v, perm=[0, 2, 3, 1, 4])))


# Of the windows of one image, which are its batch: some see only half of theirs.
SHIFTED = np.where((np.arange(N) < N // 2)[:, None] == (np.arange(N) < N // 2), np.float32(0), np.float32(-100))


def windows(path):
    """As Swin: a bias of each head, then, with the windows of an image apart, a mask of each window that hides by -100."""
    m = Model().start()
    scores = m.add("MatMul", m.add("Mul", m.projected("q"), m.number(DIM**-0.5)), m.projected("k", (0, 2, 3, 1)))
    biased = m.add("Add", scores, m.constant(BIAS[None]))
    apart = m.add("Reshape", biased, m.constant(np.array([-1, BATCH, HEADS, N, N])))
    masks = np.stack([np.zeros_like(SHIFTED), SHIFTED])[None, :, None]
    whole = m.add("Reshape", m.add("Add", apart, m.constant(masks)), m.constant(np.array([-1, HEADS, N, N])))
    return m.save(path, m.add("MatMul", m.softmax(whole), m.projected("v")))


PAST = 3


def with_a_past(path):
    """Queries behind keys and values that are fed, all visible but the later ones: a chunk of a prompt."""
    m = Model().start()
    fed = [m.input(name, [BATCH, HEADS, PAST, DIM]) for name in ("past_k", "past_v")]
    k, v = (m.add("Concat", past, m.projected(name), axis=2) for past, name in zip(fed, "kv"))
    scores = m.add("Div", m.add("MatMul", m.projected("q"), m.add("Transpose", k, perm=[0, 1, 3, 2])), m.number(np.sqrt(DIM)))
    mask = np.where(np.tri(N, N + PAST, PAST, dtype=bool), np.float32(0), np.float32(np.finfo(np.float32).min))
    return m.save(path, m.add("MatMul", m.softmax(m.add("Add", scores, m.constant(mask[None, None]))), v))


def in_half_precision(path):
    m = Model()
    m.input("x", ["batch", "tokens", WIDTH])
    x = m.add("Cast", "x", to=TensorProto.FLOAT16)
    apart = [m.add("Transpose", m.add("Reshape", m.add("MatMul", x, m.constant(W[name].astype(np.float16))), m.constant(np.array([0, 0, HEADS, -1]))),
                   perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]) for name in "qkv"]
    scores = m.add("Mul", m.add("MatMul", *apart[:2]), m.constant(np.float16(DIM**-0.5)))
    return m.save(path, m.add("MatMul", m.softmax(scores), apart[2]))


def grouped(path):
    """Two heads of keys and values, each repeated for two heads of queries by Expand."""
    m = Model().start()
    repeated = {}
    for name in "kv":
        some = m.add("MatMul", "x", m.constant(W[name][:, :2 * DIM]))
        apart = m.add("Transpose", m.add("Reshape", some, m.constant(np.array([0, 0, 2, -1]))), perm=[0, 2, 1, 3])
        wide = m.add("Expand", m.add("Unsqueeze", apart, m.constant(np.array([2]))), m.constant(np.array([BATCH, 2, 2, N, DIM])))
        repeated[name] = m.add("Reshape", wide, m.constant(np.array([BATCH, HEADS, N, DIM])))
    scores = m.add("MatMul", m.projected("q"), m.add("Transpose", repeated["k"], perm=[0, 1, 3, 2]))
    return m.save(path, m.add("MatMul", m.softmax(m.add("Mul", scores, m.number(DIM**-0.5))), repeated["v"]))


# Microsoft's operators and ONNX' own.

MS = "com.microsoft"


def ms_attention(path, **told):
    m = Model(domains=[MS]).start()
    weights = m.constant(np.concatenate([W[name] for name in "qkv"], axis=1))
    bias = m.constant(np.zeros(3 * WIDTH, np.float32))
    return m.save(path, m.add("Attention", "x", weights, bias, domain=MS, num_heads=HEADS, name="/a", **told))


def ms_multi_head(path, **told):
    m = Model(domains=[MS]).start()
    flat = [m.add("MatMul", "x", m.constant(W[name])) for name in "qkv"]
    return m.save(path, m.add("MultiHeadAttention", *flat, domain=MS, num_heads=HEADS, name="/mha", **told))


def ms_group_query(path, count=HEADS, rotary=0, packed=False):
    """`count` heads of queries on half as many of keys and values."""
    m, dim = Model(domains=[MS]).start(), WIDTH // count
    flat = [m.add("MatMul", "x", m.constant(W["q"]))] + [m.add("MatMul", "x", m.constant(W[name][:, :WIDTH // 2])) for name in "kv"]
    if packed:
        flat = [m.add("Concat", *flat, axis=2), "", ""]
    past = [m.constant(np.zeros((BATCH, count // 2, 0, dim), np.float32)) for _ in range(2)]
    angles = np.arange(16)[:, None] * 0.3 ** np.arange(dim // 2)
    tables = [m.constant(f(angles).astype(np.float32)) for f in (np.cos, np.sin)] if rotary else []
    out = m.add("GroupQueryAttention", *flat, *past, m.constant(np.full(BATCH, N - 1, np.int32)), m.constant(np.array(N, np.int32)), *tables,
                outputs=3, domain=MS, num_heads=count, kv_num_heads=count // 2, do_rotary=rotary, name="/gqa")
    return m.save(path, *out)


def onnx_attention(path, **told):
    m = Model(opset=23, ir=11).start()
    flat = [m.add("MatMul", "x", m.constant(W[name])) for name in "qkv"]
    return m.save(path, m.add("Attention", *flat, q_num_heads=HEADS, kv_num_heads=HEADS, name="/sdpa", **told))


def no_attention(path):
    """A classifier: a softmax behind a product, and no product behind it."""
    m = Model().start()
    return m.save(path, m.softmax(m.add("MatMul", "x", m.constant(W["q"]))))
