# Sourced by ./run: Caffe's source, its builds, and the gtests in them.
# Needs $root, $from and $python; sets $source, $tree and $stock_tree.
# shellcheck shell=sh

# A path of the user's, who called from the folder $from.
absolute() { # PATH
  case $1 in
    '' | /*) echo "$1" ;;
    *) echo "$from/$1" ;;
  esac
}

CAFFE_ROOT=$(absolute "${CAFFE_ROOT:-}")
CAFFE_SOURCE=$(absolute "${CAFFE_SOURCE:-}")
CUDA_TOOLKIT=$(absolute "${CUDA_TOOLKIT:-}")

# Which tree is built: Debian's Caffe, or a copy of the user's.
if [ -n "$CAFFE_ROOT" ]; then
  source=$CAFFE_ROOT tree=$root/build/caffe-user stock_tree=$root/build/stock-user
else
  source=$root/build/source tree=$root/build/caffe stock_tree=$root/build/stock
fi

fetch() {
  [ -n "$CAFFE_ROOT" ] || [ -d "$source" ] || step 'Caffe source' source \
    "$python" cmake/fetch_caffe.py build/download "$source" ${CAFFE_SOURCE:+"$CAFFE_SOURCE"}
}

cmake_build() { # TARGET
  # An option that is no longer given must not stay behind.
  unchanged "${CAFFE_CMAKE_ARGS:-}" build/cmake/caffe-arguments ||
    rm -f "$tree/build/CMakeCache.txt" "$stock_tree/build/CMakeCache.txt"
  cmake -S . -B build/cmake -G Ninja -DCMAKE_MESSAGE_LOG_LEVEL=NOTICE \
    -DCAFFE_SOURCE="$source" -DCAFFE_TREE="$tree" -DSTOCK_TREE="$stock_tree" -DPYTHON="$python" \
    -DCAFFE_ARGUMENTS="${CAFFE_CMAKE_ARGS:-}" -DPATCH_ARGUMENTS="${CAFFE_PATCH_ARGS:-}" \
    -DCUDA_TOOLKIT="$cuda_toolkit" &&
    echo "${CAFFE_CMAKE_ARGS:-}" >build/cmake/caffe-arguments &&
    cmake --build build/cmake --target "$1"
}

run_gtests() { # PROGRAM ARGUMENT...
  (cd "$tree" && "$@" --gtest_color=no)
}

test_gtests() {
  cmake_build caffe-gtests && run_gtests build/test/test.testbin --gtest_filter=-*GPU*
}

# The same tests under the address and undefined sanitizers, with the little of Caffe they need: half
# of them beside the other. The slowest one with one of the two types.
test_sanitized() {
  cmake -S cmake/sanitize -B build/sanitize -G Ninja -DCAFFE_TREE="$tree" &&
    cmake --build build/sanitize || return 1
  sanitized_half 1 &
  half=$!
  sanitized_half 0 || { wait "$half" || :; return 1; }
  wait "$half"
}

sanitized_half() { # 0 or 1
  GTEST_TOTAL_SHARDS=2 GTEST_SHARD_INDEX=$1 run_gtests "$root/build/sanitize/gtests" \
    --gtest_filter=-TripletMiningCPUTest/1.TestManyStrips
}

# And in GPU mode: the .cu files, compiled for the host and run there. What runs on the CPU alone
# is left to the others.
test_hostcuda() {
  cmake -S tests/hostcuda -B build/hostcuda -G Ninja -DCAFFE_ROOT="$tree" &&
    cmake --build build/hostcuda &&
    run_gtests "$root/build/hostcuda/hostcuda_test" &&
    run_gtests "$root/build/hostcuda/metric_test" --gtest_filter=-*CPUTest*:ExponentialTest*
}
