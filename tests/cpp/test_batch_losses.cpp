// Why: the losses over a batch share one engine, and each is a rule of a page;
// both are held against the papers' formulas, written out.
// Sweeps: the six losses and their options; N = 1 to 40; D = 1, 3, 7, 33; one
// class; all classes different; duplicates; rows of zeros; sharp parameters;
// a memory of earlier batches; strips.
// Tolerances: test_metric_util.hpp; a gradient is compared to differences of
// the oracle, 1e-5 of the largest in double, 2e-3 in float.
// Leaves out: bad input in nets (pytest), speed.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/batch_contrastive_loss_layer.hpp"
#include "caffe/layers/circle_loss_layer.hpp"
#include "caffe/layers/lifted_structure_loss_layer.hpp"
#include "caffe/layers/multi_similarity_loss_layer.hpp"
#include "caffe/layers/proxy_anchor_loss_layer.hpp"
#include "caffe/layers/sup_con_loss_layer.hpp"

#include "caffe/test/test_batch_loss_oracle.hpp"
#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/test/test_metric_util.hpp"

namespace caffe {

using namespace batch_loss_test;  // NOLINT(build/namespaces)
using metric_test::ExpectTeeth;
using metric_test::Largest;

namespace {

struct Loss {
  Loss(const string& type, const string& param) : type(type), param(param) {}
  string type, param;
};

vector<Loss> Losses() {
  vector<Loss> losses;
  losses.push_back(Loss("SupConLoss", "temperature: 0.5"));
  losses.push_back(Loss("CircleLoss", "gamma: 8"));
  losses.push_back(Loss("MultiSimilarityLoss", "beta: 5 epsilon: 0.3"));
  losses.push_back(Loss("MultiSimilarityLoss", "beta: 5 epsilon: -1"));
  losses.push_back(Loss("BatchContrastiveLoss", "positive_margin: 0.25"));
  losses.push_back(Loss("LiftedStructureLoss", ""));
  losses.push_back(Loss("LiftedStructureLoss", "normalize: true margin: 0.5"));
  losses.push_back(Loss("LiftedStructureLoss", "form: GENERALIZED"));
  losses.push_back(
      Loss("LiftedStructureLoss", "form: GENERALIZED normalize: true"));
  losses.push_back(Loss("ProxyAnchorLoss", "num_output: 10 alpha: 4"));
  return losses;
}

}  // namespace

template <typename TypeParam>
class BatchLossTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(BatchLossTest, TestDtypesAndDevices);

TYPED_TEST(BatchLossTest, TestFormulas) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<Loss> losses = Losses();
  for (int i = 0; i < losses.size(); ++i) {
    ExpectOracle<Dtype>(Batch(losses[i].type, "0102120", 4, losses[i].param));
    ExpectOracle<Dtype>(Batch(losses[i].type, "0011223", 3, losses[i].param,
                              "loss_weight: 2.5", 7));
  }
}

// Caffe's own check, and that each type is made.
template <typename Dtype, typename LossLayer>
void ExpectLayer(const string& type, const string& param) {
  LayerSpec spec = Batch(type, "01021", 3, param);
  spec.tops = 1;
  LayerRig<Dtype> rig(spec);
  EXPECT_STREQ(type.c_str(), rig.layer()->type());
  EXPECT_TRUE(dynamic_cast<LossLayer*>(rig.layer()) != NULL);
  EXPECT_TRUE(rig.layer()->AllowForceBackward(0));
  EXPECT_FALSE(rig.layer()->AllowForceBackward(1));
  if (type != "CircleLoss") {  // its factors are constants in backward
    GradientChecker<Dtype> checker(1e-2, 1e-2);
    checker.CheckGradientExhaustive(rig.layer(), rig.bottoms(), rig.tops(), 0);
  }
}

