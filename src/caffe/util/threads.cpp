#include "caffe/util/threads.hpp"

#include <atomic>
#include <vector>

#include "boost/thread.hpp"

#ifdef __linux__
#include <sched.h>
#endif

namespace caffe {

#ifdef __linux__
// The cores that this thread may use, from the one that it is on.
static std::vector<int> cores() {
  std::vector<int> all;
  cpu_set_t allowed;
  const int own = sched_getcpu();
  if (own >= 0 && sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
    for (int k = 0; k < CPU_SETSIZE; ++k) {
      const int core = (own + k) % CPU_SETSIZE;
      if (CPU_ISSET(core, &allowed)) {
        all.push_back(core);
      }
    }
  }
  return all;
}

// Goes to a core, and is free to leave it. BLAS's threads look for work for
// some milliseconds before they sleep: a new thread finds no idle core then,
// and would share that of the thread that made it.
static void go_to(int core) {
  if (sched_getcpu() == core) {
    return;
  }
  cpu_set_t allowed, one;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0 &&
      sched_setaffinity(0, sizeof(one), &one) == 0) {
    sched_setaffinity(0, sizeof(allowed), &allowed);
  }
}
#else
static std::vector<int> cores() { return std::vector<int>(); }

static void go_to(int core) { static_cast<void>(core); }
#endif

// Takes the next part until none is left.
static void work_on(int parts, const std::function<void(int, int)>& body,
                    int thread, std::atomic<int>* next) {
  for (int part = (*next)++; part < parts; part = (*next)++) {
    body(part, thread);
  }
}

void DealOut(int parts, int threads,
             const std::function<void(int, int)>& body) {
  const std::vector<int> places = threads > 1 ? cores() : std::vector<int>();
  std::atomic<int> next(0);
  boost::thread_group others;
  for (int thread = 1; thread < threads; ++thread) {
    others.create_thread([&, thread]() {
      if (!places.empty()) {
        go_to(places[thread % places.size()]);
      }
      work_on(parts, body, thread, &next);
    });
  }
  work_on(parts, body, 0, &next);
  others.join_all();
}

}  // namespace caffe
