#ifndef CAFFE_METRIC_BLOCK_CUH_
#define CAFFE_METRIC_BLOCK_CUH_

#include <stdint.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "caffe_metric/macros.hpp"
#include "caffe_metric/vector_ops.hpp"

// What the threads of one block do together. Every function here is called by
// all kBlockThreads threads of a block, and gives each of them its result.
// Sums are taken in one fixed order, so the same input gives the same bits.
// Warps shuffle where CUDA has it as it is today, from 9 on; elsewhere shared
// memory does the same in the same order.

namespace caffe_metric {

const int kBlockThreads = 128;  // a power of 2
const int kWarpThreads = 32;
const int kBlockWarps = kBlockThreads / kWarpThreads;

#if CUDART_VERSION >= 9000 && !defined(CAFFE_METRIC_NO_SHUFFLES)
const bool kShuffles = true;

// The value of the thread of the warp that stands `delta` further on (down) or
// back (up); its own where there is none.
template <typename T, bool kDown>
__device__ T shuffle(T value, int delta) {
  const int kWords = (sizeof(T) + sizeof(int) - 1) / sizeof(int);
  int words[kWords] = {0};
  memcpy(words, &value, sizeof(T));  // NOLINT(caffe/alt_fn)
  for (int w = 0; w < kWords; ++w) {
    words[w] = kDown ? __shfl_down_sync(0xffffffffu, words[w], delta)
                     : __shfl_up_sync(0xffffffffu, words[w], delta);
  }
  memcpy(&value, words, sizeof(T));  // NOLINT(caffe/alt_fn)
  return value;
}
#else
const bool kShuffles = false;

// Never called.
template <typename T, bool kDown>
__device__ T shuffle(T value, int) {
  return value;
}
#endif

struct Add {
  template <typename T>
  CAFFE_METRIC_HD T operator()(T a, T b) const {
    return a + b;
  }
};

struct Least {
  template <typename T>
  CAFFE_METRIC_HD T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};

struct Greatest {
  template <typename T>
  CAFFE_METRIC_HD T operator()(T a, T b) const {
    return b > a ? b : a;
  }
};

// A tree: thread t meets t + 64, then t + 32, and so on. kShuffle decides who
// brings the values together, not in which order.
template <bool kShuffle, typename T, typename Combine>
__device__ T block_tree(T value, const Combine& combine) {
  __shared__ T partial[kBlockThreads];
  partial[threadIdx.x] = value;
  __syncthreads();
  if (kShuffle) {
    if (threadIdx.x < kWarpThreads) {
      T column[kBlockWarps];
      for (int w = 0; w < kBlockWarps; ++w) {
        column[w] = partial[threadIdx.x + w * kWarpThreads];
      }
      for (int half = kBlockWarps / 2; half > 0; half /= 2) {
        for (int w = 0; w < half; ++w) {
          column[w] = combine(column[w], column[w + half]);
        }
      }
      value = column[0];
      for (int half = kWarpThreads / 2; half > 0; half /= 2) {
        value = combine(value, shuffle<T, true>(value, half));
      }
      if (threadIdx.x == 0) {
        partial[0] = value;
      }
    }
    __syncthreads();
  }
  for (int half = kShuffle ? 0 : kBlockThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      partial[threadIdx.x] =
          combine(partial[threadIdx.x], partial[threadIdx.x + half]);
    }
    __syncthreads();
  }
  const T result = partial[0];
  __syncthreads();  // before the next call writes
  return result;
}

template <typename T, typename Combine>
__device__ T block_reduce(T value, const Combine& combine) {
  return block_tree<kShuffles>(value, combine);
}

// The sum over each warp, for its own threads.
template <bool kShuffle, typename T>
__device__ T warp_tree_sum(T value) {
  __shared__ T partial[kBlockThreads];
  for (int half = kWarpThreads / 2; kShuffle && half > 0; half /= 2) {
    value += shuffle<T, true>(value, half);
  }
  partial[threadIdx.x] = value;
  __syncthreads();
  const int lane = threadIdx.x % kWarpThreads;
  for (int half = kShuffle ? 0 : kWarpThreads / 2; half > 0; half /= 2) {
    if (lane < half) {
      partial[threadIdx.x] += partial[threadIdx.x + half];
    }
    __syncthreads();
  }
  const T result = partial[threadIdx.x - lane];
  __syncthreads();  // before the next call writes
  return result;
}

template <typename T>
__device__ T warp_sum(T value) {
  return warp_tree_sum<kShuffles>(value);
}

template <typename T>
__device__ T block_sum(T value) {
  return block_reduce(value, Add());
}

