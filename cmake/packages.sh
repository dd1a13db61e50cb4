# Sourced by ./run: the system's packages.
# shellcheck shell=sh

not_installed() { # PACKAGE...
  dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null |
    awk -v wanted="$*" '
      $1 == "ii" { have[$2] = 1 }
      END {
        n = split(wanted, names, " ")
        for (i = 1; i <= n; i++) if (!(names[i] in have)) print names[i]
      }'
}

install_packages() { # PACKAGE...
  as_root=
  if [ "$(id -u)" -ne 0 ]; then
    as_root='sudo -n'
    if ! $as_root true; then
      echo "error: packages are missing, and neither root nor sudo is at hand; have installed:" \
        "apt-get install $*"
      return 1
    fi
  fi
  export DEBIAN_FRONTEND=noninteractive
  $as_root apt-get -o DPkg::Lock::Timeout=300 -o APT::Update::Error-Mode=any update &&
    $as_root apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
}

packages() {
  command -v dpkg-query >/dev/null ||
    fail 'system packages' 'this is no Debian or a relative of it (no dpkg-query)'
  # shellcheck disable=SC2046  # a list of names
  missing=$(not_installed $(sed 's/#.*//' cmake/packages.txt))
  # shellcheck disable=SC2086
  [ -z "$missing" ] || step 'system packages' packages install_packages $missing
}

# Without its images the demo takes scikit-learn's digits, and says so.
fashion_mnist() {
  [ -z "$(not_installed dataset-fashion-mnist)" ] ||
    (step 'Fashion-MNIST' dataset install_packages dataset-fashion-mnist) || :
}
