// Why: the published layer left out its loss weight, drew with rand() whatever
// random_seed said, and could draw a negative twice.
// Sweeps: N = 2 to 64 (no anchor, one, many), D = 1, 3, 7, 33; pair_size 2 to
// 4; neg_num from 1 to more than there are candidates; one class; ties;
// duplicates; zero features. What the layer drew is looked for among all legal
// draws, and the draws are counted.
// Tolerances: test_metric_util.hpp.
// Leaves out: most bad input (pytest), speed.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/rank_hard_loss_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_draws_util.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/test/test_metric_util.hpp"
#include "caffe/test/test_rank_hard_oracle.hpp"

namespace caffe {

using namespace rank_hard_test;  // NOLINT(build/namespaces)
using metric_test::ExpectForwardsDrawAnew;
using metric_test::ExpectGradient;
using metric_test::ExpectReseededForwardRepeats;
using metric_test::ExpectReshapes;
using metric_test::ExpectTeeth;
using metric_test::ExpectTestPhaseDrawsNoKey;

template <typename TypeParam>
class RankHardLossLayerTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(RankHardLossLayerTest, TestDtypesAndDevices);

TYPED_TEST(RankHardLossLayerTest, TestSetUp) {
  typedef typename TypeParam::Dtype Dtype;
  LayerSpec spec = Batch("0011", 3, "");
  for (int tops = 1; tops <= 2; ++tops) {
    spec.tops = tops;
    LayerRig<Dtype> rig(spec);
    EXPECT_STREQ("RankHardLoss", rig.layer()->type());
    EXPECT_TRUE(dynamic_cast<RankHardLossLayer<Dtype>*>(rig.layer()) != NULL);
    EXPECT_TRUE(rig.layer()->AllowForceBackward(0));
    EXPECT_EQ(1, rig.layer()->loss(0));
  }
}

// No more candidates than neg_num: nothing is drawn.
TYPED_TEST(RankHardLossLayerTest, TestAllTaken) {
  typedef typename TypeParam::Dtype Dtype;
  const int dims[] = {1, 3, 7, 33};
  const char* labels[] = {"0011", "00112233", "0000111122", "0000001111"};
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      ExpectSomeDraw<Dtype>(Batch(labels[j], dims[i], "neg_num: 8"));
      ExpectSomeDraw<Dtype>(
          UnitRows(Batch(labels[j], dims[i], "neg_num: 6 margin: 0.2")));
    }
  }
  ExpectSomeDraw<Dtype>(Batch("000111", 3, "neg_num: 3 pair_size: 3"));
  ExpectSomeDraw<Dtype>(Batch("00001111", 3, "neg_num: 4 pair_size: 4"));
  // features and labels with more axes
  LayerSpec spec = Batch("001122", 12, "neg_num: 4");
  spec.bottoms[0].shape = Shape(6, 2, 3, 2);
  spec.bottoms[1].shape = Shape(6, 1, 1, 1);
  ExpectSomeDraw<Dtype>(spec);
}

// Groups in one strip and in several.
TYPED_TEST(RankHardLossLayerTest, TestStrips) {
  typedef typename TypeParam::Dtype Dtype;
  for (int groups = 1; groups < 4; ++groups) {
    const metric_test::StripElements strips(10 * groups);
    ExpectSomeDraw<Dtype>(Batch("0011223344", 3, "neg_num: 10"));
    ExpectSomeDraw<Dtype>(Batch("000111222000", 3, "neg_num: 9 pair_size: 3"));
  }
}

TYPED_TEST(RankHardLossLayerTest, TestDrawsLegally) {
  typedef typename TypeParam::Dtype Dtype;
  for (unsigned int seed = 1; seed <= 3; ++seed) {
    // two anchors, four candidates each: 1 of the 2 hardest, 1 of the rest
    ExpectSomeDraw<Dtype>(
        Batch("00001111", 3, "neg_num: 2 pair_size: 4 margin: 9", "", seed),
        seed);
    ExpectSomeDraw<Dtype>(
        Batch("00001111", 3,
              "neg_num: 3 pair_size: 4 margin: 9 hard_ratio: 1 rand_ratio: 0",
              "", seed),
        seed);
    ExpectSomeDraw<Dtype>(
        Batch("00001111", 3,
              "neg_num: 3 pair_size: 4 margin: 9 hard_ratio: 0 rand_ratio: 1",
              "loss_weight: 3", seed),
        seed);
    ExpectSomeDraw<Dtype>(
        Batch(
            "00001111", 3,
            "neg_num: 3 pair_size: 4 margin: 9 hard_ratio: 0.4 rand_ratio: 0.7",
            "", seed),
        seed);
    // ratios that sum to 2: what is left may be fewer than asked for
    ExpectSomeDraw<Dtype>(
        Batch("00001111", 3,
              "neg_num: 3 pair_size: 4 margin: 9 hard_ratio: 1 rand_ratio: 1",
              "", seed),
        seed);
    // three anchors, some with few candidates
    ExpectSomeDraw<Dtype>(
        UnitRows(Batch("001122", 3, "neg_num: 2 margin: 0.2", "", seed)), seed);
    ExpectSomeDraw<Dtype>(
        UnitRows(Batch("00112233", 7, "neg_num: 2 margin: 0.5", "", seed)),
        seed);
  }
}

