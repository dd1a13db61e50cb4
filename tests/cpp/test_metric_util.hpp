#ifndef CAFFE_TEST_TEST_METRIC_UTIL_HPP_
#define CAFFE_TEST_TEST_METRIC_UTIL_HPP_

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layer.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/test/test_caffe_main.hpp"
#include "caffe_metric/strips.hpp"

/**
 * What the gtests of the metric layers share: a layer built from prototxt
 * text together with its blobs (LayerRig), and a gradient check that is
 * relative.
 *
 * Caffe's GradientChecker allows an absolute error of its threshold wherever
 * the gradient is below 1, so that a gradient of zeros passes for a loss that
 * is divided by the batch. ExpectGradient below has no such floor: in double
 * on the CPU it holds the layer's gradient against central differences, and
 * every other type and device against that double gradient.
 */
namespace caffe {
namespace metric_test {

/**
 * Every tolerance of the gtests. All are relative; what is near zero is
 * compared on the scale of the largest number of its blob (gradients) or of
 * max(1, |expected|) (values).
 *
 * | name       | double | float | reason                                      |
 * | Value      | 1e-11  | 2e-5  | layer against a float64 oracle: some 1e3    |
 * |            |        |       | roundings of sums whose terms are of size   |
 * |            |        |       | 1 to 10, and distances from a Gram matrix,  |
 * |            |        |       | which cancel a digit                        |
 * | Gradient   | 1e-10  | 1e-4  | layer against an analytic float64 gradient: |
 * |            |        |       | the same, one digit more for quotients      |
 * | Difference | 1e-6   | -     | double against central differences of step  |
 * |            |        |       | 1e-4: truncation ~ 1e-16 times the fifth    |
 * |            |        |       | derivative, rounding ~ 1e-12 over gradients |
 * |            |        |       | that may be 1e-3 of the largest             |
 */
template <typename Dtype>
struct Tolerance;

template <>
struct Tolerance<double> {
  static double Value() { return 1e-11; }
  static double Gradient() { return 1e-10; }
  static double Difference() { return 1e-6; }
};

template <>
struct Tolerance<float> {
  static double Value() { return 2e-5; }
  static double Gradient() { return 1e-4; }
};

/// Numbers that are the same on every machine, and exact in float, so that
/// float layers, double layers and oracles see the same input.
class Numbers {
 public:
  explicit Numbers(unsigned int seed) : state_(seed * 2654435761u + 1u) {}

  double Uniform(double low, double high) {
    // Numerical Recipes' linear congruence; the upper bits are good enough.
    state_ = state_ * 1664525u + 1013904223u;
    return static_cast<float>(low + (high - low) * (state_ >> 8) / 16777216.);
  }

  vector<double> Uniform(int count, double low, double high) {
    vector<double> values(count);
    for (int i = 0; i < count; ++i) {
      values[i] = Uniform(low, high);
    }
    return values;
  }

 private:
  unsigned int state_;
};

struct BlobSpec {
  BlobSpec() {}
  BlobSpec(const vector<int>& shape, const vector<double>& values)
      : shape(shape), values(values) {}
  int rows() const { return shape[0]; }
  int dim() const {
    return shape[0] == 0 ? 0 : static_cast<int>(values.size()) / shape[0];
  }
  const double* row(int i) const { return &values[i * dim()]; }

  vector<int> shape;
  vector<double> values;
};

inline vector<int> Shape(int a) { return vector<int>(1, a); }
inline vector<int> Shape(int a, int b) {
  vector<int> shape(1, a);
  shape.push_back(b);
  return shape;
}
inline vector<int> Shape(int a, int b, int c) {
  vector<int> shape = Shape(a, b);
  shape.push_back(c);
  return shape;
}
inline vector<int> Shape(int a, int b, int c, int d) {
  vector<int> shape = Shape(a, b, c);
  shape.push_back(d);
  return shape;
}

inline BlobSpec RandomBlob(const vector<int>& shape, unsigned int seed,
                           double low = -1, double high = 1) {
  int count = 1;
  for (int i = 0; i < shape.size(); ++i) {
    count *= shape[i];
  }
  return BlobSpec(shape, Numbers(seed).Uniform(count, low, high));
}

/// Labels from digits: "0102" are the labels of four rows.
inline BlobSpec Labels(const string& digits) {
  vector<double> values;
  for (int i = 0; i < digits.size(); ++i) {
    values.push_back(digits[i] - '0');
  }
  return BlobSpec(Shape(static_cast<int>(values.size())), values);
}

/// A layer, its bottoms, and what of it is differentiable.
struct LayerSpec {
  LayerSpec() : tops(1) {}

