#include "caffe/util/threads.hpp"

#include <atomic>
#include <vector>

#include "boost/thread.hpp"

#ifdef __GLIBC__
#include <pthread.h>
#include <sched.h>
#endif

namespace caffe {

#ifdef __GLIBC__
// The cores that this thread may use, from the one that it is on.
static std::vector<int> cores(const cpu_set_t& allowed) {
  std::vector<int> all;
  const int own = sched_getcpu();
  for (int k = 0; own >= 0 && k < CPU_SETSIZE; ++k) {
    const int core = (own + k) % CPU_SETSIZE;
    if (CPU_ISSET(core, &allowed)) {
      all.push_back(core);
    }
  }
  return all;
}

// Starts threads 1, 2, ... each on a core of its own, which it is free to leave
// at once. BLAS's threads look for work for some milliseconds before they
// sleep: a new thread finds no idle core then, and would share that of the
// thread that makes it.
class Starter {
 public:
  Starter() {
    if (sched_getaffinity(0, sizeof(allowed_), &allowed_) == 0) {
      cores_ = cores(allowed_);
    }
  }

  template <typename Work>
  boost::thread* Start(int thread, const Work& work) const {
    if (cores_.empty()) {
      return new boost::thread(work);
    }
    cpu_set_t own;
    CPU_ZERO(&own);
    CPU_SET(cores_[thread % cores_.size()], &own);
    boost::thread::attributes place;
    pthread_attr_setaffinity_np(place.native_handle(), sizeof(own), &own);
    const cpu_set_t* allowed = &allowed_;
    try {
      return new boost::thread(place, [=]() {
        sched_setaffinity(0, sizeof(*allowed), allowed);
        work();
      });
    } catch (const boost::thread_resource_error&) {
      return new boost::thread(work);  // the core is closed to this process now
    }
  }

 private:
  cpu_set_t allowed_;
  std::vector<int> cores_;
};
#else
struct Starter {
  template <typename Work>
  boost::thread* Start(int thread, const Work& work) const {
    static_cast<void>(thread);
    return new boost::thread(work);
  }
};
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
  std::atomic<int> next(0);
  if (threads < 2) {
    work_on(parts, body, 0, &next);
    return;
  }
  const Starter starter;
  boost::thread_group others;
  for (int thread = 1; thread < threads; ++thread) {
    others.add_thread(starter.Start(
        thread, [=, &body, &next]() { work_on(parts, body, thread, &next); }));
  }
  work_on(parts, body, 0, &next);
  others.join_all();
}

}  // namespace caffe
