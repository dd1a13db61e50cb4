"""One class out of a file that defines several, by the structure of C++.

A file is read as declarations: what stands between the braces of its namespaces, up to a ';' or the
'}' of a function, or one call of a macro. Those that belong to the class go, with the comments that
stand right above them. Where this cannot be told for certain, nothing is taken out: braces that do
not match, a condition of the preprocessor that begins inside and ends outside, another use of the
name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from caffe_metric.patch import cpp
from caffe_metric.patch.text import Edit, line_end, line_start

_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\\r?\n|\\)*", re.MULTILINE)
_NAMESPACE = re.compile(r"(?:inline\s+)?namespace\b[\w\s:]*|extern\s*")
_MACRO = re.compile(r"[A-Z][A-Z0-9_]*\s*\(")
_CONDITION = re.compile(r"^[ \t]*#[ \t]*(if|ifdef|ifndef|elif|else|endif)\b", re.MULTILINE)


@dataclass(frozen=True)
class _Declaration:
    """head: its text before a body, or all of it."""

    start: int
    end: int
    head: str


class _UnclearError(ValueError):
    pass


def edits(text: str, name: str, types: set[str]) -> list[Edit] | None:
    """What takes a class, and the registrations of layer types, out of a file; None where unclear.

    name: of the class. types: layer types that are registered with it.
    """
    code = cpp.blank(text)
    bare = _DIRECTIVE.sub(lambda match: re.sub(r"[^\r\n]", " ", match.group()), code)
    try:
        declarations = _declarations(bare)
    except _UnclearError:
        return None
    found = [one for one in declarations if _belongs(one.head, name, types)]
    cuts = [_whole(text, one) for one in found]
    if not found or not all(_balanced(code[start:end]) for start, end in cuts):
        return None
    left, done = [], 0
    for start, end in cuts:
        left.append(code[done:start])
        done = max(done, end)
    if re.search(rf"\b{name}\b", "".join([*left, code[done:]])):
        return None
    return [Edit(start, end, "") for start, end in cuts]


def uses(text: str, name: str) -> int:
    """The offset of a use of a name in code; -1 without one."""
    found = re.search(rf"\b{name}\b", cpp.blank(text)) if name in text else None
    return found.start() if found else -1


def _declarations(code: str) -> list[_Declaration]:
    found, place, depth = [], 0, 0
    while True:
        place = _skip_blanks(code, place)
        if place >= len(code):
            if depth:
                raise _UnclearError
            return found
        if code[place] == "}":
            depth -= 1
            place += 1
            if depth < 0:
                raise _UnclearError
            continue
        if code[place] == ";":
            place += 1
            continue
        end, body = _end(code, place)
        if body is None and end < 0:  # the opening of a namespace
            depth += 1
            place = -end
            continue
        found.append(_Declaration(place, end, code[place : body or end]))
        place = end


def _skip_blanks(code: str, place: int) -> int:
    while place < len(code) and code[place].isspace():
        place += 1
    return place


def _end(code: str, start: int):
    """(end, where its body begins or None) of a declaration; (-end, None) of a namespace's head."""
    macro = _MACRO.match(code, start)
    if macro:
        end = _closing(code, macro.end() - 1)
        after = _skip_blanks(code, end)
        if after < len(code) and code[after] == ";":
            return after + 1, None
        if after < len(code) and code[after] == "{":  # TEST(...) { ... }
            return _closing(code, after), after
        return end, None
    place = start
    while place < len(code):
        mark = code[place]
        if mark == ";":
            return place + 1, None
        if mark in "([":
            place = _closing(code, place)
            continue
        if mark == "}":
            raise _UnclearError
        if mark == "{":
            head = code[start:place]
            if _NAMESPACE.fullmatch(head.strip()):
                return -(place + 1), None
            end = _closing(code, place)
            after = _skip_blanks(code, end)
            if re.search(r"\)\s*:[^:]", head) and code[after : after + 1] in (",", "{"):
                place = end  # a member that a constructor initialises
                continue
            if (
                re.search(r"\b(class|struct|union|enum)\b[^()]*$", head)
                or head.rstrip()[-1:] == "="
            ):
                if after >= len(code) or code[after] != ";":
                    raise _UnclearError
                return after + 1, place
            return end, place
        place += 1
    raise _UnclearError


_PAIRS = {"(": ")", "[": "]", "{": "}"}


def _closing(code: str, place: int) -> int:
    """The offset after the bracket that closes the one at `place`."""
    stack = []
    while place < len(code):
        mark = code[place]
        if mark in _PAIRS:
            stack.append(_PAIRS[mark])
        elif mark in ")]}":
            if not stack or stack.pop() != mark:
                raise _UnclearError
            if not stack:
                return place + 1
        place += 1
    raise _UnclearError


def _belongs(head: str, name: str, types: set[str]) -> bool:
    macro = _MACRO.match(head)
    if macro:
        arguments = re.findall(r"\w+", head[macro.end() :])
        registers = head.startswith("REGISTER_LAYER_")
        return arguments[:1] == [name] or (registers and set(arguments[:1]) <= types)
    own = rf"\b(?:class|struct)\s+(?:\w+\s+)?{name}\b\s*(?:<[^<>]*>)?\s*(?:final\s*)?(?:[:;]|$)"
    member = rf"\b{name}\s*(?:<[^<>]*>)?\s*::"
    return bool(re.search(own, head.strip()) or re.search(member, head))


def _whole(text: str, declaration: _Declaration) -> tuple[int, int]:
    """The declaration with its lines and the comment right above it."""
    start, end = declaration.start, declaration.end
    if not text[end : line_end(text, end)].strip():
        end = line_end(text, end)
    first = line_start(text, start)
    if text[first:start].strip():
        return start, end
    code = cpp.blank(text)
    while first:
        above = line_start(text, first - 1)
        blank_line = not text[above:first].strip()
        if blank_line or code[above:first].strip():
            break
        first = above
    return first, end


def _balanced(code: str) -> bool:
    """Whether no condition of the preprocessor begins inside and ends outside, or the reverse."""
    depth = 0
    for match in _CONDITION.finditer(code):
        word = match.group(1)
        if word.startswith("if"):
            depth += 1
        elif depth == 0:
            return False
        elif word == "endif":
            depth -= 1
    return depth == 0
