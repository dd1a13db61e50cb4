// Why: Norm stands before every metric loss, and its older forms had no
// gradient, or one without the tangential projection.
// Sweeps: 2, 3 and 4 axes; N = 1 and more; D = 1, 3, 7, 33; short, zero and
// huge vectors; in place; a batch that changes its size.
// Tolerances: test_metric_util.hpp. What is below eps is compared exactly.
// Leaves out: eps <= 0 (pytest, with the other bad input).
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/norm_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/test/test_metric_util.hpp"

namespace caffe {

using metric_test::BlobSpec;
using metric_test::CheckGradient;
using metric_test::ExpectAllZero;
using metric_test::ExpectArray;
using metric_test::ExpectGradient;
using metric_test::ExpectTeeth;
using metric_test::ExpectValues;
using metric_test::LayerRig;
using metric_test::LayerSpec;
using metric_test::Numbers;
using metric_test::RandomBlob;
using metric_test::Shape;
using metric_test::Tolerance;

namespace {

const char kNorm[] = "name: 'norm' type: 'Norm'";

LayerSpec NormSpec(const BlobSpec& x, const string& param = "") {
  LayerSpec spec;
  spec.prototxt = string(kNorm) + param;
  spec.bottoms.push_back(x);
  spec.checked_bottoms.push_back(0);
  spec.top_diffs.push_back(Numbers(99).Uniform(x.values.size(), -1, 1));
  return spec;
}

// The norm over axis 1 at each position of the further axes.
vector<double> NaiveNorm(const BlobSpec& x, double eps) {
  const int channels = x.shape[1];
  const int inner = x.dim() / channels;
  vector<double> y(x.values);
  for (int n = 0; n < x.rows(); ++n) {
    for (int k = 0; k < inner; ++k) {
      double sum = 0;
      for (int c = 0; c < channels; ++c) {
        const double value = x.row(n)[c * inner + k];
        sum += value * value;
      }
      for (int c = 0; c < channels; ++c) {
        y[n * x.dim() + c * inner + k] /= std::max(std::sqrt(sum), eps);
      }
    }
  }
  return y;
}

vector<vector<int>> Shapes() {
  vector<vector<int>> shapes;
  shapes.push_back(Shape(1, 1));
  shapes.push_back(Shape(5, 1));
  shapes.push_back(Shape(1, 3));
  shapes.push_back(Shape(4, 7));
  shapes.push_back(Shape(3, 33));
  shapes.push_back(Shape(2, 3, 5));
  shapes.push_back(Shape(3, 1, 2));
  shapes.push_back(Shape(2, 3, 1, 4));
  shapes.push_back(Shape(2, 7, 3, 2));
  return shapes;
}

}  // namespace

template <typename TypeParam>
class NormLayerTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(NormLayerTest, TestDtypesAndDevices);

TYPED_TEST(NormLayerTest, TestSetUp) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(NormSpec(RandomBlob(Shape(2, 3, 1, 4), 1)));
  EXPECT_STREQ("Norm", rig.layer()->type());
  EXPECT_TRUE(dynamic_cast<NormLayer<Dtype>*>(rig.layer()) != NULL);
  EXPECT_EQ(Shape(2, 3, 1, 4), rig.top(0)->shape());
  EXPECT_EQ(0, rig.layer()->blobs().size());
}

TYPED_TEST(NormLayerTest, TestForward) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<vector<int>> shapes = Shapes();
  for (int i = 0; i < shapes.size(); ++i) {
    SCOPED_TRACE(i);
    const BlobSpec x = RandomBlob(shapes[i], i);
    LayerRig<Dtype> rig(NormSpec(x));
    rig.Forward();
    ExpectValues(NaiveNorm(x, 1e-10), rig.Top(0), Tolerance<Dtype>::Value());
  }
}

TYPED_TEST(NormLayerTest, TestForwardLeavesBottomAlone) {
  typedef typename TypeParam::Dtype Dtype;
  const BlobSpec x = RandomBlob(Shape(4, 7), 3);
  LayerRig<Dtype> rig(NormSpec(x));
  rig.Forward();
  for (int i = 0; i < x.values.size(); ++i) {
    EXPECT_EQ(x.values[i], rig.bottom(0)->cpu_data()[i]);
  }
}

TYPED_TEST(NormLayerTest, TestAnyScale) {
  typedef typename TypeParam::Dtype Dtype;
  // squares stay inside float's range
  const double scales[] = {1e-8, 1e-3, 1e3, 1e15};
  for (int i = 0; i < 4; ++i) {
    SCOPED_TRACE(scales[i]);
    BlobSpec x = RandomBlob(Shape(3, 7), 5);
    const vector<double> y = NaiveNorm(x, 0);
    for (int j = 0; j < x.values.size(); ++j) {
      x.values[j] *= scales[i];
    }
    LayerRig<Dtype> rig(NormSpec(x));
    rig.Forward();
    ExpectValues(y, rig.Top(0), Tolerance<Dtype>::Value());
  }
}

TYPED_TEST(NormLayerTest, TestZeroVectors) {
  typedef typename TypeParam::Dtype Dtype;
  BlobSpec x = RandomBlob(Shape(3, 4), 7);
  for (int k = 0; k < 4; ++k) {
    x.values[4 + k] = 0;
  }
  LayerRig<Dtype> rig(NormSpec(x));
  rig.Forward();
  ExpectValues(NaiveNorm(x, 1e-10), rig.Top(0), Tolerance<Dtype>::Value());
  rig.Backward();
  const vector<double> diff = rig.BottomDiff(0);
  for (int k = 0; k < 4; ++k) {
    EXPECT_EQ(0, rig.Top(0)[4 + k]);
    EXPECT_EQ(0, diff[4 + k]);
    EXPECT_NE(0, diff[k]);
  }
}

