"""What a mend is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from caffe_metric.patch.text import Edit

CPP = (".cpp", ".cc", ".cu", ".cuh", ".hpp", ".h")
CMAKE = ("CMakeLists.txt", ".cmake")


@dataclass(frozen=True)
class Mend:
    """A break of older trees with a current compiler or library, and what is done about it.

    files: ends of the paths that may have it. edits(text) gives the edits of one such file; []
    where it has not the break. With whole_tree it is called as edits(text, path, read), where
    read(path) is the text of another file, None where there is none.
    """

    name: str
    reason: str
    files: tuple[str, ...]
    edits: Callable[..., list[Edit]]
    whole_tree: bool = False

    def concerns(self, path: str) -> bool:
        """Whether the mend looks at the file: "/Makefile" means the one at the top."""
        return f"/{path}" in self.files or path.endswith(self.files)

    def edits_of(self, text: str, path: str, read: Callable[[str], str | None]) -> list[Edit]:
        """The edits of the file `path` of a tree whose files `read` gives."""
        return self.edits(text, path, read) if self.whole_tree else self.edits(text)


def replace_group(match: re.Match, group: int, text: str) -> Edit:
    return Edit(match.start(group), match.end(group), text)


def blank_hash_comments(text: str) -> str:
    """Makefiles and CMake files with their comments as blanks; offsets stay."""
    return re.sub(r"(?<!\\)#[^\r\n]*", lambda match: " " * len(match.group()), text)