// The default neg_num 1 with ratios of one half: floor(0.5) = 0 twice.
TYPED_TEST(RankHardLossLayerTest, TestDefaultTakesOnlySingleCandidates) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(Batch("00112233", 3, "margin: 9"));
  rig.Forward();
  EXPECT_EQ(0, rig.Top(0)[0]);
  rig.Backward();
  ExpectAllZero(rig.BottomDiff(0));
  ExpectSomeDraw<Dtype>(Batch("00112233", 3, "margin: 9 hard_ratio: 1"));
}

// 10 * 0.7f is 7 in float, and 6.99999988 in double.
TYPED_TEST(RankHardLossLayerTest, TestProductsAreFloat) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(Batch(
      "0000000000000011111111111111", 3,
      "neg_num: 10 pair_size: 14 margin: 9 hard_ratio: 0.7 rand_ratio: 0"));
  rig.Forward();
  EXPECT_NEAR(0.7, rig.Top(1)[0], 1e-6);
}

TYPED_TEST(RankHardLossLayerTest, TestNormalization) {
  typedef typename TypeParam::Dtype Dtype;
  const char* names[] = {"FULL", "VALID", "BATCH_SIZE", "NONE"};
  for (int i = 0; i < 4; ++i) {
    const string layer =
        string("loss_param { normalization: ") + names[i] + " }";
    ExpectSomeDraw<Dtype>(
        UnitRows(Batch("00112233", 3, "neg_num: 9 margin: 0.1", layer)));
    ExpectSomeDraw<Dtype>(Batch("001122", 3, "neg_num: 2", layer));
    // nothing taken: no division by zero
    ExpectSomeDraw<Dtype>(Batch("001122", 3, "margin: -1e4", layer));
  }
}

TYPED_TEST(RankHardLossLayerTest, TestLossWeight) {
  typedef typename TypeParam::Dtype Dtype;
  ExpectSomeDraw<Dtype>(Batch("001122", 3, "neg_num: 4", "loss_weight: 2.5"));
  ExpectSomeDraw<Dtype>(Batch("001122", 3, "neg_num: 2", "loss_weight: -1"));
}

TYPED_TEST(RankHardLossLayerTest, TestOlderSpelling) {
  typedef typename TypeParam::Dtype Dtype;
  metric_test::UseFreshProcessesForDeath();
  LayerSpec spec = Batch("00112233", 3, "neg_num: 3 margin: 0.7");
  LayerRig<Dtype> rig(spec);
  spec.prototxt =
      "type: 'RankHardLoss' "
      "rank_hard_loss_param { neg_num: 3 margin: 0.7 }";
  LayerRig<Dtype> older(spec);
  rig.Forward();
  older.Forward();
  EXPECT_EQ(rig.Top(0)[0], older.Top(0)[0]);
  EXPECT_GT(rig.Top(0)[0], 0);
  spec.prototxt += " rank_param { }";
  EXPECT_DEATH(LayerRig<Dtype> both(spec), "rank_hard_loss_param");
}

TYPED_TEST(RankHardLossLayerTest, TestNothingToRank) {
  typedef typename TypeParam::Dtype Dtype;
  const char* labels[] = {"00", "0000", "33333333"};
  for (int i = 0; i < 3; ++i) {
    for (int neg_num = 1; neg_num <= 4; neg_num += 3) {
      LayerRig<Dtype> rig(
          Batch(labels[i], 1, neg_num == 1 ? "" : "neg_num: 4"));
      rig.Forward();
      EXPECT_EQ(0, rig.Top(0)[0]);
      EXPECT_EQ(0, rig.Top(1)[0]);
      rig.Backward();
      ExpectAllZero(rig.BottomDiff(0));
      ExpectAllZero(rig.BottomDiff(1));
    }
  }
}

