#ifndef CAFFE_MARGIN_SOFTMAX_LOSS_LAYER_HPP_
#define CAFFE_MARGIN_SOFTMAX_LOSS_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layers/margin_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe_metric/softmax_rule.hpp"

namespace caffe {

/**
 * @brief MarginInnerProduct and SoftmaxWithLoss as one layer, whose logits are
 *        made a strip of classes at a time:
 *        @f$ E = \frac{1}{Z} \sum_i \left( \ln \sum_j e^{z_{ij}} -
 *            (1 - s) z_{i y_i} - \frac{s}{n} \sum_j z_{ij} \right) @f$
 *        with z the logits of margin_inner_product_param, s label_smoothing, n
 *        the number of classes that meet, and Z by loss_param, as in
 *        SoftmaxWithLoss (default VALID: the rows that are not ignored).
 *
 * Its blobs are MarginInnerProduct's, so that a model trains with one and goes
 * on with the other. With keep_logits NEVER it needs memory for a few strips
 * beyond the weights. With sample_rate < 1 a TRAIN pass meets the classes of
 * the batch and a random part of the others, drawn anew each time; a TEST pass
 * meets all.
 *
 * A solver goes over every row of the weights each iteration: momentum and
 * decay move rows that did not meet, too. With own_update the layer itself
 * updates the rows that met, in a TRAIN Backward, by
 * @f$ h \leftarrow momentum \, h + rate (dw + decay \, w), w \leftarrow w - h
 * @f$, and leaves the others as they are, bit for bit.
 *
 * @param bottom input Blob vector (length 2)
 *   -# @f$ (M \times K) @f$ the features, K all axes from `axis` on
 *   -# @f$ (M) @f$ the labels, integers in [0, num_output), or ignore_label;
 *      with ignore_negative_labels negative ones are ignored, too
 * @param top output Blob vector (length 1 to 3)
 *   -# the loss, 0 axes
 *   -# @f$ \lambda @f$, 0 axes; does not propagate
 *   -# the share of the rows whose plain logit, without a margin, is the
 *      greatest, 0 axes; does not propagate
 *
 * Blobs: the weights @f$ (C \times K) @f$; with persist_iteration, t (1); with
 * own_update, h @f$ (C \times K) @f$ and the rate (1).
 */
template <typename Dtype>
class MarginSoftmaxLossLayer : public MarginLayer<Dtype> {
 public:
  explicit MarginSoftmaxLossLayer(const LayerParameter& param)
      : MarginLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                          const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
                       const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "MarginSoftmaxLoss"; }
  virtual inline int MaxTopBlobs() const { return 3; }
  virtual inline bool AutoTopBlobs() const { return true; }

 protected:
  typedef typename MarginLayer<Dtype>::Scratch Scratch;

  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                           const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                           const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
                            const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
                            const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);

  virtual vector<vector<int>> BlobShapes() const;
  virtual void FillBlobs();
  virtual bool Draws() const {
    return this->param_.triplet() || softmax_.sample_rate() < 1;
  }
  virtual bool NeedsBackward() const {
    return this->param_.triplet() || softmax_.own_update();
  }
  virtual bool UpdatesWeights() const {
    return softmax_.own_update() && this->train();
  }
  virtual void FinishWeightGradient(int j, const Dtype* weights,
                                    const Dtype* diff);

  /// Chooses the classes that meet, and counts the rows that have a target.
  void DrawClasses();
  /// Whether a batch's logits are kept for Backward.
  bool KeepsLogits() const;
  // CPU: where the logits of a strip are.
  Dtype* StripRoom(int begin, int end, Scratch* scratch);
  // CPU: folds row i's logits of a strip, and makes exponentials of them.
  void FoldStrip(int part, int i, int begin, int end, Dtype* logits);
  // CPU: d loss / d logits of a strip, from its exponentials or logits.
  void StripDiffs(int begin, int end, Dtype weight, Dtype* logits);
  // GPU: reads the labels and chooses the classes that meet; the draw of
  // `count` of them; where the logits of a strip are.
  void SampleGpu(const Blob<Dtype>& labels);
  void DrawClassesGpu(const Blob<Dtype>& labels, int count);
  Dtype* StripRoomGpu(int begin);
  void StripGradientGpu(const Dtype* features, const Dtype* weights, int begin,
                        int end, const Dtype* logits_diff);
  /// The loss, and what else is reported, of the sums over the rows.
  void SetTops(double loss, double right, const vector<Blob<Dtype>*>& top);
  /// What the loss is divided by.
  Dtype Normalizer() const;
  caffe_metric::Update<Dtype> GetUpdate() const;

  MarginSoftmaxLossParameter softmax_;
  LossParameter_NormalizationMode normalization_;
  int valid_;  // rows that have a target
  bool kept_;  // whether exponentials_ holds those of the last forward

  // Cached for backward pass.
  vector<caffe_metric::SoftmaxRow> row_states_;  // (M)
  vector<Dtype> target_logits_;                  // (M)
  Blob<Dtype> exponentials_;    // (n x M), by strips: exp(z - shift)
  vector<Dtype> strip_shifts_;  // (strips x M): their shifts

  // CPU only.
  Dtype* exponentials_data_;                      // exponentials_
  vector<caffe_metric::SoftmaxRow> part_states_;  // (parts x M)
  vector<Dtype> plain_targets_;                   // (M): without a margin
  Dtype* cosines_data_;                           // cosines_
  Dtype* momentum_;                               // h
  caffe_metric::Update<Dtype> update_;

  // GPU only.
  Blob<int> batch_targets_;    // (M): the classes of the batch, or -1
  Blob<int> marks_;            // (C): see class_sampling.cuh, as the next two
  Blob<int> edge_;             // (C)
  Blob<int> sampling_counts_;  // (bins + 1 + blocks)
  Blob<double> states_gpu_;    // (M x 5): row_states_
  Blob<Dtype> target_logits_gpu_;  // (M)
  Blob<Dtype> plain_targets_gpu_;  // (M)
  Blob<double> pieces_gpu_;        // (pieces x M x 5): SoftmaxRow
  Blob<Dtype> strip_logits_;       // (M x strip)
  Blob<double> row_reports_;       // (M x 4): see finish_rows
  Blob<double> sums_;              // (4): over the rows
  Blob<int> arrived_;              // (1): see block_is_last
};

}  // namespace caffe

#endif  // CAFFE_MARGIN_SOFTMAX_LOSS_LAYER_HPP_
