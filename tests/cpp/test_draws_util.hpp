#ifndef CAFFE_TEST_TEST_DRAWS_UTIL_HPP_
#define CAFFE_TEST_TEST_DRAWS_UTIL_HPP_

#include <set>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/common.hpp"
#include "caffe/test/test_metric_util.hpp"
#include "caffe/util/math_functions.hpp"

// Layers that draw at random, and layers that meet batches of any size.

namespace caffe {
namespace metric_test {

// The same seed draws the same, in another layer too. Returns how many losses
// eight seeds gave.
template <typename Dtype>
int ExpectReseededForwardRepeats(const LayerSpec& spec) {
  LayerRig<Dtype> rig(spec), other(spec);
  std::set<double> losses;
  for (unsigned int seed = 1; seed <= 8; ++seed) {
    rig.Forward(seed);
    rig.Backward();
    const double loss = rig.Top(0)[0];
    const vector<double> diff = rig.BottomDiff(0);
    losses.insert(loss);
    other.Forward(seed);
    other.Backward();
    rig.Forward(seed);
    rig.Backward();
    EXPECT_EQ(loss, rig.Top(0)[0]);
    EXPECT_EQ(loss, other.Top(0)[0]);
    EXPECT_TRUE(diff == rig.BottomDiff(0));
    EXPECT_TRUE(diff == other.BottomDiff(0));
  }
  return losses.size();
}

// Eight forwards without reseeding give several losses.
template <typename Dtype>
void ExpectForwardsDrawAnew(const LayerSpec& spec) {
  LayerRig<Dtype> rig(spec);
  std::set<double> losses;
  rig.Forward();
  for (int i = 0; i < 8; ++i) {
    rig.layer()->Forward(rig.bottoms(), rig.tops());
    losses.insert(rig.Top(0)[0]);
  }
  EXPECT_GT(losses.size(), 4);
}

// In TEST the draws are always the same, and leave the generator alone: a test
// between two iterations must not change a seeded training.
template <typename Dtype>
void ExpectTestPhaseDrawsNoKey(const LayerSpec& spec) {
  LayerRig<Dtype> rig(spec);
  rig.Forward(5);
  const unsigned int next = caffe_rng_rand();
  Caffe::set_random_seed(5);
  EXPECT_EQ(caffe_rng_rand(), next);
  const double loss = rig.Top(0)[0];
  rig.Forward(6);
  EXPECT_EQ(loss, rig.Top(0)[0]);
}

// A layer that met other batches before does what a fresh one does.
template <typename Dtype>
void ExpectReshapes(const vector<LayerSpec>& batches) {
  LayerRig<Dtype> rig(batches[0]);
  for (size_t i = 0; i < batches.size(); ++i) {
    rig.SetBottom(0, batches[i].bottoms[0]);
    rig.SetBottom(1, batches[i].bottoms[1]);
    rig.Forward();
    rig.Backward();
    LayerRig<Dtype> fresh(batches[i]);
    fresh.Forward();
    fresh.Backward();
    EXPECT_EQ(fresh.Top(0)[0], rig.Top(0)[0]);
    EXPECT_TRUE(fresh.BottomDiff(0) == rig.BottomDiff(0));
  }
}

}  // namespace metric_test
}  // namespace caffe

#endif  // CAFFE_TEST_TEST_DRAWS_UTIL_HPP_
