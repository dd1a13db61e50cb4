// Why: the published triplet layers fail their own gradient: a missing loss
// weight, a missing factor, a batch divided twice. Every option that changes
// the arithmetic is held here against naive loops over triplets.
// Sweeps: the four layouts x 3 losses x 4 distances x swap x use_pair; N = 1
// to 48; D = 1, 3, 7, 33; one class; all classes different; ties; duplicates.
// Random mining: what the layer drew is looked for among all legal draws, and
// the draws are counted.
// Tolerances: test_metric_util.hpp.
// Leaves out: most bad input and nets with force_backward (pytest), speed.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/triplet_loss_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/test/test_metric_util.hpp"

namespace caffe {

using metric_test::BlobSpec;
using metric_test::ExpectAllZero;
using metric_test::ExpectArray;
using metric_test::ExpectGradient;
using metric_test::ExpectTeeth;
using metric_test::ExpectValue;
using metric_test::Labels;
using metric_test::Largest;
using metric_test::LayerRig;
using metric_test::LayerSpec;
using metric_test::ParseLayer;
using metric_test::RandomBlob;
using metric_test::Shape;
using metric_test::Tolerance;

namespace {

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

double Dot(const double* u, const double* v, int dim) {
  double sum = 0;
  for (int k = 0; k < dim; ++k) {
    sum += u[k] * v[k];
  }
  return sum;
}

// d(u, v) and its derivatives.
double Distance(const TripletLossParameter& param, const double* u,
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

void AddTo(vector<double>* sum, const BlobSpec& blob, int row, double factor,
           const vector<double>& x) {
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
  // are over all triplets; mined batches divide by the active ones.
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

string Prototxt(const string& param, const string& layer = "") {
  return "name: 'triplet' type: 'TripletLoss' triplet_loss_param { " + param +
         " } " + layer;
}

const int kTops = 4;

LayerSpec Spec(const string& prototxt) {
  LayerSpec spec;
  spec.prototxt = prototxt;
  spec.tops = kTops;
  spec.checked_bottoms.push_back(0);
  return spec;
}

// Groups of 2 + num_negatives rows.
LayerSpec Groups(int groups, int dim, const string& param,
                 const string& layer = "", unsigned int seed = 1) {
  LayerSpec spec = Spec(Prototxt(param, layer));
  const int group =
      2 + ParseLayer(spec.prototxt).triplet_loss_param().num_negatives();
  spec.bottoms.push_back(RandomBlob(Shape(groups * group, dim), seed));
  return spec;
}

// A batch with labels.
LayerSpec Mined(const string& labels, int dim, const string& param,
                const string& layer = "", unsigned int seed = 1) {
  LayerSpec spec = Spec(Prototxt(param, layer));
  const BlobSpec y = Labels(labels);
  spec.bottoms.push_back(RandomBlob(Shape(y.rows(), dim), seed));
  spec.bottoms.push_back(y);
  return spec;
}

// Three bottoms, or four.
LayerSpec Rows(int bottoms, int rows, int dim, const string& param,
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
vector<string> Options() {
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
  ExpectOutcome<Dtype>(oracle.Evaluate(all ? oracle.All() : oracle.Hardest(),
                                       spec.bottoms[0].rows()),
                       spec);
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
    const Outcome outcome = oracle.Evaluate(triplets, spec.bottoms[0].rows());
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

template <typename Dtype>
void ExpectNothing(const LayerSpec& spec) {
  SCOPED_TRACE(spec.prototxt);
  LayerRig<Dtype> rig(spec);
  rig.Forward();
  for (int i = 0; i < kTops; ++i) {
    EXPECT_EQ(0, rig.Top(i)[0]);
  }
  rig.Backward();
  for (int i = 0; i < spec.bottoms.size(); ++i) {
    ExpectAllZero(rig.BottomDiff(i));
  }
}

const char* const kMinings[] = {"mining: ALL", "mining: SEMIHARD",
                                "mining: VIOLATING", "mining: HARDEST"};

}  // namespace

template <typename TypeParam>
class TripletLossLayerTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(TripletLossLayerTest, TestDtypesAndDevices);

TYPED_TEST(TripletLossLayerTest, TestSetUp) {
  typedef typename TypeParam::Dtype Dtype;
  LayerSpec spec = Rows(4, 3, 2, "");
  for (int tops = 1; tops <= 4; ++tops) {
    spec.tops = tops;
    LayerRig<Dtype> rig(spec);
    EXPECT_STREQ("TripletLoss", rig.layer()->type());
    EXPECT_TRUE(dynamic_cast<TripletLossLayer<Dtype>*>(rig.layer()) != NULL);
    EXPECT_EQ(1, rig.layer()->loss(0));
    for (int i = 0; i < tops; ++i) {
      EXPECT_EQ(0, rig.top(i)->num_axes());
      EXPECT_EQ(i == 0, rig.layer()->loss(i) != 0);
    }
  }
}

TYPED_TEST(TripletLossLayerTest, TestForceBackward) {
  typedef typename TypeParam::Dtype Dtype;
  // feature bottoms, by layout
  LayerRig<Dtype> groups(Groups(1, 2, ""));
  EXPECT_TRUE(groups.layer()->AllowForceBackward(0));
  LayerRig<Dtype> mined(Mined("001", 2, ""));
  EXPECT_TRUE(mined.layer()->AllowForceBackward(0));
  LayerRig<Dtype> rows(Rows(4, 2, 2, ""));
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(rows.layer()->AllowForceBackward(i));
  }
}

// ---- Layouts without mining.

TYPED_TEST(TripletLossLayerTest, TestGroups) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<string> options = Options();
  for (int i = 0; i < options.size(); ++i) {
    ExpectListed<Dtype>(Groups(3, 5, options[i] + " num_negatives: 2"));
  }
}

TYPED_TEST(TripletLossLayerTest, TestThreeBottoms) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<string> options = Options();
  for (int i = 0; i < options.size(); ++i) {
    ExpectListed<Dtype>(Rows(3, 5, 4, options[i]));
  }
}

TYPED_TEST(TripletLossLayerTest, TestWeights) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<string> options = Options();
  for (int i = 0; i < options.size(); ++i) {
    ExpectListed<Dtype>(Rows(4, 5, 4, options[i]));
  }
  // N x 1 x 1 weights, one of them zero
  LayerSpec spec = Rows(4, 3, 4, "use_pair: true margin: 20");
  spec.bottoms[3] = BlobSpec(Shape(3, 1, 1), vector<double>(3, 0.5));
  spec.bottoms[3].values[1] = 0;
  ExpectListed<Dtype>(spec);
}

TYPED_TEST(TripletLossLayerTest, TestSizes) {
  typedef typename TypeParam::Dtype Dtype;
  const int dims[] = {1, 3, 7, 33};
  for (int i = 0; i < 4; ++i) {
    const string negatives = i == 2 ? " num_negatives: 5" : "";
    ExpectListed<Dtype>(Groups(1, dims[i], "margin: 9" + negatives));
    ExpectListed<Dtype>(Groups(7, dims[i], "margin: 0.5" + negatives));
    ExpectListed<Dtype>(Rows(3, 1, dims[i], "margin: 9"));
    ExpectListed<Dtype>(Rows(3, 13, dims[i], "margin: 0.5"));
    ExpectListed<Dtype>(Rows(4, 1, dims[i], "margin: 9"));
  }
  // features with more axes
  LayerSpec spec = Rows(3, 3, 12, "distance: COSINE");
  for (int i = 0; i < 3; ++i) {
    spec.bottoms[i].shape = Shape(3, 2, 3, 2);
  }
  ExpectListed<Dtype>(spec);
}

TYPED_TEST(TripletLossLayerTest, TestOlderNumbersOfOptions) {
  typedef typename TypeParam::Dtype Dtype;
  ExpectListed<Dtype>(
      Groups(2, 3, "margin: 0.7 losstype: 1 num_negatives: 3 use_pair: true"));
}

TYPED_TEST(TripletLossLayerTest, TestNormalization) {
  typedef typename TypeParam::Dtype Dtype;
  const char* names[] = {"FULL", "VALID", "BATCH_SIZE", "NONE"};
  for (int i = 0; i < 4; ++i) {
    const string layer =
        string("loss_param { normalization: ") + names[i] + " }";
    ExpectListed<Dtype>(Groups(4, 3, "num_negatives: 2 use_pair: true", layer));
    ExpectListed<Dtype>(Rows(3, 5, 3, "", layer));
    ExpectListed<Dtype>(Rows(4, 5, 3, "use_pair: true", layer));
    ExpectMined<Dtype>(Mined("0102120", 3, kMinings[0], layer));
    ExpectMined<Dtype>(Mined("0102120", 3, kMinings[3], layer));
    // nothing active: no division by zero, and use_pair is still there
    ExpectListed<Dtype>(Rows(3, 4, 3, "margin: -1e4 use_pair: true", layer));
    ExpectMined<Dtype>(
        Mined("0102", 3, "margin: -1e4 use_pair: true mining: ALL", layer));
  }
}

TYPED_TEST(TripletLossLayerTest, TestLossWeight) {
  typedef typename TypeParam::Dtype Dtype;
  // the oracle's gradient is multiplied by it, its tops are not
  ExpectListed<Dtype>(Groups(3, 4, "", "loss_weight: 2.5"));
  ExpectListed<Dtype>(Rows(3, 4, 4, "", "loss_weight: 0.125"));
  ExpectMined<Dtype>(Mined("010210", 4, kMinings[0], "loss_weight: 2.5"));
  ExpectMined<Dtype>(Mined("010210", 4, kMinings[3], "loss_weight: -1"));
}

// Bottoms that do not propagate keep their diff; the others get all of theirs.
TYPED_TEST(TripletLossLayerTest, TestSomeBottomsPropagate) {
  typedef typename TypeParam::Dtype Dtype;
  const char* params[] = {"margin: 9", "margin: 9 swap: true",
                          "distance: COSINE use_pair: true"};
  for (int i = 0; i < 3; ++i) {
    LayerRig<Dtype> rig(Rows(4, 3, 4, params[i]));
    rig.Forward();
    rig.Backward();
    vector<vector<double>> all;
    for (int j = 0; j < 4; ++j) {
      all.push_back(rig.BottomDiff(j));
    }
    for (int mask = 0; mask < 16; ++mask) {
      vector<bool> propagate_down(4);
      for (int j = 0; j < 4; ++j) {
        propagate_down[j] = mask >> j & 1;
        caffe_set(rig.bottom(j)->count(), Dtype(777),
                  rig.bottom(j)->mutable_cpu_diff());
      }
      rig.layer()->Backward(rig.tops(), propagate_down, rig.bottoms());
      for (int j = 0; j < 4; ++j) {
        const vector<double> kept(all[j].size(), 777);
        EXPECT_TRUE((propagate_down[j] ? all[j] : kept) == rig.BottomDiff(j));
      }
    }
  }
}

// A gradient check may run in the TEST phase too.
TYPED_TEST(TripletLossLayerTest, TestTestPhase) {
  typedef typename TypeParam::Dtype Dtype;
  for (int i = 0; i < 4; ++i) {
    LayerRig<Dtype> train(Mined("0102120", 3, kMinings[i]));
    LayerRig<Dtype> test(Mined("0102120", 3, kMinings[i], "phase: TEST"));
    train.Forward();
    train.Backward();
    test.Forward();
    test.Backward();
    EXPECT_EQ(train.Top(0)[0], test.Top(0)[0]);
    EXPECT_TRUE(train.BottomDiff(0) == test.BottomDiff(0));
  }
}

// ---- Corners.

TYPED_TEST(TripletLossLayerTest, TestSoftIsStable) {
  typedef typename TypeParam::Dtype Dtype;
  const double scales[] = {1e-4, 30, 3e3};  // differences up to 1e8
  for (int i = 0; i < 3; ++i) {
    LayerSpec spec = Rows(3, 6, 3, "losstype: SOFT");
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < spec.bottoms[j].values.size(); ++k) {
        spec.bottoms[j].values[k] =
            static_cast<float>(scales[i] * spec.bottoms[j].values[k]);
      }
    }
    const Outcome expected = Oracle(spec).EvaluateListed();
    LayerRig<Dtype> rig(spec);
    rig.Forward();
    // What underflows in float does not count as active there: no other tops.
    ExpectValue(expected.tops[0], rig.Top(0)[0], Tolerance<Dtype>::Value());
    rig.Backward();
    for (int j = 0; j < 3; ++j) {
      ExpectArray(expected.gradient[j], rig.BottomDiff(j),
                  Tolerance<Dtype>::Gradient());
    }
  }
}

