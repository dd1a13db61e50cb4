# Sourced by ./run: steps, one line each, the details in a log; a failure in one line; the lock.
# Needs $root, the project, and $logs, the folder of logs.
# shellcheck shell=sh

fail() { # STEP MESSAGE
  printf 'run: %s: %s\n' "$1" "$2" >&2
  exit 1
}

# Says in one line why a step failed, and what to do.
explain() { # LOG
  own=$(sed -n 's/^error: //p' "$1" | tail -n 1)
  free=$(df -Pk "$logs" | awk 'NR == 2 { print $4 }')
  # A full disk may have lost the log too.
  if grep -q 'No space left on device' "$1" || [ "${free:-0}" -lt 1024 ]; then
    echo "the disk is full: free about 4 GB under $root, then run again"
  elif [ -n "$own" ]; then
    echo "$own"
  elif grep -qE 'Could not resolve|Temporary failure|ProxyError|ConnectTimeout|Failed to fetch|Connection (refused|timed out)|NewConnectionError' "$1"; then
    echo "no network, or no way to the package source: check the connection (and a proxy), then run again; see $1"
  else
    error=$(first_error "$1")
    echo "$error; $(advice "$error")see $1"
  fi
}

# The first line that tells of an error; of CMake's, what stands below it.
first_error() { # LOG
  found=$(awk '
    /^CMake Error/ && !/CMake Error: / { on = 1; next }
    on && /^ / { sub(/^ +/, ""); text = text (text ? " " : "") $0; next }
    on && text { exit }
    END { print text }' "$1")
  [ -n "$found" ] || found=$(grep -m 1 -E \
    '(: (fatal )?error: |: undefined reference to |cannot find -l|^E: |^ERROR: |^CMake Error|\[  FAILED  \])' "$1") ||
    found=$(grep -v '^ninja:' "$1" | tail -n 1)
  echo "$found"
}

# What brings the thing that an error says is missing; nothing for other errors.
advice() { # ERROR
  echo "$1" | grep -qE 'No such file|cannot find -l|[Cc]ould ?(NOT|not) find|not found|undefined|REQUIRED' ||
    return 0
  component=$(echo "$1" | grep -oE 'boost_[a-z_]+' | head -n 1)
  if [ -n "$component" ]; then
    echo "Debian's package lib$(echo "$component" | tr '_' '-')-dev has it; "
    return
  fi
  grep -v '^#' cmake/missing.txt | while IFS='	' read -r pattern package; do
    if echo "$1" | grep -qE "$pattern"; then
      case $package in
        *' '*' '*' '*) echo "$package; " ;;
        *) echo "Debian's package for it: $package; " ;;
      esac
      break
    fi
  done
}

step() { # NAME LOG COMMAND...
  step_name=$1 step_log=$logs/$2.log
  shift 2
  { mkdir -p "$logs" && true >"$step_log"; } 2>/dev/null ||
    fail "$step_name" "cannot write $logs: is the disk full, or read-only?"
  began=$(date +%s)
  if [ -t 1 ]; then
    printf '%-20s ...' "$step_name"
    show_progress "$step_name" "$step_log" &
    watcher=$!
  fi
  status=0
  "$@" >"$step_log" 2>&1 </dev/null || status=$?
  if [ -t 1 ]; then
    stop_watcher
    printf '\r\033[K'
  fi
  [ "$status" -eq 0 ] || fail "$step_name" "$(explain "$step_log")"
  printf '%-20s %s s\n' "$step_name" $(($(date +%s) - began))
  sed -n 's/^note: /  /p' "$step_log"
}

# Compilers at work at once: one a core, and 2 GB of memory for each.
compile_jobs() {
  {
    nproc
    awk '/^MemAvailable/ { print int($2 / 2097152) }' /proc/meminfo
    awk '/^[0-9]/ { print int($1 / 2147483648) }' /sys/fs/cgroup/memory.max || :
  } 2>/dev/null | sort -n | awk 'NR == 1 { print ($1 > 0 ? $1 : 1) }'
}

watcher=
stop_watcher() {
  [ -z "$watcher" ] || kill "$watcher" 2>/dev/null || :
  watcher=
}
trap stop_watcher EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Repeats the builder's last "[12/110]" on the terminal.
show_progress() { # NAME LOG
  while sleep 1 && kill -0 $$ 2>/dev/null; do
    count=$(grep -o '^\[[0-9]*/[0-9]*\]' "$2" | tail -n 1)
    printf '\r\033[K%-20s ... %s' "$1" "$count"
  done
}

# One build at a time in this folder; released by unlock or at exit.
lock() {
  { mkdir -p build && true >>build/.lock; } 2>/dev/null ||
    fail build "cannot write $root/build: is the disk full, or read-only?"
  exec 9>>build/.lock
  flock -n 9 || {
    echo 'another ./run is at work here: waiting for it'
    flock 9
  }
}

unlock() { exec 9>&-; }

# Whether a file holds this line.
unchanged() { # LINE FILE
  [ "$(cat "$2" 2>/dev/null)" = "$1" ]
}
