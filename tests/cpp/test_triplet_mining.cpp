// Why: mining decides which rows a loss pulls and pushes, and reports how a
// training goes; both have been wrong without a test that saw it.
// Sweeps: the four minings x options; N = 1 to 4200; D = 1, 3, 7, 33; one
// class; all classes different; ties; duplicates. Random mining: what the layer
// drew is looked for among all legal draws, and the draws are counted.
// Tolerances: test_metric_util.hpp.
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
#include "caffe/test/test_draws_util.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/test/test_metric_util.hpp"
#include "caffe/test/test_triplet_oracle.hpp"

namespace caffe {

using namespace triplet_test;  // NOLINT(build/namespaces)
using metric_test::ExpectForwardsDrawAnew;
using metric_test::ExpectGradient;
using metric_test::ExpectReseededForwardRepeats;
using metric_test::ExpectReshapes;
using metric_test::ExpectTestPhaseDrawsNoKey;
using metric_test::Largest;

template <typename TypeParam>
class TripletMiningTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(TripletMiningTest, TestDtypesAndDevices);

// A gradient check may run in the TEST phase, too.
TYPED_TEST(TripletMiningTest, TestTestPhase) {
  typedef typename TypeParam::Dtype Dtype;
  for (int i = 0; i < 4; ++i) {
    const LayerSpec spec = Mined("0102120", 3, kMinings[i], "phase: TEST");
    ExpectTestPhaseDrawsNoKey<Dtype>(spec);
    if (i == 0 || i == 3) {
      LayerRig<Dtype> train(Mined("0102120", 3, kMinings[i])), test(spec);
      train.Forward();
      train.Backward();
      test.Forward();
      test.Backward();
      EXPECT_EQ(train.Top(0)[0], test.Top(0)[0]);
      EXPECT_TRUE(train.BottomDiff(0) == test.BottomDiff(0));
    }
    ExpectGradient<TypeParam>(
        Mined("010201", 3, kMinings[i], "phase: TEST loss_weight: 2.5"));
  }
}

TYPED_TEST(TripletMiningTest, TestMinedDuplicates) {
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

// Anchors in one strip and in several choose and give the same.
TYPED_TEST(TripletMiningTest, TestStrips) {
  typedef typename TypeParam::Dtype Dtype;
  const char* distances[] = {"SQUARED_L2", "L2", "LP", "COSINE"};
  const int elements[] = {7, 21, 42};
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      LayerSpec spec =
          Mined("0102120", 3,
                string("distance: ") + distances[i] + " " + kMinings[j]);
      for (int k = 0; k < 3; ++k) {  // close to row 0
        spec.bottoms[0].values[9 + k] = spec.bottoms[0].values[k] + 0.02;
      }
      LayerRig<Dtype> whole(spec);
      whole.Forward();
      whole.Backward();
      for (int e = 0; e < 3; ++e) {
        const metric_test::StripElements strips(elements[e]);
        SCOPED_TRACE(spec.prototxt);
        LayerRig<Dtype> rig(spec);
        rig.Forward();
        rig.Backward();
        for (int t = 0; t < 4; ++t) {
          EXPECT_NEAR(whole.Top(t)[0], rig.Top(t)[0], 1e-5);
        }
        for (int k = 0; k < 21; ++k) {
          EXPECT_NEAR(whole.BottomDiff(0)[k], rig.BottomDiff(0)[k], 1e-5);
        }
      }
    }
  }
}

TYPED_TEST(TripletMiningTest, TestNoTriplets) {
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

TYPED_TEST(TripletMiningTest, TestMiningAll) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<string> options = Options();
  for (int i = 0; i < options.size(); ++i) {
    ExpectMined<Dtype>(Mined("0102120", 4, options[i] + " mining: ALL"));
  }
}

TYPED_TEST(TripletMiningTest, TestMiningHardest) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<string> options = Options();
  for (int i = 0; i < options.size(); ++i) {
    ExpectMined<Dtype>(Mined("01021203", 4, options[i] + " mining: HARDEST"));
  }
}

