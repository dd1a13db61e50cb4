"""A place where the tree has already what we would bring."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Clash:
    """path, line: the place in the tree. fatal: `--replace` cannot solve it either."""

    path: str
    line: int
    what: str
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"
