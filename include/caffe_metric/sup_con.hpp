#ifndef CAFFE_METRIC_SUP_CON_HPP_
#define CAFFE_METRIC_SUP_CON_HPP_

#include "caffe_metric/batch_others.hpp"
#include "caffe_metric/batch_rule.hpp"

// SupConLoss, Khosla et al. 2020, equation 2 (L_out): with s the cosine
// similarities of anchor i, P the rows of its class and N the others,
//
//   loss_i = -1/|P| sum_P (s/tau - ln sum_{P u N} e^(s/tau)),
//
// 0 without a row of its class. Reduced by the mean over anchors with a loss
// > 0.

namespace caffe_metric {

template <typename T>
struct SupConRule : BatchRule {
  T inverse_temperature;  // 1 / tau

  static const Reduction kReduction = OVER_ACTIVE;
  static const bool kAtOnce = true;

  struct State {
    LogSum<T> same, others;  // of s / tau
    double sum;              // of s / tau, same
    int count;               // |P|
    double normalizer;       // ln sum_{P u N}, once all is folded
  };

  CAFFE_METRIC_HD Distance measure() const { return SIMILARITY; }

  CAFFE_METRIC_HD State start() const {
    State state;
    state.same.start();
    state.others.start();
    state.sum = 0;
    state.count = 0;
    return state;
  }

  CAFFE_METRIC_HD void fold(State* state, T s, bool same) const {
    const T x = s * inverse_temperature;
    if (same) {
      state->same.add(x);
      state->sum += x;
      state->count += 1;
    } else {
      state->others.add(x);
    }
  }

  // Leaves e^(s / tau - the greatest).
  void fold_others(State* state, int n, T* v, T*) const {
    scale(n, inverse_temperature, v, v);
    state->others.merge(log_sum_of(n, v, v));
  }

  void slope_others(const State& state, int n, T* v, T*) const {
    const T factor = state.count == 0
                         ? T(0)
                         : std::exp(state.others.greatest -
                                    static_cast<T>(state.normalizer));
    scale(n, -inverse_temperature * factor, v, v);
  }

  CAFFE_METRIC_HD void merge(State* state, const State& more) const {
    state->same.merge(more.same);
    state->others.merge(more.others);
    state->sum += more.sum;
    state->count += more.count;
  }

  CAFFE_METRIC_HD double loss(const State& state) const {
    if (state.count == 0) {
      return 0;
    }
    // ln sum_P - mean, exactly 0 of one row, and what N adds: nothing small is
    // lost in something large.
    const double same = state.same.value();
    const double among = state.count == 1 ? 0 : same - state.sum / state.count;
    return among +
           (state.others.empty() ? 0 : softplus(state.others.value() - same));
  }

  CAFFE_METRIC_HD T slope(const State& state, T s, bool same) const {
    if (state.count == 0) {
      return 0;
    }
    const T share =
        std::exp(s * inverse_temperature - static_cast<T>(state.normalizer));
    return inverse_temperature * (same ? share - T(1) / state.count : share);
  }

  // Completes the state of a whole row.
  CAFFE_METRIC_HD void close(State* state) const {
    state->normalizer = log_add(state->same.value(), state->others.value());
  }
};

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_SUP_CON_HPP_
