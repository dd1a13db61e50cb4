// Why: a GPU layer has to be its CPU layer: the same rows for the same seed,
// the same numbers to rounding, and the same bits when it runs again.
// Sweeps: every option that changes the arithmetic, batches longer and shorter
// than a block, one row, one class, ties and duplicates.
// Tolerances: test_metric_util.hpp. A row chosen otherwise moves a gradient by
// its own size, so they hold the selections exactly.
// Leaves out: the values themselves, which the other tests hold on both.
// With METRIC_BITS=FILE, a line a case with a hash of all that it computed is
// added to FILE: two runs in other thread orders must write the same.
#ifndef CPU_ONLY

#include <stdint.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/common.hpp"
#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_metric_util.hpp"

namespace caffe {

using metric_test::ExpectArray;
using metric_test::ExpectValues;
using metric_test::Labels;
using metric_test::LayerRig;
using metric_test::LayerSpec;
using metric_test::RandomBlob;
using metric_test::Shape;
using metric_test::Tolerance;

// A layer, and the name that a failure is reported by.
struct ParityCase {
  string name;
  LayerSpec spec;
};

// All numbers of one Forward and Backward.
template <typename Dtype>
struct Numbers {
  vector<vector<double>> tops, bottom_diffs, params, param_diffs;

  explicit Numbers(const LayerSpec& spec) {
    LayerRig<Dtype> rig(spec);
    rig.Forward();
    rig.Backward();
    for (size_t i = 0; i < rig.tops().size(); ++i) {
      tops.push_back(rig.Top(i));
    }
    for (size_t i = 0; i < rig.bottoms().size(); ++i) {
      bottom_diffs.push_back(rig.BottomDiff(i));
    }
    for (size_t i = 0; i < rig.layer()->blobs().size(); ++i) {
      params.push_back(rig.Param(i));
      param_diffs.push_back(rig.ParamDiff(i));
    }
  }

  uint64_t Hash() const {
    uint64_t hash = 14695981039346656037ULL;  // FNV-1a
    const vector<vector<double>>* all[] = {&tops, &bottom_diffs, &params,
                                           &param_diffs};
    for (int a = 0; a < 4; ++a) {
      for (size_t i = 0; i < all[a]->size(); ++i) {
        for (size_t k = 0; k < (*all[a])[i].size(); ++k) {
          uint64_t bits;
          memcpy(&bits, &(*all[a])[i][k],  // NOLINT(caffe/alt_fn)
                 sizeof(bits));
          hash = (hash ^ bits) * 1099511628211ULL;
        }
      }
    }
    return hash;
  }
};

class GpuParity {
 public:
  void Add(const string& name, const string& prototxt, int tops,
           const vector<metric_test::BlobSpec>& bottoms) {
    ParityCase parity;
    parity.name = name;
    parity.spec.prototxt = "name: 'parity' " + prototxt;
    parity.spec.tops = tops;
    parity.spec.bottoms = bottoms;
    cases_.push_back(parity);
  }

  template <typename Dtype>
  void Run() const {
    const char* bits_file = getenv("METRIC_BITS");
    FILE* bits = bits_file ? fopen(bits_file, "a") : NULL;
    for (size_t c = 0; c < cases_.size(); ++c) {
      SCOPED_TRACE(cases_[c].name);
      Caffe::set_mode(Caffe::CPU);
      const Numbers<Dtype> cpu(cases_[c].spec);
      Caffe::set_mode(Caffe::GPU);
      const Numbers<Dtype> gpu(cases_[c].spec);
      const Numbers<Dtype> again(cases_[c].spec);
      Caffe::set_mode(Caffe::CPU);
      EXPECT_EQ(gpu.Hash(), again.Hash()) << "another run, other bits";
      for (size_t i = 0; i < cpu.tops.size(); ++i) {
        ExpectValues(cpu.tops[i], gpu.tops[i], Tolerance<Dtype>::Value());
      }
      for (size_t i = 0; i < cpu.bottom_diffs.size(); ++i) {
        SCOPED_TRACE("bottom diff");
        ExpectArray(cpu.bottom_diffs[i], gpu.bottom_diffs[i],
                    Tolerance<Dtype>::Gradient());
      }
      for (size_t i = 0; i < cpu.params.size(); ++i) {
        ExpectArray(cpu.params[i], gpu.params[i], Tolerance<Dtype>::Value());
        SCOPED_TRACE("parameter diff");
        ExpectArray(cpu.param_diffs[i], gpu.param_diffs[i],
                    Tolerance<Dtype>::Gradient());
      }
      if (bits) {
        fprintf(bits, "%s, %s: %llx\n", cases_[c].name.c_str(),
                sizeof(Dtype) == 4 ? "float" : "double",
                static_cast<unsigned long long>(  // NOLINT(runtime/int)
                    gpu.Hash()));
      }
    }
    if (bits) {
      fclose(bits);
    }
  }

