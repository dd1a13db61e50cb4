#!/bin/sh
# A training of two ranks on two hosts: network namespaces with a wire of 1 Gbit/s and 1 ms.
#
#   tests/systems/two_hosts.sh [FOLDER]
#
# As root, after `./run build test`. The wire exists in the namespaces alone: a veth pair whose rate
# and delay tc sets, or, where the kernel has no netem, two cards that wire.py joins. FOLDER
# (build/two_hosts) gets the trainings. mpirun reaches the other host by an agent in the place of ssh.
set -eu

top=$(cd "$(dirname -- "$0")/../.." && pwd -P)
folder=${1:-$top/build/two_hosts}
python=$top/.venv/bin/python
one=caffe-metric-1 other=caffe-metric-2 net=10.77.0
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
export PYTHONPATH="$top/python:$top/tests/python:$top${PYTHONPATH:+:$PYTHONPATH}"

fail() {
  echo "two_hosts: $1" >&2
  exit 1
}

[ "$(id -u)" -eq 0 ] || fail 'network namespaces need root'
for tool in ip tc unshare mpirun; do
  command -v "$tool" >/dev/null || fail "$tool is missing (iproute2, util-linux, openmpi-bin)"
done

wire=
clean() {
  [ -z "$wire" ] || kill "$wire" 2>/dev/null || :
  ip netns del "$one" 2>/dev/null || :
  ip netns del "$other" 2>/dev/null || :
}
trap clean EXIT
trap 'exit 1' INT TERM
clean

rm -rf "$folder"
mkdir -p "$folder"

# --- The wire -------------------------------------------------------------------------------------

for host in "$one" "$other"; do
  ip netns add "$host"
  ip -n "$host" link set lo up
done
ip -n "$one" link add wire type veth peer name wire netns "$other"
how='a veth pair with netem'
if tc -n "$one" qdisc add dev wire root netem delay 1ms rate 1gbit 2>/dev/null; then
  tc -n "$other" qdisc add dev wire root netem delay 1ms rate 1gbit
else
  how='no netem in this kernel: cards with tbf, and a process that delays their frames'
  ip -n "$one" link del wire
  mkfifo "$folder/wire.ready"
  python3 "$top/tests/systems/wire.py" 0.001 cm-wire1 cm-wire2 >"$folder/wire.ready" &
  wire=$!
  read -r _ <"$folder/wire.ready" || fail 'no network cards can be made (/dev/net/tun)'
  number=1
  for host in "$one" "$other"; do
    ip link set "cm-wire$number" netns "$host" name wire mtu 9000
    tc -n "$host" qdisc add dev wire root tbf rate 1gbit burst 256kb latency 50ms ||
      fail 'tc sets neither netem nor tbf'
    number=$((number + 1))
  done
fi
number=1
for host in "$one" "$other"; do
  ip -n "$host" address add "$net.$number/24" dev wire
  ip -n "$host" link set wire up
  number=$((number + 1))
done
sleep 1 # the cards find each other
echo "two hosts, 1 Gbit/s and 1 ms each way ($how)"
trip=$(ip netns exec "$one" "$python" - "$net.2" "$other" <<'EOF'
import socket
import statistics
import subprocess
import sys
import time

answer = (
    "import socket; s = socket.create_server(('', 5005)); print('on', flush=True)\n"
    "c = s.accept()[0]; c.setsockopt(6, 1, 1)\nwhile b := c.recv(1): c.sendall(b)"
)
run = ["ip", "netns", "exec", sys.argv[2], sys.executable, "-c", answer]
there = subprocess.Popen(run, stdout=subprocess.PIPE)
there.stdout.readline()
here, taken = socket.create_connection((sys.argv[1], 5005), 5), []
here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for _ in range(20):
    began = time.perf_counter()
    here.sendall(b"x")
    here.recv(1)
    taken.append(time.perf_counter() - began)
print(f"{1000 * statistics.median(taken):.2f}")
here.close()
there.wait(5)
EOF
) || fail 'the hosts do not reach each other'
echo "a byte goes there and back in $trip ms"

# --- The hosts ------------------------------------------------------------------------------------

