#ifndef CAFFE_METRIC_ROW_GROUPS_HPP_
#define CAFFE_METRIC_ROW_GROUPS_HPP_

#include <algorithm>
#include <cstddef>
#include <vector>

namespace caffe_metric {

// Rows of a matrix that have to do with the same few columns, as those of a
// tight cluster or of a class: what is made of them is a small product.
struct RowGroup {
  std::vector<int> rows, columns;  // ascending
};

// A part of a group: its rows [begin, end), by their place in the list.
struct RowGroupPart {
  const RowGroup* group;
  int begin, end;
};

// Rows a part; not few, since each gathers all columns of its group.
const int kGroupPart = 512;
// What it costs to gather a column, in rows.
const int kGroupGather = 16;

// Deals rows out to groups. Row i itself is column own + i of n. The first row
// that is left leads a group: the columns are its own and those where has(row,
// column), the rows those that are left, whose own column is among them and
// that joins(row, columns). No groups where more than `most` elements are
// theirs, with some for each column, which has to be gathered.
template <typename Has, typename Joins>
inline std::vector<RowGroup> group_rows(const std::vector<int>& rows, int own,
                                        int n, size_t most, const Has& has,
                                        const Joins& joins) {
  std::vector<RowGroup> groups;
  std::vector<int> left(rows);
  std::vector<bool> among(n);
  size_t elements = 0;
  while (!left.empty()) {
    RowGroup group;
    const int leader = left[0];
    for (int j = 0; j < n; ++j) {
      among[j] = j == own + leader || has(leader, j);
      if (among[j]) {
        group.columns.push_back(j);
      }
    }
    std::vector<int> others;
    for (size_t k = 0; k < left.size(); ++k) {
      const int row = left[k];
      const bool in = k == 0 || (among[own + row] && joins(row, group.columns));
      (in ? group.rows : others).push_back(row);
    }
    left.swap(others);
    elements += (group.rows.size() + kGroupGather) * group.columns.size();
    if (elements > most) {
      return std::vector<RowGroup>();
    }
    groups.push_back(group);
  }
  return groups;
}

// The groups with all of their columns as rows.
inline std::vector<RowGroup> by_columns(const std::vector<RowGroup>& groups) {
  std::vector<RowGroup> all(groups);
  for (size_t g = 0; g < all.size(); ++g) {
    all[g].rows = all[g].columns;
  }
  return all;
}

// Whether each of n rows is in one group, and a group's columns are its rows:
// no group has to do with another, nor would it in the matrix transposed.
inline bool are_groups(const std::vector<RowGroup>& groups, int n) {
  std::vector<bool> seen(n);
  int count = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    const std::vector<int>& rows = groups[g].rows;
    if (rows != groups[g].columns) {
      return false;
    }
    for (size_t k = 0; k < rows.size(); ++k) {
      if (seen[rows[k]]) {
        return false;
      }
      seen[rows[k]] = true;
    }
    count += rows.size();
  }
  return count == n;
}

// Parts of all groups; those point to these.
inline std::vector<RowGroupPart> parts_of(const std::vector<RowGroup>& groups) {
  std::vector<RowGroupPart> parts;
  for (size_t g = 0; g < groups.size(); ++g) {
    const int count = groups[g].rows.size();
    for (int begin = 0; begin < count; begin += kGroupPart) {
      const RowGroupPart part = {&groups[g], begin,
                                 std::min(count, begin + kGroupPart)};
      parts.push_back(part);
    }
  }
  return parts;
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_ROW_GROUPS_HPP_
