#include <algorithm>

#include "caffe/util/batch_sweep.hpp"

namespace caffe {

template <typename Dtype>
void BatchSweep<Dtype>::Run_gpu(const BatchRows<Dtype>& batch,
                                const Blob<Dtype>& x, int receiving,
                                bool with_gradient, RuleRows<Dtype>* rule) {
  Start(batch, x, receiving, with_gradient, rule);
  distances_.Prepare_gpu(x.gpu_data(), batch.check);
  BatchRows<Dtype> strip_rows = batch;
  const caffe_metric::GramRows<Dtype> gram = distances_.GramRows_gpu();
  if (with_gradient) {
    distances_.StartGradient_gpu();
  }
  const bool twice = rule->two_sweeps();
  const int strip = distances_.strip();
  Dtype* d = NULL;
  for (int begin = 0; twice && begin < batch.anchors; begin += strip) {
    const int end = std::min(begin + strip, batch.anchors);
    d = distances_.Strip_gpu(begin, end);
    strip_rows.gram = gram;
    rule->Fold_gpu(strip_rows, begin, end, d);
    strip_rows.gram.done = true;
  }
  for (int begin = 0; begin < batch.anchors; begin += strip) {
    const int end = std::min(begin + strip, batch.anchors);
    // Of one strip the measures are still there.
    if (!twice || strip < batch.anchors) {
      d = distances_.Strip_gpu(begin, end);
      strip_rows.gram = gram;
    }
    if (!twice && rule->folds()) {
      rule->Fold_gpu(strip_rows, begin, end, d);
      strip_rows.gram.done = true;
    } else if (twice && begin == 0) {
      rule->Meet_gpu(strip_rows);
    }
    rule->Slope_gpu(strip_rows, begin, end, with_gradient, d,
                    distances_.slopes_gpu());
    if (with_gradient) {
      distances_.AddGradient_gpu(begin, end);
    }
  }
  if (with_gradient) {
    distances_.FinishGradient_gpu();
  }
}

template void BatchSweep<float>::Run_gpu(const BatchRows<float>&,
                                         const Blob<float>&, int, bool,
                                         RuleRows<float>*);
template void BatchSweep<double>::Run_gpu(const BatchRows<double>&,
                                          const Blob<double>&, int, bool,
                                          RuleRows<double>*);

}  // namespace caffe
