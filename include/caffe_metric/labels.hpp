#ifndef CAFFE_METRIC_LABELS_HPP_
#define CAFFE_METRIC_LABELS_HPP_

#include <cmath>

#include "caffe_metric/macros.hpp"

namespace caffe_metric {

// Labels are integers that Caffe carries as floats: 0 <= label < classes.
// Where the number of classes is unknown, kAnyClass bounds them.
const int kAnyClass = 2147483647;

// From here on a float has no odd numbers left: 2^24 and 2^24 + 1 are the same
// float, two classes would silently be one. A double holds every int.
template <typename T>
CAFFE_METRIC_HD T label_limit() {
  return sizeof(T) == sizeof(float) ? T(16777216) : T(kAnyClass);
}

template <typename T>
CAFFE_METRIC_HD bool is_label(T label, int classes) {
  // The first comparisons are false for NaN.
  return label >= 0 && label < label_limit<T>() &&
         label < static_cast<T>(classes) && label == std::floor(label);
}

// A label as an index; -1 for one that is none, so that nobody follows it.
template <typename T>
CAFFE_METRIC_HD int label_index(T label, int classes) {
  return is_label(label, classes) ? static_cast<int>(label) : -1;
}

// Which labels a batch may have. A row with an ignored label has no target.
template <typename T>
struct LabelRule {
  int classes;
  int ignore_negative;  // all integers < 0
  int has_ignored;
  T ignored;
};

template <typename T>
CAFFE_METRIC_HD LabelRule<T> label_rule(int classes) {
  const LabelRule<T> rule = {classes, 0, 0, 0};
  return rule;
}

template <typename T>
CAFFE_METRIC_HD bool is_ignored(const LabelRule<T>& rule, T label) {
  return (rule.has_ignored && label == rule.ignored) ||
         (rule.ignore_negative && label < 0 && label == std::floor(label));
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_LABELS_HPP_
