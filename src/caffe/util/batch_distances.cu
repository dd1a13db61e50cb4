#include <vector>

#include "caffe/util/batch_distances.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/gram.cuh"
#include "caffe_metric/report.cuh"

namespace caffe {

using caffe_metric::kBlockThreads;

template <typename Dtype>
void BatchDistances<Dtype>::Prepare_gpu(
    const Dtype* ahead, const Dtype* x,
    const caffe_metric::RowCheck<Dtype>& check) {
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
  const bool of_unit_rows = caffe_metric::is_of_unit_rows(metric_.distance);
  const bool centered = !caffe_metric::is_cosine(metric_.distance);
  if (of_unit_rows) {
    factors_.Reshape(vector<int>(1, rows_));
    const int others = ahead ? first_ : 0;
    for (int part = ahead ? 0 : 1; part < 2; ++part) {
      caffe_metric::unit_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
          <<<part == 0 ? others : rows_ - others, kBlockThreads>>>(
              part == 0 ? 0 : others, dim_, part == 0 ? ahead : x,
              centered ? NULL : u, lengths_.mutable_gpu_data(),
              factors_.mutable_gpu_data(), check);
    }
  }
  if (centered) {
    CHECK(!ahead) << "rows in two places have no common mean";
    const caffe_metric::ScaledRows<Dtype> rows = {
        x, of_unit_rows ? factors_.gpu_data() : NULL};
    means_.Reshape(vector<int>(1, dim_));
    const int blocks =
        (dim_ + caffe_metric::kMeanColumns - 1) / caffe_metric::kMeanColumns;
    caffe_metric::column_means<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<blocks, kBlockThreads>>>(rows_, dim_, rows,
                                    means_.mutable_gpu_data());
    caffe_metric::RowCheck<Dtype> none = check;
    none.bad = NULL;
    caffe_metric::center_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows_, kBlockThreads>>>(dim_, rows, means_.gpu_data(), u,
                                   squares_.mutable_gpu_data(),
                                   of_unit_rows ? none : check);
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
caffe_metric::GramRows<Dtype> BatchDistances<Dtype>::GramRows_gpu() {
  close_.Reshape(vector<int>(1, rows_));
  const bool done = !by_gram() || metric_.distance == caffe_metric::SIMILARITY;
  const caffe_metric::GramRows<Dtype> rows = {metric_,
                                              done,
                                              false,
                                              first_,
                                              dim_,
                                              u_.gpu_data(),
                                              squares_.gpu_data(),
                                              close_.mutable_gpu_data()};
  return rows;
}

template <typename Dtype>
Dtype* BatchDistances<Dtype>::part_sums_gpu() {
  if (!by_gram() || caffe_metric::is_cosine(metric_.distance)) {
    return NULL;
  }
  part_sums_.Reshape(caffe_metric::pair_parts(strip_), columns(), 1, 1);
  return part_sums_.mutable_gpu_data();
}

template <typename Dtype>
void BatchDistances<Dtype>::StartGradient_gpu(bool both) {
  // Of one strip the gradient is written, of several added up, unless each
  // writes rows of its own.
  if (by_gram() && symmetric(strip_)) {
    return;
  }
  if (!both && !(by_gram() && anchors_apart())) {
    caffe_gpu_set(gradient_.count(), Dtype(0), gradient_.mutable_gpu_data());
  }
  if (by_gram() && !caffe_metric::is_cosine(metric_.distance)) {
    caffe_gpu_set(rows_, Dtype(0), row_sums_.mutable_gpu_data());
  }
}

template <typename Dtype>
void BatchDistances<Dtype>::AddGradient_gpu(int begin, int end, bool both) {
  const int rows = end - begin;
  const int n = columns();
  Dtype* v = slopes_gpu();
  Dtype* gradient = gradient_.mutable_gpu_data();
  if (!by_gram()) {
    caffe_metric::add_lp_gradient_row<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows_, kBlockThreads>>>(metric_, begin, rows, n, dim_, x_,
                                   distances_.gpu_data(), v, gradient);
    CUDA_POST_KERNEL_CHECK;
    return;
  }
  // gradient -= (v + v^T) u, and the row sums of v + v^T.
  const Dtype* u = u_.gpu_data();
  const size_t columns_at = static_cast<size_t>(first_) * dim_;
  const size_t offset = static_cast<size_t>(begin) * dim_;
  const bool whole = symmetric(rows);
  Dtype* part_sums = part_sums_gpu();
  if (whole && !both) {
    const int tiles = caffe_metric::tiles(n);
    const dim3 grid(tiles, tiles);
    caffe_metric::add_transposed_tile<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<grid, kBlockThreads>>>(n, v, part_sums);
  } else if (!both) {
    AddTransposedGpu(begin, end);
  }
  if (part_sums && both && !whole) {
    caffe_metric::add_column_sum<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<CAFFE_GET_BLOCKS(n), CAFFE_CUDA_NUM_THREADS>>>(
            caffe_metric::pair_parts(rows), n, part_sums,
            row_sums_.mutable_gpu_data());
  }
  CUDA_POST_KERNEL_CHECK;
  caffe_gpu_gemm<Dtype>(
      CblasNoTrans, CblasNoTrans, rows, dim_, n, Dtype(-1), v, u + columns_at,
      Dtype(whole || both || anchors_apart() ? 0 : 1), gradient + offset);
}

template <typename Dtype>
void BatchDistances<Dtype>::AddTransposedGpu(int begin, int end) {
  const int rows = end - begin;
  const int n = columns();
  const Dtype* v = slopes_gpu();
  const Dtype* received = v;
  if (receiving_ < n) {
    Dtype* copy = receiving_slopes_.mutable_gpu_data();
    caffe_metric::copy_columns_row<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows, kBlockThreads>>>(n, receiving_, v, copy);
    received = copy;
  }
  caffe_gpu_gemm<Dtype>(
      CblasTrans, CblasNoTrans, receiving_, dim_, rows, Dtype(-1), received,
      u_.gpu_data() + static_cast<size_t>(begin) * dim_,
      Dtype(begin == 0 && anchors_apart() ? 0 : 1),
      gradient_.mutable_gpu_data() + static_cast<size_t>(first_) * dim_);
  if (!caffe_metric::is_cosine(metric_.distance)) {
    Dtype* row_sums = row_sums_.mutable_gpu_data();
    caffe_metric::sum_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows, kBlockThreads>>>(n, v, row_sums + begin);
    caffe_metric::add_column_sum<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<CAFFE_GET_BLOCKS(receiving_), CAFFE_CUDA_NUM_THREADS>>>(
            rows, receiving_, received, row_sums + first_);
  }
}

template <typename Dtype>
void BatchDistances<Dtype>::FinishGradient_gpu(int first, int rows,
                                               const Dtype* loss_diff,
                                               Dtype scale, bool add,
                                               Dtype* dx) const {
  const size_t offset = static_cast<size_t>(first) * dim_;
  const bool centered = by_gram() && !caffe_metric::is_cosine(metric_.distance);
  // Of one strip they come in parts.
  const Blob<Dtype>& sums = symmetric(strip_) ? part_sums_ : row_sums_;
  const int parts = symmetric(strip_) ? caffe_metric::pair_parts(strip_) : 1;
  caffe_metric::finish_gradient_row<Dtype>
      // NOLINT_NEXT_LINE(whitespace/operators)
      <<<rows, kBlockThreads>>>(
          metric_.distance, dim_, u_.gpu_data() + offset,
          lengths_.gpu_data() + first, centered ? means_.gpu_data() : NULL,
          centered ? parts : 0, rows_,
          centered ? sums.gpu_data() + first : NULL,
          gradient_.gpu_data() + offset, loss_diff, scale, add, dx);
  CUDA_POST_KERNEL_CHECK;
}

template class BatchDistances<float>;
template class BatchDistances<double>;

}  // namespace caffe
