"""Errors that a user can act on."""


class UserError(Exception):
    """Shown as one line on stderr, with exit status 1."""
