#ifndef CAFFE_TEST_TEST_TRIPLET_ORACLE_HPP_
#define CAFFE_TEST_TEST_TRIPLET_ORACLE_HPP_

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/common.hpp"
#include "caffe/test/test_metric_util.hpp"

// What TripletLoss should be, and the layers to try it on.

namespace caffe {
namespace triplet_test {

using metric_test::BlobSpec;
using metric_test::ExpectAllZero;
using metric_test::ExpectArray;
using metric_test::ExpectValue;
using metric_test::Labels;
using metric_test::LayerRig;
using metric_test::LayerSpec;
using metric_test::ParseLayer;
using metric_test::RandomBlob;
using metric_test::Shape;
using metric_test::Tolerance;

// ---- The oracle: loops over triplets, in float64.

// Row `row` of bottom `blob`.
struct Row {
  Row(int blob, int row) : blob(blob), row(row) {}
  int blob;
  int row;
};

struct Triplet {
  Triplet(Row a, Row p, Row n, double weight = 1, bool pair = true)
      : a(a), p(p), n(n), weight(weight), pair(pair) {}
  Row a, p, n;
  double weight;
  bool pair;  // use_pair adds d(a,p) here
};

struct Outcome {
  vector<double> tops;              // loss, active, mean d_ap, mean d_an
  vector<vector<double>> gradient;  // by bottom
};

inline double Dot(const double* u, const double* v, int dim) {
  double sum = 0;
  for (int k = 0; k < dim; ++k) {
    sum += u[k] * v[k];
  }
  return sum;
}

// d(u, v) and its derivatives.
inline double Distance(const TripletLossParameter& param, const double* u,
                       const double* v, int dim, vector<double>* du,
                       vector<double>* dv) {
  du->assign(dim, 0);
  dv->assign(dim, 0);
  double d = 0;
  switch (param.distance()) {
    case TripletLossParameter::SQUARED_L2:
    case TripletLossParameter::L2:
      for (int k = 0; k < dim; ++k) {
        d += (u[k] - v[k]) * (u[k] - v[k]);
        (*du)[k] = 2 * (u[k] - v[k]);
      }
      if (param.distance() == TripletLossParameter::L2) {
        d = std::sqrt(d);
        for (int k = 0; k < dim; ++k) {
          (*du)[k] = d == 0 ? 0 : (u[k] - v[k]) / d;
        }
      }
      break;
    case TripletLossParameter::LP: {
      const double p = param.p();
      for (int k = 0; k < dim; ++k) {
        d += std::pow(std::abs(u[k] - v[k] + param.eps()), p);
      }
      d = std::pow(d, 1 / p);
      for (int k = 0; k < dim; ++k) {
        const double difference = u[k] - v[k] + param.eps();
        if (d > 0 && difference != 0) {
          (*du)[k] = (difference < 0 ? -1 : 1) *
                     std::pow(std::abs(difference) / d, p - 1);
        }
      }
      break;
    }
    case TripletLossParameter::COSINE: {
      const double uu = Dot(u, u, dim), vv = Dot(v, v, dim);
      if (uu == 0 || vv == 0) {
        return 1;
      }
      const double length = std::sqrt(uu * vv);
      const double cosine = Dot(u, v, dim) / length;
      for (int k = 0; k < dim; ++k) {
        (*du)[k] = cosine * u[k] / uu - v[k] / length;
        (*dv)[k] = cosine * v[k] / vv - u[k] / length;
      }
      return 1 - cosine;
    }
    default:
      LOG(FATAL) << "No such distance.";
  }
  for (int k = 0; k < dim; ++k) {
    (*dv)[k] = -(*du)[k];
  }
  return d;
}

inline void AddTo(vector<double>* sum, const BlobSpec& blob, int row,
                  double factor, const vector<double>& x) {
  for (int k = 0; k < blob.dim(); ++k) {
    (*sum)[row * blob.dim() + k] += factor * x[k];
  }
}

// The layer's parameters, read from its prototxt; and the bottoms.
class Oracle {
 public:
  explicit Oracle(const LayerSpec& spec)
      : spec_(spec),
        layer_(ParseLayer(spec.prototxt)),
        param_(layer_.triplet_loss_param()) {}

