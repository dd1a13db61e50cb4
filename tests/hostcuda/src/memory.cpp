#include "hostcuda/memory.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "hostcuda/launch.hpp"

namespace hostcuda {

namespace {

// Of addresses only, no memory: what each of the two views asks for, and what
// it gets along with where a system or a limit gives less.
const size_t kMostRange = size_t(1) << 40;
const size_t kLeastRange = size_t(1) << 28;

// What the slack of an allocation's pages is filled with.
const unsigned char kGuardByte = 0xFB;

size_t SystemPage() {
  static const size_t page = sysconf(_SC_PAGESIZE);
  return page;
}

// HOSTCUDA_PAGE stands in for a system with larger pages.
size_t PageBytes() {
  const char* const text = getenv("HOSTCUDA_PAGE");
  const size_t page = text ? strtoul(text, NULL, 0) : SystemPage();
  if (page == 0 || page % SystemPage() != 0) {
    Fail("HOSTCUDA_PAGE is %s, no multiple of %zu", text, SystemPage());
  }
  return page;
}

// With HOSTCUDA_GUARD=start allocations begin where their pages do, otherwise
// they end there.
bool GuardStart() {
  const char* const text = getenv("HOSTCUDA_GUARD");
  return text != NULL && strcmp(text, "start") == 0;
}

struct Allocation {
  char* pages;  // first page of the device view
  size_t page_bytes;
  size_t bytes;
  const char* kernel;  // the last that was given it, or NULL
};

class Memory {
 public:
  Memory()
      : page_(PageBytes()),
        guard_start_(GuardStart()),
        device_(Reserve(&range_)),
        open_(device_ + range_),
        used_(page_) {
    InstallTrap();
    atexit(CheckAtExit);
  }

  void* Allocate(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (bytes > range_) return NULL;
    const size_t page_bytes = (bytes + page_ - 1) / page_ * page_;
    if (used_ + page_bytes + page_ > range_) return NULL;
    const Allocation allocation = {device_ + used_, page_bytes, bytes, NULL};
    char* const open = open_ + used_;
    if (mprotect(open, page_bytes, PROT_READ | PROT_WRITE) != 0) return NULL;
    used_ += page_bytes + page_;
    char* const start =
        allocation.pages + (guard_start_ ? 0 : page_bytes - bytes);
    memset(open, kGuardByte, page_bytes);
    memset(ToOpen(start), PoisonByte(), bytes);
    living_[start] = allocation;
    return start;
  }

  bool Free(void* device) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = living_.find(static_cast<char*>(device));
    if (found == living_.end()) return false;
    CheckGuards(*found, "by cudaFree");
    const Allocation& allocation = found->second;
    // A new mapping in place of the old one also gives its memory back.
    mmap(ToOpen(allocation.pages), allocation.page_bytes, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    living_.erase(found);
    return true;
  }

  bool InRange(const void* p) const {
    return static_cast<size_t>(static_cast<const char*>(p) - device_) < range_;
  }
  bool InOpenRange(const void* p) const {
    return static_cast<size_t>(static_cast<const char*>(p) - open_) < range_;
  }

  bool Contains(const void* p, size_t bytes) {
    if (!InRange(p)) return false;
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = Find(p);
    if (found == living_.end()) return false;
    const size_t offset = static_cast<const char*>(p) - found->first;
    return offset <= found->second.bytes &&
           bytes <= found->second.bytes - offset;
  }

  char* ToOpen(const void* device) const {
    return open_ + (static_cast<const char*>(device) - device_);
  }

  void NoteKernel(const void* p, const char* kernel) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = Find(p);
    if (found == living_.end()) return;
    found->second.kernel = kernel;
    given_.push_back(found->first);
  }

  void CheckGiven() {
    std::lock_guard<std::mutex> lock(mutex_);
    for (char* start : given_) {
      const auto found = living_.find(start);
      if (found != living_.end()) CheckGuards(*found, "after its launch");
    }
    given_.clear();
  }

  // Closes what the kernel that is being launched was given, so that each page
  // that it touches traps once to read and once to write.
  void Watch() {
    std::lock_guard<std::mutex> lock(mutex_);
    watched_.clear();
    for (char* start : given_) {
      const auto found = living_.find(start);
      if (found == living_.end()) continue;
      const Watched watched = {
          ToOpen(found->second.pages), ToOpen(found->first),
          found->second.bytes,
          std::vector<char>(found->second.page_bytes / SystemPage(), 0)};
      const bool known = std::any_of(
          watched_.begin(), watched_.end(),
          [&](const Watched& other) { return other.pages == watched.pages; });
      if (known) continue;
      mprotect(watched.pages, found->second.page_bytes, PROT_NONE);
      watched_.push_back(watched);
    }
  }

  // Opens it again, and adds up the bytes of the pages.
  void Unwatch(uint64_t* read, uint64_t* written) {
    std::lock_guard<std::mutex> lock(mutex_);
    *read = *written = 0;
    for (const Watched& watched : watched_) {
      mprotect(watched.pages, watched.touched.size() * SystemPage(),
               PROT_READ | PROT_WRITE);
      for (size_t i = 0; i < watched.touched.size(); ++i) {
        const char* const page = watched.pages + i * SystemPage();
        const char* const begin = std::max<const char*>(page, watched.start);
        const char* const end = std::min<const char*>(
            page + SystemPage(), watched.start + watched.bytes);
        const size_t bytes = end > begin ? end - begin : 0;
        *read += watched.touched[i] & kRead ? bytes : 0;
        *written += watched.touched[i] & kWritten ? bytes : 0;
      }
    }
    watched_.clear();
  }

