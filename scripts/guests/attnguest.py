#!/usr/bin/env python3
"""What a guest of attnbench in Python is made of; README.md beside this file has the protocol.

    attnguest.py FILE.py            serves the function attention(q, k, v, causal) of a file
    attnguest.serve(Guest(...))     in a program: for a framework, with several variants

What a guest prints goes to stderr: its stdout belongs to the protocol.
"""
import json
import os
import sys
import time
import types

PROTOCOL = 1


class Refused(Exception):
    """The guest does not do what it was asked, which is no fault: one sentence."""


class Guest:
    """Variants by id. Each is made by a function of (problem, options) that returns run(tensors), which returns the output.

    problem:  batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim, causal, dtype, kv_dtype, pass_; scale = 1/sqrt(head_dim);
              threads
    options:  all of the variant's, as text
    tensors:  q [B,H,N,D], k [B,Hk,M,D], v [B,Hk,M,Dv], what else the variant reads, and `parameters`, a dict; each as `convert`
              gives it: convert(array, dtype) of a NumPy array, where bf16 comes as uint16
    finish:   of an output, a NumPy array of float32
    """

    def __init__(self, name, title, dtypes=("f32",), convert=None, finish=None, version=None):
        self.name, self.title, self.dtypes = name, title, dtypes
        self.convert = convert or (lambda array, dtype: array)
        self.finish = finish or (lambda out: out)
        self.version = version or (lambda: title)
        self.variants = {}  # id: (maker, what "hello" says of it)
        self.missing = None  # what to install, where nothing can be run
        self.references = {}  # id: function of (problem, options, tensors) in the tensors' own type
        self.descriptions = {}  # id: function of (problem, options)

    def variant(self, name, **about):
        def register(maker):
            self.variants[name] = (maker, about)
            return maker
        return register

    # The questions.

    def hello(self, _):
        return {"protocol": PROTOCOL, "name": self.name, "title": self.title, "dtypes": list(self.dtypes),
                "variants": {name: about for name, (_, about) in self.variants.items()}}

    def plan(self, question):
        if self.missing:
            raise Refused(self.missing)
        self.name_of_plan = question["variant"]
        if self.name_of_plan not in self.variants:
            raise Refused(f"{self.name} does not have {self.name_of_plan}")
        self.problem = problem_of(question["problem"])
        self.problem.threads = question["threads"]
        self.options, self.folder = question["options"], question["folder"]
        self.run_plan = self.variants[self.name_of_plan][0](self.problem, self.options)
        self.tensors = self.out = None
        return {"note": self.version()}

    def load(self, question):
        self.tensors = self.tensors_of(question)
        return {}

    def run(self, question):
        run, tensors = self.run_plan, self.tensors
        begin = time.perf_counter()
        for _ in range(question["times"]):
            out = run(tensors)
        seconds = time.perf_counter() - begin
        self.out = out
        return {"seconds": seconds}

    def output(self, _):
        return self.saved("out.npy", self.finish(self.out))

    def reference(self, question):
        return self.saved("reference_out.npy",
                          self.references[self.name_of_plan](self.problem, self.options, self.tensors_of(question)))

    def describe(self, question):
        return self.descriptions[question["variant"]](problem_of(question["problem"]), question["options"])

    # Files.

    def tensors_of(self, question):
        def read(files):
            return {name: self.convert(mapped(os.path.join(self.folder, about["file"])), about["dtype"])
                    for name, about in files.items()}
        return types.SimpleNamespace(**read(question["inputs"]), parameters=read(question["parameters"]))

    def saved(self, name, array):
        import numpy
        numpy.save(os.path.join(self.folder, name), array)
        return {"file": name}


def problem_of(given):
    problem = types.SimpleNamespace(**{("pass_" if name == "pass" else name): value for name, value in given.items()})
    problem.scale = problem.head_dim**-0.5
    return problem


def mapped(path):
    """The array in the file, without a copy. Every page is touched: reading it first is not the run's to pay."""
    import numpy
    array = numpy.load(path, mmap_mode="c").view(numpy.ndarray)
    array.reshape(-1).view(numpy.uint8)[::4096].max(initial=0)
    return array


def serve(guest):
    """Answers questions until there are none."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        question = json.loads(line)
        try:
            answer = getattr(guest, question["ask"])(question)
        except Refused as why:
            answer = {"refused": str(why)}
        except Exception as why:  # whatever a framework or a user's function throws
            answer = {"error": f"{type(why).__name__}: {why}"[:1000]}
        answers.write(json.dumps(answer).encode() + b"\n")


# A file of functions.

ABOUT = ("title", "formula", "paper", "cost_in_n", "exactness", "causality", "cross", "grouped_heads", "heads_independent",
         "time_exponent", "options")


def functions_of(path):
    import importlib.util
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named(options, usual):
    """Options as text in the types that the file gave them."""
    def typed(text, value):
        return text == "yes" if isinstance(value, bool) else type(value)(text)
    return {name: typed(text, usual[name]) for name, text in options.items() if name in usual}


def guest_of(module):
    """The guest that a file of functions is: attention(q, k, v, causal, **options, **parameters), and perhaps reference (the same
    in the type of its arguments), cost(problem, **options), parameters(problem, **options), supports(problem, **options)."""
    if not callable(getattr(module, "attention", None)):
        raise SystemExit(f"{module.__file__} has no function attention(q, k, v, causal)")
    torch = getattr(module, "framework", "numpy") == "torch"
    usual = getattr(module, "options", {})

    def convert(array, dtype):
        if not torch:
            return array
        import torch as framework
        return framework.from_numpy(array)

    def finish(out):
        import numpy
        if out is None:
            raise TypeError("the function returned nothing")
        if hasattr(out, "detach"):
            out = out.detach().cpu().numpy()
        return numpy.ascontiguousarray(out)

    def as_float(out):
        import numpy
        return finish(out).astype(numpy.float32, copy=False)

    guest = Guest("python", os.path.basename(module.__file__), convert=convert, finish=as_float)
    name = getattr(module, "name", module.__name__)

    def call(function, problem, options, tensors):
        return function(tensors.q, tensors.k, tensors.v, problem.causal, **named(options, usual), **tensors.parameters)

    def maker(problem, options):
        why = module.supports(problem, **named(options, usual)) if hasattr(module, "supports") else None
        if why:
            raise Refused(why)
        return lambda tensors: call(module.attention, problem, options, tensors)

    def described(problem, options):
        given = named(options, usual)
        parameters = module.parameters(problem, **given) if hasattr(module, "parameters") else {}
        return {"cost": module.cost(problem, **given) if hasattr(module, "cost") else {},
                "parameters": {key: value if isinstance(value, dict) else {"shape": list(value)} for key, value in parameters.items()}}

    about = {key: getattr(module, key) for key in ABOUT if hasattr(module, key)}
    about["reference"] = hasattr(module, "reference")
    about["describes"] = hasattr(module, "cost") or hasattr(module, "parameters")
    guest.variants[name] = (maker, about)
    guest.descriptions[name] = described
    if about["reference"]:
        def reference(problem, options, tensors):
            out = finish(call(module.reference, problem, options, tensors))
            return out.astype(finish(tensors.q).dtype, copy=False)
        guest.references[name] = reference
    return guest


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("attnguest.py FILE.py serves the functions of a file")
    serve(guest_of(functions_of(sys.argv[1])))
