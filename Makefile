# Every target says what it does; `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What demo and tests run on; see tests/stack/build.
CONTROL_PLANE := etcd kubernetes manifests
CHAIN := $(CONTROL_PLANE) controller-manager kthena prometheus prometheus-operator kwok keda
STACK := cargo-deny cargo-fuzz helm hadolint $(CHAIN)
# How test binaries are run: those of the chain where each pod has an address of its own.
TIMED := --config 'target."cfg(target_os=\"linux\")".runner="tests/stack/timed"'
IN_NAMESPACE := --config 'target."cfg(target_os=\"linux\")".runner="tests/stack/namespace"'
TIMED_IN_NAMESPACE := --config 'target."cfg(target_os=\"linux\")".runner=["tests/stack/timed", "tests/stack/namespace"]'
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
IMAGE := ghcr.io/volcano-sh/kthena-keda:$(VERSION)
LOG := target/stack/tests.log
TIMES := -- -Z unstable-options --report-time
# How long each target is fuzzed; an hour and more by hand.
FUZZ_SECONDS ?= 10

.PHONY: doctor
doctor: ## What is needed and missing here, what will be built, and how long that takes
	@tests/stack/doctor $(STACK)

.PHONY: stack
stack: ## Build the real neighbours that tests run on, each once
	@tests/stack/build $(STACK)

.PHONY: check
check: ## The quick inner loop: format, lints, pure tests
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --locked --workspace --lib
	cargo test --locked --test golden

.PHONY: crds
crds: ## Write the definition of AutoscalingProfile as the code has it
	cargo run --locked --quiet -- crds > crds/autoscaling.kthena.io_autoscalingprofiles.yaml
	cp crds/*.yaml charts/kthena-keda/crds/

.PHONY: config
config: crds ## Write the manifests for kustomize as the chart has them
	@tests/stack/build helm
	charts/generate

.PHONY: docs
docs: ## Write the tables of the documentation that are generated
	UPDATE_DOCS=1 cargo test --locked --quiet --test golden docs::

.PHONY: verify
verify: ## Fail where something that is generated is not what is checked in
	cargo run --locked --quiet -- crds | diff - crds/autoscaling.kthena.io_autoscalingprofiles.yaml
	diff -r crds charts/kthena-keda/crds
	@tests/stack/build helm
	@charts/generate target/config && diff -r --exclude samples target/config config && echo "config/ is what the chart says"
	cargo test --locked --quiet --test golden docs::

.PHONY: test
test: doctor check stack verify image-check ## Every check; what CI runs
	target/stack/bin/cargo-deny --log-level error check --hide-inclusion-graph licenses bans sources
	cargo test --locked $(TIMED) --test promql --test apiserver $(TIMES) | tee $(LOG)
	cargo test --locked $(TIMED) --test faults $(TIMES) --test-threads=4 | tee -a $(LOG)
	cargo test --locked $(TIMED_IN_NAMESPACE) --test chart $(TIMES) --test-threads=4 | tee -a $(LOG)
	cargo test --locked $(TIMED_IN_NAMESPACE) --test loop $(TIMES) --test-threads=8 | tee -a $(LOG)
	@tests/stack/slowest $(LOG)
	@$(MAKE) --no-print-directory fuzz

.PHONY: fuzz
fuzz: ## Feed what reads and plans with anything, from a saved corpus on; FUZZ_SECONDS=3600 by hand
	@tests/stack/build cargo-fuzz manifests
	@fuzz/run $(FUZZ_SECONDS)

.PHONY: image
image: ## Build the container image, with docker or buildah
	@engine=$$(command -v docker || command -v buildah) || { echo "neither docker nor buildah is here; make image-check builds what the image holds" >&2; exit 1; }; \
	case $$engine in \
	  *docker) docker buildx build --load --tag $(IMAGE) --build-arg VERSION=$(VERSION) . ;; \
	  *buildah) buildah build --tag $(IMAGE) --build-arg VERSION=$(VERSION) --build-arg TARGETARCH=$$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/') --build-arg BUILDPLATFORM=linux . ;; \
	esac

.PHONY: image-check
image-check: ## Build what the image holds, without a container engine, and see that it is static
	@tests/stack/build hadolint
	target/stack/bin/hadolint Dockerfile
	image/check

.PHONY: krew
krew: ## Pack the plugin of kubectl and its krew manifest for both architectures to target/krew/
	krew/build target/krew amd64 arm64

.PHONY: sbom
sbom: ## Write what the binary is made of (CycloneDX) to target/sbom/
	@tests/stack/build cargo-cyclonedx
	@mkdir -p target/sbom
	PATH="$(CURDIR)/target/stack/bin:$$PATH" cargo cyclonedx --format json --override-filename kthena-keda.cdx
	@mv kthena-keda.cdx.json target/sbom/ && rm -f tests/*/kthena-keda.cdx.json && echo "target/sbom/kthena-keda.cdx.json"

