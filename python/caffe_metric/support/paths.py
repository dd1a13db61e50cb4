"""Where the files that go into a Caffe tree are found.

In a checkout they stand at the top of the repository; an installed package
carries them as package data, in the same arrangement.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_CHECKOUT = _PACKAGE.parent.parent


def tree() -> Path:
    """The folder that holds `proto/`, `include/`, `src/caffe/` and `tests/cpp/`."""
    if (_CHECKOUT / "proto" / "caffe_metric.proto").is_file():
        return _CHECKOUT
    return _PACKAGE / "_tree"


def installed() -> bool:
    """Whether this is an installed package, not a checkout."""
    return tree() != _CHECKOUT


def proto_dir() -> Path:
    """The folder of `caffe_metric.proto`, the one truth about the layers' parameters."""
    return tree() / "proto"
