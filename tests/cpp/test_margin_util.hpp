#ifndef CAFFE_TEST_TEST_MARGIN_UTIL_HPP_
#define CAFFE_TEST_TEST_MARGIN_UTIL_HPP_

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/test/test_metric_util.hpp"

/// What the gtests of MarginInnerProduct and MarginSoftmaxLoss share: an oracle
/// by arccos, and layers to try.
namespace caffe {
namespace margin_test {

using metric_test::BlobSpec;
using metric_test::ExpectArray;
using metric_test::ExpectValue;
using metric_test::Labels;
using metric_test::LayerRig;
using metric_test::LayerSpec;
using metric_test::Numbers;
using metric_test::ParseLayer;
using metric_test::RandomBlob;
using metric_test::Shape;
using metric_test::Tolerance;

const double kPi = 3.14159265358979323846;

// ---- The oracle: a row and a class at a time, by arccos, in float64.

class Oracle {
 public:
  // The weights are those that the layer is given, of any length.
  Oracle(const LayerSpec& spec, const vector<double>& weights)
      : layer_(ParseLayer(spec.prototxt)),
        param_(layer_.margin_inner_product_param()),
        weights_(weights),
        label_(spec.bottoms[1].values),
        rows_(label_.size()),
        dim_(weights.size() / param_.num_output()),
        x_(spec.bottoms[0].values) {}

  int classes() const { return param_.num_output(); }
  int label(int i) const { return static_cast<int>(label_[i]); }

  double Lambda(double t) const {
    return std::max<double>(
        param_.lambda_min(),
        param_.base() * std::pow(1 + param_.gamma() * t, -param_.power()));
  }

  // The target's cosine, of the angle theta, with its margin.
  double Psi(double theta) const {
    const int m = 1 + param_.type();
    // the last piece ends at pi
    const int k = std::min(static_cast<int>(m * theta / kPi), m - 1);
    return (k % 2 ? -1 : 1) * std::cos(m * theta) - 2 * k;
  }

  // psi' = d psi / d cos(theta)
  double PsiSlope(double theta) const {
    const int m = 1 + param_.type();
    const int k = std::min(static_cast<int>(m * theta / kPi), m - 1);
    return (k % 2 ? -1 : 1) * m * std::sin(m * theta) / std::sin(theta);
  }

  double Cosine(int i, int j) const {
    const double norms = Norm(x(i)) * Norm(w(j));
    return norms == 0 ? 0 : Dot(x(i), w(j)) / norms;
  }

  vector<double> Logits(double lambda, bool margin) const {
    vector<double> z(rows_ * classes());
    for (int i = 0; i < rows_; ++i) {
      const bool zero = Norm(x(i)) == 0;
      const double r = param_.normalize_features() ? 1 : Norm(x(i));
      for (int j = 0; j < classes(); ++j) {
        double c = Cosine(i, j);
        if (margin && j == label(i)) {
          c = Target(c, lambda);
        }
        z[i * classes() + j] = zero ? 0 : param_.scale() * r * c;
      }
    }
    return z;
  }

  // The published code's gradients.
  void Reference(const vector<double>& top_diff, double lambda,
                 vector<double>* dx, vector<double>* dw) const {
    dx->assign(rows_ * dim_, 0);
    dw->assign(classes() * dim_, 0);
    for (int i = 0; i < rows_; ++i) {
      for (int j = 0; j < classes(); ++j) {
        const double diff = top_diff[i * classes() + j];
        const double w_norm = Norm(w(j));
        double by_w = 1, by_x = 0;
        if (j == label(i)) {
          const double c = Cosine(i, j);
          const double slope = PsiSlope(std::acos(c));
          const double c_w = slope;
          const double c_x = (Psi(std::acos(c)) - c * slope) / Norm(x(i));
          const double length = std::sqrt(c_w * c_w + c_x * c_x);
          by_w = (lambda + c_w / length) / (1 + lambda);
          by_x = c_x / length / (1 + lambda);
        }
        for (int k = 0; k < dim_; ++k) {
          (*dx)[i * dim_ + k] +=
              diff * (by_w * w(j)[k] / w_norm + by_x * x(i)[k]);
          (*dw)[j * dim_ + k] += diff * x(i)[k];
        }
      }
    }
  }

  // Whether the largest logit, the first of them, is the label's.
  bool Right(int i, const vector<double>& logits) const {
    int best = 0;
    for (int j = 1; j < classes(); ++j) {
      best =
          logits[i * classes() + j] > logits[i * classes() + best] ? j : best;
    }
    return best == label(i);
  }

  vector<double> UnitFeature(int i) const {
    vector<double> unit(x(i), x(i) + dim_);
    for (int k = 0; k < dim_; ++k) {
      unit[k] /= Norm(x(i));
    }
    return unit;
  }

 private:
  const double* x(int i) const { return &x_[i * dim_]; }
  const double* w(int j) const { return &weights_[j * dim_]; }

