#include <algorithm>
#include <vector>

#include "caffe/layers/margin_inner_product_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/block.cuh"
#include "caffe_metric/labels.hpp"
#include "caffe_metric/margin_rule.hpp"
#include "caffe_metric/random.hpp"

namespace caffe {

using caffe_metric::block_dot;
using caffe_metric::FeatureGradient;
using caffe_metric::kBlockThreads;
using caffe_metric::label_index;
using caffe_metric::TargetRule;

// Elements of a strip of the weights' gradient.
const int kWeightStripGpu = 1 << 24;

// The rule of the target, as backward needs it.
template <typename Dtype>
struct TargetSlope {
  TargetRule<Dtype> rule;
  int margin;     // whether it is applied at all
  int reference;  // whether gradient is REFERENCE
};

template <typename Dtype>
__device__ FeatureGradient<Dtype> target_gradient(
    const TargetSlope<Dtype>& slope, Dtype cosine, Dtype norm) {
  if (!slope.margin) {
    const FeatureGradient<Dtype> plain = {1, 0};
    return plain;
  }
  if (slope.reference) {
    return caffe_metric::reference_gradient(slope.rule, cosine, norm);
  }
  return caffe_metric::exact_gradient(
      caffe_metric::target_curve(slope.rule, cosine), cosine);
}

// One block: the first row with a bad label, counted from 1, and its label;
// zeros if there is none.
template <typename Dtype>
__global__ void FindBadLabel(const int rows, const int classes,
                             const Dtype* labels, Dtype* bad) {
  int first = rows;
  for (int i = threadIdx.x; i < rows; i += kBlockThreads) {
    if (label_index(labels[i], classes) < 0) {
      first = min(first, i);
    }
  }
  first = caffe_metric::block_least(first);
  if (threadIdx.x == 0) {
    bad[0] = first < rows ? first + 1 : 0;
    bad[1] = first < rows ? labels[first] : Dtype(0);
  }
}

// A block a row: its norm and, where asked for, the unit row.
template <typename Dtype>
__global__ void MeasureRows(const int dim, const Dtype* x, Dtype* norms,
                            Dtype* unit) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  const Dtype norm = sqrt(block_dot(dim, x + begin, x + begin));
  if (threadIdx.x == 0) {
    norms[blockIdx.x] = norm;
  }
  if (unit) {
    const Dtype factor = norm > 0 ? 1 / norm : Dtype(0);
    for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
      unit[begin + k] = factor * x[begin + k];
    }
  }
}

// A block a class: scales its weights to unit length into `unit` (which may be
// `weights`; NULL: not at all) and writes what is left to multiply by.
template <typename Dtype>
__global__ void ScaleWeightRows(const int dim, const Dtype* weights,
                                Dtype* unit, Dtype* factors) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  const Dtype square = block_dot(dim, weights + begin, weights + begin);
  const bool as_it_is = caffe_metric::is_unit(square) || square == 0;
  const Dtype factor = as_it_is ? Dtype(1) : 1 / sqrt(square);
  if (unit && (!as_it_is || unit != weights)) {
    for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
      unit[begin + k] = factor * weights[begin + k];
    }
  }
  if (threadIdx.x == 0) {
    factors[blockIdx.x] = unit == weights ? Dtype(1) : factor;
  }
}

template <typename Dtype>
__global__ void ScaleColumns(const int n, const int columns,
                             const Dtype* factors, Dtype* matrix) {
  CUDA_KERNEL_LOOP(i, n) { matrix[i] *= factors[i % columns]; }
}

