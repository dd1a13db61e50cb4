// Why: drawn classes are a loss of their own, and an update that leaves rows
// alone must leave them alone bit for bit.
// Sweeps: rates, batches with more classes than the rate gives, ignored rows;
// strips of 2 classes; the frequency with which a class is drawn; momentum,
// decay and rate of own_update over several iterations.
// Oracle: the pair over the drawn classes alone.
// Tolerances: test_metric_util.hpp; frequencies within 5 standard deviations.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/margin_softmax_loss_layer.hpp"
#include "caffe/util/metric_checks.hpp"
#include "caffe_metric/class_sampling.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_margin_softmax_util.hpp"

namespace caffe {

using margin_test::LossSpec;
using margin_test::Pair;
using margin_test::Row;
using margin_test::StripsOf;
using metric_test::ExpectArray;
using metric_test::ExpectValue;
using metric_test::LayerRig;
using metric_test::LayerSpec;
using metric_test::Tolerance;

TEST(ClassSamplingTest, TestCount) {
  EXPECT_EQ(1, caffe_metric::sampled_count(0.1f, 10));
  EXPECT_EQ(2, caffe_metric::sampled_count(0.1f, 11));
  EXPECT_EQ(100, caffe_metric::sampled_count(0.1f, 1000));
  EXPECT_EQ(100000, caffe_metric::sampled_count(0.1f, 1000000));
  EXPECT_EQ(1, caffe_metric::sampled_count(1e-6f, 100));
}

TEST(ClassSamplingTest, TestDraws) {
  const int kClasses = 50, kWanted = 20, kDraws = 4000;
  std::vector<int> batch;
  batch.push_back(3);
  batch.push_back(49);
  std::vector<int> times(kClasses);
  for (int key = 0; key < kDraws; ++key) {
    const std::vector<int> drawn =
        caffe_metric::draw_classes(key, kClasses, kWanted, batch);
    ASSERT_EQ(kWanted, drawn.size());
    for (int k = 0; k < drawn.size(); ++k) {
      EXPECT_TRUE(k == 0 || drawn[k - 1] < drawn[k]);
      ++times[drawn[k]];
    }
  }
  const double share = 18. / 48;
  for (int j = 0; j < kClasses; ++j) {
    if (j == 3 || j == 49) {
      EXPECT_EQ(kDraws, times[j]);
    } else {
      EXPECT_NEAR(kDraws * share, times[j],
                  5 * std::sqrt(kDraws * share * (1 - share)));
    }
  }
  // More classes in the batch than wanted, and all.
  EXPECT_EQ(2, caffe_metric::draw_classes(7, kClasses, 1, batch).size());
  EXPECT_EQ(50, caffe_metric::draw_classes(7, kClasses, 50, batch).size());
  EXPECT_EQ(1, caffe_metric::draw_classes(7, 9, 1, std::vector<int>()).size());
}

template <typename TypeParam>
class MarginSoftmaxLossLayerSamplingTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(MarginSoftmaxLossLayerSamplingTest, TestDtypesAndDevices);

// The rows that a forward and backward pass gave a gradient.
template <typename Dtype>
vector<int> Met(LayerRig<Dtype>* rig, int classes, int dim) {
  vector<int> met;
  const vector<double> dw = rig->ParamDiff(0);
  for (int j = 0; j < classes; ++j) {
    if (metric_test::Largest(Row(dw, j, dim)) > 0) {
      met.push_back(j);
    }
  }
  return met;
}

TYPED_TEST(MarginSoftmaxLossLayerSamplingTest, TestPairOfTheDrawn) {
  typedef typename TypeParam::Dtype Dtype;
  const char* params[] = {
      "type: QUADRUPLE base: 1", "normalize_features: true scale: 4",
      "type: DOUBLE normalize_weights: false", "type: TRIPLE semihard: true"};
  const char* keeps[] = {"keep_logits: ALWAYS", "keep_logits: NEVER"};
  const int kClasses = 12, kDim = 5;
  StripsOf strips(2, true);
  std::set<vector<int>> patterns;
  for (int i = 0; i < 16; ++i) {
    const LayerSpec spec = LossSpec(
        "0429", kDim, kClasses, params[i % 4],
        string("sample_rate: 0.5 label_smoothing: 0.1 ") + keeps[i / 4 % 2]);
    SCOPED_TRACE(spec.prototxt);
    LayerRig<Dtype> rig(spec);
    const vector<double> before = rig.Param(0);
    rig.Forward(100 + i);
    rig.Backward();
    const vector<int> met = Met(&rig, kClasses, kDim);
    ASSERT_EQ(6, met.size());
    patterns.insert(met);
    // The pair over these classes.
    LayerSpec few = spec;
    few.prototxt =
        LossSpec("0429", kDim, 6, params[i % 4], "label_smoothing: 0.1")
            .prototxt;
    few.params[0].clear();
    for (int k = 0; k < 6; ++k) {
      for (int d = 0; d < kDim; ++d) {
        few.params[0].push_back(before[met[k] * kDim + d]);
      }
    }
    for (int row = 0; row < 4; ++row) {
      const int y = static_cast<int>(spec.bottoms[1].values[row]);
      const vector<int>::const_iterator place =
          std::find(met.begin(), met.end(), y);
      ASSERT_TRUE(place != met.end()) << "class " << y << " did not meet";
      few.bottoms[1].values[row] = place - met.begin();
    }
    const Caffe::Brew device = Caffe::mode();
    Caffe::set_mode(Caffe::CPU);
    const Pair pair(few);
    Caffe::set_mode(device);
    ExpectValue(pair.loss, rig.Top(0)[0], Tolerance<Dtype>::Value());
    ExpectValue(pair.right, rig.Top(2)[0], Tolerance<Dtype>::Value());
    ExpectArray(pair.dx, rig.BottomDiff(0), Tolerance<Dtype>::Gradient());
    const vector<double> dw = rig.ParamDiff(0), after = rig.Param(0);
    vector<double> met_dw, met_weights;
    for (int j = 0; j < kClasses; ++j) {
      const bool meets = std::find(met.begin(), met.end(), j) != met.end();
      for (int d = 0; d < kDim; ++d) {
        if (meets) {
          met_dw.push_back(dw[j * kDim + d]);
          met_weights.push_back(after[j * kDim + d]);
        } else {
          EXPECT_EQ(before[j * kDim + d], after[j * kDim + d]);
        }
      }
    }
    ExpectArray(pair.dw, met_dw, Tolerance<Dtype>::Gradient());
    ExpectArray(pair.weights, met_weights, Tolerance<Dtype>::Value());
  }
  EXPECT_GT(patterns.size(), 10);
}

// The seed decides, and a TEST forward meets all and draws nothing.
TYPED_TEST(MarginSoftmaxLossLayerSamplingTest, TestSeed) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(LossSpec("0123", 3, 40, "", "sample_rate: 0.25"));
  rig.Forward(1);
  rig.Backward();
  const vector<double> dw = rig.ParamDiff(0);
  rig.Forward(1);
  rig.Backward();
  EXPECT_TRUE(dw == rig.ParamDiff(0));
  rig.Forward(2);
  rig.Backward();
  EXPECT_FALSE(dw == rig.ParamDiff(0));
  LayerRig<Dtype> test(
      LossSpec("0123", 3, 40, "", "sample_rate: 0.25", "phase: TEST"));
  test.Forward();
  const unsigned int next = caffe_rng_rand();
  Caffe::set_random_seed(LayerRig<Dtype>::kSeed);
  EXPECT_EQ(caffe_rng_rand(), next);
  test.Backward();
  EXPECT_EQ(40, Met(&test, 40, 3).size());
}

