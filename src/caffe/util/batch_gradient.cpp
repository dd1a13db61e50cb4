#include <numeric>
#include <vector>

#include "caffe/util/batch_distances.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/parallel_rows.hpp"
#include "caffe/util/row_products.hpp"
#include "caffe_metric/gram.hpp"

namespace caffe {

using caffe_metric::RowGroup;

// Rows that a thread takes at once, a multiple of the transpose's.
const int kGrain = 2 * caffe_metric::kTransposeRows;
// The same of columns of a gradient by elements.
const int kColumns = 64;
// Derivatives that are 0 but for one in so many are added row by row.
const int kSparse = 32;

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
    // Each pair has two rows, each column one thread.
    ParallelRows(dim_, kColumns, [=](int from, int to) {
      for (int i = 0; i < rows; ++i) {
        const size_t row = static_cast<size_t>(i) * n;
        caffe_metric::add_lp_gradient(metric_, begin + i, first_, n, dim_, from,
                                      to, x_, d + row, v + row, gradient);
      }
    });
    return;
  }
  weights_in_row_.resize(rows);
  int* used = weights_in_row_.data();
  const bool whole = symmetric(rows);
  vector<RowGroup> groups = whole ? CloseGroups() : vector<RowGroup>();
  const bool counted = !groups.empty();
  bool gathered = counted && GatherGroups(groups, v);
  ParallelRows(counted ? 0 : rows, kGrain, [=](int from, int to) {
    for (int i = from; i < to; ++i) {
      const size_t row = static_cast<size_t>(i) * n;
      for (int j = 0; apart_ && j < n; ++j) {
        v[row + j] =
            caffe_metric::gram_weight(metric_.distance, d[row + j], v[row + j]);
      }
      used[i] = caffe_metric::count_used(n, v + row);
    }
  });
  const size_t all = std::accumulate(used, used + rows, static_cast<size_t>(0));
  if (all < static_cast<size_t>(rows) * n / kSparse) {
    AddSparse(begin, end, v);
    return;
  }
  if (whole && !gathered) {
    groups = WeightGroups(all, v);
    gathered = !groups.empty() && GatherGroups(groups, v);
  }
  if (gathered) {
    AddGroups(groups);
    return;
  }
  // gradient -= (v + v^T) u, and the row sums of v + v^T.
  const Dtype* u = u_.cpu_data();
  const Dtype* columns_u = u + static_cast<size_t>(first_) * dim_;
  const size_t offset = static_cast<size_t>(begin) * dim_;
  Dtype* row_sums = row_sums_.mutable_cpu_data();
  if (whole) {
    ParallelRows(n, kGrain, [=](int from, int to) {
      caffe_metric::add_transpose(n, from, to, v);
    });
  } else {
    // What the columns get.
    RowProducts(CblasTrans, CblasNoTrans, receiving_, dim_, rows, Dtype(-1), v,
                n, u + offset, dim_, Dtype(1),
                gradient + static_cast<size_t>(first_) * dim_, dim_);
    for (int i = 0; i < rows; ++i) {
      caffe_metric::add_scaled(receiving_, Dtype(1),
                               v + static_cast<size_t>(i) * n,
                               row_sums + first_);
    }
  }
  RowProducts(CblasNoTrans, CblasNoTrans, rows, dim_, n, Dtype(-1), v, n,
              columns_u, dim_, Dtype(1), gradient + offset, dim_);
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
    int left = weights_in_row_[i - begin];
    for (int j = 0; left > 0; ++j) {
      if (row[j] == 0) {
        continue;
      }
      --left;
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

// batch_distances.cpp has the rest of the class.
template class BatchDistances<float>;
template class BatchDistances<double>;

}  // namespace caffe
