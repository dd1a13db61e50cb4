"""Modules that a part of the package needs beyond its dependencies, and the extra that brings them.

Layers, losses, patcher and lint need NumPy, protobuf and PyYAML alone.
"""

from __future__ import annotations

# module: the extra of pyproject.toml that lists its distribution
EXTRAS = {
    "PIL": "data",
    "lmdb": "data",
    "matplotlib": "eval",
    "sklearn": "eval",
    "threadpoolctl": "eval",
    "faiss": "mine",
    "mpi4py": "mpi",
    "h5py": "hdf5",
    "jinja2": "eval",
    "cv2": "align",
    "skimage": "align",
    "onnx": "deploy",
    "onnxruntime": "deploy",
}


def advice(error: ModuleNotFoundError) -> str:
    """What is missing, and how to have it."""
    name = (error.name or "").split(".")[0]
    text = f"needs the Python module {error.name}, which is not installed"
    return text + (f": pip install 'caffe-metric[{EXTRAS[name]}]'" if name in EXTRAS else "")
