// Why: the published layers' gradient is not that of their forward pass, and
// nobody could tell: their weights change under the check, and Caffe's checker
// lets a small gradient pass. The values are held here against arccos, the
// gradient against central differences with the weights restored before each
// forward, REFERENCE against the published rule written out.
// Sweeps: four types x lambda x normalize_features x scale, both additive
// margins; M = 1 to 12; K = 1, 3, 7, 33; C = 1 to 9; zero rows; ties; both
// phases; lambda's schedule and the blob that keeps it.
// Tolerances: test_metric_util.hpp. Caffe's GradientChecker runs with gamma 0
// and a step of 1e-4, since weights move in a forward.
// Leaves out: snapshots of whole nets and most bad input (pytest), speed.
#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/margin_inner_product_layer.hpp"

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
using metric_test::LayerRig;
using metric_test::LayerSpec;
using metric_test::Numbers;
using metric_test::ParseLayer;
using metric_test::RandomBlob;
using metric_test::Shape;
using metric_test::Tolerance;

namespace {

const double kPi = 3.14159265358979323846;

// ---- The oracle: a row and a class at a time, by arccos, in float64.

class Oracle {
 public:
  // The weights are those that the layer is given, of any length.
  Oracle(const LayerSpec& spec, const vector<double>& weights)
      : layer_(ParseLayer(spec.prototxt)),
        param_(layer_.margin_inner_product_param()),
        weights_(weights),
        label_(spec.bottoms[1].values),
        rows_(label_.size()),
        dim_(weights.size() / param_.num_output()),
        x_(spec.bottoms[0].values) {}

  int classes() const { return param_.num_output(); }
  int label(int i) const { return static_cast<int>(label_[i]); }

  double Lambda(double t) const {
    return std::max<double>(
        param_.lambda_min(),
        param_.base() * std::pow(1 + param_.gamma() * t, -param_.power()));
  }

  // The target's cosine, of the angle theta, with its margin.
  double Psi(double theta) const {
    const int m = 1 + param_.type();
    // the last piece ends at pi
    const int k = std::min(static_cast<int>(m * theta / kPi), m - 1);
    return (k % 2 ? -1 : 1) * std::cos(m * theta) - 2 * k;
  }

  // psi' = d psi / d cos(theta)
  double PsiSlope(double theta) const {
    const int m = 1 + param_.type();
    const int k = std::min(static_cast<int>(m * theta / kPi), m - 1);
    return (k % 2 ? -1 : 1) * m * std::sin(m * theta) / std::sin(theta);
  }

  double Cosine(int i, int j) const {
    const double norms = Norm(x(i)) * Norm(w(j));
    return norms == 0 ? 0 : Dot(x(i), w(j)) / norms;
  }

  vector<double> Logits(double lambda, bool margin) const {
    vector<double> z(rows_ * classes());
    for (int i = 0; i < rows_; ++i) {
      const bool zero = Norm(x(i)) == 0;
      const double r = param_.normalize_features() ? 1 : Norm(x(i));
      for (int j = 0; j < classes(); ++j) {
        double c = Cosine(i, j);
        if (margin && j == label(i)) {
          c = Target(c, lambda);
        }
        z[i * classes() + j] = zero ? 0 : param_.scale() * r * c;
      }
    }
    return z;
  }

  // The published code's gradients.
  void Reference(const vector<double>& top_diff, double lambda,
                 vector<double>* dx, vector<double>* dw) const {
    dx->assign(rows_ * dim_, 0);
    dw->assign(classes() * dim_, 0);
    for (int i = 0; i < rows_; ++i) {
      for (int j = 0; j < classes(); ++j) {
        const double diff = top_diff[i * classes() + j];
        const double w_norm = Norm(w(j));
        double by_w = 1, by_x = 0;
        if (j == label(i)) {
          const double c = Cosine(i, j);
          const double slope = PsiSlope(std::acos(c));
          const double c_w = slope;
          const double c_x = (Psi(std::acos(c)) - c * slope) / Norm(x(i));
          const double length = std::sqrt(c_w * c_w + c_x * c_x);
          by_w = (lambda + c_w / length) / (1 + lambda);
          by_x = c_x / length / (1 + lambda);
        }
        for (int k = 0; k < dim_; ++k) {
          (*dx)[i * dim_ + k] +=
              diff * (by_w * w(j)[k] / w_norm + by_x * x(i)[k]);
          (*dw)[j * dim_ + k] += diff * x(i)[k];
        }
      }
    }
  }

  // Whether the largest logit, the first of them, is the label's.
  bool Right(int i, const vector<double>& logits) const {
    int best = 0;
    for (int j = 1; j < classes(); ++j) {
      best =
          logits[i * classes() + j] > logits[i * classes() + best] ? j : best;
    }
    return best == label(i);
  }

  vector<double> UnitFeature(int i) const {
    vector<double> unit(x(i), x(i) + dim_);
    for (int k = 0; k < dim_; ++k) {
      unit[k] /= Norm(x(i));
    }
    return unit;
  }

