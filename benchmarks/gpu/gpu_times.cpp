// Times each layer on the GPU, beside cuBLAS's product or Caffe's own layer of
// the same size, and beside a copy from device to device.
//
//   gpu_times [--small] [F.json]
//   gpu_times --list
//
// "rate" is what the layer has to move at least beside its products, by the
// time that it takes beyond them, as a part of the copy's rate.

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "caffe/caffe.hpp"
#include "caffe/util/benchmark.hpp"
#include "caffe/util/math_functions.hpp"
#include "layer_run.hpp"
#include "program.hpp"

namespace gpu_bench {

const int kWarmUp = 3;

// The median of so many milliseconds.
template <typename Work>
double milliseconds(int repeats, const Work& work) {
  vector<double> times;
  caffe::Timer timer;
  for (int i = 0; i < kWarmUp + repeats; ++i) {
    timer.Start();
    work();
    timer.Stop();
    if (i >= kWarmUp) {
      times.push_back(timer.MicroSeconds() / 1000);
    }
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// Bytes a second of a copy, read and written.
double copy_rate(int repeats, size_t bytes) {
  void* from;
  void* to;
  CUDA_CHECK(cudaMalloc(&from, bytes));
  CUDA_CHECK(cudaMalloc(&to, bytes));
  CUDA_CHECK(cudaMemset(from, 0, bytes));
  const double time = milliseconds(repeats, [=] {
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, 0));
  });
  CUDA_CHECK(cudaFree(from));
  CUDA_CHECK(cudaFree(to));
  return 2e3 * bytes / time;
}

// m x k times k x n.
double product_time(int repeats, int m, int n, int k) {
  Blob<float> a(vector<int>{m, k}), b(vector<int>{n, k}), c(vector<int>{m, n});
  caffe::caffe_gpu_set(a.count(), 1.f, a.mutable_gpu_data());
  caffe::caffe_gpu_set(b.count(), 1.f, b.mutable_gpu_data());
  return milliseconds(repeats, [&] {
    caffe::caffe_gpu_gemm<float>(CblasNoTrans, CblasTrans, m, n, k, 1.f,
                                 a.gpu_data(), b.gpu_data(), 0.f,
                                 c.mutable_gpu_data());
  });
}

// A forward and the backward that belongs to it.
void time_passes(int repeats, LayerRun* run, double* forward,
                 double* backward) {
  *forward = milliseconds(repeats, [=] { run->Forward(); });
  vector<double> times;
  caffe::Timer timer;
  for (int i = 0; i < repeats; ++i) {
    run->Forward();
    timer.Start();
    run->Backward();
    timer.Stop();
    times.push_back(timer.MicroSeconds() / 1000);
  }
  std::sort(times.begin(), times.end());
  *backward = times[times.size() / 2];
}

double stock_time(int repeats, const Case& c) {
  double forward, backward;
  double time = 0;
  {
    Case features = c;
    features.bottoms = FEATURES;
    LayerRun product(features,
                     "type: 'InnerProduct' inner_product_param { bias_term: "
                     "false weight_filler { type: 'xavier' } num_output: " +
                         std::to_string(c.outputs) + " }",
                     false);
    time_passes(repeats, &product, &forward, &backward);
    time += forward + backward;
  }
  if (c.rival == STOCK_PAIR) {
    Case logits = c;
    logits.dim = c.outputs;
    LayerRun softmax(logits, "type: 'SoftmaxWithLoss'", false);
    time_passes(repeats, &softmax, &forward, &backward);
    time += forward + backward;
  }
  return time;
}

struct Times {
  double forward, backward;
  double product;  // one
  double rival;
  double rate;  // bytes a second
};

Times measure(const Case& c, int repeats, double copied) {
  Times times;
  times.product =
      product_time(repeats, c.rows, c.outputs > 0 ? c.outputs : c.rows, c.dim);
  times.rival = c.rival == PRODUCT ? times.product
                : c.rival == COPY  ? 4e3 * c.least_of_both() / copied
                                   : stock_time(repeats, c);
  LayerRun run(c, c.layer, false);
  time_passes(repeats, &run, &times.forward, &times.backward);
  const double beyond =
      times.forward + times.backward - c.products_of_both() * times.product;
  times.rate = beyond > 0 ? 4e3 * c.least_of_both() / beyond : 0;
  return times;
}

const char* rival_name(const Case& c) {
  const char* names[] = {"copy", "product", "InnerProduct",
                         "and SoftmaxWithLoss"};
  return names[c.rival];
}

// Bytes that a case takes at most, roughly.
double memory_of(const Case& c) {
  const double classes = c.outputs;
  const double kept = c.rival == STOCK_PAIR ? 4. * c.rows * classes : 0;
  return 4 * (2 * classes * c.dim + kept + 12 * c.rows_times_dim() +
              (c.outputs ? 0 : 2 * c.rows_times_rows()));
}

int main(int argc, char** argv) {
  bool small = false;
  const char* path = NULL;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--list") == 0) {
      const vector<Case> cases = all_cases(false);
      for (size_t c = 0; c < cases.size(); ++c) {
        printf("%s\n", cases[c].layer.c_str());
      }
      return 0;
    } else if (strcmp(argv[i], "--small") == 0) {
      small = true;
    } else {
      path = argv[i];
    }
  }
  JsonRows json(path);
  caffe::Caffe::set_mode(caffe::Caffe::GPU);
  cudaDeviceProp device;
  CUDA_CHECK(cudaGetDeviceProperties(&device, 0));
  const int repeats = small ? 2 : 20;
  const double copied = copy_rate(repeats, small ? 1 << 12 : 1 << 28);
  printf("copy from device to device: %.1f GB/s, read and written\n\n",
         copied / 1e9);
  printf("%-42s %6s %5s %8s %9s %9s %19s %9s %6s %5s\n", "milliseconds", "N",
         "D", "C", "forward", "backward", "beside", "time", "ratio", "rate");
  const string head =
      formatted("{\"copy_bytes_per_second\": %.4g, \"layers\": [", copied);
  if (!json.Start(head, "]}\n")) {
    return 1;
  }
  const vector<Case> cases = all_cases(small);
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    const double room = device.totalGlobalMem;
    // The inner product beside it has weights and logits of its own.
    if (room > 0 && memory_of(c) > 0.45 * room) {
      printf("%-42s left out: %.1f GB are too little\n", c.name.c_str(),
             room / 1e9);
      continue;
    }
    const Times t = measure(c, repeats, copied);
    const double all = t.forward + t.backward;
    printf("%-42s %6d %5d %8d %9.3f %9.3f %19s %9.3f %6.2f %4.0f%%\n",
           c.name.c_str(), c.rows, c.dim, c.outputs, t.forward, t.backward,
           rival_name(c), t.rival, all / t.rival, 100 * t.rate / copied);
    fflush(stdout);
    json.Add(formatted(
        "{\"layer\": \"%s\", \"rows\": %d, \"dimension\": %d, "
        "\"outputs\": %d, \"forward_ms\": %.6g, \"backward_ms\": %.6g, "
        "\"product_ms\": %.6g, \"beside\": \"%s\", \"beside_ms\": %.6g, "
        "\"least_bytes\": %.6g, \"bytes_per_second\": %.6g}",
        c.name.c_str(), c.rows, c.dim, c.outputs, t.forward, t.backward,
        t.product, rival_name(c), t.rival, 4 * c.least_of_both(), t.rate));
  }
  return 0;
}

}  // namespace gpu_bench

int main(int argc, char** argv) {
  return gpu_bench::run_quietly(argc, argv, gpu_bench::main);
}
