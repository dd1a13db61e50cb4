#include <algorithm>

#include "caffe/util/triplet_rows.hpp"
#include "caffe_metric/block.cuh"
#include "caffe_metric/pairs.cuh"
#include "caffe_metric/triplet_all.cuh"
#include "caffe_metric/triplet_mining.cuh"

namespace caffe {

using caffe_metric::kBlockThreads;
using caffe_metric::PairSums;

// Blocks a processor that have scratch memory for an anchor's thresholds: as
// many as it runs at once.
const int kHingeBlocks = 16;

static int processors() {
  int device, count;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(
      cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

template <typename Dtype>
void TripletRows<Dtype>::Slope_gpu(const BatchRows<Dtype>& batch, int begin,
                                   int end, bool, Dtype* d, Dtype* slopes) {
  const int n = batch.columns;
  const int rows = end - begin;
  const bool swap = options_.swap;
  const bool use_pair = options_.use_pair;
  const Dtype* labels = batch.labels;
  sums_.Reshape(batch.anchors, caffe_metric::kAnchorSums, 1, 1);
  double* sums = sums_.mutable_gpu_data();
  PairSums* pairs =
      reinterpret_cast<PairSums*>(this->pairs()->mutable_gpu_data());
  caffe_metric::GramRows<Dtype> gram = batch.gram;
  if (swap && !gram.done) {
    // Rows of other anchors are read, too.
    caffe_metric::measure_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows, kBlockThreads>>>(gram, begin, n, d);
    gram.seen = true;
  }
  if (mining_ != caffe_metric::ALL) {
    caffe_metric::mined_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows, kBlockThreads>>>(options_.rule, mining_, swap, use_pair, key_,
                                  gram, begin, n, d, labels, pairs, slopes,
                                  sums);
  } else if (BySorting()) {
    const int blocks = std::min(rows, kHingeBlocks * processors());
    int room = 1;
    while (room < n) {
      room *= 2;
    }
    thresholds_.Reshape(blocks, room, 1, 1);
    threshold_sums_.Reshape(blocks, n, 1, 1);
    threshold_counts_.Reshape(blocks, n + 1, 1, 1);
    caffe_metric::hinge_rows<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<blocks, kBlockThreads>>>(
            options_.rule.margin, use_pair, gram, begin, rows, n, room, d,
            labels, pairs, thresholds_.mutable_gpu_data(),
            threshold_sums_.mutable_gpu_data(),
            threshold_counts_.mutable_gpu_data(), slopes, sums);
  } else {
    caffe_metric::loss_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows, kBlockThreads>>>(options_.rule, swap, use_pair, gram, begin, n,
                                  d, labels, pairs, slopes, sums);
  }
  CUDA_POST_KERNEL_CHECK;
}

template void TripletRows<float>::Slope_gpu(const BatchRows<float>&, int, int,
                                            bool, float*, float*);
template void TripletRows<double>::Slope_gpu(const BatchRows<double>&, int, int,
                                             bool, double*, double*);

}  // namespace caffe