 private:
  const double* x(int i) const { return &x_[i * dim_]; }
  const double* w(int j) const { return &weights_[j * dim_]; }

  double Dot(const double* u, const double* v) const {
    double sum = 0;
    for (int k = 0; k < dim_; ++k) {
      sum += u[k] * v[k];
    }
    return sum;
  }
  double Norm(const double* u) const { return std::sqrt(Dot(u, u)); }

  double Target(double c, double lambda) const {
    const double theta = std::acos(std::max(-1., std::min(1., c)));
    const double m2 = param_.angular_margin(), m3 = param_.cosine_margin();
    if (m2 == 0 && m3 == 0) {
      return (lambda * c + Psi(theta)) / (1 + lambda);
    }
    return (theta + m2 > kPi ? c - m2 * std::sin(m2) : std::cos(theta + m2)) -
           m3;
  }

  LayerParameter layer_;
  MarginInnerProductParameter param_;
  vector<double> weights_;
  vector<double> label_;
  int rows_, dim_;
  vector<double> x_;
};

// ---- Layers to try.

const char* const kTypes[] = {"type: SINGLE", "type: DOUBLE", "type: TRIPLE",
                              "type: QUADRUPLE"};

// Weights of length about 1 to 3, for the layer to scale.
LayerSpec Spec(const string& labels, int dim, int classes, const string& param,
               const string& layer = "", unsigned int seed = 1) {
  LayerSpec spec;
  std::ostringstream prototxt;
  prototxt << "name: 'margin' type: 'MarginInnerProduct' "
           << "margin_inner_product_param { num_output: " << classes
           << " weight_filler { type: 'xavier' } " << param << " } " << layer;
  spec.prototxt = prototxt.str();
  const BlobSpec y = Labels(labels);
  spec.bottoms.push_back(RandomBlob(Shape(y.rows(), dim), seed));
  spec.bottoms.push_back(y);
  spec.params.push_back(Numbers(seed + 50).Uniform(classes * dim, -1, 1));
  spec.tops = 2;
  spec.top_diffs.push_back(
      Numbers(seed + 90).Uniform(y.rows() * classes, -1, 1));
  spec.top_diffs.push_back(vector<double>(1, 0));
  spec.checked_bottoms.push_back(0);
  spec.checked_params.push_back(0);
  return spec;
}

// What changes the arithmetic and goes with every type.
vector<string> Options() {
  const char* lambdas[] = {
      "base: 0", "base: 5",
      "base: 2 gamma: 0.5 power: 2 iteration: 3 lambda_min: 0.0625"};
  const char* scales[] = {"", "scale: 16", "normalize_features: true",
                          "normalize_features: true scale: 4"};
  vector<string> options;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 4; ++j) {
      options.push_back(string(lambdas[i]) + " " + scales[j]);
    }
  }
  return options;
}

vector<string> AdditiveMargins() {
  const char* margins[] = {"angular_margin: 0.5", "cosine_margin: 0.35",
                           "angular_margin: 0.3 cosine_margin: 0.2",
                           "angular_margin: 1.5"};
  const char* scales[] = {"", "normalize_features: true scale: 8"};
  vector<string> options;
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 2; ++j) {
      options.push_back(string(margins[i]) + " " + scales[j]);
    }
  }
  return options;
}

template <typename Dtype>
void ExpectLogits(const vector<double>& expected, LayerRig<Dtype>* rig) {
  ExpectArray(expected, rig->Top(0), Tolerance<Dtype>::Value());
}

// A first TRAIN forward, against arccos.
template <typename Dtype>
void ExpectForward(const LayerSpec& spec) {
  SCOPED_TRACE(spec.prototxt);
  const Oracle oracle(spec, spec.params[0]);
  const double lambda = oracle.Lambda(
      1 + ParseLayer(spec.prototxt).margin_inner_product_param().iteration());
  LayerRig<Dtype> rig(spec);
  rig.Forward();
  ExpectLogits(oracle.Logits(lambda, true), &rig);
  EXPECT_EQ(0, rig.top(1)->num_axes());
  ExpectValue(lambda, rig.Top(1)[0], Tolerance<Dtype>::Value());
}

vector<double> Row(const vector<double>& matrix, int row, int dim) {
  return vector<double>(matrix.begin() + row * dim,
                        matrix.begin() + (row + 1) * dim);
}

double Length(const vector<double>& values) {
  double sum = 0;
  for (int i = 0; i < values.size(); ++i) {
    sum += values[i] * values[i];
  }
  return std::sqrt(sum);
}

bool Near(const vector<double>& a, const vector<double>& b) {
  double sum = 0;
  for (int i = 0; i < a.size(); ++i) {
    sum += (a[i] - b[i]) * (a[i] - b[i]);
  }
  return std::sqrt(sum) < 1e-5;
}

}  // namespace

template <typename TypeParam>
class MarginInnerProductLayerTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(MarginInnerProductLayerTest, TestDtypesAndDevices);

