#include "caffe_metric/gram.hpp"

#include "arrays.hpp"
#include "bindings.hpp"

namespace caffe_metric {
namespace python {

template <typename T>
static Metric<T> metric_of(int distance, double p, double eps) {
  const Metric<T> metric = {static_cast<Distance>(distance), static_cast<T>(p),
                            static_cast<T>(eps)};
  return metric;
}

template <typename T>
static void prepare(int distance, const Array<T>& x, Array<T> u,
                    Array<T> squares, Array<T> lengths) {
  require(x.ndim() == 2 && u.ndim() == 2 && x.shape(0) == u.shape(0) &&
              x.shape(1) == u.shape(1) && squares.size() == x.shape(0) &&
              lengths.size() == x.shape(0),
          "x and u must be matrices of one shape, with a square and a length a "
          "row");
  const int n = x.shape(0), dim = x.shape(1);
  const T* in = x.data();
  T* out = u.mutable_data();
  T* square = squares.mutable_data();
  T* length = lengths.mutable_data();
  py::gil_scoped_release release;
  prepare_rows(static_cast<Distance>(distance), n, dim, in, out, square,
               length);
}

// Column j of the strip belongs to row first + j of u.
template <typename T>
static void to_distances(int distance, double p, double eps,
                         const Array<int64_t>& rows, const Array<T>& u,
                         const Array<T>& squares, Array<T> strip, int first) {
  require(u.ndim() == 2 && strip.ndim() == 2 && rows.ndim() == 1,
          "u and strip must be matrices");
  require(first >= 0 && strip.shape(0) == rows.shape(0) &&
              strip.shape(1) == u.shape(0) - first &&
              squares.size() == u.shape(0),
          "a strip is of the shape of its rows and u's, u has a square a row");
  require_indices(rows, u.shape(0));
  const Metric<T> metric = metric_of<T>(distance, p, eps);
  const int n = strip.shape(1), dim = u.shape(1), count = rows.shape(0);
  const int64_t* row = rows.data();
  const T* prepared = u.data();
  const T* square = squares.data();
  T* out = strip.mutable_data();
  py::gil_scoped_release release;
  for (int k = 0; k < count; ++k) {
    gram_to_distances(metric, row[k], first, n, dim, prepared, square,
                      out + static_cast<size_t>(k) * n);
  }
}

template <typename T>
static void to_weights(int distance, const Array<T>& d, Array<T> w) {
  require(d.size() == w.size(), "d and w must have one shape");
  const Distance kind = static_cast<Distance>(distance);
  const py::ssize_t count = d.size();
  const T* in = d.data();
  T* out = w.mutable_data();
  py::gil_scoped_release release;
  for (py::ssize_t k = 0; k < count; ++k) {
    out[k] = gram_weight(kind, in[k], out[k]);
  }
}

template <typename T>
static void symmetrise(Array<T> v) {
  require(v.ndim() == 2 && v.shape(0) == v.shape(1),
          "v must be a square matrix");
  const int n = v.shape(0);
  T* data = v.mutable_data();
  py::gil_scoped_release release;
  add_transpose(n, 0, n, data);
}

template <typename T>
static void finish(int distance, const Array<T>& x, const Array<T>& u,
                   const Array<T>& lengths, const Array<T>& sums,
                   Array<T> gradient) {
  require(u.ndim() == 2 && lengths.size() == u.shape(0) &&
              sums.size() == u.shape(0) && gradient.size() == u.size() &&
              x.size() == u.size(),
          "x, u and gradient must have one shape, with a length and a sum a "
          "row");
  const int n = u.shape(0), dim = u.shape(1);
  const T* row = x.data();
  const T* prepared = u.data();
  const T* length = lengths.data();
  const T* sum = sums.data();
  T* out = gradient.mutable_data();
  py::gil_scoped_release release;
  for (int i = 0; i < n; ++i, row += dim, prepared += dim, out += dim) {
    finish_gradient(static_cast<Distance>(distance), dim, row, prepared,
                    length[i], sum[i], out);
  }
}

template <typename T>
static void bind(py::module_* module) {
  module->def("prepare_rows", &prepare<T>, py::arg("distance"),
              py::arg("x").noconvert(), py::arg("u").noconvert(),
              py::arg("squares").noconvert(), py::arg("lengths").noconvert());
  module->def("gram_to_distances", &to_distances<T>, py::arg("distance"),
              py::arg("p"), py::arg("eps"), py::arg("rows").noconvert(),
              py::arg("u").noconvert(), py::arg("squares").noconvert(),
              py::arg("strip").noconvert(), py::arg("first") = 0);
  module->def("gram_weights", &to_weights<T>, py::arg("distance"),
              py::arg("d").noconvert(), py::arg("w").noconvert());
  module->def("add_transpose", &symmetrise<T>, py::arg("v").noconvert());
  module->def("finish_gradient", &finish<T>, py::arg("distance"),
              py::arg("x").noconvert(), py::arg("u").noconvert(),
              py::arg("lengths").noconvert(), py::arg("sums").noconvert(),
              py::arg("gradient").noconvert());
}

void bind_gram(py::module_* module) {
  bind<float>(module);
  bind<double>(module);
}

}  // namespace python
}  // namespace caffe_metric
