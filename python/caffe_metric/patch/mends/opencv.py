"""OpenCV 4 has dropped the constants and headers of its C interface."""

from __future__ import annotations

import re

from caffe_metric.patch import cpp
from caffe_metric.patch.mends.mend import CPP, Mend, replace_group
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


def constants(text: str) -> list[Edit]:
    if "CV_" not in text:
        return []
    code = cpp.blank(text)
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
