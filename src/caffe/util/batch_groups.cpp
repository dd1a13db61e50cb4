#include <algorithm>
#include <numeric>
#include <vector>

#include "caffe/util/batch_distances.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/parallel_parts.hpp"
#include "caffe/util/strided_gemm.hpp"
#include "caffe_metric/gram.hpp"
#include "caffe_metric/row_groups.hpp"
#include "caffe_metric/vector_ops.hpp"

namespace caffe {

using caffe_metric::RowGroup;
using caffe_metric::RowGroupPart;

// Groups are worth it in a batch of so many rows or more, where the derivatives
// between their rows are one in so many of all, or fewer.
const int kGroupedRows = 256;
const int kGrouped = 3;

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
vector<RowGroup> BatchDistances<Dtype>::CloseGroups() const {
  const size_t n = columns();
  const vector<RowGroup> groups = caffe_metric::by_columns(close_groups_);
  const bool worth_it = !apart_ && n >= kGroupedRows &&
                        matrices_of(groups).back() <= n * n / kGrouped &&
                        caffe_metric::are_groups(groups, n);
  return worth_it ? groups : vector<RowGroup>();
}

template <typename Dtype>
vector<RowGroup> BatchDistances<Dtype>::WeightGroups(size_t all,
                                                     const Dtype* v) const {
  const size_t n = columns();
  if (n < kGroupedRows || all > n * n / kGrouped) {
    return vector<RowGroup>();
  }
  const int* used = weights_in_row_.data();
  vector<int> rows(n);
  std::iota(rows.begin(), rows.end(), 0);
  // Whether a row has to do with its group's columns alone, is seen later.
  const vector<RowGroup> groups = caffe_metric::group_rows(
      rows, 0, n, n * n / 2,
      [=](int row, int column) { return v[row * n + column] != 0; },
      [=](int row, const vector<int>& columns) {
        return used[row] <= static_cast<int>(columns.size());
      });
  return caffe_metric::are_groups(groups, n) ? groups : vector<RowGroup>();
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

// batch_distances.cpp has the rest of the class.
template class BatchDistances<float>;
template class BatchDistances<double>;

}  // namespace caffe
