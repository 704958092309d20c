#!/usr/bin/env bash
# usage: system.sh SYSTEM VERB [DIR]: one of the systems that bench.sh compares, under the same verbs:
#   missing         packages that have to be installed first, one a line
#   start, stop     servers and an empty volume; nothing is left
#   mount_at DIR, unmount DIR, remount DIR
#   pids            "PID NAME" of each of its processes
#   stored_mib      what it takes on the local disk
# Everything it keeps is in $BENCH_DIR/SYSTEM.
set -euo pipefail

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SYSTEM=$1 VERB=$2
shift 2
WORK=$BENCH_DIR/$SYSTEM
BENCH_TOOLS=${BENCH_TOOLS:-$BENCH_DIR/tools}
mkdir -p "$WORK/pid" "$BENCH_TOOLS"

logged() { "$@" </dev/null >>"$WORK/log" 2>&1 || { tail -n 5 "$WORK/log" >&2; return 1; }; }

# wait_until SECONDS COMMAND...
wait_until() {
  local tries=$(($1 * 20))
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "$SYSTEM: gave up waiting for: $*" >&2; return 1; }
    sleep 0.05
  done
}

# daemon NAME COMMAND...: in a session of its own, remembered as NAME.
daemon() {
  local name=$1
  shift
  setsid "$@" </dev/null >>"$WORK/$name.log" 2>&1 &
  echo "$!" >"$WORK/pid/$name"
}
daemons() {
  local file
  for file in "$WORK"/pid/*; do
    [ -s "$file" ] && kill -0 "$(<"$file")" 2>/dev/null && echo "$(<"$file") $(basename "$file")"
  done
  return 0
}
gone() { ! kill -0 "$1" 2>/dev/null; }
end_daemon() {
  local pid
  [ -s "$WORK/pid/$1" ] || return 0
  pid=$(<"$WORK/pid/$1")
  kill "$pid" 2>/dev/null || true
  wait_until 20 gone "$pid" || kill -KILL "$pid"
  rm -f "$WORK/pid/$1"
}
take_away() { mountpoint -q "$1" || return 0; wait_until 10 umount "$1"; }
remount() { unmount "$1"; mount_at "$1"; }

# shellcheck source=/dev/null
source "$SCRIPTS/bench/systems/$SYSTEM.sh"
"$VERB" "$@"