TYPED_TEST(TripletLossLayerTest, TestDuplicates) {
  typedef typename TypeParam::Dtype Dtype;
  const char* distances[] = {"SQUARED_L2", "L2", "LP eps: 0", "COSINE"};
  for (int i = 0; i < 4; ++i) {
    const string param = string("distance: ") + distances[i];
    // a = p, then a = n, then all three alike
    LayerSpec spec = Rows(3, 3, 4, param + " margin: 0.5");
    for (int k = 0; k < 4; ++k) {
      spec.bottoms[1].values[k] = spec.bottoms[0].values[k];
      spec.bottoms[2].values[4 + k] = spec.bottoms[0].values[4 + k];
      spec.bottoms[1].values[8 + k] = spec.bottoms[0].values[8 + k];
      spec.bottoms[2].values[8 + k] = spec.bottoms[0].values[8 + k];
    }
    if (i != 3) {  // 1 - cos of equal vectors rounds to either side of 0
      ExpectListed<Dtype>(spec);
    }
    LayerRig<Dtype> rig(spec);
    rig.Forward();
    rig.Backward();
    for (int j = 0; j < 3; ++j) {
      EXPECT_LT(Largest(rig.BottomDiff(j)), 10);
    }
  }
}

TYPED_TEST(TripletLossLayerTest, TestMinedDuplicates) {
  typedef typename TypeParam::Dtype Dtype;
  const char* distances[] = {"SQUARED_L2", "L2", "LP eps: 0", "COSINE"};
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      // two distinct rows, many times, of both classes
      LayerSpec spec =
          Mined("00110101", 5,
                string("distance: ") + distances[i] + " " + kMinings[j]);
      for (int row = 2; row < 8; ++row) {
        for (int k = 0; k < 5; ++k) {
          spec.bottoms[0].values[row * 5 + k] =
              spec.bottoms[0].values[(row % 2) * 5 + k];
        }
      }
      SCOPED_TRACE(spec.prototxt);
      LayerRig<Dtype> rig(spec);
      rig.Forward();
      EXPECT_LT(std::abs(rig.Top(0)[0]), 100);
      rig.Backward();
      EXPECT_LT(Largest(rig.BottomDiff(0)), 100);
      if (i < 2 && j == 0) {
        ExpectMined<Dtype>(spec);
      }
    }
  }
}

