#ifndef CAFFE_METRIC_GRID_CUH_
#define CAFFE_METRIC_GRID_CUH_

#include <stddef.h>

#include <algorithm>

// One thread an element of an array of any size. Indices are 64 bits wide: an
// int that is stepped by the whole grid wraps from 2^30 elements on.
//
//   for (size_t i = grid_index(); i < n; i += grid_step())

namespace caffe_metric {

const int kGridThreads = 256;

// How many blocks of kGridThreads to launch for n elements.
inline int grid_blocks(size_t n) {
  const size_t most = 1 << 20;
  return static_cast<int>(
      std::min(most, (n + kGridThreads - 1) / kGridThreads));
}

// Classes of a long row that a block has, and the pieces of a row.
const int kPieceClasses = 1024;

inline int row_pieces(int classes) {
  return (classes + kPieceClasses - 1) / kPieceClasses;
}

inline __device__ size_t grid_index() {
  return blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x;
}

inline __device__ size_t grid_step() {
  return gridDim.x * static_cast<size_t>(blockDim.x);
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_GRID_CUH_
