// Why: a copy to the host waits for all that the GPU has been given; in the
// middle of a net it costs more than the layer. A loss layer may make one, its
// loss; the others none. Net adds one for each loss, which Layer::Forward asks
// for by a dot product.
// Leaves out: what Caffe's own layers and solvers copy.
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/common.hpp"
#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_metric_util.hpp"

namespace caffe {

using metric_test::BlobSpec;
using metric_test::Labels;
using metric_test::LayerSpec;
using metric_test::RandomBlob;
using metric_test::Shape;

// Copies to the host of the third Forward and Backward of a layer, whose
// bottoms and top diffs are on the device.
struct Copies {
  uint64_t forward, backward, async;

  Copies(const string& prototxt, const vector<BlobSpec>& specs) {
    vector<shared_ptr<Blob<float>>> blobs;
    vector<Blob<float>*> bottom, top;
    for (size_t i = 0; i <= specs.size(); ++i) {
      blobs.push_back(shared_ptr<Blob<float>>(new Blob<float>()));
      (i < specs.size() ? bottom : top).push_back(blobs.back().get());
    }
    for (size_t i = 0; i < specs.size(); ++i) {
      bottom[i]->Reshape(specs[i].shape);
      for (size_t k = 0; k < specs[i].values.size(); ++k) {
        bottom[i]->mutable_cpu_data()[k] = specs[i].values[k];
      }
    }
    shared_ptr<Layer<float>> layer = LayerRegistry<float>::CreateLayer(
        metric_test::ParseLayer("name: 'copies' " + prototxt));
    layer->SetUp(bottom, top);
    const hostcuda::Counters& counters = hostcuda::counters;
    for (int pass = 0; pass < 3; ++pass) {
      for (size_t i = 0; i < bottom.size(); ++i) {
        bottom[i]->mutable_gpu_data();
      }
      const hostcuda::Counters start = counters;
      layer->Forward(bottom, top);
      forward = counters.to_host - start.to_host;
      top[0]->mutable_gpu_diff();
      const hostcuda::Counters middle = counters;
      layer->Backward(top, vector<bool>(bottom.size(), true), bottom);
      backward = counters.to_host - middle.to_host;
      async = counters.to_host_async - start.to_host_async;
    }
  }
};

class CopiesTest : public ::testing::Test {
 protected:
  virtual void SetUp() { Caffe::set_mode(Caffe::GPU); }
  virtual void TearDown() { Caffe::set_mode(Caffe::CPU); }

  static vector<BlobSpec> Bottoms(int rows, const string& labels) {
    vector<BlobSpec> bottoms(1, RandomBlob(Shape(rows, 5), 30));
    if (!labels.empty()) {
      bottoms.push_back(Labels(labels));
    }
    return bottoms;
  }
};

TEST_F(CopiesTest, TestNorm) {
  const Copies copies("type: 'Norm'", Bottoms(4, ""));
  EXPECT_EQ(0, copies.forward);
  EXPECT_EQ(0, copies.backward);
}

TEST_F(CopiesTest, TestRankHardLoss) {
  const Copies copies("type: 'RankHardLoss' rank_param { margin: 2 }",
                      Bottoms(6, "001122"));
  EXPECT_EQ(1 + 1, copies.forward);
  EXPECT_EQ(0, copies.backward);
}

TEST_F(CopiesTest, TestTripletLoss) {
  const char* minings[] = {"ALL", "SEMIHARD", "VIOLATING", "HARDEST"};
  for (int m = 0; m < 4; ++m) {
    const Copies copies(
        string("type: 'TripletLoss' triplet_loss_param { mining: ") +
            minings[m] + " }",
        Bottoms(6, "001122"));
    EXPECT_EQ(1 + 1, copies.forward) << minings[m];
    EXPECT_EQ(0, copies.backward) << minings[m];
  }
  const Copies groups("type: 'TripletLoss'", Bottoms(6, ""));
  EXPECT_EQ(1 + 1, groups.forward);
  EXPECT_EQ(0, groups.backward);
}

TEST_F(CopiesTest, TestMarginInnerProduct) {
  const string layer =
      "type: 'MarginInnerProduct' margin_inner_product_param { num_output: 3 "
      "type: DOUBLE weight_filler { type: 'xavier' } ";
  const char* options[] = {"", "semihard: true", "triplet: true"};
  for (int i = 0; i < 3; ++i) {
    const Copies copies(layer + options[i] + " }", Bottoms(6, "001122"));
    EXPECT_EQ(0, copies.forward) << options[i];
    EXPECT_EQ(0, copies.backward) << options[i];
    // Whether the labels are good, for the next call to see.
    EXPECT_EQ(1, copies.async) << options[i];
  }
}

// The classes are drawn on the device, but where the batch may have more of
// them than are to meet.
TEST_F(CopiesTest, TestMarginSoftmaxLoss) {
  const string layer =
      "type: 'MarginSoftmaxLoss' margin_inner_product_param { num_output: 40 "
      "weight_filler { type: 'xavier' } } margin_softmax_loss_param { ";
  const char* options[] = {"", "sample_rate: 0.25", "keep_logits: NEVER",
                           "sample_rate: 0.15 own_update: true"};
  for (int i = 0; i < 4; ++i) {
    const Copies copies(layer + options[i] + " }", Bottoms(6, "001122"));
    EXPECT_EQ(1 + 1, copies.forward) << options[i];
    EXPECT_EQ(0, copies.backward) << options[i];
  }
  const Copies few(layer + "sample_rate: 0.1 }", Bottoms(6, "001122"));
  EXPECT_EQ(1 + 1 + 1, few.forward);
}

// Labels that only the device has are checked there.
TEST_F(CopiesTest, TestBadLabelOnTheDevice) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(Copies("type: 'MarginInnerProduct' margin_inner_product_param { "
                      "num_output: 2 weight_filler { type: 'xavier' } }",
                      Bottoms(6, "001121")),
               "label of row 4 is 2, labels are integers in .0, 2.");
}

}  // namespace caffe
