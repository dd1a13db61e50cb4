"""gradcheck.py NET.prototxt: is each layer's gradient right? Needs Caffe."""

import sys

import caffe_metric as cm

print(cm.gradcheck(sys.argv[1]))
