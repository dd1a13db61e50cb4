#ifndef HOSTCUDA_CURAND_H_
#define HOSTCUDA_CURAND_H_

// Stands in for cuRAND, by the standard library: other numbers than cuRAND's,
// of the same distributions.

#include <random>

#include "cuda_runtime.h"

typedef std::mt19937_64* curandGenerator_t;
enum curandStatus_t {
  CURAND_STATUS_SUCCESS = 0,
  CURAND_STATUS_VERSION_MISMATCH = 100,
  CURAND_STATUS_NOT_INITIALIZED = 101,
  CURAND_STATUS_ALLOCATION_FAILED = 102,
  CURAND_STATUS_TYPE_ERROR = 103,
  CURAND_STATUS_OUT_OF_RANGE = 104,
  CURAND_STATUS_LENGTH_NOT_MULTIPLE = 105,
  CURAND_STATUS_DOUBLE_PRECISION_REQUIRED = 106,
  CURAND_STATUS_LAUNCH_FAILURE = 201,
  CURAND_STATUS_PREEXISTING_FAILURE = 202,
  CURAND_STATUS_INITIALIZATION_FAILED = 203,
  CURAND_STATUS_ARCH_MISMATCH = 204,
  CURAND_STATUS_INTERNAL_ERROR = 999
};
enum curandRngType_t { CURAND_RNG_PSEUDO_DEFAULT = 100 };

namespace hostcuda {

template <typename T, typename Distribution>
void Draw(curandGenerator_t generator, T* device, size_t count,
          Distribution distribution) {
  T* const open = Open(device, count, "curandGenerate");
  for (size_t i = 0; i < count; ++i) open[i] = distribution(*generator);
}

// cuRAND's uniform numbers are in (0, 1], the standard library's in [0, 1).
template <typename T>
curandStatus_t DrawUniform(curandGenerator_t generator, T* device,
                           size_t count) {
  std::uniform_real_distribution<T> uniform(0, 1);
  Draw(generator, device, count,
       [&](std::mt19937_64& engine) { return 1 - uniform(engine); });
  return CURAND_STATUS_SUCCESS;
}

template <typename T>
curandStatus_t DrawNormal(curandGenerator_t generator, T* device, size_t count,
                          T mean, T deviation) {
  if (count % 2 != 0) return CURAND_STATUS_LENGTH_NOT_MULTIPLE;
  Draw(generator, device, count,
       std::normal_distribution<T>(mean, deviation));
  return CURAND_STATUS_SUCCESS;
}

}  // namespace hostcuda

inline curandStatus_t curandCreateGenerator(curandGenerator_t* generator,
                                            curandRngType_t) {
  *generator = new std::mt19937_64;
  return CURAND_STATUS_SUCCESS;
}
inline curandStatus_t curandDestroyGenerator(curandGenerator_t generator) {
  delete generator;
  return CURAND_STATUS_SUCCESS;
}
inline curandStatus_t curandSetPseudoRandomGeneratorSeed(
    curandGenerator_t generator,
    unsigned long long seed) {  // NOLINT(runtime/int)
  generator->seed(seed);
  return CURAND_STATUS_SUCCESS;
}
inline curandStatus_t curandSetGeneratorOffset(
    curandGenerator_t, unsigned long long) {  // NOLINT(runtime/int)
  return CURAND_STATUS_SUCCESS;
}
inline curandStatus_t curandGenerate(curandGenerator_t generator,
                                     unsigned* device, size_t count) {
  hostcuda::Draw(generator, device, count, [](std::mt19937_64& engine) {
    return static_cast<unsigned>(engine() >> 32);
  });
  return CURAND_STATUS_SUCCESS;
}
inline curandStatus_t curandGenerateUniform(curandGenerator_t generator,
                                            float* device, size_t count) {
  return hostcuda::DrawUniform(generator, device, count);
}
inline curandStatus_t curandGenerateUniformDouble(curandGenerator_t generator,
                                                  double* device,
                                                  size_t count) {
  return hostcuda::DrawUniform(generator, device, count);
}
inline curandStatus_t curandGenerateNormal(curandGenerator_t generator,
                                           float* device, size_t count,
                                           float mean, float deviation) {
  return hostcuda::DrawNormal(generator, device, count, mean, deviation);
}
inline curandStatus_t curandGenerateNormalDouble(curandGenerator_t generator,
                                                 double* device, size_t count,
                                                 double mean,
                                                 double deviation) {
  return hostcuda::DrawNormal(generator, device, count, mean, deviation);
}

#endif  // HOSTCUDA_CURAND_H_
