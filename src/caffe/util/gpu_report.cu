#include <vector>

#include "caffe/util/gpu_report.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/report.cuh"

namespace caffe {

using caffe_metric::kBlockThreads;

template <typename Dtype>
void GpuReport<Dtype>::Start(int size) {
  checked_ = false;
  parts_.clear();
  sums_.Reshape(vector<int>(1, 1 + size));
}

template <typename Dtype>
caffe_metric::RowCheck<Dtype> GpuReport<Dtype>::Check(int first, int rows,
                                                      const Dtype* labels,
                                                      int pair_size,
                                                      int classes) {
  checked_ = true;
  bad_rows_.Reshape(vector<int>(1, rows));
  AddColumns(rows, 1, bad_rows_.mutable_gpu_data(), -1);
  const caffe_metric::RowCheck<Dtype> check = {
      first, rows, labels, pair_size, classes, bad_rows_.mutable_gpu_data()};
  return check;
}

template <typename Dtype>
void GpuReport<Dtype>::CheckInput(int rows, int dim, const Dtype* x,
                                  const Dtype* labels, int pair_size,
                                  int classes) {
  caffe_metric::check_rows<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<rows, kBlockThreads>>>(dim, x,
                                Check(0, rows, labels, pair_size, classes));
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void GpuReport<Dtype>::AddColumns(int rows, int columns, const double* matrix,
                                  int place) {
  CHECK_LT(parts_.size(), caffe_metric::kReportParts);
  const Columns part = {rows, columns, place, matrix};
  parts_.push_back(part);
}

template <typename Dtype>
void GpuReport<Dtype>::Read() {
  caffe_metric::ReportParts report = caffe_metric::ReportParts();
  report.count = parts_.size();
  for (size_t p = 0; p < parts_.size(); ++p) {
    const caffe_metric::ReportPart part = {
        parts_[p].matrix, parts_[p].rows, parts_[p].columns,
        static_cast<size_t>(1 + parts_[p].place)};
    report.parts[p] = part;
  }
  caffe_metric::launch_sum_columns(report, sums_.mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
  sums_.cpu_data();
}

template class GpuReport<float>;
template class GpuReport<double>;

}  // namespace caffe