  double Dot(const double* u, const double* v) const {
    double sum = 0;
    for (int k = 0; k < dim_; ++k) {
      sum += u[k] * v[k];
    }
    return sum;
  }
  double Norm(const double* u) const { return std::sqrt(Dot(u, u)); }

  double Target(double c, double lambda) const {
    const double theta = std::acos(std::max(-1., std::min(1., c)));
    const double m2 = param_.angular_margin(), m3 = param_.cosine_margin();
    if (m2 == 0 && m3 == 0) {
      return (lambda * c + Psi(theta)) / (1 + lambda);
    }
    return (theta + m2 > kPi ? c - m2 * std::sin(m2) : std::cos(theta + m2)) -
           m3;
  }

  LayerParameter layer_;
  MarginInnerProductParameter param_;
  vector<double> weights_;
  vector<double> label_;
  int rows_, dim_;
  vector<double> x_;
};

// ---- Layers to try.

const char* const kTypes[] = {"type: SINGLE", "type: DOUBLE", "type: TRIPLE",
                              "type: QUADRUPLE"};

// Weights of length about 1 to 3, for the layer to scale.
inline LayerSpec Spec(const string& labels, int dim, int classes,
                      const string& param, const string& layer = "",
                      unsigned int seed = 1) {
  LayerSpec spec;
  std::ostringstream prototxt;
  prototxt << "name: 'margin' type: 'MarginInnerProduct' "
           << "margin_inner_product_param { num_output: " << classes
           << " weight_filler { type: 'xavier' } " << param << " } " << layer;
  spec.prototxt = prototxt.str();
  const BlobSpec y = Labels(labels);
  spec.bottoms.push_back(RandomBlob(Shape(y.rows(), dim), seed));
  spec.bottoms.push_back(y);
  spec.params.push_back(Numbers(seed + 50).Uniform(classes * dim, -1, 1));
  spec.tops = 2;
  spec.top_diffs.push_back(
      Numbers(seed + 90).Uniform(y.rows() * classes, -1, 1));
  spec.top_diffs.push_back(vector<double>(1, 0));
  spec.checked_bottoms.push_back(0);
  spec.checked_params.push_back(0);
  return spec;
}

// What changes the arithmetic and goes with every type.
inline vector<string> Options() {
  const char* lambdas[] = {
      "base: 0", "base: 5",
      "base: 2 gamma: 0.5 power: 2 iteration: 3 lambda_min: 0.0625"};
  const char* scales[] = {"", "scale: 16", "normalize_features: true",
                          "normalize_features: true scale: 4"};
  vector<string> options;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 4; ++j) {
      options.push_back(string(lambdas[i]) + " " + scales[j]);
    }
  }
  return options;
}

inline vector<string> AdditiveMargins() {
  const char* margins[] = {"angular_margin: 0.5", "cosine_margin: 0.35",
                           "angular_margin: 0.3 cosine_margin: 0.2",
                           "angular_margin: 1.5"};
  const char* scales[] = {"", "normalize_features: true scale: 8"};
  vector<string> options;
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 2; ++j) {
      options.push_back(string(margins[i]) + " " + scales[j]);
    }
  }
  return options;
}

template <typename Dtype>
void ExpectLogits(const vector<double>& expected, LayerRig<Dtype>* rig) {
  ExpectArray(expected, rig->Top(0), Tolerance<Dtype>::Value());
}

// A first TRAIN forward, against arccos.
template <typename Dtype>
void ExpectForward(const LayerSpec& spec) {
  SCOPED_TRACE(spec.prototxt);
  const Oracle oracle(spec, spec.params[0]);
  const double lambda = oracle.Lambda(
      1 + ParseLayer(spec.prototxt).margin_inner_product_param().iteration());
  LayerRig<Dtype> rig(spec);
  rig.Forward();
  ExpectLogits(oracle.Logits(lambda, true), &rig);
  EXPECT_EQ(0, rig.top(1)->num_axes());
  ExpectValue(lambda, rig.Top(1)[0], Tolerance<Dtype>::Value());
}

inline vector<double> Row(const vector<double>& matrix, int row, int dim) {
  return vector<double>(matrix.begin() + row * dim,
                        matrix.begin() + (row + 1) * dim);
}

inline double Length(const vector<double>& values) {
  double sum = 0;
  for (int i = 0; i < values.size(); ++i) {
    sum += values[i] * values[i];
  }
  return std::sqrt(sum);
}

inline bool Near(const vector<double>& a, const vector<double>& b) {
  double sum = 0;
  for (int i = 0; i < a.size(); ++i) {
    sum += (a[i] - b[i]) * (a[i] - b[i]);
  }
  return std::sqrt(sum) < 1e-5;
}

}  // namespace margin_test
}  // namespace caffe

#endif  // CAFFE_TEST_TEST_MARGIN_UTIL_HPP_
