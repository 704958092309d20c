# Sourced by bench.sh: one function for each section, called with SYSTEM and a directory D of its own.
# They `record FIGURE UNIT VALUE`; MB are 10^6 bytes. Inputs: $BIG (random, $SIZE MiB), $TREE (a tar file).

write_big() { dd if="$BIG" of="$1" bs=1M conv=fsync status=none; }
rate() { calc "$SIZE * 1.048576 / $1"; }

section_seq() {
  local before gib
  gib=$(calc "$SIZE / 1024")
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

section_dup() {
  local before
  write_big "$D/big"
  before=$(stored)
  timed cp_synced "$D/big" "$D/copy"
  record "cp of a file of $SIZE MiB" s "$T"
  stored_more "space that cp took" "$before"
  before=$(stored)
  timed dd if="$D/big" of="$D/copy2" bs=1M conv=fsync status=none
  record "the same bytes written again" MB/s "$(rate "$T")"
  stored_more "space that those took" "$before"
}
cp_synced() { cp "$1" "$2" && sync "$2"; }

section_random() {
  dd if="$BIG" of="$D/r" bs=1M count="$((SIZE < 256 ? SIZE : 256))" conv=fsync status=none
  cold
  record "random reads of 4 KiB, cold" IOPS "$("$LOAD" randread "$D/r" 15)"
  record "random writes of 4 KiB, each synced" IOPS "$("$LOAD" randwrite-fsync "$D/r" 8)"
  record "random writes of 4 KiB, one sync" IOPS "$("$LOAD" randwrite "$D/r" 16384)"
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
