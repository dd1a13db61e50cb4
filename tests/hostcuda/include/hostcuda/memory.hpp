#ifndef HOSTCUDA_MEMORY_HPP_
#define HOSTCUDA_MEMORY_HPP_

// Device memory that the host cannot touch.
//
// Every allocation exists at two addresses, a fixed distance apart. The
// program holds the device address, at which nothing is ever mapped: reading
// or writing through it traps, whoever does it. Kernels, copies and BLAS
// calls get the open address instead, translated as they are launched. The
// open pages end exactly where the allocation ends (with HOSTCUDA_GUARD=start
// they begin where it begins), unmapped pages stand on both sides, and
// addresses are never used twice. So a trap also meets a kernel that runs past
// the end (the start) of an array or keeps one that was freed. The slack on the
// other side is filled with guard bytes, which have to be there after each
// launch, when the memory is freed and when the process ends.

#include <cstddef>
#include <cstdint>

namespace hostcuda {

// Allocates `bytes` of device memory filled with the poison byte; NULL for 0.
void* Allocate(size_t bytes);

// Frees what Allocate returned. False for any other address.
bool Free(void* device);

// True if `p` is an address of device memory, living or freed.
bool InDeviceRange(const void* p);

// True if [p, p + bytes) lies in one living allocation.
bool IsDeviceMemory(const void* p, size_t bytes);

// The open address of `device`. Ends the process, naming `user`, if [device,
// device + bytes) is not device memory. NULL stays NULL.
void* OpenBytes(const void* device, size_t bytes, const char* user);

// OpenBytes for an argument of `kernel`: its allocation is looked at by the
// next CheckGuards, and named with this kernel.
void* OpenForKernel(const void* device, const char* kernel);

// Ends the process, naming the kernel, if one that was given an allocation has
// written beside it.
void CheckGuards();

// From here on the pages that the kernel being launched touches are noted,
// until UnwatchPages, which gives their bytes: what it reads and writes if
// everything that it needs twice comes from a cache.
void WatchPages();
void UnwatchPages(uint64_t* read, uint64_t* written);

// Bytes of a page of the system.
size_t SystemPageBytes();

template <typename T>
T* Open(T* device, size_t count, const char* user) {
  return static_cast<T*>(OpenBytes(device, count * sizeof(T), user));
}

// Memory given back by cudaMallocHost: poisoned, otherwise ordinary.
void* AllocateHost(size_t bytes);
void FreeHost(void* host);

// The byte that fresh memory is filled with: HOSTCUDA_POISON, else 0xFF, which
// makes floats NaN and integers -1.
int PoisonByte();

// Prints `message` on stderr and ends the process by SIGABRT.
[[noreturn]] void Fail(const char* format, ...)
    __attribute__((format(printf, 1, 2)));

}  // namespace hostcuda

#endif  // HOSTCUDA_MEMORY_HPP_
