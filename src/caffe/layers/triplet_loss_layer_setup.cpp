#include <vector>

#include "caffe/layers/triplet_loss_layer.hpp"

namespace caffe {

// Rows of the largest N x N array that a Blob holds.
const int kMostSwapped = 46340;

template <typename Dtype>
void TripletLossLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                                         const vector<Blob<Dtype>*>& top) {
  MetricLossLayer<Dtype>::LayerSetUp(bottom, top);
  const TripletLossParameter& param = this->layer_param_.triplet_loss_param();
  layout_ = static_cast<Layout>(bottom.size());
  feature_bottoms_ = layout_ < ROWS ? 1 : 3;
  mining_ = static_cast<caffe_metric::Mining>(param.mining());
  caffe_metric::Metric<Dtype>& metric = options_.metric;
  metric.distance = static_cast<caffe_metric::Distance>(param.distance());
  metric.p = param.p();
  metric.eps = param.eps();
  caffe_metric::TripletRule<Dtype>& rule = options_.rule;
  rule.type = static_cast<caffe_metric::TripletLossType>(param.losstype());
  rule.margin = param.margin();
  options_.swap = param.swap();
  options_.use_pair = param.use_pair();
  CHECK(param.num_negatives() >= 1 && param.num_negatives() < 1u << 30)
      << this->Title() << ": num_negatives is " << param.num_negatives()
      << ", must be >= 1 and < 2^30";
  group_size_ = 2 + param.num_negatives();
  CHECK(rule.type != caffe_metric::RATIO || rule.margin > 0)
      << this->Title() << ": margin is " << param.margin()
      << ", RATIO needs a margin > 0";
  CHECK(metric.distance != caffe_metric::LP || metric.p > 0)
      << this->Title() << ": p is " << param.p() << ", LP needs p > 0";
  mined_.reset(new TripletRows<Dtype>(options_, mining_));
}

template <typename Dtype>
void TripletLossLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
                                      const vector<Blob<Dtype>*>& top) {
  MetricLossLayer<Dtype>::Reshape(bottom, top);
  num_ = bottom[0]->shape(0);
  dim_ = bottom[0]->count(1);
  for (int i = 1; i < feature_bottoms_; ++i) {
    CHECK(bottom[i]->shape() == bottom[0]->shape())
        << this->Title() << ": anchors, positives and negatives must have "
        << "the same shape, bottom " << i << " has "
        << bottom[i]->shape_string() << " and bottom 0 "
        << bottom[0]->shape_string();
  }
  if (layout_ == GROUPS) {
    CHECK_EQ(num_ % group_size_, 0)
        << this->Title() << ": the batch of " << num_
        << " rows is no multiple of the group size " << group_size_
        << " (2 + num_negatives)";
  }
  // swap needs two arrays of N x N at once, and Caffe counts in int.
  CHECK(layout_ != MINED || !options_.swap || num_ <= kMostSwapped)
      << this->Title() << ": the batch of " << num_ << " rows is too large for "
      << "swap, which mines at most " << kMostSwapped;
  if (layout_ == MINED || layout_ == WEIGHTED_ROWS) {
    const int last = layout_ == MINED ? 1 : 3;
    CHECK_EQ(bottom[last]->count(), num_)
        << this->Title() << ": needs one "
        << (layout_ == MINED ? "label" : "weight") << " a row, has " << num_
        << " rows and bottom " << last << " of shape "
        << bottom[last]->shape_string();
  }
}

// triplet_loss_layer.cpp has the rest of the class.
template class TripletLossLayer<float>;
template class TripletLossLayer<double>;

}  // namespace caffe
