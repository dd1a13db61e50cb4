#include <algorithm>
#include <vector>

#include "caffe/layers/margin_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/strided_gemm_gpu.hpp"
#include "caffe_metric/margin.cuh"

namespace caffe {

using caffe_metric::kBlockThreads;

template <typename Dtype>
const Dtype* MarginLayer<Dtype>::StripWeightsGpu(int begin, int end) {
  if (in_place()) {
    return this->blobs_[0]->gpu_data() + begin * static_cast<size_t>(K_);
  }
  if (!strip_is_all_) {
    strip_weights_.Reshape(GpuWidth(), K_, 1, 1);
    ScaleWeightsGpu(begin, end, strip_weights_.mutable_gpu_data());
    strip_is_all_ = end - begin == classes_that_meet();
  }
  return strip_weights_.gpu_data();
}

template <typename Dtype>
void MarginLayer<Dtype>::StripLogitsGpu(const Dtype* features,
                                        const Dtype* weights, int begin,
                                        int end, int stride, Dtype* logits) {
  strided_gpu_gemm(CblasNoTrans, CblasTrans, M_, end - begin, K_, target_.scale,
                   features, K_, weights, K_, Dtype(0), logits, stride);
}

template <typename Dtype>
void MarginLayer<Dtype>::StripFeatureGradientGpu(const Dtype* weights,
                                                 int begin, int end, int stride,
                                                 const Dtype* logits_diff,
                                                 Dtype* dx) {
  strided_gpu_gemm(CblasNoTrans, CblasNoTrans, M_, K_, end - begin,
                   target_.scale, logits_diff, stride, weights, K_,
                   Dtype(begin > 0), dx, K_);
}

template <typename Dtype>
void MarginLayer<Dtype>::StartLabelCheck(const Blob<Dtype>& labels,
                                         Blob<int>* targets, int* marks) {
  const bool on_host = labels.data()->head() != SyncedMemory::HEAD_AT_GPU;
  if (on_host) {
    ReadLabels(labels);  // a check that copies nothing
  }
  targets->Reshape(vector<int>(1, M_));
  bad_label_.Reshape(vector<int>(1, 2));
  caffe_metric::read_labels<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<1, kBlockThreads>>>(labels_, M_, labels.gpu_data(),
                             targets->mutable_gpu_data(), marks,
                             bad_label_.mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
  if (!on_host) {
    // The host's memory is pinned: nobody waits. EndLabelCheck looks at it.
    bad_label_seen_.Reshape(vector<int>(1, 2));
    CUDA_CHECK(cudaMemcpyAsync(bad_label_seen_.mutable_cpu_data(),
                               bad_label_.gpu_data(), 2 * sizeof(Dtype),
                               cudaMemcpyDeviceToHost, 0));
  }
}

template <typename Dtype>
void MarginLayer<Dtype>::EndLabelCheck() {
  if (bad_label_seen_.count() > 0 && bad_label_seen_.cpu_data()[0] != 0) {
    refuse_label(Title(), static_cast<int>(bad_label_seen_.cpu_data()[0]) - 1,
                 bad_label_seen_.cpu_data()[1], C_);
  }
}

template <typename Dtype>
const Dtype* MarginLayer<Dtype>::FeaturesGpu(
    const Blob<Dtype>& features) const {
  return param_.normalize_features() ? unit_features_.gpu_data()
                                     : features.gpu_data();
}

template <typename Dtype>
void MarginLayer<Dtype>::BeginGpu(const Blob<Dtype>& features) {
  strip_is_all_ = false;
  Dtype* unit_features = NULL;
  if (param_.normalize_features()) {
    unit_features_.Reshape(M_, K_, 1, 1);
    unit_features = unit_features_.mutable_gpu_data();
  }
  caffe_metric::measure_rows<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<M_, kBlockThreads>>>(
          K_, features.gpu_data(), norms_.mutable_gpu_data(),
          param_.normalize_weights() ? target_norms_.mutable_gpu_data() : NULL,
          unit_features);
  if (!param_.normalize_weights()) {
    caffe_metric::measure_targets<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<M_, kBlockThreads>>>(K_, targets_.gpu_data(), RowsGpu(),
                                this->blobs_[0]->gpu_data(),
                                target_norms_.mutable_gpu_data());
  }
  CUDA_POST_KERNEL_CHECK;
  keep_.Reshape(vector<int>(1, M_));
  factors_.Reshape(vector<int>(1, classes_that_meet()));
}

template <typename Dtype>
void MarginLayer<Dtype>::ScaleWeightsGpu(int begin, int end, Dtype* unit) {
  const bool in_place = train() && param_.normalize_weights();
  const int* rows = RowsGpu();
  // Without rows, a strip begins at row `begin`.
  const size_t offset = rows ? 0 : begin * static_cast<size_t>(K_);
  Dtype* weights = in_place ? this->blobs_[0]->mutable_gpu_data()
                            : const_cast<Dtype*>(this->blobs_[0]->gpu_data());
  caffe_metric::scale_weights<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<end - begin, kBlockThreads>>>(
          K_, param_.normalize_weights(), in_place, rows ? rows + begin : NULL,
          weights + offset, unit, factors_.mutable_gpu_data() + begin);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
Dtype* MarginLayer<Dtype>::WeightProductGpu(const Dtype* features,
                                            const Dtype* weights, int begin,
                                            int end, int stride,
                                            const Dtype* logits_diff) {
  const int classes = end - begin;
  strip_diff_.Reshape(
      std::max(classes, strip_diff_.num_axes() == 4 ? strip_diff_.shape(0) : 0),
      K_, 1, 1);
  Dtype* diff = strip_diff_.mutable_gpu_data();
  strided_gpu_gemm(CblasTrans, CblasNoTrans, classes, K_, M_, target_.scale,
                   logits_diff, stride, features, K_, Dtype(0), diff, K_);
  if (!param_.normalize_weights()) {
    caffe_metric::add_length_gradient<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<classes, kBlockThreads>>>(
            target_, begin, M_, K_, targets_.gpu_data(), norms_.gpu_data(),
            target_norms_.gpu_data(), cosines_.gpu_data(),
            target_diffs_gpu_.gpu_data(), weights, diff);
    CUDA_POST_KERNEL_CHECK;
  }
  return diff;
}

template <typename Dtype>
void MarginLayer<Dtype>::AddWeightDiffGpu(const Dtype* weights, int begin,
                                          int end, const Dtype* diff) {
  const int* rows = RowsGpu();
  const size_t offset = rows ? 0 : begin * static_cast<size_t>(K_);
  caffe_metric::add_tangent<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<end - begin, kBlockThreads>>>(
          Projects(), K_, rows ? rows + begin : NULL, weights,
          factors_.gpu_data() + begin, diff,
          this->blobs_[0]->mutable_gpu_diff() + offset);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void MarginLayer<Dtype>::AddWeightGradientGpu(const Dtype* features,
                                              const Dtype* logits_diff) {
  for (int begin = 0; begin < C_; begin += GpuWidth()) {
    const int end = std::min(C_, begin + GpuWidth());
    const Dtype* unit = StripWeightsGpu(begin, end);
    AddWeightDiffGpu(
        unit, begin, end,
        WeightProductGpu(features, unit, begin, end, C_, logits_diff + begin));
  }
}

template <typename Dtype>
void MarginLayer<Dtype>::EndGradientGpu(const vector<bool>& propagate_down,
                                        const vector<Blob<Dtype>*>& bottom) {
  const Dtype* x = bottom[0]->gpu_data();
  if (propagate_down[0]) {
    caffe_metric::finish_feature_rows<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<M_, kBlockThreads>>>(
            target_, K_, x, FeaturesGpu(*bottom[0]), norms_.gpu_data(),
            target_norms_.gpu_data(), cosines_.gpu_data(), keep_.gpu_data(),
            target_diffs_gpu_.gpu_data(), bottom[0]->mutable_gpu_diff());
    CUDA_POST_KERNEL_CHECK;
  }
  if (propagate_down[1]) {
    caffe_gpu_set(M_, Dtype(0), bottom[1]->mutable_gpu_diff());
  }
  if (param_.triplet()) {
    caffe_gpu_set(this->blobs_[0]->count(), Dtype(0),
                  this->blobs_[0]->mutable_gpu_diff());
    if (train()) {
      caffe_metric::copy_samples<Dtype>
          // NOLINT_NEXT_LINE(whitespace/operators)
          <<<M_, kBlockThreads>>>(key_, M_, K_, targets_.gpu_data(), RowsGpu(),
                                  norms_.gpu_data(), x,
                                  this->blobs_[0]->mutable_gpu_data());
      CUDA_POST_KERNEL_CHECK;
    }
  }
}

template class MarginLayer<float>;
template class MarginLayer<double>;

}  // namespace caffe
