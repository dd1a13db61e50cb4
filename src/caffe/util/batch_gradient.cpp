#include <algorithm>
#include <numeric>
#include <vector>

#include "caffe/util/batch_distances.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/parallel_rows.hpp"
#include "caffe/util/row_products.hpp"
#include "caffe_metric/gram.hpp"
#include "caffe_metric/row_groups.hpp"

namespace caffe {

using caffe_metric::RowGroup;
using caffe_metric::RowGroupPart;

// Rows that a thread takes at once, a multiple of the transpose's.
const int kGrain = 2 * caffe_metric::kTransposeRows;
// The same of columns of a gradient by elements.
const int kColumns = 64;
// Derivatives that are 0 but for one in so many are added row by row.
const int kSparse = 32;
// But for one in so many, and of so many rows or more, by groups.
const int kGrouped = 3;
const int kGroupedRows = 256;

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
  ParallelRows(rows, kGrain, [=](int from, int to) {
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
  const bool whole = symmetric(rows);
  if (whole && all <= static_cast<size_t>(n) * n / kGrouped && AddGrouped(v)) {
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

// Gathers the groups' rows of v (n columns), each group a square matrix of its
// own at weights_at; false where a row has more than that to do: `used` numbers
// are not 0.
template <typename Dtype>
static bool gather_groups(const vector<RowGroupPart>& parts,
                          const RowGroup* first,
                          const vector<size_t>& weights_at, const Dtype* v,
                          int n, const int* used, Dtype* all) {
  vector<char> apart(parts.size());
  ParallelParts(parts.size(), [&, v, n, used, all, first](int number, int) {
    const RowGroupPart& part = parts[number];
    const vector<int>& columns = part.group->columns;
    const int width = columns.size();
    Dtype* weights = all + weights_at[part.group - first];
    bool only = true;
    for (int k = part.begin; k < part.end; ++k) {
      const int member = part.group->rows[k];
      const Dtype* row = v + static_cast<size_t>(member) * n;
      Dtype* own = weights + static_cast<size_t>(k) * width;
      for (int j = 0; j < width; ++j) {
        own[j] = row[columns[j]];
      }
      only = only && caffe_metric::count_used(width, own) == used[member];
    }
    apart[number] = only;
  });
  return std::count(apart.begin(), apart.end(), 0) == 0;
}

template <typename Dtype>
bool BatchDistances<Dtype>::AddGrouped(const Dtype* v) {
  const int n = columns();
  const int* used = weights_in_row_.data();
  if (n < kGroupedRows) {
    return false;
  }
  vector<int> rows(n);
  std::iota(rows.begin(), rows.end(), 0);
  // Whether a row has to do with its group's columns alone, is seen below.
  const vector<RowGroup> groups = caffe_metric::group_rows(
      rows, 0, n, static_cast<size_t>(n) * n / 2,
      [=](int row, int column) {
        return v[static_cast<size_t>(row) * n + column] != 0;
      },
      [=](int row, const vector<int>& columns) {
        return used[row] <= static_cast<int>(columns.size());
      });
  if (!caffe_metric::are_apart(groups)) {
    return false;
  }
  const vector<RowGroupPart> parts = caffe_metric::parts_of(groups);
  vector<size_t> weights_at(1, 0);
  for (size_t g = 0; g < groups.size(); ++g) {
    const size_t width = groups[g].columns.size();
    weights_at.push_back(weights_at[g] + width * width);
  }
  rooms_.resize(1 + ThreadsOfParts(parts.size()));
  rooms_[0].resize(weights_at.back());
  Dtype* all = rooms_[0].data();
  const RowGroup* first = groups.data();
  if (!gather_groups(parts, first, weights_at, v, n, used, all)) {
    return false;
  }
  const Dtype* u = u_.cpu_data();
  Dtype* gradient = gradient_.mutable_cpu_data();
  Dtype* row_sums = row_sums_.mutable_cpu_data();
  vector<Dtype>* rooms = rooms_.data() + 1;
  // v + v^T
  ParallelParts(groups.size(), [=, &groups, &weights_at](int number, int) {
    const int width = groups[number].columns.size();
    caffe_metric::add_transpose(width, 0, width, all + weights_at[number]);
  });
  ParallelParts(parts.size(), [=, &parts, &weights_at](int number, int thread) {
    const RowGroupPart& part = parts[number];
    const int* members = &part.group->rows[part.begin];
    const vector<int>& columns = part.group->columns;
    const int height = part.end - part.begin;
    const int width = columns.size();
    const size_t sums_at = static_cast<size_t>(width) * dim_;
    rooms[thread].resize(sums_at + static_cast<size_t>(height) * dim_);
    Dtype* others = rooms[thread].data();
    Dtype* sums = others + sums_at;
    const Dtype* weights = all + weights_at[part.group - first] +
                           static_cast<size_t>(part.begin) * width;
    for (int j = 0; j < width; ++j) {
      caffe_copy(dim_, u + static_cast<size_t>(columns[j]) * dim_,
                 others + static_cast<size_t>(j) * dim_);
    }
    strided_gemm(CblasNoTrans, CblasNoTrans, height, dim_, width, Dtype(-1),
                 weights, width, others, dim_, Dtype(0), sums, dim_);
    for (int k = 0; k < height; ++k) {
      caffe_metric::add_scaled(
          dim_, Dtype(1), sums + static_cast<size_t>(k) * dim_,
          gradient + static_cast<size_t>(members[k]) * dim_);
      row_sums[members[k]] +=
          caffe_metric::sum(width, weights + static_cast<size_t>(k) * width);
    }
  });
  return true;
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