cat >"$folder/agent" <<EOF
#!/bin/sh
# agent HOST COMMAND...: what ssh would do.
host=\$1
shift
case \$host in $net.1) name=$one ;; $net.2) name=$other ;; *) exit 255 ;; esac
export TMPDIR="$folder/tmp.\$name"
mkdir -p "\$TMPDIR"
exec ip netns exec "\$name" unshare --uts sh -c "hostname \$name; \$*"
EOF
chmod +x "$folder/agent"
printf '%s slots=1\n' "$net.1" "$net.2" >"$folder/hosts"

# On host 1: mpirun, which starts rank 0 there and rank 1 on the other.
across() { # FOLDER ARGUMENT OF TRAIN...
  there=$1
  shift
  "$folder/agent" "$net.1" cd "$there" '&&' exec timeout 120 mpirun -n 2 --hostfile "$folder/hosts" \
    --mca plm_rsh_agent "$folder/agent" --mca btl tcp,self --mca btl_tcp_if_include wire \
    --mca oob_tcp_if_include wire --mca oob_tcp_keepalive_time 3 --mca oob_tcp_keepalive_intvl 1 \
    --mca oob_tcp_keepalive_probes 3 -x PYTHONPATH -x OMP_NUM_THREADS -x OPENBLAS_NUM_THREADS \
    "$python" -m caffe_metric train --solver solver.prototxt "$@"
}

# --- The same bits as on one host -------------------------------------------------------------------

"$python" - "$folder" <<'EOF'
import sys
from pathlib import Path

import training_nets as nets

net = nets.DATA + nets.FC + nets.SOFTMAX
for name in ("near", "far"):
    nets.write(Path(sys.argv[1], name), net, max_iter=40, snapshot=10)
nets.write(Path(sys.argv[1], "cut"), net, max_iter=1000000, snapshot=10)
EOF
(cd "$folder/near" && mpirun --oversubscribe -n 2 "$python" -m caffe_metric train \
  --solver solver.prototxt) >"$folder/near.log" 2>&1 || fail "one host: see $folder/near.log"
across "$folder/far" >"$folder/far.log" 2>&1 || fail "two hosts: see $folder/far.log"
grep -h 'an iteration exchanged' "$folder/near.log" "$folder/far.log"
for file in small_iter_40.caffemodel small_iter_40.solverstate; do
  cmp "$folder/near/$file" "$folder/far/$file" || fail "$file is not that of one host"
done
echo 'the weights are those of one host, bit for bit'

# --- What the wire costs ----------------------------------------------------------------------------

"$python" - "$folder/lenet" <<'EOF'
import sys
from pathlib import Path

from benchmarks.mpi import LENET_PARAMETERS, volume, write_lenet

write_lenet(Path(sys.argv[1]), 30)
sent = volume(LENET_PARAMETERS, 2)
print(
    f"LeNet, by formula: {sent / 1e6:.3g} MB a rank, {8000 * sent / 1e9 + 2:.1f} ms "
    "on the wire (two ways of 1 ms)"
)
EOF
across "$folder/lenet" >"$folder/lenet.log" 2>&1 || fail "LeNet: see $folder/lenet.log"
grep -h 'an iteration exchanged' "$folder/lenet.log"

# --- The wire is cut --------------------------------------------------------------------------------

across "$folder/cut" --timeout 20 >"$folder/cut.log" 2>&1 &
training=$!
seconds=0
until [ -e "$folder/cut/small_iter_10.json" ]; do
  kill -0 "$training" 2>/dev/null || fail "no start: see $folder/cut.log"
  [ "$seconds" -lt 60 ] || fail "no snapshot: see $folder/cut.log"
  sleep 1
  seconds=$((seconds + 1))
done
ip -n "$one" link set wire down
began=$(date +%s)
! wait "$training" || fail 'a training without its wire has ended well'
echo "cut off, it ended after $(($(date +%s) - began)) s: $(grep -h -m 1 -e '^caffe-metric' -e 'lost communication' "$folder/cut.log")" ||
  fail "not said why: see $folder/cut.log"
"$python" - "$folder/cut/small" <<'EOF'
import sys

from caffe_metric.training import snapshots

print("the last whole snapshot is of iteration", snapshots.newest_whole(sys.argv[1]).iteration)
EOF
