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
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/rank_hard_loss_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/test/test_metric_util.hpp"

namespace caffe {

using metric_test::BlobSpec;
using metric_test::ExpectAllZero;
using metric_test::ExpectArray;
using metric_test::ExpectGradient;
using metric_test::ExpectTeeth;
using metric_test::ExpectValue;
using metric_test::Labels;
using metric_test::LayerRig;
using metric_test::LayerSpec;
using metric_test::ParseLayer;
using metric_test::RandomBlob;
using metric_test::Shape;
using metric_test::Tolerance;

namespace {

// ---- The oracle: loops over anchors and negatives, in float64.

struct Outcome {
  double loss;
  double active;  // the second top
  vector<double> gradient;
};

typedef std::set<int> Rows;  // the negatives taken of an anchor

class Oracle {
 public:
  explicit Oracle(const LayerSpec& spec)
      : x_(spec.bottoms[0]),
        label_(spec.bottoms[1].values),
        layer_(ParseLayer(spec.prototxt)),
        param_(layer_.has_rank_hard_loss_param() ? layer_.rank_hard_loss_param()
                                                 : layer_.rank_param()) {}

  int anchors() const { return x_.rows() / param_.pair_size(); }

  double s(int i, int j) const {
    double sum = 0;
    for (int k = 0; k < x_.dim(); ++k) {
      sum -= x_.row(i)[k] * x_.row(j)[k];
    }
    return sum;
  }

  Rows Candidates(int i) const {
    Rows rows;
    for (int j = 0; j < x_.rows(); ++j) {
      if (label_[j] != label_[i] &&
          s(i, i + 1) - s(i, j) + param_.margin() > 0) {
        rows.insert(j);
      }
    }
    return rows;
  }

  // What may be taken of the a-th anchor, and how likely it is.
  std::map<Rows, double> Draws(int a) const {
    const int i = a * param_.pair_size();
    std::map<Rows, double> draws;
    const Rows candidates = Candidates(i);
    const int neg_num = param_.neg_num();
    if (static_cast<int>(candidates.size()) <= neg_num) {
      draws[candidates] = 1;
      return draws;
    }
    // the products of the older layer, in float
    const int hard = static_cast<int>(neg_num * param_.hard_ratio());
    const int random = static_cast<int>(neg_num * param_.rand_ratio());
    vector<std::pair<double, int>> order;
    for (Rows::iterator it = candidates.begin(); it != candidates.end(); ++it) {
      order.push_back(std::make_pair(s(i, *it), *it));
    }
    std::sort(order.begin(), order.end());
    Rows hardest;
    for (int k = 0; k < neg_num; ++k) {
      hardest.insert(order[k].second);
    }
    std::map<Rows, double> first;
    Subsets(hardest, hard, Rows(), 1, &first);
    for (std::map<Rows, double>::iterator it = first.begin(); it != first.end();
         ++it) {
      Rows left;
      std::set_difference(candidates.begin(), candidates.end(),
                          it->first.begin(), it->first.end(),
                          std::inserter(left, left.end()));
      Subsets(left, random, it->first, it->second, &draws);
    }
    return draws;
  }

  // `taken` has the rows of each anchor.
  Outcome Evaluate(const vector<Rows>& taken) const {
    Outcome outcome;
    outcome.gradient.assign(x_.values.size(), 0);
    double sum = 0, terms = 0, active = 0;
    for (int a = 0; a < anchors(); ++a) {
      const int i = a * param_.pair_size();
      for (Rows::const_iterator it = taken[a].begin(); it != taken[a].end();
           ++it) {
        for (int k = 0; k < 2; ++k) {  // from the anchor, from the positive
          const double hinge = s(i, i + 1) - s(i + k, *it) + param_.margin();
          ++terms;
          if (hinge > 0) {
            ++active;
            sum += hinge;
            AddSlope(i, i + 1, 1, &outcome.gradient);
            AddSlope(i + k, *it, -1, &outcome.gradient);
          }
        }
      }
    }
    const double full = param_.neg_num() * anchors() * 2;
    double z = full;
    if (layer_.loss_param().has_normalization()) {
      switch (layer_.loss_param().normalization()) {
        case LossParameter_NormalizationMode_FULL:
          z = std::max(terms, 1.);
          break;
        case LossParameter_NormalizationMode_VALID:
          z = std::max(active, 1.);
          break;
        case LossParameter_NormalizationMode_BATCH_SIZE:
          z = anchors();
          break;
        default:
          z = 1;
      }
    }
    outcome.loss = sum / z;
    outcome.active = active / full;
    const double loss_weight =
        layer_.loss_weight_size() ? layer_.loss_weight(0) : 1;
    for (int k = 0; k < outcome.gradient.size(); ++k) {
      outcome.gradient[k] *= loss_weight / z;
    }
    return outcome;
  }

