# Cairn: a master, two nodes, two copies, default settings. Both copies are synced before an fsync returns.
export CAIRN_HOME=$WORK/home CAIRN_PORT=${BENCH_PORT:-19700}
export CAIRN_MASTER=127.0.0.1:$CAIRN_PORT

missing() { :; }
word() { "$SCRIPTS/run.sh" "$@" </dev/null >>"$WORK/run.log" 2>&1 || { tail -n 5 "$WORK/run.log" >&2; return 1; }; }
start() { word start; }
mount_at() { word mount "$1"; }
unmount() { word umount "$1"; }
stop() { word stop; }
pids() { # a mount is two processes: the supervisor, and below it the daemon that does the work
  local file name pid child
  for file in "$CAIRN_HOME"/run/*.pid; do
    [ -s "$file" ] || continue
    name=$(basename "$file" .pid | sed 's/^mount-.*/mount/') pid=$(<"$file")
    [ "$name" != mount ] || for child in $(cat "/proc/$pid/task"/*/children 2>/dev/null); do echo "$child mount"; done
    echo "$pid ${name/%mount/supervisor}"
  done
}
stored_mib() { du -smc "$CAIRN_HOME"/node*_store | tail -n 1 | cut -f 1; }
