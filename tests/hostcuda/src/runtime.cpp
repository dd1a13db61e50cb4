#include "cuda_runtime.h"

#include <chrono>
#include <cstdlib>

namespace hostcuda {
int LastError(bool reset);  // launch.cpp
}  // namespace hostcuda

namespace {

const int kProcessors = 1;

// The host's or the opened address, and which of the two it is.
struct Place {
  void* p;
  bool device;
};

bool Find(const void* p, size_t bytes, Place* place) {
  place->device = hostcuda::InDeviceRange(p);
  if (!place->device) {
    place->p = const_cast<void*>(p);
    return true;
  }
  if (!hostcuda::IsDeviceMemory(p, bytes)) return false;
  place->p = hostcuda::OpenBytes(p, bytes, "a copy");
  return true;
}

double Now() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

cudaError_t cudaMalloc(void** device, size_t bytes) {
  *device = hostcuda::Allocate(bytes);
  return *device || bytes == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void* device) {
  return hostcuda::Free(device) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMallocHost(void** host, size_t bytes) {
  *host = hostcuda::AllocateHost(bytes);
  return *host ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void* host) {
  hostcuda::FreeHost(host);
  return cudaSuccess;
}

// A copy, and what it adds to the counters: copies to the host to `to_host`.
cudaError_t Copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                 uint64_t* to_host) {
  if (bytes == 0) return cudaSuccess;
  Place target, source;
  if (!Find(to, bytes, &target) || !Find(from, bytes, &source)) {
    return cudaErrorInvalidValue;
  }
  const int found = (source.device ? 2 : 0) + (target.device ? 1 : 0);
  if (kind != cudaMemcpyDefault && kind != found) return cudaErrorInvalidValue;
  memmove(target.p, source.p, bytes);
  if (found == cudaMemcpyDeviceToHost) {
    ++*to_host;
    hostcuda::counters.to_host_bytes += bytes;
    hostcuda::Trace("copy to host %zu bytes", bytes);
  } else if (found == cudaMemcpyHostToDevice) {
    ++hostcuda::counters.to_device;
    hostcuda::counters.to_device_bytes += bytes;
    hostcuda::Trace("copy to device %zu bytes", bytes);
  } else if (found == cudaMemcpyDeviceToDevice) {
    hostcuda::counters.moved_bytes += 2 * bytes;
    hostcuda::Trace("copy on the device %zu bytes", bytes);
  }
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes,
                       cudaMemcpyKind kind) {
  return Copy(to, from, bytes, kind, &hostcuda::counters.to_host);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t) {
  return Copy(to, from, bytes, kind, &hostcuda::counters.to_host_async);
}

cudaError_t cudaMemset(void* device, int byte, size_t bytes) {
  if (bytes == 0) return cudaSuccess;
  if (!hostcuda::IsDeviceMemory(device, bytes)) return cudaErrorInvalidValue;
  memset(hostcuda::OpenBytes(device, bytes, "cudaMemset"), byte, bytes);
  ++hostcuda::counters.sets;
  hostcuda::counters.moved_bytes += bytes;
  hostcuda::Trace("memset %zu bytes", bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* device, int byte, size_t bytes,
                            cudaStream_t) {
  return cudaMemset(device, byte, bytes);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes,
                                     const void* p) {
  const bool device = hostcuda::InDeviceRange(p);
  attributes->device = 0;
  attributes->devicePointer = device ? const_cast<void*>(p) : NULL;
  attributes->hostPointer = device ? NULL : const_cast<void*>(p);
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

// HOSTCUDA_DRIVER stands in for a driver of another version, or none: 0.
cudaError_t cudaDriverGetVersion(int* version) {
  const char* const text = getenv("HOSTCUDA_DRIVER");
  *version = text ? atoi(text) : CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  int driver;
  cudaDriverGetVersion(&driver);
  *count = driver < CUDART_VERSION ? 0 : 1;
  return *count ? cudaSuccess : cudaErrorInsufficientDriver;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  memset(properties, 0, sizeof(*properties));
  strncpy(properties->name, "host emulation", sizeof(properties->name) - 1);
  properties->major = 7;
  properties->minor = 5;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->sharedMemPerBlock = 48 * 1024;
  properties->multiProcessorCount = kProcessors;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute,
                                   int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  if (attribute != cudaDevAttrMultiProcessorCount) return cudaErrorInvalidValue;
  *value = kProcessors;
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = NULL;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return cudaStreamCreate(stream);
}

cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new double(0);
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  *event = Now();
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start,
                                 cudaEvent_t stop) {
  *milliseconds = *stop - *start;
  return cudaSuccess;
}

cudaError_t cudaPeekAtLastError() {
  return static_cast<cudaError_t>(hostcuda::LastError(false));
}

cudaError_t cudaGetLastError() {
  return static_cast<cudaError_t>(hostcuda::LastError(true));
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
  }
  return "unknown error";
}
