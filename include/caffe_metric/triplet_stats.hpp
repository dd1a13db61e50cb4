#ifndef CAFFE_METRIC_TRIPLET_STATS_HPP_
#define CAFFE_METRIC_TRIPLET_STATS_HPP_

namespace caffe_metric {

// What triplets add up to.
struct TripletStats {
  double loss;      // sum of losses
  double selected;  // number of triplets
  double active;    // number with a loss > 0
  double d_ap;      // sum over the triplets
  double d_an;      // sum over the triplets, as the loss takes it

  TripletStats() : loss(0), selected(0), active(0), d_ap(0), d_an(0) {}

  void add(const TripletStats& more) {
    loss += more.loss;
    selected += more.selected;
    active += more.active;
    d_ap += more.d_ap;
    d_an += more.d_an;
  }
};

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_TRIPLET_STATS_HPP_