TYPED_TEST(TripletLossLayerTest, TestZeroFeatures) {
  typedef typename TypeParam::Dtype Dtype;
  const char* distances[] = {"SQUARED_L2", "L2", "LP", "COSINE"};
  for (int i = 0; i < 4; ++i) {
    const string param = string("distance: ") + distances[i];
    LayerSpec spec = Rows(3, 4, 3, param);
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 3; ++k) {
        spec.bottoms[j].values[j * 3 + k] = 0;
        spec.bottoms[j].values[9 + k] = 0;
      }
    }
    ExpectListed<Dtype>(spec);
    LayerSpec mined = Mined("010010", 3, param + " mining: ALL");
    for (int k = 0; k < 3; ++k) {
      mined.bottoms[0].values[3 + k] = 0;
    }
    ExpectMined<Dtype>(mined);
  }
}

TYPED_TEST(TripletLossLayerTest, TestNoTriplets) {
  typedef typename TypeParam::Dtype Dtype;
  const char* labels[] = {"0", "3", "00", "01", "1111111", "0123456"};
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 6; ++j) {
      ExpectNothing<Dtype>(
          Mined(labels[j], 3,
                string(kMinings[i]) + " use_pair: true losstype: SOFT"));
      ExpectNothing<Dtype>(Mined(labels[j], 1, kMinings[i]));
    }
  }
}

