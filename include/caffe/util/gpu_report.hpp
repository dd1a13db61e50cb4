#ifndef CAFFE_UTIL_GPU_REPORT_HPP_
#define CAFFE_UTIL_GPU_REPORT_HPP_

#include "caffe/blob.hpp"
#include "caffe_metric/labels.hpp"

namespace caffe {

/**
 * @brief What a loss layer copies from the GPU, once a forward: whether its
 *        input was bad, and sums.
 */
template <typename Dtype>
class GpuReport {
 public:
  /// `size` sums, all 0.
  void Start(int size);
  /// Looks at x (rows x dim) and, where they are not NULL, at its labels, which
  /// are below `classes`; with pair_size > 0, also at whether the two rows that
  /// a group begins with have one label.
  void CheckInput(int rows, int dim, const Dtype* x, const Dtype* labels,
                  int pair_size, int classes = caffe_metric::kAnyClass);
  /// Sum `place + c` is that of column c of a matrix on the GPU.
  void AddColumns(int rows, int columns, const double* matrix, int place);

  // On the host, from here on: the copy.
  bool bad_input() const { return sums_.cpu_data()[0] != 0; }
  double sum(int place) const { return sums_.cpu_data()[1 + place]; }

 private:
  Blob<double> bad_rows_;
  Blob<double> sums_;  // bad rows, then what AddColumns brings
};

}  // namespace caffe

#endif  // CAFFE_UTIL_GPU_REPORT_HPP_
