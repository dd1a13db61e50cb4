// CircleLossLayer on the GPU: the engine with its rule.
#include "caffe/util/rule_rows_gpu.hpp"
#include "caffe_metric/circle.hpp"

namespace caffe {

INSTANTIATE_RULE_ROWS_GPU(CircleRule);

}  // namespace caffe
