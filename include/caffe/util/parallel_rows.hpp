#ifndef CAFFE_UTIL_PARALLEL_ROWS_HPP_
#define CAFFE_UTIL_PARALLEL_ROWS_HPP_

#include <functional>

namespace caffe {

/// Threads that work on rows: as many as OpenBLAS uses, where that is linked,
/// else one a core.
int RowThreads();

/// Calls body(begin, end) for parts of [0, rows), `grain` rows each but the
/// last, on RowThreads() threads. What body writes belongs to its rows, so the
/// result does not depend on the number of threads.
void ParallelRows(int rows, int grain,
                  const std::function<void(int, int)>& body);

}  // namespace caffe

#endif  // CAFFE_UTIL_PARALLEL_ROWS_HPP_