TYPED_TEST(BatchLossTest, TestLayers) {
  typedef typename TypeParam::Dtype Dtype;
  ExpectLayer<Dtype, SupConLossLayer<Dtype>>("SupConLoss", "temperature: 1");
  ExpectLayer<Dtype, CircleLossLayer<Dtype>>("CircleLoss", "gamma: 2");
  ExpectLayer<Dtype, MultiSimilarityLossLayer<Dtype>>("MultiSimilarityLoss",
                                                      "beta: 2 epsilon: -1");
  ExpectLayer<Dtype, BatchContrastiveLossLayer<Dtype>>("BatchContrastiveLoss",
                                                       "negative_margin: 3");
  ExpectLayer<Dtype, LiftedStructureLossLayer<Dtype>>("LiftedStructureLoss",
                                                      "margin: 4");
  ExpectLayer<Dtype, ProxyAnchorLossLayer<Dtype>>("ProxyAnchorLoss",
                                                  "num_output: 3 alpha: 2");
}

TYPED_TEST(BatchLossTest, TestSizes) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<Loss> losses = Losses();
  const int dims[] = {3, 7, 33};
  const char* labels[] = {"0", "01", "001", "00000", "01234", "9393900011"};
  for (int i = 0; i < losses.size(); ++i) {
    for (int d = 0; d < 3; ++d) {
      for (int l = 0; l < 6; ++l) {
        ExpectOracle<Dtype>(
            Batch(losses[i].type, labels[l], dims[d], losses[i].param));
      }
    }
  }
}

// Anchors in one strip and in several, the last of which may be shorter; rows
// that are close to each other, too.
TYPED_TEST(BatchLossTest, TestStrips) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<Loss> losses = Losses();
  const int elements[] = {7, 14, 28, 49};
  for (int i = 0; i < losses.size(); ++i) {
    for (int e = 0; e < 4; ++e) {
      const metric_test::StripElements strips(elements[e]);
      LayerSpec spec = Batch(losses[i].type, "0102120", 3, losses[i].param);
      ExpectOracle<Dtype>(spec);
      for (int k = 0; k < 3; ++k) {
        spec.bottoms[0].values[9 + k] = 1.01 * spec.bottoms[0].values[k] + 0.02;
      }
      ExpectOracle<Dtype>(spec);
    }
  }
}

// One class, or all classes different: nothing, and its gradient.
TYPED_TEST(BatchLossTest, TestNoPairs) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<Loss> losses = Losses();
  const char* labels[] = {"0", "0000", "0123"};
  for (int i = 0; i < losses.size(); ++i) {
    for (int l = 0; l < 3; ++l) {
      if (losses[i].type == "ProxyAnchorLoss") {
        continue;  // its pairs are of rows and proxies
      }
      LayerRig<Dtype> rig(Batch(losses[i].type, labels[l], 3, losses[i].param));
      rig.Forward();
      rig.Backward();
      EXPECT_EQ(0, rig.Top(0)[0]) << losses[i].type;
      EXPECT_EQ(0, rig.Top(1)[0]);
      ExpectAllZero(rig.BottomDiff(0));
    }
  }
  LayerRig<Dtype> one(Batch("ProxyAnchorLoss", "000", 3, "num_output: 1"));
  one.Forward();
  one.Backward();
  EXPECT_EQ(0, one.Top(0)[0]);
  ExpectAllZero(one.BottomDiff(0));
  ExpectAllZero(one.ParamDiff(0));
}

// Duplicates, rows of zeros and sharp parameters give finite numbers.
TYPED_TEST(BatchLossTest, TestExtremes) {
  typedef typename TypeParam::Dtype Dtype;
  vector<Loss> losses = Losses();
  losses.push_back(Loss("SupConLoss", "temperature: 1e-6"));
  losses.push_back(Loss("CircleLoss", "gamma: 1e6"));
  losses.push_back(Loss("MultiSimilarityLoss", "alpha: 1e6 beta: 1e6"));
  losses.push_back(Loss("ProxyAnchorLoss", "num_output: 4 alpha: 1e6"));
  losses.push_back(Loss("LiftedStructureLoss", "margin: 1e6"));
  for (int i = 0; i < losses.size(); ++i) {
    LayerSpec spec = Batch(losses[i].type, "00110023", 5, losses[i].param);
    for (int k = 0; k < 5; ++k) {
      spec.bottoms[0].values[5 + k] = spec.bottoms[0].values[k];
      spec.bottoms[0].values[15 + k] = spec.bottoms[0].values[k];
      spec.bottoms[0].values[20 + k] = 0;
      spec.bottoms[0].values[30 + k] = 0;
    }
    SCOPED_TRACE(spec.prototxt);
    LayerRig<Dtype> rig(spec);
    rig.Forward();
    rig.Backward();
    for (int t = 0; t < 4; ++t) {
      EXPECT_TRUE(std::isfinite(rig.Top(t)[0]));
    }
    EXPECT_LT(Largest(rig.BottomDiff(0)), 1e9);
  }
}

