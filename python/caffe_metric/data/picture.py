"""Reading a picture the way Caffe holds it: uint8, channels first, blue before red."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np

from caffe_metric.support.errors import UserError


@dataclasses.dataclass(frozen=True)
class Picture:
    """How pictures are read.

    size: (width, height) to resize to, or None. gray: one channel. encoded: the file's bytes are
    kept (a Data layer decodes them), as PNG where they had to be changed.
    """

    size: tuple[int, int] | None = None
    gray: bool = False
    encoded: bool = False

    def read(self, path):
        """Reads a file. Raises UserError, with the file's name, where it is no picture."""
        from PIL import Image

        path = Path(path)
        try:
            data = path.read_bytes()
            with Image.open(io.BytesIO(data)) as image:
                if self.encoded and self.size in (None, image.size) and not self.gray:
                    image.verify()
                    return data
                return self._finish(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{path}: {error}") from error

    def from_array(self, array):
        """The same for uint8 [channels, height, width] with channels 1 (gray) or 3 (BGR)."""
        gray = array.shape[0] == 1
        if not self.encoded and self.size in (None, array.shape[:0:-1]) and self.gray <= gray:
            return array
        from PIL import Image

        return self._finish(Image.fromarray(array[0] if gray else array[::-1].transpose(1, 2, 0)))

    def _finish(self, image):
        from PIL import Image

        image = image.convert("L" if self.gray or image.mode in ("1", "L") else "RGB")
        if self.size and image.size != self.size:
            image = image.resize(self.size, Image.Resampling.BILINEAR)
        if self.encoded:
            file = io.BytesIO()
            image.save(file, "PNG")
            return file.getvalue()
        array = np.asarray(image)
        if array.ndim == 2:
            return array[None]
        return np.ascontiguousarray(array[:, :, ::-1].transpose(2, 0, 1))
