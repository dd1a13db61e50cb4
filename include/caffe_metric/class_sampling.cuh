#ifndef CAFFE_METRIC_CLASS_SAMPLING_CUH_
#define CAFFE_METRIC_CLASS_SAMPLING_CUH_

#include <stdint.h>

#include "caffe_metric/block.cuh"
#include "caffe_metric/grid.cuh"
#include "caffe_metric/random.hpp"

// The kernels that draw the classes which meet, the same as draw_classes of
// class_sampling.hpp: the `count` classes are those of the batch, and of the
// others those with the smallest draws, which a radix selection over all blocks
// finds, 8 bits at a time. No two classes draw the same number under a key, for
// the hash is a bijection.
//
// marks[j] is 1 for a class of the batch, else 0, and in the end its place
// among those that meet. The batch must not have more than `count` classes.

namespace caffe_metric {

const int kDigits = 256;
const int kSamplingBlocks = 256;  // at most

// The greatest number that is drawn, from its leading bits on.
struct DrawLimit {
  uint64_t prefix;
  int rank;  // among the numbers with this prefix, from 1; 0: none is drawn
};

static __global__ void mark_classes(const int rows, const int* targets,
                                    int* marks) {
  for (int i = threadIdx.x; i < rows; i += kBlockThreads) {
    if (targets[i] >= 0) {
      marks[targets[i]] = 1;
    }
  }
}

// Adds to histogram[d] the other classes whose draws begin as the limit does
// and go on with the digit d at `shift`. The limit is not read for the first.
static __global__ void count_digits(const uint64_t stream, const int classes,
                                    const int shift, const int* marks,
                                    const DrawLimit* limit, int* histogram) {
  __shared__ int own[kDigits];
  for (int d = threadIdx.x; d < kDigits; d += kBlockThreads) {
    own[d] = 0;
  }
  __syncthreads();
  const bool first = shift == 56;
  const uint64_t prefix = first ? 0 : limit->prefix >> (shift + 8);
  for (size_t j = grid_index(); j < classes; j += grid_step()) {
    if (!marks[j]) {
      const uint64_t number = draw(stream, j);
      if (first || number >> (shift + 8) == prefix) {
        // Integers: the order of the additions does not show.
        atomicAdd(&own[(number >> shift) & (kDigits - 1)], 1);
      }
    }
  }
  __syncthreads();
  for (int d = threadIdx.x; d < kDigits; d += kBlockThreads) {
    if (own[d] > 0) {
      atomicAdd(&histogram[d], own[d]);
    }
  }
}

// One block: the limit's digit at `shift`; clears the histogram.
static __global__ void choose_digit(const int classes, const int count,
                                    const int shift, int* histogram,
                                    DrawLimit* limit) {
  if (threadIdx.x == 0) {
    if (shift == 56) {
      int others = 0;
      for (int d = 0; d < kDigits; ++d) {
        others += histogram[d];
      }
      limit->prefix = 0;
      limit->rank = count - (classes - others);
    }
    int d = 0;
    while (d < kDigits - 1 && limit->rank > histogram[d]) {
      limit->rank -= histogram[d++];
    }
    limit->prefix |= static_cast<uint64_t>(d) << shift;
  }
  __syncthreads();
  for (int d = threadIdx.x; d < kDigits; d += kBlockThreads) {
    histogram[d] = 0;
  }
}

// Whether class j meets.
struct Meets {
  uint64_t stream;
  const int* marks;
  DrawLimit limit;

  __device__ bool operator()(int j) const {
    return marks[j] || (limit.rank > 0 && draw(stream, j) <= limit.prefix);
  }
};

// The first class of a block's share of them.
inline __device__ int share_begin(int classes, int block) {
  return static_cast<int>(static_cast<int64_t>(classes) * block / gridDim.x);
}

// counts[b]: how many classes of block b's share meet.
static __global__ void count_classes(const uint64_t stream, const int classes,
                                     const int* marks, const DrawLimit* limit,
                                     int* counts) {
  const Meets meets = {stream, marks, *limit};
  const int begin = share_begin(classes, blockIdx.x);
  const int end = share_begin(classes, blockIdx.x + 1);
  const int count =
      block_count(end - begin, [=](int k) { return meets(begin + k); });
  if (threadIdx.x == 0) {
    counts[blockIdx.x] = count;
  }
}

// rows: the classes that meet, ascending.
static __global__ void list_classes(const uint64_t stream, const int classes,
                                    const DrawLimit* limit, const int* counts,
                                    int* marks, int* rows) {
  const Meets meets = {stream, marks, *limit};
  int before = 0;
  for (int b = threadIdx.x; b < blockIdx.x; b += kBlockThreads) {
    before += counts[b];
  }
  before = block_sum(before);
  const int begin = share_begin(classes, blockIdx.x);
  const int end = share_begin(classes, blockIdx.x + 1);
  block_list(
      end - begin, [=](int k) { return meets(begin + k); },
      [=](int place, int k) {
        rows[before + place] = begin + k;
        marks[begin + k] = before + place;
      });
}

// The targets among the classes that meet.
static __global__ void place_targets(const int rows, const int* marks,
                                     int* targets) {
  for (int i = threadIdx.x; i < rows; i += kBlockThreads) {
    if (targets[i] >= 0) {
      targets[i] = marks[targets[i]];
    }
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_CLASS_SAMPLING_CUH_
