"""Types of arguments that several commands take."""

from __future__ import annotations

import argparse


def size_argument(text):
    """An argparse type: WIDTHxHEIGHT."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"WIDTHxHEIGHT expected, not '{text}'")
    return int(width), int(height)


def positive(text):
    """An argparse type: an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of at least 1 expected, not '{text}'")
    return int(text)
