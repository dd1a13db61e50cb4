"""Reading a picture the way Caffe holds it: uint8, channels first, blue before red."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from pathlib import Path

import numpy as np

from caffe_metric.support.errors import UserError

_ORIENTATION = 0x112  # of EXIF
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
# Formats whose bytes a Data layer decodes by itself, as they are.
_PLAIN_FORMATS = ("JPEG", "PNG", "BMP")


@dataclasses.dataclass(frozen=True)
class Picture:
    """How pictures are read.

    size: (width, height) to resize to, or None. gray: one channel; else three, as Caffe reads, gray
    pictures too. encoded: the file's bytes are kept (a Data layer decodes them), as PNG where they
    had to be changed.
    """

    size: tuple[int, int] | None = None
    gray: bool = False
    encoded: bool = False

    def read(self, path):
        """Reads a file. Raises UserError, with the file's name, where it is no picture."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from error
        try:
            image, plain = decode(data)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error
        same = plain and image.mode == self._mode and self.size in (None, image.size)
        return data if self.encoded and same else self._finish(image)

    def from_array(self, array):
        """The same for uint8 [channels, height, width] with channels 1 (gray) or 3 (BGR).

        What is gray stays so.
        """
        gray = array.shape[0] == 1
        if not self.encoded and self.size in (None, array.shape[:0:-1]) and self.gray <= gray:
            return array
        from PIL import Image

        image = Image.fromarray(array[0] if gray else array[::-1].transpose(1, 2, 0))
        return self._finish(image, "L" if gray else self._mode)

    @property
    def _mode(self):
        return "L" if self.gray else "RGB"

    def _finish(self, image, mode=None):
        from PIL import Image

        image = image.convert(mode or self._mode)
        if self.size and image.size != self.size:
            image = image.resize(self.size, Image.BILINEAR)
        if self.encoded:
            file = io.BytesIO()
            image.save(file, "PNG")
            return file.getvalue()
        array = np.asarray(image)
        if array.ndim == 2:
            return array[None]
        return np.ascontiguousarray(array[:, :, ::-1].transpose(2, 0, 1))


def decode(data):
    """A picture file as a PIL image of mode L or RGB, and whether its bytes say just that.

    As OpenCV reads it: turned as its EXIF says, of 16 bits the upper 8, without transparency.
    Raises ValueError where it is broken or truncated.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as image:
            deep = any("16" in str(tile[3]) for tile in image.tile)
            plain = image.mode in ("L", "RGB") and not deep and image.format in _PLAIN_FORMATS
            plain = plain and image.getexif().get(_ORIENTATION, 1) == 1
            return ImageOps.exif_transpose(_of_8_bits(image)), plain
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    except _BROKEN as error:
        raise ValueError(str(error).partition(" <_io")[0] or "broken") from error


def _of_8_bits(image):
    from PIL import Image

    if image.mode == "F":
        raise ValueError("holds fractions, not 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        array = np.asarray(image)
        if array.min() < 0 or array.max() > 0xFFFF:
            raise ValueError("holds more than 16 bits")
        made = Image.fromarray((array >> 8).astype(np.uint8))
    else:
        made = image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
    made.getexif().update(image.getexif())
    return made
