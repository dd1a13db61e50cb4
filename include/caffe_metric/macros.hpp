#ifndef CAFFE_METRIC_MACROS_HPP_
#define CAFFE_METRIC_MACROS_HPP_

// A function of this kind is called by the CPU layers, the CUDA kernels and
// the Python module alike, so it uses the C++ standard library only, and of
// that only what a kernel can call.
#ifdef __CUDACC__
#define CAFFE_METRIC_HD __host__ __device__ inline
#else
#define CAFFE_METRIC_HD inline
#endif

#endif  // CAFFE_METRIC_MACROS_HPP_
