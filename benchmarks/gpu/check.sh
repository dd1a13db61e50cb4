#!/bin/sh
# Checks and times the layers of caffe-metric on the GPU of this machine.
#
#   ./check.sh [--few] [--steps N] [--tests FILTER] [-o DIR]
#
# --few    small sizes, which try the check more than the GPU
# --steps  of each training (200)
# --tests  a filter of gtest's, instead of all that run on the GPU
# -o       where check.json and the logs go (results)
#
# It needs a driver of CUDA 13 and its cuBLAS and cuRAND: of a toolkit, of pip's
# wheels (nvidia-cublas, nvidia-curand), or the files themselves in ./cuda.
# Exit status: 0, or 1 if something is wrong.
set -u

top=$(cd "$(dirname -- "$0")" && pwd -P) || exit 1
few='' steps=200 out=$top/results
# Caffe's typed tests have the GPU's types in third and fourth place.
tests='*GPU*:*Gpu*:*/2.*:*/3.*'
while [ $# -gt 0 ]; do
  case $1 in
    --few) few=--small ;;
    --steps) shift && steps=$1 ;;
    --tests) shift && tests=$1 ;;
    -o) shift && out=$1 ;;
    *)
      sed -n 's/^# \{0,1\}//; 2,14p' "$0" >&2
      exit 2
      ;;
  esac
  shift
done
mkdir -p "$out" && out=$(cd "$out" && pwd -P) && cd "$top" || exit 1

fail() {
  printf 'check: %s\n' "$1" >&2
  exit 1
}

# --- Libraries ----------------------------------------------------------------

[ "$(uname -sm)" = 'Linux x86_64' ] || fail "this is $(uname -sm), the programs are for Linux x86_64"
# getconf knows no such thing where the C library is another.
glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/^glibc 2\.//; s/\..*//')
[ "${glibc:-0}" -ge 36 ] ||
  fail "this needs glibc 2.36 or newer (Debian 12), here is ${glibc:+glibc 2.}${glibc:-another C library}"

