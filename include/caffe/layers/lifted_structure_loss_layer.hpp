#ifndef CAFFE_LIFTED_STRUCTURE_LOSS_LAYER_HPP_
#define CAFFE_LIFTED_STRUCTURE_LOSS_LAYER_HPP_

#include "caffe/layers/batch_loss_layer.hpp"

namespace caffe {

/**
 * @brief Lets each pair of one class compete with all others of its rows.
 *        Lifted structured feature embedding, with d the L2 distances of the
 *        rows or, with normalize, of rows of unit length. SONG (Song et al.
 *        2016, equation 4): over the pairs i < j of one class,
 *        @f$ E = \frac{1}{2|P|} \sum \max(0, J_{ij})^2 @f$,
 *        @f$ J_{ij} = \ln(\sum_{N_i} e^{m-d_{ik}} + \sum_{N_j} e^{m-d_{jk}})
 *            + d_{ij} @f$. GENERALIZED (Hermans et al. 2017, section 2): the
 *        mean over the anchors of
 *        @f$ \max(0, \ln \sum_P e^{d} + \ln \sum_N e^{m-d}) @f$.
 *
 * Bottoms, tops and memory: see BatchLossLayer. The rule:
 * include/caffe_metric/lifted_structure.hpp.
 */
template <typename Dtype>
class LiftedStructureLossLayer : public BatchLossLayer<Dtype> {
 public:
  explicit LiftedStructureLossLayer(const LayerParameter& param)
      : BatchLossLayer<Dtype>(param) {}
  virtual inline const char* type() const { return "LiftedStructureLoss"; }

 protected:
  virtual RuleRows<Dtype>* MakeRule() const;
  /// SONG's pairs are of two anchors: a row that is remembered is none.
  virtual bool has_memory() const {
    return this->layer_param_.lifted_structure_loss_param().form() ==
           LiftedStructureLossParameter_Form_GENERALIZED;
  }
};

}  // namespace caffe

#endif  // CAFFE_LIFTED_STRUCTURE_LOSS_LAYER_HPP_
