#ifndef HOSTCUDA_CUDA_RUNTIME_H_
#define HOSTCUDA_CUDA_RUNTIME_H_

// Stands in for CUDA's header of this name: the part of the runtime that Caffe
// and its layers use, executed by the host. See tests/hostcuda/README.md.

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "hostcuda/launch.hpp"
#include "hostcuda/memory.hpp"

#define HOSTCUDA 1
#define CUDA_VERSION 9000
#define CUDART_VERSION 9000

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

#define threadIdx (::hostcuda::state.thread_index)
#define blockIdx (::hostcuda::state.block_index)
#define blockDim (::hostcuda::state.block)
#define gridDim (::hostcuda::state.grid)

// Written by launch_rewrite.py after each declaration of a __shared__ variable:
// a new block finds it poisoned.
#define HOSTCUDA_SHARED(name)                               \
  do {                                                      \
    static uint64_t hostcuda_serial = 0;                    \
    if (::hostcuda::FirstInBlock(&hostcuda_serial)) {       \
      memset(&name, ::hostcuda::PoisonByte(), sizeof(name)); \
    }                                                       \
  } while (0)

inline void __syncthreads() { hostcuda::Barrier(); }
inline int __syncthreads_or(int vote) { return hostcuda::BarrierOr(vote != 0); }

// Of whole warps only, as the layers use them.
inline int __shfl_down_sync(unsigned mask, int value, unsigned delta) {
  if (mask != 0xffffffffu) hostcuda::Fail("a shuffle of half a warp");
  return hostcuda::Shuffle(value, delta);
}
inline int __shfl_up_sync(unsigned mask, int value, unsigned delta) {
  if (mask != 0xffffffffu) hostcuda::Fail("a shuffle of half a warp");
  return hostcuda::Shuffle(value, -static_cast<int>(delta));
}

// Threads run one at a time, so plain statements are atomic, and seen by all.
inline void __threadfence() {}
template <typename T>
T atomicAdd(T* address, T value) {
  const T old = *address;
  *address += value;
  return old;
}
template <typename T, typename U>
T atomicCAS(T* address, T compare, U value) {
  const T old = *address;
  if (old == compare) *address = value;
  return old;
}
template <typename T>
T atomicMin(T* address, T value) {
  const T old = *address;
  *address = std::min(old, value);
  return old;
}
template <typename T>
T atomicMax(T* address, T value) {
  const T old = *address;
  *address = std::max(old, value);
  return old;
}

inline long long __double_as_longlong(double value) {  // NOLINT(runtime/int)
  long long bits;                                      // NOLINT(runtime/int)
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline double __longlong_as_double(long long bits) {  // NOLINT(runtime/int)
  double value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

using std::max;
using std::min;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorInvalidDevice = 101
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1 };

enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };

typedef void* cudaStream_t;
typedef double* cudaEvent_t;

struct cudaDeviceProp {
  char name[256];
  int major, minor;
  size_t totalGlobalMem, sharedMemPerBlock;
  int regsPerBlock, warpSize;
  size_t memPitch;
  int maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3], clockRate;
  size_t totalConstMem, textureAlignment;
  int deviceOverlap, multiProcessorCount, kernelExecTimeoutEnabled;
};
struct cudaPointerAttributes {
  int device;
  void* devicePointer;
  void* hostPointer;
};

cudaError_t cudaMalloc(void** device, size_t bytes);
cudaError_t cudaFree(void* device);
cudaError_t cudaMallocHost(void** host, size_t bytes);
cudaError_t cudaFreeHost(void* host);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes,
                       cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream = NULL);
cudaError_t cudaMemset(void* device, int byte, size_t bytes);
cudaError_t cudaMemsetAsync(void* device, int byte, size_t bytes,
                            cudaStream_t stream = NULL);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes,
                                     const void* p);

cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute,
                                   int device);
cudaError_t cudaDeviceSynchronize();

cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);

cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = NULL);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start,
                                 cudaEvent_t stop);

cudaError_t cudaPeekAtLastError();
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);

template <typename T>
cudaError_t cudaMalloc(T** device, size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(device), bytes);
}

#endif  // HOSTCUDA_CUDA_RUNTIME_H_
