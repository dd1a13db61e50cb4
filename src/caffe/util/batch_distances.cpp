#include <algorithm>
#include <vector>

#include "caffe/util/batch_distances.hpp"
#include "caffe/util/parallel_rows.hpp"
#include "caffe/util/row_products.hpp"
#include "caffe_metric/gram.hpp"
#include "caffe_metric/row_groups.hpp"
#include "caffe_metric/strips.hpp"

namespace caffe {

using caffe_metric::RowGroup;
using caffe_metric::RowGroupPart;

// Rows that a thread takes at once, a multiple of the transpose's.
const int kGrain = 2 * caffe_metric::kTransposeRows;
// A row that is close to fewer others is measured by itself.
const int kClose = 32;
// Close rows that are multiplied at once.
const int kCloseBlock = 100;

// The diagonal of n rows' products and what lies above it, of a wider matrix.
static void diagonal_products(int n, int dim, const float* u, float* gram,
                              int width) {
  cblas_ssyrk(CblasRowMajor, CblasUpper, CblasNoTrans, n, dim, 1, u, dim, 0,
              gram, width);
}

static void diagonal_products(int n, int dim, const double* u, double* gram,
                              int width) {
  cblas_dsyrk(CblasRowMajor, CblasUpper, CblasNoTrans, n, dim, 1, u, dim, 0,
              gram, width);
}

// Products of the first `rows` of n rows with all of them, on the diagonal and
// above it.
template <typename Dtype>
static void upper_products(int rows, int n, int dim, const Dtype* u,
                           Dtype* gram, int width) {
  diagonal_products(rows, dim, u, gram, width);
  strided_gemm(CblasNoTrans, CblasTrans, rows, n - rows, dim, Dtype(1), u, dim,
               u + static_cast<size_t>(rows) * dim, dim, Dtype(0), gram + rows,
               width);
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
  if (receiving < columns()) {  // allocated where the GPU uses it
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
void BatchDistances<Dtype>::UpperGram(int n, Dtype* gram) {
  const Dtype* u = u_.cpu_data();
  const int dim = dim_;
  ForProductRows(n, [=](int begin, int end) {
    upper_products(end - begin, n - begin, dim,
                   u + static_cast<size_t>(begin) * dim,
                   gram + static_cast<size_t>(begin) * n + begin, n);
  });
}

template <typename Dtype>
Dtype* BatchDistances<Dtype>::Strip_cpu(int begin, int end) {
  const Dtype* u = u_cpu();
  Dtype* d = distances_.mutable_cpu_data();
  const int n = columns();
  const int rows = end - begin;
  close_groups_.clear();
  // Half of the products, and half of the distances.
  const bool upper = by_gram() && symmetric(rows);
  if (upper) {
    UpperGram(n, d);
  } else if (by_gram()) {
    RowProducts(CblasNoTrans, CblasTrans, rows, n, dim_, Dtype(1),
                u + static_cast<size_t>(begin) * dim_, dim_,
                u + static_cast<size_t>(first_) * dim_, dim_, Dtype(0), d, n);
  }
  if (by_gram() && !caffe_metric::is_cosine(metric_.distance)) {
    MeasureSquares(begin, rows, upper, d);
  } else {
    ParallelRows(rows, kGrain, [=](int from, int to) {
      for (int i = from; i < to; ++i) {
        const int skip = upper ? i : 0;
        caffe_metric::gram_to_distances(metric_, begin + i, first_ + skip,
                                        n - skip, dim_, u, squares_.cpu_data(),
                                        d + static_cast<size_t>(i) * n + skip);
      }
    });
  }
  if (upper) {
    ParallelRows(n, kGrain, [=](int from, int to) {
      caffe_metric::mirror_upper(n, from, to, d);
    });
  }
  return d;
}

template <typename Dtype>
void BatchDistances<Dtype>::FinishSquares(int begin, int row, bool upper,
                                          int open, Dtype* d) const {
  const Dtype* u = u_.cpu_data();
  const int skip = upper ? row : 0;
  caffe_metric::squares_to_distances(
      metric_.distance, columns() - skip, dim_,
      u + static_cast<size_t>(begin + row) * dim_,
      u + static_cast<size_t>(first_ + skip) * dim_, open,
      d + static_cast<size_t>(row) * columns() + skip);
}

template <typename Dtype>
void BatchDistances<Dtype>::MeasureSquares(int begin, int rows, bool upper,
                                           Dtype* d) {
  const Dtype* squares = squares_.cpu_data();
  const int n = columns();
  open_in_row_.resize(rows);
  int* open = open_in_row_.data();
  ParallelRows(rows, kGrain, [=](int from, int to) {
    for (int i = from; i < to; ++i) {
      const int skip = upper ? i : 0;
      open[i] = caffe_metric::gram_to_squares(
          squares[begin + i], n - skip, squares + first_ + skip,
          d + static_cast<size_t>(i) * n + skip);
      if (open[i] < kClose) {
        FinishSquares(begin, i, upper, open[i], d);
      }
    }
  });
  vector<int> close;
  for (int i = 0; i < rows; ++i) {
    if (open[i] >= kClose) {
      close.push_back(i);
    }
  }
  if (close.empty()) {
    return;
  }
  if (MeasureClose(begin, close, upper, d)) {
    return;
  }
  const int* row = close.data();
  ParallelRows(close.size(), 1, [=](int from, int to) {
    for (int k = from; k < to; ++k) {
      FinishSquares(begin, row[k], upper, open[row[k]], d);
    }
  });
}

template <typename Dtype>
bool BatchDistances<Dtype>::MeasureClose(int begin, const vector<int>& rows,
                                         bool upper, Dtype* d) {
  const int n = columns();
  const int own = begin - first_;
  close_groups_ = caffe_metric::group_rows(
      rows, own, n, static_cast<size_t>(2) * n * n,
      [=](int row, int column) {
        return caffe_metric::is_open(
                   d[static_cast<size_t>(row) * n + column]) &&
               (!upper || column >= row);
      },
      [](int, const vector<int>&) { return true; });
  const vector<RowGroupPart> parts = caffe_metric::parts_of(close_groups_);
  rooms_.resize(ThreadsOfParts(parts.size()));
  vector<Dtype>* rooms = rooms_.data();
  ParallelParts(parts.size(), [=, &parts](int number, int thread) {
    MeasureGroup(parts[number], begin, upper, &rooms[thread], d);
  });
  return !close_groups_.empty();
}

template <typename Dtype>
void BatchDistances<Dtype>::MeasureGroup(const RowGroupPart& part, int begin,
                                         bool upper, vector<Dtype>* room,
                                         Dtype* d) const {
  const Dtype* u = u_.cpu_data();
  const int* members = &part.group->rows[part.begin];
  const vector<int>& all = part.group->columns;
  // Above the diagonal a row, and those behind it, meet none before it.
  const auto before = [&all, upper](int row) -> int {
    return upper ? std::lower_bound(all.begin(), all.end(), row) - all.begin()
                 : 0;
  };
  const int start = before(members[0]);
  const int* met = all.data() + start;
  const int height = part.end - part.begin;
  const int width = all.size() - start;
  // The last rows of a tight cluster have few columns left and are none of the
  // group's; the others are its first columns.
  const vector<int>& rows = part.group->rows;
  const bool among = upper && std::equal(rows.begin(), rows.end(), all.begin());
  const int apart = among ? 0 : height;
  const size_t others_at = static_cast<size_t>(kCloseBlock) * width;
  room->resize(others_at + static_cast<size_t>(width + apart) * (dim_ + 1));
  Dtype* products = room->data();
  Dtype* others = products + others_at;
  Dtype* squares = others + static_cast<size_t>(width) * dim_;
  Dtype* mine = among ? others : squares + width;
  Dtype* my_squares =
      among ? squares : mine + static_cast<size_t>(height) * dim_;
  const Dtype* strip = u + static_cast<size_t>(begin) * dim_;
  const Dtype* origin = strip + static_cast<size_t>(rows[0]) * dim_;
  caffe_metric::rows_from(dim_, u + static_cast<size_t>(first_) * dim_, origin,
                          met, width, others, squares);
  if (!among) {
    caffe_metric::rows_from(dim_, strip, origin, members, height, mine,
                            my_squares);
  }
  for (int k = 0; k < height; k += kCloseBlock) {
    const int skip = before(members[k]) - start;
    const int block = std::min(kCloseBlock, height - k);
    const int count = width - skip;
    const Dtype* block_others = others + static_cast<size_t>(skip) * dim_;
    if (among) {
      upper_products(block, count, dim_, block_others, products, count);
    } else {
      strided_gemm(CblasNoTrans, CblasTrans, block, count, dim_, Dtype(1),
                   mine + static_cast<size_t>(k) * dim_, dim_, block_others,
                   dim_, Dtype(0), products, count);
    }
    for (int i = k; i < k + block; ++i) {
      const int from = before(members[i]) - start;
      const int closed = caffe_metric::close_squares(
          my_squares[i], width - from, met + from, squares + from,
          products + static_cast<size_t>(i - k) * count + (from - skip),
          d + static_cast<size_t>(members[i]) * columns());
      FinishSquares(begin, members[i], upper, open_in_row_[members[i]] - closed,
                    d);
    }
  }
}

// batch_gradient.cpp and batch_groups.cpp have the rest of the class.
INSTANTIATE_CLASS(BatchDistances);

}  // namespace caffe