  const TripletLossParameter& param() const { return param_; }

  double d(Row u, Row v) const {
    vector<double> du, dv;
    return d(u, v, &du, &dv);
  }

  // `batch` is what BATCH_SIZE divides by. The further tops and the counts
  // are over all triplets; mined batches are divided by the active ones.
  Outcome Evaluate(const vector<Triplet>& triplets, double batch) const {
    Outcome outcome;
    vector<vector<double>>& gradient = outcome.gradient;
    for (int i = 0; i < spec_.bottoms.size(); ++i) {
      gradient.push_back(vector<double>(spec_.bottoms[i].values.size(), 0));
    }
    double sum = 0, active = 0, sum_ap = 0, sum_an = 0;
    for (int i = 0; i < triplets.size(); ++i) {
      const Triplet& t = triplets[i];
      vector<double> ap_a, ap_p, an_a, an_n, pn_p, pn_n;
      const double d_ap = d(t.a, t.p, &ap_a, &ap_p);
      double d_an = d(t.a, t.n, &an_a, &an_n);
      const double d_pn = d(t.p, t.n, &pn_p, &pn_n);
      const bool swapped = param_.swap() && d_pn < d_an;
      if (swapped) {
        d_an = d_pn;
      }
      double loss, by_ap, by_an;
      Loss(d_ap, d_an, &loss, &by_ap, &by_an);
      active += loss > 0;
      sum_ap += d_ap;
      sum_an += d_an;
      if (param_.use_pair() && t.pair) {
        loss += d_ap;
        by_ap += 1;
      }
      sum += t.weight * loss;
      Add(&gradient, t.a, t.weight * by_ap, ap_a);
      Add(&gradient, t.p, t.weight * by_ap, ap_p);
      if (swapped) {
        Add(&gradient, t.p, t.weight * by_an, pn_p);
        Add(&gradient, t.n, t.weight * by_an, pn_n);
      } else {
        Add(&gradient, t.a, t.weight * by_an, an_a);
        Add(&gradient, t.n, t.weight * by_an, an_n);
      }
    }
    const double count = triplets.size();
    const double z = Normalizer(count, active, batch);
    outcome.tops.push_back(sum / z);
    outcome.tops.push_back(count == 0 ? 0 : active / count);
    outcome.tops.push_back(count == 0 ? 0 : sum_ap / count);
    outcome.tops.push_back(count == 0 ? 0 : sum_an / count);
    const double loss_weight =
        layer_.loss_weight_size() ? layer_.loss_weight(0) : 1;
    for (int i = 0; i < gradient.size(); ++i) {
      for (int k = 0; k < gradient[i].size(); ++k) {
        gradient[i][k] *= loss_weight / z;
      }
    }
    return outcome;
  }

  // The triplets of 1, 3 and 4 bottoms.
  vector<Triplet> Listed() const {
    vector<Triplet> triplets;
    if (spec_.bottoms.size() == 1) {
      const int group = 2 + param_.num_negatives();
      for (int i = 0; i < spec_.bottoms[0].rows(); i += group) {
        for (int j = 2; j < group; ++j) {
          triplets.push_back(
              Triplet(Row(0, i), Row(0, i + 1), Row(0, i + j), 1, j == 2));
        }
      }
    } else {
      for (int i = 0; i < spec_.bottoms[0].rows(); ++i) {
        triplets.push_back(Triplet(
            Row(0, i), Row(1, i), Row(2, i),
            spec_.bottoms.size() == 4 ? spec_.bottoms[3].values[i] : 1));
      }
    }
    return triplets;
  }

