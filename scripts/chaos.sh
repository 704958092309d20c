#!/usr/bin/env bash
# The long run of the suite `chaos`, for a night: clients work while parts of a cluster are killed,
# stopped, cut off, slowed down, filled up and damaged; afterwards every byte and name is compared with
# what was acknowledged.
#
#   scripts/chaos.sh [--minutes N] [--seed S] [--seeds COUNT]
#
# N minutes for each seed (30). S is the first seed (of the clock when it is left out), COUNT how many
# follow one another (1). A seed always has the same schedule: one that failed is run again with --seed.
# Programs are those of CAIRN_BIN_DIR, otherwise a release build that is made first.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
MINUTES=30
SEED=$(($(date +%s) % 1000000))
SEEDS=1

usage() {
  echo "usage: scripts/chaos.sh [--minutes N] [--seed S] [--seeds COUNT]" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  [[ ${2:-} =~ ^[0-9]+$ ]] || usage
  case $1 in
    --minutes) MINUTES=$2 ;;
    --seed) SEED=$2 ;;
    --seeds) SEEDS=$2 ;;
    *) usage ;;
  esac
  shift 2
done

if [ -z "${CAIRN_BIN_DIR:-}" ]; then
  cargo build --release -p cairn-master -p cairn-storage -p cairn-client
  export CAIRN_BIN_DIR=${CARGO_TARGET_DIR:-$PWD/target}/release
fi

failed=()
for ((seed = SEED; seed < SEED + SEEDS; seed++)); do
  CAIRN_CHAOS_SEED=$seed CAIRN_CHAOS_SECONDS=$((MINUTES * 60)) \
    cargo test -q -p cairn-tests --test chaos -- --exact --nocapture \
    nothing_acknowledged_is_lost_whatever_happens || failed+=("$seed")
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}; again with: scripts/chaos.sh --seed SEED" >&2; exit 1; }
echo "nothing was lost: $SEEDS seed(s) of $MINUTES min, the first $SEED"
