"""The five landmarks of the largest face in an image, by a detector whose files the user has."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffe_metric.support.errors import UserError

SCORE = 0.6  # the least confidence, of 1


class YuNet:
    """OpenCV's face detector (Wu et al. 2023): face_detection_yunet_*.onnx of OpenCV's model zoo.

    Call it with an image, uint8 [H, W] or [H, W, 3] (BGR): landmarks [5, 2], in pixels, as align
    takes them. Raises ValueError where it finds no face.
    """

    def __init__(self, path):
        import cv2

        if not Path(path).is_file():
            raise UserError(f"{path}: no such file")
        try:
            self._detector = cv2.FaceDetectorYN.create(str(path), "", (32, 32), SCORE)
        except cv2.error as error:
            raise UserError(f"{path}: OpenCV cannot read this net ({error.err})") from error

    def __call__(self, image):
        import cv2

        if image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        self._detector.setInputSize(image.shape[1::-1])
        _, faces = self._detector.detect(image)
        if faces is None:
            raise ValueError("no face found")
        # A row: x, y, width, height, five points (the person's right eye first), confidence.
        largest = max(faces, key=lambda face: face[2] * face[3])
        return np.asarray(largest[4:14], np.float64).reshape(5, 2)
