#include "hostcuda/memory.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "hostcuda/launch.hpp"

namespace hostcuda {

namespace {

// Addresses only, no memory: 1 TiB for each of the two views.
const size_t kRange = size_t(1) << 40;
const size_t kPage = 4096;

size_t RoundToPages(size_t bytes) {
  return (bytes + kPage - 1) / kPage * kPage;
}

struct Allocation {
  char* pages;  // first page of the device view
  size_t page_bytes;
  size_t bytes;
};

class Memory {
 public:
  Memory() : device_(Reserve()), open_(Reserve()), used_(kPage) {
    InstallTrap();
  }

  void* Allocate(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    const size_t page_bytes = RoundToPages(bytes);
    if (used_ + page_bytes + kPage > kRange) return NULL;
    const Allocation allocation = {device_ + used_, page_bytes, bytes};
    char* const open = open_ + used_;
    if (mprotect(open, page_bytes, PROT_READ | PROT_WRITE) != 0) return NULL;
    memset(open, PoisonByte(), page_bytes);
    used_ += page_bytes + kPage;
    char* const start = allocation.pages + page_bytes - bytes;
    living_[start] = allocation;
    return start;
  }

  bool Free(void* device) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = living_.find(static_cast<char*>(device));
    if (found == living_.end()) return false;
    const Allocation& allocation = found->second;
    // A new mapping in place of the old one also gives its memory back.
    mmap(ToOpen(allocation.pages), allocation.page_bytes, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    living_.erase(found);
    return true;
  }

  bool InRange(const void* p) const {
    return static_cast<size_t>(static_cast<const char*>(p) - device_) < kRange;
  }
  bool InOpenRange(const void* p) const {
    return static_cast<size_t>(static_cast<const char*>(p) - open_) < kRange;
  }

  bool Contains(const void* p, size_t bytes) {
    if (!InRange(p)) return false;
    std::lock_guard<std::mutex> lock(mutex_);
    return ContainsUnlocked(static_cast<const char*>(p), bytes);
  }

  char* ToOpen(const void* device) const {
    return open_ + (static_cast<const char*>(device) - device_);
  }

  // For the signal handler: no lock, since the holder may be what trapped.
  void Describe(const void* fault, char* text, size_t size) const {
    const bool open = InOpenRange(fault);
    const char* p = static_cast<const char*>(fault);
    if (open) p = device_ + (p - open_);
    const auto after = living_.upper_bound(const_cast<char*>(p));
    if (after == living_.begin()) {
      snprintf(text, size, "memory that is not allocated");
      return;
    }
    const auto& found = *std::prev(after);
    const size_t offset = p - found.first;
    if (offset < found.second.bytes) {
      snprintf(text, size, "byte %zu of an allocation of %zu bytes", offset,
               found.second.bytes);
    } else {
      snprintf(text, size, "%zu bytes after an allocation of %zu bytes",
               offset - found.second.bytes, found.second.bytes);
    }
  }

 private:
  static char* Reserve() {
    void* const p = mmap(NULL, kRange, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) Fail("cannot reserve addresses for device memory");
    return static_cast<char*>(p);
  }

  bool ContainsUnlocked(const char* p, size_t bytes) const {
    // An address at the very end belongs to the allocation before it.
    const auto after = living_.upper_bound(const_cast<char*>(p));
    if (after == living_.begin()) return false;
    const auto& found = *std::prev(after);
    const size_t offset = p - found.first;
    return offset <= found.second.bytes && bytes <= found.second.bytes - offset;
  }

  static void InstallTrap();

  char* const device_;
  char* const open_;
  size_t used_;
  std::map<char*, Allocation> living_;
  std::mutex mutex_;
};

Memory& TheMemory() {
  // Never destroyed: static objects of the program free device memory late.
  static Memory* const memory = new Memory;
  return *memory;
}

// Says what a trap met, then lets the signal take its default course.
void OnTrap(int signal_number, siginfo_t* info, void*) {
  const Memory& memory = TheMemory();
  const void* const p = info->si_addr;
  char where[160];
  char who[256];
  char text[600];
  DescribeKernel(who, sizeof(who));
  if (memory.InRange(p) || memory.InOpenRange(p)) {
    memory.Describe(p, where, sizeof(where));
    snprintf(text, sizeof(text), "hostcuda: %s touched %s memory: %s\n", who,
             memory.InRange(p) ? "device" : "kernel", where);
  } else {
    snprintf(text, sizeof(text), "hostcuda: %s touched %p\n", who, p);
  }
  const ssize_t written = write(STDERR_FILENO, text, strlen(text));
  static_cast<void>(written);
  signal(signal_number, SIG_DFL);
}

void Memory::InstallTrap() {
  static char stack[65536];
  stack_t alternate = {};
  alternate.ss_sp = stack;
  alternate.ss_size = sizeof(stack);
  sigaltstack(&alternate, NULL);
  struct sigaction action = {};
  action.sa_sigaction = OnTrap;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGBUS, &action, NULL);
}

}  // namespace

void* Allocate(size_t bytes) {
  return bytes == 0 ? NULL : TheMemory().Allocate(bytes);
}

bool Free(void* device) { return device == NULL || TheMemory().Free(device); }

bool InDeviceRange(const void* p) { return TheMemory().InRange(p); }

bool IsDeviceMemory(const void* p, size_t bytes) {
  return TheMemory().Contains(p, bytes);
}

void* OpenBytes(const void* device, size_t bytes, const char* user) {
  if (device == NULL) return NULL;
  if (!InDeviceRange(device)) {
    Fail("%s was given the host pointer %p", user, device);
  }
  if (!IsDeviceMemory(device, bytes)) {
    Fail("%s was given %zu bytes at %p, outside of any device allocation", user,
         bytes, device);
  }
  return TheMemory().ToOpen(device);
}

void* AllocateHost(size_t bytes) {
  void* const host = malloc(bytes ? bytes : 1);
  if (host != NULL) memset(host, PoisonByte(), bytes);
  return host;
}

void FreeHost(void* host) { free(host); }

int PoisonByte() {
  static const char* const text = getenv("HOSTCUDA_POISON");
  static const int byte = text ? strtol(text, NULL, 0) & 0xFF : 0xFF;
  return byte;
}

void Fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("hostcuda: ", stderr);
  vfprintf(stderr, format, arguments);
  fputs("\n", stderr);
  va_end(arguments);
  fflush(stderr);
  abort();
}

}  // namespace hostcuda