TYPED_TEST(MarginInnerProductLayerTest, TestSetUp) {
  typedef typename TypeParam::Dtype Dtype;
  LayerSpec spec = Spec("0120", 12, 5, "iteration: 7");
  spec.bottoms[0].shape = Shape(4, 2, 3, 2);
  LayerRig<Dtype> rig(spec);
  EXPECT_STREQ("MarginInnerProduct", rig.layer()->type());
  EXPECT_TRUE(dynamic_cast<MarginInnerProductLayer<Dtype>*>(rig.layer()) !=
              NULL);
  EXPECT_TRUE(rig.layer()->AllowForceBackward(0));
  EXPECT_EQ(Shape(4, 5), rig.top(0)->shape());
  EXPECT_EQ(0, rig.top(1)->num_axes());
  ASSERT_EQ(2, rig.layer()->blobs().size());
  EXPECT_EQ(Shape(5, 12), rig.param(0)->shape());
  EXPECT_EQ(1, rig.param(1)->count());
  EXPECT_EQ(7, rig.param(1)->cpu_data()[0]);
  EXPECT_EQ(0, rig.layer()->loss(0));
}

TYPED_TEST(MarginInnerProductLayerTest, TestAxis) {
  typedef typename TypeParam::Dtype Dtype;
  LayerSpec spec = Spec("012012", 4, 3, "axis: 2 type: DOUBLE");
  spec.bottoms[0].shape = Shape(2, 3, 4);
  LayerRig<Dtype> rig(spec);
  EXPECT_EQ(Shape(2, 3, 3), rig.top(0)->shape());
  ExpectForward<Dtype>(spec);
  spec = Spec("012012", 4, 3, "axis: -1 type: DOUBLE");
  spec.bottoms[0].shape = Shape(2, 3, 4);
  spec.bottoms[1].shape = Shape(2, 3);
  ExpectForward<Dtype>(spec);
}

TYPED_TEST(MarginInnerProductLayerTest, TestForward) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<string> options = Options();
  for (int type = 0; type < 4; ++type) {
    for (int i = 0; i < options.size(); ++i) {
      ExpectForward<Dtype>(
          Spec("01230123", 2, 4, string(kTypes[type]) + " " + options[i]));
    }
  }
  const vector<string> margins = AdditiveMargins();
  for (int i = 0; i < margins.size(); ++i) {
    ExpectForward<Dtype>(Spec("01230123", 2, 4, margins[i]));
  }
}

TYPED_TEST(MarginInnerProductLayerTest, TestSizes) {
  typedef typename TypeParam::Dtype Dtype;
  const int dims[] = {1, 3, 7, 33};
  for (int i = 0; i < 4; ++i) {
    for (int type = 0; type < 4; ++type) {
      ExpectForward<Dtype>(Spec("0", dims[i], 1, kTypes[type]));
      ExpectForward<Dtype>(Spec("3", dims[i], 5, kTypes[type]));
      ExpectForward<Dtype>(Spec("012345678888", dims[i], 9, kTypes[type]));
      ExpectForward<Dtype>(Spec("1111", dims[i], 2, kTypes[type]));
    }
  }
}

// theta all the way from 0 to pi, the ends included.
TYPED_TEST(MarginInnerProductLayerTest, TestAllAngles) {
  typedef typename TypeParam::Dtype Dtype;
  const int kAngles = 49;  // all multiples of pi / 48: of pi / 2, 3 and 4 too
  string params[6] = {kTypes[0],
                      kTypes[1],
                      kTypes[2],
                      kTypes[3],
                      "angular_margin: 0.5",
                      "angular_margin: 1.2 cosine_margin: 0.1"};
  for (int i = 0; i < 6; ++i) {
    LayerSpec spec = Spec(string(kAngles, '0'), 2, 1, params[i] + " base: 0");
    spec.params[0][0] = 1;
    spec.params[0][1] = 0;
    for (int k = 0; k < kAngles; ++k) {
      spec.bottoms[0].values[2 * k] =
          static_cast<float>(std::cos(kPi * k / (kAngles - 1)));
      spec.bottoms[0].values[2 * k + 1] =
          static_cast<float>(std::sin(kPi * k / (kAngles - 1)));
    }
    ExpectForward<Dtype>(spec);
    LayerRig<Dtype> rig(spec);
    rig.Forward();
    rig.Backward();
    const vector<double> dx = rig.BottomDiff(0);
    for (int k = 0; k < dx.size(); ++k) {
      EXPECT_LT(std::abs(dx[k]), 1e7) << "row " << k / 2;  // finite
    }
    const vector<double> z = rig.Top(0);
    for (int k = 1; k < kAngles; ++k) {
      EXPECT_LT(z[k], z[k - 1] + 1e-6);  // psi falls, jump included
    }
  }
}

