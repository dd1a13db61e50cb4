#ifndef CAFFE_METRIC_PYTHON_ARRAYS_HPP_
#define CAFFE_METRIC_PYTHON_ARRAYS_HPP_

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

namespace caffe_metric {
namespace python {

namespace py = pybind11;

// A C-contiguous array, never a copy: the arguments are declared noconvert.
template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// Raises ValueError where the arrays do not fit together.
inline void require(bool fits, const char* what) {
  if (!fits) {
    throw py::value_error(what);
  }
}

template <typename T>
Array<T> empty(py::ssize_t count) {
  return Array<T>(std::vector<py::ssize_t>(1, count));
}

template <typename T>
Array<T> empty(py::ssize_t rows, py::ssize_t columns) {
  const std::vector<py::ssize_t> shape = {rows, columns};
  return Array<T>(shape);
}

template <typename T>
Array<T> as_array(const std::vector<T>& values) {
  return Array<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

// A strip of rows of an N x N matrix: strip(k, j) belongs to rows(k) and j.
template <typename T>
void require_strip(const Array<T>& strip, const Array<int64_t>& rows,
                   const Array<T>& labels) {
  require(strip.ndim() == 2 && rows.ndim() == 1 && labels.ndim() == 1,
          "a strip has 2 axes, its rows and the labels 1");
  require(strip.shape(0) == rows.shape(0) && strip.shape(1) == labels.shape(0),
          "a strip is of the shape of its rows and the labels");
  for (py::ssize_t k = 0; k < rows.shape(0); ++k) {
    require(rows.data()[k] >= 0 && rows.data()[k] < labels.shape(0),
            "a row number is out of range");
  }
}

// Row numbers of a matrix with n rows.
inline void require_indices(const Array<int64_t>& indices, py::ssize_t n) {
  for (py::ssize_t k = 0; k < indices.size(); ++k) {
    require(indices.data()[k] >= 0 && indices.data()[k] < n,
            "a row number is out of range");
  }
}

}  // namespace python
}  // namespace caffe_metric

#endif  // CAFFE_METRIC_PYTHON_ARRAYS_HPP_
