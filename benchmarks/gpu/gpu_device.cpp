// Prints what the device is, as text and, to the file that is named, as JSON.
//
//   gpu_device [F.json]

#include <cuda_runtime.h>

#include <cstdio>

// The least compute capability that the programs are built for.
const int kLeastCapability = 75;

// Why there is no device.
int fail(cudaError_t error) {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  if (driver == 0) {
    fprintf(stderr, "no driver of CUDA is installed here\n");
  } else if (driver < CUDART_VERSION) {
    fprintf(stderr,
            "the driver is too old: it knows CUDA %d.%d, and CUDA %d.%d is "
            "needed\n",
            driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
            CUDART_VERSION % 1000 / 10);
  } else {
    fprintf(stderr, "no CUDA device: %s\n", cudaGetErrorString(error));
  }
  return 1;
}

int main(int argc, char** argv) {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  cudaDeviceProp device;
  if (error == cudaSuccess && count > 0) {
    error = cudaGetDeviceProperties(&device, 0);
  }
  if (error != cudaSuccess || count == 0) {
    return fail(error);
  }
  if (10 * device.major + device.minor < kLeastCapability) {
    fprintf(stderr,
            "%s has compute capability %d.%d, and %d.%d is the least that the "
            "programs are built for\n",
            device.name, device.major, device.minor, kLeastCapability / 10,
            kLeastCapability % 10);
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
