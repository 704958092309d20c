# Sourced by bench.sh: one function for each section, called with SYSTEM and a directory D of its own.
# They `record FIGURE UNIT VALUE`; MB are 10^6 bytes. Inputs: $BIG (random, $SIZE MiB), $TREE (a tar file).

write_big() { dd if="$BIG" of="$1" bs=1M conv=fsync status=none; }
rate() { calc "$SIZE * 1.048576 / $1"; }

section_seq() {
  local before gib
  gib=$(calc "$SIZE / 1024")
  [ "$SYSTEM" != floor ] || { floor_seq "$gib"; return; }
  settle
  before=$(cpu_seconds)
  timed write_big "$D/big"
  record "sequential write with fsync" MB/s "$(rate "$T")"
  settle
  cpu_used "CPU of that write" "$before" "$gib"
  cold
  before=$(cpu_seconds)
  timed dd if="$D/big" of=/dev/null bs=1M status=none
  record "sequential read, cold" MB/s "$(rate "$T")"
  cpu_used "CPU of that read" "$before" "$gib"
  timed dd if="$D/big" of=/dev/null bs=1M status=none
  record "sequential read, warm" MB/s "$(rate "$T")"
  cmp "$BIG" "$D/big"
}

# The same work without a file system: hash, send, hash and write twice; read, send, hash.
floor_seq() { # GIB
  local seconds cpu
  mkdir "$D/1" "$D/2"
  settle
  read -r seconds cpu < <("$FLOOR" write "$BIG" "$D/1" "$D/2")
  record "sequential write with fsync" MB/s "$(rate "$seconds")"
  record "CPU of that write" cpu-s/GiB "$(calc "$cpu / $1")"
  cmp "$BIG" "$D/1/segment" && cmp "$BIG" "$D/2/segment"
  cold
  read -r seconds cpu < <("$FLOOR" read "$D/1" "$D/2")
  record "sequential read, cold" MB/s "$(rate "$seconds")"
  record "CPU of that read" cpu-s/GiB "$(calc "$cpu / $1")"
  floor_warm
}

# Again what the kernel has kept: of a FUSE file system that does nothing.
floor_warm() {
  local null
  mkdir "$D/null"
  "$NULL" "$D/null" "$SIZE" &
  null=$!
  until mountpoint -q "$D/null"; do kill -0 "$null"; sleep 0.05; done
  dd if="$D/null/zeros" of=/dev/null bs=1M status=none
  timed dd if="$D/null/zeros" of=/dev/null bs=1M status=none
  record "sequential read, warm" MB/s "$(rate "$T")"
  umount "$D/null"
  wait "$null"
}

# The source of all three is a file beside the file systems, so that the first and the second write differ only
# in what is there already.
section_dup() {
  local before
  timed write_big "$D/big"
  record "new bytes written" MB/s "$(rate "$T")"
  before=$(stored)
  timed cp_synced "$D/big" "$D/copy"
  record "cp of a file of $SIZE MiB" s "$T"
  stored_more "space that cp took" "$before"
  before=$(stored)
  timed write_big "$D/copy2"
  record "the same bytes written again" MB/s "$(rate "$T")"
  stored_more "space that those took" "$before"
}
cp_synced() { cp "$1" "$2" && sync "$2"; }

# A chunk cache of Cairn holds 128 MiB: a file four times as long, and one that fits.
section_random() {
  local mib=$((SIZE < 512 ? SIZE : 512))
  [ "$SYSTEM" != floor ] || { floor_random; return; }
  dd if="$BIG" of="$D/r" bs=1M count="$mib" conv=fsync status=none
  settle
  cold
  record "random reads of 4 KiB, cold" IOPS "$("$LOAD" randread "$D/r" 10)"
  cold
  record "random reads of 4 KiB, cold, 4 threads" IOPS "$("$LOAD" randread "$D/r" 10 4)"
  dd if="$BIG" of="$D/f" bs=1M count="$((mib / 4))" conv=fsync status=none
  settle
  cold
  record "random reads of 4 KiB, cold, of a file that fits the cache" IOPS "$("$LOAD" randread "$D/f" 15)"
  dd if="$BIG" of="$D/w" bs=1M count="$((mib / 2))" conv=fsync status=none
  record "random writes of 4 KiB, each synced" IOPS "$("$LOAD" randwrite-fsync "$D/w" 8)"
  record "random writes of 4 KiB, one sync" IOPS "$("$LOAD" randwrite "$D/w" 16384)"
}