  string prototxt;  // the inside of a layer { }
  vector<BlobSpec> bottoms;
  int tops;
  vector<vector<double>> params;     // parameter blobs to set, by index
  vector<vector<double>> top_diffs;  // empty: the loss weights
  vector<int> checked_bottoms;       // those with a gradient
  vector<int> checked_params;
};

/// Faults that the gradient check must find.
enum Fault {
  NO_FAULT,
  ZERO,            // Backward writes zeros
  SIGN,            // the gradient of -f
  FACTOR,          // a factor of 2 is missing
  NO_LOSS_WEIGHT,  // the top's diff is not multiplied in
  ONE_ELEMENT      // a single element of each blob is zero
};

inline LayerParameter ParseLayer(const string& prototxt) {
  LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(prototxt, &param))
      << "Not a layer: " << prototxt;
  return param;
}

/// A layer that is built from a LayerSpec, with its blobs. Every Forward
/// starts from the same parameters: MarginInnerProduct rewrites its own.
template <typename Dtype>
class LayerRig {
 public:
  static const unsigned int kSeed = 1701;

  explicit LayerRig(const LayerSpec& spec) : spec_(spec), fault_(NO_FAULT) {
    for (int i = 0; i < spec.bottoms.size(); ++i) {
      bottom_blobs_.push_back(shared_ptr<Blob<Dtype>>(new Blob<Dtype>()));
      bottom_.push_back(bottom_blobs_.back().get());
      SetBottom(i, spec.bottoms[i]);
    }
    for (int i = 0; i < spec.tops; ++i) {
      top_blobs_.push_back(shared_ptr<Blob<Dtype>>(new Blob<Dtype>()));
      top_.push_back(top_blobs_.back().get());
    }
    Caffe::set_random_seed(kSeed);
    layer_ = LayerRegistry<Dtype>::CreateLayer(ParseLayer(spec.prototxt));
    layer_->SetUp(bottom_, top_);
    for (int i = 0; i < spec.params.size(); ++i) {
      if (!spec.params[i].empty()) {
        Write(spec.params[i], param(i)->mutable_cpu_data());
      }
    }
    for (int i = 0; i < spec.tops; ++i) {
      top_diffs_.push_back(i < spec.top_diffs.size() ? spec.top_diffs[i]
                                                     : TopDiff(i));
    }
    Keep();
  }

  /// Makes the present parameters those that every Forward starts from.
  void Keep() {
    kept_.clear();
    for (int i = 0; i < layer_->blobs().size(); ++i) {
      kept_.push_back(Read(param(i)->count(), param(i)->cpu_data()));
    }
  }

  /// Makes the first parameter blob what a forward pass leaves of it (unit
  /// rows, for MarginInnerProduct), and leaves the other ones alone.
  void Settle() {
    Forward();
    if (!kept_.empty()) {
      kept_[0] = Read(param(0)->count(), param(0)->cpu_data());
    }
  }

  /// Reseeds, restores the parameters, and returns sum(top * top diff).
  double Forward(unsigned int seed = kSeed) {
    for (int i = 0; i < kept_.size(); ++i) {
      Write(kept_[i], param(i)->mutable_cpu_data());
    }
    Caffe::set_random_seed(seed);
    layer_->Forward(bottom_, top_);
    double objective = 0;
    for (int i = 0; i < top_.size(); ++i) {
      CHECK_EQ(top_diffs_[i].size(), top_[i]->count());
      Write(top_diffs_[i], top_[i]->mutable_cpu_diff());
      const vector<double> data = Top(i);
      for (int j = 0; j < data.size(); ++j) {
        objective += data[j] * top_diffs_[i][j];
      }
    }
    return objective;
  }

