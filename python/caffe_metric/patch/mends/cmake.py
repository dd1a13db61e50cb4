"""Breaks in CMake files."""

from __future__ import annotations

import re

from caffe_metric.patch.mends.mend import CMAKE, Mend, blank_hash_comments, replace_group
from caffe_metric.patch.text import Edit, newline_of

_VERSION = re.compile(
    r"\bcmake_(?:minimum_required|policy)\s*\(\s*VERSION\s+(\d[\d.]*?\d|\d)(\.\.\.[\d.]+)?(?=[\s)])",
    re.IGNORECASE,
)
_OLD_POLICY = re.compile(
    r"\bcmake_policy\s*\(\s*SET\s+CMP00(?:[0-5]\d|6[0-5])\s+OLD\s*\)", re.IGNORECASE
)
_BOOST = re.compile(
    r"\bfind_package\s*\(\s*Boost\b[^()]*?\bCOMPONENTS\b[^()]*?(\s+system)(?=[\s)])[^()]*(\))",
    re.IGNORECASE,
)
_PYTHON_PY = re.compile(r"\b(?:python|Boost_PYTHON)(-py|-PY)(?=\$\{|\d)")
_PYTHON_2 = re.compile(r"\bset\s*\(\s*python_version\s+\"?(2)(?:\.\d)?\"?\s+CACHE\b", re.IGNORECASE)
_PROJECT = re.compile(r"\bproject\s*\(\s*Caffe\b[^()]*\)", re.IGNORECASE)
_GLOG = re.compile(r"\binclude\s*\(\s*\"?cmake/External/glog\.cmake\"?\s*\)()", re.IGNORECASE)

_NVCC_FLAGS = re.compile(
    r"\blist\s*\(\s*APPEND\s+CUDA_NVCC_FLAGS\s+\$\{NVCC_FLAGS_EXTRA\}\s*\)", re.IGNORECASE
)


def minimum_version(text: str) -> list[Edit]:
    """CMake 4 takes a range that ends at 3.5 or later; 3.10 keeps it from warning, too."""
    edits = []
    for match in _VERSION.finditer(blank_hash_comments(text)):
        asked = (match.group(2) or match.group(1)).strip(".").split(".")
        if tuple(int(part) for part in asked[:2]) < (3, 5):
            end = match.end(2) if match.group(2) else match.end(1)
            edits.append(Edit(match.end(1), end, "...3.10"))
    return edits


def old_policies(text: str) -> list[Edit]:
    newline = newline_of(text)
    return [
        replace_group(
            match,
            0,
            f"if(CMAKE_VERSION VERSION_LESS 4.0){newline}  {match.group()}{newline}endif()",
        )
        for match in _OLD_POLICY.finditer(blank_hash_comments(text))
    ]


def boost_system(text: str) -> list[Edit]:
    edits = []
    for match in _BOOST.finditer(blank_hash_comments(text)):
        if "OPTIONAL_COMPONENTS" not in match.group():
            edits.append(replace_group(match, 1, ""))
            edits.append(Edit(match.start(2), match.start(2), " OPTIONAL_COMPONENTS system"))
    return edits


def boost_python(text: str) -> list[Edit]:
    return [replace_group(m, 1, "") for m in _PYTHON_PY.finditer(blank_hash_comments(text))]


def python_3(text: str) -> list[Edit]:
    return [replace_group(match, 1, "3") for match in _PYTHON_2.finditer(blank_hash_comments(text))]


def glog_export(text: str) -> list[Edit]:
    if "GLOG_USE_GLOG_EXPORT" in text:
        return []
    line = newline_of(text) + "add_definitions(-DGLOG_USE_GLOG_EXPORT)"
    return [replace_group(match, 1, line) for match in _GLOG.finditer(blank_hash_comments(text))]


def kernel_stubs(text: str) -> list[Edit]:
    """Caffe's tests launch kernel templates of its library."""
    if "static-global-template-stub" in text:
        return []
    newline = newline_of(text)
    lines = (
        "",
        "if(NOT CUDA_VERSION VERSION_LESS 13.0)",
        "  list(APPEND CUDA_NVCC_FLAGS -static-global-template-stub=false",
        "    -device-entity-has-hidden-visibility=false)",
        "endif()",
    )
    found = _NVCC_FLAGS.finditer(blank_hash_comments(text))
    return [Edit(match.end(), match.end(), newline.join(lines)) for match in found]


def cxx_11(text: str) -> list[Edit]:
    """For compilers whose default is C++98: gcc before 6, clang before 6."""
    if "-std=" in text or "CXX_STANDARD" in text:
        return []
    newline = newline_of(text)
    lines = (
        "",
        'if(CMAKE_CXX_STANDARD_DEFAULT STREQUAL "98")',
        '  set(CMAKE_CXX_FLAGS "${CMAKE_CXX_FLAGS} -std=c++11")',
        "endif()",
    )
    found = list(_PROJECT.finditer(blank_hash_comments(text)))[:1]
    return [Edit(match.end(), match.end(), newline.join(lines)) for match in found]


MENDS = (
    Mend(
        "cxx11-cmake",
        "the layers are C++11, which gcc before 6 takes for C++98 where a tree names no standard",
        ("/CMakeLists.txt",),
        cxx_11,
    ),
    Mend(
        "cmake-minimum",
        "CMake 4 refuses files for CMake before 3.5: they name the range up to 3.10",
        CMAKE,
        minimum_version,
    ),
    Mend(
        "cmake-old-policies",
        "CMake 4 has no OLD behaviour of policies up to CMP0065: asked of earlier ones only",
        CMAKE,
        old_policies,
    ),
    Mend(
        "boost-system-cmake",
        "Boost 1.89 has no system library (headers only since 1.69): it is optional",
        CMAKE,
        boost_system,
    ),
    Mend(
        "boost-python-cmake",
        "Boost.Python's component is named python311, not python-py311, since Boost 1.67",
        CMAKE,
        boost_python,
    ),
    Mend(
        "python3-cmake",
        "current systems have no Python 2: python_version is 3 unless it is given",
        ("/CMakeLists.txt",),
        python_3,
    ),
    Mend(
        "glog-export-cmake",
        "glog 0.7's headers want GLOG_USE_GLOG_EXPORT; older ones do not mind it",
        CMAKE,
        glog_export,
    ),
    Mend(
        "cuda13-kernel-stubs",
        "CUDA 13 keeps kernel templates to their files; Caffe's tests launch them from others",
        CMAKE,
        kernel_stubs,
    ),
)
