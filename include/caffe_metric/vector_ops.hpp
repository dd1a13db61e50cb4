#ifndef CAFFE_METRIC_VECTOR_OPS_HPP_
#define CAFFE_METRIC_VECTOR_OPS_HPP_

#include <stdint.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <cmath>
#include <cstring>

#include "caffe_metric/macros.hpp"

// Sums over the elements of one or two rows, for the CPU. Each keeps kLanes
// partial sums: the compiler turns them into vector instructions, which it may
// not do with a single sum, and the rounding error grows less.

namespace caffe_metric {

const int kLanes = 16;

template <typename T, typename Term>
inline T sum_terms(int n, const Term& term) {
  T lane[kLanes] = {0};
  int k = 0;
  for (; k + kLanes <= n; k += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      lane[l] += term(k + l);
    }
  }
  T sum = 0;
  for (; k < n; ++k) {
    sum += term(k);
  }
  for (int l = 0; l < kLanes; ++l) {
    sum += lane[l];
  }
  return sum;
}

// Whether a sum of squares has neither overflowed nor lost small terms.
template <typename T>
CAFFE_METRIC_HD bool is_safe_square(T square) {
  const T least = sizeof(T) == sizeof(float) ? T(1e-30) : T(1e-290);
  return square >= least && square - square == 0;
}

template <typename T>
CAFFE_METRIC_HD T norm_of_square(double square) {
  const double least = sizeof(T) == sizeof(float) ? 1.17549435e-38 : 1e-300;
  const double norm = std::sqrt(square);
  return norm < least ? T(0) : static_cast<T>(norm);
}

template <typename T>
CAFFE_METRIC_HD T larger(T a, T b) {
  return a > b ? a : b;
}

// The integer as long as a T.
template <typename T>
struct BitsOf;
template <>
struct BitsOf<float> {
  typedef int32_t Type;
};
template <>
struct BitsOf<double> {
  typedef int64_t Type;
};

// 16 bytes of T: what the least processor adds at once. A loop over them is
// vector instructions at any level of optimisation, where gcc at -O2 makes none
// of a loop over elements.
template <typename T>
struct Packed {
#if defined(__GNUC__) && !defined(__CUDACC__)
  typedef T Type __attribute__((vector_size(16)));
  static const int kSize = 16 / sizeof(T);
  static Type all(T x) { return x - Type(); }
  // Element by element, as of numbers: a > b ? x : y.
  static Type if_greater(Type a, Type b, Type x, Type y) {
    typedef typename BitsOf<T>::Type Bits __attribute__((vector_size(16)));
    const Bits mask = a > b;
    return (Type)(((Bits)x & mask) | ((Bits)y & ~mask));
  }
  static Type if_equal(Type a, Type b, Type x, Type y) {
    typedef typename BitsOf<T>::Type Bits __attribute__((vector_size(16)));
    const Bits mask = a == b;
    return (Type)(((Bits)x & mask) | ((Bits)y & ~mask));
  }
#else
  typedef T Type;
  static const int kSize = 1;
  static Type all(T x) { return x; }
  static Type if_greater(Type a, Type b, Type x, Type y) {
    return a > b ? x : y;
  }
  static Type if_equal(Type a, Type b, Type x, Type y) {
    return a == b ? x : y;
  }
#endif
  // As caffe_metric::larger, element by element.
  static Type larger(Type a, Type b) { return if_greater(a, b, a, b); }
  static Type load(const T* x) {
    Type packed;
    std::memcpy(&packed, x, sizeof(packed));  // NOLINT(caffe/alt_fn)
    return packed;
  }
  static void store(Type packed, T* x) {
    std::memcpy(x, &packed, sizeof(packed));  // NOLINT(caffe/alt_fn)
  }
  static T sum(Type packed) {
    T parts[kSize];
    std::memcpy(parts, &packed, sizeof(packed));  // NOLINT(caffe/alt_fn)
    T sum = 0;
    for (int l = 0; l < kSize; ++l) {
      sum += parts[l];
    }
    return sum;
  }
};

