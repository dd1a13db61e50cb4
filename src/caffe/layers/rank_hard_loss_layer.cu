#include <algorithm>
#include <vector>

#include "caffe/layers/rank_hard_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/block.cuh"
#include "caffe_metric/rank_hard.hpp"
#include "caffe_metric/report.cuh"
#include "caffe_metric/strips.hpp"

namespace caffe {

using caffe_metric::block_count;
using caffe_metric::block_kth_smallest;
using caffe_metric::kBlockThreads;
using caffe_metric::RankDraw;

// Which hinges of a taken negative are > 0.
const int kByAnchor = 1;
const int kByPositive = 2;

// What a group adds to the report, and all of it: bad rows come last.
const int kGroupSums = 3;  // loss, hinges taken, hinges > 0
const int kBadRows = 3;

// A block a row: copies every step-th row.
template <typename Dtype>
__global__ void GatherRows(const int step, const int dim, const Dtype* from,
                           Dtype* to) {
  const size_t source = static_cast<size_t>(blockIdx.x) * step * dim;
  const size_t target = static_cast<size_t>(blockIdx.x) * dim;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    to[target + k] = from[source + k];
  }
}

// What decides whether row j is taken for an anchor, step by step: the same as
// caffe_metric::rank_negatives. Smallest s is largest product; lowest index on
// a tie.
template <typename Dtype>
struct Selection {
  const Dtype* products;  // the anchor's row of the Gram matrix
  const Dtype* labels;
  Dtype positive, margin, label;
  uint64_t edge;  // the order of the last of the hardest,
  int last_tie;   // and the last row of that order among them
  uint64_t hard_stream, random_stream;
  int hard_number, random_number;
  uint64_t hard_edge, random_edge;  // the last numbers that are drawn

  __device__ bool candidate(int j) const {
    return caffe_metric::rank_violation(margin, positive, -products[j]) > 0 &&
           labels[j] != label;
  }
  __device__ uint64_t order(int j) const {
    return caffe_metric::descending_key(products[j]);
  }
  __device__ bool before_edge(int j) const {
    return candidate(j) && order(j) < edge;
  }
  __device__ bool at_edge(int j) const {
    return candidate(j) && order(j) == edge;
  }
  __device__ bool hard(int j) const {
    return before_edge(j) || (at_edge(j) && j <= last_tie);
  }
  __device__ uint64_t hard_draw(int j) const {
    return caffe_metric::draw(hard_stream, j);
  }
  __device__ bool drawn_hard(int j) const {
    return hard_number > 0 && hard(j) && hard_draw(j) <= hard_edge;
  }
  __device__ bool left(int j) const { return candidate(j) && !drawn_hard(j); }
  __device__ uint64_t random_draw(int j) const {
    return caffe_metric::draw(random_stream, j);
  }
  __device__ bool drawn(int j) const {
    return drawn_hard(j) ||
           (random_number > 0 && left(j) && random_draw(j) <= random_edge);
  }
};

// A block a group: the negatives of its anchor, ascending, then -1.
template <typename Dtype>
__global__ void TakeNegatives(const RankDraw number, const Dtype margin,
                              const uint64_t key, const int pair_size,
                              const int first_group, const int n,
                              const int max_taken, const Dtype* products,
                              const Dtype* labels, int* taken) {
  const int group = first_group + blockIdx.x;
  const int anchor = group * pair_size;
  int* out = taken + static_cast<size_t>(group) * max_taken;
  Selection<Dtype> s;
  s.products = products + static_cast<size_t>(blockIdx.x) * n;
  s.labels = labels;
  s.positive = -s.products[anchor + 1];
  s.margin = margin;
  s.label = labels[anchor];
  const int candidates = block_count(n, [=](int j) { return s.candidate(j); });
  int count;
  if (candidates <= number.neg_num) {
    count = caffe_metric::block_list(
        n, [=](int j) { return s.candidate(j); },
        [=](int k, int j) { out[k] = j; });
  } else {
    s.edge = block_kth_smallest(
        n, number.neg_num, [=](int j) { return s.candidate(j); },
        [=](int j) { return s.order(j); });
    const int before = block_count(n, [=](int j) { return s.before_edge(j); });
    s.last_tie = block_kth_smallest(
        n, number.neg_num - before, [=](int j) { return s.at_edge(j); },
        [](int j) { return static_cast<uint64_t>(j); });
    s.hard_stream =
        caffe_metric::stream_of(key, anchor, caffe_metric::kHardStream);
    s.hard_number = min(number.hard_number, number.neg_num);
    if (s.hard_number > 0) {
      s.hard_edge = block_kth_smallest(
          n, s.hard_number, [=](int j) { return s.hard(j); },
          [=](int j) { return s.hard_draw(j); });
    }
    s.random_stream =
        caffe_metric::stream_of(key, anchor, caffe_metric::kRandomStream);
    s.random_number = min(number.rand_number, candidates - s.hard_number);
    if (s.random_number > 0) {
      s.random_edge = block_kth_smallest(
          n, s.random_number, [=](int j) { return s.left(j); },
          [=](int j) { return s.random_draw(j); });
    }
    count = caffe_metric::block_list(
        n, [=](int j) { return s.drawn(j); },
        [=](int k, int j) { out[k] = j; });
  }
  for (int k = count + threadIdx.x; k < max_taken; k += kBlockThreads) {
    out[k] = -1;
  }
}

