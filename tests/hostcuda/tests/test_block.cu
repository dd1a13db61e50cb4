// Why: with shuffles and without, the threads of a block have to come to the
// same bits, since one tree's CUDA has them and another's has not.
// Sweeps: sums whose order shows, structures, prefix sums, a selection.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "cuda_runtime.h"

#include "caffe_metric/block.cuh"

namespace {

using caffe_metric::kBlockThreads;

struct Two {
  double value;
  int index;
};

struct LargerValue {
  Two operator()(const Two& a, const Two& b) const {
    return b.value > a.value || (b.value == a.value && b.index < a.index) ? b
                                                                          : a;
  }
};

template <bool kShuffle, typename T>
__global__ void tree_sum(const T* in, T* out) {
  out[threadIdx.x] =
      caffe_metric::block_tree<kShuffle>(in[threadIdx.x], caffe_metric::Add());
}

template <bool kShuffle, typename T>
__global__ void warp_sums(const T* in, T* out) {
  out[threadIdx.x] = caffe_metric::warp_tree_sum<kShuffle>(in[threadIdx.x]);
}

template <bool kShuffle>
__global__ void largest(const double* in, double* out) {
  const Two own = {in[threadIdx.x], static_cast<int>(threadIdx.x)};
  const Two found = caffe_metric::block_tree<kShuffle>(own, LargerValue());
  out[threadIdx.x] = found.value + 1000 * found.index;
}

template <bool kShuffle>
__global__ void offsets(const int* in, int* out) {
  int total;
  const int offset =
      caffe_metric::block_offset_by<kShuffle>(in[threadIdx.x], &total);
  out[threadIdx.x] = offset + 100000 * total;
}

__global__ void kth(const int n, const int rank, const double* in,
                    double* out) {
  const uint64_t key = caffe_metric::block_kth_smallest(
      n, rank, [](int) { return true; },
      [=](int i) { return caffe_metric::descending_key(in[i]); });
  for (int i = threadIdx.x; i < n; i += kBlockThreads) {
    if (caffe_metric::descending_key(in[i]) == key) out[0] = in[i];
  }
}

template <typename T>
class Array {
 public:
  explicit Array(const std::vector<T>& host) : size_(host.size()) {
    cudaMalloc(&device_, size_ * sizeof(T));
    cudaMemcpy(device_, &host[0], size_ * sizeof(T), cudaMemcpyHostToDevice);
  }
  ~Array() { cudaFree(device_); }
  T* device() const { return device_; }
  std::vector<T> host() const {
    std::vector<T> copy(size_);
    cudaMemcpy(&copy[0], device_, size_ * sizeof(T), cudaMemcpyDeviceToHost);
    return copy;
  }

 private:
  size_t size_;
  T* device_;
};

// Numbers of sizes so different that each order of adding them has its own sum.
template <typename T>
std::vector<T> rough_numbers() {
  std::vector<T> values(kBlockThreads);
  unsigned state = 7;
  for (int i = 0; i < kBlockThreads; ++i) {
    state = state * 1664525u + 1013904223u;
    values[i] = static_cast<T>((static_cast<int>(state >> 8) % 2001 - 1000) *
                               (i % 3 == 0   ? 1e-3
                                : i % 3 == 1 ? 1.
                                             : 1e4));
  }
  return values;
}

// The tree that block.cuh tells of.
template <typename T>
T sum_of_tree(std::vector<T> values, int first, int size) {
  for (int half = size / 2; half > 0; half /= 2) {
    for (int i = first; i < first + half; ++i) values[i] += values[i + half];
  }
  return values[first];
}

template <typename T>
void expect_same_sums() {
  const std::vector<T> values = rough_numbers<T>();
  const Array<T> in(values), shuffled(values), shared(values);
  tree_sum<true, T><<<1, kBlockThreads>>>(in.device(), shuffled.device());
  tree_sum<false, T><<<1, kBlockThreads>>>(in.device(), shared.device());
  const T expected = sum_of_tree(values, 0, kBlockThreads);
  for (int i = 0; i < kBlockThreads; ++i) {
    EXPECT_EQ(expected, shuffled.host()[i]);
    EXPECT_EQ(expected, shared.host()[i]);
  }
  warp_sums<true, T><<<1, kBlockThreads>>>(in.device(), shuffled.device());
  warp_sums<false, T><<<1, kBlockThreads>>>(in.device(), shared.device());
  for (int i = 0; i < kBlockThreads; ++i) {
    const T of_warp = sum_of_tree(values, i / 32 * 32, 32);
    EXPECT_EQ(of_warp, shuffled.host()[i]);
    EXPECT_EQ(of_warp, shared.host()[i]);
  }
}

}  // namespace

TEST(Block, ShufflesAddInTheOrderOfSharedMemory) {
  expect_same_sums<float>();
  expect_same_sums<double>();
}

TEST(Block, StructuresAreShuffledWhole) {
  const std::vector<double> values = rough_numbers<double>();
  const Array<double> in(values), shuffled(values), shared(values);
  largest<true><<<1, kBlockThreads>>>(in.device(), shuffled.device());
  largest<false><<<1, kBlockThreads>>>(in.device(), shared.device());
  const int at =
      std::max_element(values.begin(), values.end()) - values.begin();
  for (int i = 0; i < kBlockThreads; ++i) {
    EXPECT_EQ(values[at] + 1000 * at, shuffled.host()[i]);
  }
  EXPECT_EQ(shared.host(), shuffled.host());
}

TEST(Block, OffsetsAreSumsOfThoseBefore) {
  std::vector<int> counts(kBlockThreads);
  for (int i = 0; i < kBlockThreads; ++i) counts[i] = i * 7 % 5;
  const Array<int> in(counts), shuffled(counts), shared(counts);
  offsets<true><<<1, kBlockThreads>>>(in.device(), shuffled.device());
  offsets<false><<<1, kBlockThreads>>>(in.device(), shared.device());
  int total = 0;
  for (int i = 0; i < kBlockThreads; ++i) total += counts[i];
  for (int i = 0, before = 0; i < kBlockThreads; before += counts[i++]) {
    EXPECT_EQ(before + 100000 * total, shuffled.host()[i]);
  }
  EXPECT_EQ(shared.host(), shuffled.host());
}

TEST(Block, SelectionFindsEveryRank) {
  std::vector<double> values = rough_numbers<double>();
  values[5] = values[9];  // a tie
  const Array<double> in(values), out(std::vector<double>(1));
  std::vector<double> sorted = values;
  std::sort(sorted.rbegin(), sorted.rend());
  for (int rank = 1; rank <= kBlockThreads; rank += 9) {
    kth<<<1, kBlockThreads>>>(kBlockThreads, rank, in.device(), out.device());
    EXPECT_EQ(sorted[rank - 1], out.host()[0]) << rank;
  }
}
