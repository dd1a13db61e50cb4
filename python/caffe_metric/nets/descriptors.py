"""What protoc makes of proto/caffe_metric.proto, caffe_part.proto and zoo/forks.proto: a
FileDescriptorSet.

An installed package carries it, made when the package was built. A checkout makes it when it is
first asked for, and again when a proto file has changed; that needs protoc, or the Python package
grpcio-tools.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from caffe_metric.support import paths
from caffe_metric.support.errors import UserError

# The fragment's fields of LayerParameter, under a name that does not clash with Caffe's own.
FIELDS = "CaffeMetricFields"
PART, OURS, FORKS = "caffe_part.proto", "caffe_metric.proto", "forks.proto"
HERE = Path(__file__).resolve().parent
FILE = HERE / "descriptors.binpb"


@functools.lru_cache(maxsize=1)
def load():
    """{file name: FileDescriptorProto} of the files. Raises UserError where there is no protoc."""
    from google.protobuf import descriptor_pb2

    found = descriptor_pb2.FileDescriptorSet.FromString(serialised())
    return {file.name: file for file in found.file}


def sources(proto: Path) -> list[Path]:
    """The files, in the order of `compiled`; `proto` is the folder of the project's own."""
    return [HERE / PART, proto / OURS, HERE.parent / "zoo" / FORKS]


@functools.lru_cache(maxsize=1)
def serialised() -> bytes:
    """The FileDescriptorSet of all files."""
    files = sources(paths.proto_dir())
    current = FILE.is_file() and all(
        source.stat().st_mtime <= FILE.stat().st_mtime for source in files
    )
    if current or paths.installed():
        return FILE.read_bytes()
    made = compiled(*(source.read_text(encoding="utf-8") for source in files))
    with contextlib.suppress(OSError):  # kept where that can be
        beside = FILE.with_name(f".{FILE.name}.{os.getpid()}")
        beside.write_bytes(made)
        beside.replace(FILE)
    return made


def compiled(*texts: str) -> bytes:
    """The serialised FileDescriptorSet of the files' texts, comments included."""
    compiler = _compiler()
    given = dict(zip((PART, OURS, FORKS), texts))
    given[OURS] = _renamed(given[OURS])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in given.items():
            (folder / file).write_text(text, encoding="utf-8")
        command = [*compiler, f"-I{folder}", "--include_source_info"]
        done = subprocess.run(
            [*command, f"--descriptor_set_out={folder / FILE.name}", *given],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=name,
        )
        if done.returncode:
            raise UserError(f"{OURS}: {' '.join(done.stdout.split())}")
        return (folder / FILE.name).read_bytes()


def _renamed(text: str) -> str:
    text = re.sub(r"^message LayerParameter\b", f"message {FIELDS}", text, flags=re.MULTILINE)
    return re.sub(r"^package caffe;", f'package caffe;\nimport "{PART}";', text, flags=re.MULTILINE)


def _compiler() -> list[str]:
    if shutil.which("protoc"):
        return ["protoc"]
    try:
        import grpc_tools.protoc  # noqa: F401
    except ImportError:
        raise UserError(
            "a checkout needs protoc: install Debian's protobuf-compiler, or by pip grpcio-tools"
        ) from None
    return [sys.executable, "-m", "grpc_tools.protoc"]
