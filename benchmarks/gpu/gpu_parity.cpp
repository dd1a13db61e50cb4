// Each layer on the GPU against its CPU branch, and against itself run twice.
//
//   gpu_parity [--small] [F.json]
//
// Values and gradients: rows of normal numbers, the largest difference by the
// largest number of the array. Selections: rows of signs, on which every
// comparison is exact, so that the same rows must get a gradient and the
// reports must be the same numbers. Determinism: the same bits twice.

#include <cstdio>
#include <cstring>

#include "caffe/caffe.hpp"
#include "layer_run.hpp"
#include "program.hpp"

namespace gpu_bench {

// Of the largest number of an array: float sums in another order.
const double kTolerance = 1e-3;

typedef vector<vector<float>> Arrays;

Arrays results_on(caffe::Caffe::Brew mode, const Case& c, bool signs) {
  caffe::Caffe::set_mode(mode);
  caffe::Caffe::set_random_seed(7);
  LayerRun run(c, c.layer, signs);
  caffe::Caffe::set_random_seed(8);
  run.Forward();
  run.Backward();
  return run.Results();
}

double largest_error(const Arrays& cpu, const Arrays& gpu) {
  double worst = 0;
  for (size_t a = 0; a < cpu.size(); ++a) {
    double largest = 0;
    double error = 0;
    for (size_t i = 0; i < cpu[a].size(); ++i) {
      const double difference = std::fabs(cpu[a][i] - gpu[a][i]);
      // A NaN is an error of its own.
      error = difference <= error ? error : difference;
      largest = std::max<double>(largest, std::fabs(cpu[a][i]));
    }
    const double relative = error == 0 ? 0 : error / std::max(largest, 1e-30);
    worst = relative <= worst ? worst : relative;
  }
  return worst;
}

// Whether the same rows of `dim` numbers are all zeros.
bool same_rows_are_zero(const vector<float>& a, const vector<float>& b,
                        int dim) {
  for (size_t begin = 0; begin < a.size(); begin += dim) {
    bool any_a = false;
    bool any_b = false;
    for (size_t i = begin; i < std::min(a.size(), begin + dim); ++i) {
      any_a = any_a || a[i] != 0;
      any_b = any_b || b[i] != 0;
    }
    if (any_a != any_b) {
      return false;
    }
  }
  return true;
}

bool same_selections(const Case& c, const Arrays& cpu, const Arrays& gpu) {
  for (size_t a = 1; a < cpu.size(); ++a) {  // the first is the top
    if (!same_rows_are_zero(cpu[a], gpu[a], c.dim)) {
      return false;
    }
  }
  return true;
}

bool same_bits(const Arrays& a, const Arrays& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) != 0) {
      return false;
    }
  }
  return true;
}

struct Verdict {
  double error, exact_error;
  bool selections, repeats;
  bool good() const {
    return error <= kTolerance && exact_error <= kTolerance && selections &&
           repeats;
  }
};

Verdict check(const Case& c) {
  const caffe::Caffe::Brew CPU = caffe::Caffe::CPU, GPU = caffe::Caffe::GPU;
  Verdict verdict;
  const Arrays exact = results_on(GPU, c, true);
  const Arrays exact_cpu = results_on(CPU, c, true);
  verdict.exact_error = largest_error(exact_cpu, exact);
  verdict.selections = same_selections(c, exact_cpu, exact);
  const Arrays gpu = results_on(GPU, c, false);
  verdict.repeats = same_bits(gpu, results_on(GPU, c, false));
  // Where rounding decides which rows meet, normal rows say nothing.
  verdict.error = c.selects ? 0 : largest_error(results_on(CPU, c, false), gpu);
  return verdict;
}

int main(int argc, char** argv) {
  bool small = false;
  const char* path = NULL;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--small") == 0) {
      small = true;
    } else {
      path = argv[i];
    }
  }
  JsonRows json(path);
  if (!json.Start("[", "]\n")) {
    return 1;
  }
  printf("%-36s %9s %9s %10s %8s\n", "GPU against CPU", "error", "signs",
         "selections", "repeats");
  int wrong = 0;
  const vector<Case> cases = parity_cases(small);
  for (size_t i = 0; i < cases.size(); ++i) {
    const Verdict v = check(cases[i]);
    wrong += v.good() ? 0 : 1;
    printf("%-36s %9.1e %9.1e %10s %8s%s\n", cases[i].name.c_str(), v.error,
           v.exact_error, v.selections ? "same" : "OTHER",
           v.repeats ? "same" : "OTHER", v.good() ? "" : "  <- wrong");
    fflush(stdout);
    json.Add(
        formatted("{\"layer\": \"%s\", \"rows\": %d, \"dimension\": %d, "
                  "\"error\": %.3g, \"exact_error\": %.3g, \"selections\": %s, "
                  "\"repeats\": %s, \"good\": %s}",
                  cases[i].name.c_str(), cases[i].rows, cases[i].dim, v.error,
                  v.exact_error, v.selections ? "true" : "false",
                  v.repeats ? "true" : "false", v.good() ? "true" : "false"));
  }
  return wrong > 0 ? 1 : 0;
}

}  // namespace gpu_bench

int main(int argc, char** argv) {
  return gpu_bench::run_quietly(argc, argv, gpu_bench::main);
}
