#include <memory>
#include <string>
#include <vector>

#include "caffe_metric/batch_contrastive.hpp"
#include "caffe_metric/batch_rows.hpp"
#include "caffe_metric/circle.hpp"
#include "caffe_metric/lifted_structure.hpp"
#include "caffe_metric/multi_similarity.hpp"
#include "caffe_metric/pairs.hpp"
#include "caffe_metric/proxy_anchor.hpp"
#include "caffe_metric/sup_con.hpp"

#include "arrays.hpp"
#include "bindings.hpp"

namespace caffe_metric {
namespace python {

// A rule at work on strips of the measures of a batch: anchors in their order,
// a row each. With proxies, anchor c is of class c and none of the rows.
template <typename T>
class RuleRows {
 public:
  virtual ~RuleRows() {}
  virtual int measure() const = 0;
  virtual std::string reduction() const = 0;
  virtual bool two_sweeps() const = 0;
  virtual void fold(Array<T> v, int begin) = 0;
  virtual void meet() = 0;
  virtual Array<double> slope(Array<T> v, int begin, bool write) = 0;

  PairSums pairs;
};

template <typename T, typename Rule>
class RowsOf : public RuleRows<T> {
 public:
  RowsOf(const Rule& rule, const Array<T>& labels, int proxies, int anchors)
      : rule_(rule),
        labels_(labels),
        proxies_(proxies),
        states_(proxies > 0 ? proxies : anchors) {
    const PairSums none = {0, 0, 0, 0};
    this->pairs = none;
    columns_.sort(labels_.size(), labels_.data());
  }

  virtual int measure() const { return rule_.measure(); }
  virtual std::string reduction() const {
    switch (Rule::kReduction) {
      case AS_IS:
        return "as it is";
      case OVER_ACTIVE:
        return "active";
      case OVER_PAIRS:
        return "pairs";
      default:
        return "anchors";
    }
  }
  virtual bool two_sweeps() const {
    return Rule::kMeetsBatch || Rule::kPartners;
  }

  virtual void fold(Array<T> v, int begin) {
    const int count = check(v, begin);
    T* own = v.mutable_data();
    std::vector<T> room;
    py::gil_scoped_release release;
    for (int i = 0; i < count; ++i, own += labels_.size()) {
      const AnchorRow<T> row = row_of(begin + i);
      PairSums pairs;
      states_[begin + i] = fold_row(rule_, row, own, &room, &pairs);
      this->pairs.add(pairs);
    }
  }
  virtual void meet() { meet_batch(states_.size(), states_.data(), &rule_); }
  virtual Array<double> slope(Array<T> v, int begin, bool write) {
    const int count = check(v, begin);
    Array<double> losses = empty<double>(count);
    double* loss = losses.mutable_data();
    T* own = v.mutable_data();
    std::vector<T> room;
    py::gil_scoped_release release;
    for (int i = 0; i < count; ++i, own += labels_.size()) {
      loss[i] = slope_row(rule_, row_of(begin + i), write, states_.data(),
                          states_[begin + i], own, &room);
    }
    return losses;
  }

 private:
  // The number of the strip's rows.
  int check(const Array<T>& v, int begin) const {
    require(v.ndim() == 2 && v.shape(1) == labels_.size() && begin >= 0 &&
                begin + v.shape(0) <= static_cast<py::ssize_t>(states_.size()),
            "a strip has a row for each of its anchors, a column a label");
    return v.shape(0);
  }
  AnchorRow<T> row_of(int i) const {
    const T* labels = labels_.data();
    const T label = proxies_ > 0 ? static_cast<T>(i) : labels[i];
    return anchor_row(proxies_ > 0 ? -1 : i, labels_.size(), label, labels,
                      columns_);
  }

