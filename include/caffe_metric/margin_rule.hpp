#ifndef CAFFE_METRIC_MARGIN_RULE_HPP_
#define CAFFE_METRIC_MARGIN_RULE_HPP_

#include <cmath>

#include "caffe_metric/macros.hpp"
#include "caffe_metric/vector_ops.hpp"

// The logits of MarginInnerProduct and MarginSoftmaxLoss. Every logit is
// scale * r * c_j with c_j the cosine of the feature x and class j's weights,
// and r = ||x|| or 1; the target's is scale * r * f(c) instead:
//
//   A-Softmax  f = (lambda c + psi(c)) / (1 + lambda),
//              psi = (-1)^k cos(m theta) - 2k, k = floor(m theta / pi)
//                                           Liu et al. 2017, eq. 7 and sec. 4
//   L-Softmax  the same f, and all logits times ||w_j|| (normalize_weights is
//              false)                       Liu et al. 2016, eq. 4 to 6
//   ArcFace    f = cos(theta + angular_margin)      Deng et al. 2019, eq. 3
//   CosFace    f = c - cosine_margin                Wang et al. 2018, eq. 4
//
// psi is evaluated by the Chebyshev polynomials of c, without arccos.

namespace caffe_metric {

// A function of c and its derivative.
template <typename T>
struct Curve {
  T value, slope;
};

// psi for m = 1, 2, 3, 4.
template <typename T>
CAFFE_METRIC_HD Curve<T> psi(int m, T c) {
  Curve<T> cos_m;  // cos(m theta) as a function of c
  int k;
  if (m == 1) {
    cos_m.value = c;
    cos_m.slope = 1;
    k = 0;
  } else if (m == 2) {
    cos_m.value = 2 * c * c - 1;
    cos_m.slope = 4 * c;
    k = c <= 0;
  } else if (m == 3) {
    cos_m.value = (4 * c * c - 3) * c;
    cos_m.slope = 12 * c * c - 3;
    k = (c <= T(0.5)) + (c <= T(-0.5));
  } else {
    const T half_root_2 = T(0.70710678118654752440);
    cos_m.value = 8 * (c * c - 1) * c * c + 1;
    cos_m.slope = (32 * c * c - 16) * c;
    k = (c <= half_root_2) + (c <= 0) + (c <= -half_root_2);
  }
  const T sign = k % 2 ? T(-1) : T(1);
  const Curve<T> curve = {sign * cos_m.value - 2 * k, sign * cos_m.slope};
  return curve;
}

// lambda of the t-th forward.
template <typename T>
CAFFE_METRIC_HD T annealed_lambda(T base, T gamma, T power, T lambda_min, T t) {
  return larger(base * std::pow(1 + gamma * t, -power), lambda_min);
}

template <typename T>
struct TargetRule {
  int m;             // of A-Softmax
  T lambda;          // of A-Softmax
  T angular_margin;  // of ArcFace, radians
  T cosine_margin;   // of CosFace
};

template <typename T>
CAFFE_METRIC_HD bool has_additive_margin(const TargetRule<T>& rule) {
  return rule.angular_margin != 0 || rule.cosine_margin != 0;
}

// f of the top of this file.
template <typename T>
CAFFE_METRIC_HD Curve<T> target_curve(const TargetRule<T>& rule, T c) {
  Curve<T> f;
  if (!has_additive_margin(rule)) {
    const Curve<T> p = psi(rule.m, c);
    f.value = (rule.lambda * c + p.value) / (1 + rule.lambda);
    f.slope = (rule.lambda + p.slope) / (1 + rule.lambda);
    return f;
  }
  const T cos_margin = std::cos(rule.angular_margin);
  const T sin_margin = std::sin(rule.angular_margin);
  if (rule.angular_margin == 0) {
    f.value = c;
    f.slope = 1;
  } else if (c < -cos_margin) {
    // theta + margin > pi, where the cosine would rise again.
    f.value = c - rule.angular_margin * sin_margin;
    f.slope = 1;
  } else {
    // The slope is infinite at c = 1, where the gradient has no direction.
    const T least = T(1e-6);
    const T sin_theta = std::sqrt(larger(1 - c * c, T(0)));
    f.value = c * cos_margin - sin_theta * sin_margin;
    f.slope = cos_margin + c / larger(sin_theta, least) * sin_margin;
  }
  f.value -= rule.cosine_margin;
  return f;
}

// The gradient of the target's logit (scale and r apart) by the feature, as
// coefficients of the unit weights w and the unit feature u:
// d(||x|| f(c)) / dx = f' w + (f - c f') u.
template <typename T>
struct FeatureGradient {
  T of_weight, of_feature;
};

template <typename T>
CAFFE_METRIC_HD FeatureGradient<T> exact_gradient(const Curve<T>& f, T c) {
  const FeatureGradient<T> gradient = {f.slope, f.value - c * f.slope};
  return gradient;
}

// What SphereFace's published code takes instead: with c_w = psi' and
// c_x = (psi - c psi') / ||x|| the coefficients of w and x, both divided by
// sqrt(c_w^2 + c_x^2), then blended with the plain gradient w by lambda.
template <typename T>
CAFFE_METRIC_HD FeatureGradient<T> reference_gradient(const TargetRule<T>& rule,
                                                      T c, T norm) {
  const Curve<T> p = psi(rule.m, c);
  const T of_weight = p.slope;
  const T of_x = (p.value - c * p.slope) / norm;
  const T length = std::sqrt(of_weight * of_weight + of_x * of_x);
  const T share = length > 0 ? 1 / (length * (1 + rule.lambda)) : T(0);
  const FeatureGradient<T> gradient = {
      share * of_weight + rule.lambda / (1 + rule.lambda), share * of_x * norm};
  return gradient;
}

// How a layer makes the logit of a target.
template <typename T>
struct TargetOptions {
  TargetRule<T> rule;
  T scale;
  int margin;              // whether the rule is applied at all
  int reference;           // whether gradient is REFERENCE
  int normalize_features;  // r = 1
  int normalize_weights;   // 0: times ||w_y||
};

// What the target's cosine is multiplied by; 0 for a zero feature.
template <typename T>
CAFFE_METRIC_HD T target_length(const TargetOptions<T>& options, T norm,
                                T weight_norm) {
  const T radius = options.normalize_features && norm > 0 ? T(1) : norm;
  return options.scale * radius *
         (options.normalize_weights ? T(1) : weight_norm);
}

template <typename T>
struct Target {
  T cosine, logit;
};

// From the logit without a margin; NaN stays NaN.
template <typename T>
CAFFE_METRIC_HD Target<T> make_target(const TargetOptions<T>& options, T plain,
                                      T norm, T weight_norm) {
  const T length = target_length(options, norm, weight_norm);
  Target<T> target;
  // 0 * plain: NaN weights show beside a zero feature, too.
  target.cosine = length == 0 ? 0 * plain : plain / length;
  if (target.cosine > 1) {
    target.cosine = 1;
  } else if (target.cosine < -1) {
    target.cosine = -1;
  }
  target.logit = options.margin
                     ? length * target_curve(options.rule, target.cosine).value
                     : plain;
  return target;
}

// Of the target's logit over scale * r * (||w|| or 1).
template <typename T>
CAFFE_METRIC_HD FeatureGradient<T> target_gradient(
    const TargetOptions<T>& options, T cosine, T norm) {
  if (!options.margin) {
    const FeatureGradient<T> plain = {1, 0};
    return plain;
  }
  return options.reference
             ? reference_gradient(options.rule, cosine, norm)
             : exact_gradient(target_curve(options.rule, cosine), cosine);
}

// Whether `semihard` lets a row have its gradient: it is wrong with the margin
// and, if m > 1, right without it. Right is the argmax, lowest index on a tie;
// before and after are the greatest logits of the classes below and above y.
template <typename T>
CAFFE_METRIC_HD bool is_right(T target, T before, T after) {
  return before < target && after <= target;
}

template <typename T>
CAFFE_METRIC_HD bool is_semihard(const TargetRule<T>& rule, T logit, T plain,
                                 T before, T after) {
  return !is_right(logit, before, after) &&
         (rule.m == 1 || is_right(plain, before, after));
}

// An update of own_update: what element k of the weights and of the momentum
// become, diff less `along` w being the gradient.
template <typename T>
struct Update {
  T rate, momentum, decay;
};

template <typename T>
CAFFE_METRIC_HD void update_element(const Update<T>& update, T along, T diff,
                                    T* weight, T* momentum) {
  const T gradient = diff - along * *weight + update.decay * *weight;
  *momentum = update.momentum * *momentum + update.rate * gradient;
  *weight -= *momentum;
}

// A weight row is left as it is if its squared norm is 1 to rounding: scaling
// it again would not make it better, and a repeated forward repeats exactly.
template <typename T>
CAFFE_METRIC_HD bool is_unit(T squared_norm) {
  const T rounding = sizeof(T) == sizeof(float) ? T(1e-6) : T(4e-15);
  return std::fabs(squared_norm - 1) <= rounding;
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_MARGIN_RULE_HPP_
