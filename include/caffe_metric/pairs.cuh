#ifndef CAFFE_METRIC_PAIRS_CUH_
#define CAFFE_METRIC_PAIRS_CUH_

#include "caffe_metric/block.cuh"
#include "caffe_metric/pairs.hpp"

namespace caffe_metric {

// What pair_sums does, by all threads of a block.
template <typename T>
__device__ PairSums block_pair_sums(int self, int n, const T* d, T label,
                                    const T* labels) {
  double of_same = 0;
  double of_others = 0;
  int same = 0;
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    if (j != self) {
      const bool is_same = labels[j] == label;
      of_same += is_same ? d[j] : T(0);
      of_others += is_same ? T(0) : d[j];
      same += is_same ? 1 : 0;
    }
  }
  same = block_sum(same);
  PairSums sums;
  sums.same = same;
  sums.others = n - same - (self >= 0 ? 1 : 0);
  sums.of_same = block_sum(of_same);
  sums.of_others = block_sum(of_others);
  return sums;
}

// The same of an anchor that is a row of the batch itself, into pairs[anchor].
template <typename T>
__device__ PairSums block_write_pair_sums(int anchor, int n, const T* d,
                                          T label, const T* labels,
                                          PairSums* pairs) {
  const PairSums sums = block_pair_sums(anchor, n, d, label, labels);
  if (threadIdx.x == 0) {
    pairs[anchor] = sums;
  }
  return sums;
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_PAIRS_CUH_
