"""Settings of `datalayer` and `sampledata`: a file of your own, earlier on the path than any other.

It stands beside the prototxts, and train.py puts their folder first on the path. What is missing
has the value in brackets; a layer's param_str wins over all.
"""

from __future__ import annotations

# The folder that the file names in IMAGE_LIST are relative to; '' for the list's own folder. ['']
IMAGEPATH = ""
# Lines `person@file label`. ["train.txt"]
IMAGE_LIST = "build/person_list/train.txt"
# Rows of a batch; a multiple of 3 with TRIPLET_LOSS. [30]
BATCH_SIZE = 60
# Batches of anchors, positives and negatives; False: shuffled images, to pre-train. [True]
TRIPLET_LOSS = True
# Height and width that images are resized to. [224]
IMAGE_SIZE = 28
# Mirror every other image. [True]
FLIPPED = True
# Subtracted from the channels blue, green, red. [(102.9801, 115.9465, 122.7717)]
PIXEL_MEANS = (73.0, 73.0, 73.0)
# Decoding processes. [2]
WORKERS = 1