// A block a group: its hinges and their sums.
template <typename Dtype>
__global__ void AddHinges(const Dtype margin, const int pair_size,
                          const int first_group, const int n, const int dim,
                          const int max_taken, const Dtype* products,
                          const Dtype* x, const int* taken, int* hinges,
                          double* sums) {
  const int group = first_group + blockIdx.x;
  const int anchor = group * pair_size;
  const Dtype* row = products + static_cast<size_t>(blockIdx.x) * n;
  const Dtype positive = -row[anchor + 1];
  double loss = 0;
  int selected = 0;
  int active = 0;
  for (int slot = group * max_taken; slot < (group + 1) * max_taken; ++slot) {
    const int j = taken[slot];
    if (j < 0) {
      break;
    }
    const Dtype product =
        caffe_metric::block_dot(dim, x + static_cast<size_t>(anchor + 1) * dim,
                                x + static_cast<size_t>(j) * dim);
    const Dtype by_anchor =
        caffe_metric::rank_violation(margin, positive, -row[j]);
    const Dtype by_positive =
        caffe_metric::rank_violation(margin, positive, -product);
    if (threadIdx.x == 0) {
      hinges[slot] =
          (by_anchor > 0 ? kByAnchor : 0) | (by_positive > 0 ? kByPositive : 0);
    }
    loss += by_anchor + max(by_positive, Dtype(0));
    selected += 2;
    active += (by_anchor > 0) + (by_positive > 0);
  }
  if (threadIdx.x == 0) {
    sums[group * kGroupSums] = loss;
    sums[group * kGroupSums + 1] = selected;
    sums[group * kGroupSums + 2] = active;
  }
}

// A block a row: its gradient, as an anchor or a positive, and as a negative of
// all groups that took it, in their order.
template <typename Dtype>
__global__ void RankGradient(const int groups, const int pair_size,
                             const int dim, const int max_taken,
                             const int* taken, const int* hinges,
                             const Dtype* x, const Dtype* loss_diff,
                             const Dtype normalizer, Dtype* dx) {
  __shared__ int found[kBlockThreads];
  const Dtype scale = loss_diff[0] / normalizer;
  const int r = blockIdx.x;
  const int role = r % pair_size;
  Dtype* dr = dx + static_cast<size_t>(r) * dim;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    dr[k] = 0;
  }
  if (role < 2) {
    const int group = r / pair_size;
    const Dtype* partner =
        x + static_cast<size_t>(role == 0 ? r + 1 : r - 1) * dim;
    const int mine = role == 0 ? kByAnchor : kByPositive;
    for (int slot = group * max_taken; slot < (group + 1) * max_taken; ++slot) {
      if (taken[slot] < 0) {
        break;
      }
      const Dtype* negative = x + static_cast<size_t>(taken[slot]) * dim;
      const Dtype of_negative = hinges[slot] & mine ? scale : Dtype(0);
      const Dtype of_partner = scale * ((hinges[slot] & kByAnchor ? 1 : 0) +
                                        (hinges[slot] & kByPositive ? 1 : 0));
      for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
        dr[k] += of_negative * negative[k] - of_partner * partner[k];
      }
    }
  }
  const int slots = groups * max_taken;
  for (int begin = 0; begin < slots; begin += kBlockThreads) {
    const int slot = begin + threadIdx.x;
    const bool is_r = slot < slots && taken[slot] == r;
    if (!__syncthreads_or(is_r)) {
      continue;
    }
    found[threadIdx.x] = is_r;
    __syncthreads();
    for (int s = 0; s < kBlockThreads; ++s) {
      if (found[s]) {
        const int bits = hinges[begin + s];
        const Dtype of_anchor = bits & kByAnchor ? scale : Dtype(0);
        const Dtype of_positive = bits & kByPositive ? scale : Dtype(0);
        const int group = (begin + s) / max_taken;
        const Dtype* anchor = x + static_cast<size_t>(group) * pair_size * dim;
        for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
          dr[k] += of_anchor * anchor[k] + of_positive * anchor[dim + k];
        }
      }
    }
    __syncthreads();
  }
}

