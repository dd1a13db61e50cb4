#ifndef CAFFE_METRIC_LIFTED_STRUCTURE_HPP_
#define CAFFE_METRIC_LIFTED_STRUCTURE_HPP_

#include <algorithm>

#include "caffe_metric/batch_others.hpp"
#include "caffe_metric/batch_rule.hpp"

// LiftedStructureLoss, of the L2 distances d of rows as they are or, with
// `normalize`, of rows of unit length. P_i and N_i are the rows of anchor i's
// class and the others.
//
//   SONG         1/(2|P|) sum over the same pairs i < j of max(0, J_ij)^2, |P|
//                their number, J_ij = ln(sum_{N_i} e^(m - d_ik) +
//                sum_{N_j} e^(m - d_jk)) + d_ij   Song et al. 2016, equation 4
//   GENERALIZED  the mean over the anchors of max(0, ln sum_P e^d +
//                ln sum_N e^(m - d))              Hermans et al. 2017, sec. 2

namespace caffe_metric {

// ln sum_j e^(m - d_j), with e^(m - d - the greatest) in room.
template <typename T>
inline LogSum<T> lifted_sum(int n, T margin, const T* d, T* room) {
  scale(n, T(-1), d, room);
  LogSum<T> sum = log_sum_of(n, room, room);
  sum.greatest += margin;
  return sum;
}

// An anchor's part of SONG's sum is 1/4 sum over j in P_i of max(0, J_ij)^2:
// each pair has two anchors.
template <typename T>
struct LiftedSongRule : BatchRule {
  T margin;
  bool normalize;

  static const Reduction kReduction = OVER_PAIRS;
  static const bool kPartners = true;
  static const bool kAtOnce = true;

  struct State {
    LogSum<T> others;   // of m - d
    double log_others;  // their ln sum
    double loss;
    double pull;  // sum_j max(0, J_ij) share_ij
  };

  CAFFE_METRIC_HD Distance measure() const { return normalize ? UNIT_L2 : L2; }

  CAFFE_METRIC_HD State start() const {
    State state;
    state.others.start();
    state.loss = 0;
    state.pull = 0;
    return state;
  }

  CAFFE_METRIC_HD void fold(State* state, T d, bool same) const {
    if (!same) {
      state->others.add(margin - d);
    }
  }

  void fold_others(State* state, int n, T* d, T* room) const {
    state->others.merge(lifted_sum(n, margin, d, room));
  }

  void slope_others(const State& state, int n, T* d, T* room) const {
    if (state.pull == 0) {
      std::fill(d, d + n, T(0));
      return;
    }
    scale(n, T(-1), d, room);
    exponentials(n, room, static_cast<T>(state.log_others) - margin, room);
    over_distances(n, -static_cast<T>(state.pull), room, d, d);
  }

  CAFFE_METRIC_HD void close(State* state) const {
    state->log_others = state->others.value();
  }

  // max(0, J); *share is what this anchor's sum is of both, whose ln is taken.
  CAFFE_METRIC_HD double term(const State& state, const State& partner, T d,
                              double* share) const {
    const double ahead = state.log_others - partner.log_others;
    const T e = std::exp(static_cast<T>(-std::fabs(ahead)));
    *share = (ahead > 0 ? 1 : e) / (1 + e);
    const double greater = ahead > 0 ? state.log_others : partner.log_others;
    const double j = greater + std::log1p(e) + d;
    return j > 0 ? j : 0;  // of no other classes j is NaN
  }

  CAFFE_METRIC_HD State again(const State& state) const {
    State next = state;
    next.others.start();
    return next;
  }

  CAFFE_METRIC_HD T fold_again(State* state, T d, bool same,
                               const State& partner) const {
    if (!same) {
      return 0;
    }
    double share;
    const double j = term(*state, partner, d, &share);
    if (j > 0) {
      state->loss += 0.25 * j * j;
      state->pull += j * share;
    }
    return static_cast<T>(0.5 * j);
  }

  // The second folds' parts; the first's are merged before they begin.
  CAFFE_METRIC_HD void merge(State* state, const State& more) const {
    state->others.merge(more.others);
    state->loss += more.loss;
    state->pull += more.pull;
  }

  CAFFE_METRIC_HD double loss(const State& state) const { return state.loss; }

  CAFFE_METRIC_HD T slope(const State& state, T d, bool same,
                          const State& partner) const {
    if (same) {
      double share;
      return static_cast<T>(0.5 * term(state, partner, d, &share));
    }
    if (state.pull == 0) {
      return 0;
    }
    return -static_cast<T>(state.pull) *
           std::exp(margin - d - static_cast<T>(state.log_others));
  }
};

template <typename T>
struct LiftedGeneralizedRule : BatchRule {
  T margin;
  bool normalize;

  static const bool kAtOnce = true;

  struct State {
    LogSum<T> same, others;       // of d, of m - d
    double log_same, log_others;  // their ln sums
  };

  CAFFE_METRIC_HD Distance measure() const { return normalize ? UNIT_L2 : L2; }

  CAFFE_METRIC_HD State start() const {
    State state;
    state.same.start();
    state.others.start();
    return state;
  }

  CAFFE_METRIC_HD void fold(State* state, T d, bool same) const {
    (same ? state->same : state->others).add(same ? d : margin - d);
  }

  // Leaves e^(m - d - the greatest) / d.
  void fold_others(State* state, int n, T* d, T* room) const {
    state->others.merge(lifted_sum(n, margin, d, room));
    over_distances(n, T(1), room, d, d);
  }

  void slope_others(const State& state, int n, T* v, T*) const {
    const T factor =
        loss(state) > 0
            ? std::exp(state.others.greatest - static_cast<T>(state.log_others))
            : T(0);
    scale(n, -factor, v, v);
  }

  CAFFE_METRIC_HD void merge(State* state, const State& more) const {
    state->same.merge(more.same);
    state->others.merge(more.others);
  }

  CAFFE_METRIC_HD void close(State* state) const {
    state->log_same = state->same.value();
    state->log_others = state->others.value();
  }

  CAFFE_METRIC_HD double loss(const State& state) const {
    if (state.same.empty() || state.others.empty()) {
      return 0;
    }
    const double sum = state.log_same + state.log_others;
    return sum > 0 ? sum : 0;
  }

  CAFFE_METRIC_HD T slope(const State& state, T d, bool same) const {
    if (!(loss(state) > 0)) {
      return 0;
    }
    return same ? std::exp(d - static_cast<T>(state.log_same))
                : -std::exp(margin - d - static_cast<T>(state.log_others));
  }
};

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_LIFTED_STRUCTURE_HPP_
