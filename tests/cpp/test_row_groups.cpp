// Why: groups of rows stand for all products of a batch only if each row is in
// one group and meets no row of another; a row that is lost or met twice would
// be a wrong gradient of large batches alone.
// Sweeps: 3 interleaved clusters of 60 rows, seen as they are and above the
// diagonal, where the last rows of a cluster lead to no group.
// Oracle: the clusters.
#include <vector>

#include "gtest/gtest.h"

#include "caffe_metric/row_groups.hpp"

namespace caffe {

using caffe_metric::RowGroup;

class RowGroupsTest : public ::testing::Test {
 protected:
  static const int kRows = 60;
  static const int kClusters = 3;

  static std::vector<int> FirstRows(int count) {
    std::vector<int> rows;
    for (int i = 0; i < count; ++i) {
      rows.push_back(i);
    }
    return rows;
  }
  static std::vector<RowGroup> Groups(int rows, bool upper, size_t most) {
    return caffe_metric::group_rows(
        FirstRows(rows), 0, kRows, most,
        [=](int row, int column) {
          return row % kClusters == column % kClusters &&
                 (!upper || column >= row);
        },
        [](int, const std::vector<int>&) { return true; });
  }
  static void ExpectClusters(const std::vector<RowGroup>& groups) {
    ASSERT_EQ(static_cast<size_t>(kClusters), groups.size());
    for (int g = 0; g < kClusters; ++g) {
      ASSERT_EQ(static_cast<size_t>(kRows / kClusters),
                groups[g].columns.size());
      for (int k = 0; k < kRows / kClusters; ++k) {
        EXPECT_EQ(g + k * kClusters, groups[g].columns[k]);
      }
    }
    EXPECT_TRUE(caffe_metric::are_groups(groups, kRows));
  }
};

TEST_F(RowGroupsTest, TestClusters) {
  ExpectClusters(Groups(kRows, false, kRows * kRows));
}

TEST_F(RowGroupsTest, TestColumnsMakeUpForTheLastRows) {
  const std::vector<RowGroup> groups =
      Groups(kRows - 2 * kClusters, true, kRows * kRows);
  EXPECT_FALSE(caffe_metric::are_groups(groups, kRows));
  ExpectClusters(caffe_metric::by_columns(groups));
}

TEST_F(RowGroupsTest, TestTooManyElementsAreNoGroups) {
  EXPECT_TRUE(Groups(kRows, false, kRows).empty());
}

TEST_F(RowGroupsTest, TestEachRowOnce) {
  std::vector<RowGroup> groups = Groups(kRows, false, kRows * kRows);
  EXPECT_FALSE(caffe_metric::are_groups(groups, kRows + 1));
  std::vector<RowGroup> fewer(groups.begin(), groups.end() - 1);
  EXPECT_FALSE(caffe_metric::are_groups(fewer, kRows));
  // As many rows as before, but one of them twice.
  groups[2].rows[0] = groups[2].columns[0] = 1;
  EXPECT_FALSE(caffe_metric::are_groups(groups, kRows));
}

}  // namespace caffe