TYPED_TEST(RankHardLossLayerTest, TestTiesDuplicatesAndZeros) {
  typedef typename TypeParam::Dtype Dtype;
  for (unsigned int seed = 1; seed <= 3; ++seed) {
    // all rows alike: the hardest are those of the lowest index
    LayerSpec spec = Batch(
        "00001111", 3, "neg_num: 2 pair_size: 4 hard_ratio: 1 rand_ratio: 0");
    for (int i = 0; i < 24; ++i) {
      spec.bottoms[0].values[i] = i % 3;
    }
    LayerRig<Dtype> rig(spec);
    rig.Forward(seed);
    vector<Rows> taken(2);
    taken[0].insert(4);
    taken[0].insert(5);
    taken[1].insert(0);
    taken[1].insert(1);
    ExpectOutcome(Oracle(spec).Evaluate(taken), &rig);
  }
  // zero features: s = 0 everywhere, every hinge is the margin
  LayerSpec zeros = Batch("001122", 3, "neg_num: 4");
  zeros.bottoms[0].values.assign(18, 0);
  LayerRig<Dtype> rig(zeros);
  rig.Forward();
  ExpectValue(0.5, rig.Top(0)[0], Tolerance<Dtype>::Value());
  rig.Backward();
  ExpectAllZero(rig.BottomDiff(0));
  // s(i, i + 1) - s(i, j) + margin is exactly 0: not a candidate
  LayerSpec edge = Batch("0011", 1, "neg_num: 4 margin: 0.5");
  const double x[] = {1, 1, 0.5, 0.5};
  edge.bottoms[0].values.assign(x, x + 4);
  ASSERT_EQ(0, Oracle(edge).Candidates(0).size());
  ExpectSomeDraw<Dtype>(edge);
}

TYPED_TEST(RankHardLossLayerTest, TestReseededForwardRepeatsItself) {
  const LayerSpec spec = Batch("0011223344", 3, "neg_num: 4 margin: 9");
  EXPECT_GT(ExpectReseededForwardRepeats<typename TypeParam::Dtype>(spec), 4);
}

TYPED_TEST(RankHardLossLayerTest, TestForwardsDrawAnew) {
  ExpectForwardsDrawAnew<typename TypeParam::Dtype>(
      Batch("0011223344", 3, "neg_num: 4 margin: 9"));
}

TYPED_TEST(RankHardLossLayerTest, TestTestPhaseDrawsNoKey) {
  ExpectTestPhaseDrawsNoKey<typename TypeParam::Dtype>(
      UnitRows(Batch("00112233", 3, "neg_num: 2 margin: 9", "phase: TEST")));
}

TYPED_TEST(RankHardLossLayerTest, TestFeaturesTooLarge) {
  typedef typename TypeParam::Dtype Dtype;
  metric_test::UseFreshProcessesForDeath();
  LayerSpec spec = Batch("0011", 3, "");
  spec.bottoms[0].values[7] = sizeof(Dtype) == 4 ? 1e20 : 1e200;
  EXPECT_DEATH(LayerRig<Dtype>(spec).Forward(),
               "RankHardLoss layer '.*too large");
}

TYPED_TEST(RankHardLossLayerTest, TestReshape) {
  const char* labels[] = {"0011", "00", "001122331122", "1122"};
  vector<LayerSpec> batches;
  for (int j = 0; j < 4; ++j) {
    batches.push_back(Batch(labels[j], 3, "neg_num: 2", "", j));
  }
  ExpectReshapes<typename TypeParam::Dtype>(batches);
}

TYPED_TEST(RankHardLossLayerTest, TestBadInput) {
  typedef typename TypeParam::Dtype Dtype;
  metric_test::UseFreshProcessesForDeath();
  EXPECT_DEATH(LayerRig<Dtype>(Batch("0011", 2, "pair_size: 1")), "pair_size");
  EXPECT_DEATH(LayerRig<Dtype>(Batch("00112", 2, "")), "5");
  EXPECT_DEATH(LayerRig<Dtype>(Batch("0012", 2, "")).Forward(), "label");
  LayerSpec spec = Batch("0011", 2, "");
  spec.bottoms[0].values[5] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_DEATH(LayerRig<Dtype>(spec).Forward(), "row 2");
}

TYPED_TEST(RankHardLossLayerTest, TestGradient) {
  typedef typename TypeParam::Dtype Dtype;
  GradientChecker<Dtype> checker(1e-2, 1e-2);
  LayerSpec spec = Batch("001122", 3, "neg_num: 2 margin: 9");
  spec.tops = 1;  // the second does not propagate
  LayerRig<Dtype> rig(spec);
  checker.CheckGradientExhaustive(rig.layer(), rig.bottoms(), rig.tops(), 0);
}

TYPED_TEST(RankHardLossLayerTest, TestGradientRelative) {
  const char* normalizations[] = {"", "loss_param { normalization: FULL }",
                                  "loss_param { normalization: VALID }",
                                  "loss_param { normalization: BATCH_SIZE }",
                                  "loss_param { normalization: NONE }"};
  for (int i = 0; i < 5; ++i) {
    const string layer = string("loss_weight: 2.5 ") + normalizations[i];
    ExpectGradient<TypeParam>(Batch("00112233", 3, "neg_num: 9", layer));
    ExpectGradient<TypeParam>(
        UnitRows(Batch("001122", 4, "neg_num: 2 margin: 0.3", layer)));
    ExpectGradient<TypeParam>(
        Batch("000011112222", 2, "neg_num: 4 pair_size: 4", layer));
    ExpectGradient<TypeParam>(
        Batch("000011", 2, "neg_num: 2 hard_ratio: 1 rand_ratio: 0.5 margin: 2",
              layer));
  }
}

