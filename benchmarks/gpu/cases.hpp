#ifndef GPU_CASES_HPP_
#define GPU_CASES_HPP_

#include <string>
#include <vector>

// The layers and sizes that the programs of the GPU bundle check and time:
// those of the project's promises of speed.

namespace gpu_bench {

using std::string;
using std::vector;

// What a layer is given.
enum Bottoms { FEATURES, FEATURES_AND_LABELS, TRIPLETS_OF_ROWS };

// What its time is held against.
enum Rival {
  COPY,           // a copy of what it has to move at least, device to device
  PRODUCT,        // cuBLAS's product N x D x N
  INNER_PRODUCT,  // Caffe's InnerProduct layer, D to C
  STOCK_PAIR      // the same and Caffe's SoftmaxWithLoss
};

struct Case {
  string name;
  string layer;  // the inside of a layer { }
  Bottoms bottoms;
  int rows, dim;
  int classes;    // that labels are drawn of
  int per_class;  // rows that stand together with one label
  int clusters;   // > 0: rows lie tightly around so many points
  bool selects;   // which rows meet depends on comparisons
  Rival rival;
  int outputs;  // of INNER_PRODUCT, STOCK_PAIR
  // Of a forward and of a backward: the numbers that any implementation has to
  // read and write beside the products, and how many of the products there are.
  double least[2];
  double products[2];

