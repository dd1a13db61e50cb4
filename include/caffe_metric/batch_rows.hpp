#ifndef CAFFE_METRIC_BATCH_ROWS_HPP_
#define CAFFE_METRIC_BATCH_ROWS_HPP_

#include "caffe_metric/batch_rule.hpp"
#include "caffe_metric/gram.hpp"

// What a rule makes of an anchor's row of n measures, on the CPU: see
// batch_rule.hpp.

namespace caffe_metric {

// The row of an anchor, and what it meets. Row `self` of the others is the
// anchor itself, which it does not meet; -1 where it is none of them.
template <typename T>
struct AnchorRow {
  int self, n;
  T label;
  const T* labels;
};

// Calls meet(j, same) for each row that the anchor meets.
template <typename T, typename Meet>
inline void for_others(const AnchorRow<T>& row, const Meet& meet) {
  const int stop = row.self < 0 ? row.n : row.self;
  for (int j = 0; j < stop; ++j) {
    meet(j, row.labels[j] == row.label);
  }
  for (int j = stop + 1; j < row.n; ++j) {
    meet(j, row.labels[j] == row.label);
  }
}

// With and without the second fold; it sees the partners' states or does not.
template <typename Rule, bool kAgain>
struct SecondFold {
  template <typename T>
  static void run(const Rule& rule, const AnchorRow<T>& row, const T* v,
                  typename Rule::State* state) {
    typename Rule::State next = rule.again(*state);
    for_others(row,
               [&](int j, bool same) { rule.fold_again(&next, v[j], same); });
    *state = next;
  }
};

template <typename Rule>
struct SecondFold<Rule, false> {
  template <typename T>
  static void run(const Rule&, const AnchorRow<T>&, const T*,
                  typename Rule::State*) {}
};

template <typename Rule, bool kPartners>
struct Slopes {
  template <typename T>
  static double run(const Rule& rule, const AnchorRow<T>& row, bool write,
                    const typename Rule::State* states,
                    const typename Rule::State& state, T* v) {
    typename Rule::State next = rule.again(state);
    for_others(row, [&](int j, bool same) {
      rule.fold_again(&next, v[j], same, states[j]);
    });
    if (write) {
      for_others(row, [&](int j, bool same) {
        v[j] = gram_weight(rule.measure(), v[j],
                           rule.slope(next, v[j], same, states[j]));
      });
    }
    return rule.loss(next);
  }
};

template <typename Rule>
struct Slopes<Rule, false> {
  template <typename T>
  static double run(const Rule& rule, const AnchorRow<T>& row, bool write,
                    const typename Rule::State*,
                    const typename Rule::State& state, T* v) {
    if (write) {
      for_others(row, [&](int j, bool same) {
        v[j] = gram_weight(rule.measure(), v[j], rule.slope(state, v[j], same));
      });
    }
    return rule.loss(state);
  }
};

// The state of an anchor's whole row.
template <typename Rule, typename T>
inline typename Rule::State fold_row(const Rule& rule, const AnchorRow<T>& row,
                                     const T* v) {
  typename Rule::State state = rule.start();
  for_others(row, [&](int j, bool same) { rule.fold(&state, v[j], same); });
  SecondFold<Rule, Rule::kFoldsAgain>::run(rule, row, v, &state);
  rule.close(&state);
  return state;
}

// The anchor's loss; with `write`, v becomes gram_weight of its derivatives.
// states are those of the rows that it meets, where the rule asks for them.
template <typename Rule, typename T>
inline double slope_row(const Rule& rule, const AnchorRow<T>& row, bool write,
                        const typename Rule::State* states,
                        const typename Rule::State& state, T* v) {
  const double loss =
      Slopes<Rule, Rule::kPartners>::run(rule, row, write, states, state, v);
  if (write && row.self >= 0) {
    v[row.self] = 0;
  }
  return loss;
}

// What a rule that asks for it knows of all states.
template <typename Rule, bool kMeetsBatch>
struct MeetBatch {
  static void run(int n, const typename Rule::State* states, Rule* rule) {
    BatchTotals totals = {0, 0};
    for (int i = 0; i < n; ++i) {
      rule->add(&totals, states[i]);
    }
    rule->meet(totals);
  }
};

template <typename Rule>
struct MeetBatch<Rule, false> {
  static void run(int, const typename Rule::State*, Rule*) {}
};

template <typename Rule>
inline void meet_batch(int n, const typename Rule::State* states, Rule* rule) {
  MeetBatch<Rule, Rule::kMeetsBatch>::run(n, states, rule);
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_BATCH_ROWS_HPP_
