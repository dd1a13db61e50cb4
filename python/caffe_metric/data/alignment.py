"""Faces turned, scaled and cropped by five landmarks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from caffe_metric.data.picture import decode
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing
from caffe_metric.support.text import read_lines

# Left eye, right eye, nose, left and right corner of the mouth, as seen in the image: of
# InsightFace (Guo and Deng), for 112 x 112. SphereFace's (Liu et al. 2017), for 96 x 112, is the
# same with 8 columns less on either side.
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
TEMPLATE_SIDE = 112
NARROWEST = 96  # of the template's columns, those that every crop shows
JPEG = {".jpg", ".jpeg", ".jpe"}


class Face(NamedTuple):
    """A line of a list. label: None where it has none. landmarks: [5, 2], or None."""

    name: str
    label: int | None
    landmarks: np.ndarray | None


def similarity_to(points, target):
    """The similarity [2, 3] that takes points [K, 2] to target [K, 2] with least squares.

    Rotation, one scale and translation, no reflection (Umeyama 1991, eq. 40-42). Raises ValueError
    where all points are one.
    """
    from skimage.transform import SimilarityTransform

    points, target = np.asarray(points, np.float64), np.asarray(target, np.float64)
    if not np.ptp(points, axis=0).any():
        raise ValueError("the landmarks are all one point")
    if hasattr(SimilarityTransform, "from_estimate"):  # scikit-image 0.26
        return SimilarityTransform.from_estimate(points, target).params[:2]
    found = SimilarityTransform()
    found.estimate(points, target)
    return found.params[:2]


def template_similarity(landmarks, size):
    """To the five-point template, in an image of size (width, height).

    The template's 112 rows fill the height; of its columns the middle ones are shown, 96 of them at
    least. 112 x 112 is InsightFace's crop, 96 x 112 SphereFace's.
    """
    width, height = size
    scale = min(height / TEMPLATE_SIDE, width / NARROWEST)
    shift = (np.array(size) - scale * TEMPLATE_SIDE) / 2
    return similarity_to(landmarks, TEMPLATE * scale + shift)


def eyes_similarity(landmarks, size, ec_mc_y, ec_y):
    """Eyes level; `ec_mc_y` pixels from the eyes' middle down to the mouth's; eyes at `ec_y`."""
    landmarks = np.asarray(landmarks, np.float64)
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    across = landmarks[1] - landmarks[0]
    length = np.hypot(*across)
    if length == 0:
        raise ValueError("both eyes are one point")
    cosine, sine = across / length
    rotation = np.array([[cosine, sine], [-sine, cosine]])
    height = (rotation @ (mouth - eyes))[1]
    if height <= 0:
        raise ValueError("the mouth is above the eyes")
    linear = rotation * (ec_mc_y / height)
    return np.column_stack([linear, [size[0] / 2, ec_y] - linear @ eyes])


def warp(image, similarity, size):
    """An image [H, W] or [H, W, 3] through a similarity [2, 3], cropped to size (width, height).

    Black outside, bilinear. Landmarks count from the middle of the first pixel.
    """
    import cv2

    return cv2.warpAffine(image, similarity, size, flags=cv2.INTER_LINEAR)


def read_image(path):
    """uint8 [H, W] or [H, W, 3] (BGR), turned as its EXIF says. Raises ValueError, OSError."""
    image, _ = decode(Path(path).read_bytes())
    array = np.asarray(image)
    return array if array.ndim == 2 else np.ascontiguousarray(array[:, :, ::-1])


def write_image(path, image):
    """JPEG at quality 95 without subsampled colour; other formats as they are."""
    import cv2

    options = []
    if Path(path).suffix.lower() in JPEG:
        options = [cv2.IMWRITE_JPEG_QUALITY, 95]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, data = cv2.imencode(Path(path).suffix.lower(), image, options)
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())


def read_list(path, landmarks=True):
    """The Faces of a list. Raises UserError with the line.

    landmarks: whether lines end in ten numbers, or are `FILE [LABEL]` only.
    """
    faces = [_face(path, number, line, landmarks) for number, line in read_lines(path)]
    with_label = [face.label is not None for face in faces]
    if any(with_label) and not all(with_label):
        first = faces[with_label.index(not with_label[0])]
        word = "no label" if with_label[0] else "a label"
        raise UserError(f"{path}: '{first.name}' has {word}, unlike the lines before it")
    return faces


def _face(path, number, line, landmarks):
    points = None
    name = line
    if landmarks:
        (name, *numbers) = line.rsplit(None, 10)
        try:
            points = np.array(numbers, np.float64).reshape(5, 2)
            if not np.isfinite(points).all():
                raise ValueError
        except ValueError:
            raise UserError(
                f"{path}:{number}: `FILE [LABEL] X1 Y1 ... X5 Y5` expected, not '{line}'"
            ) from None
    file, *label = name.rsplit(None, 1)
    if label and label[0].isdecimal() and len(label[0]) < 19:
        return Face(file, int(label[0]), points)
    return Face(name, None, points)


def output_names(names, folder):
    """For each name of a list in `folder`, another one below the folder that is written to.

    Files within the list's folder keep their names; if some are not, all are named from the folder
    that holds them all. A file that is listed again gets a number: `a.jpg`, `a-2.jpg`.
    """
    folder = os.path.abspath(folder)
    files = [os.path.normpath(os.path.join(folder, name)) for name in names]
    inside = all(file.startswith(folder.rstrip(os.sep) + os.sep) for file in files)
    root = folder if inside else os.path.commonpath([os.path.dirname(file) for file in files])
    used, found = set(), []
    for file in files:
        stem, suffix = os.path.splitext(os.path.relpath(file, root))
        name, number = stem + suffix, 1
        while name in used:
            number += 1
            name = f"{stem}-{number}{suffix}"
        used.add(name)
        found.append(name)
    return found
