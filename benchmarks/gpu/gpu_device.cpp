// Prints what the device is, as text and, to the file that is named, as JSON.
//
//   gpu_device [F.json]

#include <cuda_runtime.h>

#include <cstdio>

int main(int argc, char** argv) {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  cudaDeviceProp device;
  if (error == cudaSuccess && count > 0) {
    error = cudaGetDeviceProperties(&device, 0);
  }
  if (error != cudaSuccess || count == 0) {
    fprintf(stderr, "no CUDA device: %s\n", cudaGetErrorString(error));
    return 1;
  }
  const double gib = device.totalGlobalMem / 1073741824.;
  printf("%s, compute capability %d.%d, %d processors, %.1f GiB\n", device.name,
         device.major, device.minor, device.multiProcessorCount, gib);
  if (argc > 1) {
    FILE* file = fopen(argv[1], "w");
    if (file == NULL) {
      fprintf(stderr, "cannot write %s\n", argv[1]);
      return 1;
    }
    fprintf(file,
            "{\"name\": \"%s\", \"capability\": \"%d.%d\", \"processors\": %d, "
            "\"memory_gib\": %.2f}\n",
            device.name, device.major, device.minor, device.multiProcessorCount,
            gib);
    fclose(file);
  }
  return 0;
}
