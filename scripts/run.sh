#!/usr/bin/env bash
# Builds, starts, mounts and stops a Cairn store on this machine. `scripts/run.sh help` lists the words.
#
# Everything lives under CAIRN_HOME: master/, node1_store/, node2_store/, ..., log/, run/*.pid. Daemons are
# started in sessions of their own with their own log files, so that nothing of the caller's stays open.
set -euo pipefail

SRC=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
HOME_DIR=${CAIRN_HOME:-$SRC/.cairn}
PORT=${CAIRN_PORT:-9000}
NODES=${CAIRN_NODES:-2}
REPLICAS=${CAIRN_REPLICAS:-2}
BIN=${CAIRN_BIN_DIR:-${CARGO_TARGET_DIR:-$SRC/target}/release}
RUN=$HOME_DIR/run
LOG=$HOME_DIR/log
export CAIRN_MASTER=${CAIRN_MASTER:-127.0.0.1:$PORT}
ME=scripts/run.sh

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "$ME" "$*" >&2; exit 1; }

usage() {
  cat <<TEXT
usage: $ME WORD [ARGUMENTS]

  up [DIR]        build if needed, format once, start, mount at DIR (default ./mnt)
  down [DIR]      unmount (DIR, or everything mounted with this script) and stop
  start           start the master and the storage nodes
  stop            stop them; the data stays
  restart         stop, then start
  status          the processes, then what the master says
  mount [DIR]     mount the store at DIR (default ./mnt)
  umount [DIR]    unmount DIR (default ./mnt)
  analyze         processes, storage, chunks and their copies, files, network
  monitor         the cluster, live
  upload FILE... [DEST], download NAME OUT, list, info, df, du, verify, fsck, and every other
                  verb of the program cairn: passed on to it ($ME help is this text)

settings (environment):
  CAIRN_HOME      where the state lives (now $HOME_DIR)
  CAIRN_PORT      port of the master, nodes take the next ones (now $PORT)
  CAIRN_NODES     number of storage nodes (now $NODES)
  CAIRN_REPLICAS  copies of every chunk, fixed when the store is formatted (now $REPLICAS)
  CAIRN_COMPRESSION  off, lz4, zstd or zstd:LEVEL, when the store is formatted
  CAIRN_BIN_DIR   use the programs in this directory and never build
TEXT
}

# --- processes and their pid files ---

# program_of NAME: the program whose process NAME.pid names.
program_of() {
  case $1 in
    master) echo cairn-master ;;
    node*) echo cairn-storage ;;
    *) echo cairn ;;
  esac
}

# pid_of NAME: prints the pid when that process lives and is ours; a stale pid file counts as none.
pid_of() {
  local pid comm state
  [ -s "$RUN/$1.pid" ] || return 1
  pid=$(tr -dc '0-9' <"$RUN/$1.pid")
  [ -n "$pid" ] && [ -r "/proc/$pid/stat" ] || return 1
  { comm=$(<"/proc/$pid/comm") && state=$(sed 's/.*) //' "/proc/$pid/stat"); } 2>/dev/null || return 1
  [ "$comm" = "$(program_of "$1")" ] && [ "${state:0:1}" != Z ] || return 1
  echo "$pid"
}

running() { pid_of "$1" >/dev/null; }

servers() {
  local i
  echo master
  for ((i = 1; i <= NODES; i++)); do echo "node$i"; done
}

# started_servers: every server with a pid file, also of a layout with more nodes; nodes first.
started_servers() {
  local f
  for f in "$RUN"/node*.pid "$RUN"/master.pid; do
    [ -e "$f" ] && basename "$f" .pid
  done
  return 0
}

