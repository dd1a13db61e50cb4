// Listed triplets: rows that are given, or that mining found.
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "caffe_metric/distance.hpp"
#include "caffe_metric/triplet_all.hpp"
#include "caffe_metric/triplet_rule.hpp"

namespace caffe_metric {
namespace python {

struct Options {
  int losstype;
  double margin;
  int distance;
  double p, eps;
  bool swap, use_pair;
};

// What the backward pass needs of a triplet.
template <typename T>
struct Term {
  T slope_ap, slope_an;
  bool swapped;
};

// Rows of anchors, positives and negatives: views whose last axis is
// contiguous, which keep their arrays alive.
template <typename T>
class RowTriplets {
 public:
  RowTriplets(const Options& options, py::array_t<T> a, py::array_t<T> p,
              py::array_t<T> n, py::object weight)
      : swap_(options.swap), use_pair_(options.use_pair), a_(a), p_(p), n_(n) {
    require(a.ndim() == 2 && p.ndim() == 2 && n.ndim() == 3,
            "anchors and positives have 2 axes, negatives 3");
    groups_ = n.shape(0);
    negatives_ = n.shape(1);
    dim_ = n.shape(2);
    require_rows(a, "anchors");
    require_rows(p, "positives");
    require(dim_ <= 1 || n.strides(2) == sizeof(T),
            "the last axis of the negatives must be contiguous");
    metric_.distance = static_cast<Distance>(options.distance);
    metric_.p = options.p;
    metric_.eps = options.eps;
    rule_.type = static_cast<TripletLossType>(options.losstype);
    rule_.margin = options.margin;
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
        const Term<T>& term = terms_[t];
        std::fill(to_n(g, k), to_n(g, k) + dim_, T(0));
        add_distance_gradient(metric_, dim_, factor * term.slope_ap, a(g), p(g),
                              to_a(g), to_p(g));
        add_distance_gradient(metric_, dim_, factor * term.slope_an,
                              term.swapped ? p(g) : a(g), n(g, k),
                              term.swapped ? to_p(g) : to_a(g), to_n(g, k));
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
    for (int g = 0; g < groups_; ++g) {
      const T weight = weights ? weights[g] : T(1);
      const T d_ap = row_distance(metric_, dim_, a(g), p(g));
      for (int k = 0; k < negatives_; ++k) {
        T d_an = row_distance(metric_, dim_, a(g), n(g, k));
        bool swapped = false;
        if (swap_) {
          const T d_pn = row_distance(metric_, dim_, p(g), n(g, k));
          swapped = takes_swapped(d_an, d_pn);
          d_an = swapped ? d_pn : d_an;
        }
        const TripletTerm<T> loss = triplet_term(rule_, d_ap, d_an);
        stats_.add(loss.loss, weight, d_ap, d_an);
        Term<T> term = {weight * loss.slope_ap, weight * loss.slope_an,
                        swapped};
        if (use_pair_ && k == 0) {
          stats_.loss += weight * d_ap;
          term.slope_ap += weight;
        }
        terms_.push_back(term);
      }
    }
  }

  Metric<T> metric_;
  TripletRule<T> rule_;
  bool swap_, use_pair_;
  int groups_, negatives_, dim_;
  py::array_t<T> a_, p_, n_;
  Array<T> weight_;
  TripletStats stats_;
  std::vector<Term<T>> terms_;  // for the backward pass
};

// Triplets of the rows of one matrix; the gradient is added to.
template <typename T>
static TripletStats listed(const Options& options, const Array<T>& x,
                           const Array<int64_t>& triplets, Array<T> slopes,
                           Array<bool> swapped) {
  require(x.ndim() == 2 && triplets.ndim() == 2 && triplets.shape(1) == 3 &&
              slopes.size() == 2 * triplets.shape(0) &&
              swapped.size() == triplets.shape(0),
          "triplets is T x 3, slopes T x 2, swapped T");
  require_indices(triplets, x.shape(0));
  const Metric<T> metric = {static_cast<Distance>(options.distance),
                            static_cast<T>(options.p),
                            static_cast<T>(options.eps)};
  const TripletRule<T> rule = {static_cast<TripletLossType>(options.losstype),
                               static_cast<T>(options.margin)};
  const int count = triplets.shape(0);
  const size_t dim = x.shape(1);
  const T* rows = x.data();
  const int64_t* index = triplets.data();
  T* slope = slopes.mutable_data();
  bool* is_swapped = swapped.mutable_data();
  TripletStats stats;
  py::gil_scoped_release release;
  for (int t = 0; t < count; ++t, index += 3, slope += 2) {
    const T* a = rows + index[0] * dim;
    const T* p = rows + index[1] * dim;
    const T* n = rows + index[2] * dim;
    const T d_ap = row_distance<T>(metric, dim, a, p);
    T d_an = row_distance<T>(metric, dim, a, n);
    is_swapped[t] = false;
    if (options.swap) {
      const T d_pn = row_distance<T>(metric, dim, p, n);
      is_swapped[t] = takes_swapped(d_an, d_pn);
      d_an = is_swapped[t] ? d_pn : d_an;
    }
    const TripletTerm<T> loss = triplet_term(rule, d_ap, d_an);
    stats.add(loss.loss, 1, d_ap, d_an);
    stats.loss += options.use_pair ? d_ap : T(0);
    slope[0] = loss.slope_ap + options.use_pair;
    slope[1] = loss.slope_an;
  }
  return stats;
}

template <typename T>
static void listed_gradient(const Options& options, const Array<T>& x,
                            const Array<int64_t>& triplets,
                            const Array<T>& slopes, const Array<bool>& swapped,
                            Array<T> gradient) {
  require(x.ndim() == 2 && triplets.ndim() == 2 && triplets.shape(1) == 3 &&
              slopes.size() == 2 * triplets.shape(0) &&
              swapped.size() == triplets.shape(0) &&
              gradient.size() == x.size(),
          "triplets is T x 3, slopes T x 2, swapped T, gradient like x");
  require_indices(triplets, x.shape(0));
  const Metric<T> metric = {static_cast<Distance>(options.distance),
                            static_cast<T>(options.p),
                            static_cast<T>(options.eps)};
  const int count = triplets.shape(0);
  const size_t dim = x.shape(1);
  const T* rows = x.data();
  const int64_t* index = triplets.data();
  const T* slope = slopes.data();
  const bool* is_swapped = swapped.data();
  T* out = gradient.mutable_data();
  py::gil_scoped_release release;
  for (int t = 0; t < count; ++t, index += 3, slope += 2) {
    const size_t a = index[0] * dim, p = index[1] * dim, n = index[2] * dim;
    const size_t from = is_swapped[t] ? p : a;
    add_distance_gradient<T>(metric, dim, slope[0], rows + a, rows + p, out + a,
                             out + p);
    add_distance_gradient<T>(metric, dim, slope[1], rows + from, rows + n,
                             out + from, out + n);
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
              py::arg("slopes").noconvert(), py::arg("swapped").noconvert());
  module->def("listed_gradient", &listed_gradient<T>, py::arg("options"),
              py::arg("x").noconvert(), py::arg("triplets").noconvert(),
              py::arg("slopes").noconvert(), py::arg("swapped").noconvert(),
              py::arg("gradient").noconvert());
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
  bind<float>(module, "RowTriplets32");
  bind<double>(module, "RowTriplets64");
}

}  // namespace python
}  // namespace caffe_metric
