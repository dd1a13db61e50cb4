#include <vector>

#include "caffe/util/batch_distances.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/gram.cuh"

namespace caffe {

using caffe_metric::kBlockThreads;

template <typename Dtype>
void BatchDistances<Dtype>::Prepare_gpu(const Dtype* x) {
  x_ = x;
  if (!by_gram()) {
    return;
  }
  Dtype* u = u_.mutable_gpu_data();
  if (caffe_metric::is_of_unit_rows(metric_.distance)) {
    caffe_metric::unit_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows_, kBlockThreads>>>(dim_, x, u, lengths_.mutable_gpu_data());
    x = u;
  }
  if (!caffe_metric::is_cosine(metric_.distance)) {
    means_.Reshape(vector<int>(1, dim_));
    const int blocks =
        (dim_ + caffe_metric::kMeanColumns - 1) / caffe_metric::kMeanColumns;
    caffe_metric::column_means<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<blocks, kBlockThreads>>>(rows_, dim_, x, means_.mutable_gpu_data());
    caffe_metric::center_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows_, kBlockThreads>>>(dim_, x, means_.gpu_data(), u,
                                   squares_.mutable_gpu_data());
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
  } else {
    const Dtype* u = u_.gpu_data();
    caffe_gpu_gemm<Dtype>(CblasNoTrans, CblasTrans, rows, n, dim_, Dtype(1),
                          u + static_cast<size_t>(begin) * dim_,
                          u + static_cast<size_t>(first_) * dim_, Dtype(0), d);
    if (metric_.distance != caffe_metric::SIMILARITY) {
      caffe_metric::gram_to_distance_row<Dtype>
          // NOLINT_NEXT_LINE(whitespace/operators)
          <<<rows, kBlockThreads>>>(metric_, begin, first_, n, dim_, u,
                                    squares_.gpu_data(), d);
    }
  }
  CUDA_POST_KERNEL_CHECK;
  return d;
}

template <typename Dtype>
void BatchDistances<Dtype>::StartGradient_gpu() {
  caffe_gpu_set(gradient_.count(), Dtype(0), gradient_.mutable_gpu_data());
  caffe_gpu_set(rows_, Dtype(0), row_sums_.mutable_gpu_data());
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
  if (apart_) {
    caffe_metric::weigh_gram_row<
        Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows, kBlockThreads>>>(metric_.distance, n, d, v);
  }
  // gradient -= (v + v^T) u, and the row sums of v + v^T.
  const Dtype* u = u_.gpu_data();
  const size_t columns_at = static_cast<size_t>(first_) * dim_;
  const size_t offset = static_cast<size_t>(begin) * dim_;
  Dtype* row_sums = row_sums_.mutable_gpu_data();
  if (symmetric(rows)) {
    caffe_metric::add_transposed_row<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<n, kBlockThreads>>>(n, v);
  } else {
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
  caffe_gpu_gemm<Dtype>(CblasNoTrans, CblasNoTrans, rows, dim_, n, Dtype(-1), v,
                        u + columns_at, Dtype(1), gradient + offset);
  caffe_metric::add_row_sum<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<rows, kBlockThreads>>>(n, v, row_sums + begin);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void BatchDistances<Dtype>::FinishGradient_gpu() {
  if (by_gram()) {
    caffe_metric::finish_gradient_row<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows_, kBlockThreads>>>(metric_.distance, dim_, x_, u_.gpu_data(),
                                   lengths_.gpu_data(), row_sums_.gpu_data(),
                                   gradient_.mutable_gpu_data());
    CUDA_POST_KERNEL_CHECK;
  }
}

template class BatchDistances<float>;
template class BatchDistances<double>;

}  // namespace caffe
