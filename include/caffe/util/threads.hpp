#ifndef CAFFE_UTIL_THREADS_HPP_
#define CAFFE_UTIL_THREADS_HPP_

#include <functional>

namespace caffe {

/// Calls body(part, thread) for every part of [0, parts), each once, on so many
/// threads, of which 0 is the calling one: each takes the next part until none
/// is left.
void DealOut(int parts, int threads, const std::function<void(int, int)>& body);

}  // namespace caffe

#endif  // CAFFE_UTIL_THREADS_HPP_
