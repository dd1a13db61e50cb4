#ifndef CAFFE_METRIC_CLASS_SAMPLING_CUH_
#define CAFFE_METRIC_CLASS_SAMPLING_CUH_

#include <stdint.h>

#include <algorithm>

#include "caffe_metric/block.cuh"
#include "caffe_metric/grid.cuh"
#include "caffe_metric/random.hpp"

// The kernels that draw the classes which meet, the same as draw_classes of
// class_sampling.hpp: the `count` classes are those of the batch, and of the
// others those with the smallest draws. A histogram of the draws' leading bits
// tells in which bin the greatest of these is, and a radix selection in that
// bin which it is. No two classes draw the same number under a key, for the
// hash is a bijection.
//
// marks[j] is 1 for a class of the batch, else 0. The batch must not have more
// than `count` classes.

namespace caffe_metric {

const int kDrawBits = 11;
const int kDrawBins = 1 << kDrawBits;
const int kSamplingBlocks = 256;  // at most

inline __device__ int draw_bin(uint64_t number) {
  return static_cast<int>(number >> (64 - kDrawBits));
}

// Where the greatest number that is drawn lies.
struct DrawLimit {
  int bin, rank;  // among the numbers of the bin, from 1; none is drawn: -1, 0
  int in_bin;     // numbers
};

// Adds the draws of the other classes to the histogram, bin by bin.
static __global__ void count_draws(const uint64_t stream, const int classes,
                                   const int* marks, int* histogram) {
  __shared__ int own[kDrawBins];
  for (int b = threadIdx.x; b < kDrawBins; b += kBlockThreads) {
    own[b] = 0;
  }
  __syncthreads();
  for (size_t j = grid_index(); j < classes; j += grid_step()) {
    if (!marks[j]) {
      // Integers: the order of the additions does not show.
      atomicAdd(&own[draw_bin(draw(stream, j))], 1);
    }
  }
  __syncthreads();
  for (int b = threadIdx.x; b < kDrawBins; b += kBlockThreads) {
    if (own[b] > 0) {
      atomicAdd(&histogram[b], own[b]);
    }
  }
}

// The limit, by all threads of a block.
inline __device__ DrawLimit block_draw_limit(int classes, int count,
                                             const int* histogram) {
  __shared__ DrawLimit limit;
  const int kOwnBins = kDrawBins / kBlockThreads;
  const int first = threadIdx.x * kOwnBins;
  int own = 0;
  for (int b = first; b < first + kOwnBins; ++b) {
    own += histogram[b];
  }
  int others;
  const int before = block_offset(own, &others);
  const int wanted = min(others, count - (classes - others));
  if (threadIdx.x == 0) {
    limit.bin = -1;
    limit.rank = limit.in_bin = 0;
  }
  __syncthreads();
  // The one thread among whose bins the limit is says so.
  int left = wanted - before;
  if (left > 0 && left <= own) {
    int b = first;
    while (left > histogram[b]) {
      left -= histogram[b++];
    }
    limit.bin = b;
    limit.rank = left;
    limit.in_bin = histogram[b];
  }
  __syncthreads();
  return limit;
}

// The first class of a block's share of them.
inline __device__ int share_begin(int classes, int block) {
  return static_cast<int>(static_cast<int64_t>(classes) * block / gridDim.x);
}

// counts[b]: how many classes of block b's share meet, but for those in the
// limit's bin, which are listed in any order in edge, *edge_size of them.
static __global__ void count_classes(const uint64_t stream, const int classes,
                                     const int count, const int* marks,
                                     const int* histogram, int* edge_size,
                                     int* edge, int* counts) {
  const DrawLimit limit = block_draw_limit(classes, count, histogram);
  const int end = share_begin(classes, blockIdx.x + 1);
  int meet = 0;
  for (int j = share_begin(classes, blockIdx.x) + threadIdx.x; j < end;
       j += kBlockThreads) {
    const int bin = marks[j] ? -1 : draw_bin(draw(stream, j));
    if (bin >= 0 && bin == limit.bin) {
      edge[atomicAdd(edge_size, 1)] = j;
    } else {
      meet += bin < limit.bin || marks[j] ? 1 : 0;
    }
  }
  meet = block_sum(meet);
  if (threadIdx.x == 0) {
    counts[blockIdx.x] = meet;
  }
}

// rows: the classes that meet, ascending. batch_targets are classes or -1;
// targets, their places among those that meet.
static __global__ void list_classes(const uint64_t stream, const int classes,
                                    const int count, const int batch_rows,
                                    const int* marks, const int* histogram,
                                    const int* edge, const int* counts,
                                    const int* batch_targets, int* rows,
                                    int* targets) {
  const DrawLimit limit = block_draw_limit(classes, count, histogram);
  uint64_t greatest = 0;
  if (limit.rank > 0) {
    greatest = block_kth_smallest(
        limit.in_bin, limit.rank, [](int i) { return i >= 0; },
        [=](int i) { return draw(stream, edge[i]); });
  }
  const int begin = share_begin(classes, blockIdx.x);
  const int end = share_begin(classes, blockIdx.x + 1);
  int before = 0;
  for (int b = threadIdx.x; b < blockIdx.x; b += kBlockThreads) {
    before += counts[b];
  }
  for (int i = threadIdx.x; i < limit.in_bin; i += kBlockThreads) {
    before += edge[i] < begin && draw(stream, edge[i]) <= greatest ? 1 : 0;
  }
  before = block_sum(before);
  const int own = block_list(
      end - begin,
      [=](int k) {
        return marks[begin + k] ||
               (limit.rank > 0 && draw(stream, begin + k) <= greatest);
      },
      [=](int place, int k) { rows[before + place] = begin + k; });
  for (int i = threadIdx.x; i < batch_rows; i += kBlockThreads) {
    const int y = batch_targets[i];
    if (y < 0 && blockIdx.x == 0) {
      targets[i] = -1;
    } else if (begin <= y && y < end) {
      const int* found = rows + before;
      int low = 0;
      int high = own - 1;
      while (low < high) {
        const int middle = low + (high - low) / 2;
        if (found[middle] < y) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      targets[i] = before + low;
    }
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_CLASS_SAMPLING_CUH_
