// Why: the layer makes its logits in strips, online, on several cores, and
// never holds what MarginInnerProduct and SoftmaxWithLoss hold; it has to give
// their numbers all the same.
// Sweeps: all types, lambda, ArcFace, CosFace, L-Softmax, semihard, triplet,
// ignored rows, normalisation, loss_weight, smoothing, both phases;
// keep_logits; strips of 1 to 9 classes in one part and several, so that a
// target lies at each place of a strip; M = 1 to 12, K = 1 to 33, C = 1 to 40.
// Oracle: MarginInnerProduct in double on the CPU, which has tests of its own,
// with softmax and cross entropy written out.
// Tolerances: test_metric_util.hpp.
// Leaves out: the drawn classes and own_update (a file of their own), the
// stock layer itself (pytest), speed and memory (benchmarks).
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/margin_softmax_loss_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/test/test_margin_softmax_util.hpp"

namespace caffe {

using margin_test::AdditiveMargins;
using margin_test::ExpectPair;
using margin_test::kTypes;
using margin_test::LossSpec;
using margin_test::Options;
using margin_test::Pair;
using margin_test::StripsOf;
using metric_test::ExpectAllZero;
using metric_test::ExpectArray;
using metric_test::ExpectGradient;
using metric_test::ExpectTeeth;
using metric_test::LayerRig;
using metric_test::LayerSpec;
using metric_test::Shape;
using metric_test::Tolerance;

template <typename TypeParam>
class MarginSoftmaxLossLayerTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(MarginSoftmaxLossLayerTest, TestDtypesAndDevices);

TYPED_TEST(MarginSoftmaxLossLayerTest, TestSetUp) {
  typedef typename TypeParam::Dtype Dtype;
  LayerSpec spec = LossSpec("0120", 12, 5, "iteration: 7");
  spec.bottoms[0].shape = Shape(4, 2, 3, 2);
  LayerRig<Dtype> rig(spec);
  EXPECT_STREQ("MarginSoftmaxLoss", rig.layer()->type());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(0, rig.top(i)->num_axes());
    EXPECT_EQ(i == 0, rig.layer()->loss(i));
  }
  ASSERT_EQ(2, rig.layer()->blobs().size());
  EXPECT_EQ(Shape(5, 12), rig.param(0)->shape());
  EXPECT_EQ(7, rig.Param(1)[0]);
}

TYPED_TEST(MarginSoftmaxLossLayerTest, TestPair) {
  const vector<string> options = Options();
  for (int type = 0; type < 4; ++type) {
    for (int i = 0; i < options.size(); ++i) {
      const string param = string(kTypes[type]) + " " + options[i];
      ExpectPair<TypeParam>(LossSpec("01230123", 2, 4, param));
      ExpectPair<TypeParam>(
          LossSpec("01230123", 3, 4, param + " normalize_weights: false"));
      ExpectPair<TypeParam>(
          LossSpec("01230123", 7, 9, param + " semihard: true"));
    }
    ExpectPair<TypeParam>(LossSpec(
        "0123", 7, 5, string(kTypes[type]) + " gradient: REFERENCE base: 1"));
  }
  const vector<string> margins = AdditiveMargins();
  for (int i = 0; i < margins.size(); ++i) {
    ExpectPair<TypeParam>(LossSpec("01230123", 3, 4, margins[i]));
  }
}

TYPED_TEST(MarginSoftmaxLossLayerTest, TestPhases) {
  const char* params[] = {"type: QUADRUPLE base: 2", "angular_margin: 0.4",
                          "type: TRIPLE normalize_features: true scale: 4",
                          "type: DOUBLE normalize_weights: false"};
  for (int i = 0; i < 4; ++i) {
    for (int margin = 0; margin < 2; ++margin) {
      ExpectPair<TypeParam>(
          LossSpec("0120", 7, 5,
                   string(params[i]) + (margin ? " margin_in_test: true" : ""),
                   "", "phase: TEST"));
    }
  }
}

TYPED_TEST(MarginSoftmaxLossLayerTest, TestSizes) {
  const int dims[] = {1, 3, 7, 33};
  for (int i = 0; i < 4; ++i) {
    ExpectPair<TypeParam>(LossSpec("0", dims[i], 1, kTypes[3]));
    ExpectPair<TypeParam>(LossSpec("3", dims[i], 5, kTypes[2]));
    ExpectPair<TypeParam>(LossSpec("012345678888", dims[i], 9, kTypes[3]));
    ExpectPair<TypeParam>(LossSpec("1111", dims[i], 2, kTypes[1]));
  }
  LayerSpec spec = LossSpec("012012", 4, 3, "axis: 2 type: DOUBLE");
  spec.bottoms[0].shape = Shape(2, 3, 4);
  ExpectPair<TypeParam>(spec);
}

