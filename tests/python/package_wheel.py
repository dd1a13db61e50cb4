"""A wheel of this checkout, built in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PARTS = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE")
FOLDERS = ("proto", "include", "src", "python", "examples", "tests/cpp")


def build_wheel(root: Path, folder: Path, **environment: str) -> Path:
    """The wheel that pip makes of a copy of `root` in `folder`, with this Python."""
    source = folder / "source"
    source.mkdir()
    for name in PARTS:
        shutil.copy(str(root / name), str(source / name))
    ignored = shutil.ignore_patterns("*.so", "*.binpb", "__pycache__")
    for name in FOLDERS:
        shutil.copytree(str(root / name), str(source / name), ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    subprocess.run(
        [*command, "--wheel-dir", str(folder), str(source)],
        check=True,
        env={**os.environ, **environment},
    )
    (wheel,) = folder.glob("*.whl")
    return wheel
