#include <algorithm>
#include <vector>

#include "caffe/filler.hpp"
#include "caffe/layers/batch_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

using caffe_metric::PairSums;

template <typename Dtype>
void BatchLossLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                                       const vector<Blob<Dtype>*>& top) {
  MetricLossLayer<Dtype>::LayerSetUp(bottom, top);
  MetricLossLayer<Dtype>::Reshape(bottom, top);  // refuses empty bottoms
  rule_.reset(MakeRule());
  dim_ = bottom[0]->count(1);
  const uint32_t remembered = this->layer_param_.batch_memory_param().rows();
  CHECK(remembered == 0 || has_memory())
      << this->Title() << ": batch_memory_param { rows: " << remembered
      << " } makes no sense here, this loss has no memory";
  CHECK_LT(remembered, 1u << 24)
      << this->Title() << ": batch_memory_param { rows: " << remembered
      << " } is too many, must be below 2^24";
  vector<vector<int>> shapes;
  if (proxies() > 0) {
    shapes.push_back(vector<int>(1, proxies()));
    shapes[0].push_back(dim_);
  } else if (remembered > 0) {
    shapes = BatchMemory<Dtype>::Shapes(remembered, dim_);
  }
  if (!this->blobs_.empty()) {
    check_blobs(this->Title(), this->blobs_, shapes);
  } else if (proxies() > 0) {
    this->blobs_.push_back(shared_ptr<Blob<Dtype>>(new Blob<Dtype>(shapes[0])));
    shared_ptr<Filler<Dtype>> filler(GetFiller<Dtype>(proxy_filler()));
    filler->Fill(this->blobs_[0].get());
  } else if (remembered > 0) {
    BatchMemory<Dtype>::Make(remembered, dim_, &this->blobs_);
  }
  if (remembered > 0) {
    memory_.Use(this->blobs_);
    // No solver touches a memory.
    for (int i = 0; i < static_cast<int>(this->blobs_.size()); ++i) {
      if (this->layer_param_.param_size() <= i) {
        this->layer_param_.add_param();
      }
      ParamSpec* spec = this->layer_param_.mutable_param(i);
      CHECK(!spec->has_lr_mult() || spec->lr_mult() == 0)
          << this->Title() << ": param " << i << " has lr_mult "
          << spec->lr_mult() << ", a memory is not learned: must be 0";
      spec->set_lr_mult(0);
      spec->set_decay_mult(0);
    }
  }
  this->param_propagate_down_.assign(this->blobs_.size(), proxies() > 0);
  proxy_labels_.Reshape(vector<int>(1, std::max(1, proxies())));
  for (int c = 0; c < proxies(); ++c) {
    proxy_labels_.mutable_cpu_data()[c] = c;
  }
}

template <typename Dtype>
void BatchLossLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
                                    const vector<Blob<Dtype>*>& top) {
  MetricLossLayer<Dtype>::Reshape(bottom, top);
  num_ = bottom[0]->shape(0);
  CHECK(this->blobs_.empty() || bottom[0]->count(1) == dim_)
      << this->Title() << ": the features have " << bottom[0]->count(1)
      << " elements a row, the layer's blobs " << dim_;
  dim_ = bottom[0]->count(1);
  anchors_ = proxies() > 0 ? proxies() : num_;
  CHECK_EQ(bottom[1]->count(), num_)
      << this->Title() << ": needs one label a row, has features of shape "
      << bottom[0]->shape_string() << " and labels of shape "
      << bottom[1]->shape_string();
}

template <typename Dtype>
void BatchLossLayer<Dtype>::CheckInput(
    const vector<Blob<Dtype>*>& bottom) const {
  this->CheckFinite(*bottom[0], "features");
  check_labels(this->Title(), *bottom[1],
               proxies() > 0 ? proxies() : caffe_metric::kAnyClass);
  if (proxies() > 0) {
    this->CheckFinite(*this->blobs_[0], "proxies");
  }
}

template <typename Dtype>
void BatchLossLayer<Dtype>::FailTooLarge(
    const vector<Blob<Dtype>*>& bottom) const {
  CheckInput(bottom);
  LOG(FATAL) << this->Title() << ": the features are too large: a distance of "
             << "two rows is beyond the largest number";
}

