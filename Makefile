# Everything that a person or CI runs. `make help` lists it.
SHELL := /bin/bash
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/thalweg
# Outside the work tree, so that a fresh clone on the same machine does not build RocksDB again.
export CARGO_TARGET_DIR ?= $(CACHE)/target
export KAFKA_PORT ?= 9092
KILLS ?= 1000
SEEDS ?= 2000
SEED_FROM ?= 1
CARGO := tests/support/cargo.sh

.DEFAULT_GOAL := help
.PHONY: help setup kafka kafka-stop topic produce consume build test demo campaign simulate planted audit bench ablations micro

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Installs what a bare Debian or Ubuntu lacks; nothing if all is there
	@tests/support/setup.sh

kafka: setup ## Starts an Apache Kafka broker to play with on 127.0.0.1:$KAFKA_PORT
	@tests/support/kafka.sh start $(KAFKA_PORT)

kafka-stop: ## Stops the broker of `make kafka`; its data stays
	@tests/support/kafka.sh stop $(KAFKA_PORT)

topic: ## Creates topics on that broker: TOPIC="orders orders-rejected"
	@tests/support/kafka.sh topic $(KAFKA_PORT) $(or $(TOPIC),$(error TOPIC= is missing))

produce: ## Writes stdin to a topic of that broker, a line per record: key, tab, value (TOPIC=)
	@tests/support/kafka.sh produce $(KAFKA_PORT) $(or $(TOPIC),$(error TOPIC= is missing))

consume: ## Shows a topic of that broker, committed records only, until Ctrl-C (TOPIC=)
	@tests/support/kafka.sh consume $(KAFKA_PORT) $(or $(TOPIC),$(error TOPIC= is missing))

# With the examples, which the demo and the benchmark need: with the same features each is compiled once.
build: setup ## The release binary
	@$(CARGO) build --release --locked --bins --examples

test: ## Everything that CI runs, with a Kafka broker of its own
	@tests/support/check.sh

demo: setup ## A topology at work on a real broker, in this terminal (DEMO_SECONDS=30 ends it)
	@tests/support/kafka.sh fetch
	@$(CARGO) build --release --locked --bins --examples
	@$(CARGO_TARGET_DIR)/release/examples/demo

campaign: setup ## The long exactly-once campaign, KILLS=1000 kills
	@tests/support/kafka.sh fetch
	@KILLS=$(KILLS) tests/support/check.sh campaign

simulate: setup ## Histories of the whole engine on a model of Kafka (SEEDS=2000, SEED_FROM=1; SEED= tells one)
	@$(CARGO) build --release --locked --example simulate
	@SEEDS='$(SEEDS)' SEED_FROM='$(SEED_FROM)' SEED='$(SEED)' $(CARGO_TARGET_DIR)/release/examples/simulate

planted: setup ## Plants bugs in the engine and shows after how many histories the simulator finds each (PLANTED=, SEEDS=)
	@$(CARGO) build --release --locked --features planted-bugs --example planted
	@SEEDS='$(SEEDS)' SEED_FROM='$(SEED_FROM)' PLANTED='$(PLANTED)' $(CARGO_TARGET_DIR)/release/examples/planted

audit: ## Licences and advisories of all dependencies, by cargo-deny
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing; install it with: cargo install --locked cargo-deny" >&2; exit 1; }
	cargo deny --locked check

# As much heap as Kafka's own scripts give, and a collector whose pauses are seldom: they are in every latency.
BENCH_BROKER_JVM = -Xms1g -Xmx1g -Xmn700m -XX:+UseParallelGC

bench: setup ## Thalweg, Kafka Streams, Flink and a bare loop in turn (QUICK=1, BOOTSTRAP=, docs/benchmarks.md)
	@tests/support/kafka.sh fetch
	@$(CARGO) build --release --locked --bins --examples
	@KAFKA_JVM='$(BENCH_BROKER_JVM)' $(CARGO_TARGET_DIR)/release/examples/bench

ablations: setup ## What the parts of the hot path are worth: each switched off in turn, beside all of it
	@tests/support/kafka.sh fetch
	@$(CARGO) build --release --locked --bins --examples
	@$(CARGO) build --release --locked --features ablations --example ablated
	@KAFKA_JVM='$(BENCH_BROKER_JVM)' PARTS=throughput WORKLOADS=w1-100ms SYSTEMS=all-parts,without \
	  $(CARGO_TARGET_DIR)/release/examples/bench

micro: setup ## Micro benchmarks of the hot path, by criterion, without Kafka (FILTER=delta)
	@$(CARGO) bench --locked --bench micro -- $(FILTER)
