// Why: CenterLoss has two rules for its centres, and the published one is no
// gradient: both are held against their equations.
// Sweeps: N = 1, 7; D = 1, 3, 7, 33; one class; a class without rows; an axis;
// iter_size. Tolerances: test_metric_util.hpp.
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/center_loss_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/test/test_metric_util.hpp"

namespace caffe {

using metric_test::ExpectAllZero;
using metric_test::ExpectArray;
using metric_test::ExpectGradient;
using metric_test::ExpectTeeth;
using metric_test::ExpectValue;
using metric_test::Labels;
using metric_test::LayerRig;
using metric_test::LayerSpec;
using metric_test::RandomBlob;
using metric_test::Shape;
using metric_test::Tolerance;

namespace {

const int kClasses = 4;

LayerSpec Batch(const string& labels, int dim, const string& update,
                double weight = 1) {
  LayerSpec spec;
  spec.prototxt =
      "name: 'center' type: 'CenterLoss' center_loss_param { num_output: 4 "
      "update: " +
      update + " } loss_weight: " + (weight == 1 ? "1" : "2.5");
  spec.bottoms.push_back(
      RandomBlob(Shape(static_cast<int>(labels.size()), dim), 3));
  spec.bottoms.push_back(Labels(labels));
  spec.params.push_back(RandomBlob(Shape(kClasses, dim), 8).values);
  spec.checked_bottoms.push_back(0);
  if (update == "GRADIENT") {
    spec.checked_params.push_back(0);
  }
  return spec;
}

template <typename Dtype>
void ExpectEquations(const LayerSpec& spec, bool delta, double weight) {
  SCOPED_TRACE(spec.prototxt);
  const int rows = spec.bottoms[0].rows();
  const int dim = spec.bottoms[0].dim();
  const vector<double>& y = spec.bottoms[1].values;
  double loss = 0;
  vector<double> dx(rows * dim), dc(kClasses * dim), count(kClasses, 0);
  for (int i = 0; i < rows; ++i) {
    const int c = static_cast<int>(y[i]);
    count[c] += 1;
    for (int k = 0; k < dim; ++k) {
      const double d = spec.bottoms[0].row(i)[k] - spec.params[0][c * dim + k];
      loss += d * d / (2 * rows);
      dx[i * dim + k] = weight * d / rows;
      dc[c * dim + k] -= delta ? d : weight * d / rows;
    }
  }
  for (int k = 0; delta && k < kClasses * dim; ++k) {
    dc[k] /= 1 + count[k / dim];
  }
  LayerRig<Dtype> rig(spec);
  rig.Forward();
  ExpectValue(loss, rig.Top(0)[0], Tolerance<Dtype>::Value());
  rig.Backward();
  ExpectArray(dx, rig.BottomDiff(0), Tolerance<Dtype>::Gradient());
  ExpectAllZero(rig.BottomDiff(1));
  ExpectArray(dc, rig.ParamDiff(0), Tolerance<Dtype>::Gradient());
  // iter_size: the diffs add up.
  rig.layer()->Backward(rig.tops(), vector<bool>(2, true), rig.bottoms());
  for (int k = 0; k < dc.size(); ++k) {
    dc[k] *= 2;
  }
  ExpectArray(dc, rig.ParamDiff(0), Tolerance<Dtype>::Gradient());
}

}  // namespace

template <typename TypeParam>
class CenterLossLayerTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(CenterLossLayerTest, TestDtypesAndDevices);

TYPED_TEST(CenterLossLayerTest, TestEquations) {
  typedef typename TypeParam::Dtype Dtype;
  const int dims[] = {1, 3, 7, 33};
  const char* labels[] = {"2", "0102031", "1111111"};
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int weighted = 0; weighted < 2; ++weighted) {
        const double weight = weighted ? 2.5 : 1;
        ExpectEquations<Dtype>(Batch(labels[j], dims[i], "DELTA", weight), true,
                               weight);
        ExpectEquations<Dtype>(Batch(labels[j], dims[i], "GRADIENT", weight),
                               false, weight);
      }
    }
  }
}

TYPED_TEST(CenterLossLayerTest, TestGradient) {
  ExpectGradient<TypeParam>(Batch("0102031", 3, "GRADIENT", 2.5));
  ExpectGradient<TypeParam>(Batch("0102031", 3, "DELTA"));
  typedef typename TypeParam::Dtype Dtype;
  LayerRig<Dtype> rig(Batch("0102", 3, "GRADIENT"));
  EXPECT_TRUE(dynamic_cast<CenterLossLayer<Dtype>*>(rig.layer()) != NULL);
  GradientChecker<Dtype> checker(1e-2, 1e-2);
  checker.CheckGradientExhaustive(rig.layer(), rig.bottoms(), rig.tops(), 0);
}

TYPED_TEST(CenterLossLayerTest, TestAxis) {
  typedef typename TypeParam::Dtype Dtype;
  LayerSpec spec = Batch("010203", 4, "DELTA");
  const LayerSpec flat = spec;
  spec.prototxt.insert(spec.prototxt.find("num_output"), "axis: 2 ");
  spec.bottoms[0].shape = Shape(3, 2, 4);
  LayerRig<Dtype> one(spec), other(flat);
  one.Forward();
  other.Forward();
  EXPECT_EQ(other.Top(0)[0], one.Top(0)[0]);
}

TYPED_TEST(CenterLossLayerTest, TestBadInput) {
  typedef typename TypeParam::Dtype Dtype;
  metric_test::UseFreshProcessesForDeath();
  EXPECT_DEATH(LayerRig<Dtype>(Batch("0104", 2, "DELTA")).Forward(),
               "CenterLoss layer 'center': the label of row 3 is 4");
  LayerSpec spec = Batch("0101", 2, "DELTA");
  spec.bottoms[0].values[5] = NAN;
  EXPECT_DEATH(LayerRig<Dtype>(spec).Forward(), "'center': row 2");
  spec.prototxt = "type: 'CenterLoss'";
  EXPECT_DEATH(LayerRig<Dtype> rig(spec), "num_output is 0");
}

class CenterLossCheckTest : public CPUDeviceTest<double> {};

TEST_F(CenterLossCheckTest, TestTeeth) {
  ExpectTeeth(Batch("0102031", 3, "GRADIENT", 2.5));
}

}  // namespace caffe
