#include "caffe/util/parallel_rows.hpp"

#include <algorithm>

#include "boost/thread.hpp"
#include "caffe/util/threads.hpp"

// Without OpenBLAS the address is 0.
extern "C" int openblas_get_num_threads(void) __attribute__((weak));

namespace caffe {

int RowThreads() {
  if (openblas_get_num_threads) {
    return std::max(1, openblas_get_num_threads());
  }
  return std::max(1, static_cast<int>(boost::thread::hardware_concurrency()));
}

void ParallelRows(int rows, int grain,
                  const std::function<void(int, int)>& body) {
  const int parts = (rows + grain - 1) / grain;
  DealOut(parts, std::min(RowThreads(), parts), [=, &body](int part, int) {
    body(part * grain, std::min(rows, (part + 1) * grain));
  });
}

}  // namespace caffe
