"""What str gained in Python 3.9: the package runs on 3.8."""

from __future__ import annotations


def without_prefix(text: str, prefix: str) -> str:
    """The text without the prefix, if it begins with it."""
    return text[len(prefix) :] if text.startswith(prefix) else text


def without_suffix(text: str, suffix: str) -> str:
    """The text without the suffix, if it ends with it."""
    return text[: len(text) - len(suffix)] if text.endswith(suffix) else text
