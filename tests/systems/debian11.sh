#!/bin/sh
# Debian 11 with its own Caffe, which nobody rebuilt, and then the stock tree, patched and built there.
#
#   tests/systems/debian11.sh [FOLDER]
#
# By root, on a Debian or Ubuntu with a network, after `./run build`, whose .venv makes the wheel.
# FOLDER (build/debian11) gets a minimal Debian 11 by debootstrap with `caffe` and `python3-caffe` as
# they come, Python 3.9, NumPy 1.19, protobuf 3.12, no compiled rules. In it: the wheel by pip; the
# Python layers' tests; the demo's three nets with Python layers, and one with the older modules'
# names, for 200 steps of `caffe train`. The last lines say what was built, and what the gtests said.
set -eu

name=debian11 release=bullseye
# shellcheck source=tests/systems/debian.sh
. "$(dirname -- "$0")/debian.sh"

# Only what an installed package has not beside it is copied: the tests meet what pip installed.
# sampledata is a script of example 07, which the package does not install.
run_python_tests() {
  rm -rf "$system/tests-of-layers"
  mkdir -p "$system/tests-of-layers"
  cp -R "$system/project/tests" "$system/project/examples" "$system/tests-of-layers"
  mount -t proc proc "$system/proc"
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

# The loss has to end under its start: a net that learns nothing, or whose layer fails, does not.
train() { # SOLVER LOG
  logged "$2" inside sh -c "cd /demo && GLOG_minloglevel=0 caffe train --solver=$1"
  losses=$(sed -n 's/.*Iteration [0-9]* .*, loss = \(.*\)/\1/p' "$folder/$2")
  first=$(echo "$losses" | head -n 1)
  last=$(echo "$losses" | tail -n 1)
  echo "$1, 200 steps: loss $first, then $last"
  awk "BEGIN { exit !($last < $first) }" || fail "$1 learns nothing"
}

make_system
# shellcheck disable=SC2046  # a list
install_inside caffe python3-caffe python3-pip python3-pytest python3-lmdb python3-pil \
  dataset-fashion-mnist $(build_packages)
copy_project

# A wheel for any Python: without compiled rules.
rm -rf "$folder/wheel"
mkdir -p "$folder/wheel"
(cd "$folder/wheel" && cp -R "$system/project" source &&
  CAFFE_METRIC_PURE=1 "$top/.venv/bin/python" -m pip --disable-pip-version-check -q wheel \
    --no-deps --no-build-isolation -w . ./source) >"$folder/wheel.log" 2>&1 ||
  fail "no wheel: $(tail -n 1 "$folder/wheel.log")"
cp "$folder"/wheel/*.whl "$system/root"
inside pip3 uninstall -q -y caffe-metric 2>/dev/null || true
logged pip.log inside sh -c 'pip3 install --no-index /root/*.whl'

run_python_tests
rm -rf "$system/demo"
mkdir -p "$system/demo"
cp -R "$system/project/examples" "$system/demo"
logged databases.log make_databases
for solver in "$system"/demo/examples/04_python_layers/*_solver.prototxt; do
  sed -i 's/max_iter: .*/max_iter: 200/' "$solver"
done
# As a net of the older Python layers names its modules.
older=examples/04_python_layers/older.prototxt
sed -e 's/module: "caffe_metric.layers"/module: "norm2layer"/' -e 's/layer: "NormLayer"/layer: "Norm2Layer"/' \
  "$system/demo/examples/04_python_layers/triplet.prototxt" >"$system/demo/$older"
grep -q norm2layer "$system/demo/$older" || fail "the net has no Norm to rename"
sed "s,examples/04_python_layers/triplet.prototxt,$older," \
  "$system/demo/examples/04_python_layers/triplet_solver.prototxt" \
  >"$system/demo/examples/04_python_layers/older_solver.prototxt"
for net in triplet rank_hard margin older; do
  train "examples/04_python_layers/${net}_solver.prototxt" "train_$net.log"
done

build_patched
report
