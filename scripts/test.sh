#!/usr/bin/env bash
# The one test command: format, lints, unit tests, release build, and every suite with real processes and
# real mounts. On a bare machine with Rust and a C compiler it installs what is missing (as root, with
# apt); otherwise it says what to install. `scripts/test.sh [FILTER]` runs only the suites' tests whose
# names contain FILTER. CAIRN_TEST_SCALE=10 makes the random suites ten times as long, and the big files
# and directories as big as they get; CAIRN_TEST_SUITES="posix mount" runs only these suites.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
FILTER=${1:-}
LOG=$TARGET/test-step.log
RESULTS=()
FAILURES=
FAILED=0
BEGAN=$SECONDS

say() { printf '\n== %s\n' "$*"; }

# step NAME COMMAND...: runs it, remembers how it went, and goes on.
step() {
  local name=$1 began=$SECONDS word=ok counts
  shift
  say "$name"
  if ! "$@" 2>&1 | tee "$LOG"; then
    word=FAILED
    FAILED=$((FAILED + 1))
    FAILURES+=$(sed -n 's/^---- \(.*\) stdout ----$/  \1/p' "$LOG" | sort -u)$'\n'
  fi
  counts=$(counted)
  RESULTS+=("$(printf '%-8s%-26s%-32s%4d s' "$word" "$name" "$counts" $((SECONDS - began)))")
}

# What the `test result` lines of the last step add up to; nothing when it had none.
counted() {
  awk '/^test result:/ { any = 1; for (i = 3; i < NF; i++) {
         if ($(i + 1) ~ /^passed/) p += $i; if ($(i + 1) ~ /^failed/) f += $i } }
       END { if (any) printf "%d passed, %d failed", p, f }' "$LOG"
}

finish() {
  local took="$(((SECONDS - BEGAN) / 60)) min $(((SECONDS - BEGAN) % 60)) s" word=ok
  say "summary"
  printf '%s\n' "${RESULTS[@]}"
  [ "$FAILED" -eq 0 ] || word=FAILED
  [ -z "$FAILURES" ] || printf '\nfailed:\n%s' "$FAILURES"
  echo
  echo "test result: $word. $((${#RESULTS[@]} - FAILED)) steps passed; $FAILED failed; finished in $took"
  exit $((FAILED > 0))
}

# --- what has to be there ---

missing_packages() {
  local pair
  for pair in cc:gcc make:make git:git openssl:openssl sqlite3:sqlite3 rsync:rsync fusermount3:fuse3 \
    setfattr:attr setfacl:acl python3:python3 promtool:prometheus dbench:dbench stress-ng:stress-ng; do
    command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
  done
  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || echo postgresql
  python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
  python3 -c 'import test.test_mailbox' 2>/dev/null || echo libpython3-testsuite
}

install_missing() {
  local missing
  missing=$(missing_packages | tr '\n' ' ')
  [ -z "$missing" ] && return 0
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    say "installing $missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
  else
    echo "Some programs are missing. Install them with: sudo apt-get install $missing" >&2
    exit 1
  fi
}

prepare() {
  command -v cargo >/dev/null || {
    echo "cargo is missing: install Rust with 'curl https://sh.rustup.rs -sSf | sh' and open a new shell" >&2
    exit 1
  }
  install_missing
  [ -e /dev/fuse ] || {
    echo "/dev/fuse is missing: run 'modprobe fuse' (in a container: --device /dev/fuse --cap-add SYS_ADMIN)" >&2
    exit 1
  }
}

# The Python client's packages, in an environment of their own.
python_packages() {
  local python=$TARGET/python/bin/python3
  if ! "$python" -c 'import grpc, grpc_tools' 2>/dev/null; then
    rm -rf "$TARGET/python"
    python3 -m venv "$TARGET/python" && "$python" -m pip install -q grpcio grpcio-tools
  fi
}

# Suites for file systems that others wrote and published.
foreign_suites() {
  local name
  for name in pjdfstest@0.2.2 fsx@0.3.2; do
    grep -qsF "\"${name%@*} ${name#*@} " "$TARGET/suites/.crates2.json" ||
      CARGO_TARGET_DIR=$TARGET/suites/target cargo install -q --locked --root "$TARGET/suites" "$name"
  done
}

# --- suites ---

# Nothing of an interrupted run stays mounted.
sweep_mounts() {
  local path
  { grep -o " $SCRATCH/[^ ]*" /proc/self/mountinfo || true; } | sort -ru | while read -r path; do
    umount -l "$path" 2>/dev/null || fusermount3 -uz "$path" 2>/dev/null || true
  done
  rm -rf "$SCRATCH"
}

# suite TITLE NAME MINUTES: one test program of tests/tests, with a time limit of its own.
suite() {
  [[ " ${CAIRN_TEST_SUITES:-$2} " != *" $2 "* ]] || step "$1" run_suite "$2" $(($3 * PATIENCE))
}

# Two tests at a time, each with a cluster of its own: more would measure the machine.
run_suite() {
  TMPDIR=$SCRATCH timeout --kill-after=20 "$2m" \
    cargo test -p cairn-tests --test "$1" -- --test-threads 2 ${FILTER:+"$FILTER"}
}

unit_tests() {
  cargo test -q --workspace --exclude cairn-tests --no-fail-fast && cargo test -q -p cairn-tests --lib
}

release_build() {
  cargo build --release -p cairn-master -p cairn-storage -p cairn-client &&
    cargo build --release -p cairn-tests --bin cairn-bench-load --bin cairn-bench-floor --bin cairn-bench-null
}

# Programs with crash points, put aside: other builds of the same profile would replace them.
failpoint_build() {
  cargo build -p cairn-master -p cairn-storage --features cairn-master/failpoints,cairn-storage/failpoints &&
    mkdir -p "$CAIRN_FAILPOINT_BIN_DIR" &&
    cp -f "$TARGET/debug/cairn-master" "$TARGET/debug/cairn-storage" "$CAIRN_FAILPOINT_BIN_DIR/"
}

main() {
  prepare
  export CARGO_TARGET_DIR=$TARGET CAIRN_BIN_DIR=$TARGET/release
  export CAIRN_FAILPOINT_BIN_DIR=$TARGET/failpoints
  SCRATCH=$TARGET/scratch
  sweep_mounts
  mkdir -p "$SCRATCH"
  trap sweep_mounts EXIT
  # Long runs take long.
  PATIENCE=${CAIRN_TEST_SCALE:-1}
  if [ -z "$FILTER${CAIRN_TEST_SUITES:-}" ]; then
    step "format" cargo fmt --all --check
    step "lints" cargo clippy -q --workspace --all-targets -- -D warnings
    step "unit tests" unit_tests
  fi
  step "release build" release_build
  step "build with crash points" failpoint_build
  step "Python packages" python_packages
  export CAIRN_TEST_PYTHON=$TARGET/python/bin/python3
  step "suites of others" foreign_suites
  export CAIRN_SUITES_BIN_DIR=$TARGET/suites/bin
  suite "house rules" tidy 6
  suite "fault disk" powercut 4
  suite "without a mount" plain 8
  suite "mounted" mount 12
  suite "POSIX" posix 20
  suite "tools" tools 12
  suite "faults" faults 8
  suite "crashes" crash 14
  suite "cluster" cluster 12
  suite "chaos" chaos 10
  finish
}

main
