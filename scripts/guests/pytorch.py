#!/usr/bin/env python3
"""A guest: variants in idiomatic PyTorch, as a reader of the paper would write them. full is scaled_dot_product_attention."""
import attnguest

try:
    import torch
    from torch.nn import functional as F
    TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
    missing = None if hasattr(F, "scaled_dot_product_attention") else f"needs PyTorch 2.0 or newer, not {torch.__version__}: pip install torch"
except ImportError:
    torch, missing = None, "needs PyTorch: apt install python3-torch (Debian 13), or pip install torch"


def convert(array, dtype):
    if dtype == "bf16":
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)


def finish(out):
    return out.float().contiguous().numpy()


guest = attnguest.Guest("torch", "PyTorch", dtypes=("f32", "bf16", "f16"), convert=convert, finish=finish,
                        version=lambda: f"PyTorch {torch.__version__}")
guest.missing = missing


def variant(name, guest=guest):
    """Registers a maker: its runs keep no gradients, on as many threads as the problem has."""
    def register(maker):
        def on_threads(p, o):
            torch.set_num_threads(p.threads)
            run = maker(p, o)

            def without_gradients(t):
                with torch.inference_mode():
                    return run(t)
            return without_gradients
        guest.variants[name] = (on_threads, {})
        return maker
    return register


def positions(p):
    """Of queries [N,1] and keys [M]: the two sequences end together."""
    return torch.arange(p.kv_len - p.q_len, p.kv_len)[:, None], torch.arange(p.kv_len)


def visible(p):
    i, j = positions(p)
    return j <= i if p.causal else torch.ones(p.q_len, p.kv_len, dtype=torch.bool)


def refuse_rows_without_keys(p):
    if p.causal and p.q_len > p.kv_len:
        raise attnguest.Refused("scaled_dot_product_attention gives NaN for queries that see no key: takes q_len up to kv_len")