 private:
  // Adds `count` elements of `from` to `base`, or as many as there are, in
  // every way.
  static void Subsets(const Rows& from, int count, const Rows& base,
                      double share, std::map<Rows, double>* result) {
    std::set<Rows> subsets;
    subsets.insert(base);
    for (int k = 0; k < count; ++k) {
      std::set<Rows> larger;
      for (std::set<Rows>::iterator it = subsets.begin(); it != subsets.end();
           ++it) {
        for (Rows::const_iterator row = from.begin(); row != from.end();
             ++row) {
          Rows rows = *it;
          if (rows.insert(*row).second) {
            larger.insert(rows);
          }
        }
      }
      if (larger.empty()) {
        break;  // all of them are taken
      }
      subsets.swap(larger);
    }
    for (std::set<Rows>::iterator it = subsets.begin(); it != subsets.end();
         ++it) {
      (*result)[*it] += share / subsets.size();
    }
  }

  // Adds factor * the derivative of s(i, j).
  void AddSlope(int i, int j, double factor, vector<double>* gradient) const {
    for (int k = 0; k < x_.dim(); ++k) {
      (*gradient)[i * x_.dim() + k] -= factor * x_.row(j)[k];
      (*gradient)[j * x_.dim() + k] -= factor * x_.row(i)[k];
    }
  }

