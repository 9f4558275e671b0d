"""Runs an ONNX model and returns tensors from its inside. By Python's onnxruntime where it is installed, else by npm's onnxruntime-node."""
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx

from attncsv import Refusal

HERE = Path(__file__).resolve().parent
MOST_BYTES = 2**31 - 2**20  # of a protobuf message


def places():
    """Folders whose node_modules may hold onnxruntime-node; scripts/setup.sh --capture installs it into the first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attnbench"
    return [str(place) for place in (cache, HERE.parent, Path.cwd(), *filter(None, os.environ.get("NODE_PATH", "").split(":")))]


def available():
    """Whether anything here runs a model."""
    folders = [Path(place) / "node_modules/onnxruntime-node" for place in places()]
    return importlib.util.find_spec("onnxruntime") is not None or (bool(shutil.which("node")) and any(f.is_dir() for f in folders))


def one_line(text):
    return re.sub(r"\s+", " ", text).strip()


def external_files(model):
    """The files beside a model that hold its large tensors."""
    tensors = list(model.graph.initializer)
    tensors += [a.t for node in model.graph.node for a in node.attribute if a.HasField("t")]
    return sorted({entry.value for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL
                   for entry in tensor.external_data if entry.key == "location"})


def load(path):
    """The model without its external data, which must be there."""
    try:
        if not Path(path).read_bytes().strip():
            raise Refusal(f"'{path}' is empty")
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise Refusal(f"'{path}' does not exist") from None
    except OSError as error:
        raise Refusal(f"'{path}' cannot be read: {error.strerror}") from None
    except Refusal:
        raise
    except Exception as error:  # protobuf's own kinds differ between releases
        raise Refusal(f"'{path}' is no ONNX model: {one_line(str(error))}") from None
    if not model.graph.node:
        raise Refusal(f"'{path}' is no ONNX model: its graph has no nodes")
    if not model.opset_import:
        raise Refusal(f"'{path}' does not say its opset")
    missing = [name for name in external_files(model) if not (Path(path).parent / name).is_file()]
    if missing:
        raise Refusal(f"'{path}' keeps tensors in '{missing[0]}', which is not beside it")
    return model


def edited(path, model, names, folder):
    """A copy of the model, in `folder`, whose outputs are the tensors called `names`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    if copy.ByteSize() > MOST_BYTES:
        raise Refusal(f"'{path}' is above 2 GiB: keep its tensors in external data (onnx.save(..., save_as_external_data=True))")
    for name in external_files(model):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(Path(path).parent / name, folder / name)
        except OSError:
            shutil.copyfile(Path(path).parent / name, folder / name)
    file = folder / "model.onnx"
    file.write_bytes(copy.SerializeToString())
    return file


def run(path, model, feeds, names, threads=1):
    """{name: array} of the tensors called `names`, whether outputs or not, for `feeds` {input: array}."""
    # Beside the model where external data can be linked instead of copied.
    with tempfile.TemporaryDirectory(dir=Path(path).resolve().parent if external_files(model) else None) as folder:
        file = edited(path, model, names, Path(folder))
        try:
            import onnxruntime
        except ImportError:
            return run_by_node(path, file, feeds, names, Path(folder), threads)
        return run_by_python(path, file, feeds, names, threads, onnxruntime)


def run_by_python(path, file, feeds, names, threads, onnxruntime):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        return dict(zip(names, session.run(names, feeds)))
    except Exception as error:  # of pybind11
        raise Refusal(f"ONNX Runtime does not run '{path}': {one_line(str(error))}") from None


def run_by_node(path, file, feeds, names, folder, threads):
    node = shutil.which("node") or shutil.which("nodejs")
    if not node:
        raise Refusal("nothing here runs ONNX models: scripts/setup.sh --capture installs onnxruntime-node, or install Python's onnxruntime")
    told = []
    for i, (name, array) in enumerate(feeds.items()):
        array = np.ascontiguousarray(array)
        (folder / f"feed{i}").write_bytes(array.tobytes())
        told.append({"name": name, "type": array.dtype.name, "dims": list(array.shape), "file": f"feed{i}"})
    (folder / "request.json").write_text(json.dumps({"model": str(file), "feeds": told, "outputs": names, "places": places(),
                                                     "threads": threads}))
    done = subprocess.run([node, HERE / "onnxrun.cjs", folder], capture_output=True, text=True)
    if done.returncode == 3:
        raise Refusal("onnxruntime-node is not installed: scripts/setup.sh --capture installs it, or install Python's onnxruntime")
    if done.returncode != 0:
        raise Refusal(f"ONNX Runtime does not run '{path}': {one_line(done.stderr) or f'node ended with {done.returncode}'}")
    answer = json.loads((folder / "answer.json").read_text())
    return {output["name"]: np.fromfile(folder / output["file"], dtype=output["type"]).reshape(output["dims"]) for output in answer}