// ---- What is slow or random, on the CPU only.

template <typename Dtype>
class RankHardLossLayerCPUTest : public CPUDeviceTest<Dtype> {};

TYPED_TEST_CASE(RankHardLossLayerCPUTest, TestDtypes);

TYPED_TEST(RankHardLossLayerCPUTest, TestLargerBatches) {
  const int dims[] = {1, 3, 7, 33};
  for (int i = 0; i < 4; ++i) {
    string labels;
    for (int j = 0; j < 64; ++j) {
      labels.push_back('0' + (j / 4) % 9);
    }
    ExpectSomeDraw<TypeParam>(Batch(labels, dims[i], "neg_num: 64"));
    ExpectSomeDraw<TypeParam>(
        UnitRows(Batch(labels, dims[i], "neg_num: 64 pair_size: 4")));
  }
}

// A Gram matrix of more than 2^24 elements is handled a strip of rows at a
// time. Rows are zero, and violate no such margin, but for 59 pairs of them.
TYPED_TEST(RankHardLossLayerCPUTest, TestManyStrips) {
  LayerSpec spec = Batch(string(5900, '0'), 3, "neg_num: 100 margin: -1",
                         "loss_param { normalization: NONE }");
  for (int row = 0; row < 5900; ++row) {
    spec.bottoms[1].values[row] = row / 2;
    for (int k = 0; k < 3 && row / 2 % 50 != 0; ++k) {
      spec.bottoms[0].values[3 * row + k] = 0;
    }
  }
  const Oracle oracle(spec);
  vector<Rows> taken(oracle.anchors());
  int count = 0;
  for (int a = 0; a < oracle.anchors(); a += 50) {
    taken[a] = oracle.Candidates(2 * a);
    count += taken[a].size();
  }
  ASSERT_GT(count, 100);
  LayerRig<TypeParam> rig(spec);
  rig.Forward();
  ExpectOutcome(oracle.Evaluate(taken), &rig);
}

// Every legal draw comes as often as the rule says, and anchors draw
// independently even where they share candidates.
TYPED_TEST(RankHardLossLayerCPUTest, TestDrawsHaveTheirProbability) {
  const LayerSpec specs[] = {
      // one anchor, four candidates
      Batch("001122", 3, "neg_num: 2 pair_size: 6 margin: 9"),
      Batch("001122", 3,
            "neg_num: 3 pair_size: 6 margin: 9 hard_ratio: 0.7 "
            "rand_ratio: 0.4"),
      Batch("001122", 3,
            "neg_num: 3 pair_size: 6 margin: 9 hard_ratio: 0 "
            "rand_ratio: 0.7"),
      // the anchors 0 and 2 both draw of rows 4 and 5
      Batch("000011", 3, "margin: 9 hard_ratio: 0 rand_ratio: 1"),
      Batch("000011", 3, "neg_num: 2 margin: 9 hard_ratio: 0.5 rand_ratio: 0")};
  for (int i = 0; i < 5; ++i) {
    SCOPED_TRACE(specs[i].prototxt);
    const vector<BatchDraw> draws = AllDraws(Oracle(specs[i]));
    ASSERT_GT(draws.size(), 1);
    LayerRig<TypeParam> rig(specs[i]);
    const int kForwards = 1600;
    vector<int> count(draws.size(), 0);
    for (int k = 0; k < kForwards; ++k) {
      rig.Forward(k + 1);
      const int drawn = NearestDraw(draws, &rig);
      ASSERT_NEAR(draws[drawn].outcome.loss, rig.Top(0)[0], 1e-5);
      ++count[drawn];
    }
    for (int k = 0; k < draws.size(); ++k) {
      const double p = draws[k].probability;
      EXPECT_NEAR(kForwards * p, count[k],
                  5 * std::sqrt(kForwards * p * (1 - p)));
    }
  }
}

// The check itself: it does not depend on type and device.
class RankHardLossLayerCheckTest : public CPUDeviceTest<double> {};

TEST_F(RankHardLossLayerCheckTest, TestTeeth) {
  ExpectTeeth(Batch("001122", 3, "neg_num: 9", "loss_weight: 2.5"));
  ExpectTeeth(Batch("001122", 3, "neg_num: 2 margin: 2", "loss_weight: 2.5"));
}

}  // namespace caffe
