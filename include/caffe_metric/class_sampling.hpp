#ifndef CAFFE_METRIC_CLASS_SAMPLING_HPP_
#define CAFFE_METRIC_CLASS_SAMPLING_HPP_

#include <stdint.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "caffe_metric/random.hpp"

// Partial FC (An et al. 2021, section 3.3): the classes of the batch always
// meet, and of the others those with the smallest draws under the key, each
// with the same probability, up to ceil(rate * classes) in all.

namespace caffe_metric {

inline int sampled_count(double rate, int classes) {
  // The product of a float rate, 0.1 say, may lie a rounding above a whole
  // number.
  return std::max(
      1, static_cast<int>(std::ceil(rate * classes - 1e-6 * rate * classes)));
}

// `batch` holds the classes of the batch, ascending, each once. Gives all that
// meet, ascending.
inline std::vector<int> draw_classes(uint64_t key, int classes, int count,
                                     const std::vector<int>& batch) {
  const uint64_t stream = stream_of(key, 1, 0);
  std::vector<int> drawn(batch);
  const int others = classes - static_cast<int>(batch.size());
  const int wanted = std::min(others, count - static_cast<int>(batch.size()));
  if (wanted <= 0) {
    return drawn;
  }
  std::vector<uint64_t> draws;
  draws.reserve(others);
  for (int j = 0, b = 0; j < classes; ++j) {
    if (b < static_cast<int>(batch.size()) && batch[b] == j) {
      ++b;
    } else {
      draws.push_back(draw(stream, j));
    }
  }
  std::nth_element(draws.begin(), draws.begin() + (wanted - 1), draws.end());
  const uint64_t last = draws[wanted - 1];
  int equal = 0;  // of those that draw the same number, the first ones
  for (int i = 0; i < wanted; ++i) {
    equal += draws[i] == last;
  }
  drawn.clear();
  for (int j = 0, b = 0; j < classes; ++j) {
    if (b < static_cast<int>(batch.size()) && batch[b] == j) {
      ++b;
      drawn.push_back(j);
      continue;
    }
    const uint64_t number = draw(stream, j);
    if (number < last || (number == last && equal-- > 0)) {
      drawn.push_back(j);
    }
  }
  return drawn;
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_CLASS_SAMPLING_HPP_
