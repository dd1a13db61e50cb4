#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "caffe_metric/triplet_all.hpp"
#include "caffe_metric/triplet_mining.hpp"

namespace caffe_metric {
namespace python {

template <typename T>
static Array<int64_t> mine(int mining, const Array<T>& d,
                           const Array<int64_t>& rows, const Array<T>& labels,
                           T margin, uint64_t key) {
  require_strip(d, rows, labels);
  const int count = rows.shape(0), n = labels.shape(0);
  const int64_t* row = rows.data();
  const T* distances = d.data();
  const T* label = labels.data();
  std::vector<Triplet> found;
  {
    py::gil_scoped_release release;
    for (int k = 0; k < count; ++k) {
      mine_anchor(static_cast<Mining>(mining), margin, key, row[k], n,
                  distances + static_cast<size_t>(k) * n, label, &found);
    }
  }
  Array<int64_t> triplets = empty<int64_t>(found.size(), 3);
  int64_t* out = triplets.mutable_data();
  for (size_t t = 0; t < found.size(); ++t) {
    *out++ = found[t].anchor;
    *out++ = found[t].positive;
    *out++ = found[t].negative;
  }
  return triplets;
}

// Every triplet of the anchors `rows`. With swap the strip is the whole
// matrix: the distances of the positives are rows of it.
template <typename T>
static TripletStats all_triplets(int losstype, T margin, bool swap,
                                 bool use_pair, const Array<T>& d,
                                 const Array<int64_t>& rows,
                                 const Array<T>& labels, Array<T> slopes) {
  require_strip(d, rows, labels);
  require_strip(slopes, rows, labels);
  const int count = rows.shape(0), n = labels.shape(0);
  const int64_t* row = rows.data();
  for (int k = 0; swap && k < count; ++k) {
    require(count == n && row[k] == k, "swap needs all rows, in order");
  }
  const TripletRule<T> rule = {static_cast<TripletLossType>(losstype), margin};
  const T* distances = d.data();
  const T* label = labels.data();
  T* slope = slopes.mutable_data();
  TripletStats stats;
  py::gil_scoped_release release;
  const SwapMatrices<T> matrices = {distances, slope, n};
  std::vector<int> positives, negatives;
  for (int k = 0; k < count; ++k) {
    const T* d_row = distances + static_cast<size_t>(k) * n;
    T* slope_row = slope + static_cast<size_t>(k) * n;
    split_by_class(row[k], n, label, &positives, &negatives);
    if (rule.type == HINGE && !swap) {
      hinge_of_all(margin, d_row, positives, negatives, slope_row, &stats);
    } else {
      loss_of_all(rule, d_row, swap ? &matrices : NULL, positives, negatives,
                  slope_row, &stats);
    }
    if (use_pair) {
      pairs_of_all(d_row, positives, negatives, slope_row, &stats);
    }
  }
  return stats;
}

template <typename T>
static void bind(py::module_* module) {
  module->def("mine", &mine<T>, py::arg("mining"), py::arg("d").noconvert(),
              py::arg("rows").noconvert(), py::arg("labels").noconvert(),
              py::arg("margin"), py::arg("key"));
  module->def("all_triplets", &all_triplets<T>, py::arg("losstype"),
              py::arg("margin"), py::arg("swap"), py::arg("use_pair"),
              py::arg("d").noconvert(), py::arg("rows").noconvert(),
              py::arg("labels").noconvert(), py::arg("slopes").noconvert());
}

static uint64_t draw_number(uint64_t key, uint32_t a, uint32_t b, uint32_t n) {
  return draw(stream_of(key, a, b), n);
}

static Array<bool> coins(uint64_t key, const Array<int64_t>& n) {
  Array<bool> heads = empty<bool>(n.size());
  bool* out = heads.mutable_data();
  for (py::ssize_t k = 0; k < n.size(); ++k) {
    out[k] = coin(key, n.data()[k]);
  }
  return heads;
}

void bind_mining(py::module_* module) {
  bind<float>(module);
  bind<double>(module);
  module->def("draw", &draw_number, py::arg("key"), py::arg("a"), py::arg("b"),
              py::arg("n"));
  module->def("coin", &coins, py::arg("key"), py::arg("n").noconvert());
}

}  // namespace python
}  // namespace caffe_metric
