#ifndef CAFFE_METRIC_BATCH_ROWS_HPP_
#define CAFFE_METRIC_BATCH_ROWS_HPP_

#include <algorithm>
#include <vector>

#include "caffe_metric/batch_rule.hpp"
#include "caffe_metric/gram.hpp"
#include "caffe_metric/pairs.hpp"

// What a rule makes of an anchor's row of n measures, on the CPU: see
// batch_rule.hpp.

namespace caffe_metric {

// The columns of each class, ascending.
template <typename T>
class ColumnsByClass {
 public:
  // The labels stay where they are.
  void sort(int n, const T* labels) {
    labels_ = labels;
    columns_.resize(n);
    for (int j = 0; j < n; ++j) {
      columns_[j] = j;
    }
    std::stable_sort(columns_.begin(), columns_.end(),
                     [=](int a, int b) { return labels[a] < labels[b]; });
  }
  // Those of a class, and their number.
  const int* of(T label, int* count) const {
    const T* labels = labels_;
    const std::vector<int>::const_iterator begin = std::lower_bound(
        columns_.begin(), columns_.end(), label,
        [=](int column, T value) { return labels[column] < value; });
    *count = std::upper_bound(
                 begin, columns_.end(), label,
                 [=](T value, int column) { return value < labels[column]; }) -
             begin;
    return columns_.data() + (begin - columns_.begin());
  }

