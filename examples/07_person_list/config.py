"""The settings of this example: a copy of the installed `config`, edited.

It stands beside the prototxts, and train.py puts their folder first on the path.
"""

from __future__ import annotations

IMAGEPATH = ""
IMAGE_LIST = "build/person_list/train.txt"
BATCH_SIZE = 60
TRIPLET_LOSS = True
IMAGE_SIZE = 28
FLIPPED = True
PIXEL_MEANS = (73.0, 73.0, 73.0)
WORKERS = 1
