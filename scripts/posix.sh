#!/usr/bin/env bash
# The long run of what POSIX promises, for a night: the suite `posix` of scripts/test.sh with a million
# operations of fsx in each test (in runs of 100,000, each with a seed of its own), a directory with a
# million entries, and random tests twenty times as long. `scripts/posix.sh [FILTER]` runs only the tests whose names contain FILTER.
#
# CAIRN_FSX_OPERATIONS, CAIRN_TEST_SCALE: other lengths. CAIRN_FSX_SEED, CAIRN_TEST_SEED: a certain seed.
set -euo pipefail

export CAIRN_TEST_SUITES=posix
export CAIRN_TEST_SCALE=${CAIRN_TEST_SCALE:-20}
export CAIRN_FSX_OPERATIONS=${CAIRN_FSX_OPERATIONS:-1000000}
exec "$(dirname "${BASH_SOURCE[0]}")/test.sh" "$@"
