"""param_str: YAML with the field names of a message, as a mapping."""

from __future__ import annotations

import yaml


def parse(text: str) -> dict:
    """The mapping that a param_str holds, {} of an empty one.

    Block style ("margin: 0.2"), flow style ("{margin: 0.2, swap: true}"), and what older layers
    were given, which lacks the braces ("'margin': 0.2, 'swap': true"). Raises ValueError.
    """
    if not text.strip():
        return {}
    # A word in braces would be a mapping, too.
    for candidate in (text, "{" + text + "}") if ":" in text else (text,):
        try:
            values = yaml.safe_load(candidate)
        except yaml.YAMLError:
            continue
        if isinstance(values, dict):
            return values
    raise ValueError(f"param_str is no YAML mapping: {text!r}")


def written(parameters) -> str:
    """Parameters as YAML on one line, without quotation marks: as a prototxt likes it."""
    return "{" + ", ".join(f"{key}: {_value(value)}" for key, value in parameters.items()) + "}"


def _value(value) -> str:
    if isinstance(value, dict):
        return written(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
