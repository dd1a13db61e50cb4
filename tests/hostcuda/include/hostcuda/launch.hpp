#ifndef HOSTCUDA_LAUNCH_HPP_
#define HOSTCUDA_LAUNCH_HPP_

// Kernel launches on the host.
//
// launch_rewrite.py turns kernel<<<grid, block>>>(args) into
// hostcuda::Launch("kernel", barriers, Config(grid, block), call, args).
// Pointer arguments are checked to be device memory and opened; structures
// passed by value are searched for pointers. Blocks run one after the other.
// The threads of a kernel without barriers do too; those of a kernel with
// barriers are fibers, all of which reach a barrier before any goes on. With
// HOSTCUDA_ORDER=n, n > 0, blocks and threads run in an order drawn from n.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "hostcuda/memory.hpp"

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1)  // NOLINT
      : x(x_), y(y_), z(z_) {}
};

namespace hostcuda {

struct Config {
  dim3 grid, block;
  Config(dim3 grid_, dim3 block_, size_t shared = 0, void* stream = NULL)
      : grid(grid_), block(block_) {
    if (shared != 0) Fail("dynamic shared memory is not emulated");
    static_cast<void>(stream);
  }
};

// The running kernel's built-in variables.
struct State {
  dim3 grid, block;
  uint3 block_index, thread_index;
  uint64_t block_serial;  // counts blocks: fresh shared memory for each
  const char* kernel;     // NULL on the host
};
extern State state;

// What has happened since the process started.
struct Counters {
  uint64_t launches;
  uint64_t blas_calls;
  uint64_t to_host;        // results and copies that wait for the device
  uint64_t to_host_async;  // copies that do not
  uint64_t to_device;
  uint64_t to_host_bytes;
  uint64_t to_device_bytes;
  uint64_t sets;         // cudaMemset
  uint64_t moved_bytes;  // read and written on the device: by copies and sets,
                         // and while CountBytes(true) by kernels
};
extern Counters counters;

// Has each launch add up the bytes of the pages that it touches; slow.
void CountBytes(bool on);

// With HOSTCUDA_TRACE=FILE, adds a line to FILE.
void Trace(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Runs `thread` for every thread of the grid. False: invalid configuration.
bool Run(const char* name, bool barriers, const Config& config,
         const std::function<void()>& thread);

// __syncthreads.
void Barrier();

// __syncthreads_or: whether any thread of the block came with `vote`.
bool BarrierOr(bool vote);

// What the thread `delta` further on in the warp comes with, all of whose
// threads have to come; `value` where there is none.
uint32_t Shuffle(uint32_t value, int delta);

// True for the first thread of a block that asks about `serial`.
bool FirstInBlock(uint64_t* serial);

// "kernel NAME, block (x,y,z), thread (x,y,z)", or "host code".
void DescribeKernel(char* text, size_t size);

// Sets what cudaPeekAtLastError gives.
void SetLastError(int error);

// Looks for addresses in a structure that is passed by value: device addresses
// are opened, addresses of the stack, the heap or a mapped file end the
// process.
void OpenStructure(void* structure, size_t bytes, const char* kernel);

template <typename T>
typename std::enable_if<std::is_pointer<T>::value, T>::type OpenArgument(
    T argument, const char* kernel) {
  return static_cast<T>(OpenForKernel(argument, kernel));
}

template <typename T>
typename std::enable_if<std::is_arithmetic<T>::value || std::is_enum<T>::value,
                        T>::type
OpenArgument(T argument, const char*) {
  return argument;
}

template <typename T>
typename std::enable_if<std::is_class<T>::value, T>::type OpenArgument(
    T argument, const char* kernel) {
  static_assert(std::is_trivially_copyable<T>::value,
                "a kernel argument must be trivially copyable");
  // What stood in the padding before may look like an address.
  __builtin_clear_padding(&argument);
  OpenStructure(&argument, sizeof(T), kernel);
  return argument;
}

template <typename Call, typename... P, size_t... I>
void Apply(Call call, const std::tuple<P...>& arguments,
           std::index_sequence<I...>) {
  call(std::get<I>(arguments)...);
}

template <typename Call, typename... P>
void Launch(const char* name, bool barriers, const Config& config, Call call,
            P... arguments) {
  const std::tuple<P...> opened(OpenArgument<P>(arguments, name)...);
  const bool valid = Run(name, barriers, config, [&] {
    Apply(call, opened, std::index_sequence_for<P...>());
  });
  if (!valid) SetLastError(9);  // cudaErrorInvalidConfiguration
}

}  // namespace hostcuda

#endif  // HOSTCUDA_LAUNCH_HPP_
