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

// The `most` >= 1 rows with the smallest keys of those that are offered, lowest
// index on a tie.
template <typename Key>
class LeastRows {
 public:
  explicit LeastRows(size_t most) : most_(most) {}
  bool takes(Key key, int row) const {
    return heap_.size() < most_ || std::make_pair(key, row) < heap_.front();
  }
  void offer(Key key, int row) {
    if (!takes(key, row)) {
      return;
    }
    if (heap_.size() == most_) {
      std::pop_heap(heap_.begin(), heap_.end());
      heap_.pop_back();
    }
    heap_.push_back(std::make_pair(key, row));
    std::push_heap(heap_.begin(), heap_.end());
  }
  // Ascending.
  std::vector<int> rows() const {
    std::vector<int> rows;
    for (size_t k = 0; k < heap_.size(); ++k) {
      rows.push_back(heap_[k].second);
    }
    std::sort(rows.begin(), rows.end());
    return rows;
  }

 private:
  size_t most_;
  std::vector<std::pair<Key, int>> heap_;  // the greatest in front
};

// k of the rows, those with the smallest numbers in the stream, that are not
// among `drawn`; all in ascending order.
inline std::vector<int> draw_rows(uint64_t stream, int k,
                                  const std::vector<int>& rows,
                                  const std::vector<int>& drawn) {
  if (k == 0) {
    return std::vector<int>();
  }
  LeastRows<uint64_t> least(k);
  for (size_t i = 0; i < rows.size(); ++i) {
    const uint64_t number = draw(stream, rows[i]);
    if (least.takes(number, rows[i]) &&
        !std::binary_search(drawn.begin(), drawn.end(), rows[i])) {
      least.offer(number, rows[i]);
    }
  }
  return least.rows();
}

// The negatives that are taken for an anchor, in ascending order. `products`
// is the anchor's row of the Gram matrix, u_i . u_j.
template <typename T>
inline void rank_negatives(const RankDraw& draw, T margin, uint64_t key,
                           int anchor, int n, const T* products,
                           const T* labels, std::vector<int>* taken) {
  const T positive = -products[anchor + 1];
  taken->resize(n);
  int* candidates = taken->data();
  int count = 0;
  for (int j = 0; j < n; ++j) {
    candidates[count] = j;  // no branch, which few batches would foretell
    count += (rank_violation(margin, positive, -products[j]) > 0) &
             (labels[j] != labels[anchor]);
  }
  taken->resize(count);
  if (count <= draw.neg_num) {
    return;
  }
  // Smallest s is largest product.
  LeastRows<T> hardest(draw.neg_num);
  for (int k = 0; k < count; ++k) {
    hardest.offer(-products[candidates[k]], candidates[k]);
  }
  const std::vector<int> hard =
      draw_rows(stream_of(key, anchor, kHardStream), draw.hard_number,
                hardest.rows(), std::vector<int>());
  const std::vector<int> random = draw_rows(
      stream_of(key, anchor, kRandomStream), draw.rand_number, *taken, hard);
  taken->resize(hard.size() + random.size());
  std::merge(hard.begin(), hard.end(), random.begin(), random.end(),
             taken->begin());
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_RANK_HARD_HPP_
