#ifndef CAFFE_METRIC_CIRCLE_HPP_
#define CAFFE_METRIC_CIRCLE_HPP_

#include "caffe_metric/batch_others.hpp"
#include "caffe_metric/batch_rule.hpp"

// CircleLoss, Sun et al. 2020, equations 6 to 10: with s the cosine
// similarities of an anchor, P the rows of its class and N the others,
//
//   loss = ln(1 + sum_N e^(gamma a_n (s - m)) sum_P e^(-gamma a_p (s - 1 + m)))
//   a_n = max(0, s + m),  a_p = max(0, 1 + m - s),
//
// 0 without a row of P or of N. The factors a are constants in backward, as in
// the paper. Reduced by the mean over anchors with a loss > 0.

namespace caffe_metric {

// x = gamma a (s - m) of rows of other classes, -infinity where s is.
template <typename T>
inline void circle_exponents(int n, T margin, T gamma, const T* s, T* x) {
  typedef Packed<T> Pack;
  const typename Pack::Type zero = Pack::all(0), absent = Pack::all(-HUGE_VAL);
  int k = 0;
  for (; k + Pack::kSize <= n; k += Pack::kSize) {
    const typename Pack::Type own = Pack::load(s + k);
    const typename Pack::Type factor = gamma * Pack::larger(own + margin, zero);
    Pack::store(Pack::if_greater(own, absent, factor * (own - margin), own),
                x + k);
  }
  for (; k < n; ++k) {
    x[k] = s[k] > -HUGE_VAL
               ? gamma * larger(T(0), s[k] + margin) * (s[k] - margin)
               : s[k];
  }
}

// v = a e; v may be s.
template <typename T>
inline void circle_weights(int n, T margin, const T* s, const T* e, T* v) {
  typedef Packed<T> Pack;
  const typename Pack::Type zero = Pack::all(0);
  int k = 0;
  for (; k + Pack::kSize <= n; k += Pack::kSize) {
    const typename Pack::Type factor =
        Pack::larger(Pack::load(s + k) + margin, zero);
    Pack::store(factor * Pack::load(e + k), v + k);
  }
  for (; k < n; ++k) {
    v[k] = larger(T(0), s[k] + margin) * e[k];
  }
}

template <typename T>
struct CircleRule : BatchRule {
  T margin, gamma;

  static const Reduction kReduction = OVER_ACTIVE;
  static const bool kAtOnce = true;

  struct State {
    LogSum<T> same, others;
    double log_same, log_others, active;  // active: the sigmoid of their sum
  };

  CAFFE_METRIC_HD Distance measure() const { return SIMILARITY; }

  CAFFE_METRIC_HD State start() const {
    State state;
    state.same.start();
    state.others.start();
    return state;
  }

  CAFFE_METRIC_HD T factor(T s, bool same) const {
    return larger(T(0), same ? 1 + margin - s : s + margin);
  }

  CAFFE_METRIC_HD T exponent(T s, bool same) const {
    const T x = gamma * factor(s, same);
    return same ? -x * (s - 1 + margin) : x * (s - margin);
  }

  CAFFE_METRIC_HD void fold(State* state, T s, bool same) const {
    (same ? state->same : state->others).add(exponent(s, same));
  }

  // Leaves a e^(the exponent - the greatest).
  void fold_others(State* state, int n, T* v, T* room) const {
    circle_exponents(n, margin, gamma, v, room);
    state->others.merge(log_sum_of(n, room, room));
    circle_weights(n, margin, v, room, v);
  }

  void slope_others(const State& state, int n, T* v, T*) const {
    const T share = empty(state) ? T(0)
                                 : std::exp(state.others.greatest -
                                            static_cast<T>(state.log_others));
    scale(n, -gamma * static_cast<T>(state.active) * share, v, v);
  }

  CAFFE_METRIC_HD void merge(State* state, const State& more) const {
    state->same.merge(more.same);
    state->others.merge(more.others);
  }

  CAFFE_METRIC_HD void close(State* state) const {
    state->log_same = state->same.value();
    state->log_others = state->others.value();
    state->active = sigmoid(state->log_same + state->log_others);
  }

  CAFFE_METRIC_HD bool empty(const State& state) const {
    return state.same.empty() || state.others.empty();
  }

  CAFFE_METRIC_HD double loss(const State& state) const {
    return empty(state) ? 0 : softplus(state.log_same + state.log_others);
  }

  CAFFE_METRIC_HD T slope(const State& state, T s, bool same) const {
    if (empty(state)) {
      return 0;
    }
    const T share =
        std::exp(exponent(s, same) -
                 static_cast<T>(same ? state.log_same : state.log_others));
    const T by_s =
        gamma * factor(s, same) * share * static_cast<T>(state.active);
    return same ? -by_s : by_s;
  }
};

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_CIRCLE_HPP_
