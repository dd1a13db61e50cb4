#!/bin/sh
# The stock tree, patched, built by Caffe's own Makefile, with `make runtest` of our gtests.
#
#   tests/systems/makefile.sh [FOLDER]
#
# After `./run build`, which brings the packages and Caffe's source. FOLDER (build/makefile) gets a
# copy of the source with our layers; its Makefile.config is the example's, for a CPU and OpenBLAS.
set -eu

top=$(cd "$(dirname -- "$0")/../.." && pwd -P)
folder=${1:-$top/build/makefile}
jobs=${JOBS:-$(nproc)}
tree=$folder/caffe

fail() {
  echo "makefile: $1" >&2
  exit 1
}

[ -d "$top/build/source" ] || fail "$top/build/source is missing: ./run build fetches it"
mkdir -p "$folder"
[ -d "$tree" ] || cp -a "$top/build/source" "$tree"
PYTHONPATH="$top/python" PYTHONDONTWRITEBYTECODE=1 python3 -m caffe_metric patch "$tree"

# As its user would edit the example; ccache, where there is one.
sed -e 's/^# CPU_ONLY := 1/CPU_ONLY := 1/' -e 's/^BLAS := atlas/BLAS := open/' \
  -e 's/^# WITH_PYTHON_LAYER := 1/WITH_PYTHON_LAYER := 1/' "$tree/Makefile.config.example" \
  >"$tree/Makefile.config"
{
  # shellcheck disable=SC2016  # make expands it
  echo 'INCLUDE_DIRS += $(shell python3 -c "import sysconfig; print(sysconfig.get_path(\"include\"))")'
  command -v ccache >/dev/null && echo 'CUSTOM_CXX := ccache g++'
} >>"$tree/Makefile.config"

# Only our gtests and the tool that `make runtest` starts; all of the library.
tests=$(cd "$tree" && for file in "$top"/tests/cpp/test_*.cpp; do
  printf 'src/caffe/test/%s ' "$(basename "$file")"
done)
build() {
  nice make -C "$tree" -j "$jobs" TOOL_SRCS=tools/caffe.cpp EXAMPLE_SRCS= TEST_SRCS="$tests" "$@"
}
{ build lib tools && build runtest; } >"$folder/build.log" 2>&1 ||
  fail "$(grep -m 1 -E 'error|Error|FAILED' "$folder/build.log") (see $folder/build.log)"
grep -E '^\[ +PASSED' "$folder/build.log"