TYPED_TEST(MarginInnerProductLayerTest, TestTrainForwardScalesWeights) {
  typedef typename TypeParam::Dtype Dtype;
  LayerSpec spec = Spec("0120", 7, 5, "type: QUADRUPLE");
  for (int k = 0; k < 7; ++k) {
    spec.params[0][3 * 7 + k] = 0;  // a class without weights
  }
  LayerRig<Dtype> rig(spec);
  rig.Forward();
  const vector<double> w = rig.Param(0);
  for (int j = 0; j < 5; ++j) {
    const vector<double> before = Row(spec.params[0], j, 7);
    const double length = Length(before);
    if (j == 3) {
      ExpectAllZero(Row(w, j, 7));
      continue;
    }
    for (int k = 0; k < 7; ++k) {
      EXPECT_NEAR(before[k] / length, w[j * 7 + k], Tolerance<Dtype>::Value());
    }
  }
  // Once unit, they stay bit for bit what they are.
  rig.layer()->Forward(rig.bottoms(), rig.tops());
  EXPECT_TRUE(w == rig.Param(0));
  rig.Backward();
  EXPECT_TRUE(w == rig.Param(0));
}

TYPED_TEST(MarginInnerProductLayerTest, TestTestPhase) {
  typedef typename TypeParam::Dtype Dtype;
  const char* params[] = {
      "type: QUADRUPLE base: 2", "angular_margin: 0.4",
      "type: TRIPLE base: 0 normalize_features: true scale: 4"};
  for (int i = 0; i < 3; ++i) {
    for (int margin = 0; margin < 2; ++margin) {
      const LayerSpec spec =
          Spec("0120", 7, 5,
               string(params[i]) + (margin ? " margin_in_test: true" : ""),
               "phase: TEST");
      LayerRig<Dtype> rig(spec);
      rig.Forward();
      rig.layer()->Forward(rig.bottoms(), rig.tops());
      const Oracle oracle(spec, spec.params[0]);
      ExpectLogits(oracle.Logits(oracle.Lambda(0), margin), &rig);
      ExpectValue(oracle.Lambda(0), rig.Top(1)[0], Tolerance<Dtype>::Value());
      const vector<double> w = rig.Param(0);
      for (int k = 0; k < w.size(); ++k) {
        EXPECT_EQ(spec.params[0][k], w[k]);
      }
      EXPECT_EQ(0, rig.Param(1)[0]);  // t
    }
  }
}

TYPED_TEST(MarginInnerProductLayerTest, TestLambdaSchedule) {
  typedef typename TypeParam::Dtype Dtype;
  const char* params[] = {
      "base: 1000 gamma: 0.12 power: 1 lambda_min: 5 iteration: 0",
      "base: 10 gamma: 0.5 power: 2 lambda_min: 0.25 iteration: 11", "base: 3",
      "base: 0 lambda_min: 2",
      "base: 10 gamma: 1 persist_iteration: false iteration: 2"};
  for (int i = 0; i < 5; ++i) {
    const LayerSpec spec =
        Spec("012", 3, 3, string(params[i]) + " type: TRIPLE");
    const Oracle oracle(spec, spec.params[0]);
    const int iteration =
        ParseLayer(spec.prototxt).margin_inner_product_param().iteration();
    LayerRig<Dtype> rig(spec);
    for (int t = 1; t <= 40; ++t) {
      rig.layer()->Forward(rig.bottoms(), rig.tops());
      const double lambda = oracle.Lambda(iteration + t);
      EXPECT_NEAR(lambda, rig.Top(1)[0], lambda * Tolerance<Dtype>::Value());
      ExpectLogits(oracle.Logits(lambda, true), &rig);
      if (i != 4) {
        EXPECT_EQ(iteration + t, rig.Param(1)[0]);
      }
    }
  }
}

TYPED_TEST(MarginInnerProductLayerTest, TestIterationPersists) {
  typedef typename TypeParam::Dtype Dtype;
  const string param = "base: 10 gamma: 1 type: DOUBLE iteration: 4";
  LayerSpec spec = Spec("012", 3, 3, param);
  const Oracle oracle(spec, spec.params[0]);
  LayerRig<Dtype> trained(spec);
  for (int t = 0; t < 6; ++t) {
    trained.layer()->Forward(trained.bottoms(), trained.tops());
  }
  EXPECT_EQ(10, trained.Param(1)[0]);
  // As a snapshot is loaded: after SetUp, by ShareData or CopyFrom.
  LayerRig<Dtype> resumed(spec);
  resumed.param(0)->CopyFrom(*trained.param(0));
  resumed.param(1)->CopyFrom(*trained.param(1));
  resumed.layer()->Forward(resumed.bottoms(), resumed.tops());
  EXPECT_EQ(11, resumed.Param(1)[0]);
  ExpectValue(oracle.Lambda(11), resumed.Top(1)[0], Tolerance<Dtype>::Value());
  // A net for testing shares the blobs of the one that trains.
  LayerRig<Dtype> test(Spec("012", 3, 3, param, "phase: TEST"));
  test.param(0)->ShareData(*trained.param(0));
  test.param(1)->ShareData(*trained.param(1));
  test.layer()->Forward(test.bottoms(), test.tops());
  ExpectValue(oracle.Lambda(10), test.Top(1)[0], Tolerance<Dtype>::Value());
  EXPECT_EQ(10, trained.Param(1)[0]);
}

