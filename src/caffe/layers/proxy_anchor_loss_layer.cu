// ProxyAnchorLossLayer on the GPU: the engine with its rule.
#include "caffe/util/rule_rows_gpu.hpp"
#include "caffe_metric/proxy_anchor.hpp"

namespace caffe {

INSTANTIATE_RULE_ROWS_GPU(ProxyAnchorRule);

}  // namespace caffe