  double least_of_both() const { return least[0] + least[1]; }
  double products_of_both() const { return products[0] + products[1]; }
  double rows_times_dim() const { return static_cast<double>(rows) * dim; }
  double rows_times_rows() const { return static_cast<double>(rows) * rows; }
};

inline Case make_case(const string& name, const string& layer, int rows,
                      int dim, int per_class) {
  Case c;
  c.name = name;
  c.layer = layer;
  c.bottoms = FEATURES_AND_LABELS;
  c.rows = rows;
  c.dim = dim;
  c.per_class = per_class;
  c.classes = (rows + per_class - 1) / per_class;
  c.clusters = 0;
  c.selects = false;
  c.rival = PRODUCT;
  c.outputs = 0;
  c.least[0] = c.least[1] = c.products[0] = c.products[1] = 0;
  return c;
}

inline void set_least(double forward, double backward, Case* c) {
  c->least[0] = forward;
  c->least[1] = backward;
}

inline void set_products(double forward, double backward, Case* c) {
  c->products[0] = forward;
  c->products[1] = backward;
}

// Layers that only sweep their rows.
inline void add_sweeps(int rows, int dim, vector<Case>* cases) {
  Case norm = make_case("Norm", "type: 'Norm'", rows, dim, 4);
  norm.bottoms = FEATURES;
  norm.rival = COPY;
  set_least(2 * norm.rows_times_dim(), 3 * norm.rows_times_dim(), &norm);
  cases->push_back(norm);

  Case listed = make_case(
      "TripletLoss of rows",
      "type: 'TripletLoss' triplet_loss_param { margin: 0.2 }", rows, dim, 4);
  listed.bottoms = TRIPLETS_OF_ROWS;
  listed.rival = COPY;
  set_least(3 * listed.rows_times_dim(), 6 * listed.rows_times_dim(), &listed);
  cases->push_back(listed);

  Case center =
      make_case("CenterLoss",
                "type: 'CenterLoss' center_loss_param { num_output: " +
                    std::to_string((rows + 3) / 4) +
                    " center_filler { type: 'gaussian' std: 0.1 } }",
                rows, dim, 4);
  center.rival = COPY;
  // x and a centre a class; the same again, the gradient by x, and a centre's
  // diff, read and written.
  set_least(1.25 * center.rows_times_dim(), 2.75 * center.rows_times_dim(),
            &center);
  cases->push_back(center);
}

// The forward makes the gradient by a second product. A pair's weight in it
// takes what all rows of both its anchors come to, so that the Gram matrix is
// read before the first weight is known, and once more for the weights, which
// are written. The backward reads the product and writes the gradient; unit
// rows are read, too, along which there is none.
inline void set_pair_least(bool of_unit_rows, Case* c) {
  set_products(2, 0, c);
  set_least(3 * c->rows_times_rows() + c->rows_times_dim(),
            (of_unit_rows ? 3 : 2) * c->rows_times_dim(), c);
}

// Losses in which each row of a batch meets the others.
inline void add_pairs(int rows, int dim, vector<Case>* cases) {
  const char* minings[] = {"ALL", "SEMIHARD", "VIOLATING", "HARDEST"};
  for (int m = 0; m < 4; ++m) {
    Case c = make_case(string("TripletLoss ") + minings[m],
                       string("type: 'TripletLoss' triplet_loss_param { "
                              "margin: 0.2 mining: ") +
                           minings[m] + " }",
                       rows, dim, 4);
    c.selects = m > 0;
    set_pair_least(false, &c);
    cases->push_back(c);
  }
  Case rank = make_case("RankHardLoss",
                        "type: 'RankHardLoss' rank_param { neg_num: 4 "
                        "margin: 0.2 }",
                        rows, dim, 4);
  rank.selects = true;
  set_products(0.5, 0, &rank);
  set_least(rank.rows_times_rows() / 2 + rank.rows_times_dim(),
            2 * rank.rows_times_dim(), &rank);
  cases->push_back(rank);

  const char* losses[][2] = {
      {"BatchContrastiveLoss", ""},
      {"MultiSimilarityLoss", ""},
      {"CircleLoss", "circle_loss_param { gamma: 32 }"},
      {"SupConLoss", ""},
      {"LiftedStructureLoss",
       "lifted_structure_loss_param { normalize: true }"}};
  for (int l = 0; l < 5; ++l) {
    Case c = make_case(losses[l][0],
                       string("type: '") + losses[l][0] + "' " + losses[l][1],
                       rows, dim, 4);
    set_pair_least(true, &c);
    cases->push_back(c);
  }
  const int proxies = (rows + 3) / 4;
  Case proxy = make_case("ProxyAnchorLoss",
                         "type: 'ProxyAnchorLoss' proxy_anchor_loss_param { "
                         "num_output: " +
                             std::to_string(proxies) +
                             " proxy_filler { type: 'gaussian' std: 0.1 } }",
                         rows, dim, 4);
  // N x C, and the gradients by both. Proxies are the only anchors: weights are
  // written as soon as a proxy has seen its row. The backward reads unit rows
  // and products of both, and the proxies' diff.
  set_products(3. / 4, 0, &proxy);
  set_least(proxy.rows_times_rows() / 2 + 1.25 * proxy.rows_times_dim(),
            4 * proxy.rows_times_dim(), &proxy);
  cases->push_back(proxy);
}

// Layers with a row of weights for each of many classes.
inline void add_classes(int rows, int dim, int classes, vector<Case>* cases) {
  const string margin =
      " margin_inner_product_param { num_output: " + std::to_string(classes) +
      " type: QUADRUPLE base: 100 gamma: 0.1 weight_filler { type: 'xavier' } "
      "}";
  Case plain = make_case("MarginInnerProduct",
                         "type: 'MarginInnerProduct'" + margin, rows, dim, 2);
  plain.classes = classes;
  plain.rival = INNER_PRODUCT;
  plain.outputs = classes;
  set_products(1, 2, &plain);
  // Lengths of rows; of the weights and their diff, what goes along them.
  const double weights = static_cast<double>(classes) * dim;
  set_least(weights + plain.rows_times_dim(),
            3 * weights + 3 * plain.rows_times_dim(), &plain);
  cases->push_back(plain);

  const char* ways[][2] = {{", logits kept", "keep_logits: ALWAYS"},
                           {", in strips", "keep_logits: NEVER"},
                           {", 1 class of 10", "sample_rate: 0.1"}};
  for (int w = 0; w < 3; ++w) {
    Case c = plain;
    c.name = string("MarginSoftmaxLoss") + ways[w][0];
    c.layer = "type: 'MarginSoftmaxLoss'" + margin +
              " margin_softmax_loss_param { " + ways[w][1] + " }";
    c.rival = STOCK_PAIR;
    const double part = w == 2 ? 0.1 : 1;
    const double logits = static_cast<double>(rows) * classes;
    set_products(part, part * (w == 1 ? 3 : 2), &c);
    // Drawn weights are written once more, in one piece for the products.
    const double gathered = w == 2 ? weights : 0;
    set_least(part * (weights + gathered + 2 * logits) + c.rows_times_dim(),
              part * (3 * weights + 2 * logits) + 3 * c.rows_times_dim(), &c);
    cases->push_back(c);
  }
}

// At the promises' own sizes, or a few rows of each to try it.
inline vector<Case> all_cases(bool small) {
  vector<Case> cases;
  add_sweeps(small ? 24 : 1024, small ? 16 : 512, &cases);
  if (small) {
    add_pairs(24, 16, &cases);
    add_classes(6, 16, 40, &cases);
    return cases;
  }
  add_sweeps(16384, 512, &cases);
  add_pairs(512, 512, &cases);
  add_pairs(2048, 512, &cases);
  add_pairs(4096, 512, &cases);
  // Tight clusters, where a Gram matrix loses the digits of a distance.
  vector<Case> tight;
  add_pairs(2048, 512, &tight);
  for (size_t i = 0; i < tight.size(); ++i) {
    tight[i].name += ", 7 clusters";
    tight[i].clusters = 7;
    cases.push_back(tight[i]);
  }
  add_classes(256, 512, 10572, &cases);
  add_classes(256, 512, 85742, &cases);
  // All of a million classes, in the memory of the weights and their diff.
  vector<Case> million;
  add_classes(256, 512, 1000000, &million);
  million[2].rival = INNER_PRODUCT;  // the pair's logits take 3 GB
  cases.push_back(million[2]);
  return cases;
}

// Small enough for the CPU to compute, too. Rows are powers of 2 and the
// dimension is a square, so that vectors of signs have exact norms and means.
inline vector<Case> parity_cases(bool small) {
  vector<Case> cases;
  const int rows = small ? 32 : 512;
  const int dim = small ? 16 : 256;
  add_sweeps(rows, dim, &cases);
  add_pairs(rows, dim, &cases);
  add_classes(rows / 2, dim, small ? 40 : 4096, &cases);
  return cases;
}

}  // namespace gpu_bench

#endif  // GPU_CASES_HPP_
