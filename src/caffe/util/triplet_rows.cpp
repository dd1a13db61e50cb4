#include "caffe/util/triplet_rows.hpp"

#include "caffe/util/math_functions.hpp"
#include "caffe/util/parallel_rows.hpp"
#include "caffe_metric/triplet_anchor.hpp"

namespace caffe {

// Anchors that a thread takes at once.
const int kGrain = 16;

template <typename Dtype>
void TripletRows<Dtype>::Slope_cpu(const BatchRows<Dtype>& batch, int begin,
                                   int end, bool, const Dtype* d,
                                   Dtype* slopes) {
  const int n = batch.columns;
  const Dtype* labels = batch.labels;
  sums_.Reshape(batch.anchors, 3, 1, 1);
  double* sums = sums_.mutable_cpu_data();
  caffe_metric::PairSums* pairs = reinterpret_cast<caffe_metric::PairSums*>(
      this->pairs()->mutable_cpu_data());
  caffe_set((end - begin) * n, Dtype(0), slopes);
  const caffe_metric::SwapMatrices<Dtype> matrices = {d, slopes, n};
  // With swap an anchor writes derivatives of other rows, too.
  const int grain = options_.swap ? n : kGrain;
  ParallelRows(end - begin, grain, [=, &matrices](int from, int to) {
    caffe_metric::AnchorWork work;
    for (int row = from; row < to; ++row) {
      const int i = begin + row;
      const size_t at = static_cast<size_t>(row) * n;
      caffe_metric::TripletStats stats;
      pairs[i] = caffe_metric::pair_sums(i, n, d + at, labels[i], labels);
      if (pairs[i].is_finite()) {
        caffe_metric::add_anchor(options_, mining_, key_, i, n, d + at, labels,
                                 options_.swap ? &matrices : NULL, slopes + at,
                                 &work, &stats);
      }
      sums[3 * i] = stats.loss;
      sums[3 * i + 1] = stats.selected;
      sums[3 * i + 2] = stats.active;
    }
  });
}

#ifdef CPU_ONLY
template <typename Dtype>
void TripletRows<Dtype>::Slope_gpu(const BatchRows<Dtype>&, int, int, bool,
                                   Dtype*, Dtype*) {
  NO_GPU;
}
#endif

INSTANTIATE_CLASS(TripletRows);

}  // namespace caffe
