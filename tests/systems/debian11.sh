#!/bin/sh
# Debian 11 with its own Caffe, which nobody rebuilt, and then the stock tree, patched and built there.
#
#   tests/systems/debian11.sh [FOLDER]
#
# By root, on a Debian or Ubuntu with a network, after `./run build`, whose .venv makes the wheel.
# FOLDER (build/debian11) gets a minimal Debian 11 by debootstrap with `caffe` and `python3-caffe` as
# they come, Python 3.9, NumPy 1.19, protobuf 3.12. In it: `pip3 install .` as README has it, without
# a compiler; the wheel by pip; the Python layers' tests; the demo's three nets with Python layers,
# and one with the older modules' names, for 200 steps of `caffe train`. Then the patched tree, built,
# and our gtests; and the oldest compilers there on what goes into a tree. The last lines say what
# was built, and what the gtests said.
set -eu

name=debian11 release=bullseye
# shellcheck source=tests/systems/debian.sh
. "$(dirname -- "$0")/debian.sh"

# The distribution's files are as its packages brought them, and its Caffe has none of our layers.
check_untouched() {
  logged untouched.log inside dpkg --verify caffe python3-caffe libcaffe1
  [ ! -s "$folder/untouched.log" ] || fail "its Caffe was changed: $(head -n 1 "$folder/untouched.log")"
  inside python3 -c 'import caffe; assert "Norm" not in caffe.layer_type_list()'
}

forget_package() {
  inside pip3 uninstall -q -y caffe-metric 2>/dev/null || true
}

# README's line, by a user who has no compiler and no protoc.
install_checkout() {
  forget_package
  logged checkout.log inside sh -c 'cd /project && pip3 install .'
  inside sh -c 'cd / && caffe-metric --version'
}

# A wheel for any Python: without compiled rules.
install_wheel() {
  rm -rf "$folder/wheel"
  mkdir -p "$folder/wheel"
  (cd "$folder/wheel" && cp -R "$system/project" source &&
    CAFFE_METRIC_PURE=1 "$top/.venv/bin/python" -m pip --disable-pip-version-check -q wheel \
      --no-deps --no-build-isolation -w . ./source) >"$folder/wheel.log" 2>&1 ||
    fail "no wheel: $(tail -n 1 "$folder/wheel.log")"
  rm -rf "$system/wheel" && mkdir "$system/wheel" && cp "$folder"/wheel/*.whl "$system/wheel"
  forget_package
  logged pip.log inside sh -c 'pip3 install --no-index /wheel/*.whl'
}

# Only what an installed package has not beside it is copied: the tests meet what pip installed.
# sampledata is a script of example 07, which the package does not install.
run_python_tests() {
  rm -rf "$system/tests-of-layers"
  mkdir -p "$system/tests-of-layers"
  cp -R "$system/project/tests" "$system/project/examples" "$system/tests-of-layers"
  grep -q " $system/proc " /proc/mounts || mount -t proc proc "$system/proc"
  trap 'umount "$system/proc"' EXIT
  logged pytest.log inside sh -c 'cd /tests-of-layers/tests/python && python3 -m pytest -q \
    -p no:cacheprovider test_layers_python.py test_layers_faults.py test_param_str.py \
    test_older_modules.py test_identity_data.py test_triplet_select.py test_norm_values.py \
    test_triplet_values.py test_rank_hard_values.py test_margin_values.py test_bad_input.py \
    test_lint.py -k "not sampledata"'
  umount "$system/proc"
  trap - EXIT
  echo "Python layers: $(tail -n 1 "$folder/pytest.log")"
}

make_databases() {
  inside sh -c 'mkdir -p /demo/build/demo/python && cd /demo && python3 -c "
from pathlib import Path
from caffe_metric.demo.databases import make_databases
from caffe_metric.demo.images import load_images
make_databases(load_images(), Path(\"build/demo\"))"'
}

# The demo's nets, for 200 steps; and the first of them as a net of the older Python layers names
# its modules.
prepare_nets() {
  rm -rf "$system/demo"
  mkdir -p "$system/demo"
  cp -R "$system/project/examples" "$system/demo"
  nets=$system/demo/examples/04_python_layers
  sed -i 's/max_iter: .*/max_iter: 200/' "$nets"/*_solver.prototxt
  sed -e '/module: "caffe_metric.layers"/ { N; /"NormLayer"/ { s/caffe_metric.layers/norm2layer/; s/NormLayer/Norm2Layer/; }; }' \
    "$nets/triplet.prototxt" >"$nets/older.prototxt"
  grep -q norm2layer "$nets/older.prototxt" || fail "the net has no Norm to rename"
  sed 's,/triplet,/older,' "$nets/triplet_solver.prototxt" >"$nets/older_solver.prototxt"
  sed -e 's,python/triplet,python/untrained,' -e 's/max_iter: .*/max_iter: 0/' \
    "$nets/triplet_solver.prototxt" >"$nets/untrained_solver.prototxt"
  logged databases.log make_databases
}

# The steps of a solver; of "untrained", none.
train() { # NET
  logged "train_$1.log" inside sh -c "cd /demo &&
    GLOG_minloglevel=0 caffe train --solver=examples/04_python_layers/$1_solver.prototxt"
}

# How well the models tell the test images apart, and whether each does better than untrained.
compare() { # NET...
  logged learned.log inside sh -c "cd /demo && python3 /project/tests/systems/learned.py $*"
  cat "$folder/learned.log"
}

# The gtests, and what they include, as C++11 too, by the oldest compiler, with the strings of
# before gcc 5; Caffe's build asks for a newer standard.
compile_gtests_as_cxx11() {
  # shellcheck disable=SC2016  # the shell there expands it
  logged cxx11.log inside sh -c 'for file in /project/tests/cpp/test_*.cpp; do
      g++-9 -std=c++11 -Wall -Wextra -pedantic-errors -fsyntax-only -DCPU_ONLY \
        -D_GLIBCXX_USE_CXX11_ABI=0 -I/project/include -isystem /caffe/include \
        -isystem /caffe/build/include -isystem /caffe/src -isystem /usr/include/hdf5/serial \
        "$file" || exit 1
    done'
  echo "gtests as C++11: gcc $(inside g++-9 -dumpfullversion)"
}

make_system
install_inside caffe python3-caffe python3-pip
copy_project
once checkout install_checkout
install_inside procps python3-pytest python3-lmdb python3-pil dataset-fashion-mnist
once wheel install_wheel
once pytest run_python_tests
once nets prepare_nets
for net in untrained triplet rank_hard margin older; do
  once "train_$net" train "$net"
done
once learned compare triplet rank_hard margin older
check_untouched

# shellcheck disable=SC2046  # a list
install_inside g++-9 clang-9 clang-11 clang-13 $(build_packages)
build_patched
once compilers compile_as_cxx11
once cxx11 compile_gtests_as_cxx11
report
