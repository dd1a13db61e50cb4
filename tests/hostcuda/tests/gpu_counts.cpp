// Counts what each layer does on the GPU in a forward and a backward: launches,
// calls of cuBLAS, and the numbers that its kernels read and write in global
// memory, each once a kernel, beside the least that any implementation has to.
//
//   gpu_counts [ROWS DIM CLASSES]
//
// Numbers are counted by the pages that a kernel touches, so that small sizes
// are rounded up. A size below a page (1024 numbers) says nothing.

#include <cstdio>
#include <cstdlib>

#include "caffe/caffe.hpp"
#include "layer_run.hpp"
#include "program.hpp"

namespace gpu_bench {

void count(const Case& c) {
  caffe::Caffe::set_random_seed(7);
  LayerRun run(c, c.layer, false);
  // As in the middle of a training: blobs have their sizes, and are there.
  for (int i = 0; i < 2; ++i) {
    run.Forward();
    run.Backward();
  }
  // Layer::Forward weighs a loss by a dot product of cuBLAS's.
  const int dots = c.layer.find("Loss'") != string::npos ? 1 : 0;
  for (int pass = 0; pass < 2; ++pass) {
    run.ToDevice();
    hostcuda::CountBytes(true);
    const hostcuda::Counters before = hostcuda::counters;
    pass == 0 ? run.Forward() : run.Backward();
    const hostcuda::Counters& after = hostcuda::counters;
    hostcuda::CountBytes(false);
    const double moved = (after.moved_bytes - before.moved_bytes) / 4.;
    printf("%-34s %-8s %8d %8d %6d %12.0f %12.0f %6.2f\n", c.name.c_str(),
           pass == 0 ? "forward" : "backward",
           static_cast<int>(after.launches - before.launches),
           static_cast<int>(after.blas_calls - before.blas_calls) -
               (pass == 0 ? dots : 0),
           static_cast<int>(after.sets - before.sets), moved, c.least[pass],
           moved / c.least[pass]);
    fflush(stdout);
  }
}

int main(int argc, char** argv) {
  const int rows = argc > 1 ? atoi(argv[1]) : 256;
  const int dim = argc > 2 ? atoi(argv[2]) : 64;
  const int classes = argc > 3 ? atoi(argv[3]) : 2048;
  caffe::Caffe::set_mode(caffe::Caffe::GPU);
  printf("N = %d, D = %d, C = %d\n%-34s %-8s %8s %8s %6s %12s %12s %6s\n", rows,
         dim, classes, "layer", "pass", "launches", "products", "sets", "moved",
         "least", "ratio");
  vector<Case> cases;
  add_sweeps(rows, dim, &cases);
  add_pairs(rows, dim, &cases);
  add_classes(rows / 4, dim, classes, &cases);
  for (size_t i = 0; i < cases.size(); ++i) {
    count(cases[i]);
  }
  return 0;
}

}  // namespace gpu_bench

int main(int argc, char** argv) {
  return gpu_bench::run_quietly(argc, argv, gpu_bench::main);
}
