// Why: an anchor meets all rows of other classes at once, by the processor's
// vectors; a wrong end of a row, or a row that does not count and does, would
// show in long batches only, and matrices are mirrored by blocks.
// Sweeps: rows of 0 to 70 elements, distances 0 and infinity (those that do not
// count) among them; matrices of 1 to 40 rows.
// Oracle: the loops written out, in double.
// Tolerances: 1e-6 of sums of a float's terms, 1e-14 of a double's; one row's
// numbers 4 units in the last place.
// Leaves out: exponentials and sums, whose tests are their own.
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

#include "caffe_metric/batch_others.hpp"
#include "caffe_metric/circle.hpp"
#include "caffe_metric/gram.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

template <typename Dtype>
class BatchOthersTest : public ::testing::Test {
 protected:
  static const int kMost = 70;

  // Distances in [0, 2.25], each ninth one infinite.
  static std::vector<Dtype> Distances(int n, int seed) {
    std::vector<Dtype> d(n);
    for (int k = 0; k < n; ++k) {
      d[k] = (k + seed) % 9 == 4 ? std::numeric_limits<Dtype>::infinity()
                                 : Dtype(0.0625) * ((k + seed) * 11 % 37);
    }
    return d;
  }
  static double OfSums() {
    return sizeof(Dtype) == sizeof(float) ? 1e-6 : 1e-14;
  }
  static void ExpectNear(double expected, double actual) {
    const double ulps = 4 * std::numeric_limits<Dtype>::epsilon();
    EXPECT_NEAR(expected, actual, ulps * std::fabs(expected));
  }
  static std::vector<Dtype> Matrix(int n) {
    std::vector<Dtype> v(n * n);
    for (int k = 0; k < n * n; ++k) {
      v[k] = Dtype(0.25) * (k * 37 % 101 - 50);
    }
    return v;
  }
};

TYPED_TEST_CASE(BatchOthersTest, TestDtypes);

TYPED_TEST(BatchOthersTest, TestLogSum) {
  for (int n = 1; n < this->kMost; ++n) {
    const std::vector<TypeParam> d = this->Distances(n, n);
    std::vector<TypeParam> x(n), room(n);
    double sum = 0;
    for (int k = 0; k < n; ++k) {
      x[k] = -d[k];
      sum += std::exp(static_cast<double>(x[k]));
    }
    const caffe_metric::LogSum<TypeParam> found =
        caffe_metric::log_sum_of(n, x.data(), room.data());
    if (sum == 0) {
      continue;  // nothing counts: such a row is not asked for
    }
    EXPECT_NEAR(std::log(sum), found.value(), 4 * this->OfSums());
    for (int k = 0; k < n; ++k) {
      this->ExpectNear(std::exp(static_cast<double>(x[k]) - found.greatest),
                       room[k]);
    }
  }
}

TYPED_TEST(BatchOthersTest, TestOverDistances) {
  for (int n = 0; n < this->kMost; ++n) {
    const std::vector<TypeParam> d = this->Distances(n, 3),
                                 e = this->Distances(n, 1);
    std::vector<TypeParam> v(d);
    std::vector<TypeParam> finite(e);
    for (int k = 0; k < n; ++k) {
      finite[k] = e[k] < 9 ? e[k] : TypeParam(0);
    }
    caffe_metric::over_distances(n, TypeParam(3), finite.data(), v.data(),
                                 v.data());
    for (int k = 0; k < n; ++k) {
      this->ExpectNear(d[k] > 0 ? 3. * finite[k] / d[k] : 0, v[k]);
    }
  }
}

TYPED_TEST(BatchOthersTest, TestClosePairs) {
  for (int n = 0; n < this->kMost; ++n) {
    const std::vector<TypeParam> d = this->Distances(n, n);
    std::vector<TypeParam> v(d);
    double expected = 1, sum = 1;
    int close = 0;
    const TypeParam margin = 1;
    for (int k = 0; k < n; ++k) {
      if (d[k] < margin) {
        expected += (margin - d[k]) * (margin - d[k]);
        ++close;
      }
    }
    EXPECT_EQ(close, caffe_metric::sum_of_close(n, margin, d.data(), &sum));
    EXPECT_NEAR(expected, sum, this->OfSums() * expected);
    caffe_metric::slopes_of_close(n, TypeParam(-2), margin, v.data(), v.data());
    for (int k = 0; k < n; ++k) {
      const double under = d[k] > 0 && d[k] < margin ? 1. - d[k] : 0;
      this->ExpectNear(under > 0 ? -2 * under / d[k] : 0, v[k]);
    }
  }
}

// Similarities, each ninth one of them -infinity.
TYPED_TEST(BatchOthersTest, TestCircle) {
  for (int n = 0; n < this->kMost; ++n) {
    std::vector<TypeParam> s = this->Distances(n, n), x(n);
    for (int k = 0; k < n; ++k) {
      s[k] = 1 - s[k];
    }
    const TypeParam margin = 0.25, gamma = 80;
    caffe_metric::circle_exponents(n, margin, gamma, s.data(), x.data());
    const std::vector<TypeParam> e = this->Distances(n, 1);
    std::vector<TypeParam> v(s), finite(n);
    for (int k = 0; k < n; ++k) {
      finite[k] = e[k] < 9 ? e[k] : TypeParam(0);
    }
    caffe_metric::circle_weights(n, margin, v.data(), finite.data(), v.data());
    for (int k = 0; k < n; ++k) {
      const double factor = s[k] > -0.25 ? s[k] + 0.25 : 0;
      if (s[k] < -9) {
        EXPECT_EQ(-std::numeric_limits<TypeParam>::infinity(), x[k]);
      } else {
        this->ExpectNear(80 * factor * (s[k] - 0.25), x[k]);
      }
      this->ExpectNear(factor * finite[k], v[k]);
    }
  }
}

TYPED_TEST(BatchOthersTest, TestTotalAndCount) {
  for (int n = 0; n < this->kMost; ++n) {
    std::vector<TypeParam> x = this->Distances(n, n);
    double total = 0;
    int used = 0;
    for (int k = 0; k < n; ++k) {
      x[k] = x[k] < 9 ? x[k] : TypeParam(NAN);
      used += x[k] != 0;
    }
    EXPECT_EQ(used, caffe_metric::count_used(n, x.data()));
    for (int k = 0; k < n; ++k) {
      x[k] = x[k] >= 0 ? x[k] : std::numeric_limits<TypeParam>::max() / 8;
      total += x[k];
    }
    EXPECT_EQ(total, caffe_metric::total(n, x.data()));
  }
}

TYPED_TEST(BatchOthersTest, TestTransposes) {
  for (int n = 1; n <= 40; ++n) {
    const std::vector<TypeParam> v = this->Matrix(n);
    std::vector<TypeParam> sum(v), mirrored(v);
    caffe_metric::add_transpose(n, 0, n, sum.data());
    caffe_metric::mirror_upper(n, 0, n, mirrored.data());
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        EXPECT_EQ(v[i * n + j] + v[j * n + i], sum[i * n + j]);
        EXPECT_EQ(i < j ? v[i * n + j] : v[j * n + i], mirrored[i * n + j]);
      }
    }
  }
}

}  // namespace caffe
