"""Errors that a user can act on."""

from __future__ import annotations


class UserError(Exception):
    """Shown as one line on stderr, with exit status 1."""


class ForeignNetError(UserError):
    """A net in the words of another fork of Caffe, which `caffe-metric modernize` reads."""
