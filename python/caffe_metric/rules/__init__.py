"""The rules of the losses on arrays: compiled (`caffe_metric._core`) or NumPy."""
