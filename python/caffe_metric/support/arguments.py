"""Types of arguments that several commands take. A wrong value is wrong usage: exit status 2."""

from __future__ import annotations

import argparse
import math

# Seeds are those of Caffe, too, whose generator takes 32 bits.
MOST = 2**32 - 1
SIDE = 1 << 15  # pixels, greatest width or height


def size_argument(text):
    """WIDTHxHEIGHT, in pixels."""
    width, _, height = text.partition("x")
    if not (_is_number(width) and _is_number(height)):
        raise argparse.ArgumentTypeError(f"WIDTHxHEIGHT expected, not '{text}'")
    if not (0 < int(width) <= SIDE and 0 < int(height) <= SIDE):
        raise argparse.ArgumentTypeError(f"sides are 1 to {SIDE} pixels, not '{text}'")
    return int(width), int(height)


def positive(text):
    """An integer of at least 1."""
    return _integer(text, 1)


def natural(text):
    """An integer of at least 0: a seed, the number of a device."""
    return _integer(text, 0)


def finite(text):
    """A number that is neither NaN nor infinite."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number expected, not '{text}'") from None
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"a finite number expected, not '{text}'")
    return number


def naturals(text):
    """Integers of at least 0, with commas between."""
    return _list(natural, text) if text else []


def positives(text):
    """Integers of at least 1, with commas between."""
    return _list(positive, text)


def numbers(text):
    """Finite numbers, with commas between."""
    return _list(finite, text)


def _list(one, text):
    try:
        return [one(word) for word in text.split(",")]
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"'{text}': {error}") from None


def _integer(text, least):
    if not _is_number(text) or not least <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"an integer of {least} to {MOST} expected, not '{text}'")
    return int(text)


def _is_number(text):
    return text.isdecimal() and len(text) < 20


def ranges(text):
    """Integers of at least 0 with commas between, or ranges of them: 3,7-9 is 3, 7, 8, 9."""
    found = []
    for word in text.split(","):
        first, dash, last = word.partition("-")
        first = natural(first)
        last = natural(last) if dash else first
        if last < first or last - first > SIDE**2:
            raise argparse.ArgumentTypeError(f"'{word}' is no range")
        found += range(first, last + 1)
    return found
