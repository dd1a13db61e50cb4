#ifndef CAFFE_METRIC_RANK_HARD_HPP_
#define CAFFE_METRIC_RANK_HARD_HPP_

#include <stdint.h>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "caffe_metric/macros.hpp"
#include "caffe_metric/random.hpp"

// RankHardLoss: of rows in groups of P, the first of a group is an anchor i,
// the second its positive p = i + 1. With s(u, v) = -u . v and a negative j of
// another class,
//
//   loss of (i, j) = max(0, s(i,p) - s(i,j) + margin)
//                  + max(0, s(i,p) - s(p,j) + margin).
//
// Candidates j of i are those whose first term is > 0. If there are more than
// neg_num, floor(neg_num * hard_ratio) are drawn at random from the neg_num
// with the smallest s(i,j), and floor(neg_num * rand_ratio) from the others
// that are not drawn yet.

namespace caffe_metric {

struct RankDraw {
  int neg_num;      // candidates up to this number are all taken
  int hard_number;  // floor(neg_num * hard_ratio)
  int rand_number;  // floor(neg_num * rand_ratio)
};

// The products are taken in float32: a float just under one half of 2 must
// not give 1 because a wider type held it. No batch has 2^30 candidates.
inline RankDraw rank_draw(uint32_t most, float hard_ratio, float rand_ratio) {
  const int neg_num = static_cast<int>(std::min(most, uint32_t(1) << 30));
  const float hard = static_cast<float>(neg_num) * hard_ratio;
  const float random = static_cast<float>(neg_num) * rand_ratio;
  const RankDraw draw = {neg_num, static_cast<int>(hard),
                         static_cast<int>(random)};
  return draw;
}

// The hinge of one negative, of s(i,p) and s(i,j) or s(p,j).
template <typename T>
CAFFE_METRIC_HD T rank_violation(T margin, T positive, T negative) {
  return positive - negative + margin;
}

// The streams of an anchor's two draws.
const uint32_t kHardStream = 0;
const uint32_t kRandomStream = 1;

// Moves the k rows with the smallest numbers in the stream to the front.
inline void draw_rows(uint64_t stream, size_t k,
                      std::vector<int>::iterator begin,
                      std::vector<int>::iterator end) {
  if (k == 0) {
    return;
  }
  std::vector<std::pair<uint64_t, int>> numbers;
  numbers.reserve(end - begin);
  for (std::vector<int>::iterator row = begin; row != end; ++row) {
    numbers.push_back(std::make_pair(draw(stream, *row), *row));
  }
  k = std::min(k, numbers.size());
  std::partial_sort(numbers.begin(), numbers.begin() + k, numbers.end());
  for (size_t i = 0; i < numbers.size(); ++i) {
    *begin++ = numbers[i].second;
  }
}

// The negatives that are taken for an anchor, in ascending order. `products`
// is the anchor's row of the Gram matrix, u_i . u_j.
template <typename T>
inline void rank_negatives(const RankDraw& draw, T margin, uint64_t key,
                           int anchor, int n, const T* products,
                           const T* labels, std::vector<int>* taken) {
  taken->clear();
  const T positive = -products[anchor + 1];
  for (int j = 0; j < n; ++j) {
    if (rank_violation(margin, positive, -products[j]) > 0 &&
        labels[j] != labels[anchor]) {
      taken->push_back(j);
    }
  }
  if (taken->size() <= static_cast<size_t>(draw.neg_num)) {
    return;
  }
  const std::vector<int>::iterator begin = taken->begin();
  // Smallest s is largest product; lowest index on a tie.
  std::partial_sort(begin, begin + draw.neg_num, taken->end(),
                    [=](int a, int b) {
                      return products[a] > products[b] ||
                             (products[a] == products[b] && a < b);
                    });
  const int hard = std::min(draw.hard_number, draw.neg_num);
  draw_rows(stream_of(key, anchor, kHardStream), hard, begin,
            begin + draw.neg_num);
  draw_rows(stream_of(key, anchor, kRandomStream), draw.rand_number,
            begin + hard, taken->end());
  const size_t number = static_cast<size_t>(hard) + draw.rand_number;
  taken->resize(std::min(taken->size(), number));
  std::sort(taken->begin(), taken->end());
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_RANK_HARD_HPP_
