#ifndef CAFFE_TEST_TEST_MARGIN_SOFTMAX_UTIL_HPP_
#define CAFFE_TEST_TEST_MARGIN_SOFTMAX_UTIL_HPP_

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "caffe/test/test_margin_util.hpp"
#include "caffe/util/class_strips.hpp"

/// What the gtests of MarginSoftmaxLoss share: layers to try, and the pair of
/// layers that it has to equal.
namespace caffe {
namespace margin_test {

/// A layer with all three tops: `margin`, `softmax` and `layer` go into
/// margin_inner_product_param, margin_softmax_loss_param and the layer.
inline LayerSpec LossSpec(const string& labels, int dim, int classes,
                          const string& margin, const string& softmax = "",
                          const string& layer = "", unsigned int seed = 1) {
  LayerSpec spec =
      Spec(labels, dim, classes, margin,
           "margin_softmax_loss_param { " + softmax + " } " + layer, seed);
  const string pair = "type: 'MarginInnerProduct'";
  spec.prototxt.replace(spec.prototxt.find(pair), pair.size(),
                        "type: 'MarginSoftmaxLoss'");
  spec.tops = 3;
  spec.top_diffs.clear();
  return spec;
}

/// Strips of `width` classes, in several parts or in one, while it lives.
class StripsOf {
 public:
  StripsOf(int width, bool parts) : before_(ClassStrips::limits()) {
    ClassStrips::limits().elements = 1;
    ClassStrips::limits().least_width = width;
    ClassStrips::limits().least_work = parts ? 1 : 1e9;
  }
  ~StripsOf() { ClassStrips::limits() = before_; }

 private:
  ClassStrips::Limits before_;
};

/// What MarginInnerProduct and SoftmaxWithLoss give, in double on the CPU: the
/// softmax is written out.
struct Pair {
  explicit Pair(const LayerSpec& spec)
      : layer(ParseLayer(spec.prototxt)), loss(0), right(0) {
    LayerSpec margin = spec;
    LayerParameter param = layer;
    param.set_type("MarginInnerProduct");
    param.clear_loss_weight();
    const LossParameter& loss_param = layer.loss_param();
    const int rows = spec.bottoms[1].values.size();
    const int classes = layer.margin_inner_product_param().num_output();
    google::protobuf::TextFormat::PrintToString(param, &margin.prototxt);
    margin.tops = 2;
    margin.top_diffs.assign(1, vector<double>(rows * classes, 0));
    margin.top_diffs.push_back(vector<double>(1, 0));
    LayerRig<double> rig(margin);
    rig.Forward();
    lambda = rig.Top(1)[0];
    const vector<double> z = rig.Top(0);
    param.mutable_margin_inner_product_param()->set_margin_in_test(false);
    const vector<double> plain = Plain(margin, param);
    const double smoothing =
        layer.margin_softmax_loss_param().label_smoothing();
    vector<double> diff(z.size());
    int valid = 0;
    for (int i = 0; i < rows; ++i) {
      const int y = static_cast<int>(spec.bottoms[1].values[i]);
      if (y < 0 ||
          (loss_param.has_ignore_label() && y == loss_param.ignore_label())) {
        continue;
      }
      ++valid;
      const double* row = &z[i * classes];
      const double most = *std::max_element(row, row + classes);
      double sum = 0;
      for (int j = 0; j < classes; ++j) {
        sum += std::exp(row[j] - most);
      }
      for (int j = 0; j < classes; ++j) {
        const double wanted = (j == y) * (1 - smoothing) + smoothing / classes;
        const double log_p = row[j] - most - std::log(sum);
        loss -= wanted == 0 ? 0 : wanted * log_p;
        diff[i * classes + j] = std::exp(log_p) - wanted;
      }
      const double* logits = &plain[i * classes];
      right += std::max_element(logits, logits + classes) - logits == y;
    }
    right /= std::max(1, valid);
    double normalizer = std::max(1, valid);
    if (loss_param.has_normalization() || loss_param.has_normalize()) {
      const bool all = loss_param.has_normalization()
                           ? loss_param.normalization() !=
                                 LossParameter_NormalizationMode_VALID
                           : !loss_param.normalize();
      normalizer = all ? rows : normalizer;
      if (loss_param.has_normalization() &&
          loss_param.normalization() == LossParameter_NormalizationMode_NONE) {
        normalizer = 1;
      }
    }
    loss /= normalizer;
    const double weight = layer.loss_weight_size() ? layer.loss_weight(0) : 1;
    for (int k = 0; k < diff.size(); ++k) {
      margin.top_diffs[0][k] = diff[k] * weight / normalizer;
    }
    LayerRig<double> again(margin);
    again.Forward();
    again.Backward();
    dx = again.BottomDiff(0);
    dw = again.ParamDiff(0);
    weights = again.Param(0);
  }

  LayerParameter layer;
  double loss, lambda, right;
  vector<double> dx, dw, weights;

 private:
  // The logits without a margin.
  static vector<double> Plain(const LayerSpec& margin, LayerParameter param) {
    LayerSpec spec = margin;
    param.set_phase(TEST);
    google::protobuf::TextFormat::PrintToString(param, &spec.prototxt);
    LayerRig<double> rig(spec);
    rig.Forward();
    return rig.Top(0);
  }
};

/// As ExpectArray; gradients that all but vanish, being differences of numbers
/// of size 1, are compared on the scale of a hundredth.
inline void ExpectGradients(const vector<double>& expected,
                            const vector<double>& actual, double tolerance) {
  ASSERT_EQ(expected.size(), actual.size());
  const double scale = std::max(0.01, metric_test::Largest(expected));
  for (int i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(expected[i], actual[i], tolerance * scale) << "element " << i;
  }
}

/// The layer on its device against the pair.
template <typename TypeParam>
void ExpectPair(const LayerSpec& spec) {
  typedef typename TypeParam::Dtype Dtype;
  SCOPED_TRACE(spec.prototxt);
  const Caffe::Brew device = Caffe::mode();
  Caffe::set_mode(Caffe::CPU);
  const Pair pair(spec);
  Caffe::set_mode(device);
  LayerRig<Dtype> rig(spec);
  rig.Forward();
  rig.Backward();
  ExpectValue(pair.loss, rig.Top(0)[0], Tolerance<Dtype>::Value());
  ExpectValue(pair.lambda, rig.Top(1)[0], Tolerance<Dtype>::Value());
  ExpectValue(pair.right, rig.Top(2)[0], Tolerance<Dtype>::Value());
  ExpectGradients(pair.dx, rig.BottomDiff(0), Tolerance<Dtype>::Gradient());
  ExpectGradients(pair.dw, rig.ParamDiff(0), Tolerance<Dtype>::Gradient());
  ExpectArray(pair.weights, rig.Param(0), Tolerance<Dtype>::Value());
}

}  // namespace margin_test
}  // namespace caffe

#endif  // CAFFE_TEST_TEST_MARGIN_SOFTMAX_UTIL_HPP_