template <typename T>
__device__ T block_least(T value) {
  return block_reduce(value, Least());
}

// 16 bytes of a row.
template <typename T>
struct __align__(16) Pack {
  static const int kSize = 16 / sizeof(T);
  T values[kSize];
};

// Of row[begin ... end), calls each(j, row[j]); `update` puts what it returns
// in its place. A thread has the elements of a pack, and reads and writes them
// in one go where they lie so that it can: rows of any length give the same
// sums.
template <typename T, typename Each>
__device__ void block_packs(int begin, int end, T* row, bool update,
                            const Each& each) {
  const int kSize = Pack<T>::kSize;
  for (int j = begin + threadIdx.x * kSize; j < end;
       j += kBlockThreads * kSize) {
    const int count = min(kSize, end - j);
    const bool whole =
        count == kSize && reinterpret_cast<uintptr_t>(row + j) % 16 == 0;
    Pack<T> pack;
    if (whole) {
      pack = *reinterpret_cast<const Pack<T>*>(row + j);
    }
    for (int k = 0; k < kSize; ++k) {
      if (k < count) {
        pack.values[k] = each(j + k, whole ? pack.values[k] : row[j + k]);
        if (update && !whole) {
          row[j + k] = pack.values[k];
        }
      }
    }
    if (update && whole) {
      *reinterpret_cast<Pack<T>*>(row + j) = pack;
    }
  }
}

template <typename T, typename Each>
__device__ void block_sweep(int begin, int end, const T* row,
                            const Each& each) {
  block_packs(begin, end, const_cast<T*>(row), false, [&](int j, T value) {
    each(j, value);
    return value;
  });
}

template <typename T, typename Each>
__device__ void block_update(int begin, int end, T* row, const Each& each) {
  block_packs(begin, end, row, true, each);
}

// x . y of rows of n elements.
template <typename T>
__device__ T block_dot(int n, const T* x, const T* y) {
  T sum = 0;
  for (int k = threadIdx.x; k < n; k += kBlockThreads) {
    sum += x[k] * y[k];
  }
  return block_sum(sum);
}

// ||x||, in double: the square of a float neither overflows nor underflows.
template <typename T>
__device__ double block_norm(int n, const T* x) {
  double sum = 0;
  for (int k = threadIdx.x; k < n; k += kBlockThreads) {
    sum += static_cast<double>(x[k]) * x[k];
  }
  return sqrt(block_sum(sum));
}

// The same, in double only where vector_ops.hpp's norm() is.
template <typename T>
__device__ T block_row_norm(int n, const T* x) {
  const T square = block_dot(n, x, x);
  if (is_safe_square(square)) {
    return sqrt(square);
  }
  double sum = 0;
  for (int k = threadIdx.x; k < n; k += kBlockThreads) {
    sum += static_cast<double>(x[k]) * x[k];
  }
  return norm_of_square<T>(block_sum(sum));
}

// The sum of `count` over the threads before this one; *total, over all.
// Integers: the order of the additions does not show.
template <bool kShuffle>
__device__ int block_offset_by(int count, int* total) {
  __shared__ int sums[kBlockThreads];
  int sum = count;
  if (kShuffle) {
    const int lane = threadIdx.x % kWarpThreads;
    for (int step = 1; step < kWarpThreads; step *= 2) {
      const int before = shuffle<int, false>(sum, step);
      sum += lane >= step ? before : 0;
    }
    if (lane == kWarpThreads - 1) {
      sums[threadIdx.x / kWarpThreads] = sum;
    }
    __syncthreads();
    *total = 0;
    for (int w = 0; w < kBlockWarps; ++w) {
      sum += w < threadIdx.x / kWarpThreads ? sums[w] : 0;
      *total += sums[w];
    }
  } else {
    sums[threadIdx.x] = count;
    __syncthreads();
    for (int step = 1; step < kBlockThreads; step *= 2) {
      const int before = threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
      __syncthreads();
      sums[threadIdx.x] += before;
      __syncthreads();
    }
    sum = sums[threadIdx.x];
    *total = sums[kBlockThreads - 1];
  }
  __syncthreads();  // before the next call writes
  return sum - count;
}

inline __device__ int block_offset(int count, int* total) {
  return block_offset_by<kShuffles>(count, total);
}

// Calls put(0, i), put(1, i') ... for the i < i' < ... in [0, n) for which
// chosen(i) holds, each in one thread, and returns their number.
template <typename Chosen, typename Put>
__device__ int block_list(int n, const Chosen& chosen, const Put& put) {
  int count = 0;
  for (int begin = 0; begin < n; begin += kBlockThreads) {
    const int i = begin + threadIdx.x;
    const bool take = i < n && chosen(i);
    int total;
    const int offset = count + block_offset(take, &total);
    if (take) {
      put(offset, i);
    }
    count += total;
  }
  __syncthreads();  // what was put is there for all
  return count;
}

