#include <algorithm>
#include <vector>

#include "caffe/layers/margin_softmax_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/class_sampling.cuh"
#include "caffe_metric/class_sampling.hpp"
#include "caffe_metric/margin_softmax.cuh"

namespace caffe {

using caffe_metric::kBlockThreads;
using caffe_metric::SoftmaxRow;

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::SampleGpu(const Blob<Dtype>& labels) {
  this->rows_.clear();
  const bool all = softmax_.sample_rate() == 1 || !this->train();
  const int count =
      all ? 0 : caffe_metric::sampled_count(softmax_.sample_rate(), this->C_);
  if (count >= this->M_) {
    this->rows_.resize(count);  // rows_gpu_ knows which
    DrawClassesGpu(labels, count);
    return;
  }
  this->StartLabelCheck(labels, &this->targets_, NULL);
  if (all) {
    return;
  }
  // How many meet, the labels alone tell: the host needs them.
  this->classes_ = this->ReadLabels(labels);
  DrawClasses();
  const int classes = this->classes_that_meet();
  this->rows_gpu_.Reshape(vector<int>(1, classes));
  caffe_gpu_memcpy(classes * sizeof(int), this->rows_.data(),
                   this->rows_gpu_.mutable_gpu_data());
  caffe_gpu_memcpy(this->M_ * sizeof(int), this->classes_.data(),
                   this->targets_.mutable_gpu_data());
}

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::DrawClassesGpu(const Blob<Dtype>& labels,
                                                   int count) {
  using caffe_metric::kDrawBins;
  using caffe_metric::kSamplingBlocks;
  const int C = this->C_;
  const int blocks =
      std::min(kSamplingBlocks, (C + kBlockThreads - 1) / kBlockThreads);
  const uint64_t stream = caffe_metric::stream_of(this->key_, 1, 0);
  this->rows_gpu_.Reshape(vector<int>(1, count));
  this->targets_.Reshape(vector<int>(1, this->M_));
  marks_.Reshape(vector<int>(1, C));
  edge_.Reshape(vector<int>(1, C));
  sampling_counts_.Reshape(vector<int>(1, kDrawBins + 1 + kSamplingBlocks));
  int* marks = marks_.mutable_gpu_data();
  int* histogram = sampling_counts_.mutable_gpu_data();
  int* edge_size = histogram + kDrawBins;
  int* counts = edge_size + 1;
  caffe_gpu_memset(C * sizeof(int), 0, marks);
  caffe_gpu_memset((kDrawBins + 1) * sizeof(int), 0, histogram);
  this->StartLabelCheck(labels, &batch_targets_, marks);
  caffe_metric::count_draws  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<blocks, kBlockThreads>>>(stream, C, marks, histogram);
  caffe_metric::count_classes  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<blocks, kBlockThreads>>>(stream, C, count, marks, histogram, edge_size,
                                  edge_.mutable_gpu_data(), counts);
  caffe_metric::list_classes  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<blocks, kBlockThreads>>>(
          stream, C, count, this->M_, marks, histogram, edge_.gpu_data(),
          counts, batch_targets_.gpu_data(), this->rows_gpu_.mutable_gpu_data(),
          this->targets_.mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
Dtype* MarginSoftmaxLossLayer<Dtype>::StripRoomGpu(int begin) {
  const size_t rows = this->M_;
  if (kept_) {
    return exponentials_.mutable_gpu_data() + begin * rows;
  }
  strip_logits_.Reshape(this->GpuWidth(), this->M_, 1, 1);
  return strip_logits_.mutable_gpu_data();
}

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::Forward_gpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const int M = this->M_;
  this->EndLabelCheck();
  this->UpdateLambda();
  SampleGpu(*bottom[1]);
  this->BeginGpu(*bottom[0]);
  const int classes = this->classes_that_meet();
  const int width = this->GpuWidth();
  kept_ = KeepsLogits();
  if (kept_) {
    exponentials_.Reshape(classes, M, 1, 1);
  }
  const int strip_pieces = caffe_metric::row_pieces(width);
  const int last = (classes - 1) / width;
  const int pieces =
      last * strip_pieces + caffe_metric::row_pieces(classes - last * width);
  pieces_gpu_.Reshape(pieces, M, sizeof(SoftmaxRow) / sizeof(double), 1);
  target_logits_gpu_.Reshape(vector<int>(1, M));
  plain_targets_gpu_.Reshape(vector<int>(1, M));
  states_gpu_.Reshape(M, sizeof(SoftmaxRow) / sizeof(double), 1, 1);
  row_reports_.Reshape(M, 4, 1, 1);
  sums_.Reshape(vector<int>(1, 4));
  SoftmaxRow* states =
      reinterpret_cast<SoftmaxRow*>(states_gpu_.mutable_gpu_data());
  SoftmaxRow* of_pieces =
      reinterpret_cast<SoftmaxRow*>(pieces_gpu_.mutable_gpu_data());
  for (int begin = 0; begin < classes; begin += width) {
    const int end = std::min(classes, begin + width);
    if (this->in_place()) {
      this->ScaleWeightsGpu(begin, end, NULL);
    }
    Dtype* logits = StripRoomGpu(begin);
    this->StripLogitsGpu(this->FeaturesGpu(*bottom[0]),
                         this->StripWeightsGpu(begin, end), begin, end,
                         end - begin, logits);
    const dim3 grid(M, caffe_metric::row_pieces(end - begin));
    caffe_metric::fold_strip<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<grid, kBlockThreads>>>(
            this->target_, begin, end - begin, begin / width * strip_pieces,
            this->targets_.gpu_data(), this->norms_.gpu_data(),
            this->target_norms_.gpu_data(), logits,
            this->cosines_.mutable_gpu_data(),
            plain_targets_gpu_.mutable_gpu_data(),
            target_logits_gpu_.mutable_gpu_data(), of_pieces);
    CUDA_POST_KERNEL_CHECK;
  }
  arrived_.Reshape(vector<int>(1, 1));
  caffe_metric::finish_rows<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<M, kBlockThreads>>>(
          this->target_.rule, this->target_.margin && this->param_.semihard(),
          softmax_.label_smoothing(), classes, pieces, of_pieces,
          this->targets_.gpu_data(), this->norms_.gpu_data(),
          plain_targets_gpu_.gpu_data(), target_logits_gpu_.gpu_data(), states,
          this->keep_.mutable_gpu_data(), row_reports_.mutable_gpu_data(),
          arrived_.mutable_gpu_data(), sums_.mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
  const double* sums = sums_.cpu_data();
  valid_ = static_cast<int>(sums[2]);
  this->EndLabelCheck();
  if (sums[3] > 0) {
    check_finite(this->Title(), *bottom[0], "features");
  }
  SetTops(sums[0], sums[1], top);
}

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::Backward_gpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  const int M = this->M_;
  const int classes = this->classes_that_meet();
  const int width = this->GpuWidth();
  const bool reference = this->target_.reference;
  const bool to_weights = UpdatesWeights() || (this->param_propagate_down_[0] &&
                                               !this->param_.triplet());
  const Dtype* features = this->FeaturesGpu(*bottom[0]);
  const SoftmaxRow* states =
      reinterpret_cast<const SoftmaxRow*>(states_gpu_.gpu_data());
  this->awaits_backward_ = false;
  this->target_diffs_gpu_.Reshape(vector<int>(1, M));
  for (int begin = 0; begin < classes; begin += width) {
    const int end = std::min(classes, begin + width);
    const Dtype* weights = this->StripWeightsGpu(begin, end);
    Dtype* logits = StripRoomGpu(begin);
    if (!kept_) {
      this->StripLogitsGpu(features, weights, begin, end, end - begin, logits);
    }
    const dim3 grid(M, caffe_metric::row_pieces(end - begin));
    caffe_metric::strip_diffs<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<grid, kBlockThreads>>>(
            kept_, top[0]->gpu_diff(), Normalizer(), softmax_.label_smoothing(),
            begin, end - begin, classes,
            begin / width * caffe_metric::row_pieces(width),
            this->targets_.gpu_data(), target_logits_gpu_.gpu_data(),
            reinterpret_cast<const SoftmaxRow*>(pieces_gpu_.gpu_data()), states,
            logits, this->target_diffs_gpu_.mutable_gpu_data());
    CUDA_POST_KERNEL_CHECK;
    // The weights' product comes last, since own_update moves them.
    if (reference && to_weights) {
      StripGradientGpu(features, weights, begin, end, logits);
    }
    caffe_metric::scale_strip_targets<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<1, kBlockThreads>>>(
            this->target_, begin, M, end - begin, this->targets_.gpu_data(),
            this->norms_.gpu_data(), this->cosines_.gpu_data(), logits);
    CUDA_POST_KERNEL_CHECK;
    if (propagate_down[0]) {
      this->StripFeatureGradientGpu(weights, begin, end, end - begin, logits,
                                    bottom[0]->mutable_gpu_diff());
    }
    if (!reference && to_weights) {
      StripGradientGpu(features, weights, begin, end, logits);
    }
  }
  kept_ = false;  // they are diffs now; a further Backward makes them again
  this->EndGradientGpu(propagate_down, bottom);
}

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::StripGradientGpu(const Dtype* features,
                                                     const Dtype* weights,
                                                     int begin, int end,
                                                     const Dtype* logits_diff) {
  Dtype* diff = this->WeightProductGpu(features, weights, begin, end,
                                       end - begin, logits_diff);
  if (!UpdatesWeights()) {
    this->AddWeightDiffGpu(weights, begin, end, diff);
    return;
  }
  const int* rows = this->RowsGpu();
  const size_t offset = rows ? 0 : begin * static_cast<size_t>(this->K_);
  Blob<Dtype>* momentum = this->blobs_[this->blobs_.size() - 2].get();
  caffe_metric::update_weights<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<end - begin, kBlockThreads>>>(
          GetUpdate(), this->Projects(), this->K_, rows ? rows + begin : NULL,
          weights, diff, this->blobs_[0]->mutable_gpu_data() + offset,
          momentum->mutable_gpu_data() + offset);
  CUDA_POST_KERNEL_CHECK;
  this->strip_is_all_ = false;  // they have moved
}

INSTANTIATE_LAYER_GPU_FUNCS(MarginSoftmaxLossLayer);

}  // namespace caffe