 private:
  vector<ParityCase> cases_;
};

template <typename Dtype>
class GpuParityTest : public ::testing::Test {};
TYPED_TEST_CASE(GpuParityTest, TestDtypes);

vector<metric_test::BlobSpec> Bottoms(const metric_test::BlobSpec& a) {
  return vector<metric_test::BlobSpec>(1, a);
}

vector<metric_test::BlobSpec> Bottoms(const metric_test::BlobSpec& a,
                                      const metric_test::BlobSpec& b) {
  vector<metric_test::BlobSpec> bottoms = Bottoms(a);
  bottoms.push_back(b);
  return bottoms;
}

// Rows of -1, 0 and 1: ties everywhere, and duplicates.
metric_test::BlobSpec TiedRows(int rows, int dim, int seed) {
  metric_test::BlobSpec blob = RandomBlob(Shape(rows, dim), seed, -1.5, 1.5);
  for (size_t i = 0; i < blob.values.size(); ++i) {
    blob.values[i] = std::floor(blob.values[i] + 0.5);
  }
  return blob;
}

TYPED_TEST(GpuParityTest, TestNorm) {
  GpuParity parity;
  const string norm = "type: 'Norm' ";
  parity.Add("rows", norm, 1, Bottoms(RandomBlob(Shape(5, 7), 1)));
  parity.Add("long rows", norm, 1, Bottoms(RandomBlob(Shape(3, 300), 2)));
  parity.Add("one number", norm, 1, Bottoms(RandomBlob(Shape(1, 1), 3)));
  parity.Add("positions", norm, 1, Bottoms(RandomBlob(Shape(3, 5, 2, 3), 4)));
  parity.Add("under eps", norm + "l2_norm_param { eps: 1.2 }", 1,
             Bottoms(RandomBlob(Shape(9, 3), 5)));
  parity.Run<TypeParam>();
}

TYPED_TEST(GpuParityTest, TestRankHardLoss) {
  GpuParity parity;
  const string rank = "type: 'RankHardLoss' rank_param ";
  const metric_test::BlobSpec rows = RandomBlob(Shape(24, 5), 6);
  const metric_test::BlobSpec labels = Labels("001122003344551100220066");
  parity.Add("drawn", rank + "{ neg_num: 4 margin: 0.9 }", 2,
             Bottoms(rows, labels));
  parity.Add("all hard", rank + "{ neg_num: 3 hard_ratio: 1 rand_ratio: 0 }", 2,
             Bottoms(rows, labels));
  parity.Add("all random",
             rank + "{ neg_num: 5 hard_ratio: 0 rand_ratio: 1 margin: 2 }", 2,
             Bottoms(rows, labels));
  parity.Add("both in full",
             rank + "{ neg_num: 4 hard_ratio: 1 rand_ratio: 1 margin: 2 }", 2,
             Bottoms(rows, labels));
  parity.Add("few candidates", rank + "{ neg_num: 30 margin: 0.4 }", 2,
             Bottoms(rows, labels));
  parity.Add("groups of 3", rank + "{ neg_num: 2 pair_size: 3 margin: 1 }", 1,
             Bottoms(rows, Labels("000111222000333111444000")));
  parity.Add("ties", rank + "{ neg_num: 4 margin: 3 }", 2,
             Bottoms(TiedRows(24, 2, 7), labels));
  parity.Add("one class", rank + "{ neg_num: 2 }", 2,
             Bottoms(RandomBlob(Shape(4, 3), 8), Labels("5555")));
  parity.Add(
      "more rows than a block", rank + "{ neg_num: 6 margin: 2 }", 2,
      Bottoms(RandomBlob(Shape(140, 3), 9),
              Labels(string(40, '0') + string(60, '1') + string(40, '2'))));
  parity.Run<TypeParam>();
}

TYPED_TEST(GpuParityTest, TestTripletLossOfListedRows) {
  GpuParity parity;
  const string triplet = "type: 'TripletLoss' triplet_loss_param ";
  const char* losses[] = {"HINGE", "RATIO", "SOFT"};
  const char* distances[] = {"SQUARED_L2", "L2", "LP p: 3", "COSINE"};
  vector<metric_test::BlobSpec> rows;
  for (int i = 0; i < 3; ++i) {
    rows.push_back(RandomBlob(Shape(5, 6), 10 + i));
  }
  vector<metric_test::BlobSpec> weighted = rows;
  weighted.push_back(RandomBlob(Shape(5), 13, 0, 2));
  for (int l = 0; l < 3; ++l) {
    for (int d = 0; d < 4; ++d) {
      const string options =
          string("losstype: ") + losses[l] + " distance: " + distances[d];
      parity.Add(options + ", groups",
                 triplet + "{ num_negatives: 3 margin: 0.7 " + options + " }",
                 4, Bottoms(RandomBlob(Shape(10, 6), 14)));
      parity.Add(options + ", rows with swap",
                 triplet + "{ swap: true use_pair: true " + options + " }", 4,
                 rows);
    }
    const string options = string("losstype: ") + losses[l];
    parity.Add(options + ", weights",
               triplet + "{ use_pair: true " + options + " }", 2, weighted);
    parity.Add(options + ", groups, pairs, swap",
               triplet + "{ num_negatives: 2 use_pair: true swap: true " +
                   options + " } loss_param { normalization: VALID }",
               1, Bottoms(RandomBlob(Shape(8, 150), 15)));
  }
  parity.Run<TypeParam>();
}

TYPED_TEST(GpuParityTest, TestTripletLossMined) {
  GpuParity parity;
  const string triplet = "type: 'TripletLoss' triplet_loss_param ";
  const char* minings[] = {"ALL", "SEMIHARD", "VIOLATING", "HARDEST"};
  const char* distances[] = {"SQUARED_L2", "L2", "LP p: 1.5", "COSINE"};
  const metric_test::BlobSpec rows = RandomBlob(Shape(13, 4), 16);
  const metric_test::BlobSpec labels = Labels("0120120113345");
  for (int m = 0; m < 4; ++m) {
    const string mining = string("mining: ") + minings[m];
    for (int d = 0; d < 4; ++d) {
      const string options = mining + " distance: " + distances[d];
      parity.Add(options, triplet + "{ margin: 0.6 " + options + " }", 4,
                 Bottoms(rows, labels));
      parity.Add(options + ", swap",
                 triplet + "{ swap: true use_pair: true " + options + " }", 4,
                 Bottoms(rows, labels));
    }
    parity.Add(mining + ", soft, pairs",
               triplet + "{ losstype: SOFT use_pair: true " + mining + " }", 4,
               Bottoms(rows, labels));
    parity.Add(mining + ", ratio",
               triplet + "{ losstype: RATIO " + mining + " }", 4,
               Bottoms(rows, labels));
    parity.Add(mining + ", ties", triplet + "{ margin: 2 " + mining + " }", 4,
               Bottoms(TiedRows(12, 2, 17), Labels("001122001122")));
    parity.Add(mining + ", one class", triplet + "{ " + mining + " }", 4,
               Bottoms(RandomBlob(Shape(5, 3), 18), Labels("11111")));
    parity.Add(mining + ", one row", triplet + "{ " + mining + " }", 4,
               Bottoms(RandomBlob(Shape(1, 1), 19), Labels("3")));
    string many;
    for (int i = 0; i < 131; ++i) {
      many += static_cast<char>('0' + i * i % 10);
    }
    parity.Add(mining + ", more rows than a block",
               triplet + "{ use_pair: true " + mining + " }", 4,
               Bottoms(RandomBlob(Shape(131, 3), 20), Labels(many)));
  }
  parity.Run<TypeParam>();
}

TYPED_TEST(GpuParityTest, TestMarginInnerProduct) {
  GpuParity parity;
  const char* options[] = {
      "type: SINGLE",
      "type: DOUBLE base: 3",
      "type: TRIPLE base: 0.5 gamma: 0.1 lambda_min: 0.2",
      "type: QUADRUPLE base: 0",
      "type: QUADRUPLE base: 2 gradient: REFERENCE",
      "type: QUADRUPLE semihard: true base: 0",
      "type: SINGLE semihard: true",
      "type: DOUBLE triplet: true",
      "type: TRIPLE normalize_features: true scale: 8",
      "angular_margin: 0.5 scale: 4",
      "cosine_margin: 0.35 normalize_features: true",
      "type: DOUBLE persist_iteration: false iteration: 7 gamma: 1",
      "type: DOUBLE margin_in_test: true base: 1"};
  const metric_test::BlobSpec labels = Labels("0123301265430");
  for (size_t i = 0; i < sizeof(options) / sizeof(*options); ++i) {
    for (int test = 0; test < 2; ++test) {
      const string prototxt = string("type: 'MarginInnerProduct' ") +
                              (test ? "phase: TEST " : "") +
                              "margin_inner_product_param { num_output: 7 "
                              "weight_filler { type: 'gaussian' } " +
                              options[i] + " }";
      parity.Add(string(options[i]) + (test ? ", TEST" : ""), prototxt, 2,
                 Bottoms(RandomBlob(Shape(13, 5), 21), labels));
    }
  }
  parity.Add("more columns than a block",
             "type: 'MarginInnerProduct' margin_inner_product_param { "
             "num_output: 140 type: TRIPLE semihard: true "
             "weight_filler { type: 'gaussian' } }",
             1, Bottoms(RandomBlob(Shape(3, 150), 22), Labels("091")));
  parity.Run<TypeParam>();
}

}  // namespace caffe

#endif  // !CPU_ONLY
