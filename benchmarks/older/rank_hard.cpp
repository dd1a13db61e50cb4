// RankHardLoss as it is written down: all similarities by loops, all
// candidates sorted. A peer for the benchmark; its draws are its own.

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

namespace {

// s(u, v) = -u . v
float similarity(int dim, const float* u, const float* v) {
  float s = 0;
  for (int k = 0; k < dim; ++k) {
    s -= u[k] * v[k];
  }
  return s;
}

// Moves `number` random rows of [begin, size) to the front.
void shuffle_some(std::vector<std::pair<float, int>>* rows, int begin, int end,
                  int number) {
  for (int k = begin; k < std::min(begin + number, end); ++k) {
    std::swap((*rows)[k], (*rows)[k + std::rand() % (end - k)]);
  }
}

}  // namespace

// Returns the loss of n rows x (n x dim) in groups of pair_size, and adds its
// gradient to dx. s has room for n x n numbers.
extern "C" float older_rank_hard(int n, int dim, int pair_size, int neg_num,
                                 float hard_ratio, float rand_ratio,
                                 float margin, const float* x,
                                 const float* labels, float* s, float* dx) {
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      s[i * n + j] = similarity(dim, x + i * dim, x + j * dim);
    }
  }
  const float scale = 1.f / (neg_num * (n / pair_size) * 2);
  float loss = 0;
  std::fill(dx, dx + n * dim, 0.f);
  for (int i = 0; i < n; i += pair_size) {
    const float positive = s[i * n + i + 1];
    std::vector<std::pair<float, int>> rows;
    for (int j = 0; j < n; ++j) {
      if (labels[j] != labels[i] && positive - s[i * n + j] + margin > 0) {
        rows.push_back(std::make_pair(s[i * n + j], j));
      }
    }
    if (static_cast<int>(rows.size()) > neg_num) {
      std::sort(rows.begin(), rows.end());
      const int hard = neg_num * hard_ratio;
      const int random = neg_num * rand_ratio;
      shuffle_some(&rows, 0, neg_num, hard);
      shuffle_some(&rows, hard, rows.size(), random);
      rows.resize(std::min<size_t>(rows.size(), hard + random));
    }
    for (size_t t = 0; t < rows.size(); ++t) {
      const int j = rows[t].second;
      const float by_anchor = positive - s[i * n + j] + margin;
      const float by_positive = positive - s[(i + 1) * n + j] + margin;
      loss += std::max(0.f, by_anchor) + std::max(0.f, by_positive);
      for (int k = 0; k < dim; ++k) {
        const float xi = x[i * dim + k];
        const float xp = x[(i + 1) * dim + k];
        const float xj = x[j * dim + k];
        if (by_anchor > 0) {
          dx[i * dim + k] += scale * (xj - xp);
          dx[(i + 1) * dim + k] -= scale * xi;
          dx[j * dim + k] += scale * xi;
        }
        if (by_positive > 0) {
          dx[i * dim + k] -= scale * xp;
          dx[(i + 1) * dim + k] += scale * (xj - xi);
          dx[j * dim + k] += scale * xp;
        }
      }
    }
  }
  return loss * scale;
}
