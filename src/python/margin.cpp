#include <utility>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "caffe_metric/class_sampling.hpp"
#include "caffe_metric/exponential.hpp"
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

// z (N x C) becomes exp(z - shift), a shift a row; the rows' sums.
template <typename T>
static Array<double> exponential_rows(Array<T> z, const Array<T>& shift) {
  require(z.ndim() == 2 && shift.size() == z.shape(0),
          "z must have 2 axes, and a shift a row");
  const py::ssize_t rows = z.shape(0), columns = z.shape(1);
  Array<double> sums = empty<double>(rows);
  T* values = z.mutable_data();
  double* sum = sums.mutable_data();
  const T* shifts = shift.data();
  py::gil_scoped_release release;
  for (py::ssize_t i = 0; i < rows; ++i) {
    T* row = values + i * columns;
    sum[i] = exponentials(static_cast<int>(columns), row, shifts[i], row);
  }
  return sums;
}

static Array<int64_t> classes_drawn(uint64_t key, int classes, int count,
                                    const Array<int64_t>& batch) {
  const std::vector<int> own(batch.data(), batch.data() + batch.size());
  const std::vector<int> drawn = draw_classes(key, classes, count, own);
  return as_array(std::vector<int64_t>(drawn.begin(), drawn.end()));
}

template <typename T>
static void bind(py::module_* module) {
  module->def("target_curve", &curve<T>, py::arg("m"), py::arg("lambda_"),
              py::arg("angular_margin"), py::arg("cosine_margin"),
              py::arg("c").noconvert());
  module->def("exponentials", &exponential_rows<T>, py::arg("z").noconvert(),
              py::arg("shift").noconvert());
}

void bind_margin(py::module_* module) {
  bind<float>(module);
  bind<double>(module);
  module->def("draw_classes", &classes_drawn, py::arg("key"),
              py::arg("classes"), py::arg("count"),
              py::arg("batch").noconvert());
}

}  // namespace python
}  // namespace caffe_metric