def per_query_head(x, p):
    return x if p.heads == p.kv_heads else x.repeat_interleave(p.heads // p.kv_heads, dim=1)


def sdpa(t, p, mask=None, is_causal=False):
    if p.heads == p.kv_heads:
        return F.scaled_dot_product_attention(t.q, t.k, t.v, attn_mask=mask, is_causal=is_causal)
    try:  # from 2.5 on
        return F.scaled_dot_product_attention(t.q, t.k, t.v, attn_mask=mask, is_causal=is_causal, enable_gqa=True)
    except TypeError:
        return F.scaled_dot_product_attention(t.q, per_query_head(t.k, p), per_query_head(t.v, p), attn_mask=mask, is_causal=is_causal)


@variant("full")
def full(p, _):
    refuse_rows_without_keys(p)
    if not p.causal or p.q_len == 1:
        return lambda t: sdpa(t, p)
    if p.q_len == p.kv_len:
        return lambda t: sdpa(t, p, is_causal=True)
    mask = visible(p)
    return lambda t: sdpa(t, p, mask)


@variant("local")
def local(p, o):
    i, j = positions(p)
    mask = visible(p) & (((i - j <= int(o["left"])) & (j - i <= int(o["right"]))) | (j < int(o["sinks"])))
    if not mask.any(-1).all():
        raise attnguest.Refused("scaled_dot_product_attention gives NaN for queries that see no key")
    return lambda t: sdpa(t, p, mask)


@variant("bigbird")
def bigbird(p, o):
    refuse_rows_without_keys(p)
    block, random = int(o["block"]), int(o["random"])
    blocks = -(-p.kv_len // block)
    u, v = torch.arange(blocks)[:, None], torch.arange(blocks)
    near = ((u - v).abs() <= 1) | (v == 0) | (u == 0)
    if not p.causal:
        near = near | (v == blocks - 1) | (u == blocks - 1)
    i, j = positions(p)

    def mask_of(t):
        allowed = near.expand(p.heads, blocks, blocks).clone()
        for r in range(random):
            chosen = t.parameters["random_blocks"][..., r].long()  # [H, blocks]; -1: none
            allowed |= F.one_hot(chosen.clamp(min=0), blocks).bool() & (chosen >= 0)[..., None]
        return allowed[:, (i // block)[:, 0]][:, :, j // block] & visible(p)

    def run(t):
        if not hasattr(t, "mask"):  # with the first run: the blocks do not change
            t.mask = mask_of(t)
        return sdpa(t, p, t.mask)
    return run


@variant("linear")
def linear(p, _):
    def phi(x):
        return F.elu(x) + 1

    def everything(t):
        q, k, v = phi(t.q), per_query_head(phi(t.k), p), per_query_head(t.v, p)
        return q @ (k.transpose(-1, -2) @ v) / (q @ k.sum(-2).unsqueeze(-1) + 1e-6)

    seen = visible(p)

    def causal(t):
        weights = (phi(t.q) @ per_query_head(phi(t.k), p).transpose(-1, -2)).masked_fill(~seen, 0)
        return weights @ per_query_head(t.v, p) / (weights.sum(-1, keepdim=True) + 1e-6)
    return causal if p.causal else everything


@variant("performer")
def performer(p, o):
    if p.causal or o["kernel"] != "positive":
        raise attnguest.Refused("performer@torch takes bidirectional problems and kernel=positive")
    root, plus, count, bare = p.scale**0.5, float(o["plus"]), int(o["m"]), float(o["plus"]) == 0

    def features(x, w, dims):
        x = x * root
        u = x @ w.transpose(0, 1)
        return torch.exp(u - x.square().sum(-1, keepdim=True) / 2 - u.amax(dims, keepdim=True)) + plus

    def run(t):
        w = t.parameters["W"].to(t.q.dtype)
        q, k, v = features(t.q, w, -1), features(per_query_head(t.k, p), w, (-1, -2)), per_query_head(t.v, p)
        n = q @ k.sum(-2).unsqueeze(-1) / count
        n = torch.where(n.abs() <= (0 if bare else 1e-6), n + (1 if bare else 2e-6), n)
        return q @ (k.transpose(-1, -2) @ v) / count / n
    return run


@variant("linformer")
def linformer(p, o):
    def run(t):
        e = t.parameters["E"][..., :p.kv_len].to(t.k.dtype)
        f = e if o["sharing"] == "kv" else t.parameters["F"][..., :p.kv_len].to(t.v.dtype)
        return sdpa(type(t)(q=t.q, k=e @ t.k, v=f @ t.v), p)
    return run


@variant("nystrom")
def nystrom(p, o):
    m = int(o["landmarks"])
    if int(o["conv"]) > 0:
        raise attnguest.Refused("nystrom@torch has no convolution: takes conv=0")
    if p.q_len <= m or p.kv_len <= m:
        return lambda t: sdpa(t, p)
    if p.q_len % m or p.kv_len % m:
        raise attnguest.Refused(f"nystrom@torch takes lengths that are multiples of landmarks={m}")

    def means(x):
        return x.unflatten(-2, (m, -1)).mean(-2)

    def weights(q, k):
        return torch.softmax(q @ k.transpose(-1, -2) * p.scale, dim=-1)

    def pseudo_inverse(a):
        eye = torch.eye(m, dtype=a.dtype)
        largest = a.abs().sum(-1).amax(-1) * a.abs().sum(-2).amax(-1)
        z = a.transpose(-1, -2) / largest[..., None, None]
        for _ in range(int(o["iterations"])):
            az = a @ z
            z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) / 4
        return z

    def run(t):
        q, k = means(t.q), means(t.k)
        middle = pseudo_inverse(weights(q, k).double()).to(t.q.dtype)
        return weights(t.q, k) @ (middle @ (weights(q, t.k) @ t.v))
    return run


def factors_of(p, o):
    """Buckets of the low and of the high digit; 0: there is none."""
    buckets = int(o["buckets"])
    if buckets == 0:
        buckets = 1 << (max(2, 2 * p.q_len // int(o["chunk"])).bit_length() - 1)
    if o["factors"] == "one" or buckets % 4 or buckets < 16:
        return buckets, 0
    high = max(f for f in range(2, int(buckets**0.5) + 1, 2) if buckets % f == 0 and buckets // f % 2 == 0)
    return buckets // high, high


@variant("reformer")
def reformer(p, o):
    if p.dtype != "f32":
        raise attnguest.Refused(f"reformer@torch takes f32: its normalized keys and sums over rounds miss the gate in {p.dtype}")
    chunk, rounds, before, after = (int(o[name]) for name in ("chunk", "rounds", "before", "after"))
    if o["keys"] != "shared" or o["wrap"] != "ring" or o["same_bucket"] != "no" or o["unique"] != "no" or p.q_len % chunk:
        raise attnguest.Refused(f"reformer@torch takes keys=shared, wrap=ring, same_bucket=no, unique=no, and lengths that are multiples of chunk={chunk}")
    low, high = factors_of(p, o)

    def digit(turned):
        return torch.cat([turned, -turned], -1).argmax(-1)

    def run(t):
        x, v = t.q, t.v
        turned = (x.float() @ t.parameters["rotations"]).unflatten(-1, (rounds, -1)).transpose(2, 3)  # [B,H,rounds,N,columns]
        bucket = digit(turned[..., :low // 2])
        if high:
            bucket = bucket + low * digit(turned[..., low // 2:])
        order = bucket.argsort(dim=-1, stable=True)  # [B,H,rounds,N]
        listed = order.flatten(2)

        def chunks(rows):
            return rows.gather(2, listed[..., None].expand(-1, -1, -1, rows.shape[-1])).unflatten(2, (-1, chunk))

        def window(parts):
            return torch.cat([parts.roll(shift, dims=2) for shift in range(before, -after - 1, -1)], dim=3)

        place = listed.unflatten(2, (-1, chunk))
        i, j = place[..., :, None], window(place)[..., None, :]
        logits = chunks(x) @ window(chunks(F.normalize(x, dim=-1))).transpose(-1, -2) * float(o["logit_scale"])
        unseen = (j > i) | (i == j) if p.causal else i == j
        logits = logits.masked_fill(unseen, float("-inf"))
        mass = torch.logsumexp(logits, -1, keepdim=True)
        outs = torch.exp(logits - mass.clamp(min=torch.finfo(mass.dtype).min)) @ window(chunks(v))
        back = order.argsort(dim=-1)[..., None]  # each round in the order of tokens
        mass = mass.flatten(2, 3).unflatten(2, (rounds, -1)).gather(3, back)
        outs = outs.flatten(2, 3).unflatten(2, (rounds, -1)).gather(3, back.expand(-1, -1, -1, -1, v.shape[-1]))
        total = torch.logsumexp(mass, 2, keepdim=True)
        out = (torch.exp(mass - total.clamp(min=torch.finfo(mass.dtype).min)) * outs).sum(2)
        return torch.where(torch.isneginf(total.squeeze(2)), v, out)  # who sees nobody else sees itself
    return run


@variant("fnet")
def fnet(p, _):
    return lambda t: torch.fft.fft2(t.q.float()).real


@variant("synth_random")
def synth_random(p, o):
    seen = visible(p)

    def run(t):
        if o["cached"] == "yes":
            return t.parameters["P"].to(t.v.dtype) @ t.v
        logits = t.parameters["R"][:, :p.q_len, :p.kv_len].masked_fill(~seen, float("-inf"))
        return torch.softmax(logits, dim=-1).to(t.v.dtype) @ t.v
    return run


if __name__ == "__main__":
    attnguest.serve(guest)
