"""Make a CUDA source file compile as C++ against the headers in include/.

Three things in it are not C++:
- kernel<<<grid, block>>>(args) becomes hostcuda::Launch("kernel", barriers, ..., call, args), with
  `call` a lambda that calls the kernel;
- `__shared__ T name[n];` becomes a static variable that each block finds poisoned;
- __global__ and the like are macros.
`barriers` is true for a kernel that meets a barrier or a shuffle, itself or through a function in
the same file or in one of the headers named on the command line.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.S)
FUNCTION = re.compile(r"\b(\w+)\s*\((?:[^;{}]*)\)\s*(?:const\s*)?\{")
SHARED = re.compile(r"\b__shared__\s+([^;=]*?)\b(\w+)\s*((?:\[[^\]]*\]\s*)*);")
BARRIERS = {"__syncthreads", "__syncthreads_or", "__shfl_down_sync", "__shfl_up_sync"}
KEYWORDS = {"if", "for", "while", "switch", "catch"}


def blank_comments(source):
    """Source of the same length with comments and strings replaced by spaces."""
    return COMMENT_OR_STRING.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), source)


def closing(text, start, opening="(", close=")"):
    """Index of the bracket that closes the one at text[start]."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == opening) - (text[i] == close)
        if depth == 0:
            return i
    raise ValueError(f"no {close} for the {opening} at offset {start}")


def functions_with_barriers(sources):
    """Names of the functions in `sources` from which a barrier is reached."""
    bodies = {}
    for source in sources:
        text = blank_comments(source)
        for match in FUNCTION.finditer(text):
            if match.group(1) not in KEYWORDS:
                start = match.end() - 1
                body = text[start : closing(text, start, "{", "}")]
                bodies.setdefault(match.group(1), set()).update(re.findall(r"\w+", body))
    reached = set(BARRIERS)
    while True:
        more = {name for name, words in bodies.items() if words & reached} - reached
        if not more:
            return reached
        reached |= more


def launch_start(text, chevrons):
    """Offset at which the expression naming the kernel begins, given that of `<<<`."""
    i = chevrons
    while text[i - 1].isspace():
        i -= 1
    if text[i - 1] == ">":
        depth = 0
        while True:
            i -= 1
            depth += (text[i] == ">") - (text[i] == "<")
            if depth == 0:
                break
        while text[i - 1].isspace():
            i -= 1
    while re.match(r"[\w:#]", text[i - 1]):
        i -= 1
    return i


def rewrite_launches(source, with_barriers):
    text = blank_comments(source)
    out, position = [], 0
    while (chevrons := text.find("<<<", position)) >= 0:
        start = launch_start(text, chevrons)
        end = text.index(">>>", chevrons)
        opening = text.index("(", end)
        close = closing(text, opening)
        kernel = text[start:chevrons].strip()
        name = re.match(r"[\w:#]*", kernel).group().split("::")[-1]
        barriers = "true" if name in with_barriers else "false"
        arguments = text[opening + 1 : close]
        comma = ", " if arguments.strip() else ""
        # In a macro's body the name is pasted from its parameter: that labels it.
        label = f"#{name.split('##')[0]}" if "##" in name else f'"{name}"'
        out.append(source[position:start])
        out.append(
            f"hostcuda::Launch({label}, {barriers}, hostcuda::Config("
            f"{text[chevrons + 3 : end]}), [](auto... a) {{ {kernel}(a...); }}{comma}{arguments})"
        )
        position = close + 1
    out.append(source[position:])
    return "".join(out)


def rewrite_shared(source):
    if re.search(r"\bextern\s+__shared__", source):
        raise ValueError("dynamic shared memory is not emulated")
    return SHARED.sub(
        lambda m: f"static {m.group(1)}{m.group(2)}{m.group(3)}; HOSTCUDA_SHARED({m.group(2)});",
        source,
    )


def rewrite(source, headers=()):
    """C++ for the CUDA text `source`; `headers` are the texts of device headers it includes."""
    with_barriers = functions_with_barriers([source, *headers])
    return rewrite_shared(rewrite_launches(source, with_barriers))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("headers", type=Path, nargs="*", help="device headers that it includes")
    arguments = parser.parse_args()
    try:
        text = rewrite(arguments.source.read_text(), [h.read_text() for h in arguments.headers])
    except (OSError, ValueError) as error:
        print(f"launch_rewrite.py: {arguments.source}: {error}", file=sys.stderr)
        return 1
    if arguments.output.suffix == ".cpp":
        text = f'#line 1 "{arguments.source}"\n{text}'
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
