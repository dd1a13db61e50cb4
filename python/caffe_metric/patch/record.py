"""The record of a patched tree, in its folder .caffe-metric/.

manifest.json       version, options, and each file with its hashes and the lines we changed
before/PATH         the bytes of each file that we changed, replaced or removed, as they were
after/PATH          the bytes of each file that we changed, as we left them
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from caffe_metric.support.errors import UserError

FOLDER = ".caffe-metric"
MANIFEST = f"{FOLDER}/manifest.json"
FORMAT = 1


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Entry:
    """A file that the patch touched.

    action: "added" (ours alone), "changed" (lines of it), "replaced" (by one of ours), "removed".
    before, after: SHA-256, "" where there was no file.
    mode: its permission bits as they were before (0 where there was no file).
    hunks: [first, last) line before, [first, last) after, from 0, of a changed file.
    """

    action: str
    before: str = ""
    after: str = ""
    mode: int = 0
    hunks: list[list[int]] = field(default_factory=list)


@dataclass
class Record:
    version: str
    payload: str
    options: dict
    files: dict[str, Entry]
    folders: list[str] = field(default_factory=list)  # folders that the patch made
    notes: list[str] = field(default_factory=list)
    format: int = FORMAT

    def dumps(self) -> bytes:
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()


def before_path(path: str) -> str:
    return f"{FOLDER}/before/{path}"


def after_path(path: str) -> str:
    return f"{FOLDER}/after/{path}"


def load(root: Path) -> Record | None:
    """The record of the tree; None where it is not patched."""
    path = root / MANIFEST
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_bytes())
        if data["format"] != FORMAT:
            raise UserError(
                f"{path}: written by another release of caffe-metric ({data['version']})"
            )
        data["files"] = {name: Entry(**entry) for name, entry in data["files"].items()}
        return Record(**data)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: the record of the patch is damaged: {error}") from error
