#include "hostcuda/launch.hpp"

#include <sys/mman.h>

#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <random>
#include <vector>

namespace hostcuda {

State state = {};
Counters counters = {};

namespace {

namespace context = boost::context;

int last_error = 0;
bool count_bytes = false;
const unsigned kMaxThreads = 1024;
const size_t kStackBytes = 128 * 1024;

unsigned Seed() {
  static const char* const text = getenv("HOSTCUDA_ORDER");
  static const unsigned seed = text ? strtoul(text, NULL, 0) : 0;
  return seed;
}

// 0 .. n-1, in order or, with a seed, in another one each time.
void NewOrder(unsigned n, std::vector<unsigned>* order) {
  static std::mt19937 generator(Seed());
  order->resize(n);
  std::iota(order->begin(), order->end(), 0u);
  if (Seed() != 0) std::shuffle(order->begin(), order->end(), generator);
}

uint3 Index(unsigned i, const dim3& extent) {
  const uint3 index = {i % extent.x, i / extent.x % extent.y,
                       i / (extent.x * extent.y)};
  return index;
}

// A fiber runs one thread of a block after the other, for the whole process:
// it is made once.
class Fiber {
 public:
  enum Status { kReady, kAtBarrier, kAtShuffle, kDone };

  Fiber()
      : status_(kDone),
        votes_(0),
        shuffles_(0),
        thread_(NULL),
        fiber_(std::allocator_arg, context::fixedsize_stack(kStackBytes),
               [this](context::fiber&& main) {
                 main_ = std::move(main);
                 for (;;) {
                   (*thread_)();
                   Yield(kDone);
                 }
                 return context::fiber();
               }) {}

  void Start(const std::function<void()>* thread) {
    thread_ = thread;
    votes_ = 0;
    shuffles_ = 0;
    status_ = kReady;
  }
  void Release() { status_ = kReady; }
  void Resume() { fiber_ = std::move(fiber_).resume(); }
  void Yield(Status status) {
    status_ = status;
    main_ = std::move(main_).resume();
  }
  Status status() const { return status_; }
  // How many votes this thread has taken part in before.
  unsigned NextVote() { return votes_++; }
  // The same of shuffles.
  unsigned NextShuffle() { return shuffles_++; }

 private:
  Status status_;
  unsigned votes_;
  unsigned shuffles_;
  const std::function<void()>* thread_;
  context::fiber main_;
  context::fiber fiber_;
};

Fiber* current = NULL;

// Of BarrierOr, in turn: while some threads still read one and others vote in
// the next, the third is being cleared.
bool votes[3];

// Of Shuffle, in turn: what each thread gives while others still read the last.
const unsigned kWarpThreads = 32;
uint32_t given[2][kMaxThreads];

// Lets those threads go on that have waited for each other: whole warps at a
// shuffle, or else the whole block at a barrier.
void ReleaseThreads(unsigned threads, const std::vector<Fiber*>& fibers) {
  bool any = false;
  unsigned at_barrier = 0;
  for (unsigned first = 0; first < threads; first += kWarpThreads) {
    const unsigned end = std::min(threads, first + kWarpThreads);
    unsigned waiting = 0;
    for (unsigned i = first; i < end; ++i) {
      waiting += fibers[i]->status() == Fiber::kAtShuffle;
      at_barrier += fibers[i]->status() == Fiber::kAtBarrier;
    }
    if (waiting > 0 && waiting != end - first) {
      Fail("kernel %s: %u threads of a warp of %u shuffle without the others",
           state.kernel, waiting, end - first);
    }
    for (unsigned i = first; i < end && waiting > 0; ++i) fibers[i]->Release();
    any = any || waiting > 0;
  }
  for (unsigned i = 0; i < threads && !any && at_barrier == threads; ++i) {
    fibers[i]->Release();
  }
}

void RunBlockWithBarriers(unsigned threads, const dim3& extent,
                          const std::function<void()>& thread) {
  static std::vector<Fiber*>* const fibers = new std::vector<Fiber*>;
  static std::vector<unsigned> order;
  while (fibers->size() < threads) fibers->push_back(new Fiber);
  for (unsigned i = 0; i < threads; ++i) (*fibers)[i]->Start(&thread);
  std::fill(votes, votes + 3, false);
  unsigned done = 0;
  for (bool any = true; any;) {
    any = false;
    NewOrder(threads, &order);
    for (unsigned i : order) {
      if ((*fibers)[i]->status() != Fiber::kReady) continue;
      any = true;
      current = (*fibers)[i];
      state.thread_index = Index(i, extent);
      current->Resume();
      done += current->status() == Fiber::kDone;
    }
    if (any) ReleaseThreads(threads, *fibers);
  }
  current = NULL;
  if (done != threads) {
    Fail("kernel %s: %u threads of %u ended while others wait at a barrier",
         state.kernel, done, threads);
  }
}

// Whether there is memory at the address: numbers and padding rarely look so.
bool IsMapped(void* address) {
  const uintptr_t page =
      reinterpret_cast<uintptr_t>(address) & ~uintptr_t(SystemPageBytes() - 1);
  unsigned char resident;
  return page != 0 && mincore(reinterpret_cast<void*>(page), 1, &resident) == 0;
}

}  // namespace

bool Run(const char* name, bool barriers, const Config& config,
         const std::function<void()>& thread) {
  static std::mutex mutex;
  std::lock_guard<std::mutex> lock(mutex);
  const dim3& grid = config.grid;
  const dim3& block = config.block;
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64 || blocks == 0 ||
      grid.x > 0x7FFFFFFFu || grid.y > 65535 || grid.z > 65535) {
    return false;
  }
  ++counters.launches;
  Trace("launch %s grid %u %u %u block %u %u %u", name, grid.x, grid.y, grid.z,
        block.x, block.y, block.z);
  state.kernel = name;
  state.grid = grid;
  state.block = block;
  if (count_bytes) WatchPages();
  std::vector<unsigned> block_order, thread_order;
  NewOrder(blocks, &block_order);
  for (unsigned b : block_order) {
    state.block_index = Index(b, grid);
    ++state.block_serial;
    if (barriers) {
      RunBlockWithBarriers(threads, block, thread);
    } else {
      NewOrder(threads, &thread_order);
      for (unsigned t : thread_order) {
        state.thread_index = Index(t, block);
        thread();
      }
    }
  }
  state.kernel = NULL;
  if (count_bytes) {
    uint64_t read, written;
    UnwatchPages(&read, &written);
    counters.moved_bytes += read + written;
    Trace("%s read %llu bytes and wrote %llu", name,
          static_cast<unsigned long long>(read),      // NOLINT(runtime/int)
          static_cast<unsigned long long>(written));  // NOLINT(runtime/int)
  }
  CheckGuards();
  return true;
}

