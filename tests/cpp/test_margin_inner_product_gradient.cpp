// Why: the published layers' gradient is not that of their forward pass, and
// nobody could tell: their weights change under the check, and Caffe's checker
// lets a small gradient pass. It is held here against central differences with
// the weights restored before each forward, REFERENCE against the published
// rule written out.
// Sweeps: four types x lambda x normalize_features x scale, L-Softmax, both
// additive margins; zero rows; ties; both phases.
// Tolerances: test_metric_util.hpp. Caffe's GradientChecker runs with gamma 0
// and a step of 1e-4, since weights move in a forward.
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/margin_inner_product_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/test/test_margin_util.hpp"

namespace caffe {

using margin_test::AdditiveMargins;
using margin_test::ExpectForward;
using margin_test::kPi;
using margin_test::kTypes;
using margin_test::Length;
using margin_test::Options;
using margin_test::Oracle;
using margin_test::Row;
using margin_test::Spec;
using metric_test::ExpectAllZero;
using metric_test::ExpectArray;
using metric_test::ExpectGradient;
using metric_test::ExpectTeeth;
using metric_test::LayerRig;
using metric_test::LayerSpec;
using metric_test::Tolerance;

template <typename TypeParam>
class MarginInnerProductLayerGradientTest : public MultiDeviceTest<TypeParam> {
};

TYPED_TEST_CASE(MarginInnerProductLayerGradientTest, TestDtypesAndDevices);

TYPED_TEST(MarginInnerProductLayerGradientTest, TestLabelsGetZeroDiff) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(Spec("0120", 3, 3, "type: DOUBLE"));
  rig.Forward();
  rig.Backward();
  ExpectAllZero(rig.BottomDiff(1));
}

TYPED_TEST(MarginInnerProductLayerGradientTest, TestDiffsOfWeightsAccumulate) {
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

TYPED_TEST(MarginInnerProductLayerGradientTest, TestZeroFeatures) {
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

TYPED_TEST(MarginInnerProductLayerGradientTest, TestZeroWeights) {
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

TYPED_TEST(MarginInnerProductLayerGradientTest, TestReference) {
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

TYPED_TEST(MarginInnerProductLayerGradientTest, TestSemihard) {
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
TYPED_TEST(MarginInnerProductLayerGradientTest, TestSemihardTies) {
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

TYPED_TEST(MarginInnerProductLayerGradientTest, TestGradient) {
  typedef typename TypeParam::Dtype Dtype;
  GradientChecker<Dtype> checker(1e-4, 1e-2);
  for (int type = 0; type < 4; ++type) {
    LayerSpec spec = Spec("012", 3, 3, string(kTypes[type]) + " base: 0.5");
    spec.tops = 1;
    LayerRig<Dtype> rig(spec);
    checker.CheckGradientExhaustive(rig.layer(), rig.bottoms(), rig.tops(), 0);
  }
}

TYPED_TEST(MarginInnerProductLayerGradientTest, TestGradientRelative) {
  const vector<string> options = Options();
  for (int type = 0; type < 4; ++type) {
    for (int i = 0; i < options.size(); ++i) {
      ExpectGradient<TypeParam>(
          Spec("01201", 3, 3, string(kTypes[type]) + " " + options[i]));
    }
    ExpectGradient<TypeParam>(Spec("0", 2, 1, kTypes[type]));
    const char* lengths[] = {"base: 0", "base: 2 scale: 3",
                             "base: 1 normalize_features: true scale: 4"};
    for (int i = 0; i < 3; ++i) {
      ExpectGradient<TypeParam>(Spec("01201", 3, 3,
                                     string(kTypes[type]) + " " + lengths[i] +
                                         " normalize_weights: false"));
    }
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
TYPED_TEST(MarginInnerProductLayerGradientTest, TestGradientPastPi) {
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
class MarginInnerProductLayerGradientCheckTest : public CPUDeviceTest<double> {
};

TEST_F(MarginInnerProductLayerGradientCheckTest, TestTeeth) {
  for (int type = 0; type < 4; ++type) {
    ExpectTeeth(Spec("012", 3, 3, string(kTypes[type]) + " base: 0.5"));
  }
  ExpectTeeth(Spec("012", 3, 3, "angular_margin: 0.5"));
}

// The published gradient is not that of the forward pass: the check says so.
TEST_F(MarginInnerProductLayerGradientCheckTest, TestCheckRejectsReference) {
  const LayerSpec spec =
      Spec("012", 3, 3, "type: QUADRUPLE base: 0 gradient: REFERENCE");
  EXPECT_GT(metric_test::CheckGradient(spec).error, 0.1);
}

}  // namespace caffe
