#include <algorithm>
#include <limits>
#include <vector>

#include "caffe/layers/margin_softmax_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/class_sampling.hpp"
#include "caffe_metric/exponential.hpp"
#include "caffe_metric/vector_ops.hpp"

namespace caffe {

using caffe_metric::SoftmaxRow;

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::DrawClasses() {
  valid_ = 0;
  for (int i = 0; i < this->M_; ++i) {
    valid_ += this->classes_[i] >= 0;
  }
  this->rows_.clear();
  if (!this->train() || softmax_.sample_rate() == 1) {
    return;
  }
  vector<int> batch(this->classes_);
  std::sort(batch.begin(), batch.end());
  batch.erase(std::unique(batch.begin(), batch.end()), batch.end());
  if (!batch.empty() && batch[0] < 0) {
    batch.erase(batch.begin());
  }
  this->rows_ = caffe_metric::draw_classes(
      this->key_, this->C_,
      caffe_metric::sampled_count(softmax_.sample_rate(), this->C_), batch);
  for (int i = 0; i < this->M_; ++i) {
    int* y = &this->classes_[i];
    if (*y >= 0) {
      *y = std::lower_bound(this->rows_.begin(), this->rows_.end(), *y) -
           this->rows_.begin();
    }
  }
}

template <typename Dtype>
Dtype* MarginSoftmaxLossLayer<Dtype>::StripRoom(int begin, int end,
                                                Scratch* scratch) {
  const size_t rows = this->M_;
  return kept_ ? exponentials_data_ + begin * rows
               : Scratch::Room((end - begin) * rows, &scratch->logits);
}

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::FoldStrip(int part, int i, int begin,
                                              int end, Dtype* logits) {
  const int classes = end - begin;
  const Dtype least = -std::numeric_limits<Dtype>::infinity();
  SoftmaxRow piece = caffe_metric::softmax_start();
  const int y = this->classes_[i] - begin;  // in [0, classes) if it is here
  const int below = std::max(0, std::min(y, classes));
  const int above = std::max(0, std::min(y + 1, classes));
  Dtype shift = least;
  if (0 <= y && y < classes) {
    const caffe_metric::Target<Dtype> target = caffe_metric::make_target(
        this->target_, logits[y], this->norms_.cpu_data()[i],
        this->target_norms_.cpu_data()[i]);
    plain_targets_[i] = logits[y];
    target_logits_[i] = logits[y] = shift = target.logit;
    cosines_data_[i] = target.cosine;
  }
  const Dtype before = caffe_metric::greatest(below, logits, least);
  const Dtype after =
      caffe_metric::greatest(classes - above, logits + above, least);
  shift = caffe_metric::larger(shift, caffe_metric::larger(before, after));
  piece.before = before;
  piece.after = after;
  piece.shift = shift;
  if (softmax_.label_smoothing() > 0) {
    piece.total = caffe_metric::sum(classes, logits);
  }
  piece.sum = caffe_metric::exponentials(classes, logits, shift, logits);
  if (kept_) {
    strip_shifts_[begin / this->strips_.width() * this->M_ + i] = shift;
  }
  caffe_metric::softmax_merge(piece, &part_states_[part * this->M_ + i]);
}

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::Forward_cpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const int M = this->M_;
  check_finite(this->Title(), *bottom[0], "features");
  this->classes_ = this->ReadLabels(*bottom[1]);
  this->UpdateLambda();
  DrawClasses();
  this->Begin(*bottom[0]);
  const int parts = this->strips_.parts();
  kept_ = KeepsLogits();
  if (kept_) {
    exponentials_.Reshape(this->classes_that_meet(), M, 1, 1);
    exponentials_data_ = exponentials_.mutable_cpu_data();
    strip_shifts_.resize(static_cast<size_t>(this->strips_.strips()) * M);
  }
  plain_targets_.assign(M, 0);
  target_logits_.assign(M, 0);
  cosines_data_ = this->cosines_.mutable_cpu_data();
  part_states_.assign(static_cast<size_t>(parts) * M,
                      caffe_metric::softmax_start());
  this->ForEachStrip([this, M](int part, int begin, int end, Scratch* scratch) {
    this->ScaleWeights(begin, end);
    Dtype* logits = StripRoom(begin, end, scratch);
    this->StripLogits(this->StripWeights(begin, end, scratch), begin, end,
                      end - begin, logits);
    for (int i = 0; i < M; ++i) {
      if (this->classes_[i] >= 0) {
        FoldStrip(part, i, begin, end,
                  logits + i * static_cast<size_t>(end - begin));
      }
    }
  });
  double loss = 0;
  double right = 0;
  this->is_semihard_.assign(M, true);
  row_states_.assign(M, caffe_metric::softmax_start());
  for (int i = 0; i < M; ++i) {
    if (this->classes_[i] < 0) {
      continue;
    }
    SoftmaxRow* row = &row_states_[i];
    for (int part = 0; part < parts; ++part) {
      caffe_metric::softmax_merge(part_states_[part * M + i], row);
    }
    loss += caffe_metric::softmax_loss(*row, target_logits_[i],
                                       softmax_.label_smoothing(),
                                       this->classes_that_meet());
    const Dtype before = row->before;
    const Dtype after = row->after;
    right += caffe_metric::is_right(plain_targets_[i], before, after);
    if (this->target_.margin && this->param_.semihard()) {
      this->is_semihard_[i] =
          caffe_metric::is_semihard(this->target_.rule, target_logits_[i],
                                    plain_targets_[i], before, after);
    }
  }
  SetTops(loss, right, top);
}

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::StripDiffs(int begin, int end, Dtype weight,
                                               Dtype* logits) {
  const int classes = end - begin;
  for (int i = 0; i < this->M_; ++i, logits += classes) {
    const int y = this->classes_[i] - begin;
    if (this->classes_[i] < 0) {
      std::fill(logits, logits + classes, Dtype(0));
      continue;
    }
    const bool here = 0 <= y && y < classes;
    Dtype shift = row_states_[i].shift;
    if (kept_) {
      shift = strip_shifts_[begin / this->strips_.width() * this->M_ + i];
    } else {
      if (here) {
        logits[y] = target_logits_[i];
      }
      caffe_metric::exponentials(classes, logits, shift, logits);
    }
    const caffe_metric::SoftmaxGradient<Dtype> gradient =
        caffe_metric::softmax_gradient<Dtype>(row_states_[i], shift, weight,
                                              softmax_.label_smoothing(),
                                              this->classes_that_meet());
    caffe_metric::scale_and_shift(classes, gradient.factor, gradient.offset,
                                  logits);
    if (here) {
      logits[y] -= gradient.target;
    }
  }
}

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::Backward_cpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  const Dtype weight = top[0]->cpu_diff()[0] / Normalizer();
  this->BeginGradient(propagate_down, bottom);
  if (UpdatesWeights()) {
    this->weights_ = this->blobs_[0]->mutable_cpu_data();
    momentum_ = this->blobs_[this->blobs_.size() - 2]->mutable_cpu_data();
    update_ = GetUpdate();
  }
  this->ForEachStrip([=](int part, int begin, int end, Scratch* scratch) {
    const Dtype* weights = this->StripWeights(begin, end, scratch);
    Dtype* logits = StripRoom(begin, end, scratch);
    if (!kept_) {
      this->StripLogits(weights, begin, end, end - begin, logits);
    }
    StripDiffs(begin, end, weight, logits);
    this->StripGradient(part, weights, begin, end, end - begin, logits,
                        scratch);
  });
  kept_ = false;  // they are diffs now; a further Backward makes them again
  this->EndGradient(propagate_down, bottom);
}

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::FinishWeightGradient(int j,
                                                         const Dtype* weights,
                                                         const Dtype* diff) {
  if (!UpdatesWeights()) {
    MarginLayer<Dtype>::FinishWeightGradient(j, weights, diff);
    return;
  }
  const size_t offset = this->row(j) * this->K_;
  const Dtype along = this->Along(weights, diff);
  for (int k = 0; k < this->K_; ++k) {
    caffe_metric::update_element(update_, along, diff[k],
                                 this->weights_ + offset + k,
                                 momentum_ + offset + k);
  }
}

#ifdef CPU_ONLY
STUB_GPU(MarginSoftmaxLossLayer)
#endif

INSTANTIATE_CLASS(MarginSoftmaxLossLayer);
REGISTER_LAYER_CLASS(MarginSoftmaxLoss);

}  // namespace caffe