struct Product {
  template <typename V>
  V operator()(V x, V y) const {
    return x * y;
  }
};

struct Difference {
  template <typename V>
  V operator()(V x, V y) const {
    return x - y;
  }
};

struct First {
  template <typename V>
  V operator()(V x, V) const {
    return x;
  }
};

struct SquaredDifference {
  template <typename V>
  V operator()(V x, V y) const {
    const V difference = x - y;
    return difference * difference;
  }
};

// The sum of term(x_k, y_k).
template <typename T, typename Term>
inline T sum_pairs(int n, const T* x, const T* y, const Term& term) {
  typedef Packed<T> Pack;
  // Four sums by name: at -O2 gcc keeps an array of them in memory.
  typename Pack::Type a = Pack::all(0), b = a, c = a, d = a;
  const int size = Pack::kSize;
  int k = 0;
  for (; k + 4 * size <= n; k += 4 * size) {
    a += term(Pack::load(x + k), Pack::load(y + k));
    b += term(Pack::load(x + k + size), Pack::load(y + k + size));
    c += term(Pack::load(x + k + 2 * size), Pack::load(y + k + 2 * size));
    d += term(Pack::load(x + k + 3 * size), Pack::load(y + k + 3 * size));
  }
  T sum = 0;
  for (; k < n; ++k) {
    sum += term(x[k], y[k]);
  }
  return sum + Pack::sum((a + b) + (c + d));
}

template <typename T>
inline T sum(int n, const T* x) {
  return sum_pairs(n, x, x, First());
}

// The sum, in double.
inline double total(int n, const double* x) { return sum(n, x); }

inline double total(int n, const float* x) {
  double total = 0;
  int k = 0;
#ifdef __SSE2__
  __m128d a = _mm_setzero_pd(), b = a, c = a, d = a;
  for (; k + 8 <= n; k += 8) {
    const __m128 first = _mm_loadu_ps(x + k), second = _mm_loadu_ps(x + k + 4);
    a = _mm_add_pd(a, _mm_cvtps_pd(first));
    b = _mm_add_pd(b, _mm_cvtps_pd(_mm_movehl_ps(first, first)));
    c = _mm_add_pd(c, _mm_cvtps_pd(second));
    d = _mm_add_pd(d, _mm_cvtps_pd(_mm_movehl_ps(second, second)));
  }
  double parts[2];
  _mm_storeu_pd(parts, _mm_add_pd(_mm_add_pd(a, b), _mm_add_pd(c, d)));
  total = parts[0] + parts[1];
#endif
  for (; k < n; ++k) {
    total += x[k];
  }
  return total;
}

// x . y
template <typename T>
inline T dot(int n, const T* x, const T* y) {
  return sum_pairs(n, x, y, Product());
}

// ||x||^2
template <typename T>
inline T squared_norm(int n, const T* x) {
  return dot(n, x, x);
}

// ||x||. In double where the squares overflow or vanish, so that a finite row
// has a finite norm; 0 where its inverse would not be finite.
template <typename T>
inline T norm(int n, const T* x) {
  const T square = squared_norm(n, x);
  return is_safe_square(square)
             ? std::sqrt(square)
             : norm_of_square<T>(sum_terms<double>(
                   n, [=](int k) { return static_cast<double>(x[k]) * x[k]; }));
}

// ||x - y||^2
template <typename T>
inline T squared_distance(int n, const T* x, const T* y) {
  return sum_pairs(n, x, y, SquaredDifference());
}

// y += a x
template <typename T>
inline void add_scaled(int n, T a, const T* x, T* y) {
  typedef Packed<T> Pack;
  const typename Pack::Type factor = Pack::all(a);
  int k = 0;
  for (; k + Pack::kSize <= n; k += Pack::kSize) {
    Pack::store(Pack::load(y + k) + factor * Pack::load(x + k), y + k);
  }
  for (; k < n; ++k) {
    y[k] += a * x[k];
  }
}

