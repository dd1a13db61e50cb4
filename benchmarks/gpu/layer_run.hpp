#ifndef GPU_LAYER_RUN_HPP_
#define GPU_LAYER_RUN_HPP_

#include <google/protobuf/text_format.h>

#include <cmath>
#include <string>
#include <vector>

#include "boost/shared_ptr.hpp"
#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layer_factory.hpp"
#include "cases.hpp"

// One layer with its bottoms and tops, in float.

namespace gpu_bench {

using caffe::Blob;

// Numbers that are the same on every machine.
class Numbers {
 public:
  explicit Numbers(unsigned seed) : state_(seed * 2654435761u + 1u) {}
  double Uniform() {
    state_ = state_ * 1664525u + 1013904223u;
    return (state_ >> 8) / 16777216.;
  }
  double Normal() {
    const double r = std::sqrt(-2 * std::log(1 - Uniform()));
    return r * std::cos(6.283185307179586 * Uniform());
  }

 private:
  unsigned state_;
};

// Row i is of class label_of(c, i).
inline int label_of(const Case& c, int i) {
  return i / c.per_class % c.classes;
}

// Unit rows; those of a class, or of a cluster, are near each other.
inline void fill_rows(const Case& c, unsigned seed, Blob<float>* x) {
  Numbers numbers(seed);
  const int groups = c.clusters > 0 ? c.clusters : c.classes;
  const double spread = c.clusters > 0 ? 1e-3 : 1;
  for (int i = 0; i < c.rows; ++i) {
    const int group = c.clusters > 0 ? i % c.clusters : label_of(c, i);
    Numbers centre(seed + 1 + group % groups);
    vector<double> row(c.dim);
    double square = 0;
    for (int k = 0; k < c.dim; ++k) {
      row[k] = centre.Normal() + spread * numbers.Normal();
      square += row[k] * row[k];
    }
    const double length = std::sqrt(square);
    for (int k = 0; k < c.dim; ++k) {
      x->mutable_cpu_data()[static_cast<size_t>(i) * c.dim + k] =
          static_cast<float>(row[k] / length);
    }
  }
}

// Rows of 1 and -1, the second half the first half's opposite: norms, means and
// products are whole numbers, and every comparison comes out alike wherever it
// is made. There are ties.
inline void fill_signs(const Case& c, unsigned seed, Blob<float>* x) {
  Numbers numbers(seed);
  float* data = x->mutable_cpu_data();
  const int half = c.rows / 2;
  for (int i = 0; i < half; ++i) {
    Numbers centre(seed + 1 + label_of(c, i));
    for (int k = 0; k < c.dim; ++k) {
      const bool up = (centre.Uniform() < 0.5) != (numbers.Uniform() < 0.2);
      data[static_cast<size_t>(i) * c.dim + k] = up ? 1 : -1;
      data[static_cast<size_t>(half + i) * c.dim + k] = up ? -1 : 1;
    }
  }
}

class LayerRun {
 public:
  LayerRun(const Case& c, const string& layer, bool signs) {
    caffe::LayerParameter parameter;
    CHECK(google::protobuf::TextFormat::ParseFromString(
        "name: 'timed' phase: TRAIN " + layer, &parameter))
        << layer;
    const int features = c.bottoms == TRIPLETS_OF_ROWS ? 3 : 1;
    for (int i = 0; i < features; ++i) {
      AddBottom(c.rows, c.dim);
      signs ? fill_signs(c, 10 + i, bottoms_.back())
            : fill_rows(c, 10 + i, bottoms_.back());
      propagate_.push_back(true);
    }
    if (c.bottoms == FEATURES_AND_LABELS) {
      AddBottom(c.rows, 0);
      for (int i = 0; i < c.rows; ++i) {
        bottoms_.back()->mutable_cpu_data()[i] = label_of(c, i);
      }
      propagate_.push_back(false);
    }
    Start(parameter);
  }

  void Forward() { layer_->Forward(bottoms_, tops_); }
  void Backward() { layer_->Backward(tops_, propagate_, bottoms_); }

  // Brings the bottoms and the top's diff to the device.
  void ToDevice() {
    for (size_t i = 0; i < bottoms_.size(); ++i) {
      bottoms_[i]->gpu_data();
    }
    tops_[0]->gpu_diff();
  }

  // All numbers that a pass leaves, an array each: tops, then what gradients
  // there are.
  vector<vector<float>> Results() {
    vector<vector<float>> results;
    for (size_t i = 0; i < tops_.size(); ++i) {
      Keep(*tops_[i], false, &results);
    }
    for (size_t i = 0; i < bottoms_.size(); ++i) {
      if (propagate_[i]) {
        Keep(*bottoms_[i], true, &results);
      }
    }
    if (layer_->blobs().size() > 0) {
      Keep(*layer_->blobs()[0], true, &results);
    }
    return results;
  }

 private:
  void AddBottom(int rows, int dim) {
    vector<int> shape(1, rows);
    if (dim > 0) {
      shape.push_back(dim);
    }
    owned_.push_back(boost::shared_ptr<Blob<float>>(new Blob<float>(shape)));
    bottoms_.push_back(owned_.back().get());
  }

  void Start(const caffe::LayerParameter& parameter) {
    layer_ = caffe::LayerRegistry<float>::CreateLayer(parameter);
    const bool loss = string(layer_->type()).find("Loss") != string::npos;
    owned_.push_back(boost::shared_ptr<Blob<float>>(new Blob<float>()));
    tops_.push_back(owned_.back().get());
    layer_->SetUp(bottoms_, tops_);
    for (size_t b = 0; b < layer_->blobs().size(); ++b) {
      Blob<float>* blob = layer_->blobs()[b].get();
      std::fill_n(blob->mutable_cpu_diff(), blob->count(), 0.f);
    }
    if (!loss) {
      Numbers numbers(5);
      for (int i = 0; i < tops_[0]->count(); ++i) {
        tops_[0]->mutable_cpu_diff()[i] =
            static_cast<float>(numbers.Normal() / tops_[0]->shape(0));
      }
    }
  }

  static void Keep(const Blob<float>& blob, bool diff,
                   vector<vector<float>>* results) {
    const float* data = diff ? blob.cpu_diff() : blob.cpu_data();
    results->push_back(vector<float>(data, data + blob.count()));
  }

  vector<boost::shared_ptr<Blob<float>>> owned_;
  vector<Blob<float>*> bottoms_, tops_;
  vector<bool> propagate_;
  boost::shared_ptr<caffe::Layer<float>> layer_;
};

}  // namespace gpu_bench

#endif  // GPU_LAYER_RUN_HPP_