// LayerParameter is what a Net reads the learning rates from.
TYPED_TEST(MarginInnerProductLayerTest, TestIterationDoesNotLearn) {
  typedef typename TypeParam::Dtype Dtype;
  const char* given[] = {
      "", "param { lr_mult: 3 decay_mult: 4 }",
      "param { lr_mult: 3 decay_mult: 4 } param { lr_mult: 0 decay_mult: 0 }"};
  for (int i = 0; i < 3; ++i) {
    LayerRig<Dtype> rig(Spec("012", 3, 3, "", given[i]));
    const LayerParameter& param = rig.layer()->layer_param();
    ASSERT_EQ(2, param.param_size());
    EXPECT_EQ(i == 0 ? 1 : 3, param.param(0).lr_mult());
    EXPECT_EQ(i == 0 ? 1 : 4, param.param(0).decay_mult());
    EXPECT_EQ(0, param.param(1).lr_mult());
    EXPECT_EQ(0, param.param(1).decay_mult());
    rig.Forward();
    rig.Backward();
    EXPECT_EQ(0, rig.ParamDiff(1)[0]);
  }
  LayerRig<Dtype> older(Spec("012", 3, 3, "persist_iteration: false"));
  EXPECT_EQ(1, older.layer()->blobs().size());
  EXPECT_EQ(0, older.layer()->layer_param().param_size());
}

TYPED_TEST(MarginInnerProductLayerTest, TestLabelsGetZeroDiff) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(Spec("0120", 3, 3, "type: DOUBLE"));
  rig.Forward();
  rig.Backward();
  ExpectAllZero(rig.BottomDiff(1));
}

TYPED_TEST(MarginInnerProductLayerTest, TestDiffsOfWeightsAccumulate) {
  typedef typename TypeParam::Dtype Dtype;
  const char* gradients[] = {"gradient: EXACT", "gradient: REFERENCE"};
  for (int i = 0; i < 2; ++i) {
    LayerRig<Dtype> rig(
        Spec("0120", 3, 3, string("type: DOUBLE ") + gradients[i]));
    rig.Forward();
    rig.Backward();
    vector<double> twice = rig.ParamDiff(0);
    const vector<double> dx = rig.BottomDiff(0);
    rig.layer()->Backward(rig.tops(), vector<bool>(2, true), rig.bottoms());
    for (int k = 0; k < twice.size(); ++k) {
      twice[k] *= 2;
    }
    ExpectArray(twice, rig.ParamDiff(0), Tolerance<Dtype>::Gradient());
    EXPECT_TRUE(dx == rig.BottomDiff(0));  // bottoms do not
  }
}

TYPED_TEST(MarginInnerProductLayerTest, TestZeroFeatures) {
  typedef typename TypeParam::Dtype Dtype;
  const char* params[] = {"type: QUADRUPLE", "normalize_features: true",
                          "angular_margin: 0.5",
                          "type: TRIPLE gradient: REFERENCE"};
  for (int i = 0; i < 4; ++i) {
    LayerSpec spec = Spec("0120", 3, 3, params[i]);
    for (int k = 0; k < 3; ++k) {
      spec.bottoms[0].values[3 + k] = 0;
    }
    SCOPED_TRACE(spec.prototxt);
    ExpectForward<Dtype>(spec);
    LayerRig<Dtype> rig(spec);
    rig.Forward();
    rig.Backward();
    const vector<double> dx = rig.BottomDiff(0);
    ExpectAllZero(Row(rig.Top(0), 1, 3));
    ExpectAllZero(Row(dx, 1, 3));
    EXPECT_GT(Length(Row(dx, 0, 3)), 0);
    EXPECT_LT(Length(rig.ParamDiff(0)), 100);  // finite
  }
}

TYPED_TEST(MarginInnerProductLayerTest, TestZeroWeights) {
  typedef typename TypeParam::Dtype Dtype;
  const char* params[] = {"type: QUADRUPLE", "angular_margin: 0.5",
                          "type: TRIPLE gradient: REFERENCE"};
  for (int i = 0; i < 3; ++i) {
    for (int phase = 0; phase < 2; ++phase) {
      LayerSpec spec = Spec("0120", 3, 3, params[i],
                            phase == 0 ? "phase: TRAIN" : "phase: TEST");
      for (int k = 0; k < 3; ++k) {
        spec.params[0][3 + k] = 0;
      }
      LayerRig<Dtype> rig(spec);
      rig.Forward();
      rig.Backward();
      ExpectAllZero(Row(rig.Param(0), 1, 3));
      EXPECT_LT(Length(rig.Top(0)), 100);  // finite
      EXPECT_LT(Length(rig.BottomDiff(0)), 100);
      EXPECT_LT(Length(rig.ParamDiff(0)), 100);
      if (phase == 0) {
        ExpectForward<Dtype>(spec);
      }
    }
  }
}

