"""Settings of `datalayer` and `sampledata`, under the older project's names.

Copy this file beside your prototxts, earlier on PYTHONPATH, and edit it there. What is missing in a
copy has the value that stands here. A layer's param_str wins over both.
"""

# The folder that the file names in IMAGE_LIST are relative to; '' for the list's own folder.
from __future__ import annotations

IMAGEPATH = ""
# Lines `person@file label`.
IMAGE_LIST = "train.txt"
# Rows of a batch; a multiple of 3 with TRIPLET_LOSS.
BATCH_SIZE = 30
# Batches of anchors, positives and negatives; False: shuffled images, to pre-train.
TRIPLET_LOSS = True
# Height and width that images are resized to.
IMAGE_SIZE = 224
# Mirror every other image.
FLIPPED = True
# Subtracted from the channels blue, green, red.
PIXEL_MEANS = (102.9801, 115.9465, 122.7717)
# Decoding processes.
WORKERS = 2
