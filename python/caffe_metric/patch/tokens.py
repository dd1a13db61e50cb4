"""A tokenizer for .proto files that keeps the place of everything."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<space>(?:\s|\xef\xbb\xbf)+)
  | (?P<comment>//[^\n]*|/\*.*?(?:\*/|\Z))
  | (?P<string>"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?)
  | (?P<number>0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?)
  | (?P<name>[A-Za-z_][A-Za-z_0-9]*)
  | (?P<symbol>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def tokenize(text: str) -> tuple[list[Token], list[Token]]:
    """The tokens of the grammar, and the comments."""
    tokens, comments = [], []
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "comment":
            comments.append(Token("comment", match.group(), match.start()))
        elif match.lastgroup != "space":
            tokens.append(Token(match.lastgroup, match.group(), match.start()))
    return tokens, comments
