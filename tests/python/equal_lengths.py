"""zip() for arguments of one length: an iterator of another is a fault, not an end."""

from __future__ import annotations


def zip_equal(*arguments):
    """The tuples of zip(), as a list; ValueError where the lengths differ."""
    columns = [list(argument) for argument in arguments]
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise ValueError(f"lengths differ: {lengths}")
    return list(zip(*columns))