TYPED_TEST(NormLayerTest, TestUnderEps) {
  typedef typename TypeParam::Dtype Dtype;
  // Rows of norm 1/4, 1/2 and 2; eps is exact in float.
  BlobSpec x(Shape(3, 2), vector<double>(6, 0));
  x.values[0] = 0.25;
  x.values[3] = -0.5;
  x.values[4] = 2;
  LayerRig<Dtype> rig(NormSpec(x, "l2_norm_param { eps: 0.375 }"));
  rig.Forward();
  ExpectValues(NaiveNorm(x, 0.375), rig.Top(0), Tolerance<Dtype>::Value());
  rig.Backward();
  const vector<double> diff = rig.BottomDiff(0);
  EXPECT_EQ(0, diff[0]);
  EXPECT_EQ(0, diff[1]);
  EXPECT_NE(0, diff[2]);
  EXPECT_NE(0, diff[5]);
}

TYPED_TEST(NormLayerTest, TestOneChannelHasZeroGradient) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(NormSpec(RandomBlob(Shape(3, 1, 2), 11)));
  rig.Forward();
  rig.Backward();
  const vector<double> y = rig.Top(0);
  const vector<double> diff = rig.BottomDiff(0);
  for (int i = 0; i < y.size(); ++i) {
    EXPECT_NEAR(1, std::abs(y[i]), Tolerance<Dtype>::Value());
    // 1 - y * y cancels, over a norm that is 0.1 or more
    EXPECT_NEAR(0, diff[i], 10 * Tolerance<Dtype>::Value());
  }
}

TYPED_TEST(NormLayerTest, TestInPlace) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<vector<int>> shapes = Shapes();
  for (int i = 0; i < shapes.size(); ++i) {
    SCOPED_TRACE(i);
    const LayerSpec spec = NormSpec(RandomBlob(shapes[i], i));
    LayerRig<Dtype> rig(spec);
    rig.Forward();
    rig.Backward();

    Blob<Dtype> blob(shapes[i]);
    for (int j = 0; j < blob.count(); ++j) {
      blob.mutable_cpu_data()[j] = spec.bottoms[0].values[j];
    }
    const vector<Blob<Dtype>*> both(1, &blob);
    const shared_ptr<Layer<Dtype>> layer = LayerRegistry<Dtype>::CreateLayer(
        metric_test::ParseLayer(spec.prototxt));
    layer->SetUp(both, both);
    layer->Forward(both, both);
    for (int j = 0; j < blob.count(); ++j) {
      blob.mutable_cpu_diff()[j] = spec.top_diffs[0][j];
    }
    layer->Backward(both, vector<bool>(1, true), both);
    const vector<double> y = rig.Top(0);
    const vector<double> diff = rig.BottomDiff(0);
    for (int j = 0; j < blob.count(); ++j) {
      EXPECT_EQ(y[j], blob.cpu_data()[j]);
      EXPECT_EQ(diff[j], blob.cpu_diff()[j]);
    }
  }
}

TYPED_TEST(NormLayerTest, TestReshape) {
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> bottom, top;
  const vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top);
  const shared_ptr<Layer<Dtype>> layer =
      LayerRegistry<Dtype>::CreateLayer(metric_test::ParseLayer(kNorm));
  const int rows[] = {2, 7, 1, 5};
  for (int i = 0; i < 4; ++i) {
    const BlobSpec x = RandomBlob(Shape(rows[i], 3 + i), i);
    bottom.Reshape(x.shape);
    for (int j = 0; j < bottom.count(); ++j) {
      bottom.mutable_cpu_data()[j] = x.values[j];
    }
    if (i == 0) {
      layer->SetUp(bottoms, tops);
    }
    layer->Forward(bottoms, tops);
    ExpectValues(NaiveNorm(x, 1e-10),
                 vector<double>(top.cpu_data(), top.cpu_data() + top.count()),
                 Tolerance<Dtype>::Value());
  }
}

TYPED_TEST(NormLayerTest, TestNoPropagation) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(NormSpec(RandomBlob(Shape(2, 3), 1)));
  rig.Forward();
  caffe_set(rig.bottom(0)->count(), Dtype(5),
            rig.bottom(0)->mutable_cpu_diff());
  rig.layer()->Backward(rig.tops(), vector<bool>(1, false), rig.bottoms());
  for (int i = 0; i < rig.bottom(0)->count(); ++i) {
    EXPECT_EQ(5, rig.bottom(0)->cpu_diff()[i]);
  }
}

TYPED_TEST(NormLayerTest, TestGradient) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(NormSpec(RandomBlob(Shape(2, 3, 1, 2), 13)));
  GradientChecker<Dtype> checker(1e-2, 1e-2);
  checker.CheckGradientExhaustive(rig.layer(), rig.bottoms(), rig.tops());
}

TYPED_TEST(NormLayerTest, TestGradientRelative) {
  const vector<vector<int>> shapes = Shapes();
  for (int i = 0; i < shapes.size(); ++i) {
    if (shapes[i][1] > 1) {  // a single channel's gradient is zero
      ExpectGradient<TypeParam>(NormSpec(RandomBlob(shapes[i], i)));
    }
  }
  ExpectGradient<TypeParam>(
      NormSpec(RandomBlob(Shape(3, 4), 17), "l2_norm_param { eps: 0.01 }"));
}

// The check itself: it does not depend on type and device.
class NormLayerCheckTest : public CPUDeviceTest<double> {};

TEST_F(NormLayerCheckTest, TestTeeth) {
  ExpectTeeth(NormSpec(RandomBlob(Shape(3, 4), 19)));
}

}  // namespace caffe
