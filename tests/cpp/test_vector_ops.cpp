// Why: every sweep over a row is written in the processor's vectors by hand,
// since gcc makes none of a loop over floats at -O2; an end of a row that no
// vector covers, and NaN, are where that goes wrong.
// Sweeps: rows of 0 to 70 elements, NaN and infinity at each place.
// Oracle: the loops written out. Numbers are multiples of 1/4, so that sums are
// exact in any order.
// Leaves out: dot and norms, which the layers' tests hold against loops.
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

#include "caffe_metric/vector_ops.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

template <typename Dtype>
class VectorOpsTest : public ::testing::Test {
 protected:
  static const int kMost = 70;

  // Numbers in [-4.75, 4.25], the greatest at no fixed place.
  static std::vector<Dtype> Numbers(int n, int seed) {
    std::vector<Dtype> x(n);
    for (int k = 0; k < n; ++k) {
      x[k] = Dtype(0.25) * ((k + seed) * 37 % 37 * 11 % 37 - 19);
    }
    return x;
  }
};

TYPED_TEST_CASE(VectorOpsTest, TestDtypes);

TYPED_TEST(VectorOpsTest, TestSumAndGreatest) {
  for (int n = 0; n < this->kMost; ++n) {
    const std::vector<TypeParam> x = this->Numbers(n, n);
    TypeParam sum = 0, greatest = -8;
    for (int k = 0; k < n; ++k) {
      sum += x[k];
      greatest = x[k] > greatest ? x[k] : greatest;
    }
    EXPECT_EQ(sum, caffe_metric::sum(n, x.data()));
    EXPECT_EQ(greatest, caffe_metric::greatest(n, x.data(), TypeParam(-8)));
    EXPECT_EQ(9, caffe_metric::greatest(n, x.data(), TypeParam(9)));
  }
}

// NaN is passed over by `greatest`, and makes `all_finite` false as infinity
// does.
TYPED_TEST(VectorOpsTest, TestNotFinite) {
  const TypeParam infinity = std::numeric_limits<TypeParam>::infinity();
  for (int n = 1; n < this->kMost; ++n) {
    std::vector<TypeParam> x = this->Numbers(n, 1);
    EXPECT_TRUE(caffe_metric::all_finite(n, x.data()));
    for (int k = 0; k < n; ++k) {
      const TypeParam kept = x[k];
      x[k] = NAN;
      EXPECT_FALSE(caffe_metric::all_finite(n, x.data()));
      const TypeParam found =
          caffe_metric::greatest(n, x.data(), TypeParam(-8));
      EXPECT_TRUE(-8 <= found && found < 5) << found;
      x[k] = -infinity;
      EXPECT_FALSE(caffe_metric::all_finite(n, x.data()));
      x[k] = infinity;
      EXPECT_EQ(infinity, caffe_metric::greatest(n, x.data(), TypeParam(-8)));
      x[k] = kept;
    }
  }
}

TYPED_TEST(VectorOpsTest, TestRows) {
  for (int n = 0; n < this->kMost; ++n) {
    const std::vector<TypeParam> x = this->Numbers(n, 2),
                                 w = this->Numbers(n, 5),
                                 y = this->Numbers(n, 9);
    std::vector<TypeParam> scaled(x), shifted(x), tangent(y), added(y);
    caffe_metric::scale(n, TypeParam(2), x.data(), scaled.data());
    caffe_metric::scale_and_shift(n, TypeParam(2), TypeParam(3),
                                  shifted.data());
    caffe_metric::add_tangent(n, TypeParam(2), TypeParam(0.5), w.data(),
                              x.data(), tangent.data());
    caffe_metric::add_scaled(n, TypeParam(2), x.data(), added.data());
    for (int k = 0; k < n; ++k) {
      EXPECT_EQ(2 * x[k], scaled[k]);
      EXPECT_EQ(2 * x[k] - 3, shifted[k]);
      EXPECT_EQ(y[k] + 2 * (x[k] - TypeParam(0.5) * w[k]), tangent[k]);
      EXPECT_EQ(y[k] + 2 * x[k], added[k]);
    }
  }
}

}  // namespace caffe