  // What a mined batch reports: of its pairs, whatever triplets it got.
  Outcome EvaluateMined(const vector<Triplet>& triplets) const {
    const vector<double>& label = spec_.bottoms[1].values;
    const int rows = label.size();
    Outcome outcome = Evaluate(triplets, rows);
    double count[] = {0, 0};
    double sum[] = {0, 0};
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < rows; ++j) {
        if (i != j) {
          const int other = label[i] == label[j] ? 0 : 1;
          count[other] += 1;
          sum[other] += d(Row(0, i), Row(0, j));
        }
      }
    }
    const double active = outcome.tops[1] * triplets.size();
    double candidates = count[0];
    if (param_.mining() == TripletLossParameter::ALL) {
      candidates = triplets.size();
    } else if (param_.mining() == TripletLossParameter::HARDEST) {
      candidates = rows;
    }
    outcome.tops[1] = candidates == 0 ? 0 : active / candidates;
    for (int k = 0; k < 2; ++k) {
      outcome.tops[2 + k] = count[k] == 0 ? 0 : sum[k] / count[k];
    }
    return outcome;
  }

  Outcome EvaluateListed() const {
    const int group =
        spec_.bottoms.size() == 1 ? 2 + param_.num_negatives() : 1;
    return Evaluate(Listed(), spec_.bottoms[0].rows() / group);
  }

  // For each anchor and positive, the negatives that may be drawn.
  vector<vector<Triplet>> Candidates() const {
    vector<vector<Triplet>> pairs;
    const vector<double>& label = spec_.bottoms[1].values;
    for (int a = 0; a < label.size(); ++a) {
      for (int p = 0; p < label.size(); ++p) {
        if (a == p || label[a] != label[p]) {
          continue;
        }
        vector<Triplet> pair;
        const double d_ap = d(Row(0, a), Row(0, p));
        for (int n = 0; n < label.size(); ++n) {
          const double d_an = d(Row(0, a), Row(0, n));
          if (label[n] != label[a] &&
              (param_.mining() == TripletLossParameter::ALL ||
               (d_an < d_ap + param_.margin() &&
                (d_ap < d_an ||
                 param_.mining() == TripletLossParameter::VIOLATING)))) {
            pair.push_back(Triplet(Row(0, a), Row(0, p), Row(0, n)));
          }
        }
        if (!pair.empty()) {
          pairs.push_back(pair);
        }
      }
    }
    return pairs;
  }

  vector<Triplet> All() const {
    vector<Triplet> triplets;
    const vector<vector<Triplet>> pairs = Candidates();
    for (int i = 0; i < pairs.size(); ++i) {
      triplets.insert(triplets.end(), pairs[i].begin(), pairs[i].end());
    }
    return triplets;
  }

  vector<Triplet> Hardest() const {
    vector<Triplet> triplets;
    const vector<double>& label = spec_.bottoms[1].values;
    for (int a = 0; a < label.size(); ++a) {
      if (std::count(label.begin(), label.end(), label[a]) == 1) {
        continue;  // no positive
      }
      int p = -1, n = -1;
      for (int j = 0; j < label.size(); ++j) {
        if (j == a) {
          continue;
        }
        const double d_aj = d(Row(0, a), Row(0, j));
        if (label[j] == label[a]) {
          p = p < 0 || d_aj > d(Row(0, a), Row(0, p)) ? j : p;
        } else {
          n = n < 0 || d_aj < d(Row(0, a), Row(0, n)) ? j : n;
        }
      }
      if (p >= 0 && n >= 0) {
        triplets.push_back(Triplet(Row(0, a), Row(0, p), Row(0, n)));
      }
    }
    return triplets;
  }

 private:
  double d(Row u, Row v, vector<double>* du, vector<double>* dv) const {
    const BlobSpec& x = spec_.bottoms[u.blob];
    return Distance(param_, x.row(u.row), spec_.bottoms[v.blob].row(v.row),
                    x.dim(), du, dv);
  }

  void Add(vector<vector<double>>* gradient, Row row, double factor,
           const vector<double>& x) const {
    AddTo(&(*gradient)[row.blob], spec_.bottoms[row.blob], row.row, factor, x);
  }

