#!/bin/sh
# The stock tree, patched, on Debian 13: built in a folder of its own, with our gtests run there.
#
#   tests/systems/debian13.sh [FOLDER]
#
# By root, on a Debian or Ubuntu with a network. FOLDER (build/debian13) gets a minimal Debian 13 by
# debootstrap, and in it Caffe's build; then compilers that Debian 12 has not, on what goes into a
# tree. The last lines say what was built with, and what the gtests said.
set -eu

name=debian13 release=trixie
# shellcheck source=tests/systems/debian.sh
. "$(dirname -- "$0")/debian.sh"

make_system
# shellcheck disable=SC2046  # a list
install_inside $(build_packages) python3 python3-numpy python3-protobuf python3-six python3-skimage \
  python3-yaml python3-pytest g++-13 clang-19
copy_project
build_patched
once compilers compile_as_cxx11
report
