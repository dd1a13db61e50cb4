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

}  // namespace

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
