"""digits.py OUT [COUNT]: scikit-learn's handwritten digits as a folder of images by class.

Small, real images that are at hand without a network: OUT/0/0001.png ..., COUNT (40) of each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

out, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 40
digits = load_digits()
for label in range(10):
    folder = out / str(label)
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(np.flatnonzero(digits.target == label)[:count], 1):
        image = Image.fromarray(np.minimum(digits.images[row] * 16, 255).astype(np.uint8))
        image.resize((28, 28), Image.Resampling.BICUBIC).save(folder / f"{number:04d}.png")
print(f"{out}: {count} images of each of 10 digits")