TYPED_TEST(MarginInnerProductLayerTest, TestReference) {
  typedef typename TypeParam::Dtype Dtype;
  const char* lambdas[] = {"base: 0", "base: 5"};
  for (int type = 0; type < 4; ++type) {
    for (int i = 0; i < 2; ++i) {
      const LayerSpec spec = Spec(
          "01201", 4, 3,
          string(kTypes[type]) + " " + lambdas[i] + " gradient: REFERENCE");
      SCOPED_TRACE(spec.prototxt);
      ExpectForward<Dtype>(spec);
      LayerRig<Dtype> rig(spec);
      rig.Forward();
      rig.Backward();
      vector<double> dx, dw;
      Oracle(spec, spec.params[0])
          .Reference(spec.top_diffs[0], i == 0 ? 0 : 5, &dx, &dw);
      ExpectArray(dx, rig.BottomDiff(0), Tolerance<Dtype>::Gradient());
      ExpectArray(dw, rig.ParamDiff(0), Tolerance<Dtype>::Gradient());
    }
  }
}

TYPED_TEST(MarginInnerProductLayerTest, TestSemihard) {
  typedef typename TypeParam::Dtype Dtype;
  const char* params[] = {"type: SINGLE",
                          "type: DOUBLE base: 0.5",
                          "type: TRIPLE base: 0.5",
                          "type: QUADRUPLE base: 0.5",
                          "type: TRIPLE base: 0.5 gradient: REFERENCE",
                          "cosine_margin: 0.1",
                          "angular_margin: 0.1 normalize_features: true"};
  for (int i = 0; i < 7; ++i) {
    const LayerSpec all = Spec("012012012012", 2, 3, params[i]);
    LayerSpec some = all;
    some.prototxt.replace(some.prototxt.find("num_output"), 0,
                          "semihard: true ");
    SCOPED_TRACE(some.prototxt);
    ExpectForward<Dtype>(some);
    LayerRig<Dtype> expected(all), actual(some);
    expected.Forward();
    expected.Backward();
    actual.Forward();
    actual.Backward();
    const Oracle oracle(all, all.params[0]);
    const double lambda = oracle.Lambda(1);
    const bool wrong_ones_too = i > 0 && i < 5;
    int easy = 0, hard = 0, between = 0;
    vector<double> dx = expected.BottomDiff(0);
    for (int row = 0; row < 12; ++row) {
      if (oracle.Right(row, oracle.Logits(lambda, true))) {
        ++easy;
      } else if (wrong_ones_too &&
                 !oracle.Right(row, oracle.Logits(lambda, false))) {
        ++hard;
      } else {
        ++between;
        continue;
      }
      dx[2 * row] = dx[2 * row + 1] = 0;
      ExpectAllZero(Row(actual.BottomDiff(0), row, 2));
    }
    EXPECT_GT(easy, 0);
    EXPECT_GT(between, 0);
    EXPECT_EQ(wrong_ones_too, hard > 0);
    ExpectArray(dx, actual.BottomDiff(0), Tolerance<Dtype>::Gradient());
    ExpectArray(expected.ParamDiff(0), actual.ParamDiff(0),
                Tolerance<Dtype>::Gradient());
  }
}

// The lowest index is the largest of equal logits.
TYPED_TEST(MarginInnerProductLayerTest, TestSemihardTies) {
  typedef typename TypeParam::Dtype Dtype;
  // Classes 0 and 1 have the same weights, and both rows lie at 60 degrees.
  LayerSpec spec = Spec("01", 2, 2, "type: DOUBLE base: 0 semihard: true");
  const double w[] = {1, 0, 1, 0}, x[] = {1, 1.75, 1, 1.75};
  spec.params[0].assign(w, w + 4);
  spec.bottoms[0].values.assign(x, x + 4);
  LayerRig<Dtype> rig(spec);
  rig.Forward();
  rig.Backward();
  // Row 0 is right without the margin only, row 1 is wrong without it.
  EXPECT_GT(Length(Row(rig.BottomDiff(0), 0, 2)), 0);
  ExpectAllZero(Row(rig.BottomDiff(0), 1, 2));
  // A tie of the logits with their margin, which is none: row 0 is right.
  spec = Spec("01", 2, 2, "type: SINGLE base: 0 semihard: true");
  const double along[] = {4, 0, 4, 0};
  spec.params[0].assign(w, w + 4);
  spec.bottoms[0].values.assign(along, along + 4);
  LayerRig<Dtype> single(spec);
  single.Forward();
  single.Backward();
  ExpectAllZero(Row(single.BottomDiff(0), 0, 2));
  EXPECT_GT(Length(Row(single.BottomDiff(0), 1, 2)), 0);
}