# Where toolkits, distributions and pip put them.
folders() {
  printf '%s\n' "$top/cuda" "${CUDA_HOME:-/nowhere}/lib64" "${CUDA_PATH:-/nowhere}/lib64"
  ls -d "$top"/cuda/nvidia/*/lib /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib \
    /opt/cuda*/lib64 /usr/lib/*-linux-gnu /usr/lib64 2>/dev/null
  for site in "${VIRTUAL_ENV:-/nowhere}" "${CONDA_PREFIX:-/nowhere}" "${HOME:-/nowhere}/.local" \
    /usr/local /usr /opt/*; do
    ls -d "$site"/lib/python3*/*-packages/nvidia/*/lib 2>/dev/null
  done
  # What the loader knows.
  { ldconfig -p || /sbin/ldconfig -p; } 2>/dev/null | sed -n 's|.*libcu.* => \(.*\)/[^/]*$|\1|p'
}

# The first of the folders, which stand a line each, that has a file.
folder_of() { # FILE
  while IFS= read -r folder; do
    [ ! -e "$folder/$1" ] || { printf '%s\n' "$folder" && break; }
  done
}

path=$top/lib
known=$(folders)
missing=''
while read -r library; do
  found=$(printf '%s\n' "$known" | folder_of "$library")
  case :$path: in
    *":${found:-$top/lib}:"*) ;;
    *) path=$path:$found ;;
  esac
  [ -n "$found" ] || missing="$missing${missing:+, }$library"
done <needs
[ -z "$missing" ] || fail "$missing of CUDA 13 not found: install a toolkit, or
  python3 -m pip install --no-deps --target '$top/cuda' 'nvidia-cublas==13.*' \\
    'nvidia-curand==10.4.*' 'nvidia-cuda-runtime==13.*'"

# One of the bundle's programs: the system's own are to keep the system's libraries.
program() { # NAME ARGUMENT...
  name=$1
  shift
  LD_LIBRARY_PATH=$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "bin/$name" "$@"
}

# --- The checks ---------------------------------------------------------------

wrong=''
verdict() { # NAME STATUS
  [ "$2" -eq 0 ] || wrong="$wrong${wrong:+, }$1"
}

# Runs a program whose output is shown and kept; its status.
shown() { # LOG COMMAND...
  log=$1
  shift
  { "$@" 2>"$out/$log.err" || echo "exit status $?" >"$out/$log.failed"; } | tee "$out/$log.log"
  [ ! -e "$out/$log.failed" ] || { cat "$out/$log.err" && return 1; }
}

rm -f "$out"/*.failed "$out"/*.json "$out"/bits.*
program gpu_device "$out/device.json" || fail 'no GPU to check'

echo
echo 'gtests on the GPU'
program test.testbin --gtest_filter="$tests" >"$out/tests.log" 2>&1
status=$?
passed=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) tests*\.$/\1/p' "$out/tests.log")
failed=$(grep -c '^\[  FAILED  \] .*/\?.*(.* ms)' "$out/tests.log")
# Twice: another run has to write the same hashes of all numbers.
for run in 1 2; do
  METRIC_BITS=$out/bits.$run program test.testbin --gtest_filter='GpuParity*' \
    >"$out/parity-tests.log" 2>&1 || status=1
done
bits=other
[ ! -s "$out/bits.1" ] || ! cmp -s "$out/bits.1" "$out/bits.2" || bits=same
[ "$bits" = same ] || status=1
[ "${passed:-0}" -gt 0 ] || status=1
[ "$status" -eq 0 ] || grep -E '^\[  FAILED  \]|Failure' "$out/tests.log" | head -20 | grep . ||
  tail -n 3 "$out/tests.log"
echo "${passed:-0} passed, $failed failed; the bits of a second run: $bits"
verdict gtests "$status"

echo
# shellcheck disable=SC2086  # nothing, or one word
shown parity program gpu_parity $few "$out/parity.json"
verdict parity $?

# --- Trainings ----------------------------------------------------------------

train() { # EXAMPLE MODE
  grep -vE '^ *(max_iter|display|average_loss|snapshot|test_|solver_mode)' \
    "examples/$1/solver.prototxt" >"$out/$1-$2.prototxt"
  cat >>"$out/$1-$2.prototxt" <<END
max_iter: $steps
display: 1
snapshot_after_train: false
snapshot_prefix: "$out/$1-$2"
solver_mode: $2
END
  began=$(date +%s)
  GLOG_logtostderr=1 program caffe train --solver="$out/$1-$2.prototxt" >"$out/$1-$2.log" 2>&1 ||
    return 1
  echo $(($(date +%s) - began)) >"$out/$1-$2.seconds"
  sed -n 's/.*Iteration [0-9]* .*loss = \([^ ]*\).*/\1/p' "$out/$1-$2.log" >"$out/$1-$2.losses"
}

# The first losses have to agree to rounding; later it grows, so that the mean of
# the last tenth has to agree to a tenth.
compare() { # EXAMPLE
  paste "$out/$1-CPU.losses" "$out/$1-GPU.losses" | awk -v name="$1" -v steps="$steps" \
    -v cpu="$(cat "$out/$1-CPU.seconds")" -v gpu="$(cat "$out/$1-GPU.seconds")" \
    -v json="$out/$1.json" '
    function size(x) { return x < 0 ? -x : x }
    { a[NR] = $1; b[NR] = $2
      if (NF != 2 || $1 ~ /nan|inf/ || $2 ~ /nan|inf/) bad = 1 }
    END {
      if (NR < steps) bad = 1
      for (i = 1; i <= 5 && i <= NR; ++i) {
        d = size(a[i] - b[i]) / (size(a[i]) > 1e-6 ? size(a[i]) : 1e-6)
        first = d > first ? d : first
      }
      last = int((NR + 9) / 10)
      for (i = NR - last + 1; i <= NR; ++i) { of_a += a[i] / last; of_b += b[i] / last }
      bad = bad || first > 1e-3 || size(of_a - of_b) > 0.1 * size(of_a)
      printf "%-14s %6d %9.5f %9.5f %9.1e %9.5f %9.5f %6d %6d%s\n", name, NR, a[1], b[1], first,
        of_a, of_b, cpu, gpu, bad ? "  <- wrong" : ""
      printf "{\"example\": \"%s\", \"steps\": %d, \"first_error\": %.3g, \"cpu_loss\": %.6g, " \
        "\"gpu_loss\": %.6g, \"cpu_seconds\": %d, \"gpu_seconds\": %d, \"good\": %s}\n", name, NR,
        first, of_a, of_b, cpu, gpu, bad ? "false" : "true" >json
      exit bad
    }'
}

echo
printf '%-14s %6s %9s %9s %9s %9s %9s %6s %6s\n' training steps 'CPU first' 'GPU first' error \
  'CPU last' 'GPU last' 'CPU s' 'GPU s'
for example in 01_triplet 02_rank_hard 03_margin; do
  status=0
  if train $example CPU && train $example GPU; then
    compare $example || status=1
  else
    status=1
    echo "$example does not train: see $out/$example-*.log"
    echo "{\"example\": \"$example\", \"good\": false}" >"$out/$example.json"
  fi
  verdict "$example" $status
done

echo
# shellcheck disable=SC2086
shown times program gpu_times $few "$out/times.json"
verdict times $?

# --- The report ---------------------------------------------------------------

{
  printf '{"system": "%s", "few": %s,\n"device": ' "$(uname -srm)" \
    "$([ -n "$few" ] && echo true || echo false)"
  cat "$out/device.json"
  printf ', "tests": {"passed": %d, "failed": %d, "same_bits": %s},\n"parity": ' \
    "${passed:-0}" "$failed" "$([ $bits = same ] && echo true || echo false)"
  cat "$out/parity.json" 2>/dev/null || echo null
  printf ', "training": [%s' "$(cat "$out/01_triplet.json")"
  printf ',\n%s' "$(cat "$out/02_rank_hard.json")" "$(cat "$out/03_margin.json")"
  printf '], "times": '
  cat "$out/times.json" 2>/dev/null || echo null
  printf ', "good": %s}\n' "$([ -z "$wrong" ] && echo true || echo false)"
} >"$out/check.json.new" && mv "$out/check.json.new" "$out/check.json"

echo
if [ -n "$wrong" ]; then
  echo "WRONG: $wrong. All numbers: $out/check.json"
  exit 1
fi
echo "All is well. All numbers: $out/check.json"
