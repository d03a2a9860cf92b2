# The entry points: `make demo` (try it), `make test` (all tests), `make check` (read-only checks), `make fix`.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/flowstone/target
# DataFusion's planner recurses deeply in debug builds.
export RUST_MIN_STACK ?= 16777216
VENV ?= $(HOME)/.cache/flowstone/venv
export FLOWSTONE_PYTHON ?= $(VENV)/bin/python
DATA_DIR ?= ./flowstone-data
CARGO ?= cargo
# The peers of benchmarks are a workspace of their own.
PEERS_TARGET_DIR ?= $(HOME)/.cache/flowstone/target-peers
# Of `make kafka`.
FLOWSTONE_KAFKA_KILLS ?= 30
FLOWSTONE_KAFKA_UPSERTS ?= 10000000
# Of `make sqldiff`: how many seeds, how many minutes for all of them, the first seed (a random one), and where the report goes.
SEEDS ?= 20
MINUTES ?= 20
SEED ?=
REPORT ?= $(CURDIR)/sqldiff.txt

.PHONY: help setup demo build test unit check fmt-check clippy docs tidy fix slt large kafka sqldiff bench

help:
	@echo "make demo   build, start a node with a generator and three views, print how to connect"
	@echo "make test   every test, with real servers and clients"
	@echo "make check  formatting, lints, documentation, tidiness"
	@echo "make fix    format and apply lint suggestions"
	@echo "make slt    only the SQL golden files; SLT_UPDATE=1 rewrites them"
	@echo "make large  the tests that need 16 GB of memory"
	@echo "make kafka  the long tests of Kafka on a release build: 30 kills, ten million messages; FLOWSTONE_SEED=n repeats the kills"
	@echo "make sqldiff  random statements on a release build and on PostgreSQL; SEEDS=20 MINUTES=20 SEED=n, the report goes to REPORT=sqldiff.txt"
	@echo "make bench  benchmarks with their peers; BENCH=nexmark only that one, SMOKE=1 only whether they work"

setup:
	@deploy/setup.sh

build: setup
	$(CARGO) build -p flowstone-node

demo: build
	DATA_DIR="$(DATA_DIR)" deploy/demo.sh

test: setup
	$(CARGO) build -p flowstone-node
	$(CARGO) test --workspace --no-fail-fast

slt: setup
	$(CARGO) build -p flowstone-node
	$(CARGO) test -p flowstone-tests --test e2e -- slt

large: setup
	$(CARGO) build -p flowstone-node
	$(CARGO) test -p flowstone-tests --test e2e -- large --ignored

kafka: setup
	$(CARGO) build --release -p flowstone-node
	FLOWSTONE_BIN=$(CARGO_TARGET_DIR)/release/flowstone FLOWSTONE_KAFKA_KILLS=$(FLOWSTONE_KAFKA_KILLS) FLOWSTONE_KAFKA_UPSERTS=$(FLOWSTONE_KAFKA_UPSERTS) \
		$(CARGO) test -p flowstone-tests --test e2e -- kafka::crash --nocapture --test-threads=1

sqldiff: setup
	$(CARGO) build --release -p flowstone-node
	FLOWSTONE_BIN=$(CARGO_TARGET_DIR)/release/flowstone FLOWSTONE_SQLDIFF_SEEDS=$(SEEDS) FLOWSTONE_SQLDIFF_MINUTES=$(MINUTES) FLOWSTONE_SEED=$(SEED) \
		FLOWSTONE_SQLDIFF_REPORT=$(REPORT) $(CARGO) test -p flowstone-tests --test e2e -- sqldiff::statements_of_all_kinds --ignored --nocapture

check: setup fmt-check clippy docs tidy

fmt-check:
	$(CARGO) fmt --all -- --check

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

tidy:
	python3 deploy/tidy.py

fix: setup
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

bench: setup
	$(if $(if $(BENCH),$(filter kafka,$(BENCH)),all),benches/peers/flink/install.sh)
	CARGO_TARGET_DIR=$(PEERS_TARGET_DIR) $(CARGO) build --release --manifest-path benches/peers/Cargo.toml
	$(CARGO) build --release -p flowstone-node -p flowstone-benches
	FLOWSTONE_BENCH_PEER=$(PEERS_TARGET_DIR)/release/flowstone-bench-dbsp $(CARGO_TARGET_DIR)/release/flowstone-benches $(BENCH) $(if $(SMOKE),--smoke)
