#include "caffe/util/batch_distances.hpp"

#include <algorithm>
#include <numeric>

#include "caffe/util/math_functions.hpp"
#include "caffe/util/parallel_rows.hpp"
#include "caffe_metric/gram.hpp"
#include "caffe_metric/strips.hpp"

namespace caffe {

// Rows that a thread takes at once, a multiple of the transpose's.
const int kGrain = 2 * caffe_metric::kTransposeRows;
// Derivatives that are 0 but for one in so many are added row by row.
const int kSparse = 32;

// The diagonal of u u^T and what lies above it.
static void upper_gram(int n, int dim, const float* u, float* gram) {
  cblas_ssyrk(CblasRowMajor, CblasUpper, CblasNoTrans, n, dim, 1, u, dim, 0,
              gram, n);
}

static void upper_gram(int n, int dim, const double* u, double* gram) {
  cblas_dsyrk(CblasRowMajor, CblasUpper, CblasNoTrans, n, dim, 1, u, dim, 0,
              gram, n);
}

template <typename Dtype>
void BatchDistances<Dtype>::Reshape(int anchors, int first, int rows, int dim,
                                    int receiving, bool apart, bool whole) {
  anchors_ = anchors;
  first_ = first;
  rows_ = rows;
  dim_ = dim;
  receiving_ = receiving;
  apart_ = apart;
  strip_ = whole ? anchors
                 : caffe_metric::strip_rows(anchors,
                                            (apart ? 2 : 1) * (rows - first));
  u_.Reshape(rows, dim, 1, 1);
  squares_.Reshape(rows, 1, 1, 1);
  lengths_.Reshape(rows, 1, 1, 1);
  row_sums_.Reshape(rows, 1, 1, 1);
  gradient_.Reshape(rows, dim, 1, 1);
  distances_.Reshape(strip_, rows - first, 1, 1);
  if (apart) {
    slopes_.ReshapeLike(distances_);
  }
  if (receiving < columns()) {
    receiving_slopes_.Reshape(strip_, receiving, 1, 1);
  }
}

template <typename Dtype>
void BatchDistances<Dtype>::Prepare_cpu(const Dtype* x) {
  x_ = x;
  if (by_gram()) {
    caffe_metric::prepare_rows(
        metric_.distance, rows_, dim_, x, u_.mutable_cpu_data(),
        squares_.mutable_cpu_data(), lengths_.mutable_cpu_data());
  }
}

template <typename Dtype>
Dtype* BatchDistances<Dtype>::Strip_cpu(int begin, int end) {
  const Dtype* u = u_cpu();
  const Dtype* squares = squares_.cpu_data();
  Dtype* d = distances_.mutable_cpu_data();
  const int n = columns();
  if (by_gram() && symmetric(end - begin)) {
    // Half of the products, and half of the distances.
    upper_gram(n, dim_, u, d);
    ParallelRows(n, kGrain, [=](int from, int to) {
      for (int i = from; i < to; ++i) {
        caffe_metric::gram_to_distances(metric_, i, i, n - i, dim_, u, squares,
                                        d + static_cast<size_t>(i) * n + i);
      }
    });
    ParallelRows(n, kGrain, [=](int from, int to) {
      caffe_metric::mirror_upper(n, from, to, d);
    });
    return d;
  }
  if (by_gram()) {
    caffe_cpu_gemm<Dtype>(CblasNoTrans, CblasTrans, end - begin, n, dim_,
                          Dtype(1), u + static_cast<size_t>(begin) * dim_,
                          u + static_cast<size_t>(first_) * dim_, Dtype(0), d);
  }
  ParallelRows(end - begin, kGrain, [=](int from, int to) {
    for (int i = from; i < to; ++i) {
      caffe_metric::gram_to_distances(metric_, begin + i, first_, n, dim_, u,
                                      squares, d + static_cast<size_t>(i) * n);
    }
  });
  return d;
}

template <typename Dtype>
void BatchDistances<Dtype>::StartGradient_cpu() {
  caffe_set(gradient_.count(), Dtype(0), gradient_.mutable_cpu_data());
  caffe_set(rows_, Dtype(0), row_sums_.mutable_cpu_data());
}

template <typename Dtype>
void BatchDistances<Dtype>::AddGradient_cpu(int begin, int end) {
  const int n = columns();
  const int rows = end - begin;
  const Dtype* d = distances_.cpu_data();
  Dtype* v = slopes_cpu();
  Dtype* gradient = gradient_.mutable_cpu_data();
  if (!by_gram()) {
    for (int i = 0; i < rows; ++i) {
      const size_t row = static_cast<size_t>(i) * n;
      caffe_metric::add_lp_gradient(metric_, begin + i, first_, n, dim_, x_,
                                    d + row, v + row, gradient);
    }
    return;
  }
  weights_in_row_.resize(rows);
  int* used = weights_in_row_.data();
  ParallelRows(rows, kGrain, [=](int from, int to) {
    for (int i = from; i < to; ++i) {
      const size_t row = static_cast<size_t>(i) * n;
      int count = 0;
      for (int j = 0; apart_ && j < n; ++j) {
        v[row + j] =
            caffe_metric::gram_weight(metric_.distance, d[row + j], v[row + j]);
      }
      for (int j = 0; j < n; ++j) {
        count += v[row + j] != 0;
      }
      used[i] = count;
    }
  });
  const size_t all = std::accumulate(used, used + rows, static_cast<size_t>(0));
  if (all < static_cast<size_t>(rows) * n / kSparse) {
    AddSparse(begin, end, v);
    return;
  }
  // gradient -= (v + v^T) u, and the row sums of v + v^T.
  const Dtype* u = u_.cpu_data();
  const Dtype* columns_u = u + static_cast<size_t>(first_) * dim_;
  const size_t offset = static_cast<size_t>(begin) * dim_;
  Dtype* row_sums = row_sums_.mutable_cpu_data();
  if (symmetric(rows)) {
    ParallelRows(n, kGrain, [=](int from, int to) {
      caffe_metric::add_transpose(n, from, to, v);
    });
  } else {
    const Dtype* received = v;
    if (receiving_ < n) {
      Dtype* copy = receiving_slopes_.mutable_cpu_data();
      for (int i = 0; i < rows; ++i) {
        caffe_copy(receiving_, v + static_cast<size_t>(i) * n,
                   copy + static_cast<size_t>(i) * receiving_);
      }
      received = copy;
    }
    caffe_cpu_gemm<Dtype>(CblasTrans, CblasNoTrans, receiving_, dim_, rows,
                          Dtype(-1), received, u + offset, Dtype(1),
                          gradient + static_cast<size_t>(first_) * dim_);
    for (int i = 0; i < rows; ++i) {
      caffe_metric::add_scaled(receiving_, Dtype(1),
                               received + static_cast<size_t>(i) * receiving_,
                               row_sums + first_);
    }
  }
  caffe_cpu_gemm<Dtype>(CblasNoTrans, CblasNoTrans, rows, dim_, n, Dtype(-1), v,
                        columns_u, Dtype(1), gradient + offset);
  ParallelRows(rows, kGrain, [=](int from, int to) {
    for (int i = from; i < to; ++i) {
      row_sums[begin + i] +=
          caffe_metric::sum(n, v + static_cast<size_t>(i) * n);
    }
  });
}

template <typename Dtype>
void BatchDistances<Dtype>::AddSparse(int begin, int end, const Dtype* v) {
  const int n = columns();
  const Dtype* u = u_.cpu_data();
  Dtype* row_sums = row_sums_.mutable_cpu_data();
  Dtype* gradient = gradient_.mutable_cpu_data();
  for (int i = begin; i < end; ++i) {
    const Dtype* row = v + static_cast<size_t>(i - begin) * n;
    const size_t a = static_cast<size_t>(i) * dim_;
    for (int j = 0; j < n; ++j) {
      if (row[j] == 0) {
        continue;
      }
      const size_t b = static_cast<size_t>(first_ + j) * dim_;
      caffe_metric::add_scaled(dim_, -row[j], u + b, gradient + a);
      row_sums[i] += row[j];
      if (j < receiving_) {
        caffe_metric::add_scaled(dim_, -row[j], u + a, gradient + b);
        row_sums[first_ + j] += row[j];
      }
    }
  }
}

template <typename Dtype>
void BatchDistances<Dtype>::FinishGradient_cpu() {
  if (!by_gram()) {
    return;
  }
  const Dtype* u = u_.cpu_data();
  const Dtype* lengths = lengths_.cpu_data();
  const Dtype* row_sums = row_sums_.cpu_data();
  Dtype* gradient = gradient_.mutable_cpu_data();
  ParallelRows(rows_, kGrain, [=](int from, int to) {
    for (int i = from; i < to; ++i) {
      const size_t row = static_cast<size_t>(i) * dim_;
      caffe_metric::finish_gradient(metric_.distance, dim_, x_ + row, u + row,
                                    lengths[i], row_sums[i], gradient + row);
    }
  });
}

INSTANTIATE_CLASS(BatchDistances);

}  // namespace caffe
