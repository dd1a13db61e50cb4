"""embed.py DEPLOY.prototxt DEPLOY.caffemodel: images in, embeddings out. Needs Caffe."""

import sys

import caffe_metric as cm
import numpy as np

faces = cm.Embedder(sys.argv[1], sys.argv[2])
images = np.random.default_rng(0).normal(size=(10, *faces.shape))
print(faces(images).shape)