TYPED_TEST(TripletLossLayerTest, TestPositiveAndNegativeAreNaN) {
  typedef typename TypeParam::Dtype Dtype;
  metric_test::UseFreshProcessesForDeath();
  const double bad[] = {std::numeric_limits<double>::quiet_NaN(),
                        std::numeric_limits<double>::infinity()};
  for (int i = 0; i < 2; ++i) {
    LayerSpec spec = Rows(3, 4, 3, "");
    spec.bottoms[1].values[3 * 2 + 1] = bad[i];
    EXPECT_DEATH(LayerRig<Dtype>(spec).Forward(), "row 2");
  }
}

TYPED_TEST(TripletLossLayerTest, TestBadParameters) {
  typedef typename TypeParam::Dtype Dtype;
  metric_test::UseFreshProcessesForDeath();
  EXPECT_DEATH(LayerRig<Dtype>(Rows(3, 2, 2, "losstype: RATIO margin: 0")),
               "margin");
  EXPECT_DEATH(LayerRig<Dtype>(Rows(3, 2, 2, "distance: LP p: 0")), "p");
  LayerSpec groups = Groups(2, 2, "num_negatives: 2");
  groups.bottoms[0] = RandomBlob(Shape(7, 2), 1);
  EXPECT_DEATH(LayerRig<Dtype> rig(groups), "7");
}

