// Counts the arithmetic and the comparisons of the mathematics in
// include/caffe_metric, by a number type that counts them.
//
//   counted RULE POSITIVES NEGATIVES
//
// RULE is hinge (hinge_of_all), loops (loss_of_all) or rank (rank_negatives,
// whose rows are the negatives).

#include <cstdlib>
#include <iostream>
#include <string>
#include <type_traits>
#include <vector>

#include "caffe_metric/rank_hard.hpp"
#include "caffe_metric/triplet_all.hpp"

namespace {

long long operations = 0;

class Counted {
 public:
  template <typename N, typename = typename std::enable_if<
                            std::is_arithmetic<N>::value>::type>
  Counted(N value) : value_(value) {}  // NOLINT(runtime/explicit)
  Counted() : value_(0) {}
  operator double() const { return value_; }

  Counted& operator+=(Counted other) { return set(value_ + other.value_); }
  Counted& operator-=(Counted other) { return set(value_ - other.value_); }

 private:
  Counted& set(double value) {
    ++operations;
    value_ = value;
    return *this;
  }
  double value_;
};

template <typename A, typename B>
struct OneIsCounted
    : std::integral_constant<bool, (std::is_same<A, Counted>::value ||
                                    std::is_same<B, Counted>::value) &&
                                       std::is_convertible<A, double>::value &&
                                       std::is_convertible<B, double>::value> {
};

#define COUNT(Result, op)                                                 \
  template <typename A, typename B,                                       \
            typename =                                                    \
                typename std::enable_if<OneIsCounted<A, B>::value>::type> \
  Result operator op(A a, B b) {                                          \
    ++operations;                                                         \
    return static_cast<double>(a) op static_cast<double>(b);              \
  }
COUNT(Counted, +)
COUNT(Counted, -)
COUNT(Counted, *)
COUNT(Counted, /)
COUNT(bool, <)
COUNT(bool, >)
COUNT(bool, ==)
COUNT(bool, !=)
#undef COUNT

Counted operator-(Counted x) { return 0 - x; }

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: counted RULE POSITIVES NEGATIVES" << std::endl;
    return 2;
  }
  const std::string rule = argv[1];
  const int positives = std::atoi(argv[2]);
  const int negatives = std::atoi(argv[3]);
  // Row 0 is the anchor, then its positives, then the rest.
  const int n = 1 + positives + negatives;
  std::vector<Counted> row(n), labels(n), slopes(n);
  std::vector<int> same, other;
  std::srand(1);
  for (int j = 0; j < n; ++j) {
    row[j] = std::rand() / static_cast<double>(RAND_MAX);
    labels[j] = j <= positives ? 0 : 1;
    if (j > 0) {
      (j <= positives ? same : other).push_back(j);
    }
  }
  caffe_metric::TripletStats stats;
  operations = 0;
  if (rule == "hinge") {
    caffe_metric::hinge_of_all<Counted>(0.2, row.data(), same, other,
                                        slopes.data(), &stats);
  } else if (rule == "loops") {
    const caffe_metric::TripletRule<Counted> hinge = {caffe_metric::HINGE, 0.2};
    caffe_metric::loss_of_all<Counted>(hinge, row.data(), NULL, same, other,
                                       slopes.data(), &stats);
  } else if (rule == "rank") {
    std::vector<int> taken;
    const caffe_metric::RankDraw draw = {8, 4, 4};
    caffe_metric::rank_negatives<Counted>(draw, 2, 1, 0, n, row.data(),
                                          labels.data(), &taken);
    if (taken.size() != 8) {
      return 1;
    }
  } else {
    return 2;
  }
  std::cout << operations << ' ' << stats.loss << std::endl;
  return 0;
}