template <typename Dtype>
void RankHardLossLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                                           const vector<Blob<Dtype>*>& top) {
  const Dtype* x = bottom[0]->gpu_data();
  const Dtype* labels = bottom[1]->gpu_data();
  const Dtype margin = param_.margin();
  const int pair_size = param_.pair_size();
  const uint64_t key = this->DrawKey();
  const RankDraw number = caffe_metric::rank_draw(
      param_.neg_num(), param_.hard_ratio(), param_.rand_ratio());
  max_taken_ = std::min(
      num_, std::max(number.neg_num, number.hard_number + number.rand_number));
  const int strip = caffe_metric::strip_rows(group_num_, num_);
  anchors_.Reshape(strip, dim_, 1, 1);
  products_.Reshape(strip, num_, 1, 1);
  taken_rows_.Reshape(group_num_, max_taken_, 1, 1);
  hinges_.Reshape(group_num_, max_taken_, 1, 1);
  row_sums_.Reshape(num_, kGroupSums, 1, 1);
  report_.Reshape(vector<int>(1, kBadRows + 1));
  double* row_sums = row_sums_.mutable_gpu_data();
  double* report = report_.mutable_gpu_data();
  caffe_metric::check_finite<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<num_, kBlockThreads>>>(dim_, x, row_sums);
  caffe_metric::check_labels<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<CAFFE_GET_BLOCKS(num_), CAFFE_CUDA_NUM_THREADS>>>(num_, pair_size,
                                                           labels, row_sums);
  // NOLINT_NEXT_LINE(whitespace/operators)
  caffe_metric::sum_columns<<<1, kBlockThreads>>>(num_, 1, row_sums,
                                                  report + kBadRows);
  CUDA_POST_KERNEL_CHECK;
  for (int begin = 0; begin < group_num_; begin += strip) {
    const int groups = std::min(strip, group_num_ - begin);
    GatherRows<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<groups, kBlockThreads>>>(
            pair_size, dim_, x + static_cast<size_t>(begin) * pair_size * dim_,
            anchors_.mutable_gpu_data());
    caffe_gpu_gemm<Dtype>(CblasNoTrans, CblasTrans, groups, num_, dim_,
                          Dtype(1), anchors_.gpu_data(), x, Dtype(0),
                          products_.mutable_gpu_data());
    TakeNegatives<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<groups, kBlockThreads>>>(number, margin, key, pair_size, begin, num_,
                                    max_taken_, products_.gpu_data(), labels,
                                    taken_rows_.mutable_gpu_data());
    AddHinges<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<groups, kBlockThreads>>>(margin, pair_size, begin, num_, dim_,
                                    max_taken_, products_.gpu_data(), x,
                                    taken_rows_.gpu_data(),
                                    hinges_.mutable_gpu_data(), row_sums);
    CUDA_POST_KERNEL_CHECK;
  }
  // NOLINT_NEXT_LINE(whitespace/operators)
  caffe_metric::sum_columns<<<1, kBlockThreads>>>(group_num_, kGroupSums,
                                                  row_sums, report);
  CUDA_POST_KERNEL_CHECK;
  // The one copy to the host.
  const double* sums = report_.cpu_data();
  if (sums[kBadRows] != 0) {
    this->CheckFinite(*bottom[0], "features");
    CheckPairs(*bottom[1]);
  }
  Report(sums[0], sums[1], sums[2], top);
}

template <typename Dtype>
void RankHardLossLayer<Dtype>::Backward_gpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  if (propagate_down[1]) {
    caffe_gpu_set(bottom[1]->count(), Dtype(0), bottom[1]->mutable_gpu_diff());
  }
  if (!propagate_down[0]) {
    return;
  }
  RankGradient<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<num_, kBlockThreads>>>(
          group_num_, param_.pair_size(), dim_, max_taken_,
          taken_rows_.gpu_data(), hinges_.gpu_data(), bottom[0]->gpu_data(),
          top[0]->gpu_diff(), normalizer_, bottom[0]->mutable_gpu_diff());
  CUDA_POST_KERNEL_CHECK;
}

INSTANTIATE_LAYER_GPU_FUNCS(RankHardLossLayer);

}  // namespace caffe
