#!/usr/bin/env bash
# `make test`: everything that CI runs, cheapest first, the tests on a real broker last. Starts a
# broker of its own and stops it in any case. With the argument `campaign`: only the exactly-once
# campaign, in the length given by KILLS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
support=tests/support
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/thalweg/target}
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto} RUST_BACKTRACE=1

# In this order, after all other tests.
slow=(results recovery surroundings bad_surroundings late_commit crash_points exactly_once)

work=$(mktemp -d "${TMPDIR:-/tmp}/thalweg-test.XXXXXX")
port=
finish() {
  status=$?
  trap - EXIT
  if [ -n "$port" ]; then "$support/kafka.sh" stop "$port" "$work/kafka" || true; fi
  if [ "$status" -eq 0 ]; then
    rm -rf "$work"
  else
    # The logs are what a failure is understood from; the broker's data is large and is not.
    rm -rf "$work/kafka/data"
    echo "test: FAILED (exit $status); the logs are in $work" >&2
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

broker() {
  say "a Kafka broker for the tests"
  port=$("$support/kafka.sh" free-port)
  "$support/kafka.sh" start "$port" "$work/kafka"
  export THALWEG_TEST_BOOTSTRAP=127.0.0.1:$port
}

# Test processes put their files under $work, too, so that what a failure leaves is in one place.
mkdir -p "$work/tmp"
export TMPDIR=$work/tmp

if [ "${1:-}" = campaign ]; then # it kills its broker: it has one of its own
  "$support/cargo.sh" test --locked --test exactly_once -- --nocapture
  exit
fi

"$support/setup.sh"
say "format"
cargo fmt --check
say "clippy"
"$support/cargo.sh" clippy --locked --all-targets -- -D warnings
say "build of the tests"
"$support/cargo.sh" test --locked --no-run
"$support/kafka.sh" fetch
say "unit tests"
"$support/cargo.sh" test --locked --lib --bins --example bench
say "doctests"
"$support/cargo.sh" test --locked --doc
say "example topologies"
"$CARGO_TARGET_DIR/debug/thalweg" validate topologies/*.yaml
"$CARGO_TARGET_DIR/debug/thalweg" test topologies/*.yaml
say "histories of the simulator"
# The same histories on every machine and in every build. Who changes what the engine does, or what is generated, on
# purpose writes the new digest into the file.
digest=$(<tests/support/histories.digest)
SEED= SEED_FROM=1 SEEDS=20000 DIGEST=${digest:?the file is empty} "$CARGO_TARGET_DIR/debug/examples/simulate"
broker
is_slow() { local name; for name in "${slow[@]}"; do [ "$name" = "$1" ] && return; done; return 1; }
for file in tests/*.rs; do
  name=$(basename "$file" .rs)
  is_slow "$name" && continue
  say "$name"
  cargo test --locked --test "$name"
done
for name in "${slow[@]}"; do
  say "$name"
  cargo test --locked --test "$name"
done
