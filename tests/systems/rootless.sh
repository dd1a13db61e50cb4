#!/bin/sh
# `./run build` of a tree of one's own by a user without root, sudo, dpkg and HOME, in a folder with
# blanks in its name.
#
#   tests/systems/rootless.sh [FOLDER]
#
# By root, which gives itself up, after `./run build`, which brings the packages and Caffe's source.
# FOLDER (/tmp/caffe-metric-rootless), which everybody must be able to reach, gets a copy of this
# project, of the source, and a folder of commands without those of the package system. A second
# run compiles what changed. The last lines say what was built.
set -eu

top=$(cd "$(dirname -- "$0")/../.." && pwd -P)
folder=${1:-/tmp/caffe-metric-rootless}
project="$folder/a folder/caffe metric"
caffe="$folder/a folder/my caffe"

fail() {
  echo "rootless: $1" >&2
  exit 1
}

[ "$(id -u)" = 0 ] || fail "needs root, to become nobody"
[ -d "$top/build/source" ] || fail "$top/build/source is missing: ./run build fetches it"
mkdir -p "$project" "$caffe"
(cd "$top" && git ls-files -z --cached --others --exclude-standard | tar -cf - --null -T -) |
  tar -xf - -C "$project"
cp -a "$top/build/source/." "$caffe"
# Data of a user's, which the copy leaves out and names.
echo weights >"$caffe/models/old.caffemodel"
rm -rf "${folder:?}/bin"
mkdir "$folder/bin"
for command in /usr/bin/*; do
  case ${command##*/} in
    dpkg* | apt* | sudo) ;;
    *) ln -s "$command" "$folder/bin/" ;;
  esac
done
chown -R nobody: "$folder"

cd "$project"
as_nobody() {
  setpriv --reuid=nobody --regid=nogroup --clear-groups --no-new-privs env -u HOME \
    -u PIP_CONFIG_FILE PATH="$folder/bin" "$@"
}
as_nobody CAFFE_ROOT='../my caffe' ./run build | tee "$folder/run.log"
grep -q '^  not copied, .*old.caffemodel' "$folder/run.log" || [ -e "$folder/built" ] ||
  fail "the copy does not say what it left out"
touch "$folder/built"
as_nobody .venv/bin/python -c '
import caffe, caffe_metric._core
assert "Norm" in caffe.layer_type_list()
print(caffe.__file__)'
as_nobody .venv/bin/caffe --version
