#ifndef CAFFE_METRIC_EXPONENTIAL_HPP_
#define CAFFE_METRIC_EXPONENTIAL_HPP_

#include <stdint.h>

#include <cmath>

// exp of whole rows, for the CPU: within 2 units in the last place everywhere,
// infinity and the subnormal numbers included, in the processor's vectors
// whatever the compiler's options are.
//
//   exp(x) = 2^n exp(r),  n = round(x / ln 2),  r = x - n ln 2
//
// with exp(r), |r| <= ln(2) / 2, by its Taylor series, and 2^n in two factors,
// so that neither over- nor underflows before the product does.

namespace caffe_metric {

#if defined(__GNUC__)
#define CAFFE_METRIC_VECTORS 1
#endif

template <typename T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  typedef int32_t Bits;
  static const int kDegree = 7;
  static const int kMantissa = 23;
  static float Magic() { return 12582912.f; }  // 1.5 * 2^23
  static float Bias() { return 127.f; }
  static float Low() { return -105.f; }            // exp() of less is 0
  static float High() { return 89.f; }             // and of more, infinite
  static float Ln2High() { return 0.693359375f; }  // few digits
  static float Ln2Low() { return -2.12194440054690583e-4f; }
};

template <>
struct ExpConstants<double> {
  typedef int64_t Bits;
  static const int kDegree = 13;
  static const int kMantissa = 52;
  static double Magic() { return 6755399441055744.; }  // 1.5 * 2^52
  static double Bias() { return 1023.; }
  static double Low() { return -747.; }
  static double High() { return 710.; }
  static double Ln2High() { return 6.93147180369123816490e-1; }
  static double Ln2Low() { return 1.90821492927058770002e-10; }
};

#ifdef CAFFE_METRIC_VECTORS
template <typename T>
struct Vector {
  typedef T Type __attribute__((vector_size(16)));
  typedef typename ExpConstants<T>::Bits Bits __attribute__((vector_size(16)));
  // The same at any address, of a T or of several.
  typedef T Loose
      __attribute__((vector_size(16), aligned(sizeof(T)), may_alias));
  static const int kWidth = 16 / sizeof(T);
};

template <typename T>
inline typename Vector<T>::Type load(const T* x) {
  return *reinterpret_cast<const typename Vector<T>::Loose*>(x);
}

template <typename T>
inline void store(typename Vector<T>::Type value, T* y) {
  *reinterpret_cast<typename Vector<T>::Loose*>(y) = value;
}

// mask ? a : b, where mask is -1 or 0 as a comparison gives it.
template <typename T>
inline typename Vector<T>::Type select(typename Vector<T>::Bits mask,
                                       typename Vector<T>::Type a,
                                       typename Vector<T>::Type b) {
  typedef typename Vector<T>::Bits Bits;
  return (typename Vector<T>::Type)(((Bits)a & mask) | ((Bits)b & ~mask));
}

template <typename T>
inline typename Vector<T>::Type exp_vector(typename Vector<T>::Type x) {
  typedef ExpConstants<T> K;
  typedef typename Vector<T>::Type V;
  typedef typename Vector<T>::Bits Bits;
  const V zero = {0};
  // The comparisons are false for NaN, which passes through.
  x = select<T>(x > zero + K::High(), zero + K::High(), x);
  x = select<T>(x < zero + K::Low(), zero + K::Low(), x);
  const V magic = zero + K::Magic();
  const V n = (x * static_cast<T>(1.44269504088896340736) + magic) - magic;
  const V r = (x - n * K::Ln2High()) - n * K::Ln2Low();
  V series = zero + 1;
  for (int k = K::kDegree; k > 0; --k) {
    series = series * r * static_cast<T>(1. / k) + 1;
  }
  const V half = (n * static_cast<T>(0.5) + magic) - magic;
  const V biased_magic = zero + (K::Magic() + K::Bias());
  const V first = (V)((Bits)(half + biased_magic) << K::kMantissa);
  const V second = (V)((Bits)(n - half + biased_magic) << K::kMantissa);
  return series * first * second;
}
#endif

// y_k = exp(x_k - shift); y may be x. Returns their sum.
template <typename T>
inline double exponentials(int n, const T* x, T shift, T* y) {
#ifdef CAFFE_METRIC_VECTORS
  typedef typename Vector<T>::Type V;
  const int width = Vector<T>::kWidth;
  V sum = {0}, other = {0};
  int k = 0;
  for (; k + 2 * width <= n; k += 2 * width) {
    const V value = exp_vector<T>(load(x + k) - shift);
    const V next = exp_vector<T>(load(x + k + width) - shift);
    store<T>(value, y + k);
    store<T>(next, y + k + width);
    sum += value;
    other += next;
  }
  double total = 0;
  for (int l = 0; l < width; ++l) {
    total += static_cast<double>(sum[l]) + other[l];
  }
  for (; k < n; k += width) {
    const int rest = n - k < width ? n - k : width;
    V last = {0};
    for (int l = 0; l < rest; ++l) {
      last[l] = x[k + l];
    }
    last = exp_vector<T>(last - shift);
    for (int l = 0; l < rest; ++l) {
      y[k + l] = last[l];
      total += last[l];
    }
  }
  return total;
#else
  double total = 0;
  for (int k = 0; k < n; ++k) {
    y[k] = std::exp(x[k] - shift);
    total += y[k];
  }
  return total;
#endif
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_EXPONENTIAL_HPP_
