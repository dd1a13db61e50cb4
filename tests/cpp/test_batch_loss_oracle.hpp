#ifndef CAFFE_TEST_TEST_BATCH_LOSS_ORACLE_HPP_
#define CAFFE_TEST_TEST_BATCH_LOSS_ORACLE_HPP_

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/common.hpp"
#include "caffe/test/test_metric_util.hpp"

// What the losses over a batch should be: the formulas of the papers, written
// out in float64, with no care for large numbers; their gradients by
// differences.

namespace caffe {
namespace batch_loss_test {

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

typedef vector<vector<double>> Matrix;

inline Matrix Rows(const vector<double>& values, int dim) {
  Matrix rows;
  for (int i = 0; i + dim <= static_cast<int>(values.size()); i += dim) {
    rows.push_back(vector<double>(&values[i], &values[i] + dim));
  }
  return rows;
}

inline double Cosine(const vector<double>& u, const vector<double>& v) {
  double uv = 0, uu = 0, vv = 0;
  for (int k = 0; k < u.size(); ++k) {
    uv += u[k] * v[k];
    uu += u[k] * u[k];
    vv += v[k] * v[k];
  }
  return uu == 0 || vv == 0 ? 0 : uv / std::sqrt(uu * vv);
}

inline vector<double> Unit(const vector<double>& u) {
  double uu = 0;
  for (int k = 0; k < u.size(); ++k) {
    uu += u[k] * u[k];
  }
  vector<double> unit(u);
  for (int k = 0; uu > 0 && k < u.size(); ++k) {
    unit[k] /= std::sqrt(uu);
  }
  return unit;
}

inline double Length(const vector<double>& u, const vector<double>& v) {
  double sum = 0;
  for (int k = 0; k < u.size(); ++k) {
    sum += (u[k] - v[k]) * (u[k] - v[k]);
  }
  return std::sqrt(sum);
}

// The tops of a loss: of rows x with labels y, and of rows that are only met.
class Oracle {
 public:
  explicit Oracle(const string& prototxt) : layer_(ParseLayer(prototxt)) {}

  // `frozen` is where CircleLoss takes its constant factors. The proxies are
  // those of ProxyAnchorLoss, the memory is rows beyond the labels' first.
  vector<double> Tops(const Matrix& x, const Matrix& frozen,
                      const vector<double>& y, const Matrix& more,
                      const vector<double>& more_y) const {
    const bool proxies = layer_.type() == "ProxyAnchorLoss";
    const int anchors = proxies ? more.size() : x.size();
    Matrix all(x), all_frozen(frozen);
    vector<double> labels(y);
    if (!proxies) {
      all.insert(all.end(), more.begin(), more.end());
      all_frozen.insert(all_frozen.end(), more.begin(), more.end());
      labels.insert(labels.end(), more_y.begin(), more_y.end());
    }
    // v, its frozen value, and whether the pair is of one class: -1 is none.
    Matrix v(anchors), v0(anchors);
    vector<vector<int>> same(anchors);
    double count[] = {0, 0}, sum[] = {0, 0};
    for (int i = 0; i < anchors; ++i) {
      const vector<double>& a = proxies ? more[i] : all[i];
      const vector<double>& a0 = proxies ? more[i] : all_frozen[i];
      const double label = proxies ? i : labels[i];
      for (int j = 0; j < all.size(); ++j) {
        v[i].push_back(Measure(a, all[j]));
        v0[i].push_back(Measure(a0, all_frozen[j]));
        same[i].push_back(!proxies && i == j ? -1 : labels[j] == label);
        if (same[i][j] >= 0) {
          count[same[i][j]] += 1;
          sum[same[i][j]] += v[i][j];
        }
      }
    }
    vector<double> losses(anchors, 0);
    for (int i = 0; count[0] > 0 && count[1] > 0 && i < anchors; ++i) {
      losses[i] = Loss(i, v, v0, same);
    }
    const double active =
        anchors - std::count(losses.begin(), losses.end(), 0.);
    double total = 0;
    for (int i = 0; i < anchors; ++i) {
      total += losses[i];
    }
    vector<double> tops(1, total / Divisor(anchors, active));
    tops.push_back(active / anchors);
    tops.push_back(count[1] > 0 ? sum[1] / count[1] : 0);
    tops.push_back(count[0] > 0 ? sum[0] / count[0] : 0);
    return tops;
  }

 private:
  double Measure(const vector<double>& u, const vector<double>& w) const {
    if (layer_.type() == "BatchContrastiveLoss" ||
        (layer_.type() == "LiftedStructureLoss" &&
         layer_.lifted_structure_loss_param().normalize())) {
      return Length(Unit(u), Unit(w));
    }
    return layer_.type() == "LiftedStructureLoss" ? Length(u, w) : Cosine(u, w);
  }

