#include <algorithm>

#include "caffe/util/batch_sweep.hpp"

namespace caffe {

template <typename Dtype>
void BatchSweep<Dtype>::Run_gpu(const BatchRows<Dtype>& batch,
                                const Blob<Dtype>& x, int receiving,
                                bool with_gradient, RuleRows<Dtype>* rule) {
  Start(batch, x, receiving, with_gradient, rule);
  distances_.Prepare_gpu(batch.ahead, x.gpu_data(), batch.check);
  BatchRows<Dtype> strip_rows = batch;
  strip_rows.gram = distances_.GramRows_gpu();
  strip_rows.both =
      rule->both_sides() && batch.among && batch.columns == batch.anchors;
  strip_rows.sums = strip_rows.both ? distances_.part_sums_gpu() : NULL;
  if (with_gradient) {
    distances_.StartGradient_gpu(strip_rows.both);
  }
  const int strip = distances_.strip();
  const int folds = rule->fold_sweeps(strip_rows.both);
  Dtype* d = NULL;
  for (int sweep = 0; sweep <= folds; ++sweep) {
    const bool slopes = sweep == folds;
    if (slopes && folds > 0 && !with_gradient) {
      break;  // folds give the losses
    }
    for (int begin = 0; begin < batch.anchors; begin += strip) {
      const int end = std::min(begin + strip, batch.anchors);
      // Of one strip the measures are still there.
      if (sweep == 0 || strip < batch.anchors) {
        d = distances_.Strip_gpu(begin, end);
        strip_rows.gram.seen = false;
      }
      if (slopes) {
        rule->Slope_gpu(strip_rows, begin, end, with_gradient, d,
                        distances_.slopes_gpu());
      } else {
        rule->Fold_gpu(sweep, strip_rows, begin, end, d);
        strip_rows.gram.seen = true;
      }
      if (slopes && with_gradient) {
        distances_.AddGradient_gpu(begin, end, strip_rows.both);
      }
    }
    if (sweep == 0 && folds > 0) {
      rule->Meet_gpu(strip_rows);
    }
  }
}

template <typename Dtype>
void BatchSweep<Dtype>::WriteGradient_gpu(int first, int rows,
                                          const Dtype* loss_diff, Dtype scale,
                                          bool add, Dtype* dx) const {
  distances_.FinishGradient_gpu(first, rows, loss_diff, scale, add, dx);
}

template void BatchSweep<float>::Run_gpu(const BatchRows<float>&,
                                         const Blob<float>&, int, bool,
                                         RuleRows<float>*);
template void BatchSweep<double>::Run_gpu(const BatchRows<double>&,
                                          const Blob<double>&, int, bool,
                                          RuleRows<double>*);
template void BatchSweep<float>::WriteGradient_gpu(int, int, const float*,
                                                   float, bool, float*) const;
template void BatchSweep<double>::WriteGradient_gpu(int, int, const double*,
                                                    double, bool,
                                                    double*) const;

}  // namespace caffe
