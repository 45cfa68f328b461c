# Every target says what it does; `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What tests and demo are run on; see tests/stack/build.
STACK := etcd kubernetes manifests

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
	cargo test --locked --test apiserver
	cargo test --locked --test faults

.PHONY: playground
playground: doctor stack ## Leave a control plane and the operator running to try things out
	cargo build --locked
	cargo run --locked -q -p harness --bin playground -- target/debug/kthena-keda
