#include <vector>

#include "caffe/util/gpu_report.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/report.cuh"

namespace caffe {

using caffe_metric::kBlockThreads;

template <typename Dtype>
void GpuReport<Dtype>::Start(int size) {
  sums_.Reshape(vector<int>(1, 1 + size));
  caffe_gpu_set(1 + size, 0., sums_.mutable_gpu_data());
}

template <typename Dtype>
void GpuReport<Dtype>::CheckInput(int rows, int dim, const Dtype* x,
                                  const Dtype* labels, int pair_size,
                                  int classes) {
  bad_rows_.Reshape(vector<int>(1, rows));
  double* bad = bad_rows_.mutable_gpu_data();
  caffe_metric::check_finite<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<rows, kBlockThreads>>>(dim, x, bad);
  if (labels) {
    caffe_metric::check_labels<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<CAFFE_GET_BLOCKS(rows), CAFFE_CUDA_NUM_THREADS>>>(
            rows, pair_size, classes, labels, bad);
  }
  AddColumns(rows, 1, bad, -1);
}

template <typename Dtype>
void GpuReport<Dtype>::AddColumns(int rows, int columns, const double* matrix,
                                  int place) {
  // NOLINT_NEXT_LINE(whitespace/operators)
  caffe_metric::sum_columns<<<1, kBlockThreads>>>(
      rows, columns, matrix, sums_.mutable_gpu_data() + 1 + place);
  CUDA_POST_KERNEL_CHECK;
}

template class GpuReport<float>;
template class GpuReport<double>;

}  // namespace caffe
