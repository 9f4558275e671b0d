"""What `pip install .` asks (PEP 517): a wheel of the module with programs, libraries, scripts and headers, built by CMake. It needs nothing
that pip would have to fetch."""
import base64
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
VERSION = re.search(r"project\(attnbench VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"
TAG = f"{PYTHON}-{PYTHON}-{re.sub('[-.]', '_', sysconfig.get_platform())}"
INFO = f"attnbench-{VERSION}.dist-info"
METADATA = f"""Metadata-Version: 2.1
Name: attnbench
Version: {VERSION}
Summary: Attention variants on CPUs: applied to your arrays, measured, compared
License: MIT
Requires-Python: >=3.9
Requires-Dist: numpy
"""


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    info = pathlib.Path(metadata_directory) / INFO
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA)
    (info / "WHEEL").write_text(f"Wheel-Version: 1.0\nGenerator: attnbench\nRoot-Is-Purelib: false\nTag: {TAG}\n")
    shutil.copy(ROOT / "LICENSE", info)
    return INFO


def run(*command):
    subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)


def installed(folder):
    """The tree's `cmake --install` into folder/attnbench, which is the package: the module finds programs and scripts below itself."""
    build = pathlib.Path(os.environ.get("ATTN_WHEEL_BUILD", ROOT / "build" / f"wheel-{sys.implementation.cache_tag}"))
    run("cmake", "-S", ROOT, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DATTN_TESTS=OFF", "-DATTN_PYTHON_DESTINATION=.",
        "-DCMAKE_INSTALL_LIBDIR=lib", f"-DPython3_EXECUTABLE={sys.executable}")
    run("cmake", "--build", build, "--parallel", len(os.sched_getaffinity(0)))
    run("cmake", "--install", build, "--prefix", folder / "attnbench", "--strip")
    if not list((folder / "attnbench").glob("_native.*")):
        raise SystemExit("attnbench: the module was not built: python3-dev and pybind11-dev are needed")


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = f"attnbench-{VERSION}-{TAG}.whl"
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        installed(folder)
        prepare_metadata_for_build_wheel(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as wheel:
            record = []
            for path in files:
                inside, content = path.relative_to(folder).as_posix(), path.read_bytes()
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                record.append(f"{inside},sha256={digest},{len(content)}\n")
                wheel.write(path, inside)  # with its mode: programs stay programs
            wheel.writestr(f"{INFO}/RECORD", "".join(record) + f"{INFO}/RECORD,,\n")
    return name
