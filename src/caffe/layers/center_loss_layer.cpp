#include <vector>

#include "caffe/filler.hpp"
#include "caffe/layers/center_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/vector_ops.hpp"

namespace caffe {

template <typename Dtype>
int CenterLossLayer<Dtype>::Width(const Blob<Dtype>& features) const {
  const int axis = this->layer_param_.center_loss_param().axis();
  CHECK(axis >= -features.num_axes() && axis < features.num_axes())
      << this->Title() << ": axis is " << axis << ", the features have shape "
      << features.shape_string();
  return features.count(features.CanonicalAxisIndex(axis));
}

template <typename Dtype>
void CenterLossLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                                        const vector<Blob<Dtype>*>& top) {
  MetricLossLayer<Dtype>::LayerSetUp(bottom, top);
  MetricLossLayer<Dtype>::Reshape(bottom, top);  // refuses empty bottoms
  const CenterLossParameter& param = this->layer_param_.center_loss_param();
  CHECK(param.num_output() >= 1 && param.num_output() < 1u << 24)
      << this->Title() << ": num_output is " << param.num_output()
      << ", must be >= 1 and < 2^24";
  classes_ = param.num_output();
  update_ = static_cast<caffe_metric::CenterUpdate>(param.update());
  dim_ = Width(*bottom[0]);
  vector<int> shape(1, classes_);
  shape.push_back(dim_);
  if (!this->blobs_.empty()) {
    check_blobs(this->Title(), this->blobs_, vector<vector<int>>(1, shape));
  } else {
    this->blobs_.push_back(shared_ptr<Blob<Dtype>>(new Blob<Dtype>(shape)));
    shared_ptr<Filler<Dtype>> filler(GetFiller<Dtype>(param.center_filler()));
    filler->Fill(this->blobs_[0].get());
  }
  this->param_propagate_down_.assign(1, true);
}

template <typename Dtype>
void CenterLossLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
                                     const vector<Blob<Dtype>*>& top) {
  MetricLossLayer<Dtype>::Reshape(bottom, top);
  const int width = Width(*bottom[0]);
  CHECK_EQ(width, dim_) << this->Title() << ": the features have width "
                        << width << ", the centres " << dim_;
  num_ = bottom[0]->count() / dim_;
  CHECK_EQ(bottom[1]->count(), num_)
      << this->Title() << ": needs one label a row, has features of shape "
      << bottom[0]->shape_string() << " and labels of shape "
      << bottom[1]->shape_string();
  difference_.Reshape(num_, dim_, 1, 1);
}

template <typename Dtype>
void CenterLossLayer<Dtype>::CheckInput(
    const vector<Blob<Dtype>*>& bottom) const {
  this->CheckFinite(*bottom[0], "features");
  check_labels(this->Title(), *bottom[1], classes_);
}

template <typename Dtype>
void CenterLossLayer<Dtype>::Report(double squares,
                                    const vector<Blob<Dtype>*>& bottom,
                                    const vector<Blob<Dtype>*>& top) {
  CHECK(caffe_metric::is_finite(static_cast<Dtype>(squares)))
      << this->Title() << ": the features or the centres are too large, or no "
      << "numbers: the sum of the squared distances is " << squares;
  top[0]->mutable_cpu_data()[0] = squares / (2. * num_);
}

template <typename Dtype>
void CenterLossLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                                         const vector<Blob<Dtype>*>& top) {
  CheckInput(bottom);
  const Dtype* x = bottom[0]->cpu_data();
  const Dtype* labels = bottom[1]->cpu_data();
  const Dtype* centers = this->blobs_[0]->cpu_data();
  Dtype* difference = difference_.mutable_cpu_data();
  double squares = 0;
  for (int i = 0; i < num_; ++i, x += dim_, difference += dim_) {
    const Dtype* c = centers + static_cast<size_t>(labels[i]) * dim_;
    for (int k = 0; k < dim_; ++k) {
      difference[k] = x[k] - c[k];
    }
    squares += caffe_metric::sum_terms<double>(dim_, [=](int k) {
      return static_cast<double>(difference[k]) * difference[k];
    });
  }
  Report(squares, bottom, top);
}

template <typename Dtype>
void CenterLossLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
                                          const vector<bool>& propagate_down,
                                          const vector<Blob<Dtype>*>& bottom) {
  const Dtype scale = top[0]->cpu_diff()[0] / num_;
  const Dtype* difference = difference_.cpu_data();
  if (propagate_down[1]) {
    this->ZeroDiff(bottom[1]);
  }
  if (propagate_down[0]) {
    caffe_cpu_scale(difference_.count(), scale, difference,
                    bottom[0]->mutable_cpu_diff());
  }
  if (!this->param_propagate_down_[0]) {
    return;
  }
  const Dtype* labels = bottom[1]->cpu_data();
  vector<int> count(classes_, 0);
  for (int i = 0; i < num_; ++i) {
    ++count[static_cast<int>(labels[i])];
  }
  Dtype* diff = this->blobs_[0]->mutable_cpu_diff();
  for (int i = 0; i < num_; ++i) {
    const int y = static_cast<int>(labels[i]);
    caffe_axpy(dim_, -caffe_metric::center_factor(update_, scale, count[y]),
               difference + static_cast<size_t>(i) * dim_,
               diff + static_cast<size_t>(y) * dim_);
  }
}

#ifdef CPU_ONLY
STUB_GPU(CenterLossLayer)
#endif

INSTANTIATE_CLASS(CenterLossLayer);
REGISTER_LAYER_CLASS(CenterLoss);

}  // namespace caffe