// ---- Mining.

TYPED_TEST(TripletLossLayerTest, TestMiningAll) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<string> options = Options();
  for (int i = 0; i < options.size(); ++i) {
    ExpectMined<Dtype>(Mined("0102120", 4, options[i] + " mining: ALL"));
  }
}

TYPED_TEST(TripletLossLayerTest, TestMiningHardest) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<string> options = Options();
  for (int i = 0; i < options.size(); ++i) {
    ExpectMined<Dtype>(Mined("01021203", 4, options[i] + " mining: HARDEST"));
  }
}

TYPED_TEST(TripletLossLayerTest, TestMiningSizes) {
  typedef typename TypeParam::Dtype Dtype;
  const int dims[] = {1, 3, 7, 33};
  const char* labels[] = {"001",      "100",        "0011",
                          "01010101", "0001112223", "93939000111"};
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 6; ++j) {
      ExpectMined<Dtype>(Mined(labels[j], dims[i], kMinings[0]));
      ExpectMined<Dtype>(Mined(labels[j], dims[i], kMinings[3]));
    }
  }
  // labels and features with more axes
  LayerSpec spec = Mined("010210", 12, kMinings[0]);
  spec.bottoms[0].shape = Shape(6, 2, 3, 2);
  spec.bottoms[1].shape = Shape(6, 1, 1, 1);
  ExpectMined<Dtype>(spec);
}

TYPED_TEST(TripletLossLayerTest, TestMiningTies) {
  typedef typename TypeParam::Dtype Dtype;
  // A grid of small integers: exact distances, many of them equal, hinges
  // that are exactly 0 and negatives exactly on a threshold.
  LayerSpec all = Mined("0011223301230123", 2, "mining: ALL margin: 1");
  for (int i = 0; i < 16; ++i) {
    all.bottoms[0].values[2 * i] = i % 4;
    all.bottoms[0].values[2 * i + 1] = i / 4;
  }
  ExpectMined<Dtype>(all);
  LayerSpec hardest = all;
  hardest.prototxt = Prototxt("mining: HARDEST margin: 1");
  ExpectMined<Dtype>(hardest);
  // row 0 has two farthest positives and two closest negatives
  LayerSpec equal = Mined("00011", 1, "mining: HARDEST margin: 1");
  const double y[] = {0, 2, -2, 1, -1};
  equal.bottoms[0].values.assign(y, y + 5);
  ExpectMined<Dtype>(equal);
  // d_an is exactly d_ap, and exactly d_ap + margin: neither is semi-hard
  LayerSpec line = Mined("0011", 1, "mining: SEMIHARD margin: 3");
  const double x[] = {0, 1, -1, 2};
  line.bottoms[0].values.assign(x, x + 4);
  ASSERT_EQ(0, Oracle(line).Candidates().size());
  ExpectNothing<Dtype>(line);
  // and d_an = d_ap + margin is not violating
  line.prototxt = Prototxt("mining: VIOLATING margin: 3");
  ASSERT_EQ(4, Oracle(line).Candidates().size());
  ExpectSomeDraw<Dtype>(line, 1);
}

