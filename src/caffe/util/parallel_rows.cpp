#include "caffe/util/parallel_rows.hpp"

#include <algorithm>
#include <atomic>
#include <functional>

#include "boost/thread.hpp"

// Without OpenBLAS the address is 0.
extern "C" int openblas_get_num_threads(void) __attribute__((weak));

namespace caffe {

int RowThreads() {
  if (openblas_get_num_threads) {
    return std::max(1, openblas_get_num_threads());
  }
  return std::max(1, static_cast<int>(boost::thread::hardware_concurrency()));
}

namespace {

// Takes the next part until there is none.
struct Worker {
  int rows, grain;
  const std::function<void(int, int)>* body;
  std::atomic<int>* next;

  void operator()() const {
    while (true) {
      const int begin = grain * (*next)++;
      if (begin >= rows) {
        return;
      }
      (*body)(begin, std::min(rows, begin + grain));
    }
  }
};

}  // namespace

void ParallelRows(int rows, int grain,
                  const std::function<void(int, int)>& body) {
  const int parts = (rows + grain - 1) / grain;
  std::atomic<int> next(0);
  const Worker work = {rows, grain, &body, &next};
  boost::thread_group others;
  for (int t = 1; t < std::min(RowThreads(), parts); ++t) {
    others.create_thread(work);
  }
  work();
  others.join_all();
}

}  // namespace caffe
