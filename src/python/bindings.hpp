#ifndef CAFFE_METRIC_PYTHON_BINDINGS_HPP_
#define CAFFE_METRIC_PYTHON_BINDINGS_HPP_

#include <pybind11/pybind11.h>

// One function a file of bindings, each for float and double.
namespace caffe_metric {
namespace python {

void bind_norm(pybind11::module_* module);
void bind_gram(pybind11::module_* module);
void bind_triplets(pybind11::module_* module);
void bind_mining(pybind11::module_* module);
void bind_rank_hard(pybind11::module_* module);
void bind_margin(pybind11::module_* module);
void bind_batch_rules(pybind11::module_* module);

}  // namespace python
}  // namespace caffe_metric

#endif  // CAFFE_METRIC_PYTHON_BINDINGS_HPP_
