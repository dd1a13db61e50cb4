# Sourced by debian11.sh and debian13.sh: a Debian in a folder, and the patched tree built there.
# Needs $name (of the script) and $release; sets $top, $folder and $system. By root, on a Debian or
# Ubuntu with a network. What is done already is not done again.
# shellcheck shell=sh disable=SC2016  # apt and dpkg expand $(SITE) and ${Version}

: "${name:?}" "${release:?}"
top=$(cd "$(dirname -- "$0")/../.." && pwd -P)
folder=${1:-$top/build/$name}
system=$folder/system
jobs=${JOBS:-$(nproc)}

fail() {
  echo "$name: $1" >&2
  exit 1
}

# Runs a command there, as root.
inside() {
  chroot "$system" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    CCACHE_DIR=/ccache GLOG_minloglevel=2 PYTHONDONTWRITEBYTECODE=1 \
    PIP_CERT=/etc/host-certificates.crt ${PIP_INDEX_URL:+"PIP_INDEX_URL=$PIP_INDEX_URL"} \
    ${OMP_NUM_THREADS:+"OMP_NUM_THREADS=$OMP_NUM_THREADS"} "$@"
}

# What a command there writes goes to $folder/LOG; where it fails, its first error is shown.
logged() { # LOG COMMAND...
  log=$folder/$1
  shift
  "$@" >"$log" 2>&1 || fail "$(grep -m 1 -E '^E:|error|Error|FAILED' "$log" || tail -n 1 "$log") (see $log)"
}

# A minimal system by debootstrap, from the mirror that this machine's apt uses.
make_system() {
  [ "$(id -u)" = 0 ] || fail "debootstrap and chroot need root"
  mkdir -p "$folder"
  if [ ! -d "$system" ]; then
    site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Label: Debian' \
      2>/dev/null | head -n 1)
    [ -n "$site" ] || fail "apt has no package source of Debian's main archive"
    command -v debootstrap >/dev/null || apt-get install -y --no-install-recommends debootstrap
    ! grep -q " $system.new/" /proc/mounts || fail "$system.new holds mounts of a run that broke off"
    rm -rf "$system.new"
    logged debootstrap.log debootstrap --variant=minbase "$release" "$system.new" "$site"
    mv "$system.new" "$system"
  fi
  # The machine's own ways to the network hold in there too.
  cp /etc/resolv.conf "$system/etc/resolv.conf"
  apt-config dump | grep -iE '^Acquire::https?::' >"$system/etc/apt/apt.conf.d/90host" || true
  cp /etc/ssl/certs/ca-certificates.crt "$system/etc/host-certificates.crt"
}

install_inside() { # PACKAGE...
  ! grep -qxF "$*" "$system/packages.done" 2>/dev/null || return 0
  logged packages.log inside dpkg --configure -a # of a run that broke off
  logged packages.log inside apt-get update
  logged packages.log inside apt-get install -y --no-install-recommends "$@"
  echo "$*" >>"$system/packages.done"
}

build_packages() {
  awk '$2 == "build" || $2 == "faster" || $2 == "source" { print $1 }' "$top/cmake/packages.txt"
}

# This project, as a checkout has it, in /project.
copy_project() {
  rm -rf "$system/project"
  mkdir -p "$system/project" "$system/ccache"
  (cd "$top" && tar -cf - --exclude=__pycache__ --exclude='*.so' --exclude='*.egg-info' \
    LICENSE README.md CHANGELOG.md MANIFEST.in pyproject.toml setup.py requirements.txt \
    cmake examples include proto python src tests/cpp tests/python tests/systems) | tar -xf - -C "$system/project"
}

# A step that was done with this very project is not done again; what it printed is shown again.
once() { # NAME COMMAND...
  step=$1
  shift
  key=$(cd "$system/project" && find . -type f | LC_ALL=C sort | xargs -d '\n' cksum | cksum)
  [ "$(cat "$folder/$step.done" 2>/dev/null)" = "$key" ] || {
    "$@" >"$folder/$step.said"
    echo "$key" >"$folder/$step.done"
  }
  cat "$folder/$step.said"
}

# Caffe's source, in /caffe.
copy_caffe() {
  [ -d "$top/build/source" ] ||
    python3 "$top/cmake/fetch_caffe.py" "$top/build/download" "$top/build/source"
  [ -d "$system/caffe" ] || cp -a "$top/build/source" "$system/caffe"
}

# It gets our layers by that system's own Python, and is built; our gtests.
build_patched() {
  copy_caffe
  inside env PYTHONPATH=/project/python python3 -m caffe_metric patch /caffe
  tests=$(for file in "$top"/tests/cpp/test_*.cpp; do
    basename "$file" .cpp | sed 's/^test_//'
  done | paste -sd, -)
  logged configure.log inside cmake -S /caffe -B /caffe/build -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCPU_ONLY=ON -DBLAS=Open -DBUILD_docs=OFF -DBUILD_matlab=OFF "-DBUILD_only_tests=$tests" \
    -DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache
  logged build.log inside ninja -C /caffe/build -j "$jobs" caffe.bin pycaffe test.testbin
  logged gtests.log inside /caffe/build/test/test.testbin --gtest_shuffle '--gtest_filter=-*GPU*'
  inside env PYTHONPATH=/caffe/python \
    python3 -c 'import caffe; assert "Norm" in caffe.layer_type_list()'
}

# Every compiler there, on what goes into a tree.
compile_as_cxx11() {
  logged compilers.log inside env PYTHONPATH=/caffe/python:/project/python sh -c \
    'cd /project/tests/python && python3 -m pytest -v -p no:cacheprovider -c /dev/null \
      test_compilers.py'
  echo "C++11: $(sed -n 's/.*cxx_11\[\(.*\)\] PASSED.*/\1/p' "$folder/compilers.log" | paste -sd, |
    sed 's/,/, /g')"
}

version() { # PACKAGE
  inside dpkg-query -W -f '${Version}' "$1"
}

pretty_name() {
  sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' "$system/etc/os-release"
}

passed() {
  grep -E '^\[ +PASSED' "$folder/gtests.log"
}

# One line: with what it was built, and what the gtests said.
report() {
  echo "$(pretty_name):" \
    "gcc $(inside gcc -dumpversion), Boost $(version libboost-dev)," \
    "OpenCV $(version libopencv-dev), protobuf $(version libprotobuf-dev)," \
    "Python $(inside python3 -c 'import platform; print(platform.python_version())')," \
    "CMake $(version cmake)"
  passed
}