  double Divisor(double anchors, double active) const {
    const string& type = layer_.type();
    if (type == "MultiSimilarityLoss" ||
        (type == "LiftedStructureLoss" &&
         layer_.lifted_structure_loss_param().form() ==
             LiftedStructureLossParameter::GENERALIZED)) {
      return anchors;
    }
    return type == "SupConLoss" || type == "CircleLoss" ? std::max(active, 1.)
                                                        : 1;
  }

  // sum over the anchor's pairs of one class, or of two, of e^x
  template <typename Exponent>
  static double Sum(const vector<double>& v, const vector<int>& same, int which,
                    const Exponent& x) {
    double sum = 0;
    for (int j = 0; j < v.size(); ++j) {
      sum += same[j] == which ? std::exp(x(j)) : 0;
    }
    return sum;
  }

  double Loss(int i, const Matrix& all_v, const Matrix& all_v0,
              const vector<vector<int>>& all_same) const {
    const vector<double>& v = all_v[i];
    const vector<double>& v0 = all_v0[i];
    const vector<int>& same = all_same[i];
    const int n = v.size();
    const string& type = layer_.type();
    if (type == "SupConLoss") {
      const double t = layer_.sup_con_loss_param().temperature();
      const double sum = Sum(v, same, 0, [&](int j) { return v[j] / t; }) +
                         Sum(v, same, 1, [&](int j) { return v[j] / t; });
      double loss = 0;
      int count = 0;
      for (int j = 0; j < n; ++j) {
        if (same[j] == 1) {
          loss -= std::log(std::exp(v[j] / t) / sum);
          ++count;
        }
      }
      return count == 0 ? 0 : loss / count;
    }
    if (type == "CircleLoss") {
      const double m = layer_.circle_loss_param().margin();
      const double g = layer_.circle_loss_param().gamma();
      return log1p(
          Sum(v, same, 0,
              [&](int j) { return g * std::max(0., v0[j] + m) * (v[j] - m); }) *
          Sum(v, same, 1, [&](int j) {
            return -g * std::max(0., 1 + m - v0[j]) * (v[j] - 1 + m);
          }));
    }
    if (type == "MultiSimilarityLoss") {
      const MultiSimilarityLossParameter& param =
          layer_.multi_similarity_loss_param();
      double least = 1e9, greatest = -1e9;
      for (int j = 0; j < n; ++j) {
        least = same[j] == 1 ? std::min(least, v[j]) : least;
        greatest = same[j] == 0 ? std::max(greatest, v[j]) : greatest;
      }
      double pull = 0, push = 0;
      for (int j = 0; j < n; ++j) {
        const bool all = param.epsilon() < 0;
        if (same[j] == 1 && (all || v[j] - param.epsilon() < greatest)) {
          pull += std::exp(-param.alpha() * (v[j] - param.base()));
        }
        if (same[j] == 0 && (all || v[j] + param.epsilon() > least)) {
          push += std::exp(param.beta() * (v[j] - param.base()));
        }
      }
      return log1p(pull) / param.alpha() + log1p(push) / param.beta();
    }
    if (type == "BatchContrastiveLoss") {
      const double mp = layer_.batch_contrastive_loss_param().positive_margin();
      const double mn = layer_.batch_contrastive_loss_param().negative_margin();
      double count[] = {0, 0};
      for (int a = 0; a < all_v.size(); ++a) {
        for (int j = 0; j < n; ++j) {
          count[1] += all_same[a][j] == 1;
          count[0] += all_same[a][j] == 0 && all_v[a][j] < mn;
        }
      }
      double loss = 0;
      for (int j = 0; j < n; ++j) {
        if (same[j] == 1) {
          loss += 0.5 * std::pow(std::max(0., v[j] - mp), 2) / count[1];
        } else if (same[j] == 0 && v[j] < mn) {
          loss += 0.5 * std::pow(mn - v[j], 2) / count[0];
        }
      }
      return loss;
    }
    if (type == "ProxyAnchorLoss") {
      const double delta = layer_.proxy_anchor_loss_param().margin();
      const double alpha = layer_.proxy_anchor_loss_param().alpha();
      double present = 0;
      for (int c = 0; c < all_same.size(); ++c) {
        present += std::count(all_same[c].begin(), all_same[c].end(), 1) > 0;
      }
      return log1p(Sum(v, same, 1,
                       [&](int j) { return -alpha * (v[j] - delta); })) /
                 present +
             log1p(Sum(v, same, 0,
                       [&](int j) { return alpha * (v[j] + delta); })) /
                 all_v.size();
    }
    const LiftedStructureLossParameter& param =
        layer_.lifted_structure_loss_param();
    const double m = param.margin();
    const double others = Sum(v, same, 0, [&](int j) { return m - v[j]; });
    if (param.form() == LiftedStructureLossParameter::GENERALIZED) {
      const double own = Sum(v, same, 1, [&](int j) { return v[j]; });
      return own == 0 || others == 0
                 ? 0
                 : std::max(0., std::log(own) + std::log(others));
    }
    double pairs = 0, loss = 0;
    for (int a = 0; a < all_v.size(); ++a) {
      pairs += 0.5 * std::count(all_same[a].begin(), all_same[a].end(), 1);
    }
    for (int j = 0; j < n; ++j) {
      // Half of a pair's term for each of its anchors.
      if (same[j] == 1) {
        const vector<double>& w = all_v[j];
        const double all =
            others + Sum(w, all_same[j], 0, [&](int k) { return m - w[k]; });
        loss +=
            0.5 * std::pow(std::max(0., std::log(all) + v[j]), 2) / (2 * pairs);
      }
    }
    return loss;
  }

