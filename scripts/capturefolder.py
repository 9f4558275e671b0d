"""A folder of captures: one .npz a layer, and capture.json, which says what they are."""
import json
import time
from pathlib import Path

import numpy as np

from captured import TOLERANCE, agrees, describe_mask, difference, save

SAID = ["file", "layer", "problem", "causal", "mask", "difference"]  # of table_of


class Folder:
    """layer0.npz, layer1.npz, ... of one model. ValueError says why there is none."""

    def __init__(self, path, model, dtype="f32", with_output=False, force=False):
        self.path, self.model, self.with_output = Path(path), model, with_output
        self.dtype = np.dtype({"f32": np.float32, "f16": np.float16}[dtype])
        old = sorted([*self.path.glob("layer*.npz"), *self.path.glob("capture.json")]) if self.path.is_dir() else []
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"'{path}' is no folder")
        if old and not force:
            raise ValueError(f"'{path}' holds a capture already ('{old[0].name}'); --force replaces it")
        for file in old:
            file.unlink()
        self.path.mkdir(parents=True, exist_ok=True)
        self.records = []

    def write(self, attentions, how):
        """One file for each Attention; [record]."""
        digits = len(str(max(0, len(attentions) - 1)))
        for i, a in enumerate(attentions):
            if isinstance(a, tuple):  # a layer that is none, and why
                self.records.append({"file": "", "layer": a[0], "why_not": str(a[1])})
                continue
            good = agrees(a)  # before they are rounded to what is written
            written = save(self.path / f"layer{i:0{digits}d}.npz", a, self.model, self.dtype, self.with_output)
            alone = written if a.mask is None else difference(a, mask=None)
            good = good and written <= max(TOLERANCE[self.dtype.name], TOLERANCE[a.output.dtype.name])
            self.records.append({"file": f"layer{i:0{digits}d}.npz", "layer": a.layer, "pattern": a.pattern, **a.shape,
                                 "causal": int(a.causal), "mask": describe_mask(a), "scale": np.asarray(a.scale).reshape(-1).tolist(),
                                 "difference": written, "difference_without_mask": alone, "agrees": bool(good), "notes": a.notes, "why_not": ""})
        told = {"model": self.model, "how": how, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "dtype": self.dtype.name,
                "layers": self.records}
        (self.path / "capture.json").write_text(json.dumps(told, indent=1) + "\n")
        return self.records


def table_of(records):
    rows = []
    for r in records:
        if r["why_not"]:
            rows.append({"file": "-", "layer": r["layer"], "problem": "not captured: " + r["why_not"]})
            continue
        heads = f"{r['heads']}" if r["heads"] == r["kv_heads"] else f"{r['heads']} on {r['kv_heads']}"
        tokens = f"{r['q_len']}" if r["q_len"] == r["kv_len"] else f"{r['q_len']} of {r['kv_len']}"
        widths = f"{r['head_dim']}" if r["head_dim"] == r["value_dim"] else f"{r['head_dim']}, {r['value_dim']}"
        rows.append({"file": r["file"], "layer": r["layer"], "problem": f"batch {r['batch']}, {heads} heads of {widths}, N={tokens}",
                     "causal": "yes" if r["causal"] else "no", "mask": r["mask"],
                     "difference": f"{r['difference']:.1e}" + ("" if r["agrees"] else "  NOT THE MODEL'S OUTPUT")})
    return rows
