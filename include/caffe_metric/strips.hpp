#ifndef CAFFE_METRIC_STRIPS_HPP_
#define CAFFE_METRIC_STRIPS_HPP_

#include <algorithm>

// A Gram matrix is made and used a strip of rows at a time, so that a batch of
// any size takes bounded memory beyond its features.

namespace caffe_metric {

// Elements of a strip: 4096 x 4096, that is 64 MiB of floats. A batch of up to
// 4096 rows is one strip.
const int kStripElements = 1 << 24;

// A test of strips chooses fewer.
inline int* strip_elements() {
  static int elements = kStripElements;
  return &elements;
}

// Rows a strip, of a matrix of rows x columns.
inline int strip_rows(int rows, int columns) {
  return std::max(1, std::min(rows, *strip_elements() / columns));
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_STRIPS_HPP_
