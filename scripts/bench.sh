#!/usr/bin/env bash
# usage: scripts/bench.sh [RUNS]
# Times a private Cairn cluster (two nodes, two copies) and the local disk under it, in turn, and prints
# a table in Markdown: medians of RUNS (default 3) runs. Environment: BENCH_DIR where both live (default
# a temporary directory), SEQ_MB size of the big file (1024), TREE what is packed and unpacked
# (/usr/include), FILES number of small files (5000). Needs root (to drop the page cache) and python3.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
RUNS=${1:-3}
SEQ_MB=${SEQ_MB:-1024}
FILES=${FILES:-5000}
TREE=${TREE:-/usr/include}
BENCH_DIR=${BENCH_DIR:-$(mktemp -d /var/tmp/cairn-bench.XXXXXX)}
export CAIRN_HOME=$BENCH_DIR/home CAIRN_PORT=${CAIRN_PORT:-19700}
export CAIRN_MASTER=127.0.0.1:$CAIRN_PORT
MNT=$BENCH_DIR/mnt LOCAL=$BENCH_DIR/local
RESULTS=$BENCH_DIR/results
SMALL=$BENCH_DIR/small.py

[ "$(id -u)" = 0 ] || { echo "bench.sh: run as root: it drops the page cache between runs" >&2; exit 1; }

cairn() { "$HERE/scripts/run.sh" "$@" </dev/null >>"$BENCH_DIR/run.log" 2>&1; }
cleanup() { cairn down "$MNT" || true; rm -rf "$BENCH_DIR"; }
trap cleanup EXIT

cat > "$SMALL" <<'PY'
"""small.py create|read|stat|remove DIR COUNT: 4 KiB files, 100 to a directory; prints files per second."""
import os, sys, time
verb, base, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
data = os.urandom(4096)
paths = [f"{base}/d{i // 100}/f{i}" for i in range(count)]
dirs = sorted({os.path.dirname(p) for p in paths})
if verb == "create":
    for d in dirs:
        os.makedirs(d)
start = time.monotonic()
for i, path in enumerate(paths):
    if verb == "create":
        with open(path, "xb", buffering=0) as f:
            f.write(i.to_bytes(8, "big") + data[8:])
    elif verb == "read":
        with open(path, "rb", buffering=0) as f:
            assert len(f.read()) == 4096
    elif verb == "stat":
        os.lstat(path)
    else:
        os.unlink(path)
print(count / (time.monotonic() - start))
if verb == "remove":
    for d in dirs:
        os.rmdir(d)
PY

now() { date +%s.%N; }
record() { echo "$1 $2 $3" >>"$RESULTS"; }   # SYSTEM FIGURE VALUE
calc() { awk "BEGIN { printf \"%.4g\", $* }"; }
cpu() { # seconds that the cluster's processes have used
  local total=0 file pid ticks
  for file in "$CAIRN_HOME"/run/*.pid; do
    pid=$(cat "$file")
    ticks=$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | awk '{ print $12 + $13 }')
    total=$((total + ${ticks:-0}))
  done
  calc "$total / $(getconf CLK_TCK)"
}
cold() { # SYSTEM: nothing in the page cache, nothing in the client's cache
  sync
  if [ "$1" = cairn ]; then cairn umount "$MNT"; cairn mount "$MNT"; fi
  echo 3 >/proc/sys/vm/drop_caches
}
timed() { # SYSTEM FIGURE EXPRESSION COMMAND...: EXPRESSION uses T, the seconds
  local system=$1 figure=$2 expression=$3 before after
  shift 3
  before=$(now)
  "$@"
  after=$(now)
  record "$system" "$figure" "$(calc "${expression//T/($after - $before)}")"
}

one_round() { # SYSTEM DIR
  local s=$1 d=$2 before gib
  gib=$(calc "$SEQ_MB / 1024")
  mkdir -p "$d"
  before=$(cpu)
  timed "$s" "sequential write with fsync (MB/s)" "$SEQ_MB * 1.048576 / T" \
    dd if="$BENCH_DIR/big" of="$d/big" bs=1M conv=fsync status=none
  [ "$s" = cairn ] && record "$s" "CPU of write (s/GiB)" "$(calc "($(cpu) - $before) / $gib")"
  cold "$s"
  before=$(cpu)
  timed "$s" "cold sequential read (MB/s)" "$SEQ_MB * 1.048576 / T" \
    dd if="$d/big" of=/dev/null bs=1M status=none
  [ "$s" = cairn ] && record "$s" "CPU of cold read (s/GiB)" "$(calc "($(cpu) - $before) / $gib")"
  timed "$s" "warm sequential read (MB/s)" "$SEQ_MB * 1.048576 / T" \
    dd if="$d/big" of=/dev/null bs=1M status=none
  cmp "$BENCH_DIR/big" "$d/big"
  timed "$s" "cp of the same file beside it (s)" "T" cp "$d/big" "$d/copy"
  rm "$d/big" "$d/copy"
  record "$s" "$FILES files of 4 KiB: create (files/s)" "$(python3 "$SMALL" create "$d/s" "$FILES")"
  cold "$s"
  record "$s" "$FILES files of 4 KiB: stat, cold (files/s)" "$(python3 "$SMALL" stat "$d/s" "$FILES")"
  cold "$s"
  record "$s" "$FILES files of 4 KiB: read, cold (files/s)" "$(python3 "$SMALL" read "$d/s" "$FILES")"
  record "$s" "$FILES files of 4 KiB: remove (files/s)" "$(python3 "$SMALL" remove "$d/s" "$FILES")"
  mkdir "$d/tree"
  timed "$s" "untar of $TREE ($(tar tf "$BENCH_DIR/tree.tar" | wc -l) entries) (s)" "T" \
    tar xf "$BENCH_DIR/tree.tar" -C "$d/tree"
  timed "$s" "rm -r of it (s)" "T" rm -r "$d/tree"
  rm -r "$d"
}

mkdir -p "$BENCH_DIR" "$MNT" "$LOCAL"
head -c "${SEQ_MB}M" /dev/urandom >"$BENCH_DIR/big"
tar cf "$BENCH_DIR/tree.tar" -C "$(dirname "$TREE")" "$(basename "$TREE")" 2>/dev/null
cat "$BENCH_DIR/big" "$BENCH_DIR/tree.tar" >/dev/null
cairn up "$MNT" || { cat "$BENCH_DIR/run.log" >&2; exit 1; }
for run in $(seq "$RUNS"); do
  # Fresh bytes each round: nothing that the store holds already.
  head -c "${SEQ_MB}M" /dev/urandom >"$BENCH_DIR/big"
  for system in cairn local; do
    echo "round $run of $RUNS: $system" >&2
    [ $system = cairn ] && one_round cairn "$MNT/bench" || one_round local "$LOCAL/bench"
  done
done

python3 - "$RESULTS" <<'PY'
import statistics, sys
rows, order = {}, []
for line in open(sys.argv[1]):
    system, rest = line.split(" ", 1)
    figure, value = rest.rsplit(" ", 1)
    if figure not in order:
        order.append(figure)
    rows.setdefault((figure, system), []).append(float(value))
print("| figure | Cairn | local disk |\n|---|---:|---:|")
for figure in order:
    cells = [rows.get((figure, s)) for s in ("cairn", "local")]
    text = [f"{statistics.median(c):,.4g} ({min(c):,.4g} to {max(c):,.4g})" if c else "-" for c in cells]
    print(f"| {figure} | {text[0]} | {text[1]} |")
PY