  void Loss(double d_ap, double d_an, double* loss, double* by_ap,
            double* by_an) const {
    const double m = param_.margin();
    *loss = *by_ap = *by_an = 0;
    switch (param_.losstype()) {
      case TripletLossParameter::HINGE:
        if (d_ap - d_an + m > 0) {
          *loss = d_ap - d_an + m;
          *by_ap = 1;
          *by_an = -1;
        }
        break;
      case TripletLossParameter::RATIO:
        if (1 - d_an / (d_ap + m) > 0) {
          *loss = 1 - d_an / (d_ap + m);
          *by_ap = d_an / ((d_ap + m) * (d_ap + m));
          *by_an = -1 / (d_ap + m);
        }
        break;
      case TripletLossParameter::SOFT: {
        const double u = d_ap - d_an;
        *loss = std::max(u, 0.) + log1p(std::exp(-std::abs(u)));
        *by_ap = 1 / (1 + std::exp(-u));
        *by_an = -*by_ap;
        break;
      }
      default:
        LOG(FATAL) << "No such loss.";
    }
  }

  double Normalizer(double count, double active, double batch) const {
    if (layer_.loss_param().has_normalization()) {
      switch (layer_.loss_param().normalization()) {
        case LossParameter_NormalizationMode_FULL:
          return std::max(count, 1.);
        case LossParameter_NormalizationMode_VALID:
          return std::max(active, 1.);
        case LossParameter_NormalizationMode_BATCH_SIZE:
          return batch;
        default:
          return 1;
      }
    }
    return spec_.bottoms.size() == 2 ? std::max(active, 1.) : 2 * batch;
  }

  LayerSpec spec_;
  LayerParameter layer_;
  TripletLossParameter param_;
};

// ---- Layers to try.

inline string Prototxt(const string& param, const string& layer = "") {
  return "name: 'triplet' type: 'TripletLoss' triplet_loss_param { " + param +
         " } " + layer;
}

const int kTops = 4;

inline LayerSpec Spec(const string& prototxt) {
  LayerSpec spec;
  spec.prototxt = prototxt;
  spec.tops = kTops;
  spec.checked_bottoms.push_back(0);
  return spec;
}

// Groups of 2 + num_negatives rows.
inline LayerSpec Groups(int groups, int dim, const string& param,
                        const string& layer = "", unsigned int seed = 1) {
  LayerSpec spec = Spec(Prototxt(param, layer));
  const int group =
      2 + ParseLayer(spec.prototxt).triplet_loss_param().num_negatives();
  spec.bottoms.push_back(RandomBlob(Shape(groups * group, dim), seed));
  return spec;
}

// A batch with labels.
inline LayerSpec Mined(const string& labels, int dim, const string& param,
                       const string& layer = "", unsigned int seed = 1) {
  LayerSpec spec = Spec(Prototxt(param, layer));
  const BlobSpec y = Labels(labels);
  spec.bottoms.push_back(RandomBlob(Shape(y.rows(), dim), seed));
  spec.bottoms.push_back(y);
  return spec;
}

// Three bottoms, or four.
inline LayerSpec Rows(int bottoms, int rows, int dim, const string& param,
                      const string& layer = "", unsigned int seed = 1) {
  LayerSpec spec = Spec(Prototxt(param, layer));
  for (int i = 0; i < 3; ++i) {
    spec.bottoms.push_back(RandomBlob(Shape(rows, dim), 3 * seed + i));
  }
  spec.checked_bottoms.push_back(1);
  spec.checked_bottoms.push_back(2);
  if (bottoms == 4) {
    spec.bottoms.push_back(RandomBlob(Shape(rows), seed + 7, 0.25, 2));
  }
  return spec;
}

// Every combination that changes the arithmetic of one triplet.
inline vector<string> Options() {
  vector<string> options;
  const char* losses[] = {"HINGE", "RATIO", "SOFT"};
  const char* distances[] = {"SQUARED_L2", "L2", "LP p: 3 eps: 0.125",
                             "COSINE"};
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 4; ++j) {
      for (int k = 0; k < 4; ++k) {
        options.push_back(
            string("losstype: ") + losses[i] + " distance: " + distances[j] +
            (k & 1 ? " swap: true" : "") + (k & 2 ? " use_pair: true" : ""));
      }
    }
  }
  options.push_back("distance: LP p: 1");
  options.push_back("distance: LP p: 1.5 eps: 0");
  options.push_back("distance: LP p: 0.5 swap: true");
  options.push_back("distance: LP");
  return options;
}

