#ifndef CAFFE_METRIC_BATCH_RULE_HPP_
#define CAFFE_METRIC_BATCH_RULE_HPP_

#include <cmath>

#include "caffe_metric/distance.hpp"
#include "caffe_metric/macros.hpp"

// A loss over a batch, as a rule: an anchor meets a row of numbers v_j, each
// the similarity or distance of another row, of the same class or not. The row
// folds to a small state, which gives the anchor's loss and its derivative by
// each v_j. A rule is a struct of T, made of the layer's parameters, with
//
//   struct State;
//   Distance measure() const;              what the v are
//   State start() const;
//   void fold(State*, T v, bool same) const;
//   void merge(State*, const State&) const;         associative
//   double loss(const State&) const;
//   T slope(const State&, T v, bool same) const;    d loss / d v
//
// and, by BatchRule, which it inherits, what few rules need:
//
//   close         void close(State*) const;   what a whole row's state holds
//                 that a part of it need not
//   kReduction    what the sum of the anchors' losses is divided by
//   kFoldsAgain   the row is seen twice: then
//                   State again(const State&) const;
//                 is where the second fold starts, whose result is merged,
//                 too, and
//                   void fold_again(State*, T v, bool same) const;
//   kMeetsBatch   an anchor's loss depends on sums over all anchors' states:
//                   void add(BatchTotals*, const State&) const;
//                   void meet(const BatchTotals&);   before loss and slope
//   kPartners     the pairs of a class meet, each with its own state: then
//                 fold_again and slope take a further `const State& partner`,
//                 which is folded, and may have met its own partners;
//                 fold_again has nothing to do with other classes, and returns
//                 the pair's slope
//   kAtOnce       on the CPU an anchor meets all rows of other classes at once,
//                 by vectors (batch_others.hpp); not with kFoldsAgain:
//                   void fold_others(State*, int n, T* v, T* room) const;
//                 folds n measures of which those that do not count are
//                 infinite (absent_measure), and
//                   void slope_others(const State&, int n, T* v, T* room)
//                   const;
//                 makes gram_weight of the slopes of v: of the measures or, but
//                 with kMeetsBatch and kPartners, of what fold_others left
//                 there. room is n numbers; what does not count may become
//                 anything
//
// The engine (include/caffe/layers/batch_loss_layer.hpp) does the rest.

namespace caffe_metric {

enum Reduction {
  AS_IS,         // 1
  OVER_ANCHORS,  // their number
  OVER_ACTIVE,   // the number of anchors with a loss > 0, at least 1
  OVER_PAIRS     // the number of unordered pairs of one class, at least 1
};

struct BatchTotals {
  double first, second;
};

struct BatchRule {
  static const Reduction kReduction = OVER_ANCHORS;
  static const bool kFoldsAgain = false;
  static const bool kMeetsBatch = false;
  static const bool kPartners = false;
  static const bool kAtOnce = false;

  template <typename State>
  CAFFE_METRIC_HD void close(State* state) const {
    static_cast<void>(state);
  }
};

// ln sum_j e^x_j, by the greatest x: no x overflows.
template <typename T>
struct LogSum {
  T greatest;
  double sum;  // of e^(x - greatest)

  CAFFE_METRIC_HD void start() {
    greatest = -HUGE_VAL;
    sum = 0;
  }
  CAFFE_METRIC_HD bool empty() const { return sum == 0; }
  CAFFE_METRIC_HD void add(T x) {
    if (x > greatest) {
      sum = sum * std::exp(greatest - x) + 1;
      greatest = x;
    } else {
      sum += std::exp(x - greatest);
    }
  }
  CAFFE_METRIC_HD void merge(const LogSum& more) {
    if (more.empty()) {
      return;
    }
    if (more.greatest > greatest) {
      sum = sum * std::exp(greatest - more.greatest) + more.sum;
      greatest = more.greatest;
    } else {
      sum += more.sum * std::exp(more.greatest - greatest);
    }
  }
  // -Inf of nothing.
  CAFFE_METRIC_HD double value() const { return greatest + std::log(sum); }
};

// ln(1 + e^x)
CAFFE_METRIC_HD double softplus(double x) {
  return (x > 0 ? x : 0) + std::log1p(std::exp(-std::fabs(x)));
}

// 1 / (1 + e^-x)
CAFFE_METRIC_HD double sigmoid(double x) {
  const double e = std::exp(-std::fabs(x));
  return (x > 0 ? 1 : e) / (1 + e);
}

// ln(e^x + e^y)
CAFFE_METRIC_HD double log_add(double x, double y) {
  const double greater = x > y ? x : y;
  const double less = x > y ? y : x;
  return less == -HUGE_VAL ? greater
                           : greater + std::log1p(std::exp(less - greater));
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_BATCH_RULE_HPP_