port_of() { if [ "$1" = master ]; then echo "$PORT"; else echo $((PORT + ${1#node})); fi; }

store_of() { if [ "$1" = master ]; then echo "$HOME_DIR/master"; else echo "$HOME_DIR/$1_store"; fi; }

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# wait_until SECONDS COMMAND...: 0 as soon as the command succeeds, 1 when the time is over.
wait_until() {
  local tries=$(($1 * 20))
  shift
  while ! "$@"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || return 1
    sleep 0.05
  done
}

# end_process NAME: SIGTERM, up to ten seconds, then SIGKILL with a note.
end_process() {
  local pid
  if ! pid=$(pid_of "$1"); then
    rm -f "$RUN/$1.pid"
    return 0
  fi
  kill -CONT "$pid" 2>/dev/null || true
  kill -TERM "$pid" 2>/dev/null || true
  if ! wait_until 10 gone "$1"; then
    say "$1 (pid $pid) did not stop within 10 seconds: killed. Its log is $LOG/$1.log"
    kill -KILL "$pid" 2>/dev/null || true
    wait_until 10 gone "$1" || die "$1 (pid $pid) cannot be killed; is its disk hanging?"
  fi
  rm -f "$RUN/$1.pid" "$RUN/$1.out"
}

gone() { ! running "$1"; }

# --- what has to be there first ---

programs_built() {
  [ -x "$BIN/cairn-master" ] && [ -x "$BIN/cairn-storage" ] && [ -x "$BIN/cairn" ]
}

need_compilers() {
  command -v cargo >/dev/null ||
    die "cargo is missing: install Rust with 'curl https://sh.rustup.rs -sSf | sh' and open a new shell"
  command -v cc >/dev/null ||
    die "there is no C compiler (cc), which linking needs: install one, for example 'apt install gcc'"
}

# build: brings the three programs up to date. Cargo needs a fraction of a second when they are.
build() {
  local job waited=0
  [ -z "${CAIRN_BIN_DIR:-}" ] || { programs_built || die "no Cairn programs in CAIRN_BIN_DIR=$BIN"; return 0; }
  if ! command -v cargo >/dev/null && programs_built; then return 0; fi
  need_compilers
  mkdir -p "$LOG"
  (cd "$SRC" && exec cargo build --release -p cairn-master -p cairn-storage -p cairn-client) \
    </dev/null >"$LOG/build.log" 2>&1 &
  job=$!
  while kill -0 "$job" 2>/dev/null; do
    sleep 0.1
    waited=$((waited + 1))
    if [ "$waited" -eq 30 ]; then
      say "Building Cairn in release mode; the first time this takes some minutes (progress: $LOG/build.log) ..."
    fi
  done
  wait "$job" || { tail -n 30 "$LOG/build.log" >&2; die "the build failed; all of it is in $LOG/build.log"; }
}

need_programs() { programs_built || build; }

need_fuse() {
  [ -e /dev/fuse ] ||
    die "/dev/fuse is missing: run 'modprobe fuse' as root (in a container: start it with '--device /dev/fuse --cap-add SYS_ADMIN')"
  [ "$(id -u)" -eq 0 ] || command -v fusermount3 >/dev/null ||
    die "fusermount3 is missing, which mounting without root needs: install it, for example 'apt install fuse3'"
}

# --- format, start, stop ---

fs_uuid() {
  "$BIN/cairn-master" info --data "$HOME_DIR/master" --json |
    grep -oE '"(fs_)?uuid": *"[0-9a-f-]{36}"' | grep -oE '[0-9a-f-]{36}' | head -n 1
}

format_all() {
  local uuid name dir
  mkdir -p "$RUN" "$LOG"
  if [ ! -e "$HOME_DIR/master/FORMAT" ]; then
    "$BIN/cairn-master" format --data "$HOME_DIR/master" --replicas "$REPLICAS" >/dev/null
    say "Made a new store in $HOME_DIR ($NODES storage nodes, $REPLICAS copies of every chunk)."
  fi
  uuid=$(fs_uuid) && [ -n "$uuid" ] || die "cannot read the UUID of the store in $HOME_DIR/master"
  for name in $(servers); do
    dir=$(store_of "$name")
    [ "$name" = master ] || [ -e "$dir/FORMAT" ] ||
      "$BIN/cairn-storage" format --data "$dir" --fs "$uuid" --name "$name" >/dev/null
  done
}

# launch NAME COMMAND...: a daemon of its own session; returns when it serves.
launch() {
  local name=$1 fd
  shift
  : >"$RUN/$name.out"
  (
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      if [ "$fd" -gt 2 ] && [ "$fd" -ne 255 ]; then eval "exec $fd>&-"; fi
    done
    exec setsid "$@" </dev/null >>"$RUN/$name.out" 2>>"$LOG/$name.log"
  ) &
  echo "$!" >"$RUN/$name.pid"
  disown
  wait_until 30 ready_or_dead "$name" "$!" || die "$name does not get ready; its log is $LOG/$name.log"
  grep -q '^listening on ' "$RUN/$name.out" || {
    rm -f "$RUN/$name.pid"
    tail -n 5 "$LOG/$name.log" >&2
    die "$name could not start; its log is $LOG/$name.log"
  }
}

ready_or_dead() { grep -q '^listening on ' "$RUN/$1.out" || ! kill -0 "$2" 2>/dev/null; }

start_server() {
  local name=$1 port dir metrics
  port=$(port_of "$name")
  dir=$(store_of "$name")
  if port_taken "$port"; then
    die "port $port (for $name) is in use by another program: stop that, or choose other ports with CAIRN_PORT=$((PORT + 1000)) $ME ..."
  fi
  # Prometheus finds each server's metrics 500 ports further on.
  metrics=()
  if [ $((port + 500)) -le 65535 ] && ! port_taken $((port + 500)); then
    metrics=(--metrics-listen "127.0.0.1:$((port + 500))")
  else
    say "Port $((port + 500)) is in use by another program: $name serves no metrics."
  fi
  if [ "$name" = master ]; then
    launch master "$BIN/cairn-master" serve --data "$dir" --listen "127.0.0.1:$port" "${metrics[@]}"
  else
    launch "$name" "$BIN/cairn-storage" serve --data "$dir" --listen "127.0.0.1:$port" \
      --master "127.0.0.1:$PORT" --name "$name" "${metrics[@]}"
  fi
}

nodes_up() {
  local up
  up=$("$BIN/cairn" status --json 2>/dev/null | tr -d ' \n' | grep -oi '"state":"up"' | wc -l) || up=0
  [ "$up" -ge "$NODES" ]
}

cmd_start() {
  local name started=0
  need_programs
  format_all
  for name in $(servers); do
    if running "$name"; then continue; fi
    start_server "$name"
    started=$((started + 1))
  done
  if ! wait_until 20 nodes_up; then
    "$BIN/cairn" status >&2 || true
    die "not all of the $NODES storage nodes came up within 20 seconds; the logs are in $LOG"
  fi
  if [ "$started" -eq 0 ]; then
    say "Already running: a master on 127.0.0.1:$PORT and $NODES storage nodes."
  else
    say "Running: a master on 127.0.0.1:$PORT and $NODES storage nodes. Next: $ME mount [DIR], or $ME upload FILE"
  fi
}

cmd_stop() {
  local name stopped=0 dir
  for name in $(started_servers); do
    if running "$name"; then stopped=$((stopped + 1)); fi
    end_process "$name"
  done
  if [ "$stopped" -eq 0 ]; then
    say "Nothing was running."
  else
    say "Stopped $stopped processes; the data is in $HOME_DIR. Next: $ME start"
  fi
  for name in $(mounts); do
    dir=$(<"$RUN/$name.path")
    if running "$name"; then
      say "$dir is still mounted and waits for the servers: $ME umount $dir"
    fi
  done
}

# --- mounts ---

# absolute DIR: without asking the directory itself, which may be a dead mount.
absolute() {
  local dir=${1:-mnt}
  case $dir in /*) ;; *) dir=$PWD/${dir#./} ;; esac
  [ "$dir" = / ] || dir=${dir%/}
  echo "$dir"
}

mount_name() { echo "mount-$(printf '%s' "${1#/}" | tr -c 'A-Za-z0-9._' '-')"; }

# mounts: the names of everything mounted with this script.
mounts() {
  local f
  for f in "$RUN"/mount-*.path; do
    [ -e "$f" ] && basename "$f" .path
  done
  return 0
}

mounted() {
  local quoted
  quoted=$(printf '%s' "$1" | sed 's/\\/\\134/g; s/ /\\040/g; s/\t/\\011/g')
  MOUNT_DIR=$quoted awk '$5 == ENVIRON["MOUNT_DIR"] { found = 1 } END { exit !found }' /proc/self/mountinfo
}

cmd_mount() {
  local dir name
  dir=$(absolute "${1:-}")
  name=$(mount_name "$dir")
  need_programs
  need_fuse
  running master || die "the store is not running: $ME start"
  mkdir -p "$RUN" "$LOG"
  if running "$name" && mounted "$dir"; then
    say "Already mounted at $dir."
    return 0
  fi
  [ -d "$dir" ] || mounted "$dir" || mkdir -p "$dir"
  printf '%s\n' "$dir" >"$RUN/$name.path"
  "$BIN/cairn" mount "$dir" --pid-file "$RUN/$name.pid" --log-file "$LOG/$name.log" </dev/null >/dev/null ||
    { rm -f "$RUN/$name.path"; die "could not mount at $dir; the log is $LOG/$name.log"; }
  say "Mounted at $dir. Use it like any directory; afterwards: $ME umount $dir"
}

cmd_umount() {
  local dir name
  dir=$(absolute "${1:-}")
  name=$(mount_name "$dir")
  need_programs
  if mounted "$dir"; then
    "$BIN/cairn" umount "$dir" || die "could not unmount $dir: is a program still using it? (try: fuser -vm $dir)"
    say "Unmounted $dir."
  else
    say "Nothing is mounted at $dir."
  fi
  wait_until 30 gone "$name" || end_process "$name"
  rm -f "$RUN/$name.pid" "$RUN/$name.path"
}

cmd_up() {
  build
  need_fuse
  cmd_start
  cmd_mount "${1:-}"
}

cmd_down() {
  local name
  if [ $# -gt 0 ]; then cmd_umount "$1"; fi
  for name in $(mounts); do cmd_umount "$(<"$RUN/$name.path")"; done
  cmd_stop
}

cmd_status() {
  local name pid all=0
  for name in $(servers) $(mounts); do
    if pid=$(pid_of "$name"); then
      printf '%-10s running, pid %s\n' "$name" "$pid"
    else
      printf '%-10s not running\n' "$name"
      all=1
    fi
  done
  if running master && programs_built; then
    echo
    "$BIN/cairn" status || all=1
  else
    say "Next: $ME start"
  fi
  return "$all"
}

main() {
  local word=${1:-help}
  [ $# -eq 0 ] || shift
  case $word in
    start | stop | restart | status | mount | umount | up | down) ;;
    help | -h | --help) usage; return 0 ;;
    *) need_programs; exec "$BIN/cairn" "$word" "$@" ;;
  esac
  case $NODES$REPLICAS$PORT in
    *[!0-9]*) die "CAIRN_NODES, CAIRN_REPLICAS and CAIRN_PORT must be numbers" ;;
  esac
  if [ "$word" = restart ]; then cmd_stop; cmd_start; else "cmd_$word" "$@"; fi
}

main "$@"
