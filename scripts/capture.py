#!/usr/bin/python3
"""Q, K and V of every attention in a model, as a folder that attn_sweep --input npz:FOLDER/ reads.

  capture.py model.onnx --feed x=x.npy -o captured/          one .npz a layer, and capture.json
  capture.py model.onnx --feed x=normal:1,3,48,320            without data at hand: normal numbers of that shape

Found are MatMul, scale, mask, Softmax, MatMul in their usual orders (Einsum too), and the operators Attention, MultiHeadAttention and
GroupQueryAttention. The model runs once, by ONNX Runtime. Each capture is checked: full attention on it must give the output that
the model had there. Of PyTorch:

  from capturetorch import capture_torch                      with scripts/ in PYTHONPATH
  with capture_torch("captured/", model="mine"):
      model(x)                                                every scaled_dot_product_attention and nn.MultiheadAttention in it

exit codes: 0 captured, 1 some layer does not give the model's output, 2 bad input, 5 no attention found
"""
import argparse
import re
import shlex
import sys
from pathlib import Path

import numpy as np

import captured
from attncsv import Refusal, render, script
from captured import NotAttention
from capturefolder import SAID, Folder, table_of

NUMBERS = {1: "float32", 10: "float16", 11: "float64", 7: "int64", 6: "int32", 9: "bool", 2: "uint8", 3: "int8", 5: "int16", 4: "uint16"}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("--feed", action="append", default=[], metavar="NAME=VALUE",
                   help="an input: FILE.npy, or normal:SHAPE, zeros:SHAPE, ones:SHAPE, count:SHAPE; or FILE.npz with all of them")
    p.add_argument("-o", "--out", default="captured", metavar="FOLDER", help="default: captured/")
    p.add_argument("--dtype", choices=["f32", "f16"], default="f32", help="of the arrays that are written")
    p.add_argument("--with-output", action="store_true", help="the model's own output, too, as `output`")
    p.add_argument("--threads", type=int, default=1, help="of ONNX Runtime")
    p.add_argument("--name", help="of the model (default: the file's)")
    p.add_argument("--force", action="store_true", help="replace what the folder holds")
    p.add_argument("--format", choices=["text", "md", "csv", "json"], default="text")
    return p.parse_args()


def inputs_of(model):
    """{name: (dtype, [extent or its name])} of the inputs that must be fed."""
    stored = {tensor.name for tensor in model.graph.initializer}
    told = {}
    for value in model.graph.input:
        if value.name not in stored:
            kind = value.type.tensor_type
            told[value.name] = (NUMBERS.get(kind.elem_type, f"type {kind.elem_type}"),
                                [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim])
    return told


def described(name, told):
    dtype, extents = told
    return f"'{name}' ({dtype} [{','.join(map(str, extents))}])"


def made(kind, shape, dtype):
    """An array of a shape, without data at hand; the same each time."""
    try:
        extents = [int(extent) for extent in shape.split(",")]
        if min(extents) < 0 or np.prod(extents) > 2**31:
            raise ValueError
    except ValueError:
        raise Refusal(f"--feed: '{shape}' is not a shape such as 1,3,48,320") from None
    count = int(np.prod(extents))
    values = {"normal": lambda: np.random.Generator(np.random.Philox(1)).standard_normal(count), "zeros": lambda: np.zeros(count),
              "ones": lambda: np.ones(count), "count": lambda: np.arange(count)}[kind]()
    return values.reshape(extents).astype(dtype)


def loaded(path):
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise Refusal(f"--feed: '{path}' does not exist") from None
    except (OSError, ValueError, EOFError) as error:
        raise Refusal(f"--feed: '{path}' is no .npy or .npz file of numbers: {error}") from None


def fitted(name, array, told):
    """The array as the model takes it; refuses one that it cannot take."""
    dtype, extents = told
    if len(array.shape) != len(extents) or any(isinstance(e, int) and e > 0 and e != given for e, given in zip(extents, array.shape)):
        raise Refusal(f"--feed {name}: shape [{','.join(map(str, array.shape))}] is not that of {described(name, told)}")
    if array.dtype.kind not in "fiub" or (array.dtype.kind == "f") != dtype.startswith("float"):
        raise Refusal(f"--feed {name}: {array.dtype} is given, {dtype} is accepted")
    return array.astype(dtype)