TYPED_TEST(TripletLossLayerTest, TestMiningDrawsLegally) {
  typedef typename TypeParam::Dtype Dtype;
  for (int i = 1; i <= 2; ++i) {
    const string mining = kMinings[i];
    for (unsigned int seed = 1; seed <= 3; ++seed) {
      ExpectSomeDraw<Dtype>(Mined("001122", 3, mining, "", seed), seed);
      ExpectSomeDraw<Dtype>(
          Mined("00123", 1, mining + " losstype: SOFT", "", seed), seed);
      ExpectSomeDraw<Dtype>(
          Mined("0001", 7, mining + " use_pair: true losstype: RATIO", "",
                seed),
          seed);
      ExpectSomeDraw<Dtype>(
          Mined("010213", 3, mining + " distance: L2 margin: 0.5",
                "loss_weight: 3", seed),
          seed);
      ExpectSomeDraw<Dtype>(
          Mined("010213", 3, mining + " distance: LP p: 3 swap: true", "",
                seed),
          seed);
      ExpectSomeDraw<Dtype>(
          Mined("011213", 3,
                mining + " distance: COSINE margin: 0.5 swap: true",
                "loss_param { normalization: FULL }", seed),
          seed);
    }
  }
}

TYPED_TEST(TripletLossLayerTest, TestReseededForwardRepeatsItself) {
  typedef typename TypeParam::Dtype Dtype;
  for (int i = 0; i < 4; ++i) {
    LayerRig<Dtype> rig(Mined("0011223344", 3, kMinings[i]));
    LayerRig<Dtype> other(Mined("0011223344", 3, kMinings[i]));
    std::map<double, int> losses;
    for (unsigned int seed = 1; seed <= 8; ++seed) {
      rig.Forward(seed);
      rig.Backward();
      const double loss = rig.Top(0)[0];
      const vector<double> diff = rig.BottomDiff(0);
      ++losses[loss];
      other.Forward(seed);
      other.Backward();
      rig.Forward(seed);
      rig.Backward();
      EXPECT_EQ(loss, rig.Top(0)[0]);
      EXPECT_EQ(loss, other.Top(0)[0]);
      EXPECT_TRUE(diff == rig.BottomDiff(0));
      EXPECT_TRUE(diff == other.BottomDiff(0));
    }
    if (i == 0 || i == 3) {
      EXPECT_EQ(1, losses.size()) << kMinings[i] << " draws nothing";
    } else {
      EXPECT_GT(losses.size(), 4) << kMinings[i] << " draws anew each time";
    }
  }
}

TYPED_TEST(TripletLossLayerTest, TestForwardsDrawAnew) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(Mined("0011223344", 3, "mining: VIOLATING"));
  std::map<double, int> losses;
  rig.Forward();
  for (int i = 0; i < 8; ++i) {  // without reseeding
    rig.layer()->Forward(rig.bottoms(), rig.tops());
    ++losses[rig.Top(0)[0]];
  }
  EXPECT_GT(losses.size(), 4);
}

TYPED_TEST(TripletLossLayerTest, TestReshape) {
  typedef typename TypeParam::Dtype Dtype;
  const char* labels[] = {"0101", "0", "001122001122", "010"};
  for (int i = 0; i < 4; ++i) {
    LayerRig<Dtype> rig(Mined(labels[0], 3, kMinings[i]));
    for (int j = 0; j < 4; ++j) {
      const LayerSpec spec = Mined(labels[j], 3, kMinings[i], "", j);
      rig.SetBottom(0, spec.bottoms[0]);
      rig.SetBottom(1, spec.bottoms[1]);
      rig.Forward();
      rig.Backward();
      LayerRig<Dtype> fresh(spec);
      fresh.Forward();
      fresh.Backward();
      EXPECT_EQ(fresh.Top(0)[0], rig.Top(0)[0]);
      EXPECT_TRUE(fresh.BottomDiff(0) == rig.BottomDiff(0));
    }
  }
}

