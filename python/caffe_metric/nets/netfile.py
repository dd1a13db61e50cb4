"""Net files: read with Caffe's own schema."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from caffe_metric.support.errors import UserError


def quiet_caffe() -> None:
    """Caffe's log without INFO and WARNING. Works before the first import of caffe only."""
    os.environ.setdefault("GLOG_minloglevel", "2")


def find_python_layers(path: str) -> None:
    """Modules of Python layers are looked up in the working folder and beside the net, too."""
    for folder in (str(Path.cwd()), str(Path(path).resolve().parent)):
        if folder not in sys.path:
            sys.path.append(folder)


def read_text(path: str) -> str:
    """The text of a file; UserError where it cannot be had."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def read(path: str):
    """The NetParameter of a prototxt; UserError with the line where it does not parse."""
    from google.protobuf import text_format

    try:
        from caffe.proto import caffe_pb2
    except ImportError as error:
        raise UserError(f"this needs pycaffe: {error}") from error
    net = caffe_pb2.NetParameter()
    try:
        text_format.Parse(read_text(path), net)
    except text_format.ParseError as error:
        raise UserError(f"{path}:{' '.join(str(error).split())}") from error
    if net.layers:
        raise UserError(f"{path}: an old net (`layers`): run Caffe's upgrade_net_proto_text first")
    return net
