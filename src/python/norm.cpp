#include "caffe_metric/norm.hpp"

#include "arrays.hpp"
#include "bindings.hpp"

namespace caffe_metric {
namespace python {

template <typename T>
static Array<T> norm_forward(const Array<T>& x, T eps, Array<T> y) {
  require(x.ndim() == 3 && y.ndim() == 3 && x.shape(0) == y.shape(0) &&
              x.shape(1) == y.shape(1) && x.shape(2) == y.shape(2),
          "x and y must have the same 3 axes");
  const int num = x.shape(0), channels = x.shape(1), inner = x.shape(2);
  Array<T> norms = empty<T>(num, inner);
  const T* in = x.data();
  T* out = y.mutable_data();
  T* norm = norms.mutable_data();
  py::gil_scoped_release release;
  NormRoom<T> room(inner);
  const py::ssize_t item = static_cast<py::ssize_t>(channels) * inner;
  for (py::ssize_t i = 0; i < num; ++i) {
    norm_item(channels, inner, eps, in + i * item, out + i * item,
              norm + i * inner, &room);
  }
  return norms;
}

template <typename T>
static void norm_backward(const Array<T>& y, const Array<T>& norms, T eps,
                          const Array<T>& dy, Array<T> dx) {
  require(y.ndim() == 3 && norms.size() == y.shape(0) * y.shape(2) &&
              dy.size() == y.size() && dx.size() == y.size(),
          "y, dy and dx must have the same 3 axes, with a norm a vector");
  const int num = y.shape(0), channels = y.shape(1), inner = y.shape(2);
  const T* value = y.data();
  const T* norm = norms.data();
  const T* diff = dy.data();
  T* out = dx.mutable_data();
  py::gil_scoped_release release;
  NormRoom<T> room(inner);
  const py::ssize_t item = static_cast<py::ssize_t>(channels) * inner;
  for (py::ssize_t i = 0; i < num; ++i) {
    norm_item_gradient(channels, inner, eps, value + i * item, norm + i * inner,
                       diff + i * item, out + i * item, &room);
  }
}

template <typename T>
static void bind(py::module_* module) {
  module->def("norm_forward", &norm_forward<T>, py::arg("x").noconvert(),
              py::arg("eps"), py::arg("y").noconvert());
  module->def("norm_backward", &norm_backward<T>, py::arg("y").noconvert(),
              py::arg("norms").noconvert(), py::arg("eps"),
              py::arg("dy").noconvert(), py::arg("dx").noconvert());
}

void bind_norm(py::module_* module) {
  bind<float>(module);
  bind<double>(module);
}

}  // namespace python
}  // namespace caffe_metric