TYPED_TEST(MarginInnerProductLayerTest, TestTripletOverwritesWeights) {
  typedef typename TypeParam::Dtype Dtype;
  // The last rows of classes 0, 1, 2 and 4 are 3, 1, 5 and 4; the last row of
  // class 2 is zero.
  LayerSpec spec = Spec("012042", 3, 6, "type: DOUBLE triplet: true",
                        "param { lr_mult: 0 }");
  for (int k = 0; k < 3; ++k) {
    spec.bottoms[0].values[5 * 3 + k] = 0;
  }
  LayerSpec plain = Spec("012042", 3, 6, "type: DOUBLE");
  plain.bottoms = spec.bottoms;
  const Oracle oracle(spec, spec.params[0]);
  LayerRig<Dtype> rig(spec), expected(plain);
  expected.Forward();
  expected.Backward();
  const int last[] = {3, 1, -1, -1, 4, -1};
  std::set<string> patterns;
  int copies = 0;
  const int kDraws = 96;
  for (unsigned int seed = 1; seed <= kDraws; ++seed) {
    rig.Forward(seed);
    const vector<double> before = rig.Param(0);
    if (seed % 2) {
      rig.Backward();
      EXPECT_TRUE(expected.BottomDiff(0) == rig.BottomDiff(0));
      ExpectAllZero(rig.ParamDiff(0));
    } else {  // whatever param_propagate_down says
      rig.layer()->set_param_propagate_down(0, false);
      rig.Backward();
      rig.layer()->set_param_propagate_down(0, true);
    }
    const vector<double> after = rig.Param(0);
    string pattern;
    for (int j = 0; j < 6; ++j) {
      const bool copied =
          last[j] >= 0 && Near(Row(after, j, 3), oracle.UnitFeature(last[j]));
      if (!copied) {
        EXPECT_TRUE(Row(before, j, 3) == Row(after, j, 3)) << "class " << j;
      }
      copies += copied;
      pattern.push_back(copied ? '1' : '0');
    }
    patterns.insert(pattern);
    // the same seed, the same coins
    rig.Forward(seed);
    rig.Backward();
    EXPECT_TRUE(after == rig.Param(0));
  }
  EXPECT_EQ(8, patterns.size());  // three coins
  EXPECT_NEAR(3 * kDraws / 2., copies, 5 * std::sqrt(3 * kDraws / 4.));
}

TYPED_TEST(MarginInnerProductLayerTest, TestTripletLeavesTestPhaseAlone) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(Spec("0123", 3, 4, "triplet: true", "phase: TEST"));
  const vector<double> before = rig.Param(0);
  for (unsigned int seed = 1; seed <= 4; ++seed) {
    rig.Forward(seed);
    rig.Backward();
    EXPECT_TRUE(before == rig.Param(0));
  }
}

TYPED_TEST(MarginInnerProductLayerTest, TestForwardRepeatsItself) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(Spec("0120", 7, 5, "type: QUADRUPLE gamma: 1"));
  rig.Forward();
  rig.Backward();
  const vector<double> z = rig.Top(0), dx = rig.BottomDiff(0),
                       dw = rig.ParamDiff(0);
  rig.Forward();
  rig.Backward();
  EXPECT_TRUE(z == rig.Top(0));
  EXPECT_TRUE(dx == rig.BottomDiff(0));
  EXPECT_TRUE(dw == rig.ParamDiff(0));
}

TYPED_TEST(MarginInnerProductLayerTest, TestReshape) {
  typedef typename TypeParam::Dtype Dtype;
  const char* labels[] = {"01", "2", "0120120", "22"};
  const LayerSpec first = Spec(labels[0], 3, 3, "type: TRIPLE");
  Blob<Dtype> x, y, z;
  vector<Blob<Dtype>*> bottoms(1, &x), tops(1, &z);
  bottoms.push_back(&y);
  shared_ptr<Layer<Dtype>> layer;
  for (int i = 0; i < 4; ++i) {
    LayerSpec spec = Spec(labels[i], 3, 3, "type: TRIPLE", "", 1 + i);
    spec.params = first.params;
    x.Reshape(spec.bottoms[0].shape);
    y.Reshape(spec.bottoms[1].shape);
    for (int k = 0; k < x.count(); ++k) {
      x.mutable_cpu_data()[k] = spec.bottoms[0].values[k];
    }
    for (int k = 0; k < y.count(); ++k) {
      y.mutable_cpu_data()[k] = spec.bottoms[1].values[k];
    }
    if (i == 0) {
      layer = LayerRegistry<Dtype>::CreateLayer(ParseLayer(spec.prototxt));
      layer->SetUp(bottoms, tops);
      for (int k = 0; k < spec.params[0].size(); ++k) {
        layer->blobs()[0]->mutable_cpu_data()[k] = spec.params[0][k];
      }
    }
    layer->Forward(bottoms, tops);
    for (int k = 0; k < z.count(); ++k) {
      z.mutable_cpu_diff()[k] = spec.top_diffs[0][k];
    }
    layer->Backward(tops, vector<bool>(2, true), bottoms);
    LayerRig<Dtype> fresh(spec);
    fresh.Forward();
    fresh.Backward();
    ExpectArray(fresh.Top(0),
                vector<double>(z.cpu_data(), z.cpu_data() + z.count()),
                Tolerance<Dtype>::Value());
    ExpectArray(fresh.BottomDiff(0),
                vector<double>(x.cpu_diff(), x.cpu_diff() + x.count()),
                Tolerance<Dtype>::Gradient());
  }
}

