"""OpenCV 4 has dropped the constants and headers of its C interface."""

from __future__ import annotations

import re

from caffe_metric.patch import cpp
from caffe_metric.patch.mends.mend import CMAKE, CPP, Mend, replace_group
from caffe_metric.patch.text import Edit

_COLOURS = r"(?:BGRA?|RGBA?|GRAY|HSV|HLS|Lab|LAB|Luv|YCrCb|YUV|XYZ)2\w+"
# (constants, what they are called now, a header that still has them)
_FAMILIES = [
    (r"CV_LOAD_IMAGE_(\w+)", r"cv::IMREAD_\1", "imgcodecs/legacy/constants_c.h"),
    (r"CV_(IMWRITE_\w+)", r"cv::\1", "imgcodecs/legacy/constants_c.h"),
    (r"CV_(CAP_PROP_\w+|CAP_ANY)", r"cv::\1", "videoio/legacy/constants_c.h"),
    (rf"CV_({_COLOURS})", r"cv::COLOR_\1", "_c.h"),
    (r"CV_INTER_NN", "cv::INTER_NEAREST", "_c.h"),
    (r"CV_(INTER_(?:LINEAR|CUBIC|AREA|LANCZOS4))", r"cv::\1", "_c.h"),
    (r"CV_(THRESH_\w+)", r"cv::\1", "_c.h"),
    (r"CV_(FONT_HERSHEY_\w+)", r"cv::\1", "_c.h"),
    (r"CV_(WINDOW_\w+)", r"cv::\1", "_c.h"),
    (r"CV_MINMAX", "cv::NORM_MINMAX", "_c.h"),
    (r"CV_AA", "cv::LINE_AA", "_c.h"),
    (r"CV_FILLED", "cv::FILLED", "_c.h"),
]
_FOURCC = re.compile(r"(?<![\w:])(CV_FOURCC)\s*\(")
_CV_RGB = re.compile(r"(?<![\w:])(CV_RGB\s*\(([^(),]+),([^(),]+),([^(),]+)\))")
_OLD_HEADERS = re.compile(
    r"(?:opencv/)?(?:cv|highgui|cxcore|cvaux)\.h(?:pp)?|opencv2/contrib/contrib\.hpp"
)


_VERSION = r"CV_(?:VERSION_MAJOR|MAJOR_VERSION)"
_ONLY_3 = re.compile(rf"^[ \t]*#[ \t]*(?:el)?if\b[^\n]*?\b{_VERSION}\s*(==|!=)\s*3\b", re.MULTILINE)
_ONLY_3_CMAKE = re.compile(
    r"\bOpenCV_VERSION_MAJOR\}?\"?\s+((?:VERSION_|STR)?EQUAL\s+\"?3\"?)(?=[\s)])", re.IGNORECASE
)
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(ifdef|ifndef|if|elif|else|endif)\b([^\n]*)", re.MULTILINE)
_COMPARISON = re.compile(rf"{_VERSION}\s*(==|!=|<=|>=|<|>)\s*(\d+)")


def version_guards(text: str) -> list[Edit]:
    """What is for version 3 alone is for the later ones as well."""
    edits = [replace_group(m, 1, "GREATER 2") for m in _ONLY_3_CMAKE.finditer(text)]
    if "CV_" in text and "#" in text:
        newer = {"==": ">=", "!=": "<"}
        edits += [replace_group(m, 1, newer[m[1]]) for m in _ONLY_3.finditer(cpp.blank(text))]
    return edits


def _active(code: str) -> str:
    """The code with blanks where its guards leave it out for OpenCV 4; offsets stay."""
    if "CV_VERSION" not in code and "CV_MAJOR_VERSION" not in code:
        return code
    pieces, done = [], 0
    chain = [[False, True]]  # of each open #if: was a branch surely taken; may this one be
    for match in _DIRECTIVE.finditer(code):
        piece = code[done : match.start()]
        possible = all(branch for _, branch in chain)
        pieces.append(piece if possible else re.sub(r"[^\r\n]", " ", piece))
        done = match.start()
        word, condition = match[1], match[2].strip()
        if word == "endif":
            chain[1:] = chain[1:-1]
            continue
        holds = True if word == "else" else _holds_for_4(word, condition)
        if word in ("elif", "else") and len(chain) > 1:
            chain[-1] = [chain[-1][0] or holds is True, holds is not False and not chain[-1][0]]
        else:
            chain.append([holds is True, holds is not False])
    return "".join(pieces) + code[done:]


def _holds_for_4(word: str, condition: str) -> bool | None:
    """Whether a condition on OpenCV's version holds for version 4; None where it is another one."""
    if word in ("ifdef", "ifndef"):
        return word == "ifndef" if condition == "CV_VERSION_EPOCH" else None
    condition = condition.strip("() \t")
    if re.fullmatch(r"(!\s*)?defined\s*\(?\s*CV_VERSION_EPOCH", condition):
        return condition.startswith("!")
    if re.fullmatch(r"CV_VERSION_EPOCH\s*==\s*[1-9]\d*", condition):
        return False
    match = _COMPARISON.fullmatch(condition)
    if not match:
        return None
    sign, number = match[1], int(match[2])
    if number == 3 and sign in ("==", "!="):  # as version_guards mends it
        return sign == "=="
    return {
        "==": number == 4,
        "!=": number != 4,
        "<": number > 4,
        "<=": number >= 4,
        ">": number < 4,
        ">=": number <= 4,
    }[sign]


def constants(text: str) -> list[Edit]:
    if "CV_" not in text:
        return []
    code = _active(cpp.blank(text))
    headers = [header.name for header in cpp.includes(text)]
    edits = []
    for pattern, name, header in _FAMILIES:
        if any(h.endswith(header) for h in headers):
            continue
        for match in re.finditer(rf"(?<![\w:]){pattern}\b", code):
            if not _defined(code, match.group()):
                edits.append(replace_group(match, 0, match.expand(name)))
    if not any(h.endswith("_c.h") for h in headers):
        for match in _FOURCC.finditer(code):
            edits.append(replace_group(match, 1, "cv::VideoWriter::fourcc"))
        for match in _CV_RGB.finditer(code):
            red, green, blue = (text[slice(*match.span(g))].strip() for g in (2, 3, 4))
            edits.append(replace_group(match, 1, f"cv::Scalar({blue}, {green}, {red})"))
    return edits


def headers(text: str) -> list[Edit]:
    if "#" not in text:
        return []
    edits = []
    for header in cpp.includes(text):
        if _OLD_HEADERS.fullmatch(header.name):
            place = text.index(header.name, header.start)
            edits.append(Edit(place, place + len(header.name), "opencv2/opencv.hpp"))
    return edits


def _defined(code: str, name: str) -> bool:
    """Whether the file itself gives the name a meaning."""
    return bool(re.search(rf"#\s*define\s+{name}\b|\b{name}\s*=[^=]", code))


MENDS = (
    Mend(
        "opencv-version-guards",
        "what a file has for OpenCV 3 alone (#if CV_VERSION_MAJOR == 3) is for 4 as well",
        (*CPP, *CMAKE),
        version_guards,
    ),
    Mend(
        "opencv4-constants",
        "OpenCV 4 has no CV_ constants: their cv:: names take their place",
        CPP,
        constants,
    ),
    Mend(
        "opencv4-headers",
        "OpenCV 4 has no <opencv/cv.h> and the like: <opencv2/opencv.hpp> takes their place",
        CPP,
        headers,
    ),
)
