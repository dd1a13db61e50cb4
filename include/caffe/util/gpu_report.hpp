#ifndef CAFFE_UTIL_GPU_REPORT_HPP_
#define CAFFE_UTIL_GPU_REPORT_HPP_

#include <vector>

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
  /// `size` sums.
  void Start(int size);
  /// The check of `rows` rows from row `first` of a matrix on, and, where they
  /// are not NULL, of their labels, which are below `classes`; with pair_size
  /// > 0, also of whether the two rows that a group begins with have one label.
  /// Whoever reads the rows makes it; bad_input() is whether any was bad, or
  /// its square beyond the largest number.
  caffe_metric::RowCheck<Dtype> Check(int first, int rows, const Dtype* labels,
                                      int pair_size, int classes);
  /// Makes it at once, of a matrix x (rows x dim).
  void CheckInput(int rows, int dim, const Dtype* x, const Dtype* labels,
                  int pair_size, int classes = caffe_metric::kAnyClass);
  /// Sum `place + c` is to be that of column c of a matrix on the GPU.
  void AddColumns(int rows, int columns, const double* matrix, int place);
  /// Adds them all up, and copies the sums to the host.
  void Read();

  // From here on.
  bool bad_input() const { return checked_ && sums_.cpu_data()[0] != 0; }
  double sum(int place) const { return sums_.cpu_data()[1 + place]; }

 private:
  struct Columns {
    int rows, columns, place;
    const double* matrix;
  };

  bool checked_;
  vector<Columns> parts_;
  Blob<double> bad_rows_;
  Blob<double> sums_;  // bad rows, then what AddColumns brings
};

}  // namespace caffe

#endif  // CAFFE_UTIL_GPU_REPORT_HPP_
