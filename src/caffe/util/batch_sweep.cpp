#include "caffe/util/batch_sweep.hpp"

#include <algorithm>

namespace caffe {

template <typename Dtype>
void BatchSweep<Dtype>::Start(const BatchRows<Dtype>& batch,
                              const Blob<Dtype>& x, int receiving,
                              bool with_gradient, RuleRows<Dtype>* rule) {
  const int rows = x.shape(0) + (batch.ahead ? batch.anchors : 0);
  distances_.set_metric(rule->metric());
  distances_.Reshape(batch.anchors, rows - batch.columns, rows, x.count(1),
                     receiving, rule->apart(), rule->whole());
  rule->Start(batch.anchors);
  has_gradient_ = with_gradient;
}

template <typename Dtype>
void BatchSweep<Dtype>::Run_cpu(const BatchRows<Dtype>& batch,
                                const Blob<Dtype>& x, int receiving,
                                bool with_gradient, RuleRows<Dtype>* rule) {
  Start(batch, x, receiving, with_gradient, rule);
  distances_.Prepare_cpu(x.cpu_data());
  if (with_gradient) {
    distances_.StartGradient_cpu();
  }
  const bool twice = rule->two_sweeps();
  const int strip = distances_.strip();
  Dtype* d = NULL;
  for (int begin = 0; twice && begin < batch.anchors; begin += strip) {
    const int end = std::min(begin + strip, batch.anchors);
    d = distances_.Strip_cpu(begin, end);
    rule->Fold_cpu(batch, begin, end, d);
  }
  for (int begin = 0; begin < batch.anchors; begin += strip) {
    const int end = std::min(begin + strip, batch.anchors);
    // Of one strip the measures are still there.
    if (!twice || strip < batch.anchors) {
      d = distances_.Strip_cpu(begin, end);
    }
    Dtype* slopes = distances_.slopes_cpu();
    if (twice) {
      if (begin == 0) {
        rule->Meet_cpu(batch);
      }
      rule->Slope_cpu(batch, begin, end, with_gradient, d, slopes);
    } else {
      rule->FoldAndSlope_cpu(batch, begin, end, with_gradient, d, slopes);
    }
    if (with_gradient) {
      distances_.AddGradient_cpu(begin, end);
    }
  }
  if (with_gradient) {
    distances_.FinishGradient_cpu();
  }
}

#ifdef CPU_ONLY
template <typename Dtype>
void BatchSweep<Dtype>::Run_gpu(const BatchRows<Dtype>&, const Blob<Dtype>&,
                                int, bool, RuleRows<Dtype>*) {
  NO_GPU;
}
#endif

INSTANTIATE_CLASS(BatchSweep);

}  // namespace caffe
