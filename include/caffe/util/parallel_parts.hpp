#ifndef CAFFE_UTIL_PARALLEL_PARTS_HPP_
#define CAFFE_UTIL_PARALLEL_PARTS_HPP_

#include <functional>

namespace caffe {

/// Calls body(part, thread) for every part of [0, parts), each once, in threads
/// of their own: as many as BLAS uses. Meanwhile BLAS uses one thread a call,
/// so a body may multiply matrices: no product waits for another core. What a
/// body writes belongs to its part, so the result does not depend on the number
/// of threads; `thread` < ThreadsOfParts(parts) is for scratch memory.
///
/// Only OpenBLAS can be told so. With another BLAS, and for a single part, the
/// bodies run one after another in the calling thread.
void ParallelParts(int parts, const std::function<void(int, int)>& body);

int ThreadsOfParts(int parts);

}  // namespace caffe

#endif  // CAFFE_UTIL_PARALLEL_PARTS_HPP_
