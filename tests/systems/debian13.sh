#!/bin/sh
# The stock tree, patched, on Debian 13: built in a folder of its own, with our gtests run there.
#
#   tests/systems/debian13.sh [FOLDER]
#
# By root, on a Debian or Ubuntu with a network. FOLDER (build/debian13) gets a minimal Debian 13 by
# debootstrap, from the mirror that this machine's apt uses, and in it Caffe's build. What is done
# already is not done again. The last lines say what was built with, and what the gtests said.
# shellcheck disable=SC2016  # apt and dpkg expand $(SITE) and ${Version}
set -eu

top=$(cd "$(dirname -- "$0")/../.." && pwd -P)
folder=${1:-$top/build/debian13}
release=trixie
system=$folder/system
jobs=${JOBS:-$(nproc)}

fail() {
  echo "debian13: $1" >&2
  exit 1
}

[ "$(id -u)" = 0 ] || fail "debootstrap and chroot need root"
mkdir -p "$folder"

# --- Debian 13, in $system

site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Label: Debian' 2>/dev/null |
  head -n 1)
[ -n "$site" ] || fail "apt has no package source of Debian's main archive"

if [ ! -d "$system" ]; then
  command -v debootstrap >/dev/null || apt-get install -y --no-install-recommends debootstrap
  ! grep -q " $system.new/" /proc/mounts || fail "$system.new holds mounts of a run that broke off"
  rm -rf "$system.new"
  debootstrap --variant=minbase "$release" "$system.new" "$site" >"$folder/debootstrap.log" 2>&1 ||
    fail "debootstrap failed: $(tail -n 1 "$folder/debootstrap.log") (see $folder/debootstrap.log)"
  mv "$system.new" "$system"
fi

# The machine's own ways to the network hold in there too.
cp /etc/resolv.conf "$system/etc/resolv.conf"
apt-config dump | grep -iE '^Acquire::https?::' >"$system/etc/apt/apt.conf.d/90host" || true

inside() {
  chroot "$system" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    CCACHE_DIR=/ccache GLOG_minloglevel=2 PYTHONDONTWRITEBYTECODE=1 "$@"
}

if [ ! -e "$system/packages.done" ]; then
  packages=$(grep -v '^#' "$top/cmake/packages.txt")
  # shellcheck disable=SC2086  # a list
  { inside apt-get update && inside apt-get install -y --no-install-recommends $packages \
    python3 python3-numpy python3-protobuf python3-six python3-skimage; } >"$folder/packages.log" 2>&1 ||
    fail "apt-get failed: $(grep '^E:' "$folder/packages.log" | head -n 1) (see $folder/packages.log)"
  touch "$system/packages.done"
fi

# --- The tree, patched by the system's own Python

[ -d "$top/build/source" ] || python3 "$top/cmake/fetch_caffe.py" "$top/build/download" "$top/build/source"
rm -rf "$system/project"
mkdir -p "$system/project" "$system/ccache"
(cd "$top" && tar -cf - --exclude=__pycache__ --exclude='*.so' include proto python src tests/cpp) |
  tar -xf - -C "$system/project"
[ -d "$system/caffe" ] || cp -a "$top/build/source" "$system/caffe"
inside env PYTHONPATH=/project/python python3 -m caffe_metric patch /caffe

# --- Built, and tested

tests=$(for file in "$top"/tests/cpp/test_*_layer.cpp; do
  basename "$file" .cpp | sed 's/^test_//'
done | paste -sd, -)
{ inside cmake -S /caffe -B /caffe/build -G Ninja -DCMAKE_BUILD_TYPE=Release -DCPU_ONLY=ON \
  -DBLAS=Open -DBUILD_docs=OFF -DBUILD_matlab=OFF "-DBUILD_only_tests=$tests" \
  -DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache &&
  inside nice ninja -C /caffe/build -j "$jobs" caffe.bin pycaffe test.testbin; } \
  >"$folder/build.log" 2>&1 ||
  fail "the build failed: $(grep -m 1 -E 'error|FAILED' "$folder/build.log") (see $folder/build.log)"

inside /caffe/build/test/test.testbin --gtest_shuffle '--gtest_filter=-*GPU*' \
  >"$folder/gtests.log" 2>&1 ||
  fail "gtests failed: $(grep -m 1 'FAILED' "$folder/gtests.log") (see $folder/gtests.log)"
inside env PYTHONPATH=/caffe/python python3 -c 'import caffe; assert "Norm" in caffe.layer_type_list()'

name=$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' "$system/etc/os-release")
version() { inside dpkg-query -W -f '${Version}' "$1"; }
echo "$name: gcc $(inside gcc -dumpversion), Boost $(version libboost-dev)," \
  "OpenCV $(version libopencv-dev), protobuf $(version libprotobuf-dev)," \
  "Python $(inside python3 -c 'import platform; print(platform.python_version())')," \
  "CMake $(version cmake)"
grep -E '^\[ +PASSED' "$folder/gtests.log"
