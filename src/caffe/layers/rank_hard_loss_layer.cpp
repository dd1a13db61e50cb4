#include <algorithm>
#include <vector>

#include "caffe/layers/rank_hard_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/parallel_rows.hpp"
#include "caffe/util/row_products.hpp"
#include "caffe_metric/rank_hard.hpp"
#include "caffe_metric/strips.hpp"
#include "caffe_metric/vector_ops.hpp"

namespace caffe {

// Groups that a thread takes at once, and columns of the gradient.
const int kGrain = 16;
const int kColumns = 64;

template <typename Dtype>
void RankHardLossLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                                          const vector<Blob<Dtype>*>& top) {
  MetricLossLayer<Dtype>::LayerSetUp(bottom, top);
  const LayerParameter& layer_param = this->layer_param_;
  CHECK(!layer_param.has_rank_param() ||
        !layer_param.has_rank_hard_loss_param())
      << this->Title() << ": rank_param and rank_hard_loss_param are two "
      << "spellings of the same parameter, set one of them";
  param_ = layer_param.has_rank_hard_loss_param()
               ? layer_param.rank_hard_loss_param()
               : layer_param.rank_param();
  CHECK_GE(param_.pair_size(), 2) << this->Title() << ": pair_size must be "
                                  << ">= 2, an anchor and its positive";
  CHECK_GE(param_.neg_num(), 1) << this->Title() << ": neg_num must be >= 1";
  CHECK(param_.hard_ratio() >= 0 && param_.hard_ratio() <= 1)
      << this->Title() << ": hard_ratio is " << param_.hard_ratio()
      << ", must be in [0, 1]";
  CHECK(param_.rand_ratio() >= 0 && param_.rand_ratio() <= 1)
      << this->Title() << ": rand_ratio is " << param_.rand_ratio()
      << ", must be in [0, 1]";
}

template <typename Dtype>
void RankHardLossLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
                                       const vector<Blob<Dtype>*>& top) {
  MetricLossLayer<Dtype>::Reshape(bottom, top);
  num_ = bottom[0]->shape(0);
  dim_ = bottom[0]->count(1);
  CHECK_EQ(bottom[1]->count(), num_)
      << this->Title() << ": needs one label a row, has features of shape "
      << bottom[0]->shape_string() << " and labels of shape "
      << bottom[1]->shape_string();
  CHECK_EQ(num_ % param_.pair_size(), 0u)
      << this->Title() << ": the batch of " << num_
      << " rows is no multiple of pair_size " << param_.pair_size();
  group_num_ = num_ / param_.pair_size();
}

template <typename Dtype>
void RankHardLossLayer<Dtype>::CheckInput(
    const vector<Blob<Dtype>*>& bottom) const {
  this->CheckFinite(*bottom[0], "features");
  this->CheckLabels(*bottom[1]);
  const Dtype* label = bottom[1]->cpu_data();
  for (int i = 0; i < num_; i += param_.pair_size()) {
    CHECK_EQ(label[i], label[i + 1])
        << this->Title() << ": rows " << i << " and " << i + 1
        << " are an anchor and its positive, but have different labels";
  }
}

template <typename Dtype>
void RankHardLossLayer<Dtype>::FailTooLarge() const {
  LOG(FATAL) << this->Title() << ": the features are too large: a product of "
             << "two rows is beyond the largest number; put a Norm layer "
             << "before this one";
}

template <typename Dtype>
uint64_t RankHardLossLayer<Dtype>::DrawingKey() const {
  return this->phase_ == TRAIN ? this->DrawKey() : 0;
}

template <typename Dtype>
void RankHardLossLayer<Dtype>::Report(double loss, double selected,
                                      double active,
                                      const vector<Blob<Dtype>*>& top) {
  const Dtype terms = Dtype(2) * param_.neg_num() * group_num_;
  normalizer_ = this->Normalizer(terms, selected, active, group_num_);
  top[0]->mutable_cpu_data()[0] = loss / normalizer_;
  if (top.size() > 1) {
    top[1]->mutable_cpu_data()[0] = active / terms;
  }
}

