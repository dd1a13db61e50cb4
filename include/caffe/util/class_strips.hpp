#ifndef CAFFE_UTIL_CLASS_STRIPS_HPP_
#define CAFFE_UTIL_CLASS_STRIPS_HPP_

#include <algorithm>

namespace caffe {

/// How the classes of a layer are gone through: in strips, whose weights and
/// logits stay in a core's cache between a product and the sweep over it, and
/// in parts of some strips, which the cores share out. Both follow from the
/// sizes alone, so that results do not depend on the machine.
class ClassStrips {
 public:
  struct Limits {
    int elements;       // of a strip's weights, or logits
    int least_width;    // of a strip, in classes
    double least_work;  // multiplications that are worth a thread
  };
  /// Tests make them small.
  static Limits& limits() {
    static Limits limits = {1 << 18, 64, 1 << 22};
    return limits;
  }

  ClassStrips() : classes_(0), width_(1), parts_(1) {}

  /// Of a batch of `rows`, with `classes` rows of weights of length `dim`.
  ClassStrips(int rows, int classes, int dim) : classes_(classes) {
    const double kMostScratch = 1 << 22;  // elements, of the parts' gradients
    const int kMostParts = 16;
    width_ = std::min(classes, Width(limits().elements, rows, dim));
    const double features = static_cast<double>(rows) * dim;
    const double most = std::min(features * classes / limits().least_work,
                                 std::max(2., kMostScratch / features));
    parts_ = static_cast<int>(
        std::max(1., std::min<double>(std::min(kMostParts, strips()), most)));
  }

  /// The width of a strip on a GPU, where it keeps the whole device busy: its
  /// weights, 2^21 numbers, stay in the level-2 cache.
  static int GpuWidth(int rows, int classes, int dim) {
    const int kTimes = 8;
    return std::min(classes, Width(kTimes * limits().elements, rows, dim));
  }

  int width() const { return width_; }  // of a strip; the last may be narrower
  int strips() const { return (classes_ + width_ - 1) / width_; }
  int parts() const { return parts_; }
  /// The first class of a part; that of part `parts()` is the end.
  int PartBegin(int part) const {
    const int strip =
        static_cast<int>(static_cast<double>(strips()) * part / parts_);
    return std::min<double>(classes_, static_cast<double>(strip) * width_);
  }
  int StripEnd(int begin, int part_end) const {
    return begin + std::min(part_end - begin, width_);
  }

 private:
  static int Width(int elements, int rows, int dim) {
    return std::max(limits().least_width,
                    elements / std::max(rows, dim) / 16 * 16);
  }

  int classes_, width_, parts_;
};

}  // namespace caffe

#endif  // CAFFE_UTIL_CLASS_STRIPS_HPP_
