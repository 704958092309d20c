#!/usr/bin/env bash
# Installs Cairn: programs, mount helpers, systemd units, sample configuration, man pages, completions.
# `scripts/install.sh --help` says how. Everything is written below DESTDIR; nothing is started.
set -euo pipefail

SRC=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BIN=${CAIRN_BIN_DIR:-${CARGO_TARGET_DIR:-$SRC/target}/release}
PREFIX=/usr/local
ROOT=${DESTDIR:-}
ROOT=${ROOT%/}
ME=scripts/install.sh

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "$ME" "$*" >&2; exit 1; }

usage() {
  cat <<TEXT
usage: $ME [--prefix DIR] [uninstall]

  installs the programs in PREFIX/bin, man pages and completions in PREFIX/share, and systemd units in
  PREFIX/lib/systemd/system (PREFIX is /usr/local), mount helpers in /sbin, samples of configuration in
  /etc/cairn. A configuration that is there stays as it is.

  uninstall       removes all that; edited configuration and all data stay

settings (environment):
  DESTDIR         install below this directory instead of /
  CAIRN_BIN_DIR   install the programs from this directory and do not build
TEXT
}

# --- what goes where ---

PROGRAMS=(cairn-master cairn-storage cairn)
HELPERS=(mount.fuse.cairn mount.cairn)
UNITS=(cairn-master.service cairn-storage@.service cairn-mount@.service)
SAMPLES=(master.toml node1.toml mount.toml)

paths() {
  BINDIR=$PREFIX/bin
  SHARE=$PREFIX/share
  UNITDIR=$PREFIX/lib/systemd/system
  ETC=/etc/cairn
  SBIN=/sbin
  RECORD=$SHARE/cairn/installed
}

programs_built() {
  local program
  for program in "${PROGRAMS[@]}"; do [ -x "$BIN/$program" ] || return 1; done
}

build() {
  if [ -z "${CAIRN_BIN_DIR:-}" ] && command -v cargo >/dev/null; then
    say "building in release mode; the first time this takes some minutes"
    (cd "$SRC" && cargo build -q --release -p cairn-master -p cairn-storage -p cairn-client)
  fi
  programs_built || die "there are no programs in $BIN: install Rust to build them, or set CAIRN_BIN_DIR"
}

# --- directories and files; each that is new is recorded ---

# make_dir DIR: and those above it; the ones that were not there are recorded, outermost first.
make_dir() {
  local dir=$1 missing=()
  while [ -n "$dir" ] && [ "$dir" != / ] && [ ! -d "$ROOT$dir" ]; do
    missing=("$dir" "${missing[@]}")
    dir=$(dirname "$dir")
  done
  mkdir -p "$ROOT$1"
  for dir in "${missing[@]}"; do NEW_DIRS+=("$dir"); done
}

# put MODE FROM TO: a file.
put() {
  make_dir "$(dirname "$3")"
  install -m "$1" "$2" "$ROOT$3"
  FILES+=("$3")
}

# put_link TARGET TO: a symbolic link; another program's file stays.
put_link() {
  make_dir "$(dirname "$2")"
  if [ -e "$ROOT$2" ] && [ ! -L "$ROOT$2" ]; then die "$ROOT$2 exists and is not ours: remove it first"; fi
  ln -sfn "$1" "$ROOT$2"
  FILES+=("$2")
}

# put_unit NAME: with the paths filled in.
put_unit() {
  sed -e "s|@BINDIR@|$BINDIR|g" -e "s|@SYSCONFDIR@|/etc|g" "$SRC/scripts/systemd/$1" >"$WORK/$1"
  put 644 "$WORK/$1" "$UNITDIR/$1"
}

# put_sample NAME: configuration; one that is there stays, the sample is kept for comparing.
put_sample() {
  # A sample of an earlier version that nobody edited makes room for this one.
  if cmp -s "$ROOT$SHARE/cairn/$1" "$ROOT$ETC/$1"; then rm -f "$ROOT$ETC/$1"; fi
  put 644 "$SRC/scripts/etc/$1" "$SHARE/cairn/$1"
  if [ -e "$ROOT$ETC/$1" ]; then
    cmp -s "$SRC/scripts/etc/$1" "$ROOT$ETC/$1" || say "kept $ROOT$ETC/$1 as it is"
  else
    make_dir "$ETC"
    install -m 644 "$SRC/scripts/etc/$1" "$ROOT$ETC/$1"
  fi
}