template <typename Dtype>
const Blob<Dtype>& BatchLossLayer<Dtype>::MakeRows(
    const vector<Blob<Dtype>*>& bottom) {
  const bool gpu = Caffe::mode() == Caffe::GPU;
  const Blob<Dtype>* rows = bottom[0];
  const Blob<Dtype>* labels = bottom[1];
  int total = proxies() + num_;
  batch_.ahead = NULL;
  if (proxies() > 0 && gpu) {
    batch_.ahead = this->blobs_[0]->gpu_data();
  } else if (proxies() > 0) {
    rows_.Reshape(total, dim_, 1, 1);
    const Blob<Dtype>& proxy = *this->blobs_[0];
    Dtype* to = rows_.mutable_cpu_data();
    caffe_copy(proxy.count(), proxy.cpu_data(), to);
    caffe_copy(num_ * dim_, rows->cpu_data(), to + proxy.count());
    rows = &rows_;
  } else if (memory_.filled() > 0) {
    memory_.Append(*bottom[0], *bottom[1], &rows_, &labels_);
    total = rows_.shape(0);
    rows = &rows_;
    labels = &labels_;
  }
  const Blob<Dtype>* own = proxies() > 0 ? &proxy_labels_ : labels;
  batch_.anchors = anchors_;
  batch_.columns = total - proxies();
  batch_.among = proxies() == 0;
  batch_.anchor_labels = gpu ? own->gpu_data() : own->cpu_data();
  batch_.labels = gpu ? labels->gpu_data() : labels->cpu_data();
  return *rows;
}

template <typename Dtype>
void BatchLossLayer<Dtype>::Report(double loss, double active,
                                   const PairSums& pairs,
                                   const vector<Blob<Dtype>*>& top) {
  empty_ = pairs.same == 0 || pairs.others == 0;
  if (empty_) {
    loss = 0;
    active = 0;
  }
  switch (rule_->reduction()) {
    case caffe_metric::AS_IS:
      normalizer_ = 1;
      break;
    case caffe_metric::OVER_PAIRS:
      normalizer_ = std::max(pairs.same / 2, 1.);
      break;
    case caffe_metric::OVER_ACTIVE:
      normalizer_ =
          this->Normalizer(std::max(active, 1.), anchors_, active, anchors_);
      break;
    default:
      normalizer_ = this->Normalizer(anchors_, anchors_, active, anchors_);
  }
  const double reports[] = {loss / normalizer_, active / anchors_,
                            pairs.mean_same(), pairs.mean_others()};
  for (size_t i = 0; i < top.size(); ++i) {
    top[i]->mutable_cpu_data()[0] = reports[i];
  }
}

template <typename Dtype>
void BatchLossLayer<Dtype>::Remember(const vector<Blob<Dtype>*>& bottom) {
  if (memory_.used() && this->phase_ == TRAIN) {
    memory_.Keep(*bottom[0], *bottom[1]);
  }
}

template <typename Dtype>
void BatchLossLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                                        const vector<Blob<Dtype>*>& top) {
  CheckInput(bottom);
  const Blob<Dtype>& rows = MakeRows(bottom);
  sweep_.Run_cpu(batch_, rows, num_, this->phase_ == TRAIN, rule_.get());
  const double* losses = rule_->losses()->cpu_data();
  const PairSums* row_pairs =
      reinterpret_cast<const PairSums*>(rule_->pairs()->cpu_data());
  double loss = 0;
  double active = 0;
  PairSums pairs = {0, 0, 0, 0};
  for (int i = 0; i < anchors_; ++i) {
    loss += losses[2 * i];
    active += losses[2 * i + 1];
    pairs.add(row_pairs[i]);
  }
  if (!pairs.is_finite()) {
    FailTooLarge(bottom);
  }
  Report(loss, active, pairs, top);
  Remember(bottom);
}

template <typename Dtype>
void BatchLossLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
                                         const vector<bool>& propagate_down,
                                         const vector<Blob<Dtype>*>& bottom) {
  if (propagate_down[1]) {
    this->ZeroDiff(bottom[1]);
  }
  const bool learns = proxies() > 0 && this->param_propagate_down_[0];
  if (!propagate_down[0] && !learns) {
    return;
  }
  if (!sweep_.has_gradient()) {
    const Blob<Dtype>& rows = MakeRows(bottom);
    sweep_.Run_cpu(batch_, rows, num_, true, rule_.get());
  }
  const Dtype scale = empty_ ? Dtype(0) : top[0]->cpu_diff()[0] / normalizer_;
  const Dtype* gradient = sweep_.gradient().cpu_data();
  if (learns) {
    caffe_axpy(this->blobs_[0]->count(), scale, gradient,
               this->blobs_[0]->mutable_cpu_diff());
  }
  if (propagate_down[0]) {
    caffe_cpu_scale(num_ * dim_, scale, gradient + proxies() * dim_,
                    bottom[0]->mutable_cpu_diff());
  }
}

#ifdef CPU_ONLY
STUB_GPU(BatchLossLayer)
#endif

INSTANTIATE_CLASS(BatchLossLayer);

}  // namespace caffe
