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

// What a kernel that reads the rows of a matrix anyway says of some of them:
// bad[i] for row first + i, unless bad is NULL. With pair_size > 0 a row that
// begins a pair has to have the label of the next.
template <typename T>
struct RowCheck {
  int first, rows;
  const T* labels;  // may be NULL
  int pair_size, classes;
  double* bad;
};

template <typename T>
CAFFE_METRIC_HD bool is_good_label(const RowCheck<T>& check, int i) {
  const bool pair = check.pair_size > 0 && i % check.pair_size == 0;
  return !check.labels || (is_label(check.labels[i], check.classes) &&
                           !(pair && check.labels[i] != check.labels[i + 1]));
}

// Of row `row` of the matrix, of which `number` is finite if all of it is.
template <typename T, typename Number>
CAFFE_METRIC_HD void check_row(const RowCheck<T>& check, int row,
                               Number number) {
  const int i = row - check.first;
  if (check.bad && i >= 0 && i < check.rows) {
    // inf - inf is NaN, too.
    const bool good = number - number == 0 && is_good_label(check, i);
    check.bad[i] = good ? 0 : 1;
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_LABELS_HPP_
