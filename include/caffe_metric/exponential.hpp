#ifndef CAFFE_METRIC_EXPONENTIAL_HPP_
#define CAFFE_METRIC_EXPONENTIAL_HPP_

#include <stdint.h>

#include <cmath>

// exp of whole rows, for the CPU: within 2 units in the last place everywhere,
// infinity and the subnormal numbers included, in the processor's vectors
// whatever the compiler's options are. The bits are the same with vectors of 16
// bytes and of 32, which a processor with AVX2 takes.
//
//   exp(x) = 2^n exp(r),  n = round(x / ln 2),  r = x - n ln 2
//
// with exp(r), |r| <= ln(2) / 2, by its Taylor series, and 2^n in two factors,
// so that neither over- nor underflows before the product does.

namespace caffe_metric {

#if defined(__GNUC__) && !defined(__CUDACC__)
#define CAFFE_METRIC_VECTORS 1
#define CAFFE_METRIC_INLINE inline __attribute__((always_inline))
#if defined(__x86_64__)
#define CAFFE_METRIC_AVX2 1
#endif
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
// Loose is the same at any address, of a T or of several.
template <typename T>
struct Vector16 {
  static const int kWidth = 16 / sizeof(T);
  typedef T Type __attribute__((vector_size(16)));
  typedef typename ExpConstants<T>::Bits Bits __attribute__((vector_size(16)));
  typedef T Loose
      __attribute__((vector_size(16), aligned(sizeof(T)), may_alias));
};

template <typename T>
struct Vector32 {
  static const int kWidth = 32 / sizeof(T);
  typedef T Type __attribute__((vector_size(32)));
  typedef typename ExpConstants<T>::Bits Bits __attribute__((vector_size(32)));
  typedef T Loose
      __attribute__((vector_size(32), aligned(sizeof(T)), may_alias));
};

constexpr double inverse_factorial(int k) {
  return k < 2 ? 1. : inverse_factorial(k - 1) / k;
}

// series = (series r + 1 / (k - 1)!) r + ... + 1, written out by the compiler.
template <typename T, int k>
struct Taylor {
  template <typename V>
  static CAFFE_METRIC_INLINE void go_on(const V& r, V* series) {
    constexpr T coefficient = inverse_factorial(k - 1);
    *series = *series * r + coefficient;
    Taylor<T, k - 1>::go_on(r, series);
  }
};

template <typename T>
struct Taylor<T, 0> {
  template <typename V>
  static CAFFE_METRIC_INLINE void go_on(const V&, V*) {}
};

// x becomes exp(x). By its address: compilers warn of large vectors as values.
template <typename T, template <typename> class Vector>
CAFFE_METRIC_INLINE void exp_vector(typename Vector<T>::Type* in_place) {
  typedef ExpConstants<T> K;
  typedef typename Vector<T>::Type V;
  typedef typename Vector<T>::Bits Bits;
  const V zero = {0};
  V x = *in_place;
  // The comparisons are false for NaN, which passes through.
  const Bits above = x > zero + K::High(), below = x < zero + K::Low();
  x = (V)(((Bits)(zero + K::High()) & above) | ((Bits)x & ~above));
  x = (V)(((Bits)(zero + K::Low()) & below) | ((Bits)x & ~below));
  const V magic = zero + K::Magic();
  const V n = (x * static_cast<T>(1.44269504088896340736) + magic) - magic;
  const V r = (x - n * K::Ln2High()) - n * K::Ln2Low();
  constexpr T last = inverse_factorial(K::kDegree);
  V series = zero + last;
  Taylor<T, K::kDegree>::go_on(r, &series);
  const V half = (n * static_cast<T>(0.5) + magic) - magic;
  const V biased_magic = zero + (K::Magic() + K::Bias());
  const V first = (V)((Bits)(half + biased_magic) << K::kMantissa);
  const V second = (V)((Bits)(n - half + biased_magic) << K::kMantissa);
  *in_place = series * first * second;
}

// A step takes 64 bytes, whatever the vectors' width is: so the sums are the
// same.
template <typename T, template <typename> class Vector>
CAFFE_METRIC_INLINE double exponentials_by(int n, const T* x, T shift, T* y) {
  typedef typename Vector<T>::Type V;
  typedef typename Vector<T>::Loose Loose;
  const int width = Vector<T>::kWidth, lanes = 64 / sizeof(T);
  const int vectors = lanes / width;
  V sums[vectors] = {};
  int k = 0;
  for (; k + lanes <= n; k += lanes) {
    for (int l = 0; l < vectors; ++l) {
      const int at = k + l * width;
      V value = *reinterpret_cast<const Loose*>(x + at) - shift;
      exp_vector<T, Vector>(&value);
      *reinterpret_cast<Loose*>(y + at) = value;
      sums[l] += value;
    }
  }
  double total = 0;
  for (int l = 0; l < lanes; ++l) {
    total += static_cast<double>(sums[l / width][l % width]);
  }
  for (; k < n; k += width) {
    const int rest = n - k < width ? n - k : width;
    V last = {0};
    for (int l = 0; l < rest; ++l) {
      last[l] = x[k + l] - shift;
    }
    exp_vector<T, Vector>(&last);
    for (int l = 0; l < rest; ++l) {
      y[k + l] = last[l];
      total += last[l];
    }
  }
  return total;
}
#endif

#ifdef CAFFE_METRIC_AVX2
template <typename T>
__attribute__((target("avx2"))) double exponentials_by_avx2(int n, const T* x,
                                                            T shift, T* y) {
  return exponentials_by<T, Vector32>(n, x, shift, y);
}
#endif

// y_k = exp(x_k - shift); y may be x. Returns their sum.
template <typename T>
inline double exponentials(int n, const T* x, T shift, T* y) {
#ifdef CAFFE_METRIC_AVX2
  if (__builtin_cpu_supports("avx2")) {
    return exponentials_by_avx2(n, x, shift, y);
  }
#endif
#ifdef CAFFE_METRIC_VECTORS
  return exponentials_by<T, Vector16>(n, x, shift, y);
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