template <typename Dtype>
void RankHardLossLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                                           const vector<Blob<Dtype>*>& top) {
  CheckInput(bottom);
  const Dtype* x = bottom[0]->cpu_data();
  const Dtype* label = bottom[1]->cpu_data();
  const int pair_size = param_.pair_size();
  const size_t group_step = static_cast<size_t>(pair_size) * dim_;
  const uint64_t key = DrawingKey();
  const caffe_metric::RankDraw draw = caffe_metric::rank_draw(
      param_.neg_num(), param_.hard_ratio(), param_.rand_ratio());
  const int strip = caffe_metric::strip_rows(group_num_, num_);
  anchors_.Reshape(strip, dim_, 1, 1);
  products_.Reshape(strip, num_, 1, 1);
  taken_.resize(group_num_);
  Dtype* anchors = anchors_.mutable_cpu_data();
  Dtype* products = products_.mutable_cpu_data();
  for (int begin = 0; begin < group_num_; begin += strip) {
    const int end = std::min(begin + strip, group_num_);
    for (int g = begin; g < end; ++g) {
      caffe_copy(dim_, x + g * group_step,
                 anchors + static_cast<size_t>(g - begin) * dim_);
    }
    RowProducts(CblasNoTrans, CblasTrans, end - begin, num_, dim_, Dtype(1),
                anchors, dim_, x, dim_, Dtype(0), products, num_);
    ParallelRows(end - begin, kGrain, [=](int from, int to) {
      vector<int> negatives;
      for (int row = from; row < to; ++row) {
        const int anchor = (begin + row) * pair_size;
        const Dtype* own = products + static_cast<size_t>(row) * num_;
        if (!caffe_metric::all_finite(num_, own)) {
          FailTooLarge();
        }
        caffe_metric::rank_negatives(draw, Dtype(param_.margin()), key, anchor,
                                     num_, own, label, &negatives);
        TakeNegatives(x, anchor, own, negatives, &taken_[begin + row]);
      }
    });
  }
  double loss = 0;
  double selected = 0;
  double active = 0;
  for (int g = 0; g < group_num_; ++g) {
    loss += taken_[g].loss;
    for (size_t k = 0; k < taken_[g].negatives.size(); ++k) {
      const Taken& taken = taken_[g].negatives[k];
      selected += 2;
      active += taken.by_anchor + taken.by_positive;
    }
  }
  Report(loss, selected, active, top);
}

template <typename Dtype>
void RankHardLossLayer<Dtype>::TakeNegatives(const Dtype* x, int anchor,
                                             const Dtype* products,
                                             const vector<int>& negatives,
                                             GroupTaken* group) const {
  const Dtype margin = param_.margin();
  const Dtype s_positive = -products[anchor + 1];
  const Dtype* positive = x + static_cast<size_t>(anchor + 1) * dim_;
  group->loss = 0;
  group->negatives.clear();
  for (size_t k = 0; k < negatives.size(); ++k) {
    const int j = negatives[k];
    const Dtype by_anchor =
        caffe_metric::rank_violation(margin, s_positive, -products[j]);
    const Dtype by_positive = caffe_metric::rank_violation(
        margin, s_positive,
        -caffe_metric::dot(dim_, positive, x + static_cast<size_t>(j) * dim_));
    const Taken taken = {anchor, j, by_anchor > 0, by_positive > 0};
    group->negatives.push_back(taken);
    group->loss += by_anchor + std::max(by_positive, Dtype(0));
  }
}

template <typename Dtype>
void RankHardLossLayer<Dtype>::Backward_cpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  if (propagate_down[1]) {
    this->ZeroDiff(bottom[1]);
  }
  if (!propagate_down[0]) {
    return;
  }
  this->ZeroDiff(bottom[0]);
  const Dtype scale = top[0]->cpu_diff()[0] / normalizer_;
  const Dtype* x = bottom[0]->cpu_data();
  Dtype* dx = bottom[0]->mutable_cpu_diff();
  // Rows belong to several anchors, columns to one thread.
  ParallelRows(dim_, kColumns, [=](int from, int to) {
    for (int g = 0; g < group_num_; ++g) {
      for (size_t t = 0; t < taken_[g].negatives.size(); ++t) {
        AddGradient(taken_[g].negatives[t], scale, from, to, x, dx);
      }
    }
  });
}

template <typename Dtype>
void RankHardLossLayer<Dtype>::AddGradient(const Taken& taken, Dtype scale,
                                           int from, int to, const Dtype* x,
                                           Dtype* dx) const {
  const size_t i = static_cast<size_t>(taken.anchor) * dim_;
  const size_t p = i + dim_;
  const size_t j = static_cast<size_t>(taken.negative) * dim_;
  // Of -x_i . x_p, x_i . x_j and x_p . x_j.
  const Dtype of_positive = scale * (taken.by_anchor + taken.by_positive);
  const Dtype of_anchor = taken.by_anchor ? scale : Dtype(0);
  const Dtype of_second = taken.by_positive ? scale : Dtype(0);
  for (int k = from; k < to; ++k) {
    dx[i + k] += of_anchor * x[j + k] - of_positive * x[p + k];
    dx[p + k] += of_second * x[j + k] - of_positive * x[i + k];
    dx[j + k] += of_anchor * x[i + k] + of_second * x[p + k];
  }
}

#ifdef CPU_ONLY
STUB_GPU(RankHardLossLayer)
#endif

INSTANTIATE_CLASS(RankHardLossLayer);
REGISTER_LAYER_CLASS(RankHardLoss);

}  // namespace caffe
