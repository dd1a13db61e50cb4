// Why: MarginSoftmaxLoss takes its exponentials by a series of its own, a row
// at a time; nobody would notice a wrong last digit, or a wrong end.
// Sweeps: every 61st float there is, all floats at the ends of the range, the
// doubles between -760 and 720, rows of every length up to 40; vectors of 16
// bytes and of 32, where the processor has them.
// Tolerance: 2 units in the last place of the result, subnormal ones included.
#include <stdint.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

#include "caffe_metric/exponential.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

namespace {

float FloatOf(uint32_t bits) {
  union {
    uint32_t bits;
    float value;
  } number = {bits};
  return number.value;
}

// |actual - expected| in units of the last place of a result of that size.
template <typename T, typename Exact>
double Ulps(T actual, Exact expected) {
  if (std::isnan(expected) || std::isnan(actual)) {
    return std::isnan(expected) == std::isnan(actual) ? 0 : HUGE_VAL;
  }
  const T rounded = static_cast<T>(expected);
  if (std::isinf(rounded) || std::isinf(actual)) {
    return rounded == actual ? 0 : HUGE_VAL;
  }
  const T next = std::nextafter(rounded, std::numeric_limits<T>::infinity());
  return static_cast<double>(std::fabs(actual - expected) /
                             (static_cast<Exact>(next) - rounded));
}

template <typename T, typename Exact>
struct Worst {
  Worst() : ulps(0), at(0) {}
  void Add(const std::vector<T>& x) {
    std::vector<T> y(x.size());
    caffe_metric::exponentials<T>(x.size(), x.data(), 0, y.data());
    for (size_t k = 0; k < x.size(); ++k) {
      const double found = Ulps(y[k], std::exp(static_cast<Exact>(x[k])));
      if (found > ulps) {
        ulps = found;
        at = x[k];
      }
    }
  }
  double ulps;
  T at;
};

}  // namespace

TEST(ExponentialTest, TestAllFloats) {
  Worst<float, double> worst;
  const int kRow = 4096;
  std::vector<float> x(kRow);
  for (uint64_t bits = 0; bits <= 0xFFFFFFFFu;) {
    for (int k = 0; k < kRow; ++k, bits += 61) {
      x[k] = FloatOf(static_cast<uint32_t>(bits));
    }
    worst.Add(x);
  }
  EXPECT_LE(worst.ulps, 2) << "at " << worst.at;
  EXPECT_GT(worst.ulps, 0);
}

TEST(ExponentialTest, TestEnds) {
  Worst<float, double> worst;
  const float middles[] = {0, -87.33655f, -103.97208f, 88.72284f, -1, 1};
  for (int i = 0; i < 6; ++i) {
    std::vector<float> x(1, middles[i]), down(1, middles[i]);
    for (int k = 0; k < 100000; ++k) {
      x.push_back(std::nextafter(x.back(), 1000.f));
      x.push_back(0);
      down.push_back(std::nextafter(down.back(), -1000.f));
      x.back() = down.back();
      std::swap(x[x.size() - 1], x[x.size() - 2]);
    }
    worst.Add(x);
    worst.Add(down);
  }
  EXPECT_LE(worst.ulps, 2) << "at " << worst.at;
  const float infinity = std::numeric_limits<float>::infinity();
  float values[] = {infinity, -infinity, NAN, 0, -0.f, 1000, -1000, -104.5f};
  caffe_metric::exponentials(8, values, 0.f, values);
  EXPECT_EQ(infinity, values[0]);
  EXPECT_EQ(0, values[1]);
  EXPECT_TRUE(std::isnan(values[2]));
  EXPECT_EQ(1, values[3]);
  EXPECT_EQ(1, values[4]);
  EXPECT_EQ(infinity, values[5]);
  EXPECT_EQ(0, values[6]);
  EXPECT_EQ(0, values[7]);
}

TEST(ExponentialTest, TestDoubles) {
  Worst<double, long double> worst;
  std::vector<double> x;
  for (double value = -760; value < 720; value += 0.00123457) {
    x.push_back(value);
  }
  worst.Add(x);
  EXPECT_LE(worst.ulps, 2) << "at " << worst.at;
  double values[] = {HUGE_VAL, -HUGE_VAL, NAN, 0, 800, -800};
  caffe_metric::exponentials(6, values, 0., values);
  EXPECT_EQ(HUGE_VAL, values[0]);
  EXPECT_EQ(0, values[1]);
  EXPECT_TRUE(std::isnan(values[2]));
  EXPECT_EQ(1, values[3]);
  EXPECT_EQ(HUGE_VAL, values[4]);
  EXPECT_EQ(0, values[5]);
}

TEST(ExponentialTest, TestRowsOfAnyLength) {
  for (int n = 0; n < 40; ++n) {
    std::vector<float> x(n + 1, 777), y(n + 1, 777);
    double sum = 0;
    for (int k = 0; k < n; ++k) {
      x[k] = 0.25f * k - 3;
      sum += std::exp(x[k] - 1.5);
    }
    const double found =
        caffe_metric::exponentials(n, x.data(), 1.5f, y.data());
    EXPECT_NEAR(sum, found, 1e-6 * sum);
    for (int k = 0; k < n; ++k) {
      EXPECT_NEAR(std::exp(x[k] - 1.5), y[k], 1e-6 * y[k]);
    }
    EXPECT_EQ(777, y[n]);  // nothing beyond the row
  }
}

#ifdef CAFFE_METRIC_AVX2
template <typename T>
void ExpectTheSameBits() {
  for (int n = 0; n < 100; ++n) {
    std::vector<T> x(n), narrow(n), wide(n);
    for (int k = 0; k < n; ++k) {
      x[k] = static_cast<T>(0.23) * (k * 7919 % 1000 - 900);
    }
    EXPECT_EQ(
        (caffe_metric::exponentials_by<T, caffe_metric::Vector16>(
            n, x.data(), 1, narrow.data())),
        caffe_metric::exponentials_by_avx2<T>(n, x.data(), 1, wide.data()));
    EXPECT_EQ(narrow, wide);
  }
}

TEST(ExponentialTest, TestTheSameBitsByWiderVectors) {
  if (__builtin_cpu_supports("avx2")) {
    ExpectTheSameBits<float>();
    ExpectTheSameBits<double>();
  }
}
#endif

}  // namespace caffe
