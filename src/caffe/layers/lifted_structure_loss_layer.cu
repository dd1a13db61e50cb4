// LiftedStructureLossLayer on the GPU: the engine with its rule.
#include "caffe/util/rule_rows_gpu.hpp"
#include "caffe_metric/lifted_structure.hpp"

namespace caffe {

INSTANTIATE_RULE_ROWS_GPU(LiftedSongRule);
INSTANTIATE_RULE_ROWS_GPU(LiftedGeneralizedRule);

}  // namespace caffe