TYPED_TEST(MarginSoftmaxLossLayerTest, TestIgnoredRows) {
  const char* normalizations[] = {"",
                                  "normalization: FULL",
                                  "normalization: VALID",
                                  "normalization: BATCH_SIZE",
                                  "normalization: NONE",
                                  "normalize: false",
                                  "normalize: true"};
  for (int i = 0; i < 7; ++i) {
    const string loss =
        string("loss_param { ignore_label: 2 ") + normalizations[i] + " }";
    ExpectPair<TypeParam>(
        LossSpec("0120212", 3, 4, "type: QUADRUPLE base: 1", "", loss));
    ExpectPair<TypeParam>(LossSpec("222", 3, 4, "type: DOUBLE", "", loss));
    LayerSpec negative =
        LossSpec("01201", 3, 4, "type: TRIPLE ignore_negative_labels: true", "",
                 string("loss_param { ") + normalizations[i] + " }");
    negative.bottoms[1].values[1] = -1;
    negative.bottoms[1].values[3] = -5;
    ExpectPair<TypeParam>(negative);
  }
}

TYPED_TEST(MarginSoftmaxLossLayerTest, TestSmoothing) {
  const char* smoothing[] = {"label_smoothing: 0.1", "label_smoothing: 0.75"};
  for (int i = 0; i < 2; ++i) {
    for (int type = 0; type < 4; ++type) {
      ExpectPair<TypeParam>(
          LossSpec("0123", 3, 6, kTypes[type], smoothing[i],
                   "loss_param { ignore_label: 1 } loss_weight: 3"));
    }
  }
}

// A target at each place of a strip, strips in one part and in several, both
// ways to keep the logits.
TYPED_TEST(MarginSoftmaxLossLayerTest, TestStripBoundaries) {
  const char* keeps[] = {"keep_logits: ALWAYS", "keep_logits: NEVER",
                         "keep_logits: AUTO label_smoothing: 0.2"};
  const char* params[] = {
      "type: QUADRUPLE base: 1", "type: DOUBLE semihard: true base: 0.5",
      "type: TRIPLE normalize_weights: false scale: 2",
      "angular_margin: 0.3 normalize_features: true scale: 8"};
  const int widths[] = {1, 2, 3, 4, 7, 9};
  for (int i = 0; i < 6; ++i) {
    for (int parts = 0; parts < 2; ++parts) {
      StripsOf strips(widths[i], parts);
      for (int k = 0; k < 12; ++k) {
        ExpectPair<TypeParam>(
            LossSpec("0123456789", 5, 10, params[k % 4], keeps[k / 4]));
        ExpectPair<TypeParam>(LossSpec("0123456789", 5, 40, params[k % 4],
                                       keeps[k / 4],
                                       k % 2 ? "phase: TEST" : ""));
      }
    }
  }
}

// The parts' number and order do not show: the bits are those of one thread.
TYPED_TEST(MarginSoftmaxLossLayerTest, TestRepeatsItself) {
  typedef typename TypeParam::Dtype Dtype;
  StripsOf strips(3, true);
  const LayerSpec spec = LossSpec("0123456789", 7, 40, "type: QUADRUPLE");
  LayerRig<Dtype> rig(spec);
  rig.Forward();
  rig.Backward();
  const vector<double> loss = rig.Top(0), dx = rig.BottomDiff(0),
                       dw = rig.ParamDiff(0);
  for (int i = 0; i < 20; ++i) {
    rig.Forward();
    rig.Backward();
    EXPECT_TRUE(loss == rig.Top(0));
    EXPECT_TRUE(dx == rig.BottomDiff(0));
    EXPECT_TRUE(dw == rig.ParamDiff(0));
  }
}

TYPED_TEST(MarginSoftmaxLossLayerTest, TestDiffsOfWeightsAccumulate) {
  typedef typename TypeParam::Dtype Dtype;
  const char* keeps[] = {"keep_logits: ALWAYS", "keep_logits: NEVER"};
  for (int i = 0; i < 2; ++i) {
    LayerRig<Dtype> rig(LossSpec("0120", 3, 3, "type: DOUBLE", keeps[i]));
    rig.Forward();
    rig.Backward();
    vector<double> twice = rig.ParamDiff(0);
    const vector<double> dx = rig.BottomDiff(0);
    rig.layer()->Backward(rig.tops(), vector<bool>(2, true), rig.bottoms());
    for (int k = 0; k < twice.size(); ++k) {
      twice[k] *= 2;
    }
    ExpectArray(twice, rig.ParamDiff(0), Tolerance<Dtype>::Gradient());
    ExpectArray(dx, rig.BottomDiff(0), Tolerance<Dtype>::Gradient());
    ExpectAllZero(rig.BottomDiff(1));
  }
}

