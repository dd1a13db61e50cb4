#include "caffe/util/batch_memory.hpp"

#include <algorithm>
#include <vector>

#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
static const Dtype* data_of(const Blob<Dtype>& blob) {
  return Caffe::mode() == Caffe::GPU ? blob.gpu_data() : blob.cpu_data();
}

template <typename Dtype>
static Dtype* mutable_data_of(Blob<Dtype>* blob) {
  return Caffe::mode() == Caffe::GPU ? blob->mutable_gpu_data()
                                     : blob->mutable_cpu_data();
}

template <typename Dtype>
vector<vector<int>> BatchMemory<Dtype>::Shapes(int rows, int dim) {
  vector<vector<int>> shapes(3, vector<int>(1, rows));
  shapes[0].push_back(dim);
  shapes[2][0] = 2;
  return shapes;
}

template <typename Dtype>
void BatchMemory<Dtype>::Make(int rows, int dim,
                              vector<shared_ptr<Blob<Dtype>>>* blobs) {
  const vector<vector<int>> shapes = Shapes(rows, dim);
  for (size_t i = 0; i < shapes.size(); ++i) {
    blobs->push_back(shared_ptr<Blob<Dtype>>(new Blob<Dtype>(shapes[i])));
    caffe_set(blobs->back()->count(), Dtype(0),
              blobs->back()->mutable_cpu_data());
  }
}

template <typename Dtype>
void BatchMemory<Dtype>::Use(const vector<shared_ptr<Blob<Dtype>>>& blobs) {
  rows_ = blobs[blobs.size() - 3];
  labels_ = blobs[blobs.size() - 2];
  state_ = blobs[blobs.size() - 1];
}

template <typename Dtype>
int BatchMemory<Dtype>::filled() const {
  return used() ? static_cast<int>(state_->cpu_data()[1]) : 0;
}

template <typename Dtype>
void BatchMemory<Dtype>::Append(const Blob<Dtype>& x, const Blob<Dtype>& y,
                                Blob<Dtype>* rows, Blob<Dtype>* labels) const {
  const int num = x.shape(0);
  const int dim = x.count(1);
  const int more = filled();
  rows->Reshape(num + more, dim, 1, 1);
  labels->Reshape(num + more, 1, 1, 1);
  Dtype* to_rows = mutable_data_of(rows);
  Dtype* to_labels = mutable_data_of(labels);
  caffe_copy(num * dim, data_of(x), to_rows);
  caffe_copy(num, data_of(y), to_labels);
  if (more > 0) {
    caffe_copy(more * dim, data_of(*rows_), to_rows + num * dim);
    caffe_copy(more, data_of(*labels_), to_labels + num);
  }
}

template <typename Dtype>
void BatchMemory<Dtype>::Keep(const Blob<Dtype>& x, const Blob<Dtype>& y) {
  const int capacity = rows_->shape(0);
  const int dim = rows_->shape(1);
  const int num = x.shape(0);
  int next = static_cast<int>(state_->cpu_data()[0]);
  // Of a batch larger than the ring, its last rows.
  for (int i = std::max(0, num - capacity); i < num;) {
    const int count = std::min(num - i, capacity - next);
    caffe_copy(count * dim, data_of(x) + static_cast<size_t>(i) * dim,
               mutable_data_of(rows_.get()) + static_cast<size_t>(next) * dim);
    caffe_copy(count, data_of(y) + i, mutable_data_of(labels_.get()) + next);
    i += count;
    next = (next + count) % capacity;
  }
  Dtype* state = state_->mutable_cpu_data();
  state[0] = next;
  state[1] = std::min(capacity, static_cast<int>(state[1]) + num);
}

INSTANTIATE_CLASS(BatchMemory);

}  // namespace caffe