  Rule rule_;
  Array<T> labels_;
  int proxies_;
  ColumnsByClass<T> columns_;
  std::vector<typename Rule::State> states_;
};

template <typename T>
static T number(const py::dict& parameters, const char* name) {
  return static_cast<T>(parameters[name].cast<double>());
}

// What a rule meets: see RowsOf.
template <typename T>
struct Batch {
  Array<T> labels;
  int proxies, anchors;

  template <typename Rule>
  std::unique_ptr<RuleRows<T>> with(const Rule& rule) const {
    return std::unique_ptr<RuleRows<T>>(
        new RowsOf<T, Rule>(rule, labels, proxies, anchors));
  }
};

template <typename T>
static std::unique_ptr<RuleRows<T>> make(const std::string& name,
                                         const py::dict& parameters,
                                         const Array<T>& labels, int anchors,
                                         int proxies) {
  require(labels.ndim() == 1 && anchors >= 0 && anchors <= labels.size() &&
              proxies >= 0,
          "there are no more anchors than labels");
  const Batch<T> batch = {labels, proxies, anchors};
  if (name == "BatchContrastiveLoss") {
    BatchContrastiveRule<T> rule;
    rule.positive_margin = number<T>(parameters, "positive_margin");
    rule.negative_margin = number<T>(parameters, "negative_margin");
    return batch.with(rule);
  }
  if (name == "MultiSimilarityLoss") {
    MultiSimilarityRule<T> rule;
    rule.alpha = number<T>(parameters, "alpha");
    rule.beta = number<T>(parameters, "beta");
    rule.base = number<T>(parameters, "base");
    rule.epsilon = number<T>(parameters, "epsilon");
    return batch.with(rule);
  }
  if (name == "CircleLoss") {
    CircleRule<T> rule;
    rule.margin = number<T>(parameters, "margin");
    rule.gamma = number<T>(parameters, "gamma");
    return batch.with(rule);
  }
  if (name == "SupConLoss") {
    SupConRule<T> rule;
    rule.inverse_temperature = 1 / number<T>(parameters, "temperature");
    return batch.with(rule);
  }
  if (name == "ProxyAnchorLoss") {
    ProxyAnchorRule<T> rule;
    rule.margin = number<T>(parameters, "margin");
    rule.alpha = number<T>(parameters, "alpha");
    return batch.with(rule);
  }
  require(name == "LiftedStructureLoss", "no rule has this name");
  if (parameters["form"].cast<std::string>() == "SONG") {
    LiftedSongRule<T> rule;
    rule.margin = number<T>(parameters, "margin");
    rule.normalize = parameters["normalize"].cast<bool>();
    return batch.with(rule);
  }
  LiftedGeneralizedRule<T> rule;
  rule.margin = number<T>(parameters, "margin");
  rule.normalize = parameters["normalize"].cast<bool>();
  return batch.with(rule);
}

template <typename T>
static void bind(py::module_* module, const char* name) {
  typedef RuleRows<T> Rows;
  py::class_<Rows>(*module, name)
      .def(py::init(&make<T>), py::arg("name"), py::arg("parameters"),
           py::arg("labels").noconvert(), py::arg("anchors"),
           py::arg("proxies") = 0)
      .def_property_readonly("measure", &Rows::measure)
      .def_property_readonly("reduction", &Rows::reduction)
      .def_property_readonly("two_sweeps", &Rows::two_sweeps)
      .def_property_readonly("pairs",
                             [](const Rows& rows) {
                               const PairSums& sums = rows.pairs;
                               return py::make_tuple(sums.same, sums.others,
                                                     sums.of_same,
                                                     sums.of_others);
                             })
      .def("fold", &Rows::fold, py::arg("v").noconvert(), py::arg("begin"))
      .def("meet", &Rows::meet)
      .def("slope", &Rows::slope, py::arg("v").noconvert(), py::arg("begin"),
           py::arg("write"));
}

void bind_batch_rules(py::module_* module) {
  bind<float>(module, "RuleRows32");
  bind<double>(module, "RuleRows64");
}

}  // namespace python
}  // namespace caffe_metric