def read_feeds(given, wanted):
    """{input: array} of --feed."""
    feeds = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            archive = loaded(text)
            if not hasattr(archive, "files"):
                raise Refusal(f"--feed '{text}' does not say which input it is: NAME={text}")
            feeds.update({member: archive[member] for member in archive.files})
            continue
        kind, colon, shape = value.partition(":")
        if name not in wanted:
            raise Refusal(f"--feed {name}: the model has no such input; it has {', '.join(described(*item) for item in wanted.items())}")
        if colon and kind in ("normal", "zeros", "ones", "count"):
            feeds[name] = made(kind, shape, wanted[name][0])
        else:
            feeds[name] = loaded(value)
    unknown = [name for name in feeds if name not in wanted]
    if unknown:
        raise Refusal(f"--feed {unknown[0]}: the model has no such input; it has {', '.join(described(*item) for item in wanted.items())}")
    unfed = [described(name, told) for name, told in wanted.items() if name not in feeds]
    if unfed:
        raise Refusal(f"not fed: {', '.join(unfed)}; give --feed NAME=FILE.npy or --feed NAME=normal:SHAPE")
    return {name: fitted(name, array, wanted[name]) for name, array in feeds.items()}


def run_model(path, model, feeds, threads):
    """[(layer, Attention or NotAttention)] of every attention found."""
    import onnxattention
    import onnxrun
    graph, layers = onnxattention.find(model, Path(path).parent)
    if not layers:
        raise Refusal(f"'{path}' has no attention; sought in its main graph: {'; '.join(onnxattention.SOUGHT)}", 5)
    known, asked = dict(feeds), []
    for name in dict.fromkeys(name for layer in layers for name in layer.wants if name):
        constant = graph.constant(name)
        if constant is not None:
            known[name] = constant
        elif name not in known:
            asked.append(name)
    known.update(onnxrun.run(path, model, feeds, asked, threads))
    batch = max(1, next((array.shape[0] for array in feeds.values() if array.ndim), 1))
    found = []
    for layer in layers:
        try:
            found.append((layer, layer.attention(known, batch)))
        except NotAttention as why:
            found.append((layer, why))
    return found


def conclude(folder, records, style):
    """Prints what was captured; an exit code."""
    if style in ("json", "csv"):
        print(render(records, ["file", "layer", "pattern", "batch", "heads", "kv_heads", "q_len", "kv_len", "head_dim", "value_dim", "causal",
                               "mask", "scale", "difference", "difference_without_mask", "agrees", "why_not"], style), end="")
    else:
        print(render(table_of(records), SAID, style))
        for r in records:
            for note in r.get("notes", []):
                print(f"{r['file']}: {note}.")
        masked = [r["file"] for r in records if r.get("mask", "none") != "none"]
        if masked:
            print(f"{', '.join(masked)}: variants that take a mask (full, full@unfused, windows) see it, others refuse; ',mask=none' behind the "
                  f"input leaves it out, and full attention is then "
                  f"{max(r['difference_without_mask'] for r in records if r.get('mask', 'none') != 'none'):.1g} off.")
        if any(r["file"] for r in records):
            print(f"attn_sweep --input npz:{shlex.quote(str(folder).rstrip('/') + '/')} --variants full,local,clustered,nystrom,performer")
    if not any(r["file"] for r in records):
        return 5
    return 0 if all(r["agrees"] for r in records if r["file"]) else 1


def main():
    args = arguments()
    try:
        import onnxrun
    except ImportError as missing:
        raise Refusal(f"{missing.name} is missing for {sys.executable}; scripts/setup.sh --capture installs it") from None
    if args.threads < 1:
        raise Refusal("--threads must be at least 1")
    model = onnxrun.load(args.model)
    feeds = read_feeds(args.feed, inputs_of(model))
    found = run_model(args.model, model, feeds, args.threads)
    name = args.name or re.sub(r"\.onnx$", "", Path(args.model).name)
    try:
        folder = Folder(args.out, name, args.dtype, args.with_output, args.force)
    except ValueError as why:
        raise Refusal(str(why)) from None
    records = folder.write([a if isinstance(a, captured.Attention) else (layer.layer, a) for layer, a in found],
                           "capture.py " + shlex.join(sys.argv[1:]))
    return conclude(args.out, records, args.format)


if __name__ == "__main__":
    script(main)
