#include <sstream>
#include <string>
#include <vector>

#include "caffe/util/math_functions.hpp"
#include "caffe/util/metric_checks.hpp"
#include "caffe_metric/vector_ops.hpp"

namespace caffe {

// Trees of before 2015-08 train on one GPU, and those of before 2016-12 in one
// process.
template <typename C>
static auto solver_count(const C*) -> decltype(C::solver_count()) {
  return C::solver_count();
}
inline int solver_count(const void*) { return 1; }

template <typename C>
static auto multiprocess(const C*) -> decltype(C::multiprocess()) {
  return C::multiprocess();
}
inline bool multiprocess(const void*) { return false; }

void check_one_solver(const string& title, const char* what) {
  const Caffe* const tree = NULL;
  const int solvers = solver_count(tree);
  if (solvers == 1) {
    return;
  }
  CHECK(multiprocess(tree))
      << title << ": " << what << ", and " << solvers << " solvers in one "
      << "process would drift apart: train on one GPU, or with a process a GPU "
      << "that broadcasts before each forward (docs/multi_gpu.md)";
  LOG(WARNING) << title << ": " << what << ", and " << solvers << " solvers "
               << "drift apart unless they broadcast before each forward "
               << "(docs/multi_gpu.md)";
}

string layer_title(const LayerParameter& param) {
  return param.type() + " layer '" + param.name() + "'";
}

template <typename Dtype>
void refuse_label(const string& title, int row, Dtype label, int classes) {
  std::ostringstream text;
  text.precision(17);
  text << title << ": the label of row " << row << " is " << label;
  if (label >= caffe_metric::label_limit<Dtype>() &&
      (classes == caffe_metric::kAnyClass || label < classes)) {
    LOG(FATAL) << text.str() << ", and Caffe's " << 8 * sizeof(Dtype)
               << "-bit labels are exact below "
               << static_cast<int>(caffe_metric::label_limit<Dtype>())
               << " only: number the classes from 0";
  }
  if (classes == caffe_metric::kAnyClass) {
    LOG(FATAL) << text.str() << ", labels are integers >= 0";
  }
  LOG(FATAL) << text.str() << ", labels are integers in [0, " << classes << ")";
}

template <typename Dtype>
void check_labels(const string& title, const Blob<Dtype>& labels, int classes) {
  const Dtype* label = labels.cpu_data();
  for (int i = 0; i < labels.count(); ++i) {
    if (!caffe_metric::is_label(label[i], classes)) {
      refuse_label(title, i, label[i], classes);
    }
  }
}

template <typename Dtype>
void check_finite(const string& title, const Blob<Dtype>& rows,
                  const char* what) {
  const int num = rows.shape(0);
  const int dim = rows.count() / num;
  const Dtype* row = rows.cpu_data();
  for (int i = 0; i < num; ++i, row += dim) {
    CHECK(caffe_metric::all_finite(dim, row))
        << title << ": row " << i << " of the " << what << " holds NaN or Inf";
  }
}

template <typename Dtype>
void check_blobs(const string& title,
                 const vector<shared_ptr<Blob<Dtype>>>& blobs,
                 const vector<vector<int>>& shapes) {
  CHECK_EQ(blobs.size(), shapes.size())
      << title << ": has " << blobs.size() << " blobs in its parameters, needs "
      << shapes.size();
  for (size_t i = 0; i < shapes.size(); ++i) {
    // Models of 2014 have four axes: leading ones say nothing.
    vector<int> shape = blobs[i]->shape();
    while (shape.size() > shapes[i].size() && shape[0] == 1) {
      shape.erase(shape.begin());
    }
    CHECK(shape == shapes[i])
        << title << ": blob " << i << " has shape " << blobs[i]->shape_string()
        << ", needs " << Blob<Dtype>(shapes[i]).shape_string();
  }
}

uint64_t draw_key() {
  const uint64_t high = caffe_rng_rand();
  return (high << 32) | caffe_rng_rand();
}

#define INSTANTIATE(Dtype)                                                   \
  template void refuse_label(const string& title, int row, Dtype label,      \
                             int classes);                                   \
  template void check_labels(const string& title, const Blob<Dtype>& labels, \
                             int classes);                                   \
  template void check_finite(const string& title, const Blob<Dtype>& rows,   \
                             const char* what);                              \
  template void check_blobs(const string& title,                             \
                            const vector<shared_ptr<Blob<Dtype>>>& blobs,    \
                            const vector<vector<int>>& shapes)
INSTANTIATE(float);   // NOLINT(readability/function)
INSTANTIATE(double);  // NOLINT(readability/function)
#undef INSTANTIATE

}  // namespace caffe
