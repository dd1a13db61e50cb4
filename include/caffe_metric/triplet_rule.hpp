#ifndef CAFFE_METRIC_TRIPLET_RULE_HPP_
#define CAFFE_METRIC_TRIPLET_RULE_HPP_

#include <cmath>

#include "caffe_metric/macros.hpp"
#include "caffe_metric/vector_ops.hpp"

// The loss of one triplet, of its two distances:
//
//   HINGE  max(0, d_ap - d_an + margin)           Schroff et al. 2015, eq. 3
//   RATIO  max(0, 1 - d_an / (d_ap + margin))     Wohlhart & Lepetit 2015,
//                                                 eq. 3
//   SOFT   log(1 + exp(d_ap - d_an))              Hermans et al. 2017, sec. 2

namespace caffe_metric {

// The numbers are those of TripletLossParameter in proto/.
enum TripletLossType { HINGE = 0, RATIO = 1, SOFT = 2 };

template <typename T>
struct TripletRule {
  TripletLossType type;
  T margin;
};

// The loss and its derivatives by d_ap and d_an.
template <typename T>
struct TripletTerm {
  T loss, slope_ap, slope_an;
};

template <typename T>
CAFFE_METRIC_HD TripletTerm<T> triplet_term(const TripletRule<T>& rule, T d_ap,
                                            T d_an) {
  TripletTerm<T> term = {0, 0, 0};
  if (rule.type == HINGE) {
    const T violation = d_ap - d_an + rule.margin;
    if (violation > 0) {
      term.loss = violation;
      term.slope_ap = 1;
      term.slope_an = -1;
    }
  } else if (rule.type == RATIO) {
    const T denominator = d_ap + rule.margin;
    const T ratio = d_an / denominator;
    if (ratio < 1) {
      term.loss = 1 - ratio;
      term.slope_ap = ratio / denominator;
      term.slope_an = -1 / denominator;
    }
  } else {
    // log(1 + e^x) = max(x, 0) + log(1 + e^-|x|): no overflow for any x.
    const T x = d_ap - d_an;
    const T e = std::exp(-std::fabs(x));
    term.loss = larger(x, T(0)) + std::log1p(e);
    term.slope_ap = (x > 0 ? T(1) : e) / (1 + e);
    term.slope_an = -term.slope_ap;
  }
  return term;
}

// The distance that the loss takes for the negative when `swap` is on: the
// smaller of d(a,n) and d(p,n) (Balntas et al. 2016, section 3).
template <typename T>
CAFFE_METRIC_HD bool takes_swapped(T d_an, T d_pn) {
  return d_pn < d_an;
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_TRIPLET_RULE_HPP_
