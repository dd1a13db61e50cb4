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

using caffe_metric::are_groups;
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
  const bool whole = symmetric(rows);
  const vector<RowGroup> close = caffe_metric::by_columns(close_groups_);
  const bool by_close = whole && !apart_ && are_groups(close, n);
  const bool gathered = by_close && GatherGroups(close, v);
  ParallelRows(by_close ? 0 : rows, kGrain, [=](int from, int to) {
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
  if (gathered) {
    AddGroups(close);
    return;
  }
  if (whole && all <= static_cast<size_t>(n) * n / kGrouped) {
    const vector<RowGroup> groups = GroupsOf(v);
    if (are_groups(groups, n) && GatherGroups(groups, v)) {
      AddGroups(groups);
      return;
    }
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

// Where each group's square matrix begins, if they lie one behind the other,
// and where the last one ends.
static vector<size_t> matrices_of(const vector<RowGroup>& groups) {
  vector<size_t> at(1, 0);
  for (size_t g = 0; g < groups.size(); ++g) {
    const size_t width = groups[g].columns.size();
    at.push_back(at[g] + width * width);
  }
  return at;
}

template <typename Dtype>
vector<RowGroup> BatchDistances<Dtype>::GroupsOf(const Dtype* v) const {
  const int n = columns();
  if (n < kGroupedRows) {
    return vector<RowGroup>();
  }
  const int* used = weights_in_row_.data();
  vector<int> rows(n);
  std::iota(rows.begin(), rows.end(), 0);
  // Whether a row has to do with its group's columns alone, is seen later.
  return caffe_metric::group_rows(
      rows, 0, n, static_cast<size_t>(n) * n / 2,
      [=](int row, int column) {
        return v[static_cast<size_t>(row) * n + column] != 0;
      },
      [=](int row, const vector<int>& columns) {
        return used[row] <= static_cast<int>(columns.size());
      });
}

template <typename Dtype>
bool BatchDistances<Dtype>::GatherGroups(const vector<RowGroup>& groups,
                                         const Dtype* v) {
  const int n = columns();
  int* used = weights_in_row_.data();
  const vector<RowGroupPart> parts = caffe_metric::parts_of(groups);
  const vector<size_t> matrix_at = matrices_of(groups);
  rooms_.resize(1 + ThreadsOfParts(parts.size()));
  rooms_[0].resize(matrix_at.back());
  Dtype* all = rooms_[0].data();
  vector<char> alone(parts.size());
  ParallelParts(parts.size(), [&, n, used, all, v](int number, int) {
    const RowGroupPart& part = parts[number];
    const vector<int>& columns = part.group->columns;
    const int width = columns.size();
    Dtype* weights = all + matrix_at[part.group - groups.data()];
    bool only = true;
    for (int k = part.begin; k < part.end; ++k) {
      const int member = part.group->rows[k];
      const Dtype* row = v + static_cast<size_t>(member) * n;
      Dtype* own = weights + static_cast<size_t>(k) * width;
      used[member] = caffe_metric::count_used(n, row);
      for (int j = 0; j < width; ++j) {
        own[j] = row[columns[j]];
      }
      only = only && caffe_metric::count_used(width, own) == used[member];
    }
    alone[number] = only;
  });
  return std::count(alone.begin(), alone.end(), 0) == 0;
}

template <typename Dtype>
void BatchDistances<Dtype>::AddGroups(const vector<RowGroup>& groups) {
  const vector<RowGroupPart> parts = caffe_metric::parts_of(groups);
  const vector<size_t> matrix_at = matrices_of(groups);
  Dtype* all = rooms_[0].data();
  const Dtype* u = u_.cpu_data();
  Dtype* gradient = gradient_.mutable_cpu_data();
  Dtype* row_sums = row_sums_.mutable_cpu_data();
  vector<Dtype>* rooms = rooms_.data() + 1;
  // v + v^T
  ParallelParts(groups.size(), [=, &groups, &matrix_at](int number, int) {
    const int width = groups[number].columns.size();
    caffe_metric::add_transpose(width, 0, width, all + matrix_at[number]);
  });
  ParallelParts(parts.size(), [&, all, u, gradient, row_sums, rooms](
                                  int number, int thread) {
    const RowGroupPart& part = parts[number];
    const int* members = &part.group->rows[part.begin];
    const vector<int>& columns = part.group->columns;
    const int height = part.end - part.begin;
    const int width = columns.size();
    const size_t sums_at = static_cast<size_t>(width) * dim_;
    rooms[thread].resize(sums_at + static_cast<size_t>(height) * dim_);
    Dtype* others = rooms[thread].data();
    Dtype* sums = others + sums_at;
    const Dtype* weights = all + matrix_at[part.group - groups.data()] +
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
