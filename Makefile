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
# How many packets the largest floods of make soak have, and how long its live capture runs.
SOAKFLOOD ?= 5000000
SOAKTIME  ?= 30m
# Where make bench puts the captures it generates, about 300 MB.
BENCHDIR ?= build/bench

# Where make install puts things; DESTDIR is put in front of each.
PREFIX   ?= /usr/local
BINDIR   ?= $(PREFIX)/bin
CONFDIR  ?= /etc/gopassivedns
UNITDIR  ?= $(PREFIX)/lib/systemd/system

# ntop's libpfring, where it is installed, goes into the binary.
PFRING_PROGRAM := \#include <pfring.h>\nint main(void) { return pfring_open("", 0, 0) != 0; }\n
TAGS     := $(shell printf '$(PFRING_PROGRAM)' | $$(go env CC) $(CGO_CFLAGS) -x c -o /dev/null - $(CGO_LDFLAGS) -lpfring -lpcap >/dev/null 2>&1 && echo pfring)
STUB     := build/pfring-stub

STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.8.2

export CGO_ENABLED = 1
export GOFLAGS += -buildvcs=false

.PHONY: build
build: deps ## build ./gopassivedns
	go build -trimpath $(if $(TAGS),-tags $(TAGS)) -ldflags '-X main.version=$(VERSION)' -o $(BIN) .

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

.PHONY: integration
integration: build ## long tests, as root: live capture of real servers, rates, memory; Apache Kafka, Fluentd, statsd, Prometheus
	@sh .ci/deps.sh ip:iproute2 tcpdump:tcpdump tcpreplay:tcpreplay dnsperf:dnsperf nsd:nsd unbound:unbound rsyslogd:rsyslog \
		kcat:kcat mvn:maven java:openjdk-17-jre-headless node:nodejs npm:npm promtool:prometheus
	go test -tags integration -run '$(or $(RUN),Integration|RealDaemons|AlertRules)' -v -timeout 60m .

.PHONY: pfring
pfring: deps ## compile, vet and link with PF_RING's tag, against a stand-in for its library
	@mkdir -p $(STUB)
	$$(go env CC) -Wall -Wextra -Werror -Itestdata/pfring-stub -c -o $(STUB)/pfring.o testdata/pfring-stub/pfring.c
	ar rcs $(STUB)/libpfring.a $(STUB)/pfring.o
	CGO_CFLAGS="-I$(CURDIR)/testdata/pfring-stub" CGO_LDFLAGS="-L$(CURDIR)/$(STUB)" go vet -tags pfring .
	CGO_CFLAGS="-I$(CURDIR)/testdata/pfring-stub" CGO_LDFLAGS="-L$(CURDIR)/$(STUB)" go build -trimpath -tags pfring -o $(BIN)-pfring .

.PHONY: install
install: ## install the binary, its systemd unit and, unless there is one, its env file; PREFIX, DESTDIR
	@test -x $(BIN) || { echo "run make first, as yourself: make install only copies" >&2; exit 1; }
	install -D -m 755 $(BIN) '$(DESTDIR)$(BINDIR)/$(BIN)'
	install -d '$(DESTDIR)$(UNITDIR)' '$(DESTDIR)$(CONFDIR)'
	sed 's|/usr/local/bin/|$(BINDIR)/|; s|/etc/gopassivedns/|$(CONFDIR)/|' packaging/systemd/gopassivedns.service >'$(DESTDIR)$(UNITDIR)/gopassivedns.service'
	chmod 644 '$(DESTDIR)$(UNITDIR)/gopassivedns.service'
	test -e '$(DESTDIR)$(CONFDIR)/gopassivedns.env' || install -m 644 packaging/systemd/gopassivedns.env '$(DESTDIR)$(CONFDIR)/gopassivedns.env'

.PHONY: uninstall
uninstall: ## remove what make install installed, but for an env file that was changed
	rm -f '$(DESTDIR)$(BINDIR)/$(BIN)' '$(DESTDIR)$(UNITDIR)/gopassivedns.service'
	if cmp -s packaging/systemd/gopassivedns.env '$(DESTDIR)$(CONFDIR)/gopassivedns.env'; then rm '$(DESTDIR)$(CONFDIR)/gopassivedns.env'; fi
	if [ -d '$(DESTDIR)$(CONFDIR)' ]; then rmdir --ignore-fail-on-non-empty '$(DESTDIR)$(CONFDIR)'; fi

.PHONY: lint
lint: deps ## gofmt, vet, staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt -w these files:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	$(STATICCHECK) ./...

.PHONY: vuln
vuln: deps ## look the dependencies up in Go's vulnerability database
	@sh .ci/vuln.sh

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

.PHONY: soak
soak: build ## run every flood, the largest with SOAKFLOOD (5000000) packets, then a live capture for SOAKTIME (30m)
	go run ./testdata/bench/run -bin ./$(BIN) -dir $(BENCHDIR) -floods $(SOAKFLOOD)
	@command -v ip >/dev/null || sh .ci/deps.sh ip:iproute2
	go run ./testdata/bench/soak -bin ./$(BIN) -dir build/soak -time $(SOAKTIME)

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
