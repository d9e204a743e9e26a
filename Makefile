# Keyferry. The two commands to know: `make demo` and `make test`.
#
# Debian packages are installed only when something they bring is missing, with sudo where that is needed.

GO        ?= go
BIN       := bin/keyferry
DEMO_DIR  ?= demo
PORT_BASE ?= 8440

# What building and the demo need, and what the tests need on top of it.
DEMO_PKGS := gcc libc6-dev softhsm2 opensc openssl
TEST_PKGS := libnss3 libnss3-tools jose jq chromium fonts-inter default-jdk-headless swtpm dbus nginx-light libengine-pkcs11-openssl rsyslog rsyslog-gnutls

# The race detector looks at everything but arithmetic, which shares nothing and gets ten times slower under it.
RACE := -race $(foreach p,golang.org/x/crypto crypto/internal/fips140 github.com/cloudflare/circl,-gcflags='$(p)/...=-race=false')

.PHONY: help build demo test short fuzz bench vet deps-demo deps-test clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/keyferry
	$(GO) build -trimpath -ldflags "-X main.built=$$(git describe --always --dirty --tags 2>/dev/null)" -o $(BIN) ./cmd/keyferry

demo: deps-demo build ## three nodes on SoftHSM2 on loopback, with a CA key that only node1 holds
	$(BIN) demo --story --dir $(DEMO_DIR) --port-base $(PORT_BASE) --ready $(DEMO_DIR)/ready.json

test: deps-test vet ## every test: real modules, real processes, a real browser
	$(GO) test $(RACE) -timeout 20m ./...

short: ## the tests that need no installed program
	$(GO) test -short ./...

fuzz: ## run every fuzz target for FUZZTIME each (default 30s)
	.ci/fuzz $(or $(FUZZTIME),30s)

bench: deps-demo ## export, import and activation beside the bare PKCS#11 calls, measured in one run
	$(GO) test -run '^$$' -bench 'Sync|Activate' -benchtime 1x -timeout 30m ./bench

vet:
	$(GO) vet ./...
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt would change:"; gofmt -l $$(git ls-files '*.go'); exit 1; }

deps-demo:
	@.ci/install $(DEMO_PKGS)

deps-test:
	@.ci/install $(DEMO_PKGS) $(TEST_PKGS)

clean: ## remove what was built, and the demo's state
	rm -rf bin $(DEMO_DIR)
