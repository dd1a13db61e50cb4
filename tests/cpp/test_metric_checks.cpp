// Why: layers that share their checks refuse bad input in the same words, and
// a label that a float cannot tell from its neighbour is refused at all.
// Sweeps: labels around 0, the number of classes and 2^24, float and double;
// blobs that came inside a LayerParameter in number and shape.
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/util/metric_checks.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_metric_util.hpp"

namespace caffe {

using metric_test::Shape;
using metric_test::UseFreshProcessesForDeath;

namespace {

template <typename Dtype>
void CheckOne(Dtype label, int classes = caffe_metric::kAnyClass) {
  Blob<Dtype> labels(vector<int>(1, 3));
  caffe_set(3, Dtype(0), labels.mutable_cpu_data());
  labels.mutable_cpu_data()[1] = label;
  check_labels("Margin layer 'm'", labels, classes);
}

typedef vector<shared_ptr<Blob<float>>> Blobs;

Blobs MakeBlobs(const vector<vector<int>>& shapes) {
  Blobs blobs;
  for (int i = 0; i < shapes.size(); ++i) {
    blobs.push_back(shared_ptr<Blob<float>>(new Blob<float>(shapes[i])));
  }
  return blobs;
}

// False in trees of before 2015-08, which have one solver.
template <typename C>
auto SetSolvers(int count, int) -> decltype(C::set_solver_count(count), true) {
  C::set_solver_count(count);
  return true;
}
template <typename C>
bool SetSolvers(int, ...) {
  return false;
}

void SetUpWithSolvers(const string& prototxt, int solvers) {
  SetSolvers<Caffe>(solvers, 0);
  metric_test::LayerSpec spec;
  spec.prototxt = prototxt;
  spec.bottoms.push_back(metric_test::RandomBlob(Shape(4, 3), 1));
  spec.bottoms.push_back(metric_test::Labels("0011"));
  metric_test::LayerRig<float> rig(spec);
  SetSolvers<Caffe>(1, 0);
}

}  // namespace

TEST(MetricChecksTest, TestOneSolverAlone) {
  UseFreshProcessesForDeath();
  if (!SetSolvers<Caffe>(1, 0)) {
    return;
  }
  const string margin =
      "name: 'm' margin_inner_product_param { num_output: 2 "
      "weight_filler { type: 'xavier' } ";
  const string product = "type: 'MarginInnerProduct' " + margin;
  SetUpWithSolvers(product + "}", 2);
  SetUpWithSolvers(product + "triplet: true }", 1);
  SetUpWithSolvers("phase: TEST " + product + "triplet: true }", 2);
  EXPECT_DEATH(SetUpWithSolvers(product + "triplet: true }", 2),
               "MarginInnerProduct layer 'm': triplet keeps samples .*2 "
               "solvers in one process would drift apart");
  const string loss =
      "type: 'MarginSoftmaxLoss' margin_softmax_loss_param { "
      "own_update: true } " +
      margin + "}";
  SetUpWithSolvers(loss, 1);
  EXPECT_DEATH(SetUpWithSolvers(loss, 3),
               "MarginSoftmaxLoss layer 'm': own_update .*3 solvers");
}

TEST(MetricChecksTest, TestLabels) {
  UseFreshProcessesForDeath();
  CheckOne(0.f, 1);
  CheckOne(4.f, 5);
  CheckOne(16777215.f);
  CheckOne(16777217.);
  EXPECT_DEATH(CheckOne(5.f, 5),
               "Margin layer 'm': the label of row 1 is 5, "
               "labels are integers in .0, 5.");
  EXPECT_DEATH(CheckOne(-1.f), "row 1 is -1, labels are integers >= 0");
  EXPECT_DEATH(CheckOne(1.5), "row 1 is 1.5");
  EXPECT_DEATH(CheckOne(NAN), "row 1 is nan");
}

// 2^24 + 1 arrives as 2^24.
TEST(MetricChecksTest, TestLabelsThatFloatsCannotHold) {
  UseFreshProcessesForDeath();
  EXPECT_DEATH(CheckOne(16777217.f),
               "Margin layer 'm': the label of row 1 is "
               "16777216, .*exact below 16777216");
  EXPECT_DEATH(CheckOne(16777216.f, 20000000), "exact below 16777216");
}

TEST(MetricChecksTest, TestBlobs) {
  UseFreshProcessesForDeath();
  vector<vector<int>> shapes(1, Shape(3, 4));
  check_blobs("layer 'm'", MakeBlobs(shapes), shapes);
  const vector<vector<int>> old(1, Shape(1, 1, 3, 4));
  check_blobs("layer 'm'", MakeBlobs(old), shapes);
  const vector<vector<int>> other(1, Shape(4, 3));
  EXPECT_DEATH(check_blobs("layer 'm'", MakeBlobs(other), shapes),
               "layer 'm': blob 0 has shape 4 3 .12., needs 3 4 .12.");
  vector<vector<int>> two(shapes);
  two.push_back(Shape(1));
  EXPECT_DEATH(check_blobs("layer 'm'", MakeBlobs(shapes), two),
               "layer 'm': has 1 blobs in its parameters, needs 2");
}

}  // namespace caffe
