#include <algorithm>
#include <vector>

#include "caffe/layers/triplet_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/block.cuh"
#include "caffe_metric/gram.cuh"
#include "caffe_metric/report.cuh"
#include "caffe_metric/strips.hpp"
#include "caffe_metric/triplet_all.cuh"
#include "caffe_metric/triplet_mining.cuh"

namespace caffe {

using caffe_metric::block_distance_sums;
using caffe_metric::distance_of;
using caffe_metric::distance_slope;
using caffe_metric::DistanceSlope;
using caffe_metric::DistanceSums;
using caffe_metric::kBlockThreads;
using caffe_metric::kTripletSums;
using caffe_metric::Metric;
using caffe_metric::Triplet;
using caffe_metric::TripletRule;
using caffe_metric::TripletTerm;

// Where work is dealt out to blocks, their number does not depend on how much
// there is: the sums keep their order.
const int kMaxBlocks = 1024;
// Blocks that have scratch memory for an anchor's thresholds.
const int kHingeBlocks = 256;

// The report: the sums of the triplets, then of bad rows, and the pairs that a
// mined batch needed room for.
const int kBadRows = kTripletSums;
const int kPairs = kTripletSums + 1;
const int kReportSize = kTripletSums + 2;

// What backward needs of a triplet.
template <typename Dtype>
struct CachedTerm {
  DistanceSlope<Dtype> ap, an;
  Dtype weight_ap, weight_an;
  Dtype swapped;  // 1: `an` is of the distance of p and n
};

const int kTermSize = sizeof(CachedTerm<float>) / sizeof(float);

// Triplet t: listed by mining, or of a group of rows, or of three bottoms.
__device__ Triplet triplet_rows(const Triplet* mined, int group_size, int t) {
  if (mined) {
    return mined[t];
  }
  if (group_size == 0) {
    const Triplet rows = {t, t, t};
    return rows;
  }
  const int negatives = group_size - 2;
  const int anchor = t / negatives * group_size;
  const Triplet rows = {anchor, anchor + 1, anchor + 2 + t % negatives};
  return rows;
}

// Triplets dealt out to blocks: their losses, summed by block, and their terms.
// There are `listed` of them or, with offsets, as many as those end with.
template <typename Dtype>
__global__ void AddTerms(const Metric<Dtype> metric,
                         const TripletRule<Dtype> rule, const bool swap,
                         const bool use_pair, const int group_size,
                         const int listed, const int* total,
                         const Triplet* mined, const int dim,
                         const Dtype* anchors, const Dtype* positives,
                         const Dtype* negatives, const Dtype* weights,
                         CachedTerm<Dtype>* terms, double* triplet_sums) {
  const int count = total ? min(*total, listed) : listed;
  double loss = 0;
  int selected = 0;
  int active = 0;
  double sum_ap = 0;
  double sum_an = 0;
  int not_finite = 0;
  for (int t = blockIdx.x; t < count; t += gridDim.x) {
    const Triplet rows = triplet_rows(mined, group_size, t);
    if (rows.negative < 0) {
      continue;
    }
    const Dtype* a = anchors + static_cast<size_t>(rows.anchor) * dim;
    const Dtype* p = positives + static_cast<size_t>(rows.positive) * dim;
    const Dtype* n = negatives + static_cast<size_t>(rows.negative) * dim;
    const DistanceSums<Dtype> ap = block_distance_sums(metric, dim, a, p);
    DistanceSums<Dtype> an = block_distance_sums(metric, dim, a, n);
    const Dtype d_ap = distance_of(metric, ap);
    Dtype d_an = distance_of(metric, an);
    bool swapped = false;
    if (swap) {
      const DistanceSums<Dtype> pn = block_distance_sums(metric, dim, p, n);
      const Dtype d_pn = distance_of(metric, pn);
      swapped = caffe_metric::takes_swapped(d_an, d_pn);
      if (swapped) {
        an = pn;
        d_an = d_pn;
      }
    }
    const TripletTerm<Dtype> term =
        caffe_metric::triplet_term(rule, d_ap, d_an);
    const Dtype weight = weights ? weights[t] : Dtype(1);
    // The negatives of a group share one pair.
    const bool new_pair = group_size == 0 || t % (group_size - 2) == 0;
    const Dtype pair = use_pair && new_pair ? weight : Dtype(0);
    if (threadIdx.x == 0) {
      const CachedTerm<Dtype> cached = {
          distance_slope(metric, ap), distance_slope(metric, an),
          weight * term.slope_ap + pair, weight * term.slope_an,
          swapped ? Dtype(1) : Dtype(0)};
      terms[t] = cached;
    }
    loss += static_cast<double>(weight) * term.loss;
    if (use_pair && new_pair) {
      loss += weight * d_ap;
    }
    selected += 1;
    active += term.loss > 0;
    sum_ap += d_ap;
    sum_an += d_an;
    not_finite += caffe_metric::is_finite(d_ap + d_an) ? 0 : 1;
  }
  double* sums = triplet_sums + blockIdx.x * kTripletSums;
  caffe_metric::write_triplet_sums(loss, selected, active, sum_ap, sum_an,
                                   sums);
  if (threadIdx.x == 0) {
    sums[kTripletSums - 1] = not_finite;
  }
}

// A block a pair of anchor and positive, with its `negatives` negatives: the
// gradient of the rows that the layout names. NULL diffs do not propagate.
template <typename Dtype>
__global__ void ListedGradient(const Metric<Dtype> metric, const int group_size,
                               const int negatives, const int dim,
                               const CachedTerm<Dtype>* terms, const Dtype* x_a,
                               const Dtype* x_p, const Dtype* x_n,
                               const Dtype* loss_diff, const Dtype normalizer,
                               Dtype* dx_a, Dtype* dx_p, Dtype* dx_n) {
  const Dtype scale = loss_diff[0] / normalizer;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    Dtype da = 0;
    Dtype dp = 0;
    size_t at_a = 0;
    size_t at_p = 0;
    for (int m = 0; m < negatives; ++m) {
      const int t = blockIdx.x * negatives + m;
      const Triplet rows = triplet_rows(NULL, group_size, t);
      const CachedTerm<Dtype> term = terms[t];
      at_a = static_cast<size_t>(rows.anchor) * dim + k;
      at_p = static_cast<size_t>(rows.positive) * dim + k;
      const size_t at_n = static_cast<size_t>(rows.negative) * dim + k;
      Dtype dn = 0;
      caffe_metric::distance_gradient(metric, term.ap, scale * term.weight_ap,
                                      x_a[at_a], x_p[at_p], &da, &dp);
      const bool swapped = term.swapped != 0;
      caffe_metric::distance_gradient(metric, term.an, scale * term.weight_an,
                                      swapped ? x_p[at_p] : x_a[at_a],
                                      x_n[at_n], swapped ? &dp : &da, &dn);
      if (dx_n) {
        dx_n[at_n] = dn;
      }
    }
    if (dx_a) {
      dx_a[at_a] = da;
    }
    if (dx_p) {
      dx_p[at_p] = dp;
    }
  }
}

