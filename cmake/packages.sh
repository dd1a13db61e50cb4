# Sourced by ./run: the system's packages. cmake/packages.txt lists them by target.
# shellcheck shell=sh

# Rows of the list: those of the targets, or all.
package_rows() { # TARGET...
  awk -v targets=" $* " '!/^#/ && NF && index(targets, " " $2 " ")' cmake/packages.txt
}

not_installed() { # PACKAGE...
  dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null |
    awk -v wanted="$*" '
      $1 == "ii" { have[$2] = 1 }
      END {
        n = split(wanted, names, " ")
        for (i = 1; i <= n; i++) if (!(names[i] in have)) print names[i]
      }'
}

# What a header itself includes may lie in folders that only Caffe's build knows.
has_header() { # HEADER
  printf '#ifndef __has_include\n#include <%s>\n#elif !__has_include(<%s>)\n#error\n#endif\n' \
    "$1" "$1" | c++ -x c++ -E - >/dev/null 2>&1
}

# Whether a command, a header or "python3:MODULE" is there, wherever it comes from.
is_there() { # WHAT
  case $1 in
    python3:*) python3 -c "import ${1#python3:}" 2>/dev/null ;;
    *.h | *.hpp) has_header "$1" ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# Of rows "PACKAGE TARGET WHAT...", those with nothing that tells of them: "WHAT... (PACKAGE)".
not_found() {
  while read -r package _ signs; do
    for sign in $signs; do
      ! is_there "$sign" || continue 2
    done
    echo "$(echo "$signs" | sed 's/ / or /g') ($package)"
  done
}

can_install() {
  [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null
}

install_packages() { # PACKAGE...
  as_root=
  [ "$(id -u)" -eq 0 ] || as_root='sudo -n'
  export DEBIAN_FRONTEND=noninteractive
  $as_root apt-get -o DPkg::Lock::Timeout=300 -o APT::Update::Error-Mode=any update &&
    $as_root apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
}

# Brings what the targets need. Where nothing can be installed it looks for the things themselves.
packages() { # TARGET...
  missing=$(package_rows "$@" | cut -d ' ' -f 1)
  if command -v dpkg-query >/dev/null; then
    # shellcheck disable=SC2086  # a list of names
    missing=$(not_installed $missing)
    [ -n "$missing" ] || return 0
    if can_install; then
      # shellcheck disable=SC2086
      step 'system packages' packages install_packages $missing
      return
    fi
  fi
  lacking=$(package_rows "$@" | awk -v missing=" $(echo "$missing" | tr '\n' ' ')" \
    'index(missing, " " $1 " ") && $2 != "faster"' | not_found)
  [ -z "$lacking" ] || fail 'system packages' \
    "not found, and nothing can be installed here (no root, no sudo, or no dpkg); Debian's package \
in brackets: $(echo "$lacking" | paste -s -d ',' | sed 's/,/, /g')"
}

# Without its images the demo takes scikit-learn's digits, and says so.
fashion_mnist() {
  ! command -v dpkg-query >/dev/null || [ -z "$(not_installed dataset-fashion-mnist)" ] ||
    ! can_install || (step 'Fashion-MNIST' dataset install_packages dataset-fashion-mnist) || :
}
