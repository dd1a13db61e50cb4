#ifndef CAFFE_UTIL_RULE_ROWS_GPU_HPP_
#define CAFFE_UTIL_RULE_ROWS_GPU_HPP_

#include <vector>

#include "caffe/util/rule_rows.hpp"
#include "caffe_metric/batch_rows.cuh"

// What RowsOf does on the GPU. A loss's .cu file is this header and
// INSTANTIATE_RULE_ROWS_GPU(its rule).

namespace caffe {

template <typename Dtype>
inline caffe_metric::AnchorStrip<Dtype> anchor_strip(
    const BatchRows<Dtype>& batch, int begin, Dtype* v) {
  const caffe_metric::AnchorStrip<Dtype> strip = {begin,
                                                  batch.columns,
                                                  batch.among ? 0 : -1,
                                                  batch.anchor_labels,
                                                  batch.labels,
                                                  batch.gram,
                                                  v,
                                                  batch.sums};
  return strip;
}

template <typename State>
inline State* states_in(Blob<double>* blob, int anchors) {
  const int doubles = (sizeof(State) + sizeof(double) - 1) / sizeof(double);
  blob->Reshape(anchors, doubles, 1, 1);
  return reinterpret_cast<State*>(blob->mutable_gpu_data());
}

template <typename Dtype, typename Rule>
void RowsOf<Dtype, Rule>::Fold_gpu(int sweep, const BatchRows<Dtype>& batch,
                                   int begin, int end, Dtype* v) {
  State* states = states_in<State>(&gpu_states_, batch.anchors);
  double* losses = this->losses()->mutable_gpu_data();
  if (sweep == 0) {
    caffe_metric::launch_fold_rows(rule_, anchor_strip(batch, begin, v),
                                   end - begin, false, states,
                                   reinterpret_cast<caffe_metric::PairSums*>(
                                       this->pairs()->mutable_gpu_data()),
                                   losses);
  } else {
    caffe_metric::launch_fold_partners(
        rule_, anchor_strip(batch, begin, v), end - begin, states,
        states_in<State>(&next_states_, batch.anchors), losses);
  }
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype, typename Rule>
void RowsOf<Dtype, Rule>::Meet_gpu(const BatchRows<Dtype>& batch) {
  totals_.Reshape(std::vector<int>(1, 2));
  caffe_metric::launch_total_states(
      rule_, batch.anchors, states_in<State>(&gpu_states_, batch.anchors),
      reinterpret_cast<caffe_metric::BatchTotals*>(totals_.mutable_gpu_data()),
      this->losses()->mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype, typename Rule>
void RowsOf<Dtype, Rule>::Slope_gpu(const BatchRows<Dtype>& batch, int begin,
                                    int end, bool write, Dtype*, Dtype* v) {
  const caffe_metric::AnchorStrip<Dtype> strip = anchor_strip(batch, begin, v);
  const int rows = end - begin;
  totals_.Reshape(std::vector<int>(1, 2));
  const caffe_metric::BatchTotals* totals =
      reinterpret_cast<const caffe_metric::BatchTotals*>(totals_.gpu_data());
  State* states = states_in<State>(&gpu_states_, batch.anchors);
  if (batch.both) {
    if (Rule::kPartners) {
      states = states_in<State>(&next_states_, batch.anchors);
    }
    caffe_metric::launch_slope_pairs(rule_, strip, rows, totals, states);
  } else if (Rule::kMeetsBatch) {
    caffe_metric::launch_slope_rows(rule_, strip, rows, totals, states);
  } else {
    CHECK(!Rule::kPartners) << "partners are anchors of the batch";
    caffe_metric::launch_fold_rows(rule_, strip, rows, write, states,
                                   reinterpret_cast<caffe_metric::PairSums*>(
                                       this->pairs()->mutable_gpu_data()),
                                   this->losses()->mutable_gpu_data());
  }
  CUDA_POST_KERNEL_CHECK;
}

}  // namespace caffe

// The members of this file alone: another compiler makes the CPU's, by vectors
// that this one does not know.
#define INSTANTIATE_RULE_ROWS_GPU_OF(Dtype, Rule)                    \
  template void RowsOf<Dtype, caffe_metric::Rule<Dtype>>::Fold_gpu(  \
      int, const BatchRows<Dtype>&, int, int, Dtype*);               \
  template void RowsOf<Dtype, caffe_metric::Rule<Dtype>>::Meet_gpu(  \
      const BatchRows<Dtype>&);                                      \
  template void RowsOf<Dtype, caffe_metric::Rule<Dtype>>::Slope_gpu( \
      const BatchRows<Dtype>&, int, int, bool, Dtype*, Dtype*)
#define INSTANTIATE_RULE_ROWS_GPU(Rule)      \
  INSTANTIATE_RULE_ROWS_GPU_OF(float, Rule); \
  INSTANTIATE_RULE_ROWS_GPU_OF(double, Rule)

#endif  // CAFFE_UTIL_RULE_ROWS_GPU_HPP_
