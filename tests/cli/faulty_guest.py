"""A guest made to fail, so that the harness can be seen to notice and to survive it: faulty_guest.py HOW [MARK]. It speaks the
protocol by itself, and otherwise computes full attention. MARK is for who looks for its processes."""
import json
import os
import signal
import sys
import time

import numpy

how = sys.argv[1]
answers = os.fdopen(1, "wb", buffering=0, closefd=False)
folder, tensors, problem = None, {}, None


def daemon():
    """A process that leaves the group, the session and its parent behind."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.close(0), os.close(1), os.close(2)
            time.sleep(600)
        os._exit(0)


def attention():
    q, k, v = (tensors[name] for name in "qkv")
    logits = q @ k.swapaxes(-1, -2) / numpy.float32(problem["head_dim"] ** 0.5)
    if problem["causal"]:
        logits = numpy.where(numpy.tri(problem["q_len"], problem["kv_len"], problem["kv_len"] - problem["q_len"]), logits, -numpy.inf)
    weights = numpy.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def hello(_):
    if how == "hello_dies":
        print("there is no such library", file=sys.stderr)
        sys.exit(3)
    if how == "hello_hangs":
        time.sleep(600)
    if how == "hello_noise":
        return "ready\n"
    variants = {"full": {}, "faulty": {"reference": True}} if how in ("none", "wrong", "reference_shape") else {"full": {}}
    return {"protocol": 2 if how == "hello_protocol" else 1, "name": how if how != "hello_name" else "Nay!", "dtypes": ["f32", "bf16"],
            "variants": {} if how == "hello_nothing" else variants}


def plan(question):
    global folder, problem
    folder, problem = question["folder"], question["problem"]
    if how == "refuse":
        return {"refused": "takes no problems on Mondays"}
    if how == "daemon":
        daemon()
    if how == "plan_dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    return {"note": f"threads={os.environ['OMP_NUM_THREADS']} processors={sorted(os.sched_getaffinity(0))}"}


def load(question):
    for name, about in question["inputs"].items():
        tensors[name] = numpy.load(os.path.join(folder, about["file"]), mmap_mode="r")
        if about["dtype"] == "bf16":
            tensors[name] = (tensors[name].astype(numpy.uint32) << 16).view(numpy.float32)
        tensors[name].sum()
    return {}


def run(question):
    if how in ("hang", "fork_hang"):
        if how == "fork_hang":
            daemon()
        time.sleep(600)
    if how == "die":
        print("out of patience", file=sys.stderr)
        sys.exit(7)
    if how == "noise":
        answers.write(b"step 1 of 3\n")
    if how == "flood":
        for _ in range(1 << 10):
            answers.write(b"x" * (1 << 20))
    if how == "json":
        return '{"seconds": 0.1\n'
    if how == "list":
        return "[]\n"
    if how == "error":
        return {"error": "ValueError: shapes do not match"}
    begin = time.perf_counter()
    for _ in range(question["times"]):
        tensors["out"] = attention()
        if how == "hog":
            numpy.ones(32 << 20, numpy.uint8)
    seconds = time.perf_counter() - begin
    return {"lie": {"seconds": seconds / 2}, "lie_more": {"seconds": 1e3 * seconds}, "lie_nothing": {"seconds": 0},
            "no_seconds": {"time": seconds}, "text": {"seconds": "soon"}}.get(how, {"seconds": seconds})


def output(_):
    out, path = tensors["out"].astype(numpy.float32), os.path.join(folder, "out.npy")
    if how == "shape":
        out = out[..., :-1]
    if how == "dtype":
        out = out.astype(numpy.float64)
    if how == "nan":
        out[..., 0] = numpy.nan
    if how == "rounded":  # to bf16, by cutting off
        out = (out.view(numpy.uint32) & 0xffff0000).view(numpy.float32)
    if how == "wrong":
        out = out + numpy.float32(0.1)
    numpy.save(path, out)
    if how == "big":
        os.truncate(path, 1 << 30)
    if how == "link":
        os.remove(path)
        os.symlink("/etc/hostname", path)
    if how == "pipe":
        os.remove(path)
        os.mkfifo(path)
    if how == "no_file":
        os.remove(path)
    return {"path": {"file": "../../etc/hostname"}, "absolute": {"file": "/etc/hostname"}, "no_name": {}}.get(how, {"file": "out.npy"})


def reference(question):
    load(question)
    out = attention()
    if how == "reference_shape":
        out = out[:, :, :1]
    numpy.save(os.path.join(folder, "reference.npy"), out)
    return {"file": "reference.npy"}


for line in sys.stdin.buffer:
    asked = json.loads(line)
    answer = {"hello": hello, "plan": plan, "load": load, "run": run, "output": output, "reference": reference}[asked["ask"]](asked)
    answers.write(answer.encode() if isinstance(answer, str) else json.dumps(answer).encode() + b"\n")
