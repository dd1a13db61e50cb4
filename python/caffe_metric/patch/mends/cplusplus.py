"""Breaks in C++ and CUDA sources."""

from __future__ import annotations

import re

from caffe_metric.patch import cpp
from caffe_metric.patch.mends.mend import CPP, Mend, replace_group
from caffe_metric.patch.text import Edit, line_end, line_start, newline_of

_BYTES_LIMIT = re.compile(r"\bSetTotalBytesLimit\s*\([^,();]+(,[^,();]+)\)")
_SHUFFLE = re.compile(r"(?<![\w.>:])((?:std\s*::\s*)?random_shuffle)\s*\(")
_RNG = "caffe/util/rng.hpp"
# members of cudaDeviceProp that CUDA 13 took out
_CUDA_MEMBERS = re.compile(
    r"\.\s*(?:clockRate|deviceOverlap|kernelExecTimeoutEnabled|memoryClockRate|computeMode"
    r"|singleToDoublePrecisionPerfRatio|cooperativeMultiDeviceLaunch|maxTexture1DLinear)\b"
)
_FORWARD_CPU = re.compile(r"\b(\w+)\s*<\s*\w+\s*>\s*::\s*Forward_cpu\s*\(")
_GUARD = "#if CUDART_VERSION < 13000"


def bytes_limit(text: str) -> list[Edit]:
    if "SetTotalBytesLimit" not in text:
        return []
    return [replace_group(match, 1, "") for match in _BYTES_LIMIT.finditer(cpp.blank(text))]


def device_properties(text: str) -> list[Edit]:
    """Puts a guard around each statement that logs such a member."""
    if "cudaDeviceProp" not in text:
        return []
    code, newline, edits, done = cpp.blank(text), newline_of(text), [], 0
    for match in _CUDA_MEMBERS.finditer(code):
        if match.start() < done:
            continue
        begin = max(code.rfind(mark, 0, match.start()) for mark in ";{}") + 1
        begin += len(code[begin:]) - len(code[begin:].lstrip())
        start, done = line_start(text, begin), code.find(";", match.end()) + 1
        end = line_end(text, done)
        alone = done and not code[start:begin].strip() and not code[done:end].strip()
        logs = re.match(r"(?:LOG|VLOG|DLOG|printf|std::cout|cout)\b", code[begin:])
        guarded = code[:start].rstrip().endswith(_GUARD)
        if alone and logs and not guarded:
            edits += [Edit(start, start, _GUARD + newline), Edit(end, end, "#endif" + newline)]
    return edits


def gpu_stub(text: str, path: str, read) -> list[Edit]:
    """Writes STUB_GPU for a layer whose GPU half is in a .cu."""
    device = read(path[: -len(".cpp")] + ".cu") if path.endswith(".cpp") else None
    if device is None:
        return []
    code, newline, edits = cpp.blank(text), newline_of(text), []
    device = cpp.blank(device)
    for name in dict.fromkeys(_FORWARD_CPU.findall(code)):
        halves = [half for half in ("Forward", "Backward") if _defines(device, name, f"{half}_gpu")]
        stubbed = re.search(rf"\bSTUB_GPU\w*\s*\(\s*{name}\b", code)
        instance = re.search(rf"\bINSTANTIATE_CLASS\s*\(\s*{name}\s*\)", code)
        if not halves or stubbed or not instance or _defines(code, name, f"{halves[0]}_gpu"):
            continue
        macro = "STUB_GPU" if len(halves) == 2 else f"STUB_GPU_{halves[0].upper()}"
        arguments = name if len(halves) == 2 else f"{name}, {halves[0]}"
        place = line_start(text, instance.start())
        lines = ("#ifdef CPU_ONLY", f"{macro}({arguments});", "#endif", "")
        edits.append(Edit(place, place, newline.join((*lines, ""))))
    return edits


def _defines(code: str, name: str, method: str) -> bool:
    return bool(re.search(rf"\b{name}\s*<\s*\w+\s*>\s*::\s*{method}\s*\(", code))


def random_shuffle(text: str) -> list[Edit]:
    """Calls with two iterators go to Caffe's own shuffle, which follows random_seed."""
    if "random_shuffle" not in text:
        return []
    code = cpp.blank(text)
    calls = [m for m in _SHUFFLE.finditer(code) if _arguments(code, m.end()) == 2]
    if not calls:
        return []
    edits = [replace_group(match, 1, "caffe::shuffle") for match in calls]
    included = cpp.includes(text)
    if any(header.name == _RNG for header in included):
        return edits
    before = [header for header in included if header.end < calls[0].start()]
    own = [header for header in before if header.name.startswith("caffe/")] or before
    place = line_end(text, own[-1].end) if own else 0
    return [Edit(place, place, f'#include "{_RNG}"{newline_of(text)}'), *edits]


def _arguments(code: str, start: int) -> int:
    """How many arguments stand between the bracket before `start` and its partner."""
    depth, count = 1, 1
    for character in code[start:]:
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return count
        count += character == "," and depth == 1
    return 0


MENDS = (
    Mend(
        "protobuf-bytes-limit",
        "SetTotalBytesLimit takes one argument: current protobuf has dropped the second",
        CPP,
        bytes_limit,
    ),
    Mend(
        "cuda13-device-properties",
        "CUDA 13 has taken clockRate and others out of cudaDeviceProp: not logged there",
        CPP,
        device_properties,
    ),
    Mend(
        "gpu-stub",
        "a build for the processor leaves .cu files out, and links with a STUB_GPU only",
        (".cpp",),
        gpu_stub,
        whole_tree=True,
    ),
    Mend(
        "random-shuffle",
        "C++17 has no std::random_shuffle: caffe::shuffle takes its place",
        CPP,
        random_shuffle,
    ),
)
