# Every target says what it does; `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What demo and playground run on, and what tests need besides; see tests/stack/build.
DEMO_STACK := etcd kubernetes manifests
STACK := cargo-deny $(DEMO_STACK)

.PHONY: doctor
doctor: ## What is needed and missing here, what will be built, and how long that takes
	@tests/stack/doctor $(STACK)

.PHONY: stack
stack: ## Build the real neighbours that tests run on, each once
	@tests/stack/build $(STACK)

.PHONY: check
check: ## The quick inner loop: format, lints, pure tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --locked --lib --test golden

.PHONY: test
test: doctor stack check ## Every check; what CI runs
	target/stack/bin/cargo-deny --log-level error check --hide-inclusion-graph licenses bans sources
	cargo test --locked --test apiserver
	cargo test --locked --test faults

.PHONY: demo
demo: ## One annotation and what comes of it, on a real control plane, in a minute
	@tests/stack/doctor $(DEMO_STACK)
	@tests/stack/build $(DEMO_STACK)
	@echo "building the operator ..."
	@cargo build --locked --quiet --bin kthena-keda
	@cargo run --locked --quiet -p harness --bin demo -- target/debug/kthena-keda

.PHONY: playground
playground: ## Leave a control plane and the operator running to try things out
	@tests/stack/doctor $(DEMO_STACK)
	@tests/stack/build $(DEMO_STACK)
	@cargo build --locked --quiet --bin kthena-keda
	@cargo run --locked --quiet -p harness --bin playground -- target/debug/kthena-keda

.PHONY: bench
bench: ## What the operator costs: writes, latency, memory, size
	@tests/stack/build $(DEMO_STACK)
	cargo build --locked --release
	cargo run --locked --quiet -p harness --bin cost -- target/release/kthena-keda
