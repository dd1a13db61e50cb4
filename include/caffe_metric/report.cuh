#ifndef CAFFE_METRIC_REPORT_CUH_
#define CAFFE_METRIC_REPORT_CUH_

#include <stdint.h>

#include "caffe_metric/block.cuh"
#include "caffe_metric/labels.hpp"

// Kernels with which a loss layer on the GPU comes to its one copy to the
// host: what every block adds up, and whether the input was bad.

namespace caffe_metric {

// A block a row of dim numbers, which may be 1: the check alone.
template <typename T>
__global__ void check_rows(const int dim, const T* __restrict__ x,
                           const RowCheck<T> check) {
  const T* row = x + static_cast<size_t>(blockIdx.x) * dim;
  T sum = 0;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    sum += row[k] - row[k];  // 0, or NaN
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    check_row(check, blockIdx.x, sum);
  }
}

// Matrices whose columns are added up: column c of one is sum `place` + c.
struct ReportPart {
  const double* matrix;
  int rows, columns;
  size_t place;
};

const int kReportParts = 3;

struct ReportParts {
  ReportPart parts[kReportParts];
  size_t count;  // no padding: gcc 12 clears it astray behind an array
};

// A block a column.
static __global__ void sum_columns(const ReportParts report, double* sums) {
  int column = blockIdx.x;
  ReportPart part = report.parts[0];
  for (int p = 1; p < kReportParts; ++p) {
    if (column >= part.columns) {
      column -= part.columns;
      part = report.parts[p];
    }
  }
  double sum = 0;
  for (int i = threadIdx.x; i < part.rows; i += kBlockThreads) {
    sum += part.matrix[static_cast<size_t>(i) * part.columns + column];
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    sums[part.place + column] = sum;
  }
}

inline void launch_sum_columns(const ReportParts& report, double* sums) {
  int columns = 0;
  for (size_t p = 0; p < report.count; ++p) {
    columns += report.parts[p].columns;
  }
  // NOLINT_NEXT_LINE(whitespace/operators)
  sum_columns<<<columns, kBlockThreads>>>(report, sums);
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_REPORT_CUH_