# A synced write of 4 KiB without a file system: 64 KiB read, hashed, changed, hashed and synced twice, then a journal.
floor_random() {
  local seconds
  mkdir "$D/1" "$D/2" "$D/3"
  head -c "$((SIZE / 4))M" "$BIG" >"$D/source"
  settle
  read -r seconds _ < <("$FLOOR" patch "$D/source" 8000 "$D/1" "$D/2" "$D/3")
  record "random writes of 4 KiB, each synced" IOPS "$(calc "8000 / $seconds")"
}

# Eight programs at once, each with an eighth of the bytes, beside one with all of them.
section_streams() {
  local part=$((SIZE / 8))
  settle
  timed write_big "$D/one"
  record "one stream writes" MB/s "$(rate "$T")"
  # As new as the first were: other bytes in each chunk.
  head -c "${SIZE}M" /dev/urandom >"$BIG"
  sync "$BIG"
  settle
  timed at_once 8 write_part "$part"
  record "8 streams write" MB/s "$(rate "$T")"
  settle
  cold
  timed dd if="$D/one" of=/dev/null bs=1M status=none
  record "one stream reads, cold" MB/s "$(rate "$T")"
  cold
  timed at_once 8 read_part "$part"
  record "8 streams read, cold" MB/s "$(rate "$T")"
  head -c "$((SIZE / 2))M" /dev/urandom >"$BIG"
  sync "$BIG"
  cold
  cat "$BIG" >/dev/null
  { timed write_big "$D/mixed"; calc "$SIZE * 0.524288 / $T" >"$BENCH_DIR/mixed-write"; } &
  timed dd if="$D/one" of=/dev/null bs=1M count="$((SIZE / 2))" status=none
  wait $!
  record "read beside a writer, cold" MB/s "$(calc "$SIZE * 0.524288 / $T")"
  record "write beside a reader" MB/s "$(cat "$BENCH_DIR/mixed-write")"
}
write_part() { dd if="$BIG" of="$D/part$1" bs=1M skip="$(($1 * $2))" count="$2" conv=fsync status=none; }
read_part() { dd if="$D/part$1" of=/dev/null bs=1M status=none; }
at_once() { # COUNT COMMAND ARGUMENT...: COMMAND NUMBER ARGUMENT... that often, side by side
  local n count=$1 command=$2 children=()
  shift 2
  for ((n = 0; n < count; n++)); do
    "$command" "$n" "$@" &
    children+=($!)
  done
  for n in "${children[@]}"; do wait "$n"; done
}

section_small() {
  record "create $FILES files of 4 KiB" files/s "$("$LOAD" create "$D/s" "$FILES")"
  record "create them from 4 threads" files/s "$("$LOAD" create "$D/p" "$FILES" 4)"
  cold
  record "read them, cold" files/s "$("$LOAD" read "$D/s" "$FILES")"
  cold
  timed ls -lR "$D/s" >/dev/null
  record "ls -lR of them, cold" files/s "$(calc "$FILES / $T")"
  record "remove them" files/s "$("$LOAD" remove "$D/s" "$FILES")"
}

section_meta() {
  record "make directories" ops/s "$("$LOAD" mkdir "$D" 2000)"
  record "rename them" ops/s "$("$LOAD" rename "$D" 2000)"
  cold
  record "stat names that are not there, cold" ops/s "$("$LOAD" absent "$D" 2000)"
}

section_tree() {
  mkdir "$D/t"
  timed tar xf "$TREE" -C "$D/t"
  record "untar of $ENTRIES entries" s "$T"
  timed git_commit_all
  record "git init, add, commit" s "$T"
  cold
  timed tree_git status --porcelain >"$BENCH_DIR/git-status"
  record "git status, cold" s "$T"
  [ ! -s "$BENCH_DIR/git-status" ] || { echo "$SYSTEM: git finds differences in what it committed" >&2; return 1; }
  timed rm -r "$D/t"
  record "rm -r of it" s "$T"
}
tree_git() { git -C "$D/t" -c safe.directory='*' -c user.name=b -c user.email=b@b -c gc.auto=0 -c maintenance.auto=false "$@"; }
git_commit_all() { tree_git init -q . && tree_git add -A && tree_git commit -q -m x; }
