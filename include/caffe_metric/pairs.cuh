#ifndef CAFFE_METRIC_PAIRS_CUH_
#define CAFFE_METRIC_PAIRS_CUH_

#include "caffe_metric/block.cuh"
#include "caffe_metric/pairs.hpp"

namespace caffe_metric {

// A thread's part of what pair_sums does.
struct PairPart {
  double of_same, of_others;
  int same;

  __device__ PairPart() : of_same(0), of_others(0), same(0) {}
  template <typename T>
  __device__ void add(T d, bool is_same) {
    of_same += is_same ? d : T(0);
    of_others += is_same ? T(0) : d;
    same += is_same ? 1 : 0;
  }
};

// All of it, for `met` pairs.
inline __device__ PairSums block_pair_sums(const PairPart& part, int met) {
  const int same = block_sum(part.same);
  PairSums sums;
  sums.same = same;
  sums.others = met - same;
  sums.of_same = block_sum(part.of_same);
  sums.of_others = block_sum(part.of_others);
  return sums;
}

// Those of an anchor that is a row of the batch itself, whose measures are d,
// into pairs[anchor], too.
template <typename T, typename Row>
__device__ PairSums block_write_pair_sums(int anchor, int n, const Row& d,
                                          T label, const T* labels,
                                          PairSums* pairs) {
  PairPart part;
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    if (j != anchor) {
      part.add(d[j], labels[j] == label);
    }
  }
  const PairSums sums = block_pair_sums(part, n - 1);
  if (threadIdx.x == 0) {
    pairs[anchor] = sums;
  }
  return sums;
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_PAIRS_CUH_
