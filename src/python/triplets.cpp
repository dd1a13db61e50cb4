// Listed triplets: rows that are given, or that mining found.
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "caffe_metric/triplet_listed.hpp"
#include "triplet_options.hpp"

namespace caffe_metric {
namespace python {

// Rows of anchors, positives and negatives: views whose last axis is
// contiguous, which keep their arrays alive.
template <typename T>
class RowTriplets {
 public:
  RowTriplets(const Options& options, py::array_t<T> a, py::array_t<T> p,
              py::array_t<T> n, py::object weight)
      : options_(options.as<T>()), a_(a), p_(p), n_(n) {
    require(a.ndim() == 2 && p.ndim() == 2 && n.ndim() == 3,
            "anchors and positives have 2 axes, negatives 3");
    groups_ = n.shape(0);
    negatives_ = n.shape(1);
    dim_ = n.shape(2);
    require_rows(a, "anchors");
    require_rows(p, "positives");
    require(dim_ <= 1 || n.strides(2) == sizeof(T),
            "the last axis of the negatives must be contiguous");
    const T* weights = NULL;
    if (!weight.is_none()) {
      weight_ = weight.cast<Array<T>>();
      require(weight_.size() == groups_, "needs one weight a group");
      weights = weight_.data();
    }
    py::gil_scoped_release release;
    Forward(weights);
  }

  const TripletStats& stats() const { return stats_; }

  void Gradient(double scale, py::array_t<T> da, py::array_t<T> dp,
                py::array_t<T> dn) const {
    require_like(da, a_);
    require_like(dp, p_);
    require_like(dn, n_);
    const T factor = scale;
    const Rows<T> to_a(da.mutable_data(), da), to_p(dp.mutable_data(), dp),
        to_n(dn.mutable_data(), dn);
    const Rows<const T> a(a_.data(), a_), p(p_.data(), p_), n(n_.data(), n_);
    py::gil_scoped_release release;
    for (int g = 0, t = 0; g < groups_; ++g) {
      std::fill(to_a(g), to_a(g) + dim_, T(0));
      std::fill(to_p(g), to_p(g) + dim_, T(0));
      for (int k = 0; k < negatives_; ++k, ++t) {
        std::fill(to_n(g, k), to_n(g, k) + dim_, T(0));
        add_listed_gradient(options_.metric, dim_, terms_[t], factor, a(g),
                            p(g), n(g, k), to_a(g), to_p(g), to_n(g, k));
      }
    }
  }

 private:
  // Where rows begin.
  template <typename U>
  struct Rows {
    U* data;
    py::ssize_t group, negative;
    Rows(U* data, const py::array& array)
        : data(data),
          group(array.strides(0) / sizeof(T)),
          negative(array.ndim() > 2 ? array.strides(1) / sizeof(T) : 0) {}
    U* operator()(int g, int k = 0) const {
      return data + g * group + k * negative;
    }
  };

  void require_rows(const py::array_t<T>& rows, const char* what) const {
    require(rows.shape(0) == groups_ && rows.shape(1) == dim_, what);
    require(dim_ <= 1 || rows.strides(1) == sizeof(T), what);
  }

  static void require_like(const py::array& gradient, const py::array& rows) {
    require(gradient.ndim() == rows.ndim(),
            "a gradient must have the axes of its rows");
    for (int axis = 0; axis < rows.ndim(); ++axis) {
      require(gradient.shape(axis) == rows.shape(axis),
              "a gradient must have the shape of its rows");
    }
    const int last = rows.ndim() - 1;
    require(rows.shape(last) <= 1 || gradient.strides(last) == sizeof(T),
            "the last axis of a gradient must be contiguous");
  }

  void Forward(const T* weights) {
    const Rows<const T> a(a_.data(), a_), p(p_.data(), p_), n(n_.data(), n_);
    terms_.reserve(static_cast<size_t>(groups_) * negatives_);
    DistanceSums<T> ap;
    for (int g = 0; g < groups_; ++g) {
      const T weight = weights ? weights[g] : T(1);
      for (int k = 0; k < negatives_; ++k) {
        terms_.push_back(add_listed(options_, dim_, a(g), p(g), n(g, k), weight,
                                    k == 0, &ap, &stats_));
      }
    }
  }

