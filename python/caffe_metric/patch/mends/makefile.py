"""Breaks in Caffe's own Makefile."""

from __future__ import annotations

import re

from caffe_metric.patch.mends.mend import CMAKE, Mend, blank_hash_comments, replace_group
from caffe_metric.patch.text import Edit, newline_of, with_newlines

_MAKEFILE = ("/Makefile",)
_PYTHON_LIBRARIES = re.compile(
    r"^[ \t]*PYTHON_LIBRARIES[ \t]*\?=[ \t]*(boost_python\d*[ \t]+python[\d.]+m?)[ \t]*\r?$",
    re.MULTILINE,
)
_BOOST_SYSTEM = re.compile(
    r"^()[ \t]*LIBRARIES[ \t]*\+=[^\n]*?[ \t](boost_system)(?=[ \t\r\n])", re.MULTILINE
)
_HDF5 = re.compile(r"^[ \t]*LIBRARIES[ \t]*\+=[^\n]*\bhdf5\b[^\n]*\n()", re.MULTILINE)
_OPENCV = re.compile(
    r"^()[ \t]*(ifeq[ \t]*\([ \t]*\$\(OPENCV_VERSION\)[ \t]*,[ \t]*3[ \t]*\))", re.MULTILINE
)
_PKG_CONFIG = re.compile(r"\$\(shell pkg-config (opencv --libs)\)")
_CXXFLAGS = re.compile(r"^[ \t]*CXXFLAGS[ \t]*\+=[^\n]*\$\(COMMON_FLAGS\)[^\n]*\n()", re.MULTILINE)
_GLOG = re.compile(r"^[ \t]*LIBRARIES[ \t]*\+=[^\n]*\bglog\b[^\n]*\n()", re.MULTILINE)
_CXX11 = re.compile(r"(?<![\w=])-std=((?:c|gnu)\+\+(?:0x|11|1y|14))(?!\w)")
_CXX_STANDARD = re.compile(r"\bset\s*\(\s*CMAKE_CXX_STANDARD\s+(11|14)\b", re.IGNORECASE)


def python_libraries(text: str) -> list[Edit]:
    ask = (
        "$(shell python3 -c 'import sys; v = sys.version_info; "
        'print("boost_python%d%d python%d.%d" % (v[0], v[1], v[0], v[1]))\')'
    )
    return [replace_group(m, 1, ask) for m in _PYTHON_LIBRARIES.finditer(blank_hash_comments(text))]


def boost_system(text: str) -> list[Edit]:
    """Links it where a program can be linked with it."""
    probe = (
        "BOOST_SYSTEM := $(shell echo 'int main() {}' | $(or $(CUSTOM_CXX),$(CXX)) -x c++ - \\\n"
        "\t\t$(addprefix -L,$(LIBRARY_DIRS)) -lboost_system -o /dev/null 2>/dev/null \\\n"
        "\t\t&& echo boost_system)\n"
    )
    edits = _insert(text, _BOOST_SYSTEM, probe)
    code = blank_hash_comments(text)
    return edits + [replace_group(m, 2, "$(BOOST_SYSTEM)") for m in _BOOST_SYSTEM.finditer(code)]


def hdf5_folders(text: str) -> list[Edit]:
    if "hdf5/serial" in text:
        return []
    lines = (
        "\t# Debian keeps the serial HDF5 in folders of its own.\n"
        "\tINCLUDE_DIRS += $(wildcard /usr/include/hdf5/serial)\n"
        "\tLIBRARY_DIRS += $(wildcard /usr/lib/*/hdf5/serial)\n"
    )
    return _insert(text, _HDF5, lines)


def opencv_4(text: str) -> list[Edit]:
    """Finds OpenCV 4 by pkg-config; its imread is in opencv_imgcodecs, as OpenCV 3's is."""
    lines = (
        "\tOPENCV_VERSION ?= $(shell pkg-config --modversion opencv4 2>/dev/null | cut -d. -f1)\n"
        "\tINCLUDE_DIRS += $(patsubst -I%,%,"
        "$(shell pkg-config --cflags-only-I opencv4 2>/dev/null))\n"
    )
    code = blank_hash_comments(text)
    edits = _insert(text, _OPENCV, lines)
    if edits:
        edits += [
            replace_group(m, 2, "ifneq ($(filter 3 4,$(OPENCV_VERSION)),)")
            for m in _OPENCV.finditer(code)
        ][:1]
    edits += [
        replace_group(m, 1, "opencv4 --libs 2>/dev/null || pkg-config opencv --libs")
        for m in _PKG_CONFIG.finditer(code)
    ]
    return edits


def glog_export(text: str) -> list[Edit]:
    if "GLOG_USE_GLOG_EXPORT" in text:
        return []
    return _insert(text, _GLOG, "COMMON_FLAGS += -DGLOG_USE_GLOG_EXPORT\n")


def cxx_standard(text: str) -> list[Edit]:
    code = blank_hash_comments(text)
    edits = [replace_group(match, 1, "c++17") for match in _CXX11.finditer(code)]
    return edits + [replace_group(match, 1, "17") for match in _CXX_STANDARD.finditer(code)]


def _insert(text: str, where: re.Pattern, lines: str) -> list[Edit]:
    """The lines at the first place of `where`'s first group."""
    match = where.search(blank_hash_comments(text))
    return [replace_group(match, 1, with_newlines(lines, newline_of(text)))] if match else []


def cxx_11(text: str) -> list[Edit]:
    """For compilers whose default is C++98: gcc before 6, clang before 6."""
    if "-std=" in text:
        return []
    lines = (
        "ifneq ($(shell $(CXX) -dM -E -x c++ /dev/null 2>/dev/null | grep '__cplusplus 1997'),)\n"
        "\tCXXFLAGS += -std=c++11\n"
        "\tNVCCFLAGS += -std=c++11\n"
        "endif\n"
    )
    return _insert(text, _CXXFLAGS, lines)


MENDS = (
    Mend(
        "cxx11-makefile",
        "the layers are C++11, which gcc before 6 takes for C++98 where a tree names no standard",
        _MAKEFILE,
        cxx_11,
    ),
    Mend(
        "boost-python-makefile",
        "Boost.Python's library has the Python version in its name since Boost 1.67",
        _MAKEFILE,
        python_libraries,
    ),
    Mend(
        "boost-system-makefile",
        "Boost 1.89 has no system library (headers only since 1.69): linked where there is one",
        _MAKEFILE,
        boost_system,
    ),
    Mend(
        "hdf5-folders",
        "Debian and Ubuntu keep HDF5's headers and libraries in folders of their own",
        _MAKEFILE,
        hdf5_folders,
    ),
    Mend(
        "opencv4-makefile",
        "the Makefile knows OpenCV up to 3: 4 is found by pkg-config, with opencv_imgcodecs",
        _MAKEFILE,
        opencv_4,
    ),
    Mend(
        "glog-export-makefile",
        "glog 0.7's headers want GLOG_USE_GLOG_EXPORT; older ones do not mind it",
        _MAKEFILE,
        glog_export,
    ),
    Mend(
        "cxx-standard",
        "current protobuf, glog and CUDA headers want C++14 or C++17: a pinned C++11 becomes C++17",
        (*_MAKEFILE, *CMAKE),
        cxx_standard,
    ),
)
