#!/usr/bin/env bash
# cargo, with a sign of life: where cargo shows no progress bar, a line each 30 s says what is being
# compiled. RocksDB alone takes some 15 minutes on two cores, once per machine.
set -uo pipefail

[ -t 2 ] && exec cargo "$@"

compiling() { # what runs on our target folder, from the command lines of all processes
  local file line
  for file in /proc/[0-9]*/cmdline; do
    line=$( { tr '\0' ' ' <"$file"; } 2>/dev/null) || continue
    [[ $line == *"$CARGO_TARGET_DIR"* ]] || continue
    case $line in
      *rustc*--crate-name*) sed -E 's/.*--crate-name ([^ ]+).*/\1/' <<<"$line" ;;
      *' -c '*.c*) sed -E 's/.* -c ([^ ]+).*/\1/' <<<"$line" ;;
    esac
  done | sort -u | head -n 4 | paste -sd ' '
}

heartbeat() {
  local seconds=0 now
  while sleep 30 >/dev/null 2>&1; do
    seconds=$((seconds + 30))
    now=$(compiling)
    [ -z "$now" ] || echo "… ${seconds} s, compiling: $now" >&2
  done
}

cargo "$@" &
cargo=$!
heartbeat &
heart=$!
# (The sleep that a killed heartbeat leaves behind holds none of our pipes.)
trap 'kill "$cargo" 2>/dev/null' INT TERM
wait "$cargo"
status=$?
kill "$heart" 2>/dev/null
wait "$heart" 2>/dev/null
exit "$status"
