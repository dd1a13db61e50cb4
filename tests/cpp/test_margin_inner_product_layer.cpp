// Why: the published layers' logits are those of weights that change under
// them. The values are held here against arccos, a row and a class at a time.
// Sweeps: four types x lambda x normalize_features x scale, both additive
// margins; M = 1 to 12; K = 1, 3, 7, 33; C = 1 to 9; both phases; numbers near
// the ends of float's range; NaN.
// Tolerances: test_metric_util.hpp.
// Leaves out: the gradient, lambda and the blobs (files of their own), most
// bad input (pytest), speed.
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
using margin_test::ExpectLogits;
using margin_test::kPi;
using margin_test::kTypes;
using margin_test::Length;
using margin_test::Options;
using margin_test::Oracle;
using margin_test::Row;
using margin_test::Spec;
using metric_test::ExpectAllZero;
using metric_test::ExpectArray;
using metric_test::ExpectValue;
using metric_test::LayerRig;
using metric_test::LayerSpec;
using metric_test::ParseLayer;
using metric_test::Shape;
using metric_test::Tolerance;

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

// Finite rows whose squares overflow, or vanish, in a float.
TYPED_TEST(MarginInnerProductLayerTest, TestLargeAndSmallNumbers) {
  typedef typename TypeParam::Dtype Dtype;
  const double scales[] = {1e19, 1e25, 1e-25, 1e-32};
  const char* params[] = {"type: QUADRUPLE", "normalize_features: true"};
  for (int i = 0; i < 4; ++i) {
    for (int k = 0; k < 2; ++k) {
      for (int phase = 0; phase < 2; ++phase) {
        LayerSpec spec = Spec("0120", 7, 5, params[k],
                              phase ? "phase: TEST" : "phase: TRAIN");
        const Oracle oracle(spec, spec.params[0]);
        vector<double> expected = oracle.Logits(oracle.Lambda(1), !phase);
        for (int n = 0; n < 28; ++n) {
          spec.bottoms[0].values[n] *= scales[i];
        }
        for (int n = 0; n < 35; ++n) {
          spec.params[0][n] *= scales[i];
        }
        for (int n = 0; n < expected.size() && k == 0; ++n) {
          expected[n] *= scales[i];
        }
        SCOPED_TRACE(spec.prototxt);
        LayerRig<Dtype> rig(spec);
        rig.Forward();
        ExpectArray(expected, rig.Top(0), Tolerance<Dtype>::Value());
        rig.Backward();
        // By unit features, the gradient shrinks as they grow.
        const double largest = metric_test::Largest(rig.BottomDiff(0));
        EXPECT_LT(largest, k == 0 ? 100 : 100 / scales[i]);
        EXPECT_GT(largest, k == 0 ? 1e-3 : 1e-3 / scales[i]);
      }
    }
  }
}

// A NaN among the weights shows in every logit of its class, the target's too.
TYPED_TEST(MarginInnerProductLayerTest, TestNanWeightsShow) {
  typedef typename TypeParam::Dtype Dtype;
  const char* params[] = {"type: SINGLE",
                          "type: QUADRUPLE",
                          "angular_margin: 0.5",
                          "cosine_margin: 0.35",
                          "type: DOUBLE normalize_weights: false",
                          "normalize_features: true"};
  for (int i = 0; i < 6; ++i) {
    for (int phase = 0; phase < 2; ++phase) {
      LayerSpec spec =
          Spec("0120", 3, 3, params[i], phase ? "phase: TEST" : "phase: TRAIN");
      spec.params[0][3 + 1] = NAN;
      SCOPED_TRACE(spec.prototxt);
      LayerRig<Dtype> rig(spec);
      rig.Forward();
      const vector<double> z = rig.Top(0);
      for (int row = 0; row < 4; ++row) {
        EXPECT_FALSE(std::isnan(z[3 * row]));
        EXPECT_TRUE(std::isnan(z[3 * row + 1])) << "row " << row;
        EXPECT_FALSE(std::isnan(z[3 * row + 2]));
      }
    }
  }
}

// Rows without a label have plain logits and a plain gradient.
TYPED_TEST(MarginInnerProductLayerTest, TestIgnoreNegativeLabels) {
  typedef typename TypeParam::Dtype Dtype;
  const char* params[] = {"type: QUADRUPLE base: 1", "cosine_margin: 0.35",
                          "type: DOUBLE semihard: true",
                          "type: TRIPLE normalize_weights: false"};
  for (int i = 0; i < 4; ++i) {
    LayerSpec spec =
        Spec("0120", 3, 3, string(params[i]) + " ignore_negative_labels: true");
    SCOPED_TRACE(spec.prototxt);
    LayerRig<Dtype> all(spec);
    all.Forward();
    spec.bottoms[1].values[1] = -1;
    spec.bottoms[1].values[3] = -7;
    LayerRig<Dtype> rig(spec);
    rig.Forward();
    rig.Backward();
    LayerSpec plain =
        Spec("0120", 3, 3, i == 3 ? "normalize_weights: false" : "", "");
    LayerRig<Dtype> expected(plain);
    expected.Forward();
    expected.Backward();
    for (int row = 1; row < 4; row += 2) {
      ExpectArray(Row(expected.Top(0), row, 3), Row(rig.Top(0), row, 3),
                  Tolerance<Dtype>::Value());
      ExpectArray(Row(expected.BottomDiff(0), row, 3),
                  Row(rig.BottomDiff(0), row, 3), Tolerance<Dtype>::Gradient());
    }
    for (int row = 0; row < 4; row += 2) {
      EXPECT_EQ(Row(all.Top(0), row, 3), Row(rig.Top(0), row, 3));
    }
    spec.bottoms[1].values[1] = -1.5;
    metric_test::UseFreshProcessesForDeath();
    EXPECT_DEATH(LayerRig<Dtype>(spec).Forward(), "row 1 is -1.5");
  }
}

// L-Softmax: Liu et al. 2016, equations 4 to 6.
TYPED_TEST(MarginInnerProductLayerTest, TestKeepsTheLengthOfWeights) {
  typedef typename TypeParam::Dtype Dtype;
  for (int type = 0; type < 4; ++type) {
    for (int phase = 0; phase < 2; ++phase) {
      const LayerSpec spec = Spec(
          "01230123", 3, 4,
          string(kTypes[type]) + " base: 0.5 scale: 2 normalize_weights: false",
          phase ? "phase: TEST" : "phase: TRAIN");
      LayerRig<Dtype> rig(spec);
      rig.Forward();
      const Oracle oracle(spec, spec.params[0]);
      vector<double> expected = oracle.Logits(0.5, !phase);
      for (int i = 0; i < expected.size(); ++i) {
        expected[i] *= Length(Row(spec.params[0], i % 4, 3));
      }
      ExpectArray(expected, rig.Top(0), Tolerance<Dtype>::Value());
      const vector<double> w = rig.Param(0);
      for (int k = 0; k < w.size(); ++k) {
        EXPECT_EQ(static_cast<Dtype>(spec.params[0][k]), w[k]);
      }
    }
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

}  // namespace caffe
