#ifndef CAFFE_UTIL_BATCH_MEMORY_HPP_
#define CAFFE_UTIL_BATCH_MEMORY_HPP_

#include <vector>

#include "caffe/blob.hpp"

namespace caffe {

/**
 * @brief A ring of the last rows of earlier batches and their labels
 *        (cross-batch memory, Wang et al. 2020), kept in three blobs of a
 *        layer, so that a snapshot holds it: rows @f$ (M \times D) @f$, labels
 *        @f$ (M) @f$, and the next place and the number of places that are
 *        filled @f$ (2) @f$.
 */
template <typename Dtype>
class BatchMemory {
 public:
  /// The shapes of the blobs.
  static vector<vector<int>> Shapes(int rows, int dim);
  /// Makes the blobs, empty, at the end of `blobs`.
  static void Make(int rows, int dim, vector<shared_ptr<Blob<Dtype>>>* blobs);
  /// Works on the last three of `blobs`.
  void Use(const vector<shared_ptr<Blob<Dtype>>>& blobs);
  bool used() const { return rows_.get() != NULL; }
  int filled() const;
  /// The filled rows follow x (num x dim), and their labels y.
  void Append(const Blob<Dtype>& x, const Blob<Dtype>& y, Blob<Dtype>* rows,
              Blob<Dtype>* labels) const;
  /// Keeps a batch in the place of the oldest rows.
  void Keep(const Blob<Dtype>& x, const Blob<Dtype>& y);

 private:
  shared_ptr<Blob<Dtype>> rows_, labels_, state_;
};

}  // namespace caffe

#endif  // CAFFE_UTIL_BATCH_MEMORY_HPP_