// ---- Gradients.

TYPED_TEST(TripletLossLayerTest, TestGradient) {
  typedef typename TypeParam::Dtype Dtype;
  GradientChecker<Dtype> checker(1e-2, 1e-2);
  // Seeds such that no hinge is within reach of the step. One top only: the
  // further ones do not propagate.
  LayerSpec groups = Groups(2, 3, "margin: 4 num_negatives: 2");
  groups.tops = 1;
  LayerRig<Dtype> one(groups);
  checker.CheckGradientExhaustive(one.layer(), one.bottoms(), one.tops());
  LayerSpec mined = Mined("010120", 3, "mining: ALL losstype: SOFT");
  mined.tops = 1;
  LayerRig<Dtype> two(mined);
  checker.CheckGradientExhaustive(two.layer(), two.bottoms(), two.tops(), 0);
  LayerSpec rows = Rows(4, 3, 3, "losstype: RATIO margin: 6 use_pair: true");
  rows.tops = 1;
  LayerRig<Dtype> four(rows);
  for (int i = 0; i < 3; ++i) {
    checker.CheckGradientExhaustive(four.layer(), four.bottoms(), four.tops(),
                                    i);
  }
}

TYPED_TEST(TripletLossLayerTest, TestGradientRelative) {
  const vector<string> options = Options();
  for (int i = 0; i < options.size(); ++i) {
    const string weight = i % 2 ? "loss_weight: 2.5" : "";
    ExpectGradient<TypeParam>(
        Groups(2, 3, options[i] + " num_negatives: 2", weight));
    ExpectGradient<TypeParam>(Rows(3, 3, 4, options[i], weight));
    ExpectGradient<TypeParam>(Rows(4, 3, 4, options[i], weight));
    for (int j = 0; j < 4; ++j) {
      ExpectGradient<TypeParam>(
          Mined("010201", 3, options[i] + " " + kMinings[j], weight));
    }
  }
}

// ---- What is slow or random, on the CPU only.

template <typename Dtype>
class TripletLossLayerCPUTest : public CPUDeviceTest<Dtype> {};

TYPED_TEST_CASE(TripletLossLayerCPUTest, TestDtypes);

TYPED_TEST(TripletLossLayerCPUTest, TestLargerBatches) {
  const int dims[] = {1, 3, 7, 33};
  for (int i = 0; i < 4; ++i) {
    string few, many, uneven;
    for (int j = 0; j < 48; ++j) {
      few.push_back('0' + j % 3);
      many.push_back('0' + j % 9);
      uneven.push_back('0' + (j % 7 ? 0 : j % 9));
    }
    const string margin = i < 2 ? "margin: 0.2 " : "margin: 2 ";
    ExpectMined<TypeParam>(Mined(few, dims[i], margin + kMinings[0]));
    ExpectMined<TypeParam>(Mined(many, dims[i], margin + kMinings[0]));
    ExpectMined<TypeParam>(Mined(uneven, dims[i], margin + kMinings[0]));
    ExpectMined<TypeParam>(
        Mined(many, dims[i], margin + "swap: true " + kMinings[0]));
    ExpectMined<TypeParam>(Mined(many, dims[i], margin + kMinings[3]));
    ExpectListed<TypeParam>(Rows(3, 200, dims[i], margin));
  }
}