TYPED_TEST(TripletMiningTest, TestMiningSizes) {
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

TYPED_TEST(TripletMiningTest, TestMiningTies) {
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

TYPED_TEST(TripletMiningTest, TestMiningDrawsLegally) {
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

TYPED_TEST(TripletMiningTest, TestReseededForwardRepeatsItself) {
  for (int i = 0; i < 4; ++i) {
    const int losses = ExpectReseededForwardRepeats<typename TypeParam::Dtype>(
        Mined("0011223344", 3, kMinings[i]));
    if (i == 0 || i == 3) {
      EXPECT_EQ(1, losses) << kMinings[i] << " draws nothing";
    } else {
      EXPECT_GT(losses, 4) << kMinings[i] << " draws anew each time";
    }
  }
}

TYPED_TEST(TripletMiningTest, TestForwardsDrawAnew) {
  ExpectForwardsDrawAnew<typename TypeParam::Dtype>(
      Mined("0011223344", 3, "mining: VIOLATING"));
}

TYPED_TEST(TripletMiningTest, TestReshape) {
  const char* labels[] = {"0101", "0", "001122001122", "010"};
  for (int i = 0; i < 4; ++i) {
    vector<LayerSpec> batches;
    for (int j = 0; j < 4; ++j) {
      batches.push_back(Mined(labels[j], 3, kMinings[i], "", j));
    }
    ExpectReshapes<typename TypeParam::Dtype>(batches);
  }
}

// What has no place among sorted numbers must not lead a search astray.
TYPED_TEST(TripletMiningTest, TestNaNAndTooLarge) {
  typedef typename TypeParam::Dtype Dtype;
  metric_test::UseFreshProcessesForDeath();
  const char* distances[] = {"SQUARED_L2", "L2", "LP", "COSINE"};
  for (int i = 0; i < 4; ++i) {
    LayerSpec spec =
        Mined("0102", 3, string(kMinings[i]) + " distance: " + distances[i]);
    spec.bottoms[0].values[3 * 2 + 1] =
        std::numeric_limits<double>::quiet_NaN();
    EXPECT_DEATH(LayerRig<Dtype>(spec).Forward(), "'triplet'.*row 2");
    spec.bottoms[0].values[3 * 2 + 1] = sizeof(Dtype) == 4 ? 1e20 : 1e200;
    if (i < 3) {
      EXPECT_DEATH(LayerRig<Dtype>(spec).Forward(), "'triplet'.*too large");
    }
  }
}

// Only directions count for a cosine of a mined batch, whatever the lengths.
TYPED_TEST(TripletMiningTest, TestCosineOfLargeFeatures) {
  typedef typename TypeParam::Dtype Dtype;
  LayerSpec spec = Mined("010210", 3, "distance: COSINE mining: ALL");
  LayerRig<Dtype> small(spec);
  small.Forward();
  for (int k = 0; k < spec.bottoms[0].values.size(); ++k) {
    spec.bottoms[0].values[k] *= 1e25;
  }
  LayerRig<Dtype> large(spec);
  large.Forward();
  for (int i = 0; i < kTops; ++i) {
    ExpectValue(small.Top(i)[0], large.Top(i)[0], Tolerance<Dtype>::Value());
  }
}

// ---- What is slow or random, on the CPU only.

template <typename Dtype>
class TripletMiningCPUTest : public CPUDeviceTest<Dtype> {};

TYPED_TEST_CASE(TripletMiningCPUTest, TestDtypes);

// A Gram matrix of more than 2^24 elements is handled a strip of rows at a
// time. Only eight rows have a positive, or the oracle would take for ever.
TYPED_TEST(TripletMiningCPUTest, TestManyStrips) {
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
    EXPECT_EQ(1, rig.Top(1)[0]);  // all pairs
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

// 196 million pairs, all of one class: no list of them is made, nor on the
// GPU, whose emulation would take minutes.
TYPED_TEST(TripletMiningCPUTest, TestOneLargeClass) {
  LayerSpec spec = Mined("0", 1, kMinings[1]);
  const int rows = 14000;
  spec.bottoms[0] = RandomBlob(Shape(rows, 1), 1);
  spec.bottoms[1] = BlobSpec(Shape(rows), vector<double>(rows, 3));
  LayerRig<TypeParam> rig(spec);
  rig.Forward();
  EXPECT_EQ(0, rig.Top(0)[0]);
  EXPECT_EQ(0, rig.Top(1)[0]);
  EXPECT_GT(rig.Top(2)[0], 0);
  EXPECT_EQ(0, rig.Top(3)[0]);
}

// Every candidate is drawn equally often, and anchors draw independently.
TYPED_TEST(TripletMiningCPUTest, TestDrawsAreUniform) {
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

}  // namespace caffe