// The same classes on every device, by blocks that have many of them and few,
// and where the batch has more classes than are to meet.
TYPED_TEST(MarginSoftmaxLossLayerSamplingTest, TestDrawsOfTheHost) {
  typedef typename TypeParam::Dtype Dtype;
  const int sizes[] = {1, 2, 5, 12, 255, 256, 257, 3000};
  const char* rates[] = {"0.01", "0.25", "0.5", "0.999"};
  for (int i = 0; i < 8; ++i) {
    for (int k = 0; k < 4; ++k) {
      const int C = sizes[i];
      LayerSpec spec = LossSpec("000000", 2, C, "normalize_features: true",
                                string("sample_rate: ") + rates[k]);
      vector<int> batch;
      for (int row = 0; row < 6; ++row) {
        const int y = (row * C * 2 / 7 + row % 2) % C;
        spec.bottoms[1].values[row] = y;
        batch.push_back(y);
      }
      std::sort(batch.begin(), batch.end());
      batch.erase(std::unique(batch.begin(), batch.end()), batch.end());
      SCOPED_TRACE(spec.prototxt);
      LayerRig<Dtype> rig(spec);
      rig.Forward(7 + i);
      rig.Backward();
      vector<int> met = Met(&rig, C, 2);
      if (met.empty()) {
        met.push_back(batch[0]);  // a class alone has no gradient
      }
      Caffe::set_random_seed(7 + i);
      EXPECT_EQ(
          caffe_metric::draw_classes(draw_key(), C,
                                     caffe_metric::sampled_count(
                                         static_cast<float>(atof(rates[k])), C),
                                     batch),
          met);
    }
  }
}