put_documents() {
  local program page
  for program in "${PROGRAMS[@]}"; do "$BIN/$program" documents "$WORK/documents"; done
  for page in "$WORK"/documents/man/man1/*; do put 644 "$page" "$SHARE/man/man1/$(basename "$page")"; done
  for program in "${PROGRAMS[@]}"; do
    put 644 "$WORK/documents/completions/bash/$program" "$SHARE/bash-completion/completions/$program"
    put 644 "$WORK/documents/completions/zsh/_$program" "$SHARE/zsh/site-functions/_$program"
    put 644 "$WORK/documents/completions/fish/$program.fish" "$SHARE/fish/vendor_completions.d/$program.fish"
  done
}

# Directories that an earlier installation made stay recorded.
write_record() {
  local old=()
  if [ -e "$ROOT$RECORD" ]; then mapfile -t old < <(sed -n 's/^dir //p' "$ROOT$RECORD"); fi
  make_dir "$(dirname "$RECORD")"
  {
    printf 'file %s\n' "${FILES[@]}" "$RECORD"
    printf 'dir %s\n' ${old[@]+"${old[@]}"} ${NEW_DIRS[@]+"${NEW_DIRS[@]}"} | grep -v '^dir $' || true
  } >"$WORK/installed"
  install -m 644 "$WORK/installed" "$ROOT$RECORD"
}

do_install() {
  local name
  build
  WORK=$(mktemp -d)
  trap 'rm -rf "$WORK"' EXIT
  FILES=() NEW_DIRS=()
  for name in "${PROGRAMS[@]}"; do put 755 "$BIN/$name" "$BINDIR/$name"; done
  for name in "${HELPERS[@]}"; do put_link "$BINDIR/cairn" "$SBIN/$name"; done
  for name in "${UNITS[@]}"; do put_unit "$name"; done
  for name in "${SAMPLES[@]}"; do put_sample "$name"; done
  put_documents
  write_record
  say "Installed in $ROOT$PREFIX. Next: docs/operations.md, or: cairn-master format --help"
}

do_uninstall() {
  local kind path name kept=()
  [ -e "$ROOT$RECORD" ] || die "nothing of Cairn is installed in $ROOT$PREFIX"
  for name in "${SAMPLES[@]}"; do
    if [ -e "$ROOT$ETC/$name" ]; then
      if cmp -s "$ROOT$ETC/$name" "$ROOT$SHARE/cairn/$name"; then
        rm -f "$ROOT$ETC/$name"
      else
        kept+=("$ROOT$ETC/$name")
      fi
    fi
  done
  WORK=$(mktemp -d)
  trap 'rm -rf "$WORK"' EXIT
  cp "$ROOT$RECORD" "$WORK/installed"
  while read -r kind path; do
    [ "$kind" != file ] || rm -f "$ROOT$path"
  done <"$WORK/installed"
  # Inner directories first; those that hold something else stay.
  sed -n 's/^dir //p' "$WORK/installed" | sort -ru | while read -r path; do
    rmdir "$ROOT$path" 2>/dev/null || true
  done
  say "Uninstalled from $ROOT$PREFIX. Data directories were not touched."
  for path in ${kept[@]+"${kept[@]}"}; do say "kept $path, which was edited"; done
}

main() {
  local word=install
  while [ $# -gt 0 ]; do
    case $1 in
      --prefix) [ $# -gt 1 ] || die "--prefix lacks its directory"; PREFIX=${2%/}; shift ;;
      --prefix=*) PREFIX=${1#--prefix=}; PREFIX=${PREFIX%/} ;;
      install | uninstall) word=$1 ;;
      -h | --help | help) usage; return 0 ;;
      *) die "unknown word $1: see $ME --help" ;;
    esac
    shift
  done
  case $PREFIX in /*) ;; *) die "--prefix must be an absolute path" ;; esac
  paths
  "do_$word"
}

main "$@"
