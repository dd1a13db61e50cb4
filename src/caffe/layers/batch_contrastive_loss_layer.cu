// BatchContrastiveLossLayer on the GPU: the engine with its rule.
#include "caffe/util/rule_rows_gpu.hpp"
#include "caffe_metric/batch_contrastive.hpp"

namespace caffe {

INSTANTIATE_RULE_ROWS_GPU(BatchContrastiveRule);

}  // namespace caffe
