// Why: lambda's count has to survive snapshots, float's 24 bits and nets that
// share it, and the weights of `triplet` are samples that nobody else moves.
// Sweeps: schedules with and without a persistent t; specs of the parameters;
// the classes' coins; nets in which nothing below learns.
// Tolerances: test_metric_util.hpp.
// Leaves out: snapshots of whole nets (pytest).
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
#include "caffe/test/test_margin_util.hpp"

namespace caffe {

using margin_test::ExpectLogits;
using margin_test::Near;
using margin_test::Oracle;
using margin_test::Row;
using margin_test::Spec;
using metric_test::ExpectAllZero;
using metric_test::ExpectValue;
using metric_test::LayerRig;
using metric_test::LayerSpec;
using metric_test::ParseLayer;
using metric_test::Tolerance;

template <typename TypeParam>
class MarginInnerProductLayerStateTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(MarginInnerProductLayerStateTest, TestDtypesAndDevices);

TYPED_TEST(MarginInnerProductLayerStateTest, TestLambdaSchedule) {
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

TYPED_TEST(MarginInnerProductLayerStateTest, TestIterationPersists) {
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
TYPED_TEST(MarginInnerProductLayerStateTest, TestIterationDoesNotLearn) {
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

// A float holds no odd number from 2^24 on: the count goes on beside it.
TYPED_TEST(MarginInnerProductLayerStateTest, TestCountsBeyondFloats) {
  typedef typename TypeParam::Dtype Dtype;
  const LayerSpec spec = Spec("012", 3, 3, "base: 1 gamma: 1 power: 1", "");
  LayerRig<Dtype> rig(spec);
  rig.param(1)->mutable_cpu_data()[0] = 16777214;
  for (int t = 16777215; t < 16777223; ++t) {
    rig.layer()->Forward(rig.bottoms(), rig.tops());
    EXPECT_EQ(static_cast<Dtype>(t), rig.Param(1)[0]);
    EXPECT_EQ(static_cast<Dtype>(1 / (1. + t)), rig.Top(1)[0]);
  }
  // what is loaded wins, still
  rig.param(1)->mutable_cpu_data()[0] = 3;
  rig.layer()->Forward(rig.bottoms(), rig.tops());
  EXPECT_EQ(4, rig.Param(1)[0]);
}

namespace {

// What a layer logs as warnings while it is set up and trains twice without a
// backward pass. A TEST layer is only set up.
template <typename Dtype>
string Warnings(const LayerSpec& spec, int forwards) {
  testing::internal::CaptureStderr();
  {
    LayerRig<Dtype> rig(spec);
    for (int i = 0; i < forwards; ++i) {
      rig.Forward();
    }
  }
  return testing::internal::GetCapturedStderr();
}

}  // namespace

TYPED_TEST(MarginInnerProductLayerStateTest, TestWarnings) {
  typedef typename TypeParam::Dtype Dtype;
  const bool to_stderr = FLAGS_logtostderr;
  const int least = FLAGS_minloglevel;
  FLAGS_logtostderr = true;
  FLAGS_minloglevel = 0;
  const string frozen = "param { lr_mult: 0 }";
  const string both = frozen + " param { lr_mult: 0 }";
  const string triplet = "triplet: true";
  // One param of two: Caffe runs Backward for t.
  EXPECT_NE(string::npos, Warnings<Dtype>(Spec("012", 3, 3, "", frozen), 0)
                              .find("'margin': its one param has lr_mult 0"));
  EXPECT_EQ(string::npos,
            Warnings<Dtype>(Spec("012", 3, 3, "", both), 0).find("one param"));
  EXPECT_EQ(
      string::npos,
      Warnings<Dtype>(Spec("012", 3, 3, triplet, frozen), 0).find("one param"));
  // Nothing below learns, so nothing is copied.
  EXPECT_NE(string::npos, Warnings<Dtype>(Spec("012", 3, 3, triplet, both), 2)
                              .find("force_backward"));
  EXPECT_EQ(string::npos, Warnings<Dtype>(Spec("012", 3, 3, triplet, both), 1)
                              .find("force_backward"));
  EXPECT_EQ(
      string::npos,
      Warnings<Dtype>(Spec("012", 3, 3, "", both), 2).find("force_backward"));
  // lambda in a TEST net that has no t.
  const string anneals = "base: 9 gamma: 1 iteration: 7 persist_iteration: ";
  const LayerSpec test = Spec("012", 3, 3, anneals + "false", "phase: TEST");
  EXPECT_NE(string::npos,
            Warnings<Dtype>(test, 0).find("lambda stays that of iteration 7"));
  EXPECT_EQ(
      string::npos,
      Warnings<Dtype>(Spec("012", 3, 3, anneals + "true", "phase: TEST"), 0)
          .find("lambda stays"));
  FLAGS_logtostderr = to_stderr;
  FLAGS_minloglevel = least;
}

TYPED_TEST(MarginInnerProductLayerStateTest, TestTripletOverwritesWeights) {
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

TYPED_TEST(MarginInnerProductLayerStateTest, TestTripletLeavesTestPhaseAlone) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(Spec("0123", 3, 4, "triplet: true", "phase: TEST"));
  const vector<double> before = rig.Param(0);
  for (unsigned int seed = 1; seed <= 4; ++seed) {
    rig.Forward(seed);
    rig.Backward();
    EXPECT_TRUE(before == rig.Param(0));
  }
}

}  // namespace caffe
