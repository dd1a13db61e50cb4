"""Five landmarks by MTCNN, three nets in a cascade (Zhang et al. 2016, "Joint face detection and
alignment using multitask cascaded convolutional networks").

The published Caffe nets, det1 to det3, were trained by MATLAB: they see RGB images, and a blob's
height is the image's width. A box is a row x1, y1, x2, y2, in pixels from 0, both ends within.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffe_metric.support.errors import UserError

# As published: the least face, the step from a scale to the next, a net's least confidence.
SMALLEST, STEP = 20, 0.709
SCORES = (0.6, 0.7, 0.7)
CELL, STRIDE = 12, 2  # of the first net: what a place of its output sees, and how far apart
SIDES = (24, 48)  # of the images that the second and third net take
OUTPUTS = ({2: "scores", 4: "shifts"},) * 2 + ({2: "scores", 4: "shifts", 10: "landmarks"},)


class MTCNN:
    """folder: det1.prototxt, det1.caffemodel, and so for det2 and det3. Raises UserError.

    Call it with an image, uint8 [H, W] or [H, W, 3] (BGR): landmarks [5, 2] of the largest face, in
    pixels, as align takes them. Raises ValueError where it finds no face.
    """

    def __init__(self, folder):
        self._first, self._second, self._third = (_Net(folder, number) for number in (1, 2, 3))

    def __call__(self, image):
        import cv2

        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)
        boxes = self._proposals(image)
        boxes, scores, shifts, _ = _passed(self._second, image, boxes, SIDES[0])
        kept = suppressed(boxes, scores, 0.7)
        boxes = squares(regressed(boxes[kept], shifts[kept], 1))
        boxes, scores, shifts, points = _passed(self._third, image, boxes, SIDES[1])
        # Landmarks are parts of the box that the net saw, the five x first.
        sizes = boxes[:, 2:] - boxes[:, :2] + 1
        points = boxes[:, None, :2] + points.reshape(-1, 2, 5).transpose(0, 2, 1) * sizes[:, None]
        boxes = regressed(boxes, shifts, 1)
        kept = suppressed(boxes, scores, 0.7, of_smaller=True)
        if not len(kept):
            raise ValueError("no face found")
        areas = np.prod(boxes[kept, 2:] - boxes[kept, :2], axis=1)
        return points[kept[np.argmax(areas)]].astype(np.float64)

    def _proposals(self, image):
        """Squares that the first net, at each scale, takes for faces."""
        import cv2

        height, width = image.shape[:2]
        found = [(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 4)))]
        scale = CELL / SMALLEST
        while min(height, width) * scale >= CELL:
            size = int(np.ceil(width * scale)), int(np.ceil(height * scale))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            made = self._first(small[None])
            one = cells(made["scores"][0, 1], made["shifts"][0], scale, SCORES[0])
            kept = suppressed(*one[:2], 0.5)
            found.append([part[kept] for part in one])
            scale *= STEP
        boxes, scores, shifts = map(np.concatenate, zip(*found))
        kept = suppressed(boxes, scores, 0.7)
        return squares(regressed(boxes[kept], shifts[kept], 0))


class _Net:
    """One of the three, in OpenCV's dnn."""

    def __init__(self, folder, number):
        import cv2

        self._name = f"{Path(folder, f'det{number}')}"
        files = [f"{self._name}.prototxt", f"{self._name}.caffemodel"]
        for file in files:
            if not Path(file).is_file():
                raise UserError(f"{file}: no such file")
        try:
            self._net = cv2.dnn.readNetFromCaffe(*files)
        except cv2.error as error:
            raise UserError(f"{files[0]}: OpenCV cannot read this net ({error.err})") from error
        self._outputs = OUTPUTS[number - 1]
        self._ends = self._net.getUnconnectedOutLayersNames()

    def __call__(self, images):
        """images: uint8 RGB [N, H, W, 3]. The outputs by what they are, H before W again."""
        import cv2

        blob = (np.asarray(images, np.float32) - 127.5) * np.float32(1 / 128)
        self._net.setInput(np.ascontiguousarray(blob.transpose(0, 3, 2, 1)))
        try:
            made = self._net.forward(self._ends)
        except cv2.error as error:
            raise UserError(f"{self._name}.prototxt: OpenCV cannot run it ({error.err})") from error
        found = {one.shape[1]: one for one in made}
        if set(found) != set(self._outputs):
            has, wants = (", ".join(map(str, sorted(one))) for one in (found, self._outputs))
            raise UserError(
                f"{self._name}.prototxt: outputs of {has} channels, MTCNN's has {wants}"
            )
        return {
            name: found[count].swapaxes(2, 3) if found[count].ndim == 4 else found[count]
            for count, name in self._outputs.items()
        }


def _passed(net, image, boxes, side):
    """What a net takes for a face of boxes: (boxes, scores, shifts, landmarks or None)."""
    if not len(boxes):
        return boxes, np.zeros(0), np.zeros((0, 4)), np.zeros((0, 10))
    made = net(np.stack([cut(image, box, side) for box in boxes]))
    scores = made["scores"].reshape(len(boxes), 2)[:, 1]
    good = scores > SCORES[SIDES.index(side) + 1]
    rest = (made[name].reshape(len(boxes), -1)[good] if name in made else None
            for name in ("shifts", "landmarks"))  # fmt: skip
    return (boxes[good], scores[good], *rest)


def cells(scores, shifts, scale, least):
    """Boxes of the image [K, 4], scores and shifts [K, 4] of the first net's places, at a scale.

    scores [h, w], shifts [4, h, w].
    """
    y, x = np.nonzero(scores >= least)
    corner = STRIDE * np.column_stack([x, y, x, y]) + [1, 1, CELL, CELL]
    return np.trunc(corner / scale) - 1, scores[y, x], shifts[:, y, x].T


def suppressed(boxes, scores, most, of_smaller=False):
    """Indices of boxes to keep, by score, none of which covers another by more than `most`.

    Of the union of the two, or of the smaller one.
    """
    low, high = boxes[:, :2], boxes[:, 2:] + 1
    areas = np.prod(high - low, axis=1)
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        sides = np.minimum(high[best], high[rest]) - np.maximum(low[best], low[rest])
        common = np.prod(np.maximum(sides, 0), axis=1)
        smaller, both = np.minimum(areas[best], areas[rest]), areas[best] + areas[rest] - common
        order = rest[common <= most * (smaller if of_smaller else both)]
    return np.array(kept, np.intp)


def regressed(boxes, shifts, more):
    """Boxes, each side moved by its part of the width or height.

    more: 1 where a width counts both ends; the first net's do not.
    """
    sizes = boxes[:, 2:] - boxes[:, :2] + more
    return boxes + shifts * np.tile(sizes, 2)


def squares(boxes):
    """Squares of whole pixels with the same middles, of the longer sides."""
    middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    half = np.maximum(sides.max(axis=1, keepdims=True), 1) / 2
    return np.trunc(np.hstack([middle - half, middle + half]))


def cut(image, box, side):
    """What a box shows of an image, black outside of it, as a square of `side` pixels."""
    import cv2

    x1, y1, x2, y2 = box.astype(int)
    shown = np.zeros((y2 - y1 + 1, x2 - x1 + 1, 3), np.uint8)
    height, width = image.shape[:2]
    inside = image[max(y1, 0) : max(y2 + 1, 0), max(x1, 0) : max(x2 + 1, 0)]
    top, left = max(-y1, 0), max(-x1, 0)
    if inside.size:
        shown[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return cv2.resize(shown, (side, side), interpolation=cv2.INTER_AREA)