TYPED_TEST(MarginInnerProductLayerTest, TestBadInput) {
  typedef typename TypeParam::Dtype Dtype;
  metric_test::UseFreshProcessesForDeath();
  const double labels[] = {-1, 3, 1.5};
  for (int i = 0; i < 3; ++i) {
    LayerSpec spec = Spec("0120", 3, 3, "");
    spec.bottoms[1].values[2] = labels[i];
    EXPECT_DEATH(LayerRig<Dtype>(spec).Forward(), "row 2");
  }
  // Weights that come inside the layer's parameters, as a net made from a
  // model has them.
  EXPECT_DEATH(LayerRig<Dtype>(
                   Spec("012", 3, 3, "", "blobs { shape { dim: 1 } data: 1 }")),
               "layer 'margin': has 1 blobs in its parameters, needs 2");
  EXPECT_DEATH(LayerRig<Dtype>(Spec("012", 3, 3, "persist_iteration: false",
                                    "blobs { shape { dim: 3 dim: 2 } "
                                    "data: [1, 2, 3, 4, 5, 6] }")),
               "blob 0 has shape 3 2");
  EXPECT_DEATH(
      LayerRig<Dtype>(Spec("012", 3, 3, "type: DOUBLE cosine_margin: 0.1")),
      "cosine_margin");
  EXPECT_DEATH(
      LayerRig<Dtype>(Spec("012", 3, 3, "gradient: REFERENCE scale: 2")),
      "REFERENCE");
}

TYPED_TEST(MarginInnerProductLayerTest, TestGradient) {
  typedef typename TypeParam::Dtype Dtype;
  GradientChecker<Dtype> checker(1e-4, 1e-2);
  for (int type = 0; type < 4; ++type) {
    LayerSpec spec = Spec("012", 3, 3, string(kTypes[type]) + " base: 0.5");
    spec.tops = 1;
    LayerRig<Dtype> rig(spec);
    checker.CheckGradientExhaustive(rig.layer(), rig.bottoms(), rig.tops(), 0);
  }
}

TYPED_TEST(MarginInnerProductLayerTest, TestGradientRelative) {
  const vector<string> options = Options();
  for (int type = 0; type < 4; ++type) {
    for (int i = 0; i < options.size(); ++i) {
      ExpectGradient<TypeParam>(
          Spec("01201", 3, 3, string(kTypes[type]) + " " + options[i]));
    }
    ExpectGradient<TypeParam>(Spec("0", 2, 1, kTypes[type]));
    ExpectGradient<TypeParam>(Spec(
        "0120", 7, 5, string(kTypes[type]) + " margin_in_test: true base: 1",
        "phase: TEST"));
  }
  const vector<string> margins = AdditiveMargins();
  for (int i = 0; i < margins.size(); ++i) {
    ExpectGradient<TypeParam>(Spec("01201", 3, 3, margins[i]));
  }
  ExpectGradient<TypeParam>(Spec("01201", 33, 3, kTypes[3]));
  ExpectGradient<TypeParam>(Spec("01201", 3, 3, kTypes[3], "phase: TEST"));
}

// theta + angular_margin > pi: the logit goes on as c - m sin(m) - m'.
TYPED_TEST(MarginInnerProductLayerTest, TestGradientPastPi) {
  LayerSpec spec =
      Spec("000", 3, 2, "angular_margin: 0.75 cosine_margin: 0.125");
  const double x[] = {-2, 0.25, -0.5, -1, 0.125, 0.25, 0.5, -0.75, 1};
  spec.bottoms[0].values.assign(x, x + 9);
  const double w[] = {1, 0, 0, 0, 1, 0.5};
  spec.params[0].assign(w, w + 6);
  const Oracle oracle(spec, spec.params[0]);
  EXPECT_GT(std::acos(oracle.Cosine(0, 0)) + 0.75, kPi);
  EXPECT_GT(std::acos(oracle.Cosine(1, 0)) + 0.75, kPi);
  EXPECT_LT(std::acos(oracle.Cosine(2, 0)) + 0.75, kPi);
  ExpectForward<typename TypeParam::Dtype>(spec);
  ExpectGradient<TypeParam>(spec);
}

// The check itself: it does not depend on type and device.
class MarginInnerProductLayerCheckTest : public CPUDeviceTest<double> {};

TEST_F(MarginInnerProductLayerCheckTest, TestTeeth) {
  for (int type = 0; type < 4; ++type) {
    ExpectTeeth(Spec("012", 3, 3, string(kTypes[type]) + " base: 0.5"));
  }
  ExpectTeeth(Spec("012", 3, 3, "angular_margin: 0.5"));
}

// The published gradient is not that of the forward pass: the check says so.
TEST_F(MarginInnerProductLayerCheckTest, TestCheckRejectsReference) {
  const LayerSpec spec =
      Spec("012", 3, 3, "type: QUADRUPLE base: 0 gradient: REFERENCE");
  EXPECT_GT(metric_test::CheckGradient(spec).error, 0.1);
}

}  // namespace caffe