 private:
  const T* labels_;
  std::vector<int> columns_;
};

// The row of an anchor, and what it meets. Row `self` of the others is the
// anchor itself, which it does not meet; -1 where it is none of them.
template <typename T>
struct AnchorRow {
  int self, n;
  T label;
  const T* labels;
  int count;        // of the columns of its class, itself among them
  const int* same;  // those columns
};

template <typename T>
inline AnchorRow<T> anchor_row(int self, int n, T label, const T* labels,
                               const ColumnsByClass<T>& columns) {
  AnchorRow<T> row = {self, n, label, labels, 0, NULL};
  row.same = columns.of(label, &row.count);
  return row;
}

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

// The measures of its class, in the order of row.same.
template <typename T>
inline void take_same(const AnchorRow<T>& row, const T* v, T* kept) {
  for (int k = 0; k < row.count; ++k) {
    kept[k] = v[row.same[k]];
  }
}

template <typename T>
inline void put_same(const AnchorRow<T>& row, const T* kept, T* v) {
  for (int k = 0; k < row.count; ++k) {
    v[row.same[k]] = kept[k];
  }
}

// The fold of its class, `kept`: every other one to a state of its own, so that
// a sum need not wait for the one before.
template <typename Rule, typename T>
inline void fold_same(const Rule& rule, const AnchorRow<T>& row, const T* kept,
                      typename Rule::State* state) {
  typename Rule::State even = *state, odd = rule.start();
  for (int k = 0; k < row.count; k += 2) {
    if (row.same[k] != row.self) {
      rule.fold(&even, kept[k], true);
    }
    if (k + 1 < row.count && row.same[k + 1] != row.self) {
      rule.fold(&odd, kept[k + 1], true);
    }
  }
  rule.merge(&even, odd);
  *state = even;
}

// The first fold, of other classes one by one or at once, and the row's pairs.
template <typename Rule, bool kAtOnce>
struct FirstFold {
  template <typename T>
  static PairSums run(const Rule& rule, const AnchorRow<T>& row, T* v,
                      std::vector<T>*, typename Rule::State* state) {
    for_others(row, [&](int j, bool same) { rule.fold(state, v[j], same); });
    return pair_sums(row.self, row.n, v, row.same, row.count);
  }
};

template <typename Rule>
struct FirstFold<Rule, true> {
  template <typename T>
  static PairSums run(const Rule& rule, const AnchorRow<T>& row, T* v,
                      std::vector<T>* room, typename Rule::State* state) {
    room->resize(row.n + row.count);
    T* kept = room->data() + row.n;
    take_same(row, v, kept);
    const PairSums pairs =
        pair_sums_of(row.self, row.n, v, row.count, total(row.count, kept));
    fold_same(rule, row, kept, state);
    if (row.count < row.n) {
      const T absent = absent_measure<T>(rule.measure());
      for (int k = 0; k < row.count; ++k) {
        v[row.same[k]] = absent;
      }
      rule.fold_others(state, row.n, v, room->data());
      put_same(row, kept, v);
    }
    return pairs;
  }
};

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

// With and without the states of the partners. `same` is gram_weight of the
// slopes of its class, which is known once they are folded or after it.
template <typename Rule, bool kPartners>
struct MeetPartners {
  typedef typename Rule::State State;
  template <typename T>
  static State fold(const Rule& rule, const AnchorRow<T>& row,
                    const State* states, const State& state, const T* v,
                    T* same) {
    State next = rule.again(state);
    for (int k = 0; k < row.count; ++k) {
      const int j = row.same[k];
      same[k] =
          j == row.self
              ? T(0)
              : gram_weight(rule.measure(), v[j],
                            rule.fold_again(&next, v[j], true, states[j]));
    }
    return next;
  }
  template <typename T>
  static void same_slopes(const Rule&, const AnchorRow<T>&, const State&,
                          const T*, T*) {}
  template <typename T>
  static T slope(const Rule& rule, const State& state, const State* states,
                 int j, T v, bool same) {
    return gram_weight(rule.measure(), v,
                       rule.slope(state, v, same, states[j]));
  }
};

template <typename Rule>
struct MeetPartners<Rule, false> {
  typedef typename Rule::State State;
  template <typename T>
  static State fold(const Rule&, const AnchorRow<T>&, const State*,
                    const State& state, const T*, T*) {
    return state;
  }
  template <typename T>
  static void same_slopes(const Rule& rule, const AnchorRow<T>& row,
                          const State& state, const T* v, T* same) {
    take_same(row, v, same);
    for (int k = 0; k < row.count; ++k) {
      same[k] = gram_weight(rule.measure(), same[k],
                            rule.slope(state, same[k], true));
    }
  }
  template <typename T>
  static T slope(const Rule& rule, const State& state, const State*, int, T v,
                 bool same) {
    return gram_weight(rule.measure(), v, rule.slope(state, v, same));
  }
};

// The slopes, of other classes one by one or at once; room is n + row.count
// numbers, the last of them MeetPartners' slopes of the anchor's class.
template <typename Rule, bool kAtOnce>
struct Slopes {
  template <typename T>
  static void run(const Rule& rule, const AnchorRow<T>& row,
                  const typename Rule::State* states,
                  const typename Rule::State& state, T* v, T*) {
    typedef MeetPartners<Rule, Rule::kPartners> Meet;
    for_others(row, [&](int j, bool same) {
      v[j] = Meet::slope(rule, state, states, j, v[j], same);
    });
  }
};

template <typename Rule>
struct Slopes<Rule, true> {
  template <typename T>
  static void run(const Rule& rule, const AnchorRow<T>& row,
                  const typename Rule::State*,
                  const typename Rule::State& state, T* v, T* room) {
    T* same = room + row.n;
    MeetPartners<Rule, Rule::kPartners>::same_slopes(rule, row, state, v, same);
    rule.slope_others(state, row.n, v, room);
    put_same(row, same, v);
  }
};

// The state of an anchor's whole row, and its pairs. With kAtOnce, v may become
// what slope_row wants: see batch_rule.hpp.
template <typename Rule, typename T>
inline typename Rule::State fold_row(const Rule& rule, const AnchorRow<T>& row,
                                     T* v, std::vector<T>* room,
                                     PairSums* pairs) {
  typename Rule::State state = rule.start();
  *pairs = FirstFold<Rule, Rule::kAtOnce>::run(rule, row, v, room, &state);
  SecondFold<Rule, Rule::kFoldsAgain>::run(rule, row, v, &state);
  rule.close(&state);
  return state;
}

// The anchor's loss; with `write`, v becomes gram_weight of its derivatives.
// states are those of the rows that it meets, where the rule asks for them.
template <typename Rule, typename T>
inline double slope_row(const Rule& rule, const AnchorRow<T>& row, bool write,
                        const typename Rule::State* states,
                        const typename Rule::State& state, T* v,
                        std::vector<T>* room) {
  room->resize(row.n + row.count);
  const typename Rule::State met = MeetPartners<Rule, Rule::kPartners>::fold(
      rule, row, states, state, v, room->data() + row.n);
  if (write) {
    Slopes<Rule, Rule::kAtOnce>::run(rule, row, states, met, v, room->data());
    if (row.self >= 0) {
      v[row.self] = 0;
    }
  }
  return rule.loss(met);
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