  /// As a solver calls it: parameter diffs are cleared before, bottom diffs
  /// hold rubbish.
  void Backward() {
    vector<bool> propagate_down(bottom_.size(), true);
    for (int i = 0; i < layer_->blobs().size(); ++i) {
      caffe_set(param(i)->count(), Dtype(0), param(i)->mutable_cpu_diff());
    }
    for (int i = 0; i < bottom_.size(); ++i) {
      caffe_set(bottom_[i]->count(), Dtype(777),
                bottom_[i]->mutable_cpu_diff());
    }
    if (fault_ == NO_LOSS_WEIGHT) {
      caffe_set(top_[0]->count(), Dtype(1), top_[0]->mutable_cpu_diff());
    }
    layer_->Backward(top_, propagate_down, bottom_);
    for (int i = 0; i < spec_.checked_bottoms.size(); ++i) {
      Break(bottom_[spec_.checked_bottoms[i]]);
    }
    for (int i = 0; i < spec_.checked_params.size(); ++i) {
      Break(param(spec_.checked_params[i]));
    }
  }

  void SetBottom(int i, const BlobSpec& blob) {
    bottom_[i]->Reshape(blob.shape);
    CHECK_EQ(bottom_[i]->count(), blob.values.size());
    Write(blob.values, bottom_[i]->mutable_cpu_data());
  }
  void set_fault(Fault fault) { fault_ = fault; }

  Layer<Dtype>* layer() { return layer_.get(); }
  Blob<Dtype>* bottom(int i) { return bottom_[i]; }
  Blob<Dtype>* top(int i) { return top_[i]; }
  Blob<Dtype>* param(int i) { return layer_->blobs()[i].get(); }
  const vector<Blob<Dtype>*>& bottoms() { return bottom_; }
  const vector<Blob<Dtype>*>& tops() { return top_; }
  vector<double>* kept(int i) { return &kept_[i]; }

  vector<double> Top(int i) {
    return Read(top_[i]->count(), top_[i]->cpu_data());
  }
  vector<double> TopDiff(int i) {
    return Read(top_[i]->count(), top_[i]->cpu_diff());
  }
  vector<double> BottomDiff(int i) {
    return Read(bottom_[i]->count(), bottom_[i]->cpu_diff());
  }
  vector<double> Param(int i) {
    return Read(param(i)->count(), param(i)->cpu_data());
  }
  vector<double> ParamDiff(int i) {
    return Read(param(i)->count(), param(i)->cpu_diff());
  }

 private:
  static vector<double> Read(int count, const Dtype* values) {
    return vector<double>(values, values + count);
  }
  static void Write(const vector<double>& values, Dtype* to) {
    for (int i = 0; i < values.size(); ++i) {
      to[i] = values[i];
    }
  }

  void Break(Blob<Dtype>* blob) {
    Dtype* diff = blob->mutable_cpu_diff();
    const Dtype factor = fault_ == ZERO     ? 0
                         : fault_ == SIGN   ? -1
                         : fault_ == FACTOR ? 0.5
                                            : 1;
    int largest = 0;
    for (int i = 0; i < blob->count(); ++i) {
      diff[i] *= factor;
      largest = std::abs(diff[i]) > std::abs(diff[largest]) ? i : largest;
    }
    if (fault_ == ONE_ELEMENT) {
      diff[largest] = 0;
    }
  }

