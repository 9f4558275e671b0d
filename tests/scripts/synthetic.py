"""Sweep CSVs with planted times, memory and skill, for the tests of scripts/.

Columns are the real ones: tests/golden has them as attn_sweep and attn_train tell them beside a CSV.
"""
import csv
import io
import json
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {"host": "testhost", "cpu": "Test CPU", "packages": 1, "cores": 2, "usable_cores": 2,
           "caches": [{"level": 1, "bytes": 49152, "shared_by": 1}, {"level": 2, "bytes": 2097152, "shared_by": 1}],
           "isa_used": "avx2", "governor": "unsupported: no cpufreq"}


SWEEP = json.loads((ROOT / "tests/golden/columns.json").read_text())
TRAIN = json.loads((ROOT / "tests/golden/train_columns.json").read_text())
COLUMNS = [column["name"] for column in SWEEP]


def noisy(time_s, rng, noise, count=9, rounds=3, round_noise=0.0):
    """Samples of a cell: log-normal noise of each sample, and one that a round shares."""
    shared = np.repeat(rng.normal(0, round_noise, rounds), -(-count // rounds))[:count] if round_noise else 0
    return time_s * np.exp(rng.normal(0, noise, count) + shared)


def row(variant, n, samples=None, family="scores", exactness="approximation", status="ok", reason="", memory=2**20,
        skill=None, rounds=3, **more):
    """A CSV row as a dict; everything not given has a plausible value."""
    stem, _, options = variant.partition(":")
    name, _, implementation = stem.partition("@")
    fields = dict.fromkeys(COLUMNS, "")
    fields.update(schema=2, variant=name, options=options, implementation=implementation or "native", name=variant,
                  family=family, exactness=exactness, batch=1, heads=8, kv_heads=8,
                  q_len=n, kv_len=n, head_dim=64, value_dim=64, causal=0, dtype="f32", kv_dtype="f32", input="text", seed=1, threads=2,
                  isa="avx2", **{"pass": "forward"}, scope="mixer", lengths="equal", kv_layout="contiguous", cache="hot", ranks=1, shape="none", numa="local",
                  status=status, reason=reason, flops=4e3 * n * n, bytes=1024 * n, exps=n * n,
                  workspace_bytes=int(memory), parameter_bytes=0, peak_rss_bytes=int(memory), meters_agree=1,
                  started="2026-11-20T10:00:00Z", commit="abc123", peak_fma_gflops=100)
    if samples is not None and len(samples):
        low, middle, high = np.min(samples), np.median(samples), np.max(samples)
        fields.update(time_median_s=f"{middle:.6g}", time_mad_s=f"{np.median(abs(samples - middle)):.6g}",
                      time_min_s=f"{low:.6g}", time_ci_low_s=f"{low:.6g}", time_ci_high_s=f"{high:.6g}", samples=len(samples),
                      unstable=int(high - low > 0.1 * middle), gflops_per_s=f"{4e-6 * n * n / middle:.6g}", roof_fraction=0.5,
                      roof_binds="flops", ideal_time_s=f"{middle / 2:.6g}", samples_s=";".join(f"{s:.6g}" for s in samples))
    if skill is None:
        fields["fid_reason"] = "a different operator: distance to softmax attention says nothing"
    else:
        fields["fid_skill"] = f"{skill:.6g}"
    fields.update(more)
    fields["command"] = (
        f"attn_sweep --variants {variant} --n {n} --batch {fields['batch']} --heads {fields['heads']} --head-dim "
        f"{fields['head_dim']} --causal {'yes' if fields['causal'] else 'no'} --threads {fields['threads']} --isa "
        f"{fields['isa']} --input {fields['input']} --seed {fields['seed']}"
        f"{' --pass decode --step ' + str(fields['step']) if fields['pass'] == 'decode' else ''} --samples 9 --rounds {rounds} --sample-time 0.01")
    return fields


def text(rows, columns=None):
    out = io.StringIO()
    writer = csv.DictWriter(out, columns or COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write(path, rows, machine=None, columns=None, context=True, told=SWEEP):
    """`told`: what the context says of the columns; None: nothing."""
    path = Path(path)
    path.write_text(text(rows, columns))
    if context:
        facts = {"context_schema": 2, "date": "2026-11-20T10:00:00Z", "command_line": "attn_sweep --n '128..1024*2'",
                 "attnbench": {"version": "0.1.0", "commit": "abc123", "build_tag": "attnbench-0.1.0-gcc-12"},
                 "machine": machine or MACHINE, "build": {"compiler": "GNU 12.2.0", "flags": "-O3", "build_type": "Release"},
                 "libraries": {"onednn": "2.6.3"}, "environment": {},
                 "peaks": [{"isa": "avx2", "threads": 2, "fma_gflops": 100.0, "triad_gbs": 10.0, "exp_gexps": 5.0}]}
        if told is not None:
            facts.update(csv_schema=2, columns=told)
        path.with_name(path.name.removesuffix(".csv") + ".context.json").write_text(json.dumps(facts))
    return path


# What schema 1 had not, and what it called otherwise.
LATER = ("implementation", "name", "kv_dtype", "step", "lengths", "kv_layout", "cache", "tokens_per_s", "append_s", "state_bytes")


def write_schema1(path, rows, **more):
    """The same rows as the first attnbench wrote them: no word of the columns in the context."""
    old = []
    for row in rows:
        row = {**row, "schema": 1, "family": row["family"].replace("scores", "exact")}
        if row["implementation"] != "native":
            row["variant"] += "_" + row["implementation"]
        old.append({key: value for key, value in row.items() if key not in LATER})
    return write(path, old, columns=[column for column in COLUMNS if column not in LATER], told=None, **more)


# id, family, exactness, seconds at N=1024, exponent, bytes at N=1024, exponent, skill by input
ZOO = [
    ("full", "scores", "exact", 10e-3, 2.0, 2**18, 0.0, 1.0), ("full@unfused", "scores", "exact", 22e-3, 2.05, 2**25, 2.0, 1.0),
    ("local:left=64,right=64", "sparse", "pattern", 2.2e-3, 1.0, 2**17, 0.0, 0.9),
    ("local:left=256,right=256", "sparse", "pattern", 6e-3, 1.05, 2**18, 0.0, 0.95),
    ("strided", "sparse", "pattern", 4e-3, 1.5, 2**18, 0.5, 0.8), ("bigbird", "sparse", "pattern", 5e-3, 1.0, 2**19, 1.0, 0.85),
    ("longformer", "sparse", "pattern", 4.5e-3, 1.02, 2**19, 1.0, 0.88),
    ("reformer", "clustered", "approximation", 12e-3, 1.1, 2**22, 1.0, 0.7),
    ("routing", "clustered", "approximation", 9e-3, 1.5, 2**21, 1.0, 0.75),
    ("linformer:k=256", "lowrank", "approximation", 4e-3, 1.0, 2**21, 1.0, 0.5),
    ("nystrom", "lowrank", "approximation", 5e-3, 1.0, 2**21, 1.0, 0.62),
    ("linear", "kernelized", "different operator", 1.5e-3, 1.0, 2**20, 1.0, None),
    ("performer:m=256", "kernelized", "approximation", 6e-3, 1.0, 2**22, 1.0, 0.4),
    ("synth_random", "synthesizer", "different operator", 5e-3, 2.0, 2**22, 2.0, None),
    ("synth_dense", "synthesizer", "different operator", 7e-3, 2.0, 2**23, 2.0, None),
    ("fnet", "attention_free", "different operator", 2e-3, 1.1, 2**20, 1.0, None),
    ("gmlp", "attention_free", "different operator", 4e-3, 2.0, 2**22, 2.0, None),
    ("copy_v", "baseline", "different operator", 0.1e-3, 1.0, 0, 0.0, None),
    ("mean_v", "baseline", "approximation", 0.2e-3, 1.0, 2**16, 0.0, 0.0),
]
INPUTS = {"text": 0.0, "iid:1": -0.6, "local:0.9": 0.05}


def zoo(lengths=(128, 256, 512, 1024, 2048, 4096), inputs=("text",), threads=(2,), causal=(0,), variants=None, noise=0.02,
        seed=1):
    """Rows of a sweep that looks like a real one."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, family, exactness, seconds, power, memory, memory_power, skill in variants or ZOO:
        for n in lengths:
            for source in inputs:
                for count in threads:
                    for is_causal in causal:
                        axes = dict(input=source, threads=count, causal=is_causal, family=family, exactness=exactness)
                        if name == "reformer" and is_causal:
                            rows.append(row(name, n, status="unsupported", reason="reformer has no causal form | yet", **axes))
                            continue
                        if name == "full@unfused" and n > 2048:
                            rows.append(row(name, n, status="timed_out", reason="no answer within --timeout 60 s", **axes))
                            continue
                        x = n / 1024
                        time_s = (seconds * x**power + 2e-5) * (0.55 if is_causal else 1) * 1.9 / count**0.9
                        shown = None if skill is None else (1.0 if skill == 1.0 else min(0.99, skill + INPUTS.get(source, 0) - 0.03 * np.log2(x)))
                        rows.append(row(name, n, noisy(time_s, rng, noise * (6 if name == "gmlp" else 1)),
                                        memory=memory * x**memory_power, skill=shown,
                                        roof_fraction=round(0.8 * x / (x + 0.2) * (0.3 + 0.7 * (power - 1)), 4), **axes))
    return rows


def forty(lengths=tuple(2**k for k in range(7, 15)), inputs=("text", "iid:1", "local:0.9"), **more):
    """Forty variants: the zoo and variations of its approximations."""
    variants = list(ZOO)
    for i in range(40 - len(ZOO)):
        name, family, exactness, seconds, power, memory, memory_power, skill = ZOO[2 + i % 15]
        variants.append((f"{name.split(':')[0]}_b{i}", family, exactness, seconds * (1.1 + 0.07 * i), power, memory, memory_power,
                         None if skill is None else skill - 0.02 * (i % 7)))
    return zoo(lengths, inputs, variants=variants, **more)


def steps(contexts=(1024, 4096, 16384), step=1, noise=0.01, seed=1):
    """Rows of a decode: full attention reads its cache, a window some of it, and sums are what they are. Full is the fastest up to a
    context of 1000, as it would be at 2 us for its own state."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, family, exactness, state, time_s in (
            ("full", "scores", "exact", lambda n: 4096 * n, lambda n: 2e-9 * n),
            ("local:left=1024,right=0", "sparse", "pattern", lambda n: 4096 * min(n, 1025), lambda n: 2e-9 * min(n, 1025) + 1e-7),
            ("linear", "kernelized", "different operator", lambda n: 2**17, lambda n: 2e-6)):
        for n in contexts:
            rows.append(row(name, n, noisy(time_s(n) * step, rng, noise), family=family, exactness=exactness, memory=2**16, causal=1,
                            skill=None if name == "linear" else 1.0 if name == "full" else 0.8, step=step, cache="hot",
                            tokens_per_s=f"{1 / time_s(n):.6g}", state_bytes=int(state(n)), append_s="1e-07", **{"pass": "decode"}))
    return rows


def train(path, lengths=(64, 128, 256)):
    """A training CSV as attn_train writes it."""
    solved = {"full": 1.0, "local:left=64,right=64": 0.5, "linear": 0.87, "linformer:k=256": 0.8, "synth_random": 0.13, "fnet": 0.2,
              "performer:m=256": 0.9}
    rows = []
    for task, floor in (("mqar_packed", 0.125), ("majority", 0.5)):
        for name, accuracy in solved.items():
            for n in lengths:
                variant, _, options = name.partition(":")  # no other implementation is trained here
                value = max(floor, accuracy - 0.04 * np.log2(n / 64)) if name != "full" else 1.0
                verdict = "inconclusive" if n == lengths[-1] and task == "majority" else "ok"
                family = next(z[1] for z in ZOO if z[0] == name)
                shape = {"schema": 2, "task": task, "n": n, "variant": variant, "options": options, "implementation": "native",
                         "name": name, "family": family, "width": 32,
                         "heads": 1, "layers": 1, "body": "layers", "mlp": 64, "conv": 0, "positions": "learned", "causal": 0, "batch": 32,
                         "steps_budget": 1500, "test_samples": 2048, "command": f"attn_train --tasks {task}"}
                # Two seeds about the figure; a rate that is too large, and one whose run was lost.
                for rate, seed, shown in ((3e-3, 1, value), (3e-3, 2, value), (3e-2, 1, floor)):
                    rows.append({**shape, "rate": rate, "seed": seed, "accuracy": round(shown, 4), "train_accuracy": round(shown, 4),
                                 "accuracy_ci_low": round(max(0, shown - 0.02), 4), "accuracy_ci_high": round(min(1, shown + 0.02), 4),
                                 "floor": floor, "skill": round((shown - floor) / (1 - floor), 4), "verdict": verdict,
                                 "levels": f"chance={floor}"})
                rows.append({**shape, "rate": 0.3, "seed": 1, "verdict": "diverged", "reason": "the loss is no number"})
    return write(path, rows, columns=[column["name"] for column in TRAIN], told=TRAIN)
