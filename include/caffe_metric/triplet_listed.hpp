#ifndef CAFFE_METRIC_TRIPLET_LISTED_HPP_
#define CAFFE_METRIC_TRIPLET_LISTED_HPP_

#include "caffe_metric/distance.hpp"
#include "caffe_metric/macros.hpp"
#include "caffe_metric/triplet_rule.hpp"
#include "caffe_metric/triplet_stats.hpp"

// A triplet whose three rows are given: its loss, times its weight, and what
// the backward pass needs of it.

namespace caffe_metric {

// What a TripletLoss is made of.
template <typename T>
struct TripletOptions {
  Metric<T> metric;
  TripletRule<T> rule;
  bool swap;      // d_an is min(d(a,n), d(p,n))
  bool use_pair;  // adds d_ap
};

// For the backward pass. All of one type, so that it fits an array of T.
template <typename T>
struct ListedTerm {
  DistanceSlope<T> ap, an;  // `an` as the loss takes it
  T weight_ap, weight_an;   // the loss's derivatives by the two distances
  T swapped;                // 1: `an` is of p and n
};

const int kListedTermSize = sizeof(ListedTerm<float>) / sizeof(float);

// A triplet's part of the report.
template <typename T>
struct ListedLoss {
  T rule;       // the loss of its rule, without weight
  double loss;  // what the sum of losses grows by
  T d_ap, d_an;
};

// The triplet of the distances' sums; `pn` counts with swap only. use_pair
// takes a pair once: `new_pair` is false where the last triplet had it.
template <typename T>
CAFFE_METRIC_HD ListedLoss<T> listed_loss(const TripletOptions<T>& options,
                                          const DistanceSums<T>& ap,
                                          const DistanceSums<T>& an,
                                          const DistanceSums<T>& pn, T weight,
                                          bool new_pair, ListedTerm<T>* term) {
  const Metric<T>& metric = options.metric;
  const T d_ap = distance_of(metric, ap);
  T d_an = distance_of(metric, an);
  bool swapped = false;
  if (options.swap) {
    const T d_pn = distance_of(metric, pn);
    swapped = takes_swapped(d_an, d_pn);
    d_an = swapped ? d_pn : d_an;
  }
  const TripletTerm<T> found = triplet_term(options.rule, d_ap, d_an);
  const T pair = options.use_pair && new_pair ? weight : T(0);
  term->ap = distance_slope(metric, ap);
  term->an = distance_slope(metric, swapped ? pn : an);
  term->weight_ap = weight * found.slope_ap + pair;
  term->weight_an = weight * found.slope_an;
  term->swapped = swapped ? T(1) : T(0);
  const double loss =
      static_cast<double>(weight) * found.loss + (pair != 0 ? pair * d_ap : 0);
  const ListedLoss<T> result = {found.loss, loss, d_ap, d_an};
  return result;
}

// Below: whole rows, on the CPU.

// Adds a triplet to the stats. *ap is the sums of a and p, made where the pair
// is new.
template <typename T>
inline ListedTerm<T> add_listed(const TripletOptions<T>& options, int dim,
                                const T* a, const T* p, const T* n, T weight,
                                bool new_pair, DistanceSums<T>* ap,
                                TripletStats* stats) {
  if (new_pair) {
    *ap = distance_sums(options.metric, dim, a, p);
  }
  const DistanceSums<T> an = distance_sums(options.metric, dim, a, n);
  const DistanceSums<T> pn =
      options.swap ? distance_sums(options.metric, dim, p, n) : an;
  ListedTerm<T> term;
  const ListedLoss<T> found =
      listed_loss(options, *ap, an, pn, weight, new_pair, &term);
  stats->loss += found.loss;
  stats->selected += 1;
  stats->active += found.rule > 0;
  stats->d_ap += found.d_ap;
  stats->d_an += found.d_an;
  return term;
}

// Adds `scale` times the triplet's gradient to the rows da, dp and dn.
template <typename T>
inline void add_listed_gradient(const Metric<T>& metric, int dim,
                                const ListedTerm<T>& term, T scale, const T* a,
                                const T* p, const T* n, T* da, T* dp, T* dn) {
  const bool swapped = term.swapped != 0;
  add_distance_gradient(metric, dim, term.ap, scale * term.weight_ap, a, p, da,
                        dp);
  add_distance_gradient(metric, dim, term.an, scale * term.weight_an,
                        swapped ? p : a, n, swapped ? dp : da, dn);
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_TRIPLET_LISTED_HPP_