// A block a row of a mined batch: its gradient by all triplets that it is in,
// in their order.
template <typename Dtype>
__global__ void MinedGradient(const Metric<Dtype> metric, const int dim,
                              const int capacity, const int* total,
                              const Triplet* triplets,
                              const CachedTerm<Dtype>* terms, const Dtype* x,
                              const Dtype* loss_diff, const Dtype normalizer,
                              Dtype* dx) {
  __shared__ int found[kBlockThreads];
  const Dtype scale = loss_diff[0] / normalizer;
  const int r = blockIdx.x;
  const int count = min(*total, capacity);
  const Dtype* x_r = x + static_cast<size_t>(r) * dim;
  Dtype* d_r = dx + static_cast<size_t>(r) * dim;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    d_r[k] = 0;
  }
  for (int begin = 0; begin < count; begin += kBlockThreads) {
    const int mine = begin + threadIdx.x;
    bool has_r = false;
    if (mine < count && triplets[mine].negative >= 0) {
      const Triplet rows = triplets[mine];
      has_r = rows.anchor == r || rows.positive == r || rows.negative == r;
    }
    if (!__syncthreads_or(has_r)) {
      continue;
    }
    found[threadIdx.x] = has_r;
    __syncthreads();
    for (int s = 0; s < kBlockThreads; ++s) {
      if (!found[s]) {
        continue;
      }
      const Triplet rows = triplets[begin + s];
      const CachedTerm<Dtype> term = terms[begin + s];
      const int from = term.swapped != 0 ? rows.positive : rows.anchor;
      const Dtype weight_ap = scale * term.weight_ap;
      const Dtype weight_an = scale * term.weight_an;
      for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
        Dtype sum = 0;
        Dtype ignored = 0;
        if (r == rows.anchor || r == rows.positive) {
          const Dtype x_a = x[static_cast<size_t>(rows.anchor) * dim + k];
          const Dtype x_p = x[static_cast<size_t>(rows.positive) * dim + k];
          const bool first = r == rows.anchor;
          caffe_metric::distance_gradient(metric, term.ap, weight_ap, x_a, x_p,
                                          first ? &sum : &ignored,
                                          first ? &ignored : &sum);
        }
        if (r == from) {
          const Dtype x_n = x[static_cast<size_t>(rows.negative) * dim + k];
          caffe_metric::distance_gradient(metric, term.an, weight_an, x_r[k],
                                          x_n, &sum, &ignored);
        } else if (r == rows.negative) {
          const Dtype x_f = x[static_cast<size_t>(from) * dim + k];
          caffe_metric::distance_gradient(metric, term.an, weight_an, x_f,
                                          x_r[k], &ignored, &sum);
        }
        d_r[k] += sum;
      }
    }
    __syncthreads();
  }
}

