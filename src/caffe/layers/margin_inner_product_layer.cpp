#include <limits>
#include <vector>

#include "caffe/layers/margin_inner_product_layer.hpp"
#include "caffe_metric/vector_ops.hpp"

namespace caffe {

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
                                             const vector<Blob<Dtype>*>& top) {
  MarginLayer<Dtype>::Reshape(bottom, top);
  vector<int> top_shape = bottom[0]->shape();
  top_shape.resize(this->axis_ + 1);
  top_shape[this->axis_] = this->C_;
  top[0]->Reshape(top_shape);
  if (top.size() > 1) {
    top[1]->Reshape(vector<int>(0));
  }
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::SetTarget(int i, Dtype* logits) {
  const int y = this->classes_[i];
  if (y < 0) {
    return;
  }
  const Dtype plain = logits[y];
  const caffe_metric::Target<Dtype> target = caffe_metric::make_target(
      this->target_, plain, this->norms_.cpu_data()[i],
      this->target_norms_.cpu_data()[i]);
  this->cosines_.mutable_cpu_data()[i] = target.cosine;
  logits[y] = target.logit;
  if (this->target_.margin && this->param_.semihard()) {
    const Dtype least = -std::numeric_limits<Dtype>::infinity();
    this->is_semihard_[i] = caffe_metric::is_semihard(
        this->target_.rule, target.logit, plain,
        caffe_metric::greatest(y, logits, least),
        caffe_metric::greatest(this->C_ - y - 1, logits + y + 1, least));
  }
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::Forward_cpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  this->classes_ = this->ReadLabels(*bottom[1]);
  this->UpdateLambda();
  this->Begin(*bottom[0]);
  const int stride = this->C_;
  Dtype* logits = top[0]->mutable_cpu_data();
  this->ForEachStrip([=](int part, int begin, int end, Scratch* scratch) {
    this->ScaleWeights(begin, end);
    this->StripLogits(this->StripWeights(begin, end, scratch), begin, end,
                      stride, logits + begin);
  });
  this->is_semihard_.assign(this->M_, true);
  for (int i = 0; i < this->M_; ++i) {
    SetTarget(i, logits + i * static_cast<size_t>(stride));
  }
  if (top.size() > 1) {
    top[1]->mutable_cpu_data()[0] = this->target_.rule.lambda;
  }
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::Backward_cpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  const int stride = this->C_;
  Dtype* top_diff = top[0]->mutable_cpu_diff();
  this->BeginGradient(propagate_down, bottom);
  this->ForEachStrip([=](int part, int begin, int end, Scratch* scratch) {
    this->StripGradient(part, this->StripWeights(begin, end, scratch), begin,
                        end, stride, top_diff + begin, scratch);
  });
  this->EndGradient(propagate_down, bottom);
}

#ifdef CPU_ONLY
STUB_GPU(MarginInnerProductLayer)
#endif

INSTANTIATE_CLASS(MarginInnerProductLayer);
REGISTER_LAYER_CLASS(MarginInnerProduct);

}  // namespace caffe