.PHONY: audit
audit: ## Look for advisories on dependencies; needs the advisory database, from the network
	@tests/stack/build cargo-deny
	target/stack/bin/cargo-deny check advisories

ROUNDS ?= 20
.PHONY: faults
faults: ## The tests of faults ROUNDS times, with the seeds from 1 on, until one fails; four minutes each
	@tests/stack/build $(CONTROL_PLANE) controller-manager keda
	cargo test --locked --no-run --test faults
	@for seed in $$(seq $(ROUNDS)); do \
	  echo "round $$seed of $(ROUNDS)"; \
	  FAULT_SEED=$$seed cargo test --locked --quiet --test faults -- --test-threads=4 || { echo "failed: FAULT_SEED=$$seed repeats it" >&2; exit 1; }; \
	done

.PHONY: soak
soak: ## What takes minutes: a step of load while models load slowly, and waking from zero
	@tests/stack/build $(CHAIN)
	cargo test --locked $(IN_NAMESPACE) --test soak -- --nocapture --test-threads=1

.PHONY: demo
demo: ## A model scaled by its load, on the real components, live in the terminal; under 3 minutes once built
	@tests/stack/doctor $(CHAIN)
	@tests/stack/build $(CHAIN)
	@echo "building the operator ..."
	@cargo build --locked --quiet --bin kthena-keda
	@cargo run --locked --quiet $(IN_NAMESPACE) -p demo -- target/debug/kthena-keda

.PHONY: playground
playground: ## Leave a control plane and the operator running to try things out
	@tests/stack/doctor $(CONTROL_PLANE)
	@tests/stack/build $(CONTROL_PLANE)
	@cargo build --locked --quiet --bin kthena-keda
	@cargo run --locked --quiet -p harness --bin playground -- target/debug/kthena-keda

BENCH_MODELS ?= 1000
# More models in fewer rounds.
BENCH_ROUNDS ?= $(if $(filter 1000,$(BENCH_MODELS)),7,3)
BENCH_REST ?= 300
.PHONY: bench
bench: ## What BENCH_MODELS models cost, beside a bare client; writes docs/benchmarks/
	@tests/stack/build $(CONTROL_PLANE)
	cargo build --locked --release -p benches
	image/check target/image/kthena-keda
	target/release/scale rounds target/image/kthena-keda --models $(BENCH_MODELS) --rounds $(BENCH_ROUNDS) --rest $(BENCH_REST) --to docs/benchmarks

.PHONY: bench-plan
bench-plan: ## How many plans one core makes in a second
	cargo bench --locked -p benches --bench plan

.PHONY: bench-reaction
bench-reaction: ## How long a step of load takes to be answered, through the whole chain
	@tests/stack/build $(CHAIN)
	cargo build --locked --release
	cargo run --locked --quiet $(IN_NAMESPACE) -p benches --bin reaction -- target/release/kthena-keda