template <typename Dtype>
__global__ void ScaleByLoss(const int n, const Dtype* gradient,
                            const Dtype* loss_diff, const Dtype normalizer,
                            Dtype* dx) {
  const Dtype scale = loss_diff[0] / normalizer;
  CUDA_KERNEL_LOOP(i, n) { dx[i] = scale * gradient[i]; }
}

static __global__ void ReportTotal(const int* total, double* report) {
  report[kPairs] = *total;
}

template <typename Dtype>
void TripletLossLayer<Dtype>::CheckInputGpu(
    const vector<Blob<Dtype>*>& bottom) {
  report_.Reshape(vector<int>(1, kReportSize));
  caffe_gpu_set(kReportSize, 0., report_.mutable_gpu_data());
  if (layout_ != MINED && layout_ != WEIGHTED_ROWS) {
    return;  // AddTerms looks at the distances
  }
  const bool mined = layout_ == MINED;
  bad_rows_.Reshape(vector<int>(1, num_));
  double* bad = bad_rows_.mutable_gpu_data();
  caffe_metric::check_finite<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<num_, kBlockThreads>>>(mined ? dim_ : 1,
                                bottom[mined ? 0 : 3]->gpu_data(), bad);
  if (mined) {
    caffe_metric::check_labels<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<CAFFE_GET_BLOCKS(num_), CAFFE_CUDA_NUM_THREADS>>>(
            num_, 0, bottom[1]->gpu_data(), bad);
  }
  // NOLINT_NEXT_LINE(whitespace/operators)
  caffe_metric::sum_columns<<<1, kBlockThreads>>>(
      num_, 1, bad, report_.mutable_gpu_data() + kBadRows);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void TripletLossLayer<Dtype>::PrepareRowsGpu(const Dtype* x, int strip) {
  distances_.Reshape(strip, num_, 1, 1);
  prepared_.Reshape(num_, dim_, 1, 1);
  row_norms_.Reshape(num_, 1, 1, 1);
  if (metric_.distance == caffe_metric::COSINE) {
    caffe_metric::unit_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<num_, kBlockThreads>>>(dim_, x, prepared_.mutable_gpu_data(),
                                  row_norms_.mutable_gpu_data());
  } else if (metric_.distance != caffe_metric::LP) {
    means_.Reshape(vector<int>(1, dim_));
    const int blocks =
        (dim_ + caffe_metric::kMeanColumns - 1) / caffe_metric::kMeanColumns;
    caffe_metric::column_means<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<blocks, kBlockThreads>>>(num_, dim_, x, means_.mutable_gpu_data());
    caffe_metric::center_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<num_, kBlockThreads>>>(dim_, x, means_.gpu_data(),
                                  prepared_.mutable_gpu_data(),
                                  row_norms_.mutable_gpu_data());
  }
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void TripletLossLayer<Dtype>::StripDistancesGpu(int begin, int rows,
                                                const Dtype* x) {
  Dtype* distances = distances_.mutable_gpu_data();
  if (metric_.distance == caffe_metric::LP) {
    caffe_metric::lp_distance_row<
        Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows, kBlockThreads>>>(metric_, begin, num_, dim_, x, distances);
  } else {
    const Dtype* u = prepared_.gpu_data();
    caffe_gpu_gemm<Dtype>(CblasNoTrans, CblasTrans, rows, num_, dim_, Dtype(1),
                          u + static_cast<size_t>(begin) * dim_, u, Dtype(0),
                          distances);
    caffe_metric::gram_to_distance_row<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows, kBlockThreads>>>(metric_, begin, num_, dim_, u,
                                  row_norms_.gpu_data(), distances);
  }
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void TripletLossLayer<Dtype>::MineTripletsGpu(
    const vector<Blob<Dtype>*>& bottom, uint64_t key) {
  const Dtype* x = bottom[0]->gpu_data();
  const Dtype* labels = bottom[1]->gpu_data();
  const bool hardest = mining_ == caffe_metric::HARDEST;
  triplet_capacity_ = std::max(triplet_capacity_, num_);
  mined_.Reshape(triplet_capacity_, 3, 1, 1);
  pair_offsets_.Reshape(vector<int>(1, num_ + 1));
  Triplet* triplets = reinterpret_cast<Triplet*>(mined_.mutable_gpu_data());
  int* offsets = pair_offsets_.mutable_gpu_data();
  if (hardest) {  // one place an anchor
    caffe_gpu_set(num_, 1, offsets);
  } else {
    caffe_metric::count_pairs<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<num_, kBlockThreads>>>(num_, labels, offsets);
  }
  // NOLINT_NEXT_LINE(whitespace/operators)
  caffe_metric::counts_to_offsets<<<1, kBlockThreads>>>(num_, offsets);
  if (!hardest) {
    caffe_metric::list_pairs<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<num_, kBlockThreads>>>(num_, triplet_capacity_, labels, offsets,
                                  triplets);
  }
  CUDA_POST_KERNEL_CHECK;
  const int strip = caffe_metric::strip_rows(num_, num_);
  PrepareRowsGpu(x, strip);
  for (int begin = 0; begin < num_; begin += strip) {
    const int rows = std::min(strip, num_ - begin);
    StripDistancesGpu(begin, rows, x);
    if (hardest) {
      caffe_metric::find_hardest<
          Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
          <<<rows, kBlockThreads>>>(begin, num_, distances_.gpu_data(), labels,
                                    triplets);
    } else {
      caffe_metric::draw_negatives<Dtype>
          // NOLINT_NEXT_LINE(whitespace/operators)
          <<<std::min(num_, kMaxBlocks), kBlockThreads>>>(
              mining_, rule_.margin, key, begin, begin + rows, num_,
              triplet_capacity_, distances_.gpu_data(), labels, offsets,
              triplets);
    }
    CUDA_POST_KERNEL_CHECK;
  }
  // NOLINT_NEXT_LINE(whitespace/operators)
  ReportTotal<<<1, 1>>>(offsets + num_, report_.mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void TripletLossLayer<Dtype>::AddListedGpu(const vector<Blob<Dtype>*>& bottom) {
  const bool mined = layout_ == MINED;
  const bool apart = layout_ >= ROWS;
  const int group_size = layout_ == GROUPS ? group_size_ : 0;
  int listed = num_;
  if (mined) {
    listed = triplet_capacity_;
  } else if (layout_ == GROUPS) {
    listed = num_ / group_size_ * (group_size_ - 2);
  }
  const int blocks = std::min(num_, kMaxBlocks);
  cached_terms_.Reshape(listed, kTermSize, 1, 1);
  row_reports_.Reshape(blocks, kTripletSums, 1, 1);
  AddTerms<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<blocks, kBlockThreads>>>(
          metric_, rule_, swap_, use_pair_, group_size, listed,
          mined ? pair_offsets_.gpu_data() + num_ : NULL,
          mined ? reinterpret_cast<const Triplet*>(mined_.gpu_data()) : NULL,
          dim_, bottom[0]->gpu_data(), bottom[apart ? 1 : 0]->gpu_data(),
          bottom[apart ? 2 : 0]->gpu_data(),
          layout_ == WEIGHTED_ROWS ? bottom[3]->gpu_data() : NULL,
          reinterpret_cast<CachedTerm<Dtype>*>(
              cached_terms_.mutable_gpu_data()),
          row_reports_.mutable_gpu_data());
  // NOLINT_NEXT_LINE(whitespace/operators)
  caffe_metric::sum_columns<<<1, kBlockThreads>>>(blocks, kTripletSums,
                                                  row_reports_.gpu_data(),
                                                  report_.mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void TripletLossLayer<Dtype>::AddAllGpu(const vector<Blob<Dtype>*>& bottom,
                                        bool with_gradient) {
  const Dtype* x = bottom[0]->gpu_data();
  const Dtype* labels = bottom[1]->gpu_data();
  // swap meets rows of other anchors: it needs all of them at once.
  const int strip = swap_ ? num_ : caffe_metric::strip_rows(num_, 2 * num_);
  PrepareRowsGpu(x, strip);
  slopes_.Reshape(strip, num_, 1, 1);
  gradient_.Reshape(num_, dim_, 1, 1);
  row_sums_.Reshape(num_, 1, 1, 1);
  row_reports_.Reshape(num_, kTripletSums, 1, 1);
  if (with_gradient) {
    caffe_gpu_set(gradient_.count(), Dtype(0), gradient_.mutable_gpu_data());
    caffe_gpu_set(num_, Dtype(0), row_sums_.mutable_gpu_data());
  }
  for (int begin = 0; begin < num_; begin += strip) {
    const int rows = std::min(strip, num_ - begin);
    StripDistancesGpu(begin, rows, x);
    if (rule_.type == caffe_metric::HINGE && !swap_) {
      const int blocks = std::min(rows, kHingeBlocks);
      int room = 1;
      while (room < num_) {
        room *= 2;
      }
      thresholds_.Reshape(blocks, room, 1, 1);
      threshold_sums_.Reshape(blocks, num_, 1, 1);
      threshold_counts_.Reshape(blocks, num_ + 1, 1, 1);
      caffe_metric::hinge_rows<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
          <<<blocks, kBlockThreads>>>(
              rule_.margin, use_pair_, begin, rows, num_, room,
              distances_.gpu_data(), labels, thresholds_.mutable_gpu_data(),
              threshold_sums_.mutable_gpu_data(),
              threshold_counts_.mutable_gpu_data(), slopes_.mutable_gpu_data(),
              row_reports_.mutable_gpu_data());
    } else {
      caffe_metric::loss_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
          <<<rows, kBlockThreads>>>(rule_, swap_, use_pair_, begin, num_,
                                    distances_.gpu_data(), labels,
                                    slopes_.mutable_gpu_data(),
                                    row_reports_.mutable_gpu_data());
    }
    CUDA_POST_KERNEL_CHECK;
    if (with_gradient) {
      AddStripGradientGpu(begin, rows, x);
    }
  }
  if (with_gradient && metric_.distance != caffe_metric::LP) {
    caffe_metric::finish_gradient_row<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<num_, kBlockThreads>>>(metric_.distance, dim_, prepared_.gpu_data(),
                                  row_norms_.gpu_data(), row_sums_.gpu_data(),
                                  gradient_.mutable_gpu_data());
  }
  // NOLINT_NEXT_LINE(whitespace/operators)
  caffe_metric::sum_columns<<<1, kBlockThreads>>>(
      num_, kTripletSums, row_reports_.gpu_data(), report_.mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
  has_gradient_ = with_gradient;
}

template <typename Dtype>
void TripletLossLayer<Dtype>::AddStripGradientGpu(int begin, int rows,
                                                  const Dtype* x) {
  const Dtype* distances = distances_.gpu_data();
  Dtype* v = slopes_.mutable_gpu_data();
  Dtype* gradient = gradient_.mutable_gpu_data();
  if (metric_.distance == caffe_metric::LP) {
    caffe_metric::add_lp_gradient_row<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<num_, kBlockThreads>>>(metric_, begin, rows, num_, dim_, x,
                                  distances, v, gradient);
    CUDA_POST_KERNEL_CHECK;
    return;
  }
  caffe_metric::weigh_gram_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<rows, kBlockThreads>>>(metric_.distance, num_, distances, v);
  // gradient -= (v + v^T) u, and the row sums of v + v^T.
  const Dtype* u = prepared_.gpu_data();
  Dtype* row_sums = row_sums_.mutable_gpu_data();
  const size_t offset = static_cast<size_t>(begin) * dim_;
  if (rows == num_) {
    caffe_metric::add_transposed_row<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<num_, kBlockThreads>>>(num_, v);
  } else {
    caffe_gpu_gemm<Dtype>(CblasTrans, CblasNoTrans, num_, dim_, rows, Dtype(-1),
                          v, u + offset, Dtype(1), gradient);
    caffe_metric::add_column_sum<Dtype>
        // NOLINT_NEXT_LINE(whitespace/operators)
        <<<CAFFE_GET_BLOCKS(num_), CAFFE_CUDA_NUM_THREADS>>>(rows, num_, v,
                                                             row_sums);
  }
  caffe_gpu_gemm<Dtype>(CblasNoTrans, CblasNoTrans, rows, dim_, num_, Dtype(-1),
                        v, u, Dtype(1), gradient + offset);
  caffe_metric::add_row_sum<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<rows, kBlockThreads>>>(num_, v, row_sums + begin);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void TripletLossLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                                          const vector<Blob<Dtype>*>& top) {
  const bool draws = layout_ == MINED && (mining_ == caffe_metric::SEMIHARD ||
                                          mining_ == caffe_metric::VIOLATING);
  const uint64_t key = draws ? this->DrawKey() : 0;
  CheckInputGpu(bottom);
  if (dense()) {
    AddAllGpu(bottom, this->phase_ == TRAIN);
  } else {
    if (layout_ == MINED) {
      MineTripletsGpu(bottom, key);
    }
    AddListedGpu(bottom);
  }
  // The one copy to the host.
  const double* report = report_.cpu_data();
  if (report[kBadRows] != 0) {
    if (layout_ == MINED) {
      this->CheckFinite(*bottom[0], "features");
      this->CheckLabels(*bottom[1]);
    } else {
      this->CheckFinite(*bottom[3], "weights");
    }
  }
  if (report[kTripletSums - 1] != 0) {
    for (int i = 0; i < feature_bottoms_; ++i) {
      this->CheckFinite(*bottom[i], "features");
    }
  }
  if (layout_ == MINED && report[kPairs] > triplet_capacity_) {
    // The first batch with so many pairs: once more, with room for them.
    triplet_capacity_ = report[kPairs];
    MineTripletsGpu(bottom, key);
    AddListedGpu(bottom);
    report = report_.cpu_data();
  }
  caffe_metric::TripletStats stats;
  stats.loss = report[0];
  stats.selected = report[1];
  stats.active = report[2];
  stats.d_ap = report[3];
  stats.d_an = report[4];
  Report(stats, top);
}

template <typename Dtype>
void TripletLossLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
                                           const vector<bool>& propagate_down,
                                           const vector<Blob<Dtype>*>& bottom) {
  for (size_t i = feature_bottoms_; i < bottom.size(); ++i) {
    if (propagate_down[i]) {
      caffe_gpu_set(bottom[i]->count(), Dtype(0),
                    bottom[i]->mutable_gpu_diff());
    }
  }
  const Dtype* loss_diff = top[0]->gpu_diff();
  if (layout_ >= ROWS || layout_ == GROUPS) {
    const bool apart = layout_ >= ROWS;
    const Dtype* x[3];
    Dtype* dx[3];
    bool any = false;
    for (int role = 0; role < 3; ++role) {
      const int i = apart ? role : 0;
      x[role] = bottom[i]->gpu_data();
      dx[role] = propagate_down[i] ? bottom[i]->mutable_gpu_diff() : NULL;
      any = any || propagate_down[i];
    }
    if (!any) {
      return;
    }
    ListedGradient<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<apart ? num_ : num_ / group_size_, kBlockThreads>>>(
            metric_, apart ? 0 : group_size_, apart ? 1 : group_size_ - 2, dim_,
            reinterpret_cast<const CachedTerm<Dtype>*>(
                cached_terms_.gpu_data()),
            x[0], x[1], x[2], loss_diff, normalizer_, dx[0], dx[1], dx[2]);
  } else if (propagate_down[0] && dense()) {
    if (!has_gradient_) {
      AddAllGpu(bottom, true);
    }
    ScaleByLoss<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<CAFFE_GET_BLOCKS(num_ * dim_), CAFFE_CUDA_NUM_THREADS>>>(
            num_ * dim_, gradient_.gpu_data(), loss_diff, normalizer_,
            bottom[0]->mutable_gpu_diff());
  } else if (propagate_down[0]) {
    MinedGradient<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<num_, kBlockThreads>>>(
            metric_, dim_, triplet_capacity_, pair_offsets_.gpu_data() + num_,
            reinterpret_cast<const Triplet*>(mined_.gpu_data()),
            reinterpret_cast<const CachedTerm<Dtype>*>(
                cached_terms_.gpu_data()),
            bottom[0]->gpu_data(), loss_diff, normalizer_,
            bottom[0]->mutable_gpu_diff());
  }
  CUDA_POST_KERNEL_CHECK;
}

INSTANTIATE_LAYER_GPU_FUNCS(TripletLossLayer);

}  // namespace caffe
