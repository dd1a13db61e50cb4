#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "caffe_metric/pairs.hpp"
#include "caffe_metric/triplet_anchor.hpp"
#include "triplet_options.hpp"

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
    std::vector<int> positives, negatives;
    for (int k = 0; k < count; ++k) {
      split_by_class(row[k], n, label, &positives, &negatives);
      mine_anchor(static_cast<Mining>(mining), margin, key, row[k],
                  distances + static_cast<size_t>(k) * n, positives, negatives,
                  &found);
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
static TripletStats all_triplets(const Options& options, const Array<T>& d,
                                 const Array<int64_t>& rows,
                                 const Array<T>& labels, Array<T> slopes) {
  require_strip(d, rows, labels);
  require_strip(slopes, rows, labels);
  const int count = rows.shape(0), n = labels.shape(0);
  const int64_t* row = rows.data();
  for (int k = 0; options.swap && k < count; ++k) {
    require(count == n && row[k] == k, "swap needs all rows, in order");
  }
  const TripletOptions<T> own = options.as<T>();
  const T* distances = d.data();
  const T* label = labels.data();
  T* slope = slopes.mutable_data();
  TripletStats stats;
  py::gil_scoped_release release;
  const SwapMatrices<T> matrices = {distances, slope, n};
  AnchorWork work;
  for (int k = 0; k < count; ++k) {
    const size_t at = static_cast<size_t>(k) * n;
    if (!all_finite(n, distances + at)) {
      continue;  // they would lead a search astray
    }
    add_anchor(own, ALL, 0, row[k], n, distances + at, label,
               options.swap ? &matrices : NULL, slope + at, &work, &stats);
  }
  return stats;
}

// The sums over the pairs of the anchors `rows` with all other rows: same
// pairs, other pairs, and the sums of their distances.
template <typename T>
static py::tuple sums_of_pairs(const Array<T>& d, const Array<int64_t>& rows,
                               const Array<T>& labels) {
  require_strip(d, rows, labels);
  const int count = rows.shape(0), n = labels.shape(0);
  const T* label = labels.data();
  PairSums sums = {0, 0, 0, 0};
  for (int k = 0; k < count; ++k) {
    const int i = rows.data()[k];
    sums.add(pair_sums(i, n, d.data() + static_cast<size_t>(k) * n, label[i],
                       label));
  }
  return py::make_tuple(sums.same, sums.others, sums.of_same, sums.of_others);
}

template <typename T>
static void bind(py::module_* module) {
  module->def("mine", &mine<T>, py::arg("mining"), py::arg("d").noconvert(),
              py::arg("rows").noconvert(), py::arg("labels").noconvert(),
              py::arg("margin"), py::arg("key"));
  module->def("all_triplets", &all_triplets<T>, py::arg("options"),
              py::arg("d").noconvert(), py::arg("rows").noconvert(),
              py::arg("labels").noconvert(), py::arg("slopes").noconvert());
  module->def("pair_sums", &sums_of_pairs<T>, py::arg("d").noconvert(),
              py::arg("rows").noconvert(), py::arg("labels").noconvert());
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
