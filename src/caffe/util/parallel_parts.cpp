#include "caffe/util/parallel_parts.hpp"

#include <algorithm>

#include "caffe/util/threads.hpp"

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

void ParallelParts(int parts, const std::function<void(int, int)>& body) {
  const int threads = ThreadsOfParts(parts);
  if (threads == 1) {
    DealOut(parts, 1, body);
    return;
  }
  const int blas_threads = openblas_get_num_threads();
  openblas_set_num_threads(1);
  DealOut(parts, threads, body);
  openblas_set_num_threads(blas_threads);
}

}  // namespace caffe
