// caffe_metric._core: the mathematics of include/caffe_metric for NumPy arrays.
// Matrix products stay with NumPy. _core.pyi has the types and the meaning.
#include "bindings.hpp"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The rules of caffe-metric's layers, for NumPy arrays";
  caffe_metric::python::bind_norm(&module);
  caffe_metric::python::bind_gram(&module);
  caffe_metric::python::bind_triplets(&module);
  caffe_metric::python::bind_mining(&module);
  caffe_metric::python::bind_rank_hard(&module);
  caffe_metric::python::bind_margin(&module);
  caffe_metric::python::bind_batch_rules(&module);
}
