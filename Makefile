# `make` without a target lists all targets with their descriptions.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Components of the test stack; see tests/stack/build.
CONTROL_PLANE := etcd kubernetes manifests
CHAIN := $(CONTROL_PLANE) controller-manager kthena prometheus prometheus-operator kwok coredns keda
STACK := actionlint cargo-deny cargo-fuzz helm hadolint $(CHAIN)
# Runners of the test binaries. Tests of the complete chain run in a network namespace, where each pod has its own address.
TIMED := --config 'target."cfg(target_os=\"linux\")".runner="tests/stack/timed"'
IN_NAMESPACE := --config 'target."cfg(target_os=\"linux\")".runner="tests/stack/namespace"'
TIMED_IN_NAMESPACE := --config 'target."cfg(target_os=\"linux\")".runner=["tests/stack/timed", "tests/stack/namespace"]'
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
IMAGE := ghcr.io/volcano-sh/kthena-keda:$(VERSION)
LOG := target/stack/tests.log
TIMES := -- -Z unstable-options --report-time
# Fuzzing time per target in seconds; use an hour or more for a manual run.
FUZZ_SECONDS ?= 10

.PHONY: doctor
doctor: ## Check the prerequisites, and list what the test stack still has to build
	@tests/stack/doctor $(STACK)

.PHONY: stack
stack: ## Build the real components that the tests run against; built ones are reused
	@tests/stack/build $(STACK)

.PHONY: check
check: ## Run the fast checks: formatting, lints and tests without a cluster
	.github/check-version
	@tests/stack/build actionlint
	target/stack/bin/actionlint -shellcheck= .github/workflows/*.yaml
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --manifest-path fuzz/Cargo.toml --target-dir target --locked -- -D warnings
	cargo test --locked --workspace --lib
	cargo test --locked --test golden

.PHONY: crds
crds: ## Generate the CRDs from the code
	for kind in autoscalingprofiles modelservingroles; do \
	  cargo run --locked --quiet -- crds --only $$kind > crds/autoscaling.kthena.io_$$kind.yaml || exit; \
	done
	cp crds/*.yaml charts/kthena-keda/crds/

.PHONY: config
config: crds ## Generate the kustomize manifests from the chart
	@tests/stack/build helm
	charts/generate

.PHONY: docs
docs: ## Generate the tables in the documentation from the code
	UPDATE_DOCS=1 cargo test --locked --quiet --test golden

.PHONY: hpa-scenarios
hpa-scenarios: ## Record decisions of the real HPA controller, with which the tests compare the simulated ones; needs Go
	cd tests/stack/kubernetes && HPA_SCENARIOS=$(CURDIR)/core/src/foresight/scenarios/hpa.jsonl go test -count=1 -run TestRecordScenarios .

SEED ?=
.PHONY: hpa-differential
hpa-differential: ## Compare the simulated HPA with the real controller in new random scenarios, or in those of SEED; needs Go
	@tests/stack/hpa-differential $(SEED)

TRACES ?=
.PHONY: sizing
sizing: ## Simulate load steps, and the recorded loads in the folder TRACES, and write docs/benchmarks/sizing.md; 10 minutes
	cargo run --locked --quiet --profile sizing -p kthena-keda-core --example sizing -- docs/benchmarks/sizing.md $(TRACES)

.PHONY: verify verify-files
verify: verify-files ## Check that all generated files are up to date
	cargo test --locked --quiet --test golden

# Without the tests in tests/golden, which `make check` runs.
verify-files:
	for kind in autoscalingprofiles modelservingroles; do \
	  cargo run --locked --quiet -- crds --only $$kind | diff - crds/autoscaling.kthena.io_$$kind.yaml || exit; \
	done
	diff -r crds charts/kthena-keda/crds
	@tests/stack/build helm
	@charts/generate target/config && diff -r --exclude samples target/config config && echo "config/ is up to date with the chart"

# Tests of the loop that run after the others: two cores do not suffice for their chains beside the shared one.
OWN_CHAINS := closed_loop::roles closed_loop::stand_in closed_loop::backtest

.PHONY: test
test: doctor check stack verify-files image-check ## Run all checks and tests, as CI does
	target/stack/bin/cargo-deny --log-level error check --hide-inclusion-graph licenses bans sources
	@tests/stack/hpa-differential
	cargo test --locked $(TIMED) --test promql --test apiserver $(TIMES) --test-threads=6 | tee $(LOG)
	cargo test --locked $(TIMED) --test faults $(TIMES) --test-threads=4 | tee -a $(LOG)
	cargo test --locked $(TIMED_IN_NAMESPACE) --test chart --test hold $(TIMES) --test-threads=4 | tee -a $(LOG)
	cargo test --locked $(TIMED_IN_NAMESPACE) --test loop $(TIMES) --test-threads=8 $(addprefix --skip ,$(OWN_CHAINS)) | tee -a $(LOG)
	cargo test --locked $(TIMED_IN_NAMESPACE) --test loop $(TIMES) --test-threads=1 $(OWN_CHAINS) | tee -a $(LOG)
	@tests/stack/slowest $(LOG)
	@$(MAKE) --no-print-directory fuzz

.PHONY: fuzz
fuzz: ## Fuzz the parsers and the planner for FUZZ_SECONDS per target, starting from the saved corpus
	@tests/stack/build cargo-fuzz manifests
	@fuzz/run $(FUZZ_SECONDS)

.PHONY: image
image: ## Build the container image with docker or buildah
	@engine=$$(command -v docker || command -v buildah) || { echo "docker or buildah is required; make image-check builds the contents of the image without either" >&2; exit 1; }; \
	case $$engine in \
	  *docker) docker buildx build --load --tag $(IMAGE) --build-arg VERSION=$(VERSION) . ;; \
	  *buildah) buildah build --tag $(IMAGE) --build-arg VERSION=$(VERSION) --build-arg TARGETARCH=$$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/') --build-arg BUILDPLATFORM=linux . ;; \
	esac

.PHONY: image-check
image-check: ## Build the contents of the image without a container engine, and check that the binary is static
	@tests/stack/build hadolint
	target/stack/bin/hadolint Dockerfile
	image/check

.PHONY: krew
krew: ## Package the kubectl plugin and its krew manifest for amd64 and arm64 in target/krew/
	krew/build target/krew amd64 arm64

.PHONY: sbom
sbom: ## Write the software bill of materials (CycloneDX) to target/sbom/
	@tests/stack/build cargo-cyclonedx
	@mkdir -p target/sbom
	PATH="$(CURDIR)/target/stack/bin:$$PATH" cargo cyclonedx --format json --override-filename kthena-keda.cdx
	@mv kthena-keda.cdx.json target/sbom/ && rm -f tests/*/kthena-keda.cdx.json && echo "target/sbom/kthena-keda.cdx.json"