void CountBytes(bool on) { count_bytes = on; }

bool BarrierOr(bool vote) {
  if (current == NULL) Barrier();
  const unsigned slot = current->NextVote() % 3;
  votes[(slot + 1) % 3] = false;
  if (vote) votes[slot] = true;
  Barrier();
  return votes[slot];
}

void Barrier() {
  if (current == NULL) {
    Fail("kernel %s meets a barrier that launch_rewrite.py did not see",
         state.kernel);
  }
  current->Yield(Fiber::kAtBarrier);
}

uint32_t Shuffle(uint32_t value, int delta) {
  if (current == NULL) {
    Fail("kernel %s meets a shuffle that launch_rewrite.py did not see",
         state.kernel);
  }
  const uint3& t = state.thread_index;
  const unsigned thread = t.x + state.block.x * (t.y + state.block.y * t.z);
  uint32_t* const turn = given[current->NextShuffle() % 2];
  turn[thread] = value;
  current->Yield(Fiber::kAtShuffle);
  const int lane = static_cast<int>(thread % kWarpThreads) + delta;
  const bool there = lane >= 0 && lane < static_cast<int>(kWarpThreads);
  return turn[there ? thread + delta : thread];
}

bool FirstInBlock(uint64_t* serial) {
  const bool first = *serial != state.block_serial;
  *serial = state.block_serial;
  return first;
}

void DescribeKernel(char* text, size_t size) {
  if (state.kernel == NULL) {
    snprintf(text, size, "host code");
    return;
  }
  const uint3& b = state.block_index;
  const uint3& t = state.thread_index;
  snprintf(text, size, "kernel %s, block (%u,%u,%u), thread (%u,%u,%u),",
           state.kernel, b.x, b.y, b.z, t.x, t.y, t.z);
}

void OpenStructure(void* structure, size_t bytes, const char* kernel) {
  char* const first = static_cast<char*>(structure);
  for (size_t i = 0; i + sizeof(void*) <= bytes; i += sizeof(void*)) {
    void* word;
    memcpy(&word, first + i, sizeof(word));
    if (InDeviceRange(word)) {
      word = OpenForKernel(word, kernel);
      memcpy(first + i, &word, sizeof(word));
      continue;
    }
    if (IsMapped(word)) {
      Fail("%s was given a structure with the host pointer %p", kernel, word);
    }
  }
}

void SetLastError(int error) { last_error = error; }

int LastError(bool reset) {
  const int error = last_error;
  if (reset) last_error = 0;
  return error;
}

void Trace(const char* format, ...) {
  static const char* const path = getenv("HOSTCUDA_TRACE");
  if (path == NULL) return;
  static FILE* const file = fopen(path, "a");
  if (file == NULL) Fail("cannot write the trace %s", path);
  va_list arguments;
  va_start(arguments, format);
  vfprintf(file, format, arguments);
  va_end(arguments);
  fputc('\n', file);
  fflush(file);
}

}  // namespace hostcuda
