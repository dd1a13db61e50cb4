# Sourced by ./run: CUDA's compiler, and what it compiles.
# shellcheck shell=sh

# A toolkit of the system's, or of our own.
cuda_toolkit=${CUDA_TOOLKIT:-$root/build/cuda-toolkit/nvidia/cu13}

# CUDA's compiler from PyPI, in a place of its own; the links are those that a toolkit has.
install_toolkit() {
  "$python" -m pip --disable-pip-version-check install --no-deps --upgrade \
    --target build/cuda-toolkit -r requirements-cuda.txt &&
    (cd build/cuda-toolkit/nvidia/cu13 && ln -sfn lib lib64 && cd lib &&
      for library in libcublas.so.13 libcublasLt.so.13 libcudart.so.13 libcurand.so.10; do
        ln -sf "$library" "${library%.so.*}.so"
      done) &&
    cp requirements-cuda.txt build/cuda-toolkit/
}

toolkit() {
  [ -z "$CUDA_TOOLKIT" ] || return 0
  cmp -s requirements-cuda.txt build/cuda-toolkit/requirements-cuda.txt ||
    step 'CUDA compiler' cuda-toolkit install_toolkit
}

# The `caffe` tool of a build for GPUs has to run a net on the processor without a driver.
try_cuda_caffe() {
  build/cuda/build/tools/caffe time --model=cmake/cpu_net.prototxt --iterations=1
}

compile_kernels() {
  "$python" cmake/cuda_kernels.py "$cuda_toolkit" "$tree" build/cuda-kernels
}

pack_gpu_bundle() {
  "$python" cmake/gpu_bundle.py build/gpu build/gpu-bundle.tar.xz
}
