"""Faces turned, scaled and cropped by five landmarks."""

from __future__ import annotations

import numpy as np

from caffe_metric.support.errors import UserError
from caffe_metric.support.text import read_lines

# Of InsightFace (Guo and Deng), for 112 x 112.
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


def similarity_to(points, target):
    """The similarity [2, 3] that takes points [K, 2] to target [K, 2] with least squares.

    Rotation, one scale and translation, no reflection (Umeyama 1991, eq. 40-42). Raises ValueError
    where all points are one.
    """
    points, target = np.asarray(points, np.float64), np.asarray(target, np.float64)
    centre, target_centre = points.mean(axis=0), target.mean(axis=0)
    away, target_away = points - centre, target - target_centre
    variance = np.square(away).sum() / len(points)
    if variance == 0:
        raise ValueError("the landmarks are all one point")
    left, values, right = np.linalg.svd(target_away.T @ away / len(points))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = left @ np.diag(signs) @ right
    linear = rotation * (values @ signs) / variance
    return np.column_stack([linear, target_centre - linear @ centre])


def template_similarity(landmarks, size):
    """To the five-point template, scaled to an image of size (width, height), and centred."""
    scale = min(size) / TEMPLATE_SIDE
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
    """A PIL image through a similarity [2, 3], cropped to size; black outside, bilinear."""
    from PIL import Image

    linear, shift = similarity[:, :2], similarity[:, 2]
    back = np.linalg.inv(linear)
    # Landmarks count from the middle of the first pixel, PIL from its corner.
    offset = back @ (-shift - 0.5) + 0.5
    data = (*back[0], offset[0], *back[1], offset[1])
    return image.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def read_list(path):
    """[(file, label or None, landmarks [5, 2])] of a list. Raises UserError with the line."""
    entries = []
    for number, line in read_lines(path):
        (name, *numbers) = line.rsplit(None, 10)
        try:
            landmarks = np.array(numbers, np.float64).reshape(5, 2)
            if not np.isfinite(landmarks).all():
                raise ValueError
        except ValueError:
            raise UserError(
                f"{path}:{number}: `FILE [LABEL] X1 Y1 ... X5 Y5` expected, not '{line}'"
            ) from None
        file, *label = name.rsplit(None, 1)
        if label and label[0].isdecimal():
            entries.append((file, int(label[0]), landmarks))
        else:
            entries.append((name, None, landmarks))
    return entries