.PHONY: audit
audit: ## Check the dependencies for security advisories; downloads the advisory database
	@tests/stack/build cargo-deny
	target/stack/bin/cargo-deny check advisories

ROUNDS ?= 20
.PHONY: faults
faults: ## Repeat the fault tests ROUNDS times with seeds 1, 2, ... until one fails; four minutes per round
	@tests/stack/build $(CONTROL_PLANE) controller-manager keda
	cargo test --locked --no-run --test faults
	@for seed in $$(seq $(ROUNDS)); do \
	  echo "round $$seed of $(ROUNDS)"; \
	  FAULT_SEED=$$seed cargo test --locked --quiet --test faults -- --test-threads=4 || { echo "failed; reproduce with FAULT_SEED=$$seed" >&2; exit 1; }; \
	done

.PHONY: soak
soak: ## Run the slow scenarios: a load step while models load slowly, and scaling up from zero
	@tests/stack/build $(CHAIN)
	cargo test --locked $(IN_NAMESPACE) --test soak -- --nocapture --test-threads=1

VLLM_TESTS ?=
.PHONY: soak-vllm
soak-vllm: ## Run the chain with real vLLM engines on CPUs: 6 GB to install once, 8 GB of memory, 20 minutes; VLLM_TESTS selects tests by name
	@tests/stack/doctor vllm $(CHAIN)
	@tests/stack/build $(CHAIN) vllm
	cargo test --locked $(IN_NAMESPACE) --test vllm -- --nocapture --test-threads=1 $(VLLM_TESTS)

.PHONY: demo
demo: ## Watch a model scale under load in the terminal, on the real components; under 3 minutes once built
	@tests/stack/doctor $(CHAIN)
	@tests/stack/build $(CHAIN)
	@echo "building the operator ..."
	@cargo build --locked --quiet --bin kthena-keda
	@cargo run --locked --quiet $(IN_NAMESPACE) -p demo -- target/debug/kthena-keda

.PHONY: playground
playground: ## Start a control plane and the operator for manual experiments
	@tests/stack/doctor $(CONTROL_PLANE)
	@tests/stack/build $(CONTROL_PLANE)
	@cargo build --locked --quiet --bin kthena-keda
	@cargo run --locked --quiet -p harness --bin playground -- target/debug/kthena-keda

BENCH_MODELS ?= 1000
# Other model counts use fewer rounds.
BENCH_ROUNDS ?= $(if $(filter 1000,$(BENCH_MODELS)),7,3)
BENCH_REST ?= 300
.PHONY: bench
bench: ## Measure the cost of BENCH_MODELS models against a bare client, and write docs/benchmarks/
	@tests/stack/build $(CONTROL_PLANE)
	cargo build --locked --release -p benches
	image/check target/image/kthena-keda
	target/release/scale rounds target/image/kthena-keda --models $(BENCH_MODELS) --rounds $(BENCH_ROUNDS) --rest $(BENCH_REST) --to docs/benchmarks
	@$(MAKE) --no-print-directory bench-foresight

.PHONY: bench-plan
bench-plan: ## Measure the number of plans per second on one core
	cargo bench --locked -p benches --bench plan

.PHONY: bench-queries
bench-queries: ## Measure the cost of 50 models in shadow, and of measuring the service times of 1,000; 15 minutes
	@tests/stack/build $(CONTROL_PLANE) prometheus
	cargo build --locked --release -p benches
	image/check target/image/kthena-keda
	target/release/scale queries target/image/kthena-keda

.PHONY: bench-foresight
bench-foresight: ## Measure the time for the simulation of a week on one core, and of a thousand candidates on two
	cargo bench --locked -p benches --bench foresight

.PHONY: bench-reaction
bench-reaction: ## Measure the time from a load step to the scale-up, through the complete chain
	@tests/stack/build $(CHAIN)
	cargo build --locked --release
	cargo run --locked --quiet $(IN_NAMESPACE) -p benches --bin reaction -- target/release/kthena-keda
