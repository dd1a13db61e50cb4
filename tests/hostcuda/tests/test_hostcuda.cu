// Whether the emulation itself bites: each fault that a GPU would punish, or
// would let pass with wrong numbers, has to end the process or change bits.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "cublas_v2.h"

namespace {

const int kThreads = 64;

// An array on the device, and copies of it on the host.
template <typename T>
class Array {
 public:
  explicit Array(const std::vector<T>& host) : size_(host.size()) {
    EXPECT_EQ(cudaSuccess, cudaMalloc(&device_, size_ * sizeof(T)));
    EXPECT_EQ(cudaSuccess, cudaMemcpy(device_, &host[0], size_ * sizeof(T),
                                      cudaMemcpyHostToDevice));
  }
  explicit Array(size_t size) : size_(size) {
    EXPECT_EQ(cudaSuccess, cudaMalloc(&device_, size_ * sizeof(T)));
  }
  ~Array() { EXPECT_EQ(cudaSuccess, cudaFree(device_)); }

  T* device() const { return device_; }
  std::vector<T> host() const {
    std::vector<T> copy(size_);
    EXPECT_EQ(cudaSuccess, cudaMemcpy(&copy[0], device_, size_ * sizeof(T),
                                      cudaMemcpyDeviceToHost));
    return copy;
  }

