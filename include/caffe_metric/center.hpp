#ifndef CAFFE_METRIC_CENTER_HPP_
#define CAFFE_METRIC_CENTER_HPP_

#include "caffe_metric/macros.hpp"

// CenterLoss, Wen et al. 2016: with c_y the centre of row x's class y,
//
//   loss = 1/(2N) sum ||x - c_y||^2                         equation 2
//   d loss / d x = (x - c_y) / N
//   DELTA: the diff of c = sum (c - x) / (1 + n) over its n rows of the batch,
//   by whatever the loss is weighted                        equation 4
//   GRADIENT: d loss / d c = sum (c - x) / N

namespace caffe_metric {

// The numbers are those of CenterLossParameter in proto/.
enum CenterUpdate { DELTA = 0, GRADIENT = 1 };

// What the sum of c - x over the n rows of a class is multiplied by to be the
// centre's diff. `scale` is the loss's diff over N.
template <typename T>
CAFFE_METRIC_HD T center_factor(CenterUpdate update, T scale, int n) {
  return update == DELTA ? T(1) / (1 + n) : scale;
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_CENTER_HPP_
