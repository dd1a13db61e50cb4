# Sourced by ./run: .venv, what is installed into it, and the package itself.
# Needs $venv, $python, its interpreter, and $tree, the Caffe that is built.
# shellcheck shell=sh

# Boost.Python is built for the distribution's Python; no other can import pycaffe.
boost_python() {
  for library in /usr/lib/*/libboost_python3[0-9]*.so /usr/lib*/libboost_python3[0-9]*.so; do
    [ -e "$library" ] || continue
    minor=${library##*libboost_python3}
    minor=${minor%.so}
    [ -x "/usr/bin/python3.$minor" ] && echo "/usr/bin/python3.$minor" && return
  done
  fail Python 'no /usr/bin/python3.x belongs to a libboost_python3x.so: install libboost-python-dev'
}

make_venv() { # PYTHON
  { "$python" -m pip --version || "$1" -m venv --clear .venv; } &&
    "$python" -m pip --disable-pip-version-check install -r requirements.txt &&
    cp requirements.txt "$venv/.requirements.txt"
}

environment() {
  interpreter=$(boost_python)
  version=${interpreter##*python}
  if [ -x "$python" ]; then
    found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' || echo unknown)
    [ "$found" = "$version" ] ||
      fail Python ".venv holds Python $found, but Boost.Python is built for $version: remove .venv and run again"
  fi
  cmp -s requirements.txt "$venv/.requirements.txt" ||
    step "Python $version" python make_venv "$interpreter"
}

# Here and in all that `step` calls, && and || decide: the shell's -e does not hold there.
# The package in .venv, editable; pycaffe beside it; the tool with a Python that finds both.
install_project() {
  site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))') &&
    echo "$tree/python" >"$site/pycaffe.pth" &&
    cat >"$venv/bin/caffe" <<EOF && chmod +x "$venv/bin/caffe" || return 1
#!/bin/sh
# The interpreter that Caffe embeds for Python layers is found by PATH: it has to be .venv's.
PATH="$venv/bin:\$PATH" exec "$tree/build/tools/caffe" "\$@"
EOF
  bindings=$(cat setup.py src/python/* include/caffe_metric/* | cksum)
  unchanged "$bindings" "$venv/.bindings" || CC="ccache cc" CXX="ccache c++" \
    "$python" setup.py build_ext --inplace || return 1
  package=$(cat setup.py pyproject.toml | cksum)
  unchanged "$package" "$venv/.package" || CC="ccache cc" CXX="ccache c++" \
    "$python" -m pip --disable-pip-version-check install --no-build-isolation --no-deps -e . || return 1
  "$python" -c 'import caffe, caffe_metric._core' &&
    echo "$bindings" >"$venv/.bindings" && echo "$package" >"$venv/.package"
}

has_module() { # MODULE
  "$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec(sys.argv[1]) is None)' "$1"
}

# What the site is made with; pins of requirements.txt hold.
install_mkdocs() {
  cmp -s requirements-docs.txt "$venv/.requirements-docs.txt" || {
    "$python" -m pip --disable-pip-version-check install -r requirements-docs.txt \
      -c requirements.txt && cp requirements-docs.txt "$venv/.requirements-docs.txt"
  }
}

# Second oracles. Where the package index has them not, their tests are skipped.
torch_cpu() {
  has_module torch || (step 'PyTorch' torch "$python" -m pip --disable-pip-version-check \
    --retries 1 install torch==2.13.0+cpu) || :
}

# What the benchmarks measure against, too; without it they say so.
metric_learning() {
  has_module pytorch_metric_learning || (step 'metric learning' metric-learning \
    "$python" -m pip --disable-pip-version-check --retries 1 \
    install --no-deps pytorch-metric-learning==2.9.0 tqdm) || :
}
