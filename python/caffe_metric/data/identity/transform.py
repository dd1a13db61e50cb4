"""What is done to an image before it goes into a net: crop, mirror, mean, scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The middle of the room for a crop; an odd row more than there is to share is left below, as in
# Caffe's own layers.
CENTRE = 0.5 - 1e-9


@dataclass(frozen=True)
class Transform:
    """y = (x - mean) * scale, of a crop of x, perhaps mirrored.

    crop_size  height and width of the crop; 0 for the whole image
    mean       broadcasts to [channels, height, width] of the whole image, or None; with a mean for
               3 channels, a gray image becomes one of 3
    """

    crop_size: int = 0
    mean: np.ndarray | None = None
    scale: float = 1.0

    def shape(self, image_shape) -> tuple[int, int, int]:
        """The shape of what is written, of an image's. Raises ValueError."""
        channels, height, width = image_shape
        if self.mean is not None:
            channels, height, width = np.broadcast(self.mean, np.empty(image_shape)).shape
        if not self.crop_size:
            return channels, height, width
        if min(height, width) < self.crop_size:
            raise ValueError(
                f"crop_size is {self.crop_size}, the image is {height} high and {width} wide"
            )
        return channels, self.crop_size, self.crop_size

    def __call__(self, image, place, mirror: bool, out) -> None:
        """Writes the transformed image to `out`.

        place: where the crop stands, (y, x) as fractions in [0, 1] of the room that there is.
        """
        if image.shape[0] == 1 and out.shape[0] == 3:
            image = image.repeat(3, axis=0)
        shape = self.shape(image.shape)
        if shape != out.shape:
            raise ValueError(f"the image gives {list(shape)}, the first one {list(out.shape)}")
        image = image.astype(np.float32)
        if self.mean is not None:
            image -= self.mean
        if self.crop_size:
            room = image.shape[1] - self.crop_size, image.shape[2] - self.crop_size
            y, x = (min(int(f * (r + 1)), r) for f, r in zip(place, room))
            image = image[:, y : y + self.crop_size, x : x + self.crop_size]
        if mirror:
            image = image[:, :, ::-1]
        np.multiply(image, np.float32(self.scale), out=out)
