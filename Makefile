# ward: build, try, test, install. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
# Two big links at once need more memory than they save time.
.NOTPARALLEL:

PREFIX ?= /usr/local
DESTDIR ?=
GO ?= go

# All programs carry the same build name; the launcher refuses a plan that
# was sealed by a gate of another build.
BUILD := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
XFLAGS := -X github.com/ward-project/ward/sandbox.Build=$(BUILD)
# The version comes from the line above, and stamping fails in a tree that
# belongs to somebody else.
export GOFLAGS := $(strip $(filter-out -buildvcs%,$(GOFLAGS)) -buildvcs=false)

TAGS := seccomp netgo osusergo
# sandbox/launcher and ward-launch mean nothing without the filter.
TESTFLAGS := -tags seccomp
FUZZTIME ?= 5s
# What .ci/run adds: -allow-skips FILE makes every other skip a failure.
REPORTFLAGS ?=

# A static launcher starts faster: no dynamic linker, no relocations. Where the
# static libraries are missing it is linked dynamically; it works all the same.
STATIC_PROBE := printf 'int seccomp_api_get(void); int main(void) { return seccomp_api_get() > 99; }' \
	| $${CC:-gcc} -static -o /dev/null -x c - -lseccomp 2>/dev/null

.PHONY: build
build: bin/ward bin/ward-oci bin/ward-launch bin/ward-init ## build bin/ward, bin/ward-oci, bin/ward-launch and bin/ward-init

# Go knows better than make what is out of date.
.PHONY: FORCE
FORCE:

bin/ward: FORCE
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w $(XFLAGS)" -o $@ ./cmd/ward

bin/ward-oci: FORCE
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w $(XFLAGS)" -o $@ ./cmd/ward-oci

# Runs inside containers. The launcher looks for the build in the file.
bin/ward-init: FORCE
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.mark=ward-init:$(BUILD):" -o $@ ./cmd/ward-init

bin/ward-launch: FORCE
	@mkdir -p bin
	@command -v $${CC:-gcc} >/dev/null && pkg-config --exists libseccomp 2>/dev/null \
		|| { echo "gcc, pkg-config or libseccomp-dev is missing: run 'make deps-system'" >&2; exit 1; }
	@ext=; if $(STATIC_PROBE); then ext='-linkmode external -extldflags "-static"'; fi; set -x; \
	CGO_ENABLED=1 $(GO) build -trimpath -tags "$(TAGS)" -ldflags "-s -w $(XFLAGS) $$ext" -o $@ ./cmd/ward-launch

# The real cosign, for the interoperability tests.
bin/tools/cosign: FORCE
	@mkdir -p bin/tools
	cd tests/tools && CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o ../../$@ github.com/sigstore/cosign/v2/cmd/cosign

# Sigstore's own certificate and timestamp authorities, for signing by name.
bin/tools/fulcio: FORCE
	@mkdir -p bin/tools
	cd tests/tools && CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o ../../$@ github.com/sigstore/fulcio

bin/tools/timestamp-server: FORCE
	@mkdir -p bin/tools
	cd tests/tools && CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o ../../$@ github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server

.PHONY: deps-system
deps-system: ## install the Debian packages that building and the demo need
	@.ci/deps build demo

.PHONY: demo
demo: ## install what is missing, build, and show the whole story in a throw-away directory
	@.ci/deps build demo
	@$(MAKE) --no-print-directory build
	@WARD_BIN=$(CURDIR)/bin tests/demo/demo.sh

.PHONY: deps-test
deps-test:
	@.ci/deps build demo test

.PHONY: test
test: ## install what is missing, build, run every test (as root for all of them)
	@$(MAKE) --no-print-directory deps-test build bin/tools/cosign bin/tools/fulcio bin/tools/timestamp-server
	WARD_COSIGN=$(CURDIR)/bin/tools/cosign $(GO) test -json $(TESTFLAGS) -count=1 -timeout 20m ./... | $(GO) run ./tests/report $(REPORTFLAGS)

.PHONY: check
check: fmt vet lint deps ## format, vet, staticcheck, package rules, unit and script tests
	$(GO) test $(TESTFLAGS) -short -timeout 5m ./...

.PHONY: fmt
fmt:
	@bad=$$(gofmt -l $$(find . -name '*.go' -not -path './bin/*' -not -path './.cache/*')); \
	if [ -n "$$bad" ]; then echo "gofmt these:"; echo "$$bad"; exit 1; fi

.PHONY: vet
vet:
	$(GO) vet $(TESTFLAGS) ./...
	$(GO) vet -tags seccomp,vm ./tests/vm/...

# Pinned with its checksums in a module of its own, so that linting needs no
# network once it is built, and adds nothing to what ward links.
bin/tools/staticcheck: tests/lint/go.mod tests/lint/go.sum
	@mkdir -p bin/tools
	cd tests/lint && CGO_ENABLED=0 $(GO) build -trimpath -o ../../$@ honnef.co/go/tools/cmd/staticcheck

.PHONY: lint
lint: bin/tools/staticcheck
	bin/tools/staticcheck $(TESTFLAGS) ./...

# A test that asks the go tool is cached by go test and would stay green.
.PHONY: deps
deps: ## the package map: who may import what, what each program may link
	$(GO) test $(TESTFLAGS) -count=1 ./tests/deps

.PHONY: check-root
check-root: ## what needs root: sandbox, command line, kill -9 at every step
	@[ "$$(id -u)" = 0 ] || { echo "check-root needs root: sudo env PATH=\"\$$PATH\" make check-root" >&2; exit 1; }
	$(GO) test $(TESTFLAGS) -count=1 -timeout 20m ./sandbox/... ./cmd/... ./internal/engine/... ./tests/cli/... ./tests/posture/... ./tests/fault/...

.PHONY: test-vm
test-vm: ## cgroup v2 alone, in a virtual machine (QEMU; the kernel is fetched once)
	@.ci/deps build demo vm
	$(GO) test -json -tags vm -count=1 -timeout 15m ./tests/vm | $(GO) run ./tests/report $(REPORTFLAGS)

.PHONY: bench
bench: build bin/tools/cosign ## what a run costs beside runc and unshare, an answer of the gate beside cosign, a filter beside Docker's, a monitor beside conmon
	@[ "$$(id -u)" = 0 ] || { echo "bench needs root: sudo env PATH=\"\$$PATH\" make bench" >&2; exit 1; }
	@.ci/deps build bench
	@$(GO) run ./tests/bench -bin $(CURDIR)/bin
	$(GO) test $(TESTFLAGS) -run '^$$' -bench Intend -benchtime 500x ./audit

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (default 5s)
	@grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's|^(.*)/[^/]+:[0-9]+:func (.*)$$|\1 \2|' | sort -u | \
	while read -r dir name; do \
		echo "== $$dir $$name"; \
		$(GO) test $(TESTFLAGS) -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$dir" </dev/null; \
	done

.PHONY: install
install: build ## install under DESTDIR and PREFIX (default /usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/ward
	install -m 0755 bin/ward $(DESTDIR)$(PREFIX)/bin/ward
	install -m 0755 bin/ward-oci $(DESTDIR)$(PREFIX)/bin/ward-oci
	install -m 0755 bin/ward-launch $(DESTDIR)$(PREFIX)/libexec/ward/ward-launch
	install -m 0755 bin/ward-init $(DESTDIR)$(PREFIX)/libexec/ward/ward-init

.PHONY: clean
clean: ## remove what was built
	rm -rf bin

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
