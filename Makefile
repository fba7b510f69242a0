# "make help" lists the targets. build, demo and test work as the first command on a Debian machine with Go, git
# and make: what else they need they install, and say so.

# The toolchain may not be able to ask git (another user's clone, a tarball): the version comes from here.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
DEMO    := testdata/pcap/demo.pcap
BIN     := gopassivedns

# RACE=1 runs the tests under the race detector, RUN=regexp only some of them.
RACE     ?=
RUN      ?=
# How long each fuzz target runs, and on how many cores.
FUZZTIME ?= 30s
FUZZPROCS ?= 2
# Where make bench puts the captures it generates, about 300 MB.
BENCHDIR ?= build/bench

STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.8.2

export CGO_ENABLED = 1
export GOFLAGS += -buildvcs=false

.PHONY: build
build: deps ## build ./gopassivedns
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o $(BIN) .

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: demo
demo: build ## print the records of a bundled capture
	./$(BIN) -env_file '' -name demo -pcap $(DEMO)

.PHONY: test
test: deps ## vet and test; RACE=1 with the race detector, RUN=regexp only some
	go vet ./...
	go test $(if $(RACE),-race) $(if $(RUN),-run '$(RUN)') -timeout 20m ./...

.PHONY: race
race: ## test with the race detector
	$(MAKE) test RACE=1

.PHONY: lint
lint: deps ## gofmt, vet, staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt -w these files:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	$(STATICCHECK) ./...

.PHONY: check
check: lint test ## lint and test

# go test takes one fuzz target of one package at a time. Without -fuzzminimizetime it spends up to a minute on
# making each new input smaller, in which it tries nothing new.
.PHONY: fuzz
fuzz: deps ## run every fuzz target for FUZZTIME (30s)
	@set -e; grep -rE --include='*_test.go' -o '^func Fuzz[A-Za-z0-9_]+' . | sort | while IFS=: read -r file func; do \
		target=$${func#func }; \
		echo "== $$target ($$(dirname "$$file"))"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x -parallel $(FUZZPROCS) "$$(dirname "$$file")" </dev/null; \
	done

.PHONY: bench
bench: build ## generate captures and measure this program beside tcpdump
	@command -v tcpdump >/dev/null || sh .ci/deps.sh tcpdump:tcpdump
	go run ./testdata/bench/run -bin ./$(BIN) -dir $(BENCHDIR)

.PHONY: golden
golden: deps ## rewrite the golden files, the scripts' expected output and the README's tables
	go test -run 'Golden|Scripts|Readme' -update .

.PHONY: deps install-deps
deps:
	@sh .ci/deps.sh
install-deps: deps ## install the C compiler and libpcap headers where missing

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN) $(BIN)-pfring build