  LayerSpec spec_;
  Fault fault_;
  shared_ptr<Layer<Dtype>> layer_;
  vector<shared_ptr<Blob<Dtype>>> bottom_blobs_;
  vector<shared_ptr<Blob<Dtype>>> top_blobs_;
  vector<Blob<Dtype>*> bottom_;
  vector<Blob<Dtype>*> top_;
  vector<vector<double>> top_diffs_;  // the derivatives of the objective
  vector<vector<double>> kept_;       // the parameters before a Forward
};

template <typename Dtype>
const unsigned int LayerRig<Dtype>::kSeed;

inline double Largest(const vector<double>& values) {
  double largest = 0;
  for (int i = 0; i < values.size(); ++i) {
    // not std::max, which loses a NaN
    largest = std::abs(values[i]) <= largest ? largest : std::abs(values[i]);
  }
  return largest;
}

/// |a - b| over the larger of both, or over 1e-3 of the blob's largest.
inline double RelativeError(double a, double b, double largest) {
  const double scale =
      std::max(std::max(std::abs(a), std::abs(b)), 1e-3 * largest);
  return scale == 0 ? 0 : std::abs(a - b) / scale;
}

inline void ExpectValue(double expected, double actual, double tolerance) {
  EXPECT_NEAR(expected, actual, tolerance * std::max(1., std::abs(expected)));
}

inline void ExpectValues(const vector<double>& expected,
                         const vector<double>& actual, double tolerance) {
  ASSERT_EQ(expected.size(), actual.size());
  for (int i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(expected[i], actual[i],
                tolerance * std::max(1., std::abs(expected[i])))
        << "element " << i;
  }
}

/// Equal but for `tolerance` times the largest number expected.
inline void ExpectArray(const vector<double>& expected,
                        const vector<double>& actual, double tolerance) {
  ASSERT_EQ(expected.size(), actual.size());
  const double largest = Largest(expected);
  for (int i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(expected[i], actual[i], tolerance * largest)
        << "element " << i << ", the largest is " << largest;
  }
}

inline void ExpectAllZero(const vector<double>& values) {
  for (int i = 0; i < values.size(); ++i) {
    EXPECT_EQ(0, values[i]) << "element " << i;
  }
}

/// A forked process cannot go on with its parent's GPU: EXPECT_DEATH starts the
/// test program anew instead.
inline void UseFreshProcessesForDeath() {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
}

/// Gram matrices are made in strips of so many elements while it lives.
class StripElements {
 public:
  explicit StripElements(int elements) {
    *caffe_metric::strip_elements() = elements;
  }
  ~StripElements() {
    *caffe_metric::strip_elements() = caffe_metric::kStripElements;
  }
};

/// What a check against central differences saw.
struct GradientReport {
  GradientReport()
      : error(0), where("nowhere"), checked(0), kinks(0), largest(0) {}
  double error;    // the largest relative error
  string where;    // and its element
  int checked;     // elements compared
  int kinks;       // elements left out: f bends within reach of the step
  double largest;  // the largest difference quotient met
};

/// Holds `analytic` against central differences of fourth order of the
/// objective along each of `values`. A kink shows as a fourth difference that
/// does not vanish with the step; it is counted, not compared.
template <typename Values>
void CompareToDifferences(LayerRig<double>* rig, const string& name,
                          const vector<double>& analytic, Values* values,
                          GradientReport* report) {
  const double step = 1e-4;
  const double kink = 1e-4;  // of the largest slope
  vector<double> numeric(analytic.size());
  vector<double> bend(analytic.size());
  const double middle = rig->Forward();
  for (int i = 0; i < analytic.size(); ++i) {
    const double value = values->at(i);
    double f[5];
    for (int k = -2; k <= 2; ++k) {
      values->set(i, value + k * step);
      f[k + 2] = k == 0 ? middle : rig->Forward();
    }
    values->set(i, value);
    numeric[i] = (8 * (f[3] - f[1]) - (f[4] - f[0])) / (12 * step);
    bend[i] = std::abs(f[0] - 4 * f[1] + 6 * f[2] - 4 * f[3] + f[4]) / step;
  }
  const double largest = Largest(numeric);
  report->largest = std::max(report->largest, largest);
  for (int i = 0; i < analytic.size(); ++i) {
    if (bend[i] > kink * largest) {
      ++report->kinks;
      continue;
    }
    ++report->checked;
    const double error = RelativeError(analytic[i], numeric[i], largest);
    if (!(error <= report->error)) {
      std::ostringstream where;
      where << name << "[" << i << "]: backward says " << analytic[i]
            << ", central differences " << numeric[i];
      report->error = error;
      report->where = where.str();
    }
  }
}

/// The numbers of a bottom, or of a parameter as Forward restores it.
class BottomValues {
 public:
  explicit BottomValues(Blob<double>* blob) : blob_(blob) {}
  double at(int i) const { return blob_->cpu_data()[i]; }
  void set(int i, double value) { blob_->mutable_cpu_data()[i] = value; }

 private:
  Blob<double>* blob_;
};

class KeptValues {
 public:
  explicit KeptValues(vector<double>* values) : values_(values) {}
  double at(int i) const { return (*values_)[i]; }
  void set(int i, double value) { (*values_)[i] = value; }