 private:
  size_t size_;
  T* device_;
};

__global__ void twice(const int n, const float* in, float* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = 2 * in[i];
}

__global__ void write_at(const int i, float* out) { out[i] = 1; }

__global__ void read_at(const int i, const float* in, float* out) {
  out[0] = in[i];
}

struct Pair {
  float* first;
  double second;
};

__global__ void write_first(Pair pair) { pair.first[0] = 7; }

__device__ float sum_of_block(const float value) {
  __shared__ float partial[kThreads];
  partial[threadIdx.x] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  return partial[0];
}

__global__ void sum_rows(const float* in, float* out) {
  const float sum = sum_of_block(in[blockIdx.x * kThreads + threadIdx.x]);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

__global__ void read_shared(float* out) {
  __shared__ float fresh[kThreads];
  if (blockIdx.x == 0) fresh[threadIdx.x] = 1;
  __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = fresh[threadIdx.x];
}

__global__ void half_at_barrier() {
  if (threadIdx.x < kThreads / 2) __syncthreads();
}

__global__ void shuffle_up_and_down(int* out) {
  const int lane = threadIdx.x % 32;
  // One warp is at a barrier while the other still shuffles.
  int below = -1;
  if (threadIdx.x >= 32) below = __shfl_down_sync(0xffffffffu, lane, 3);
  __syncthreads();
  const int above = __shfl_up_sync(0xffffffffu, lane, 1);
  const int again = __shfl_up_sync(0xffffffffu, above, 1);
  out[threadIdx.x] = below + 100 * above + 10000 * again;
}

__global__ void half_warp_shuffles(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_up_sync(0xffffffffu, 1, 1);
}

__global__ void any_of_block(const int* votes, int* out) {
  const int first = __syncthreads_or(votes[threadIdx.x] & 1);
  const int second = __syncthreads_or(votes[threadIdx.x] & 2);
  const int third = __syncthreads_or(0);
  const int fourth = __syncthreads_or(votes[threadIdx.x] & 1);
  out[threadIdx.x] = first + 2 * second + 4 * third + 8 * fourth;
}

__global__ void block_votes(const int voter, int* out) {
  const int mine = blockIdx.x == voter;
  out[blockIdx.x * kThreads + threadIdx.x] = __syncthreads_or(mine);
}

__global__ void last_thread(int* last) {
  *last = blockIdx.x * kThreads + threadIdx.x;
}

}  // namespace

TEST(HostCuda, LaunchesCoverTheGrid) {
  const int n = 1000;
  std::vector<float> in(n);
  for (int i = 0; i < n; ++i) in[i] = i;
  Array<float> x(in), y(n);
  const uint64_t before = hostcuda::counters.launches;
  twice<<<(n + kThreads - 1) / kThreads, kThreads>>>(n, x.device(), y.device());
  EXPECT_EQ(before + 1, hostcuda::counters.launches);
  const std::vector<float> out = y.host();
  for (int i = 0; i < n; ++i) EXPECT_EQ(2 * i, out[i]);
}

TEST(HostCuda, InvalidConfigurationIsAnError) {
  Array<float> y(1);
  write_at<<<0, kThreads>>>(0, y.device());
  EXPECT_EQ(cudaErrorInvalidConfiguration, cudaPeekAtLastError());
  EXPECT_EQ(cudaErrorInvalidConfiguration, cudaGetLastError());
  EXPECT_EQ(cudaSuccess, cudaGetLastError());
  write_at<<<1, 1025>>>(0, y.device());
  EXPECT_EQ(cudaErrorInvalidConfiguration, cudaGetLastError());
}

TEST(HostCudaDeathTest, HostCodeTouchesDeviceMemory) {
  Array<float> x(3);
  volatile float* const p = x.device();
  EXPECT_DEATH(static_cast<void>(p[1]), "host code touched device memory");
  EXPECT_DEATH(p[2] = 1, "byte 8 of an allocation of 12 bytes");
}

TEST(HostCudaDeathTest, KernelGetsAHostPointer) {
  std::vector<float> host(4);
  Array<float> y(4);
  EXPECT_DEATH((twice<<<1, 4>>>(4, &host[0], y.device())),
               "twice was given the host pointer");
  float stack[4];
  EXPECT_DEATH((twice<<<1, 4>>>(4, y.device(), stack)),
               "twice was given the host pointer");
  void* pinned;
  ASSERT_EQ(cudaSuccess, cudaMallocHost(&pinned, 16));
  EXPECT_DEATH((write_at<<<1, 1>>>(0, static_cast<float*>(pinned))),
               "write_at was given the host pointer");
  EXPECT_EQ(cudaSuccess, cudaFreeHost(pinned));
}

TEST(HostCudaDeathTest, KernelGetsAHostPointerInAStructure) {
  float host;
  const Pair bad = {&host, 1e300};
  EXPECT_DEATH((write_first<<<1, 1>>>(bad)), "structure with the host pointer");
  Array<float> y(1);
  const Pair good = {y.device(), 0.1};
  write_first<<<1, 1>>>(good);
  EXPECT_EQ(7, y.host()[0]);
}

// A trap, or the guard bytes after the launch: HOSTCUDA_GUARD says on which
// side which of the two looks.
TEST(HostCudaDeathTest, KernelRunsPastTheEnd) {
  Array<float> y(5);
  write_at<<<1, 1>>>(4, y.device());
  EXPECT_EQ(1, y.host()[4]);
  EXPECT_DEATH((write_at<<<1, 1>>>(5, y.device())),
               "kernel write_at.*0 bytes after an allocation of 20 bytes");
  EXPECT_DEATH((write_at<<<1, 1>>>(0, static_cast<float*>(NULL))),
               "kernel write_at");
}

TEST(HostCudaDeathTest, KernelWritesBeforeTheStart) {
  Array<float> x(3), y(5);
  EXPECT_DEATH((write_at<<<1, 1>>>(-1, y.device())),
               "kernel write_at.*4 bytes before an allocation of 20 bytes");
  const int page = hostcuda::SystemPageBytes() / sizeof(float);
  Array<float> whole(page);
  EXPECT_DEATH((write_at<<<1, 1>>>(-1, whole.device())), "kernel write_at");
  EXPECT_DEATH((write_at<<<1, 1>>>(page, whole.device())), "kernel write_at");
}

// A read there is a trap with HOSTCUDA_GUARD=start.
TEST(HostCudaDeathTest, KernelReadsBeforeTheStart) {
  const char* const guard = getenv("HOSTCUDA_GUARD");
  if (guard == NULL || std::string(guard) != "start") return;
  Array<float> x(4), y(4);
  EXPECT_DEATH((twice<<<1, 1>>>(1, x.device() - 1, y.device())),
               "twice was given 0 bytes at .*, outside of any device alloc");
  EXPECT_DEATH((read_at<<<1, 1>>>(-1, x.device(), y.device())),
               "kernel read_at.*4 bytes before an allocation of 16 bytes");
}

// What one kernel wrote beside another's array is seen when that is freed, or
// when the process ends.
TEST(HostCudaDeathTest, GuardsAreLookedAtInTheEnd) {
  float* y;
  ASSERT_EQ(cudaSuccess, cudaMalloc(&y, 20));
  write_at<<<1, 1>>>(0, y);
  char* const slack = static_cast<char*>(hostcuda::OpenBytes(y, 20, "test"));
  const bool start = getenv("HOSTCUDA_GUARD") != NULL;
  EXPECT_DEATH(
      {
        slack[start ? 20 : -1] = 0;
        cudaFree(y);
      },
      "write_at wrote .*an allocation of 20 bytes.*seen by cudaFree");
  EXPECT_DEATH(
      {
        slack[start ? 20 : -1] = 0;
        exit(0);
      },
      "write_at wrote .*of 20 bytes.*seen at the end of the process");
  EXPECT_EQ(cudaSuccess, cudaFree(y));
}

TEST(HostCudaDeathTest, KernelKeepsFreedMemory) {
  float* y;
  ASSERT_EQ(cudaSuccess, cudaMalloc(&y, 16));
  ASSERT_EQ(cudaSuccess, cudaFree(y));
  EXPECT_EQ(cudaErrorInvalidValue, cudaFree(y));
  EXPECT_DEATH((write_at<<<1, 1>>>(0, y)), "outside of any device allocation");
}

TEST(HostCudaDeathTest, BlasGetsAHostPointer) {
  std::vector<float> host(4);
  Array<float> x(4);
  cublasHandle_t handle;
  ASSERT_EQ(CUBLAS_STATUS_SUCCESS, cublasCreate(&handle));
  const float one = 1;
  EXPECT_DEATH(cublasSaxpy(handle, 4, &one, &host[0], 1, x.device(), 1),
               "axpy was given the host pointer");
  EXPECT_DEATH(cublasSaxpy(handle, 5, &one, x.device(), 1, x.device(), 1),
               "outside of any device allocation");
}

TEST(HostCuda, CopiesKnowTheirDirection) {
  float host[2] = {1, 2};
  Array<float> x(2);
  EXPECT_EQ(cudaErrorInvalidValue,
            cudaMemcpy(x.device(), host, 8, cudaMemcpyDeviceToHost));
  EXPECT_EQ(cudaErrorInvalidValue,
            cudaMemcpy(x.device(), host, 12, cudaMemcpyHostToDevice));
  EXPECT_EQ(cudaErrorInvalidValue, cudaMemset(host, 0, 8));
  EXPECT_EQ(cudaSuccess, cudaMemcpy(x.device(), host, 8, cudaMemcpyDefault));
  EXPECT_EQ(2, x.host()[1]);
}

TEST(HostCuda, FreshMemoryIsPoisoned) {
  Array<float> x(3);
  const unsigned char byte = hostcuda::PoisonByte();
  const std::vector<float> host = x.host();
  const unsigned char* bytes = reinterpret_cast<const unsigned char*>(&host[0]);
  for (int i = 0; i < 12; ++i) EXPECT_EQ(byte, bytes[i]);
}

TEST(HostCuda, SharedMemoryIsFreshInEachBlock) {
  const int blocks = 3;
  Array<int> y(blocks * kThreads);
  read_shared<<<blocks, kThreads>>>(reinterpret_cast<float*>(y.device()));
  const std::vector<int> out = y.host();
  const int poison = 0x01010101 * hostcuda::PoisonByte();
  for (int i = kThreads; i < blocks * kThreads; ++i) EXPECT_EQ(poison, out[i]);
}

TEST(HostCuda, BarriersHoldAllThreads) {
  const int rows = 5;
  std::vector<float> in(rows * kThreads);
  for (size_t i = 0; i < in.size(); ++i) in[i] = i;
  Array<float> x(in), y(rows);
  sum_rows<<<rows, kThreads>>>(x.device(), y.device());
  const std::vector<float> out = y.host();
  for (int r = 0; r < rows; ++r) {
    EXPECT_EQ(kThreads * kThreads * r + kThreads * (kThreads - 1) / 2, out[r]);
  }
}

TEST(HostCudaDeathTest, BarrierThatNotAllReach) {
  EXPECT_DEATH((half_at_barrier<<<1, kThreads>>>()),
               "32 threads of 64 ended while others wait at a barrier");
}

TEST(HostCuda, WarpsShuffle) {
  Array<int> y(kThreads);
  shuffle_up_and_down<<<1, kThreads>>>(y.device());
  const std::vector<int> out = y.host();
  for (int i = 0; i < kThreads; ++i) {
    const int lane = i % 32;
    const int below = i < 32 ? -1 : lane + 3 < 32 ? lane + 3 : lane;
    const int above = std::max(0, lane - 1);
    const int again = lane == 0 ? 0 : std::max(0, lane - 2);
    EXPECT_EQ(below + 100 * above + 10000 * again, out[i]) << i;
  }
}

TEST(HostCudaDeathTest, ShuffleOfHalfAWarp) {
  Array<int> y(kThreads);
  EXPECT_DEATH((half_warp_shuffles<<<1, kThreads>>>(y.device())),
               "16 threads of a warp of 32 shuffle without the others");
}

TEST(HostCuda, VotesAreOfOneBarrier) {
  std::vector<int> votes(kThreads, 0);
  votes[17] = 2;
  Array<int> x(votes), y(kThreads);
  any_of_block<<<1, kThreads>>>(x.device(), y.device());
  std::vector<int> out = y.host();
  for (int i = 0; i < kThreads; ++i) EXPECT_EQ(2, out[i]);
  votes[40] = 1;
  Array<int> z(votes);
  any_of_block<<<1, kThreads>>>(z.device(), y.device());
  out = y.host();
  for (int i = 0; i < kThreads; ++i) EXPECT_EQ(1 + 2 + 8, out[i]);
}

TEST(HostCuda, VotesAreOfOneBlock) {
  const int blocks = 3;
  Array<int> y(blocks * kThreads);
  block_votes<<<blocks, kThreads>>>(1, y.device());
  const std::vector<int> out = y.host();
  for (int i = 0; i < blocks * kThreads; ++i) {
    EXPECT_EQ(i / kThreads == 1, out[i]);
  }
}

// What races shows: in ascending order the last thread writes last, in a
// shuffled one (HOSTCUDA_ORDER) another.
TEST(HostCuda, OrderIsShuffledOnDemand) {
  const int blocks = 8;
  Array<int> y(1);
  bool ascending = true;
  for (int repeat = 0; repeat < 4; ++repeat) {
    last_thread<<<blocks, kThreads>>>(y.device());
    ascending = ascending && y.host()[0] == blocks * kThreads - 1;
  }
  EXPECT_EQ(getenv("HOSTCUDA_ORDER") == NULL, ascending);
}