// A block a row: the target's cosine and logit, and whether the row keeps its
// gradient (semihard).
template <typename Dtype>
__global__ void SetTargetLogits(const TargetRule<Dtype> rule, const bool margin,
                                const bool semihard, const bool normalize,
                                const Dtype scale, const int classes,
                                const Dtype* labels, const Dtype* norms,
                                Dtype* cosines, int* keep, Dtype* logits) {
  const int i = blockIdx.x;
  const int y = label_index(labels[i], classes);
  if (y < 0) {
    return;
  }
  Dtype* row = logits + static_cast<size_t>(i) * classes;
  const Dtype plain = row[y];
  const Dtype norm = norms[i];
  const Dtype length = scale * (normalize && norm > 0 ? Dtype(1) : norm);
  Dtype cosine = length > 0 ? plain / length : Dtype(0);
  cosine = max(Dtype(-1), min(cosine, Dtype(1)));
  Dtype logit = plain;
  if (margin) {
    logit = length * caffe_metric::target_curve(rule, cosine).value;
  }
  int wrong = 0;          // with the margin
  int wrong_without = 0;  // argmax is the lowest index on a tie
  if (margin && semihard) {
    for (int j = threadIdx.x; j < classes; j += kBlockThreads) {
      if (j != y) {
        wrong |= j < y ? row[j] >= logit : row[j] > logit;
        wrong_without |= j < y ? row[j] >= plain : row[j] > plain;
      }
    }
    wrong = __syncthreads_or(wrong);
    wrong_without = __syncthreads_or(wrong_without);
  }
  __syncthreads();  // all have read row[y]
  if (threadIdx.x == 0) {
    const bool semihard_row = wrong && (!wrong_without || rule.m == 1);
    keep[i] = !(margin && semihard) || semihard_row;
    cosines[i] = cosine;
    row[y] = logit;
  }
}

// Multiplies the targets' entries by g', and keeps what they were.
template <typename Dtype>
__global__ void ScaleTargetDiffs(const TargetSlope<Dtype> slope, const int rows,
                                 const int classes, const Dtype* labels,
                                 const Dtype* norms, const Dtype* cosines,
                                 Dtype* top_diff, Dtype* target_diffs) {
  CUDA_KERNEL_LOOP(i, rows) {
    const int y = label_index(labels[i], classes);
    if (y >= 0) {
      Dtype* diff = top_diff + static_cast<size_t>(i) * classes + y;
      target_diffs[i] = *diff;
      if (norms[i] > 0) {
        *diff *= target_gradient(slope, cosines[i], norms[i]).of_weight;
      }
    }
  }
}

template <typename Dtype>
__global__ void RestoreTargetDiffs(const int rows, const int classes,
                                   const Dtype* labels,
                                   const Dtype* target_diffs, Dtype* top_diff) {
  CUDA_KERNEL_LOOP(i, rows) {
    const int y = label_index(labels[i], classes);
    if (y >= 0) {
      top_diff[static_cast<size_t>(i) * classes + y] = target_diffs[i];
    }
  }
}

// A block a row: from A w_hat to dx.
template <typename Dtype>
__global__ void FinishFeatureRows(const TargetSlope<Dtype> slope,
                                  const bool normalize, const Dtype scale,
                                  const int dim, const Dtype* x,
                                  const Dtype* norms, const Dtype* cosines,
                                  const int* keep, const Dtype* target_diffs,
                                  Dtype* dx) {
  const int i = blockIdx.x;
  const size_t begin = static_cast<size_t>(i) * dim;
  const Dtype norm = norms[i];
  if (norm == 0 || !keep[i]) {
    for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
      dx[begin + k] = 0;
    }
    return;
  }
  const Dtype of_feature = target_gradient(slope, cosines[i], norm).of_feature;
  const Dtype factor = scale * target_diffs[i] * of_feature / norm;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    dx[begin + k] += factor * x[begin + k];
  }
  if (normalize) {
    const Dtype along = block_dot(dim, dx + begin, x + begin) / (norm * norm);
    for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
      dx[begin + k] = (dx[begin + k] - along * x[begin + k]) / norm;
    }
  }
}

// A block a class: adds factor (diff - (diff . w) w) to dw. Along the weights
// there is no gradient: their length is fixed.
template <typename Dtype>
__global__ void AddTangent(const bool project, const int dim,
                           const Dtype* weights, const Dtype* factors,
                           const Dtype* diff, Dtype* dw) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  const Dtype factor = factors[blockIdx.x];
  Dtype along = 0;
  if (project) {
    along = factor * factor * block_dot(dim, diff + begin, weights + begin);
  }
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    dw[begin + k] += factor * (diff[begin + k] - along * weights[begin + k]);
  }
}

// A block a row: the unit feature becomes its class's weights, if it is the
// last of its class in the batch and the class's coin says so.
template <typename Dtype>
__global__ void CopySamples(const uint64_t key, const int rows, const int dim,
                            const int classes, const Dtype* labels,
                            const Dtype* norms, const Dtype* x,
                            Dtype* weights) {
  const int i = blockIdx.x;
  const int y = label_index(labels[i], classes);
  int later = 0;
  for (int j = i + 1 + threadIdx.x; j < rows; j += kBlockThreads) {
    later |= labels[j] == labels[i];
  }
  later = __syncthreads_or(later);
  const Dtype norm = norms[i];
  if (y < 0 || later || !(norm > 0) || !caffe_metric::coin(key, y)) {
    return;
  }
  const Dtype factor = 1 / norm;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    weights[static_cast<size_t>(y) * dim + k] =
        factor * x[static_cast<size_t>(i) * dim + k];
  }
}

