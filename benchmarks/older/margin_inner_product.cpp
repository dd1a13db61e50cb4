// A-Softmax with m = 4 as a formula over whole arrays: the cosine of every
// row and class, its powers and signs, each an array of rows x classes; and a
// gradient of the features that goes through the classes one by one. A peer
// for the benchmark.

#include <cblas.h>

#include <cmath>
#include <vector>

namespace {

struct Arrays {
  std::vector<float> cosine, square, fourth, sign_0, sign_3, sign_4, psi;

  explicit Arrays(size_t count)
      : cosine(count),
        square(count),
        fourth(count),
        sign_0(count),
        sign_3(count),
        sign_4(count),
        psi(count) {}
};

float sign(float x) { return (x > 0) - (x < 0); }

}  // namespace

// Features x (m x k), weights w (c x k); writes the logits (m x c), the
// gradients dx and dw of top_diff (m x c), and scales the rows of w.
extern "C" void older_margin_inner_product(int m, int c, int k, float lambda,
                                           const float* x, const float* labels,
                                           float* w, const float* top_diff,
                                           float* logits, float* dx,
                                           float* dw) {
  for (int j = 0; j < c; ++j) {
    float* row = w + static_cast<size_t>(j) * k;
    cblas_sscal(k, 1 / std::sqrt(cblas_sdot(k, row, 1, row, 1)), row, 1);
  }
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, c, k, 1, x, k, w, k,
              0, logits, c);
  const size_t count = static_cast<size_t>(m) * c;
  static Arrays a(0);
  if (a.cosine.size() != count) {
    a = Arrays(count);
  }
  std::vector<float> norms(m);
  for (int i = 0; i < m; ++i) {
    norms[i] = std::sqrt(cblas_sdot(k, x + i * k, 1, x + i * k, 1));
    for (int j = 0; j < c; ++j) {
      const size_t at = static_cast<size_t>(i) * c + j;
      a.cosine[at] = logits[at] / norms[i];
    }
  }
  for (size_t at = 0; at < count; ++at) {
    a.square[at] = a.cosine[at] * a.cosine[at];
  }
  for (size_t at = 0; at < count; ++at) {
    a.fourth[at] = a.square[at] * a.square[at];
  }
  for (size_t at = 0; at < count; ++at) {
    a.sign_0[at] = sign(a.cosine[at]);
  }
  for (size_t at = 0; at < count; ++at) {
    a.sign_3[at] = a.sign_0[at] * sign(2 * a.square[at] - 1);
  }
  for (size_t at = 0; at < count; ++at) {
    a.sign_4[at] = 2 * a.sign_0[at] + a.sign_3[at] - 3;
  }
  for (size_t at = 0; at < count; ++at) {
    a.psi[at] =
        a.sign_3[at] * (8 * a.fourth[at] - 8 * a.square[at] + 1) + a.sign_4[at];
  }
  for (int i = 0; i < m; ++i) {
    const size_t at = static_cast<size_t>(i) * c + static_cast<int>(labels[i]);
    logits[at] = norms[i] * (lambda * a.cosine[at] + a.psi[at]) / (1 + lambda);
  }
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, c, k, m, 1, top_diff, c,
              x, k, 1, dw, k);
  for (int i = 0; i < m; ++i) {
    float* dxi = dx + i * k;
    cblas_sscal(k, 0, dxi, 1);
    for (int j = 0; j < c; ++j) {
      const size_t at = static_cast<size_t>(i) * c + j;
      float of_weight = 1;
      float of_feature = 0;
      if (j == static_cast<int>(labels[i])) {
        const float slope =
            a.sign_3[at] * 16 * a.cosine[at] * (2 * a.square[at] - 1);
        of_weight = (lambda + slope) / (1 + lambda);
        of_feature = (a.psi[at] - a.cosine[at] * slope) / (1 + lambda);
        cblas_saxpy(k, top_diff[at] * of_feature / norms[i], x + i * k, 1, dxi,
                    1);
      }
      cblas_saxpy(k, top_diff[at] * of_weight, w + static_cast<size_t>(j) * k,
                  1, dxi, 1);
    }
  }
}
