# The local file system under everything, whatever its type: one copy, the upper bound.
missing() { :; }
start() { mkdir -p "$WORK/data"; }
mount_at() { mount --bind "$WORK/data" "$1"; }
unmount() { take_away "$1"; }
stop() { :; }
pids() { :; }
stored_mib() { du -sm "$WORK/data" | cut -f 1; }