 private:
  vector<double>* values_;
};

/// Runs the check over everything that a LayerSpec calls differentiable, in
/// double, on the device that is set.
inline GradientReport CheckGradient(const LayerSpec& spec,
                                    Fault fault = NO_FAULT) {
  LayerRig<double> rig(spec);
  rig.Settle();
  rig.Forward();
  rig.set_fault(fault);
  rig.Backward();
  vector<vector<double>> bottom_diffs, param_diffs;
  for (int i = 0; i < spec.checked_bottoms.size(); ++i) {
    bottom_diffs.push_back(rig.BottomDiff(spec.checked_bottoms[i]));
  }
  for (int i = 0; i < spec.checked_params.size(); ++i) {
    param_diffs.push_back(rig.ParamDiff(spec.checked_params[i]));
  }
  rig.set_fault(NO_FAULT);
  GradientReport report;
  for (int i = 0; i < bottom_diffs.size(); ++i) {
    std::ostringstream name;
    name << "bottom " << spec.checked_bottoms[i];
    BottomValues values(rig.bottom(spec.checked_bottoms[i]));
    CompareToDifferences(&rig, name.str(), bottom_diffs[i], &values, &report);
  }
  for (int i = 0; i < param_diffs.size(); ++i) {
    std::ostringstream name;
    name << "parameter " << spec.checked_params[i];
    KeptValues values(rig.kept(spec.checked_params[i]));
    CompareToDifferences(&rig, name.str(), param_diffs[i], &values, &report);
  }
  return report;
}

/// The layer's tops and gradients on a device; all diffs in one list.
template <typename Dtype>
vector<vector<double>> RunOn(Caffe::Brew device, const LayerSpec& spec) {
  const Caffe::Brew before = Caffe::mode();
  Caffe::set_mode(device);
  vector<vector<double>> result;
  {
    LayerRig<Dtype> rig(spec);
    rig.Settle();
    rig.Forward();
    rig.Backward();
    for (int i = 0; i < spec.tops; ++i) {
      result.push_back(rig.Top(i));
    }
    for (int i = 0; i < spec.bottoms.size(); ++i) {
      result.push_back(rig.BottomDiff(i));
    }
    for (int i = 0; i < rig.layer()->blobs().size(); ++i) {
      result.push_back(rig.ParamDiff(i));
    }
  }
  Caffe::set_mode(before);
  return result;
}

/// Double on the CPU: central differences, without a single kink. Float, and
/// the GPU: the tops and gradients of double on the CPU.
template <typename TypeParam>
void ExpectGradient(const LayerSpec& spec) {
  typedef typename TypeParam::Dtype Dtype;
  SCOPED_TRACE(spec.prototxt);
  if (TypeParam::device == Caffe::CPU && sizeof(Dtype) == sizeof(double)) {
    const GradientReport report = CheckGradient(spec);
    EXPECT_LE(report.error, Tolerance<double>::Difference()) << report.where;
    EXPECT_EQ(0, report.kinks);
    EXPECT_GT(report.largest, 0) << "Nothing to check: f is constant.";
    return;
  }
  const vector<vector<double>> expected = RunOn<double>(Caffe::CPU, spec);
  const vector<vector<double>> actual = RunOn<Dtype>(TypeParam::device, spec);
  ASSERT_EQ(expected.size(), actual.size());
  for (int i = 0; i < expected.size(); ++i) {
    SCOPED_TRACE(i);
    ExpectArray(expected[i], actual[i], Tolerance<Dtype>::Gradient());
  }
}

/// The check above accepts this layer and finds each fault in its gradient, in
/// double. The loss weight or the top diffs must not all be 1.
inline void ExpectTeeth(const LayerSpec& spec) {
  SCOPED_TRACE(spec.prototxt);
  EXPECT_LE(CheckGradient(spec).error, Tolerance<double>::Difference());
  const Fault faults[] = {ZERO, SIGN, FACTOR, NO_LOSS_WEIGHT, ONE_ELEMENT};
  for (int i = 0; i < 5; ++i) {
    const GradientReport report = CheckGradient(spec, faults[i]);
    EXPECT_GT(report.checked, 0);
    EXPECT_GT(report.error, 0.1) << "fault " << faults[i] << " passed";
  }
}

}  // namespace metric_test
}  // namespace caffe

#endif  // CAFFE_TEST_TEST_METRIC_UTIL_HPP_