  TripletOptions<T> options_;
  int groups_, negatives_, dim_;
  py::array_t<T> a_, p_, n_;
  Array<T> weight_;
  TripletStats stats_;
  std::vector<ListedTerm<T>> terms_;  // for the backward pass
};

template <typename T>
static void require_triplets(const Array<T>& x, const Array<int64_t>& triplets,
                             const Array<T>& terms) {
  require(x.ndim() == 2 && triplets.ndim() == 2 && triplets.shape(1) == 3 &&
              terms.ndim() == 2 && terms.shape(0) == triplets.shape(0) &&
              terms.shape(1) == kListedTermSize,
          "triplets is T x 3, terms T x LISTED_TERM_SIZE");
  require_indices(triplets, x.shape(0));
}

// Triplets of the rows of one matrix: terms (T x kListedTermSize) is for
// listed_gradient.
template <typename T>
static TripletStats listed(const Options& options, const Array<T>& x,
                           const Array<int64_t>& triplets, Array<T> terms) {
  require_triplets(x, triplets, terms);
  const TripletOptions<T> own = options.as<T>();
  const int count = triplets.shape(0);
  const size_t dim = x.shape(1);
  const T* rows = x.data();
  const int64_t* index = triplets.data();
  ListedTerm<T>* term = reinterpret_cast<ListedTerm<T>*>(terms.mutable_data());
  TripletStats stats;
  py::gil_scoped_release release;
  DistanceSums<T> ap;
  for (int t = 0; t < count; ++t, index += 3) {
    term[t] =
        add_listed<T>(own, dim, rows + index[0] * dim, rows + index[1] * dim,
                      rows + index[2] * dim, 1, true, &ap, &stats);
  }
  return stats;
}

// Adds to the gradient.
template <typename T>
static void listed_gradient(const Options& options, const Array<T>& x,
                            const Array<int64_t>& triplets,
                            const Array<T>& terms, Array<T> gradient) {
  require_triplets(x, triplets, terms);
  require(gradient.size() == x.size(), "gradient must be of the shape of x");
  const Metric<T> metric = options.as<T>().metric;
  const int count = triplets.shape(0);
  const size_t dim = x.shape(1);
  const T* rows = x.data();
  const int64_t* index = triplets.data();
  const ListedTerm<T>* term =
      reinterpret_cast<const ListedTerm<T>*>(terms.data());
  T* out = gradient.mutable_data();
  py::gil_scoped_release release;
  for (int t = 0; t < count; ++t, index += 3) {
    const size_t a = index[0] * dim, p = index[1] * dim, n = index[2] * dim;
    add_listed_gradient<T>(metric, dim, term[t], 1, rows + a, rows + p,
                           rows + n, out + a, out + p, out + n);
  }
}

template <typename T>
static void bind(py::module_* module, const char* name) {
  typedef RowTriplets<T> Rows;
  py::class_<Rows>(*module, name)
      .def(py::init<const Options&, py::array_t<T>, py::array_t<T>,
                    py::array_t<T>, py::object>(),
           py::arg("options"), py::arg("a").noconvert(),
           py::arg("p").noconvert(), py::arg("n").noconvert(),
           py::arg("weight"))
      .def_property_readonly("stats", &Rows::stats)
      .def("gradient", &Rows::Gradient, py::arg("scale"),
           py::arg("da").noconvert(), py::arg("dp").noconvert(),
           py::arg("dn").noconvert());
  module->def("listed_triplets", &listed<T>, py::arg("options"),
              py::arg("x").noconvert(), py::arg("triplets").noconvert(),
              py::arg("terms").noconvert());
  module->def("listed_gradient", &listed_gradient<T>, py::arg("options"),
              py::arg("x").noconvert(), py::arg("triplets").noconvert(),
              py::arg("terms").noconvert(), py::arg("gradient").noconvert());
}

void bind_triplets(py::module_* module) {
  py::class_<Options>(*module, "Options")
      .def(py::init([](int losstype, double margin, int distance, double p,
                       double eps, bool swap, bool use_pair) {
             const Options options = {losstype, margin, distance, p,
                                      eps,      swap,   use_pair};
             return options;
           }),
           py::arg("losstype"), py::arg("margin"), py::arg("distance"),
           py::arg("p"), py::arg("eps"), py::arg("swap"), py::arg("use_pair"));
  py::class_<TripletStats>(*module, "TripletStats")
      .def_readonly("loss", &TripletStats::loss)
      .def_readonly("selected", &TripletStats::selected)
      .def_readonly("active", &TripletStats::active)
      .def_readonly("d_ap", &TripletStats::d_ap)
      .def_readonly("d_an", &TripletStats::d_an);
  module->attr("LISTED_TERM_SIZE") = kListedTermSize;
  bind<float>(module, "RowTriplets32");
  bind<double>(module, "RowTriplets64");
}

}  // namespace python
}  // namespace caffe_metric