TYPED_TEST(BatchLossTest, TestNormalization) {
  typedef typename TypeParam::Dtype Dtype;
  LayerSpec spec = Batch("SupConLoss", "0102120", 4, "", "");
  LayerRig<Dtype> rig(spec);
  rig.Forward();
  const double sum = rig.Top(0)[0] * rig.Top(1)[0] * 7;
  const char* names[] = {"FULL", "VALID", "BATCH_SIZE", "NONE"};
  const double divisors[] = {7, 7 * rig.Top(1)[0], 7, 1};
  for (int i = 0; i < 4; ++i) {
    const string prototxt = spec.prototxt;
    LayerSpec other = spec;
    other.prototxt += string(" loss_param { normalization: ") + names[i] + " }";
    LayerRig<Dtype> normalized(other);
    normalized.Forward();
    ExpectValue(sum / divisors[i], normalized.Top(0)[0],
                Tolerance<Dtype>::Value());
  }
}

// The rows of earlier TRAIN batches are met, the oldest are forgotten.
TYPED_TEST(BatchLossTest, TestMemory) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<Loss> losses = Losses();
  for (int i = 0; i < losses.size(); ++i) {
    if (losses[i].type == "ProxyAnchorLoss" ||
        (losses[i].type == "LiftedStructureLoss" &&
         losses[i].param.find("GENERALIZED") == string::npos)) {
      continue;
    }
    LayerSpec spec = Batch(losses[i].type, "0102", 3, losses[i].param,
                           "batch_memory_param { rows: 6 }");
    LayerRig<Dtype> rig(spec);
    Matrix ring(6);
    vector<double> ring_labels(6, 0);
    int kept = 0;
    for (int batch = 0; batch < 4; ++batch) {
      spec.bottoms[0] = RandomBlob(Shape(4, 3), 20 + batch);
      spec.bottoms[1] = Labels(batch % 2 ? "0211" : "1102");
      rig.SetBottom(0, spec.bottoms[0]);
      rig.SetBottom(1, spec.bottoms[1]);
      const int filled = std::min(kept, 6);
      ExpectOracle<Dtype>(
          spec, &rig, Matrix(ring.begin(), ring.begin() + filled),
          vector<double>(ring_labels.begin(), ring_labels.begin() + filled));
      rig.Keep();
      const Matrix x = Rows(spec.bottoms[0].values, 3);
      for (int row = 0; row < 4; ++row, ++kept) {
        ring[kept % 6] = x[row];
        ring_labels[kept % 6] = spec.bottoms[1].values[row];
      }
    }
    EXPECT_EQ(6, rig.param(2)->cpu_data()[1]);
    EXPECT_EQ(4, rig.param(2)->cpu_data()[0]);  // 16 rows: places 0 to 3 again
    EXPECT_EQ(0, rig.layer()->layer_param().param(0).lr_mult());
  }
}

// A TEST forward meets the memory and leaves it as it is.
TYPED_TEST(BatchLossTest, TestMemoryInTest) {
  typedef typename TypeParam::Dtype Dtype;
  LayerSpec spec = Batch("SupConLoss", "0102", 3, "temperature: 0.5",
                         "phase: TEST batch_memory_param { rows: 3 }");
  LayerRig<Dtype> rig(spec);
  const BlobSpec rows = RandomBlob(Shape(2, 3), 9);
  for (int k = 0; k < 6; ++k) {
    rig.param(0)->mutable_cpu_data()[k] = rows.values[k];
  }
  rig.param(1)->mutable_cpu_data()[1] = 1;
  rig.param(2)->mutable_cpu_data()[0] = 2;
  rig.param(2)->mutable_cpu_data()[1] = 2;
  rig.Keep();
  const double labels[] = {0, 1};
  for (int again = 0; again < 2; ++again) {
    ExpectOracle<Dtype>(spec, &rig, Rows(rows.values, 3),
                        vector<double>(labels, labels + 2));
  }
}

