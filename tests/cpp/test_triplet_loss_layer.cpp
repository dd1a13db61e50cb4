// Why: the published triplet layers fail their own gradient: a missing loss
// weight, a missing factor, a batch divided twice. Every option that changes
// the arithmetic is held here against naive loops over triplets.
// Sweeps: the four layouts x 3 losses x 4 distances x swap x use_pair; N = 1
// to 48; D = 1, 3, 7, 33; one class; all classes different; ties; duplicates.
// Tolerances: test_metric_util.hpp.
// The oracle: test_triplet_oracle.hpp. Mining: test_triplet_mining.cpp.
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
#include "caffe/test/test_triplet_oracle.hpp"

namespace caffe {

using namespace triplet_test;  // NOLINT(build/namespaces)
using metric_test::ExpectGradient;
using metric_test::ExpectTeeth;
using metric_test::Largest;

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

TYPED_TEST(TripletLossLayerTest, TestFeaturesTooLargeForTheirSquares) {
  typedef typename TypeParam::Dtype Dtype;
  metric_test::UseFreshProcessesForDeath();
  LayerSpec spec = Rows(3, 4, 3, "");
  spec.bottoms[1].values[3] = sizeof(Dtype) == 4 ? 1e20 : 1e200;
  EXPECT_DEATH(LayerRig<Dtype>(spec).Forward(), "'triplet'.*too large");
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
