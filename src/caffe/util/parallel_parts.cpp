#include "caffe/util/parallel_parts.hpp"

#include <algorithm>
#include <atomic>

#include "boost/thread.hpp"

// Without OpenBLAS the addresses are 0.
extern "C" int openblas_get_num_threads(void) __attribute__((weak));
extern "C" void openblas_set_num_threads(int num_threads) __attribute__((weak));

namespace caffe {

int ThreadsOfParts(int parts) {
  if (parts <= 1 || !openblas_get_num_threads || !openblas_set_num_threads) {
    return 1;
  }
  return std::max(1, std::min(parts, openblas_get_num_threads()));
}

// Takes parts until none is left.
static void WorkOn(const std::function<void(int, int)>& body, int parts,
                   int thread, std::atomic<int>* next) {
  for (int part = (*next)++; part < parts; part = (*next)++) {
    body(part, thread);
  }
}

void ParallelParts(int parts, const std::function<void(int, int)>& body) {
  const int threads = ThreadsOfParts(parts);
  std::atomic<int> next(0);
  if (threads == 1) {
    WorkOn(body, parts, 0, &next);
    return;
  }
  const int blas_threads = openblas_get_num_threads();
  openblas_set_num_threads(1);
  boost::thread_group others;
  for (int thread = 1; thread < threads; ++thread) {
    others.create_thread([&body, parts, thread, &next]() {
      WorkOn(body, parts, thread, &next);
    });
  }
  WorkOn(body, parts, 0, &next);
  others.join_all();
  openblas_set_num_threads(blas_threads);
}

}  // namespace caffe