// SGD with momentum and decay of the rows that met, and of no other.
TYPED_TEST(MarginSoftmaxLossLayerSamplingTest, TestOwnUpdate) {
  typedef typename TypeParam::Dtype Dtype;
  const int kClasses = 12, kDim = 3;
  const string softmax =
      "sample_rate: 0.5 own_update: true update_rate: 0.25 "
      "update_momentum: 0.5 update_decay: 0.0625";
  const string layer = "param { lr_mult: 0 decay_mult: 0 }";
  const char* params[] = {"type: DOUBLE base: 1", "normalize_weights: false"};
  StripsOf strips(2, true);
  for (int i = 0; i < 2; ++i) {
    LayerRig<Dtype> rig(
        LossSpec("0429", kDim, kClasses, params[i], softmax, layer));
    LayerRig<Dtype> plain(
        LossSpec("0429", kDim, kClasses, params[i], "sample_rate: 0.5"));
    ASSERT_EQ(4, rig.layer()->blobs().size());
    EXPECT_EQ(Dtype(0.25), rig.Param(3)[0]);
    vector<double> momentum(kClasses * kDim, 0);
    for (int iteration = 0; iteration < 6; ++iteration) {
      if (iteration == 4) {
        rig.param(3)->mutable_cpu_data()[0] = 0.125;  // as a trainer does
      }
      const double rate = iteration < 4 ? 0.25 : 0.125;
      rig.Keep();
      *plain.kept(0) = rig.Param(0);
      *plain.kept(1) = rig.Param(1);
      const vector<double> before = rig.Param(0);
      rig.Forward(iteration);
      rig.Backward();
      plain.Forward(iteration);
      plain.Backward();
      ExpectArray(plain.BottomDiff(0), rig.BottomDiff(0),
                  Tolerance<Dtype>::Gradient());
      const vector<int> met = Met(&plain, kClasses, kDim);
      const vector<double> dw = plain.ParamDiff(0), w = plain.Param(0);
      vector<double> expected = before;
      for (int n = 0; n < met.size(); ++n) {
        for (int k = met[n] * kDim; k < (met[n] + 1) * kDim; ++k) {
          momentum[k] = 0.5 * momentum[k] + rate * (dw[k] + 0.0625 * w[k]);
          expected[k] = w[k] - momentum[k];
        }
      }
      const vector<double> after = rig.Param(0);
      ExpectArray(expected, after, Tolerance<Dtype>::Value());
      ExpectArray(momentum, rig.Param(2), Tolerance<Dtype>::Gradient());
      for (int j = 0; j < kClasses; ++j) {
        if (std::find(met.begin(), met.end(), j) == met.end()) {
          EXPECT_EQ(Row(before, j, kDim), Row(after, j, kDim));
        }
      }
      metric_test::ExpectAllZero(rig.ParamDiff(0));
    }
  }
}

}  // namespace caffe
