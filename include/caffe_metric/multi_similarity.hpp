#ifndef CAFFE_METRIC_MULTI_SIMILARITY_HPP_
#define CAFFE_METRIC_MULTI_SIMILARITY_HPP_

#include "caffe_metric/batch_rule.hpp"

// MultiSimilarityLoss, Wang et al. 2019, equations 7 to 9 and 14: with s the
// cosine similarities of an anchor, P the rows of its class and N the others,
//
//   loss = 1/alpha ln(1 + sum_P e^(-alpha (s - lambda)))
//        + 1/beta  ln(1 + sum_N e^(beta (s - lambda)))
//
// over the pairs that are kept: of P those with s - epsilon < max_N s, of N
// those with s + epsilon > min_P s; all of them for a negative epsilon. Reduced
// by the mean over the anchors.

namespace caffe_metric {

template <typename T>
struct MultiSimilarityRule : BatchRule {
  T alpha, beta, base, epsilon;

  static const bool kFoldsAgain = true;

  struct State {
    T least_same, greatest_other;
    LogSum<T> same, others;
    double log_same, log_others;  // ln(1 + sum)
  };

  CAFFE_METRIC_HD Distance measure() const { return SIMILARITY; }

  CAFFE_METRIC_HD State start() const {
    State state;
    state.least_same = HUGE_VAL;
    state.greatest_other = -HUGE_VAL;
    state.same.start();
    state.others.start();
    return state;
  }

  CAFFE_METRIC_HD void fold(State* state, T s, bool same) const {
    if (same) {
      state->least_same = smaller(state->least_same, s);
    } else {
      state->greatest_other = larger(state->greatest_other, s);
    }
  }

  CAFFE_METRIC_HD bool keeps(const State& state, T s, bool same) const {
    return epsilon < 0 || (same ? s - epsilon < state.greatest_other
                                : s + epsilon > state.least_same);
  }

  CAFFE_METRIC_HD T exponent(T s, bool same) const {
    return same ? -alpha * (s - base) : beta * (s - base);
  }

  // The extremes are those of the whole row, the sums begin.
  CAFFE_METRIC_HD State again(const State& state) const { return state; }

  CAFFE_METRIC_HD void fold_again(State* state, T s, bool same) const {
    if (keeps(*state, s, same)) {
      (same ? state->same : state->others).add(exponent(s, same));
    }
  }

  CAFFE_METRIC_HD void merge(State* state, const State& more) const {
    state->least_same = smaller(state->least_same, more.least_same);
    state->greatest_other = larger(state->greatest_other, more.greatest_other);
    state->same.merge(more.same);
    state->others.merge(more.others);
  }

  CAFFE_METRIC_HD void close(State* state) const {
    state->log_same = state->same.empty() ? 0 : softplus(state->same.value());
    state->log_others =
        state->others.empty() ? 0 : softplus(state->others.value());
  }

  CAFFE_METRIC_HD double loss(const State& state) const {
    return state.log_same / alpha + state.log_others / beta;
  }

  CAFFE_METRIC_HD T slope(const State& state, T s, bool same) const {
    if (!keeps(state, s, same)) {
      return 0;
    }
    const T share =
        std::exp(exponent(s, same) -
                 static_cast<T>(same ? state.log_same : state.log_others));
    return same ? -share : share;
  }
};

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_MULTI_SIMILARITY_HPP_