// Logits of hundreds: the sum is taken from the greatest, in every strip.
TYPED_TEST(MarginSoftmaxLossLayerTest, TestHugeLogits) {
  typedef typename TypeParam::Dtype Dtype;
  for (int width = 1; width < 6; ++width) {
    StripsOf strips(width, false);
    LayerRig<Dtype> rig(
        LossSpec("01234", 3, 5, "normalize_features: true scale: 4096"));
    rig.Forward();
    rig.Backward();
    EXPECT_GT(rig.Top(0)[0], 100);
    EXPECT_LT(rig.Top(0)[0], 8192);
    EXPECT_LT(metric_test::Largest(rig.BottomDiff(0)), 1e5);
    ExpectPair<TypeParam>(
        LossSpec("01234", 3, 5, "normalize_features: true scale: 1024"));
  }
}

TYPED_TEST(MarginSoftmaxLossLayerTest, TestNanShows) {
  typedef typename TypeParam::Dtype Dtype;
  for (int y = 0; y < 3; ++y) {
    LayerSpec spec = LossSpec("012", 3, 3, "type: QUADRUPLE");
    spec.params[0][3 * y] = NAN;
    LayerRig<Dtype> rig(spec);
    rig.Forward();
    EXPECT_TRUE(std::isnan(rig.Top(0)[0]));
  }
}

TYPED_TEST(MarginSoftmaxLossLayerTest, TestTriplet) {
  typedef typename TypeParam::Dtype Dtype;
  ExpectPair<TypeParam>(LossSpec("012042", 3, 6, "type: DOUBLE triplet: true",
                                 "", "param { lr_mult: 0 }"));
}

TYPED_TEST(MarginSoftmaxLossLayerTest, TestBadInput) {
  typedef typename TypeParam::Dtype Dtype;
  metric_test::UseFreshProcessesForDeath();
  const double labels[] = {-1, 3, 1.5};
  for (int i = 0; i < 3; ++i) {
    LayerSpec spec = LossSpec("0120", 3, 3, "");
    spec.bottoms[1].values[2] = labels[i];
    EXPECT_DEATH(LayerRig<Dtype>(spec).Forward(),
                 "MarginSoftmaxLoss layer 'margin': the label of row 2");
  }
  LayerSpec nan = LossSpec("0120", 3, 3, "");
  nan.bottoms[0].values[7] = NAN;
  EXPECT_DEATH(LayerRig<Dtype>(nan).Forward(),
               "row 2 of the features holds NaN or Inf");
  EXPECT_DEATH(LayerRig<Dtype>(LossSpec("012", 3, 3, "", "sample_rate: 0")),
               "sample_rate is 0");
  EXPECT_DEATH(LayerRig<Dtype>(LossSpec("012", 3, 3, "", "label_smoothing: 1")),
               "label_smoothing is 1");
  EXPECT_DEATH(LayerRig<Dtype>(LossSpec("012", 3, 3, "", "",
                                        "loss_weight: 1 loss_weight: 1")),
               "top 1 only reports");
  EXPECT_DEATH(LayerRig<Dtype>(
                   LossSpec("012", 3, 3, "triplet: true", "own_update: true")),
               "exclude each other");
}

TYPED_TEST(MarginSoftmaxLossLayerTest, TestGradient) {
  typedef typename TypeParam::Dtype Dtype;
  GradientChecker<Dtype> checker(1e-4, 1e-2);
  for (int type = 0; type < 4; ++type) {
    LayerSpec spec = LossSpec("012", 3, 3, string(kTypes[type]) + " base: 0.5");
    spec.tops = 1;
    LayerRig<Dtype> rig(spec);
    checker.CheckGradientExhaustive(rig.layer(), rig.bottoms(), rig.tops(), 0);
  }
}

TYPED_TEST(MarginSoftmaxLossLayerTest, TestGradientRelative) {
  const char* params[] = {"type: QUADRUPLE base: 1", "angular_margin: 0.5",
                          "type: TRIPLE normalize_weights: false",
                          "normalize_features: true scale: 4"};
  const char* others[] = {"keep_logits: ALWAYS",
                          "keep_logits: NEVER label_smoothing: 0.25"};
  StripsOf strips(2, true);
  for (int i = 0; i < 8; ++i) {
    ExpectGradient<TypeParam>(LossSpec("01201", 3, 4, params[i % 4],
                                       others[i / 4], "loss_weight: 2.5"));
  }
}

class MarginSoftmaxLossLayerCheckTest : public CPUDeviceTest<double> {};

TEST_F(MarginSoftmaxLossLayerCheckTest, TestTeeth) {
  ExpectTeeth(
      LossSpec("012", 3, 3, "type: TRIPLE base: 0.5", "", "loss_weight: 2.5"));
}

}  // namespace caffe
