#ifndef CAFFE_METRIC_RANDOM_HPP_
#define CAFFE_METRIC_RANDOM_HPP_

#include <stdint.h>

#include "caffe_metric/macros.hpp"

// Random draws without a state: the number that decides about candidate n of
// pair (a, b) is a hash of (key, a, b, n). So whoever evaluates it, in
// whatever order - a CPU loop, a GPU thread, NumPy - draws the same rows for
// the same key. To draw k of some candidates without replacement, take those
// with the k smallest numbers (lowest index on a tie).
//
// The hash is the finaliser of SplitMix64 (Steele, Lea & Flood 2014, "Fast
// splittable pseudorandom number generators", figure 17), applied twice.

namespace caffe_metric {

CAFFE_METRIC_HD uint64_t mix_bits(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

// The stream of numbers of the pair (a, b) under a key.
CAFFE_METRIC_HD uint64_t stream_of(uint64_t key, uint32_t a, uint32_t b) {
  const uint64_t pair = (static_cast<uint64_t>(a) << 32) | b;
  return mix_bits(key + 0x9E3779B97F4A7C15ULL * (pair + 1));
}

// The number of candidate n in a stream; uniform over 64 bits.
CAFFE_METRIC_HD uint64_t draw(uint64_t stream, uint32_t n) {
  return mix_bits(stream +
                  0x9E3779B97F4A7C15ULL * (static_cast<uint64_t>(n) + 1));
}

// True with probability one half.
CAFFE_METRIC_HD bool coin(uint64_t key, uint32_t n) {
  return draw(stream_of(key, 0, 0), n) >> 63;
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_RANDOM_HPP_
