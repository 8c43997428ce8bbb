# The two commands of the README are `make demo` and `make test`. Each installs what it needs.

CARGO ?= cargo
BIN := target/debug
export PATH := $(HOME)/.cargo/bin:$(PATH)

# The agent, the lab and the tests make namespaces, devices and eBPF programs.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E env "PATH=$(HOME)/.cargo/bin:$$PATH")

.PHONY: help build demo test test-all test-kernels fuzz bpf bpf-check bench lint

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

build: ## Build the binaries `tombolo` and `tombolo-cni`
	@scripts/require build
	$(CARGO) build
	@! grep -l TOMBOLO_FAULT_FILE $(BIN)/tombolo $(BIN)/tombolo-cni || { echo "error: these programs have fault points" >&2; exit 1; }

demo: build ## Bring up a cluster of three nodes on this machine, prove the network model, take it down
	@scripts/require run
	$(AS_ROOT) scripts/demo $(BIN)

test: build ## Run all tests (as root, in namespaces of their own)
	@scripts/require run test
	$(AS_ROOT) $(CARGO) test

test-all: build ## Run all tests in their long forms: histories, kills and upgrades by the hundred, a minute of changing Services
	@scripts/require run test
	$(AS_ROOT) env TOMBOLO_LONG=1 $(CARGO) test

test-kernels: build ## Run the tests that meet the kernel on the oldest one, Linux 6.1, in a virtual machine
	@scripts/require run test kernels
	scripts/test-kernels

fuzz: ## Run each fuzz target for ten seconds (SECONDS=... for longer)
	@scripts/require build run test fuzz
	$(AS_ROOT) scripts/fuzz $(or $(SECONDS),10)

lint: ## Formatting, clippy and licences
	@scripts/require build lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) deny --log-level error check bans licenses sources

bpf: ## Rebuild the kernel side: crates/datapath/object/
	@scripts/require build bpf
	$(CARGO) xtask bpf

bpf-check: ## Fail when the committed kernel object is not what its source builds to
	@scripts/require build bpf
	$(CARGO) xtask bpf --check

bench: ## Measure against the peers, and write docs/benchmarks.md
	@scripts/require build run bench
	$(CARGO) build --release -p tombolo-cli -p tombolo-bench
	$(CARGO) rustc --profile plugin -p tombolo-cni --bin tombolo-cni -- -C target-feature=+crt-static -C relocation-model=static
	cp target/plugin/tombolo-cni target/release/
	$(AS_ROOT) target/release/tombolo-bench --write docs/benchmarks.md
