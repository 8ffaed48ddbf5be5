# Run `make help` for what there is.
SHELL := /bin/bash
GO ?= go
export CGO_ENABLED := 0
# Without it grpc brings a page of traces, and with that a package that makes the linker keep every method (TestTheDaemonLinksNoTemplates).
export GOFLAGS := $(GOFLAGS) -tags=grpcnotrace

VERSION ?= 0.1.0
COMMIT := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

BIN := bin
SOURCES := $(shell find . -name '*.go' -not -name '*_test.go' -not -path './$(BIN)/*') go.mod go.sum
PROGRAMS := $(BIN)/berth $(BIN)/berthd $(BIN)/berth-oci $(BIN)/berth-dns

# Where `make run` keeps its engine. The run directory must be short (socket names) and should be on tmpfs.
RUN_ROOT ?= /run/berth-try
RUN_DATA ?= /var/lib/berth-try
RUN_HOST := unix://$(RUN_ROOT)/berth.sock

# What tests make once and use again: a Debian root file system, other engines' programs.
export BERTH_TEST_CACHE ?= /var/cache/berth-test

.PHONY: help build run stop test check bench soak test-vm packages fixtures clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: $(PROGRAMS) ## Build the static binaries in bin/

$(BIN)/%: $(SOURCES)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/$*

run: build ## Start an engine of its own if none runs, and run hello-world on it
	@test/packages run
	@test/try "$(RUN_ROOT)" "$(RUN_DATA)" "$(RUN_HOST)"

stop: ## Stop the engine of `make run` and remove what it made on the host
	@test/try --stop "$(RUN_ROOT)" "$(RUN_DATA)" "$(RUN_HOST)"

test: packages fixtures build ## Test everything that can be tested here (as root: in namespaces of its own)
	$(GO) vet ./...
	BERTH_TEST_ROOTFS="$$(ls $(BERTH_TEST_CACHE)/debian.tar 2>/dev/null)" $(GO) test -timeout 20m $(TESTFLAGS) ./...
	test/fuzz --side-by-side 60s

check: ## gofmt, vet, staticcheck, repository rules
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	$(GO) test .

bench: packages fixtures build ## Measure start latency and memory, beside docker.io and podman where they can be had
	@test/packages bench
	$(GO) run ./test/bench

soak: packages fixtures build ## The long tests: hundreds of kills, minutes of fuzzing
	BERTH_SOAK=1 $(GO) test -timeout 80m -count 1 ./test/crash/... ./test/logs/...
	BERTH_SOAK=1 $(GO) test -timeout 30m -count 1 -run RandomWalk ./engine
	BERTH_SOAK=1 $(GO) test -timeout 60m -count 1 -run 'Killed|AtOnce|FullDisk' ./test/hostile
	BERTH_SOAK=1 $(GO) test -timeout 40m -count=1 ./test/projects
	BERTH_SOAK=1 $(GO) test -timeout 20m -count=1 -run BuildsAsDocker ./test/conform
	test/fuzz 60s

test-vm: ## Test what touches the kernel under cgroup v2, on a stock kernel in a virtual machine
	test/vm/run.sh

packages:
	@test/packages test

fixtures:
	@test/fixtures

clean: ## Remove what was built
	rm -rf $(BIN)