// y = a x; y may be x. Not BLAS's, which takes NaN for 0 here and there.
template <typename T>
inline void scale(int n, T a, const T* x, T* y) {
  typedef Packed<T> Pack;
  const typename Pack::Type factor = Pack::all(a);
  int k = 0;
  for (; k + Pack::kSize <= n; k += Pack::kSize) {
    Pack::store(factor * Pack::load(x + k), y + k);
  }
  for (; k < n; ++k) {
    y[k] = a * x[k];
  }
}

// x = the square root of x. A compiler that minds errno makes no vector
// instructions of it.
template <typename T>
inline void take_roots(int n, T* x) {
  for (int k = 0; k < n; ++k) {
    x[k] = std::sqrt(x[k]);
  }
}

#ifdef __SSE2__
inline void take_roots(int n, float* x) {
  int k = 0;
  for (; k + 4 <= n; k += 4) {
    _mm_storeu_ps(x + k, _mm_sqrt_ps(_mm_loadu_ps(x + k)));
  }
  for (; k < n; ++k) {
    x[k] = std::sqrt(x[k]);
  }
}
#endif

// x = a x - b
template <typename T>
inline void scale_and_shift(int n, T a, T b, T* x) {
  typedef Packed<T> Pack;
  const typename Pack::Type factor = Pack::all(a), shift = Pack::all(b);
  int k = 0;
  for (; k + Pack::kSize <= n; k += Pack::kSize) {
    Pack::store(factor * Pack::load(x + k) - shift, x + k);
  }
  for (; k < n; ++k) {
    x[k] = a * x[k] - b;
  }
}

// y += a (x - b w)
template <typename T>
inline void add_tangent(int n, T a, T b, const T* w, const T* x, T* y) {
  typedef Packed<T> Pack;
  const typename Pack::Type factor = Pack::all(a), along = Pack::all(b);
  int k = 0;
  for (; k + Pack::kSize <= n; k += Pack::kSize) {
    const typename Pack::Type tangent =
        Pack::load(x + k) - along * Pack::load(w + k);
    Pack::store(Pack::load(y + k) + factor * tangent, y + k);
  }
  for (; k < n; ++k) {
    y[k] += a * (x[k] - b * w[k]);
  }
}

template <typename T>
CAFFE_METRIC_HD bool is_finite(T x) {
  return x - x == 0;
}

template <typename T>
inline bool all_finite(int n, const T* x) {
  return is_finite(sum_pairs(n, x, x, Difference()));
}

// The greatest of x[0 ... n) and `start`.
template <typename T>
inline T greatest(int n, const T* x, T start) {
  typedef Packed<T> Pack;
  const int step = 4 * Pack::kSize;
  typename Pack::Type lane[4] = {Pack::all(start), Pack::all(start),
                                 Pack::all(start), Pack::all(start)};
  int k = 0;
  for (; k + step <= n; k += step) {
    for (int l = 0; l < 4; ++l) {
      lane[l] = Pack::larger(Pack::load(x + k + l * Pack::kSize), lane[l]);
    }
  }
  T parts[Pack::kSize];
  Pack::store(Pack::larger(Pack::larger(lane[0], lane[1]),
                           Pack::larger(lane[2], lane[3])),
              parts);
  for (int l = 0; l < Pack::kSize; ++l) {
    start = larger(parts[l], start);
  }
  for (; k < n; ++k) {
    start = larger(x[k], start);
  }
  return start;
}

// How many are not 0.
template <typename T>
inline int count_used(int n, const T* x) {
  typedef Packed<T> Pack;
  const typename Pack::Type zero = Pack::all(0), one = Pack::all(1);
  typename Pack::Type used = zero;
  int k = 0;
  for (; k + Pack::kSize <= n; k += Pack::kSize) {
    used += Pack::if_equal(Pack::load(x + k), zero, zero, one);
  }
  int count = static_cast<int>(Pack::sum(used));
  for (; k < n; ++k) {
    count += x[k] != 0;
  }
  return count;
}

template <typename T>
CAFFE_METRIC_HD T smaller(T a, T b) {
  return a < b ? a : b;
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_VECTOR_OPS_HPP_
