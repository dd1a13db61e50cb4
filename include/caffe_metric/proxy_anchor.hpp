#ifndef CAFFE_METRIC_PROXY_ANCHOR_HPP_
#define CAFFE_METRIC_PROXY_ANCHOR_HPP_

#include "caffe_metric/batch_rule.hpp"

// ProxyAnchorLoss, Kim et al. 2020, equation 4: the anchors are the proxies w_c
// of C classes, s their cosine similarities with the rows of the batch, C+ the
// classes that the batch has,
//
//   loss = 1/|C+| sum_C+ ln(1 + sum_{i of c} e^(-alpha (s_ic - delta)))
//        + 1/C    sum_C  ln(1 + sum_{i not of c} e^(alpha (s_ic + delta))).
//
// A proxy's loss is its part of the two sums.

namespace caffe_metric {

template <typename T>
struct ProxyAnchorRule : BatchRule {
  T margin, alpha;
  double per_present, per_class;  // 1/|C+|, 1/C

  static const Reduction kReduction = AS_IS;
  static const bool kMeetsBatch = true;

  struct State {
    LogSum<T> same, others;
    double log_same, log_others;  // ln(1 + sum)
  };

  CAFFE_METRIC_HD Distance measure() const { return SIMILARITY; }

  CAFFE_METRIC_HD State start() const {
    State state;
    state.same.start();
    state.others.start();
    return state;
  }

  CAFFE_METRIC_HD T exponent(T s, bool same) const {
    return same ? -alpha * (s - margin) : alpha * (s + margin);
  }

  CAFFE_METRIC_HD void fold(State* state, T s, bool same) const {
    (same ? state->same : state->others).add(exponent(s, same));
  }

  CAFFE_METRIC_HD void merge(State* state, const State& more) const {
    state->same.merge(more.same);
    state->others.merge(more.others);
  }

  CAFFE_METRIC_HD void close(State* state) const {
    state->log_same = state->same.empty() ? 0 : softplus(state->same.value());
    state->log_others =
        state->others.empty() ? 0 : softplus(state->others.value());
  }

  CAFFE_METRIC_HD void add(BatchTotals* totals, const State& state) const {
    totals->first += state.same.empty() ? 0 : 1;
    totals->second += 1;
  }

  CAFFE_METRIC_HD void meet(const BatchTotals& totals) {
    per_present = totals.first > 0 ? 1 / totals.first : 0;
    per_class = 1 / totals.second;
  }

  CAFFE_METRIC_HD double loss(const State& state) const {
    return per_present * state.log_same + per_class * state.log_others;
  }

  CAFFE_METRIC_HD T slope(const State& state, T s, bool same) const {
    const T share =
        std::exp(exponent(s, same) -
                 static_cast<T>(same ? state.log_same : state.log_others));
    return same ? -alpha * static_cast<T>(per_present) * share
                : alpha * static_cast<T>(per_class) * share;
  }
};

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_PROXY_ANCHOR_HPP_
