#!/bin/sh
# The package on every Python that it takes, with NumPy, protobuf and PyYAML of that Python's years.
#
#   tests/systems/pythons.sh [FOLDER [VERSION...]]
#
# After `./run build`, whose .venv makes the packages. Each Python of the rows below that is here,
# by PATH or pyenv, gets a venv in FOLDER (build/pythons): the wheel without compiled rules by pip,
# and the tests that need no Caffe, on what pip installed; the first and the last then the source
# distribution by pip, with a compiler, and the tests of the compiled rules. A Python that is not
# here is named.
# shellcheck disable=SC2046,SC2086  # lists of names
set -eu

rows='
3.8   1.17  3.6   5.1  source
3.9   1.19  3.12  5.3
3.10  1.21  3.20  6
3.11  1.24  4     6
3.12  1.26  5     6
3.13  2     6     6    source
'
tests='test_child test_convert test_files test_finite_differences test_lint_batch_losses test_lists
  test_margin_values test_metrics test_netfile test_norm_values test_oracles test_order
  test_param_str test_patch_proto test_patch_stock test_rank_hard_values test_sampling test_schema
  test_selection test_triplet_values'
top=$(cd "$(dirname -- "$0")/../.." && pwd -P)
folder=${1:-$top/build/pythons}
[ $# -eq 0 ] || shift
chosen=$*
mkdir -p "$folder"
folder=$(cd "$folder" && pwd -P)

fail() {
  echo "pythons: $1" >&2
  exit 1
}

# A name of pyenv's that no version stands behind does not run.
interpreter() { # VERSION
  for one in "$(command -v "python$1")" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/"python$1"; do
    ! "$one" -c '' 2>/dev/null || {
      echo "$one"
      return
    }
  done
}

pip_install() { # WHAT...
  "$venv/bin/python" -m pip --disable-pip-version-check install "$@"
}

# Without those that hold a number against scikit-learn's.
run_tests() { # NAME...
  (cd "$folder/tests/python" && "$venv/bin/python" -m pytest -q -p no:cacheprovider \
    -c "$folder/pytest.ini" -k "not sklearn and not nmi" $(printf '%s.py ' "$@"))
}

install_wheel() { # NUMPY PROTOBUF PYYAML
  "$found" -m venv --clear "$venv" &&
    pip_install "numpy==$1.*" "protobuf==$2.*" "PyYAML==$3.*" pytest "${wheel}[data]" &&
    run_tests $tests
}

install_source() {
  pip_install --force-reinstall --no-deps "$source" &&
    "$venv/bin/python" -c 'import caffe_metric._core' &&
    run_tests test_core test_triplet_values
}

try() { # VERSION NUMPY PROTOBUF PYYAML [source]
  [ -z "$chosen" ] || echo " $chosen " | grep -qF " $1 " || return 0
  found=$(interpreter "$1")
  if [ -z "$found" ]; then
    echo "Python $1: not here"
    return
  fi
  venv=$folder/$1
  log=$folder/$1.log
  { install_wheel "$2" "$3" "$4" && { [ $# -eq 4 ] || install_source; }; } >"$log" 2>&1 ||
    fail "Python $1: $(grep -m 1 -E '^(FAILED|ERROR)' "$log" || tail -n 1 "$log") (see $log)"
  "$venv/bin/python" -c '
import platform, google.protobuf, numpy, yaml
print("Python {}, NumPy {}, protobuf {}, PyYAML {}:".format(platform.python_version(),
    numpy.__version__, google.protobuf.__version__, yaml.__version__))'
  grep -E '^[0-9]+ passed' "$log" | sed 's/^/  /'
}

rm -rf "$folder/package" "$folder/tests" "$folder/examples"
mkdir "$folder/package"
wheel=$(cd "$top/tests/python" && "$top/.venv/bin/python" -c '
import sys
from pathlib import Path
from package_wheel import build_wheel
print(build_wheel(Path(sys.argv[1]), Path(sys.argv[2]), CAFFE_METRIC_PURE="1"))' \
  "$top" "$folder/package")
"$top/.venv/bin/python" -m build --sdist --no-isolation --outdir "$folder/package" \
  "$folder/package/source" >"$folder/package.log" 2>&1 || fail "see $folder/package.log"
source=$(ls "$folder/package"/*.tar.gz)
cp -R "$top/tests" "$top/examples" "$folder"
printf '[pytest]\nmarkers =\n  slow\n' >"$folder/pytest.ini"
export PYTHONDONTWRITEBYTECODE=1 CC='ccache cc' CXX='ccache c++'
unset PYTHONPATH
echo "$rows" | while read -r row; do
  [ -z "$row" ] || try $row </dev/null
done
