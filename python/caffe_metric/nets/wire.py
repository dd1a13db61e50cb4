"""Serialised protobuf messages, taken apart without the protobuf package.

The layers' parameters are read so: losses on arrays need NumPy only.
"""

from __future__ import annotations


def fields(data: bytes) -> dict[int, list]:
    """{field number: its values in order}: integers, and bytes of strings and messages."""
    found: dict[int, list] = {}
    place = 0
    while place < len(data):
        key, place = varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = varint(data, place)
        else:
            size, place = varint(data, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
            value, place = data[place : place + size], place + size
        found.setdefault(number, []).append(value)
    return found


def varint(data: bytes, place: int) -> tuple[int, int]:
    """The number that begins at a place, and the place behind it."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def varints(data: bytes) -> list[int]:
    """Packed numbers."""
    found, place = [], 0
    while place < len(data):
        value, place = varint(data, place)
        found.append(value)
    return found