  BlobSpec x_;
  vector<double> label_;
  LayerParameter layer_;
  RankParameter param_;
};

// ---- Layers to try.

LayerSpec Batch(const string& labels, int dim, const string& param,
                const string& layer = "", unsigned int seed = 1) {
  LayerSpec spec;
  spec.prototxt =
      "name: 'rank' type: 'RankHardLoss' rank_param { " + param + " } " + layer;
  spec.tops = 2;
  const BlobSpec y = Labels(labels);
  spec.bottoms.push_back(RandomBlob(Shape(y.rows(), dim), seed));
  spec.bottoms.push_back(y);
  spec.checked_bottoms.push_back(0);
  return spec;
}

// Rows of length 1, as users of the layer have them.
LayerSpec UnitRows(LayerSpec spec) {
  BlobSpec& x = spec.bottoms[0];
  for (int i = 0; i < x.rows(); ++i) {
    double sum = 0;
    for (int k = 0; k < x.dim(); ++k) {
      sum += x.row(i)[k] * x.row(i)[k];
    }
    for (int k = 0; k < x.dim(); ++k) {
      double* value = &x.values[i * x.dim() + k];
      *value = static_cast<float>(*value / std::sqrt(sum));
    }
  }
  return spec;
}

template <typename Dtype>
void ExpectOutcome(const Outcome& expected, LayerRig<Dtype>* rig) {
  EXPECT_EQ(0, rig->top(0)->num_axes());
  EXPECT_EQ(0, rig->top(1)->num_axes());
  ExpectValue(expected.loss, rig->Top(0)[0], Tolerance<Dtype>::Value());
  ExpectValue(expected.active, rig->Top(1)[0], Tolerance<Dtype>::Value());
  rig->Backward();
  ExpectArray(expected.gradient, rig->BottomDiff(0),
              Tolerance<Dtype>::Gradient());
  ExpectAllZero(rig->BottomDiff(1));
}

// A draw of all anchors, and how likely it is.
struct BatchDraw {
  Outcome outcome;
  double probability;
};

// Every legal draw of a batch; anchors draw independently.
vector<BatchDraw> AllDraws(const Oracle& oracle) {
  vector<std::pair<vector<Rows>, double>> draws(
      1, std::make_pair(vector<Rows>(), 1.));
  for (int a = 0; a < oracle.anchors(); ++a) {
    const std::map<Rows, double> rows = oracle.Draws(a);
    vector<std::pair<vector<Rows>, double>> longer;
    for (int k = 0; k < draws.size(); ++k) {
      for (std::map<Rows, double>::const_iterator it = rows.begin();
           it != rows.end(); ++it) {
        longer.push_back(draws[k]);
        longer.back().first.push_back(it->first);
        longer.back().second *= it->second;
      }
    }
    draws.swap(longer);
    CHECK_LE(draws.size(), 10000) << "Choose a smaller batch.";
  }
  vector<BatchDraw> result(draws.size());
  for (int k = 0; k < draws.size(); ++k) {
    result[k].outcome = oracle.Evaluate(draws[k].first);
    result[k].probability = draws[k].second;
  }
  return result;
}

// The draw that both tops tell of: two draws may agree in the loss to rounding.
template <typename Dtype>
int NearestDraw(const vector<BatchDraw>& draws, LayerRig<Dtype>* rig) {
  const double loss = rig->Top(0)[0];
  const double active = rig->Top(1)[0];
  int nearest = 0;
  double least = -1;
  for (int k = 0; k < draws.size(); ++k) {
    const double distance = std::abs(draws[k].outcome.loss - loss) +
                            std::abs(draws[k].outcome.active - active);
    if (least < 0 || distance < least) {
      nearest = k;
      least = distance;
    }
  }
  return nearest;
}

// What was drawn is one of the legal draws, in loss, top and gradient.
template <typename Dtype>
void ExpectSomeDraw(const LayerSpec& spec, unsigned int seed = 1) {
  SCOPED_TRACE(spec.prototxt);
  LayerRig<Dtype> rig(spec);
  rig.Forward(seed);
  const vector<BatchDraw> draws = AllDraws(Oracle(spec));
  ExpectOutcome(draws[NearestDraw(draws, &rig)].outcome, &rig);
}

}  // namespace

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
  typedef typename TypeParam::Dtype Dtype;
  const LayerSpec spec = Batch("0011223344", 3, "neg_num: 4 margin: 9");
  LayerRig<Dtype> rig(spec), other(spec);
  std::map<double, int> losses;
  for (unsigned int seed = 1; seed <= 8; ++seed) {
    rig.Forward(seed);
    rig.Backward();
    const double loss = rig.Top(0)[0];
    const vector<double> diff = rig.BottomDiff(0);
    ++losses[loss];
    other.Forward(seed);
    other.Backward();
    rig.Forward(seed);
    rig.Backward();
    EXPECT_EQ(loss, rig.Top(0)[0]);
    EXPECT_EQ(loss, other.Top(0)[0]);
    EXPECT_TRUE(diff == rig.BottomDiff(0));
    EXPECT_TRUE(diff == other.BottomDiff(0));
  }
  EXPECT_GT(losses.size(), 4);
}

TYPED_TEST(RankHardLossLayerTest, TestForwardsDrawAnew) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(Batch("0011223344", 3, "neg_num: 4 margin: 9"));
  std::map<double, int> losses;
  rig.Forward();
  for (int i = 0; i < 8; ++i) {  // without reseeding
    rig.layer()->Forward(rig.bottoms(), rig.tops());
    ++losses[rig.Top(0)[0]];
  }
  EXPECT_GT(losses.size(), 4);
}

TYPED_TEST(RankHardLossLayerTest, TestReshape) {
  typedef typename TypeParam::Dtype Dtype;
  const char* labels[] = {"0011", "00", "001122331122", "1122"};
  LayerRig<Dtype> rig(Batch(labels[0], 3, "neg_num: 2"));
  for (int j = 0; j < 4; ++j) {
    const LayerSpec spec = Batch(labels[j], 3, "neg_num: 2", "", j);
    rig.SetBottom(0, spec.bottoms[0]);
    rig.SetBottom(1, spec.bottoms[1]);
    rig.Forward();
    rig.Backward();
    LayerRig<Dtype> fresh(spec);
    fresh.Forward();
    fresh.Backward();
    EXPECT_EQ(fresh.Top(0)[0], rig.Top(0)[0]);
    EXPECT_TRUE(fresh.BottomDiff(0) == rig.BottomDiff(0));
  }
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