TYPED_TEST(BatchLossTest, TestBadInput) {
  typedef typename TypeParam::Dtype Dtype;
  metric_test::UseFreshProcessesForDeath();
  EXPECT_DEATH(LayerRig<Dtype>(Batch("SupConLoss", "01", 2, "temperature: 0")),
               "SupConLoss layer 'loss': temperature is 0, must be > 0");
  EXPECT_DEATH(LayerRig<Dtype>(Batch("LiftedStructureLoss", "01", 2, "",
                                     "batch_memory_param { rows: 2 }")),
               "has no memory");
  LayerSpec spec = Batch("CircleLoss", "0101", 2);
  spec.bottoms[0].values[5] = NAN;
  EXPECT_DEATH(LayerRig<Dtype>(spec).Forward(), "'loss': row 2");
  LayerSpec proxies = Batch("ProxyAnchorLoss", "0101", 2, "num_output: 1");
  EXPECT_DEATH(LayerRig<Dtype>(proxies).Forward(), "the label of row 1 is 1");
  LayerSpec large = Batch("LiftedStructureLoss", "0101", 2);
  large.bottoms[0].values[5] = sizeof(Dtype) == 4 ? 1e30 : 1e200;
  EXPECT_DEATH(LayerRig<Dtype>(large).Forward(), "too large");
}

// ---- What is slow, on the CPU only.

template <typename Dtype>
class BatchLossCPUTest : public CPUDeviceTest<Dtype> {};

TYPED_TEST_CASE(BatchLossCPUTest, TestDtypes);

// A matrix of more than 2^24 elements is handled a strip of anchors at a time.
// No oracle has the patience: along its gradient the loss grows by its square.
TYPED_TEST(BatchLossCPUTest, TestManyStrips) {
  const char* types[] = {"SupConLoss", "BatchContrastiveLoss",
                         "LiftedStructureLoss"};
  for (int t = 0; t < 3; ++t) {
    // All pairs are near enough: none comes or goes on the way.
    LayerSpec spec =
        Batch(types[t], "0", 2, t == 1 ? "negative_margin: 2.5" : "");
    const int rows = 4200;  // 4200 x 4200 > 2^24
    spec.bottoms[0] = RandomBlob(Shape(rows, 2), 3);
    spec.bottoms[1] = BlobSpec(Shape(rows), vector<double>(rows, 0));
    for (int i = 0; i < rows; ++i) {
      spec.bottoms[1].values[i] = i / 2;
    }
    LayerRig<TypeParam> rig(spec);
    rig.Forward();
    rig.Backward();
    const vector<double> gradient = rig.BottomDiff(0);
    double square = 0;
    for (int k = 0; k < gradient.size(); ++k) {
      square += gradient[k] * gradient[k];
    }
    const double step = 1e-3 / std::sqrt(square);
    double losses[2];
    for (int side = 0; side < 2; ++side) {
      BlobSpec moved = spec.bottoms[0];
      for (int k = 0; k < gradient.size(); ++k) {
        moved.values[k] += (side ? -step : step) * gradient[k];
      }
      rig.SetBottom(0, moved);
      rig.Forward();
      losses[side] = rig.Top(0)[0];
    }
    const double slope = (losses[0] - losses[1]) / (2 * step);
    EXPECT_NEAR(1, slope / square, sizeof(TypeParam) == 4 ? 0.05 : 1e-3)
        << types[t];
  }
}

// The check itself.
class BatchLossCheckTest : public CPUDeviceTest<double> {};

TEST_F(BatchLossCheckTest, TestTeeth) {
  const vector<Loss> losses = Losses();
  for (int i = 0; i < losses.size(); ++i) {
    if (losses[i].type != "CircleLoss") {  // no derivative, by definition
      ExpectTeeth(Batch(losses[i].type, "010201", 3, losses[i].param,
                        "loss_weight: 2.5"));
    }
  }
}

}  // namespace caffe