// Replaces values[i] by values[0] + ... + values[i].
template <typename T>
__device__ void block_scan(int n, T* values) {
  __shared__ T before[kBlockThreads];
  const int share = (n + kBlockThreads - 1) / kBlockThreads;
  const int begin = min(n, static_cast<int>(threadIdx.x) * share);
  const int end = min(n, begin + share);
  T sum = 0;
  for (int i = begin; i < end; ++i) {
    sum += values[i];
  }
  before[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    T total = 0;
    for (int t = 0; t < kBlockThreads; ++t) {
      const T own = before[t];
      before[t] = total;
      total += own;
    }
  }
  __syncthreads();
  sum = before[threadIdx.x];
  for (int i = begin; i < end; ++i) {
    sum += values[i];
    values[i] = sum;
  }
  __syncthreads();
}

// Sorts values[0 ... n), ascending. There is room for the next power of 2, and
// what stands there is overwritten. A bitonic sort.
template <typename T>
__device__ void block_sort(int n, T* values) {
  int size = 1;
  while (size < n) {
    size *= 2;
  }
  for (int i = n + threadIdx.x; i < size; i += kBlockThreads) {
    values[i] = static_cast<T>(HUGE_VAL);
  }
  __syncthreads();
  for (int run = 2; run <= size; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      for (int i = threadIdx.x; i < size; i += kBlockThreads) {
        const int j = i ^ step;
        if (j > i) {
          const T a = values[i];
          const T b = values[j];
          if ((i & run) == 0 ? b < a : a < b) {
            values[i] = b;
            values[j] = a;
          }
        }
      }
      __syncthreads();
    }
  }
}

// Whether this block is the last of the grid to come here. It then sees what
// all blocks wrote before, if it reads that as volatile. *arrived has to be 0
// before the launch, and is 0 after it.
inline __device__ bool block_is_last(int* arrived) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(arrived, 1) == static_cast<int>(gridDim.x) - 1;
    if (last) {
      *arrived = 0;
    }
  }
  __syncthreads();
  return last;
}

template <typename Chosen>
__device__ int block_count(int n, const Chosen& chosen) {
  int count = 0;
  for (int i = threadIdx.x; i < n; i += kBlockThreads) {
    count += chosen(i) ? 1 : 0;
  }
  return block_sum(count);
}

// The rank-th smallest (1 <= rank <= their number) of key(i) over the i in
// [0, n) for which chosen(i) holds: a radix selection, 8 bits at a time.
template <typename Chosen, typename Key>
__device__ uint64_t block_kth_smallest(int n, int rank, const Chosen& chosen,
                                       const Key& key) {
  const int kBins = 256;
  const int kOwnBins = kBins / kBlockThreads;
  __shared__ int histogram[kBins];
  __shared__ int digit;
  __shared__ int rank_left;
  uint64_t prefix = 0;
  uint64_t known = 0;  // the bits of prefix that are decided
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int b = threadIdx.x; b < kBins; b += kBlockThreads) {
      histogram[b] = 0;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += kBlockThreads) {
      if (chosen(i)) {
        const uint64_t k = key(i);
        if ((k & known) == prefix) {
          // Integers: the order of the additions does not show.
          atomicAdd(&histogram[(k >> shift) & 255], 1);
        }
      }
    }
    __syncthreads();
    // The one thread among whose bins the rank-th is says so.
    int own = 0;
    for (int b = 0; b < kOwnBins; ++b) {
      own += histogram[threadIdx.x * kOwnBins + b];
    }
    int total;
    int left = rank - block_offset(own, &total);
    if (left > 0 && left <= own) {
      int b = threadIdx.x * kOwnBins;
      while (left > histogram[b]) {
        left -= histogram[b++];
      }
      digit = b;
      rank_left = left;
    }
    __syncthreads();
    prefix |= static_cast<uint64_t>(digit) << shift;
    known |= static_cast<uint64_t>(255) << shift;
    rank = rank_left;
    __syncthreads();
  }
  return prefix;
}

// An integer that is smaller for a larger number, the same for -0 and 0.
inline __device__ uint64_t descending_key(double x) {
  const uint64_t sign = static_cast<uint64_t>(1) << 63;
  const uint64_t bits = __double_as_longlong(x == 0 ? 0. : x);
  return bits & sign ? bits : ~(bits | sign);
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_BLOCK_CUH_
