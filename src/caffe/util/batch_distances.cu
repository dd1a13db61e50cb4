#include <vector>

#include "caffe/util/batch_distances.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/gram.cuh"
#include "caffe_metric/report.cuh"

namespace caffe {

using caffe_metric::kBlockThreads;

template <typename Dtype>
void BatchDistances<Dtype>::Prepare_gpu(
    const Dtype* x, const caffe_metric::RowCheck<Dtype>& check) {
  x_ = x;
  if (!by_gram()) {
    if (check.bad) {
      caffe_metric::check_rows<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
          <<<rows_, kBlockThreads>>>(dim_, x, check);
      CUDA_POST_KERNEL_CHECK;
    }
    return;
  }
  Dtype* u = u_.mutable_gpu_data();
  if (caffe_metric::is_of_unit_rows(metric_.distance)) {
    caffe_metric::unit_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows_, kBlockThreads>>>(dim_, x, u, lengths_.mutable_gpu_data(),
                                   check);
    x = u;
  }
  if (!caffe_metric::is_cosine(metric_.distance)) {
    means_.Reshape(vector<int>(1, dim_));
    const int blocks =
        (dim_ + caffe_metric::kMeanColumns - 1) / caffe_metric::kMeanColumns;
    caffe_metric::column_means<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<blocks, kBlockThreads>>>(rows_, dim_, x, means_.mutable_gpu_data());
    caffe_metric::RowCheck<Dtype> none = check;
    none.bad = NULL;
    caffe_metric::center_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows_, kBlockThreads>>>(dim_, x, means_.gpu_data(), u,
                                   squares_.mutable_gpu_data(),
                                   x == u ? none : check);
  }
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
Dtype* BatchDistances<Dtype>::Strip_gpu(int begin, int end) {
  Dtype* d = distances_.mutable_gpu_data();
  const int rows = end - begin;
  const int n = columns();
  if (!by_gram()) {
    caffe_metric::lp_distance_row<
        Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows, kBlockThreads>>>(metric_, begin, first_, n, dim_, x_, d);
    CUDA_POST_KERNEL_CHECK;
  } else {
    const Dtype* u = u_.gpu_data();
    caffe_gpu_gemm<Dtype>(CblasNoTrans, CblasTrans, rows, n, dim_, Dtype(1),
                          u + static_cast<size_t>(begin) * dim_,
                          u + static_cast<size_t>(first_) * dim_, Dtype(0), d);
  }
  return d;
}

template <typename Dtype>
caffe_metric::GramRows<Dtype> BatchDistances<Dtype>::GramRows_gpu() const {
  const bool done = !by_gram() || metric_.distance == caffe_metric::SIMILARITY;
  const caffe_metric::GramRows<Dtype> rows = {
      metric_, done, first_, dim_, u_.gpu_data(), squares_.gpu_data()};
  return rows;
}

template <typename Dtype>
void BatchDistances<Dtype>::StartGradient_gpu() {
  // Of one strip the gradient is written, of several added up.
  if (!by_gram() || !symmetric(strip_)) {
    caffe_gpu_set(gradient_.count(), Dtype(0), gradient_.mutable_gpu_data());
    caffe_gpu_set(rows_, Dtype(0), row_sums_.mutable_gpu_data());
  }
}

template <typename Dtype>
void BatchDistances<Dtype>::AddGradient_gpu(int begin, int end) {
  const int rows = end - begin;
  const int n = columns();
  const Dtype* d = distances_.gpu_data();
  Dtype* v = slopes_gpu();
  Dtype* gradient = gradient_.mutable_gpu_data();
  if (!by_gram()) {
    caffe_metric::add_lp_gradient_row<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows_, kBlockThreads>>>(metric_, begin, rows, n, dim_, x_, d, v,
                                   gradient);
    CUDA_POST_KERNEL_CHECK;
    return;
  }
  // gradient -= (v + v^T) u, and the row sums of v + v^T.
  const Dtype* measured = apart_ ? d : NULL;
  const Dtype* u = u_.gpu_data();
  const size_t columns_at = static_cast<size_t>(first_) * dim_;
  const size_t offset = static_cast<size_t>(begin) * dim_;
  const bool whole = symmetric(rows);
  if (whole) {
    const int tiles = caffe_metric::tiles(n);
    part_sums_.Reshape(tiles, n, 1, 1);
    const dim3 grid(tiles, tiles);
    caffe_metric::add_transposed_tile<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<grid, kBlockThreads>>>(metric_.distance, n, measured, v,
                                  part_sums_.mutable_gpu_data());
  } else {
    Dtype* row_sums = row_sums_.mutable_gpu_data();
    caffe_metric::weigh_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows, kBlockThreads>>>(metric_.distance, n, measured, v,
                                  row_sums + begin);
    const Dtype* received = v;
    if (receiving_ < n) {
      Dtype* copy = receiving_slopes_.mutable_gpu_data();
      caffe_metric::copy_columns_row<Dtype>
          // NOLINT_NEXT_LINE(whitespace/operators)
          <<<rows, kBlockThreads>>>(n, receiving_, v, copy);
      received = copy;
    }
    caffe_gpu_gemm<Dtype>(CblasTrans, CblasNoTrans, receiving_, dim_, rows,
                          Dtype(-1), received, u + offset, Dtype(1),
                          gradient + columns_at);
    caffe_metric::add_column_sum<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<CAFFE_GET_BLOCKS(receiving_), CAFFE_CUDA_NUM_THREADS>>>(
            rows, receiving_, received, row_sums + first_);
  }
  CUDA_POST_KERNEL_CHECK;
  caffe_gpu_gemm<Dtype>(CblasNoTrans, CblasNoTrans, rows, dim_, n, Dtype(-1), v,
                        u + columns_at, Dtype(whole ? 0 : 1),
                        gradient + offset);
}

template <typename Dtype>
void BatchDistances<Dtype>::FinishGradient_gpu() {
  if (by_gram()) {
    const bool whole = symmetric(strip_);
    const Blob<Dtype>& sums = whole ? part_sums_ : row_sums_;
    caffe_metric::finish_gradient_row<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows_, kBlockThreads>>>(
            metric_.distance, dim_, x_, u_.gpu_data(), lengths_.gpu_data(),
            whole ? part_sums_.shape(0) : 1, sums.gpu_data(),
            gradient_.mutable_gpu_data());
    CUDA_POST_KERNEL_CHECK;
  }
}

template class BatchDistances<float>;
template class BatchDistances<double>;

}  // namespace caffe
