#include <utility>

#include "arrays.hpp"
#include "bindings.hpp"
#include "caffe_metric/margin_rule.hpp"

namespace caffe_metric {
namespace python {

template <typename T>
static std::pair<Array<T>, Array<T>> curve(int m, double lambda,
                                           double angular_margin,
                                           double cosine_margin,
                                           const Array<T>& c) {
  require(m >= 1 && m <= 4, "m must be 1, 2, 3 or 4");
  const TargetRule<T> rule = {m, static_cast<T>(lambda),
                              static_cast<T>(angular_margin),
                              static_cast<T>(cosine_margin)};
  Array<T> values = empty<T>(c.size()), slopes = empty<T>(c.size());
  T* value = values.mutable_data();
  T* slope = slopes.mutable_data();
  for (py::ssize_t i = 0; i < c.size(); ++i) {
    const Curve<T> f = target_curve(rule, c.data()[i]);
    value[i] = f.value;
    slope[i] = f.slope;
  }
  return std::make_pair(values, slopes);
}

template <typename T>
static void bind(py::module_* module) {
  module->def("target_curve", &curve<T>, py::arg("m"), py::arg("lambda_"),
              py::arg("angular_margin"), py::arg("cosine_margin"),
              py::arg("c").noconvert());
}

void bind_margin(py::module_* module) {
  bind<float>(module);
  bind<double>(module);
}

}  // namespace python
}  // namespace caffe_metric
