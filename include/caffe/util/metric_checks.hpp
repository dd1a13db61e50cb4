#ifndef CAFFE_UTIL_METRIC_CHECKS_HPP_
#define CAFFE_UTIL_METRIC_CHECKS_HPP_

#include <stdint.h>

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe_metric/labels.hpp"

// What the metric layers ask of their input, and the words in which they
// refuse it. Every check ends the process by CHECK, before anything is
// written; `title` begins the message.

namespace caffe {

/// `Type layer 'name'`, as error messages begin.
string layer_title(const LayerParameter& param);

/// Every label is an integer in [0, classes), and below 2^24 in float.
template <typename Dtype>
void check_labels(const string& title, const Blob<Dtype>& labels,
                  int classes = caffe_metric::kAnyClass);

/// Ends the process with what is wrong with the label of a row.
template <typename Dtype>
void refuse_label(const string& title, int row, Dtype label, int classes);

/// No row of `what` holds NaN or Inf. Rows lie along axis 0.
template <typename Dtype>
void check_finite(const string& title, const Blob<Dtype>& rows,
                  const char* what);

/// Blobs that came inside the LayerParameter are as many as the layer makes,
/// and have their shapes. Shapes of old models, of four axes, count as equal.
template <typename Dtype>
void check_blobs(const string& title,
                 const vector<shared_ptr<Blob<Dtype>>>& blobs,
                 const vector<vector<int>>& shapes);

/// Ends the process where several solvers train side by side in it, as with
/// `caffe train --gpu 0,1`: `what` writes parameters by each solver's own
/// batch, which no exchange of diffs makes equal. Solvers in processes of their
/// own can broadcast them (docs/multi_gpu.md): there it warns.
void check_one_solver(const string& title, const char* what);

/// The key of a forward's random draws, from Caffe's generator, so that
/// random_seed governs them.
uint64_t draw_key();

}  // namespace caffe

#endif  // CAFFE_UTIL_METRIC_CHECKS_HPP_
