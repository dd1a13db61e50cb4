#ifndef CAFFE_TEST_TEST_RANK_HARD_ORACLE_HPP_
#define CAFFE_TEST_TEST_RANK_HARD_ORACLE_HPP_

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/common.hpp"
#include "caffe/test/test_metric_util.hpp"

// What RankHardLoss should be, and the layers to try it on.

namespace caffe {
namespace rank_hard_test {

using metric_test::BlobSpec;
using metric_test::ExpectAllZero;
using metric_test::ExpectArray;
using metric_test::ExpectValue;
using metric_test::Labels;
using metric_test::LayerRig;
using metric_test::LayerSpec;
using metric_test::ParseLayer;
using metric_test::RandomBlob;
using metric_test::Shape;
using metric_test::Tolerance;

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

inline LayerSpec Batch(const string& labels, int dim, const string& param,
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
inline LayerSpec UnitRows(LayerSpec spec) {
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
inline vector<BatchDraw> AllDraws(const Oracle& oracle) {
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

}  // namespace rank_hard_test
}  // namespace caffe

#endif  // CAFFE_TEST_TEST_RANK_HARD_ORACLE_HPP_