template <typename Dtype>
void ExpectTops(const Outcome& expected, LayerRig<Dtype>* rig) {
  for (int i = 0; i < kTops; ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(0, rig->top(i)->num_axes());
    ExpectValue(expected.tops[i], rig->Top(i)[0], Tolerance<Dtype>::Value());
  }
}

template <typename Dtype>
void ExpectOutcome(const Outcome& expected, const LayerSpec& spec) {
  SCOPED_TRACE(spec.prototxt);
  LayerRig<Dtype> rig(spec);
  rig.Forward();
  ExpectTops(expected, &rig);
  rig.Backward();
  for (int i = 0; i < spec.bottoms.size(); ++i) {
    SCOPED_TRACE(i);
    if (i == 3 || (i == 1 && spec.bottoms.size() == 2)) {
      ExpectAllZero(rig.BottomDiff(i));  // weights, labels
    } else {
      ExpectArray(expected.gradient[i], rig.BottomDiff(i),
                  Tolerance<Dtype>::Gradient());
    }
  }
}

template <typename Dtype>
void ExpectListed(const LayerSpec& spec) {
  ExpectOutcome<Dtype>(Oracle(spec).EvaluateListed(), spec);
}

template <typename Dtype>
void ExpectMined(const LayerSpec& spec) {
  const Oracle oracle(spec);
  const bool all = oracle.param().mining() == TripletLossParameter::ALL;
  ExpectOutcome<Dtype>(
      oracle.EvaluateMined(all ? oracle.All() : oracle.Hardest()), spec);
}

// What was drawn is one of the legal draws, in loss, tops and gradient.
template <typename Dtype>
void ExpectSomeDraw(const LayerSpec& spec, unsigned int seed) {
  SCOPED_TRACE(spec.prototxt);
  const Oracle oracle(spec);
  const vector<vector<Triplet>> pairs = oracle.Candidates();
  LayerRig<Dtype> rig(spec);
  rig.Forward(seed);
  const double loss = rig.Top(0)[0];
  vector<int> digits(pairs.size(), 0);
  Outcome nearest;
  double distance = std::numeric_limits<double>::infinity();
  int draws = 0;
  for (bool more = true; more;) {
    vector<Triplet> triplets;
    for (int i = 0; i < pairs.size(); ++i) {
      triplets.push_back(pairs[i][digits[i]]);
    }
    const Outcome outcome = oracle.EvaluateMined(triplets);
    if (std::abs(outcome.tops[0] - loss) < distance) {
      distance = std::abs(outcome.tops[0] - loss);
      nearest = outcome;
    }
    more = false;
    for (int i = 0; i < pairs.size() && !more; ++i) {
      digits[i] = (digits[i] + 1) % pairs[i].size();
      more = digits[i] != 0;
    }
    ASSERT_LE(++draws, 20000) << "Choose a smaller batch.";
  }
  ExpectTops(nearest, &rig);
  rig.Backward();
  ExpectArray(nearest.gradient[0], rig.BottomDiff(0),
              Tolerance<Dtype>::Gradient());
  ExpectAllZero(rig.BottomDiff(1));
}

// No triplet: no loss, no gradient; the distances of the batch are reported.
template <typename Dtype>
void ExpectNothing(const LayerSpec& spec) {
  SCOPED_TRACE(spec.prototxt);
  const Outcome expected = Oracle(spec).EvaluateMined(vector<Triplet>());
  LayerRig<Dtype> rig(spec);
  rig.Forward();
  EXPECT_EQ(0, rig.Top(0)[0]);
  EXPECT_EQ(0, rig.Top(1)[0]);
  ExpectTops(expected, &rig);
  rig.Backward();
  for (int i = 0; i < spec.bottoms.size(); ++i) {
    ExpectAllZero(rig.BottomDiff(i));
  }
}

const char* const kMinings[] = {"mining: ALL", "mining: SEMIHARD",
                                "mining: VIOLATING", "mining: HARDEST"};

}  // namespace triplet_test
}  // namespace caffe

#endif  // CAFFE_TEST_TEST_TRIPLET_ORACLE_HPP_