// A Gram matrix of more than 2^24 elements is handled a strip of rows at a
// time. Only eight rows have a positive, or the oracle would take for ever.
TYPED_TEST(TripletLossLayerCPUTest, TestManyStrips) {
  const int pairs[][2] = {{0, 4199}, {1, 2}, {2500, 4100}, {3000, 3990}};
  for (int i = 0; i < 4; ++i) {
    LayerSpec spec = Mined(string(4200, '0'), 3, kMinings[i]);
    for (int row = 0; row < 4200; ++row) {
      spec.bottoms[1].values[row] = row;
    }
    for (int k = 0; k < 4; ++k) {
      spec.bottoms[1].values[pairs[k][1]] = pairs[k][0];
    }
    if (i == 0 || i == 3) {
      ExpectMined<TypeParam>(spec);
      continue;
    }
    // each of the eight pairs draws a candidate
    LayerRig<TypeParam> rig(spec);
    rig.Forward();
    EXPECT_GT(rig.Top(0)[0], 0);
    EXPECT_EQ(1, rig.Top(1)[0]);
    rig.Backward();
    vector<int> touched;
    for (int row = 0; row < 4200; ++row) {
      const TypeParam* dx = rig.bottom(0)->cpu_diff() + 3 * row;
      if (dx[0] != 0 || dx[1] != 0 || dx[2] != 0) {
        touched.push_back(row);
      }
    }
    EXPECT_GT(touched.size(), 8);
    EXPECT_LE(touched.size(), 16);
    for (int k = 0; k < 4; ++k) {
      EXPECT_EQ(1, std::count(touched.begin(), touched.end(), pairs[k][0]));
      EXPECT_EQ(1, std::count(touched.begin(), touched.end(), pairs[k][1]));
    }
  }
}

// Every candidate is drawn equally often, and anchors draw independently.
TYPED_TEST(TripletLossLayerCPUTest, TestDrawsAreUniform) {
  // Distances to row 0 and row 1 are all different, so a draw shows in the
  // loss. Anchors 0 and 1 have three candidates each: nine draws.
  LayerSpec spec = Mined("00123", 2, "mining: VIOLATING margin: 100",
                         "loss_param { normalization: NONE }", 5);
  ASSERT_EQ(2, Oracle(spec).Candidates().size());
  LayerRig<TypeParam> rig(spec);
  std::map<double, int> draws;
  const int kDraws = 1800;
  for (int i = 0; i < kDraws; ++i) {
    rig.Forward(i + 1);
    ++draws[rig.Top(0)[0]];
  }
  EXPECT_EQ(9, draws.size());
  const double mean = kDraws / 9.;
  const double sigma = std::sqrt(kDraws * (1 / 9.) * (8 / 9.));
  for (std::map<double, int>::iterator it = draws.begin(); it != draws.end();
       ++it) {
    EXPECT_NEAR(mean, it->second, 5 * sigma) << "loss " << it->first;
  }
}

// The check itself: it does not depend on type and device.
class TripletLossLayerCheckTest : public CPUDeviceTest<double> {};

TEST_F(TripletLossLayerCheckTest, TestTeeth) {
  const string weight = "loss_weight: 2.5";
  ExpectTeeth(Groups(2, 3, "margin: 9", weight));
  ExpectTeeth(Rows(3, 3, 3, "losstype: RATIO margin: 9 distance: L2", weight));
  ExpectTeeth(Rows(4, 3, 3, "losstype: SOFT distance: COSINE", weight));
  for (int i = 0; i < 4; ++i) {
    ExpectTeeth(Mined("010201", 3, kMinings[i], weight));
  }
}

// A hinge that is exactly 0 is counted, neither compared nor passed over.
TEST_F(TripletLossLayerCheckTest, TestCheckCountsKinks) {
  LayerSpec spec = Rows(3, 2, 1, "margin: 2");
  const double a[] = {0, 0}, p[] = {1, 1}, n[] = {2, 1.75};
  spec.bottoms[0].values.assign(a, a + 2);
  spec.bottoms[1].values.assign(p, p + 2);
  spec.bottoms[2].values.assign(n, n + 2);
  metric_test::GradientReport report = metric_test::CheckGradient(spec);
  EXPECT_EQ(0, report.kinks);  // 1 - 4 + 2 < 0, 1 - 3.0625 + 2 < 0
  EXPECT_EQ(0, report.largest);
  spec.prototxt = Prototxt("margin: 3");
  report = metric_test::CheckGradient(spec);
  EXPECT_EQ(3, report.kinks);  // 1 - 4 + 3 = 0, in each bottom
  EXPECT_EQ(3, report.checked);
  EXPECT_LE(report.error, Tolerance<double>::Difference());
}

}  // namespace caffe
