#include "caffe_metric/rank_hard.hpp"

#include <utility>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "caffe_metric/vector_ops.hpp"

namespace caffe_metric {
namespace python {

template <typename T>
static std::pair<Array<int64_t>, Array<int64_t>> select(
    const Array<T>& products, const Array<int64_t>& anchors,
    const Array<T>& labels, uint32_t neg_num, float hard_ratio,
    float rand_ratio, T margin, uint64_t key) {
  require_strip(products, anchors, labels);
  const int count = anchors.shape(0), n = labels.shape(0);
  const int64_t* anchor = anchors.data();
  for (int k = 0; k < count; ++k) {
    require(anchor[k] + 1 < n, "an anchor has no row after it");
  }
  const T* product = products.data();
  const T* label = labels.data();
  std::vector<int64_t> rows, columns;
  {
    py::gil_scoped_release release;
    const RankDraw draw = rank_draw(neg_num, hard_ratio, rand_ratio);
    std::vector<int> taken;
    for (int k = 0; k < count; ++k) {
      rank_negatives(draw, margin, key, anchor[k], n,
                     product + static_cast<size_t>(k) * n, label, &taken);
      rows.insert(rows.end(), taken.size(), k);
      columns.insert(columns.end(), taken.begin(), taken.end());
    }
  }
  return std::make_pair(as_array(rows), as_array(columns));
}

template <typename T>
static Array<T> pair_products(const Array<T>& x, const Array<int64_t>& u,
                              const Array<int64_t>& v) {
  require(x.ndim() == 2 && u.size() == v.size(), "u and v must be of a length");
  require_indices(u, x.shape(0));
  require_indices(v, x.shape(0));
  const py::ssize_t count = u.size(), dim = x.shape(1);
  Array<T> products = empty<T>(count);
  const T* rows = x.data();
  T* out = products.mutable_data();
  py::gil_scoped_release release;
  for (py::ssize_t k = 0; k < count; ++k) {
    out[k] = dot<T>(dim, rows + u.data()[k] * dim, rows + v.data()[k] * dim);
  }
  return products;
}

template <typename T>
static void products_gradient(const Array<T>& x, const Array<int64_t>& u,
                              const Array<int64_t>& v, const Array<T>& w,
                              Array<T> gradient) {
  require(x.ndim() == 2 && u.size() == v.size() && u.size() == w.size() &&
              gradient.size() == x.size(),
          "u, v and w must be of a length, gradient like x");
  require_indices(u, x.shape(0));
  require_indices(v, x.shape(0));
  const py::ssize_t count = u.size(), dim = x.shape(1);
  const T* rows = x.data();
  T* out = gradient.mutable_data();
  py::gil_scoped_release release;
  for (py::ssize_t k = 0; k < count; ++k) {
    const py::ssize_t i = u.data()[k] * dim, j = v.data()[k] * dim;
    add_scaled<T>(dim, w.data()[k], rows + j, out + i);
    add_scaled<T>(dim, w.data()[k], rows + i, out + j);
  }
}

template <typename T>
static void bind(py::module_* module) {
  module->def("rank_hard_select", &select<T>, py::arg("products").noconvert(),
              py::arg("anchors").noconvert(), py::arg("labels").noconvert(),
              py::arg("neg_num"), py::arg("hard_ratio"), py::arg("rand_ratio"),
              py::arg("margin"), py::arg("key"));
  module->def("pair_products", &pair_products<T>, py::arg("x").noconvert(),
              py::arg("u").noconvert(), py::arg("v").noconvert());
  module->def("products_gradient", &products_gradient<T>,
              py::arg("x").noconvert(), py::arg("u").noconvert(),
              py::arg("v").noconvert(), py::arg("w").noconvert(),
              py::arg("gradient").noconvert());
}

void bind_rank_hard(py::module_* module) {
  bind<float>(module);
  bind<double>(module);
}

}  // namespace python
}  // namespace caffe_metric
