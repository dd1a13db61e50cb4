#ifndef CAFFE_METRIC_LABELS_HPP_
#define CAFFE_METRIC_LABELS_HPP_

#include <cmath>

#include "caffe_metric/macros.hpp"

namespace caffe_metric {

// Labels are integers that Caffe carries as floats: 0 <= label < classes.
// Where the number of classes is unknown, kAnyClass bounds them.
const int kAnyClass = 2147483647;

template <typename T>
CAFFE_METRIC_HD bool is_label(T label, int classes) {
  // The first two comparisons are false for NaN.
  return label >= 0 && label < static_cast<T>(classes) &&
         label == std::floor(label);
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_LABELS_HPP_
