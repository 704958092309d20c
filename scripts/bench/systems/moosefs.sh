# MooseFS: a master, two chunkservers, goal 2. Its chunkservers refuse 127.0.0.0/8, so all of it lives on
# an address of its own on the loopback device. It answers fsync from the page cache.
IP=10.77.0.1
PORT=$((${BENCH_PORT:-19700} + 100))

missing() {
  command -v mfsmaster >/dev/null || echo moosefs-master
  command -v mfschunkserver >/dev/null || echo moosefs-chunkserver
  command -v mfsmount >/dev/null || echo moosefs-client
  command -v mfscli >/dev/null || echo moosefs-cli
  command -v ip >/dev/null || echo iproute2
}
start() {
  local n dir
  ip address show dev lo | grep -q "$IP/" || ip address add "$IP/32" dev lo
  mkdir -p "$WORK/master"
  : >"$WORK/topology"
  echo '* / rw,alldirs,admin,maproot=0' >"$WORK/exports"
  cat >"$WORK/master.cfg" <<CFG
WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = $WORK/master
EXPORTS_FILENAME = $WORK/exports
TOPOLOGY_FILENAME = $WORK/topology
MATOML_LISTEN_HOST = $IP
MATOML_LISTEN_PORT = $((PORT + 1))
MATOCS_LISTEN_HOST = $IP
MATOCS_LISTEN_PORT = $((PORT + 2))
MATOCL_LISTEN_HOST = $IP
MATOCL_LISTEN_PORT = $((PORT + 3))
CFG
  printf 'MFSM NEW' >"$WORK/master/metadata.mfs"
  logged mfsmaster -c "$WORK/master.cfg" start
  for n in 1 2; do
    dir=$WORK/chunkserver$n
    mkdir -p "$dir/disk" "$dir/meta"
    echo "$dir/disk" >"$dir/disks.cfg"
    cat >"$dir/server.cfg" <<CFG
WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = $dir/meta
HDD_CONF_FILENAME = $dir/disks.cfg
MASTER_HOST = $IP
MASTER_PORT = $((PORT + 2))
BIND_HOST = $IP
CSSERV_LISTEN_HOST = $IP
CSSERV_LISTEN_PORT = $((PORT + 10 + n))
HDD_LEAVE_SPACE_DEFAULT = 256MiB
CFG
    logged mfschunkserver -c "$dir/server.cfg" start
  done
  wait_until 30 chunkservers_known
}
chunkservers_known() { [ "$(mfscli -H "$IP" -P $((PORT + 3)) -SCS -s, 2>/dev/null | grep -c "$IP,")" -ge 2 ]; }
mount_at() {
  daemon client mfsmount "$1" -f -H "$IP" -P $((PORT + 3))
  wait_until 10 mountpoint -q "$1"
  # Two copies, and nothing kept of what was removed: all systems would run out of room.
  [ -e "$WORK/goal" ] || { mfssetgoal -r 2 "$1" >"$WORK/goal" && mfssettrashtime -r 0 "$1" >>"$WORK/goal"; }
}
unmount() { take_away "$1"; end_daemon client; }
stop() {
  local n
  for n in 1 2; do logged mfschunkserver -c "$WORK/chunkserver$n/server.cfg" stop || true; done
  logged mfsmaster -c "$WORK/master.cfg" stop || true
  ip address del "$IP/32" dev lo 2>/dev/null || true
}
pids() {
  local n
  daemons
  echo "$(tr -dc 0-9 <"$WORK/master/.mfsmaster.lock") master"
  for n in 1 2; do echo "$(tr -dc 0-9 <"$WORK/chunkserver$n/meta/.mfschunkserver.lock") chunkserver$n"; done
}
stored_mib() { du -smc "$WORK"/chunkserver*/disk | tail -n 1 | cut -f 1; }
