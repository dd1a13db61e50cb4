// Why: a heap keeps the few rows that RankHardLoss takes; a row too many, or
// another one of several with the same key, is a draw that no other device
// makes.
// Sweeps: 0 to 40 rows with keys of which many are equal, offered in two
// orders; 1 to 42 of them kept, up to 5 set aside.
// Oracle: all rows sorted by (key, index).
#include <algorithm>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "caffe_metric/rank_hard.hpp"

namespace caffe {

typedef std::vector<std::pair<uint64_t, int>> Keys;

static std::vector<int> LeastSorted(Keys keys, size_t most) {
  std::sort(keys.begin(), keys.end());
  keys.resize(std::min(most, keys.size()));
  std::vector<int> rows;
  for (size_t k = 0; k < keys.size(); ++k) {
    rows.push_back(keys[k].second);
  }
  std::sort(rows.begin(), rows.end());
  return rows;
}

TEST(LeastRowsTest, TestTiesInAnyOrder) {
  for (int n = 0; n <= 40; ++n) {
    Keys keys;
    for (int j = 0; j < n; ++j) {
      keys.push_back(std::make_pair(static_cast<uint64_t>(j * 7 % 5), j));
    }
    for (int most = 1; most <= n + 2; ++most) {
      caffe_metric::LeastRows<uint64_t> forth(most), back(most);
      for (int j = 0; j < n; ++j) {
        forth.offer(keys[j].first, j);
        back.offer(keys[n - 1 - j].first, n - 1 - j);
      }
      EXPECT_EQ(LeastSorted(keys, most), forth.rows());
      EXPECT_EQ(LeastSorted(keys, most), back.rows());
    }
  }
}

TEST(LeastRowsTest, TestDrawsPassOverTheDrawn) {
  const uint64_t stream = caffe_metric::stream_of(3, 1, 0);
  for (int n = 0; n <= 40; ++n) {
    std::vector<int> rows, drawn;
    Keys left;
    for (int j = 0; j < n; ++j) {
      rows.push_back(2 * j);
      if (j % 8 == 3) {
        drawn.push_back(2 * j);
      } else {
        left.push_back(
            std::make_pair(caffe_metric::draw(stream, 2 * j), 2 * j));
      }
    }
    for (int k = 0; k <= n + 2; ++k) {
      EXPECT_EQ(LeastSorted(left, k),
                caffe_metric::draw_rows(stream, k, rows, drawn));
    }
  }
}

}  // namespace caffe