  // For the signal handler. False: it was no page that is watched.
  bool Touch(const void* fault, bool write) {
    for (Watched& watched : watched_) {
      const size_t offset = static_cast<const char*>(fault) - watched.pages;
      if (offset >= watched.touched.size() * SystemPage()) continue;
      char* const page = &watched.touched[offset / SystemPage()];
      // Where the system does not tell, what was read before is written now.
      if (*page & kRead) write = true;
      if (*page & (write ? kWritten : kRead)) return false;
      *page |= write ? kWritten : kRead;
      return mprotect(watched.pages + offset / SystemPage() * SystemPage(),
                      SystemPage(),
                      write ? PROT_READ | PROT_WRITE : PROT_READ) == 0;
    }
    return false;
  }

  // For the signal handler: no lock, since the holder may be what trapped.
  void Describe(const void* fault, char* text, size_t size) const {
    const char* p = static_cast<const char*>(fault);
    if (InOpenRange(fault)) p = device_ + (p - open_);
    const auto after = living_.upper_bound(const_cast<char*>(p));
    const auto end = living_.end();
    const auto before = after == living_.begin() ? end : std::prev(after);
    const size_t to_next = after == end ? SIZE_MAX : after->first - p;
    const size_t offset = before == end ? SIZE_MAX : p - before->first;
    if (before != end && offset < before->second.bytes) {
      snprintf(text, size, "byte %zu of an allocation of %zu bytes", offset,
               before->second.bytes);
    } else if (before != end && offset - before->second.bytes <= to_next) {
      snprintf(text, size, "%zu bytes after an allocation of %zu bytes",
               offset - before->second.bytes, before->second.bytes);
    } else if (after != end) {
      snprintf(text, size, "%zu bytes before an allocation of %zu bytes",
               to_next, after->second.bytes);
    } else {
      snprintf(text, size, "memory that is not allocated");
    }
  }

 private:
  typedef std::map<char*, Allocation> Allocations;

  // What a kernel was given, in the open view, and what it did to each page.
  struct Watched {
    char* pages;
    const char* start;
    size_t bytes;
    std::vector<char> touched;
  };
  enum { kRead = 1, kWritten = 2 };

  // Both views at once, so that a limit on addresses leaves as much again.
  static char* Reserve(size_t* range) {
    for (*range = kMostRange; *range >= kLeastRange; *range /= 2) {
      void* const p = mmap(NULL, 2 * *range, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p != MAP_FAILED) return static_cast<char*>(p);
    }
    Fail("cannot reserve %zu bytes of addresses for device memory",
         2 * kLeastRange);
  }

  // An address at the very end belongs to the allocation before it.
  Allocations::iterator Find(const void* p) {
    char* const address = const_cast<char*>(static_cast<const char*>(p));
    const auto after = living_.upper_bound(address);
    if (after == living_.begin()) return living_.end();
    const auto found = std::prev(after);
    const size_t offset = address - found->first;
    return offset <= found->second.bytes ? found : living_.end();
  }

  // Ends the process if a byte of the slack has been written.
  void CheckGuards(const Allocations::value_type& entry, const char* when) {
    const Allocation& allocation = entry.second;
    const char* const first = ToOpen(allocation.pages);
    const char* const start = ToOpen(entry.first);
    const char* const end = start + allocation.bytes;
    const char* p = FirstWritten(first, start);
    const bool before = p != NULL;
    if (!before) p = FirstWritten(end, first + allocation.page_bytes);
    if (p == NULL) return;
    Fail(
        "kernel %s wrote %zu bytes %s an allocation of %zu bytes (it was the "
        "last to be given it; seen %s)",
        allocation.kernel ? allocation.kernel : "(none)",
        static_cast<size_t>(before ? start - p : p - end),
        before ? "before" : "after", allocation.bytes, when);
  }

  static const char* FirstWritten(const char* begin, const char* end) {
    const auto guard = [](char c) {
      return c == static_cast<char>(kGuardByte);
    };
    const char* const found = std::find_if_not(begin, end, guard);
    return found == end ? NULL : found;
  }

  static void CheckAtExit();
  static void InstallTrap();

  const size_t page_;
  const bool guard_start_;
  size_t range_;
  char* const device_;
  char* const open_;
  size_t used_;
  Allocations living_;
  std::vector<char*> given_;  // to the kernel that is being launched
  std::vector<Watched> watched_;
  std::mutex mutex_;
};

Memory& TheMemory() {
  // Never destroyed: static objects of the program free device memory late.
  static Memory* const memory = new Memory;
  return *memory;
}

// Whether what trapped wanted to write, where the system tells.
bool IsWrite(void* context) {
#if defined(__x86_64__) && defined(REG_ERR)
  return static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & 2;
#else
  static_cast<void>(context);
  return false;
#endif
}

// Says what a trap met, then lets the signal take its default course.
void OnTrap(int signal_number, siginfo_t* info, void* context) {
  Memory& memory = TheMemory();
  const void* const p = info->si_addr;
  if (memory.Touch(p, IsWrite(context))) return;
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

void Memory::CheckAtExit() {
  Memory& memory = TheMemory();
  std::lock_guard<std::mutex> lock(memory.mutex_);
  for (const auto& entry : memory.living_) {
    memory.CheckGuards(entry, "at the end of the process");
  }
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

void* OpenForKernel(const void* device, const char* kernel) {
  void* const open = OpenBytes(device, 0, kernel);
  if (device != NULL) TheMemory().NoteKernel(device, kernel);
  return open;
}

void CheckGuards() { TheMemory().CheckGiven(); }

void WatchPages() { TheMemory().Watch(); }

void UnwatchPages(uint64_t* read, uint64_t* written) {
  TheMemory().Unwatch(read, written);
}

size_t SystemPageBytes() { return SystemPage(); }

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