  LayerParameter layer_;
};

// ---- Layers to try.

inline LayerSpec Batch(const string& type, const string& labels, int dim,
                       const string& param = "", const string& layer = "",
                       unsigned int seed = 1) {
  LayerSpec spec;
  string field;
  for (int i = 0; i < type.size(); ++i) {
    const bool capital = type[i] >= 'A' && type[i] <= 'Z';
    field += capital && i > 0 ? "_" : "";
    field += static_cast<char>(capital ? type[i] + 'a' - 'A' : type[i]);
  }
  spec.prototxt = "name: 'loss' type: '" + type + "' " + field + "_param { " +
                  param + " } " + layer;
  spec.tops = 4;
  const BlobSpec y = Labels(labels);
  spec.bottoms.push_back(RandomBlob(Shape(y.rows(), dim), seed));
  spec.bottoms.push_back(y);
  spec.checked_bottoms.push_back(0);
  if (type == "ProxyAnchorLoss") {
    const int classes =
        ParseLayer(spec.prototxt).proxy_anchor_loss_param().num_output();
    spec.params.push_back(RandomBlob(Shape(classes, dim), seed + 5).values);
    spec.checked_params.push_back(0);
  }
  return spec;
}

// The gradient of the first top by `values`, by differences.
template <typename Top>
vector<double> Differences(vector<double> values, const Top& top) {
  const double step = 1e-5;
  vector<double> gradient;
  for (int k = 0; k < values.size(); ++k) {
    const double value = values[k];
    values[k] = value + step;
    const double above = top(values);
    values[k] = value - step;
    gradient.push_back((above - top(values)) / (2 * step));
    values[k] = value;
  }
  return gradient;
}

// Value, reports and gradient are the oracle's. `more` are the rows of a
// memory, with labels, that the rig holds.
template <typename Dtype>
void ExpectOracle(const LayerSpec& spec, LayerRig<Dtype>* rig,
                  const Matrix& more = Matrix(),
                  const vector<double>& more_y = vector<double>()) {
  SCOPED_TRACE(spec.prototxt);
  const Oracle oracle(spec.prototxt);
  const int dim = spec.bottoms[0].dim();
  const vector<double>& values = spec.bottoms[0].values;
  const vector<double>& y = spec.bottoms[1].values;
  const Matrix x = Rows(values, dim);
  const Matrix met = spec.params.empty() ? more : Rows(spec.params[0], dim);
  const vector<double> tops = oracle.Tops(x, x, y, met, more_y);
  rig->Forward();
  for (int i = 0; i < 4; ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(0, rig->top(i)->num_axes());
    ExpectValue(tops[i], rig->Top(i)[0], 2 * Tolerance<Dtype>::Value());
  }
  rig->Backward();
  const LayerParameter layer = ParseLayer(spec.prototxt);
  const double weight = layer.loss_weight_size() ? layer.loss_weight(0) : 1;
  const double tolerance = sizeof(Dtype) == 4 ? 2e-3 : 1e-5;
  ExpectArray(Differences(values,
                          [&](const vector<double>& at) {
                            return weight * oracle.Tops(Rows(at, dim), x, y,
                                                        met, more_y)[0];
                          }),
              rig->BottomDiff(0), tolerance);
  ExpectAllZero(rig->BottomDiff(1));
  if (!spec.params.empty()) {
    ExpectArray(Differences(spec.params[0],
                            [&](const vector<double>& at) {
                              return weight * oracle.Tops(x, x, y,
                                                          Rows(at, dim),
                                                          more_y)[0];
                            }),
                rig->ParamDiff(0), tolerance);
  }
}

template <typename Dtype>
void ExpectOracle(const LayerSpec& spec) {
  LayerRig<Dtype> rig(spec);
  ExpectOracle<Dtype>(spec, &rig);
}

}  // namespace batch_loss_test
}  // namespace caffe

#endif  // CAFFE_TEST_TEST_BATCH_LOSS_ORACLE_HPP_