// C = alpha A^T B of row-major matrices, A of k rows that lie lda apart.
inline void columns_times_gpu(int m, int n, int k, float alpha, const float* a,
                              int lda, const float* b, float* c) {
  const float beta = 0;
  CUBLAS_CHECK(cublasSgemm(Caffe::cublas_handle(), CUBLAS_OP_N, CUBLAS_OP_T, n,
                           m, k, &alpha, b, n, a, lda, &beta, c, n));
}

inline void columns_times_gpu(int m, int n, int k, double alpha,
                              const double* a, int lda, const double* b,
                              double* c) {
  const double beta = 0;
  CUBLAS_CHECK(cublasDgemm(Caffe::cublas_handle(), CUBLAS_OP_N, CUBLAS_OP_T, n,
                           m, k, &alpha, b, n, a, lda, &beta, c, n));
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::StartLabelCheck(
    const Blob<Dtype>& labels) {
  if (labels.data()->head() != SyncedMemory::HEAD_AT_GPU) {
    check_labels(Title(), labels,
                 C_);  // the host has them: this copies nothing
    return;
  }
  bad_label_.Reshape(vector<int>(1, 2));
  bad_label_seen_.Reshape(vector<int>(1, 2));
  FindBadLabel<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<1, kBlockThreads>>>(M_, C_, labels.gpu_data(),
                             bad_label_.mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
  // The host's memory is pinned: nobody waits. EndLabelCheck looks at it.
  CUDA_CHECK(cudaMemcpyAsync(bad_label_seen_.mutable_cpu_data(),
                             bad_label_.gpu_data(), 2 * sizeof(Dtype),
                             cudaMemcpyDeviceToHost, 0));
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::EndLabelCheck() {
  if (bad_label_seen_.count() > 0) {
    const Dtype* bad = bad_label_seen_.cpu_data();
    if (bad[0] != 0) {
      refuse_label(Title(), static_cast<int>(bad[0]) - 1, bad[1], C_);
    }
  }
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::Forward_gpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  EndLabelCheck();
  StartLabelCheck(*bottom[1]);
  UpdateLambda();
  const bool train = this->phase_ == TRAIN;
  const Dtype* x = bottom[0]->gpu_data();
  const Dtype* features = x;
  Dtype* unit_features = NULL;
  if (param_.normalize_features()) {
    unit_features_.Reshape(M_, K_, 1, 1);
    unit_features = unit_features_.mutable_gpu_data();
    features = unit_features;
  }
  MeasureRows<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<M_, kBlockThreads>>>(K_, x, norms_.mutable_gpu_data(), unit_features);
  Dtype* unit_weights = train ? this->blobs_[0]->mutable_gpu_data() : NULL;
  const Dtype* weights = this->blobs_[0]->gpu_data();
  ScaleWeightRows<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<C_, kBlockThreads>>>(K_, weights, unit_weights,
                              weight_factors_.mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
  Dtype* logits = top[0]->mutable_gpu_data();
  caffe_gpu_gemm<Dtype>(CblasNoTrans, CblasTrans, M_, C_, K_, param_.scale(),
                        features, weights, Dtype(0), logits);
  if (!train) {
    ScaleColumns<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<CAFFE_GET_BLOCKS(M_ * C_), CAFFE_CUDA_NUM_THREADS>>>(
            M_ * C_, C_, weight_factors_.gpu_data(), logits);
  }
  keep_.Reshape(vector<int>(1, M_));
  SetTargetLogits<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<M_, kBlockThreads>>>(rule_, applies_margin(), param_.semihard(),
                              param_.normalize_features(),
                              Dtype(param_.scale()), C_, bottom[1]->gpu_data(),
                              norms_.gpu_data(), cosines_.mutable_gpu_data(),
                              keep_.mutable_gpu_data(), logits);
  CUDA_POST_KERNEL_CHECK;
  if (top.size() > 1) {
    top[1]->mutable_cpu_data()[0] = rule_.lambda;
  }
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::AddWeightGradientGpu(
    const Dtype* features, const Dtype* top_diff) {
  const bool project =
      param_.gradient() == MarginInnerProductParameter_Gradient_EXACT;
  const int strip = std::min(C_, std::max(1, kWeightStripGpu / K_));
  strip_diff_.Reshape(strip, K_, 1, 1);
  Dtype* diff = strip_diff_.mutable_gpu_data();
  const Dtype* weights = this->blobs_[0]->gpu_data();
  Dtype* weight_diff = this->blobs_[0]->mutable_gpu_diff();
  for (int begin = 0; begin < C_; begin += strip) {
    const int classes = std::min(strip, C_ - begin);
    const size_t offset = begin * static_cast<size_t>(K_);
    columns_times_gpu(classes, K_, M_, Dtype(param_.scale()), top_diff + begin,
                      C_, features, diff);
    AddTangent<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<classes, kBlockThreads>>>(project, K_, weights + offset,
                                     weight_factors_.gpu_data() + begin, diff,
                                     weight_diff + offset);
    CUDA_POST_KERNEL_CHECK;
  }
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::Backward_gpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  EndLabelCheck();
  const bool reference =
      param_.gradient() == MarginInnerProductParameter_Gradient_REFERENCE;
  const bool to_weights = this->param_propagate_down_[0] && !param_.triplet();
  const TargetSlope<Dtype> slope = {rule_, applies_margin(), reference};
  const Dtype* x = bottom[0]->gpu_data();
  const Dtype* features =
      param_.normalize_features() ? unit_features_.gpu_data() : x;
  const Dtype* labels = bottom[1]->gpu_data();
  const Dtype* norms = norms_.gpu_data();
  const Dtype* cosines = cosines_.gpu_data();
  Dtype* top_diff = top[0]->mutable_gpu_diff();
  if (to_weights && reference) {
    AddWeightGradientGpu(features, top_diff);
  }
  // The targets' entries are times g' for both products, and then themselves
  // again: no copy of the M x C array.
  target_diffs_.Reshape(vector<int>(1, M_));
  ScaleTargetDiffs<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<CAFFE_GET_BLOCKS(M_), CAFFE_CUDA_NUM_THREADS>>>(
          slope, M_, C_, labels, norms, cosines, top_diff,
          target_diffs_.mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
  if (to_weights && !reference) {
    AddWeightGradientGpu(features, top_diff);
  }
  if (propagate_down[0]) {
    Dtype* dx = bottom[0]->mutable_gpu_diff();
    const Dtype* unit_weights = this->blobs_[0]->gpu_data();
    if (this->phase_ != TRAIN) {
      strip_weights_.Reshape(C_, K_, 1, 1);
      ScaleWeightRows<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
          <<<C_, kBlockThreads>>>(K_, unit_weights,
                                  strip_weights_.mutable_gpu_data(),
                                  weight_factors_.mutable_gpu_data());
      unit_weights = strip_weights_.gpu_data();
    }
    caffe_gpu_gemm<Dtype>(CblasNoTrans, CblasNoTrans, M_, K_, C_,
                          param_.scale(), top_diff, unit_weights, Dtype(0), dx);
    FinishFeatureRows<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<M_, kBlockThreads>>>(slope, param_.normalize_features(),
                                Dtype(param_.scale()), K_, x, norms, cosines,
                                keep_.gpu_data(), target_diffs_.gpu_data(), dx);
    CUDA_POST_KERNEL_CHECK;
  }
  RestoreTargetDiffs<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<CAFFE_GET_BLOCKS(M_), CAFFE_CUDA_NUM_THREADS>>>(
          M_, C_, labels, target_diffs_.gpu_data(), top_diff);
  CUDA_POST_KERNEL_CHECK;
  if (propagate_down[1]) {
    caffe_gpu_set(M_, Dtype(0), bottom[1]->mutable_gpu_diff());
  }
  if (param_.triplet()) {
    caffe_gpu_set(this->blobs_[0]->count(), Dtype(0),
                  this->blobs_[0]->mutable_gpu_diff());
    if (this->phase_ == TRAIN) {
      CopySamples<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
          <<<M_, kBlockThreads>>>(key_, M_, K_, C_, labels, norms, x,
                                  this->blobs_[0]->mutable_gpu_data());
      CUDA_POST_KERNEL_CHECK;
    }
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(MarginInnerProductLayer);

}  // namespace caffe
