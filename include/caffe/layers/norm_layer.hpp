#ifndef CAFFE_NORM_LAYER_HPP_
#define CAFFE_NORM_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief Scales features to unit length:
 *        @f$ y = x / \max(\|x\|_2, eps) @f$ over axis 1, at each position of
 *        the further axes. A vector shorter than eps has zero gradient.
 *
 * @param bottom input Blob vector (length 1)
 *   -# @f$ (N \times C \times ...) @f$ the features @f$ x @f$
 * @param top output Blob vector (length 1)
 *   -# the same shape: @f$ y @f$; in-place computation is allowed
 */
template <typename Dtype>
class NormLayer : public Layer<Dtype> {
 public:
  explicit NormLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                          const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
                       const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "Norm"; }
  virtual inline int ExactNumBottomBlobs() const { return 1; }
  virtual inline int ExactNumTopBlobs() const { return 1; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                           const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                           const vector<Blob<Dtype>*>& top);
  /// @brief @f$ dx = (dy - (dy \cdot y) y) / \|x\| @f$, of the top's data.
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
                            const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
                            const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);

  Dtype eps_;
  int outer_num_, channels_, inner_num_;
  Blob<Dtype> norms_;  // (N x positions): ||x||, cached for backward pass
};

}  // namespace caffe

#endif  // CAFFE_NORM_LAYER_HPP_
