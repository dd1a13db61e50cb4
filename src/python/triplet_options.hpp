#ifndef CAFFE_METRIC_PYTHON_TRIPLET_OPTIONS_HPP_
#define CAFFE_METRIC_PYTHON_TRIPLET_OPTIONS_HPP_

#include "caffe_metric/triplet_listed.hpp"

namespace caffe_metric {
namespace python {

// TripletOptions, of whichever type the arrays will be.
struct Options {
  int losstype;
  double margin;
  int distance;
  double p, eps;
  bool swap, use_pair;

  template <typename T>
  TripletOptions<T> as() const {
    const TripletOptions<T> options = {
        {static_cast<Distance>(distance), static_cast<T>(p),
         static_cast<T>(eps)},
        {static_cast<TripletLossType>(losstype), static_cast<T>(margin)},
        swap,
        use_pair};
    return options;
  }
};

}  // namespace python
}  // namespace caffe_metric

#endif  // CAFFE_METRIC_PYTHON_TRIPLET_OPTIONS_HPP_
