# Bare `make` lists the targets. Logic lives in Go tests, not here.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin

# The version is what git says, if this is a clone and git is there.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
# Go's own look at git fails where the clone belongs to another user, as it does in containers.
export GOFLAGS ?= -buildvcs=false

TOOL     := go tool -modfile=.tools/go.mod
IMAGE    ?= nftproxy:$(or $(VERSION),latest)
FUZZTIME ?= 30s

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup ## show it: a small world of network namespaces, requests, changes; under a minute (root)
	go run ./e2e/demo

.PHONY: test
test: setup-test lint ## run everything, from the linters to packets and a real control plane (root; the first run builds that, 15 minutes)
	NFTPROXY_TEST=all CGO_ENABLED=1 go test -race -timeout 10m $$(go list ./... | grep -v '/e2e')
	NFTPROXY_TEST=all go test -p 1 -timeout 60m ./e2e/...
	$(MAKE) test-vm

# What runs in a virtual machine with a kernel that has IPVS: packages, and the tests of them.
VM_PACKAGES ?= ./e2e/vm ./proxier/ipvs/kernel
VM_RUN      ?= .
VM_FLAGS    ?=

VM_E2E      ?= ^(TestSchedulers|TestHashSchedulers|TestMove|TestRemoved|TestPortUsedAgain|TestServiceRemoved|TestDrainingUDP|TestPersistence|TestUnservedPort|TestIPv6)$$
# All flows again, with a scheduler on every Service.
VM_FLOWS    ?= ^TestCaseTransitions$$
VM_TEST      = NFTPROXY_TEST=all go test -vet=off -count=1 -timeout 60m -exec '$(CURDIR)/bin/vm'

.PHONY: test-vm
test-vm: setup-test build bin/vm ## run in a virtual machine what needs IPVS (VM_PACKAGES, VM_RUN, VM_FLAGS, VM_E2E, VM_FLOWS choose what); 10 minutes
	$(VM_TEST) -run '$(VM_RUN)' $(VM_PACKAGES) $(VM_FLAGS)
	$(VM_TEST) -run '$(VM_E2E)' ./e2e -nftproxy '$(CURDIR)/bin/nftproxy'
	$(VM_TEST) -run '$(VM_FLOWS)' ./e2e -nftproxy '$(CURDIR)/bin/nftproxy' -scheduler rr

.PHONY: bin/vm
bin/vm:
	CGO_ENABLED=0 go build -trimpath -o bin/vm ./e2e/vm/exec

.PHONY: unit
unit: ## run the tests that are quick; those that need root are skipped without it
	go test $$(go list ./... | grep -v '/e2e')

.PHONY: build
build: ## build the static binary bin/nftproxy
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/nftproxy ./cmd/nftproxy

.PHONY: lint
lint: ## gofumpt, go vet, staticcheck, import rules
	@out=$$($(TOOL) gofumpt -l $$(git ls-files --cached --others --exclude-standard '*.go' 2>/dev/null || find . -name '*.go')); \
	if [ -n "$$out" ]; then echo "gofumpt: these files want \`make fmt\`:" $$out >&2; exit 1; fi
	go vet ./...
	$(TOOL) staticcheck ./...
	go test -run 'TestImports|TestPlanIsPure|TestOnlyTestsImportEndToEnd|TestPackageComments|TestNoState|TestNoSleep|TestSize' ./cmd/nftproxy

.PHONY: lint-full
lint-full: ## golangci-lint with .golangci.yml; builds it first, which takes minutes
	go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run

.PHONY: bench
bench: setup-bench ## measure nftproxy beside kube-proxy, with BENCH_FLAGS; -help lists them (root; hours for all sizes)
	go run ./e2e/bench $(BENCH_FLAGS)

# In the virtual machine nothing can be built, and what is written is gone.
.PHONY: bench-ipvs
bench-ipvs: setup-bench build bin/vm ## the same for IPVS, in a virtual machine, into e2e/bench/RESULTS-IPVS.md (root)
	@.tools/setup ipset=ipset iptables-restore=iptables
	go build -o bin/bench ./e2e/bench
	bin/bench -prepare
	bin/vm -memory 4096 -limit 3h bin/bench -mode ipvs -sizes 2000 -n 20 -write -nftproxy bin/nftproxy $(BENCH_FLAGS) > bin/RESULTS-IPVS.md
	mv bin/RESULTS-IPVS.md e2e/bench/RESULTS-IPVS.md
	@cat e2e/bench/RESULTS-IPVS.md

.PHONY: profile
profile: setup-bench ## CPU and heap profiles of nftproxy at 10,000 Services in bin/profile (root)
	go run ./e2e/bench -peer=false -sizes 10000 -profile bin/profile $(BENCH_FLAGS)

CHURN ?= 1h

.PHONY: churn
churn: setup-bench ## change Services without pause for CHURN (1h) at 10,000 and compare the memory (root)
	go run ./e2e/bench -peer=false -sizes 10000 -churn $(CHURN) -profile bin/profile $(BENCH_FLAGS)

.PHONY: microbench
microbench: ## benchmarks: time, bytes and allocations of compile, diff, encode and load
	go test -run '^$$' -bench . -benchmem -timeout 30m ./nft/... ./proxier/... ./watch/...

.PHONY: fuzz
fuzz: ## fuzz every decoder for FUZZTIME (30s)
	@grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do \
		sed -nE 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/p' "$$file" | while read -r name; do \
			echo "go test -fuzz $$name $$(dirname "$$file")"; \
			go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" </dev/null; \
		done; \
	done

.PHONY: golden
golden: ## write the golden files anew; the review reads the difference
	@for dir in $$(grep -rlE 'flag\.Bool\("update"' --include='*_test.go' . | xargs -r -n1 dirname | sort -u); do \
		echo "go test $$dir -update"; go test "$$dir" -update || exit 1; \
	done

# The builder: docker if its daemon answers, else buildah (a Debian package), which needs neither a daemon
# nor privileges beyond root's in a container.
BUILDER ?= $(shell docker info >/dev/null 2>&1 && echo docker build || echo buildah bud --isolation chroot)

.PHONY: image
image: build ## build the container image: the static binary alone
	@command -v $(firstword $(BUILDER)) >/dev/null || .tools/setup buildah=buildah
	rm -rf bin/image && mkdir -p bin/image/usr/local/bin
	cp bin/nftproxy bin/image/nftproxy
	ln -s /nftproxy bin/image/usr/local/bin/kube-proxy
	$(BUILDER) -t $(IMAGE) .

.PHONY: fmt
fmt: ## format the code
	$(TOOL) gofumpt -w .

.PHONY: clean
clean: ## remove what was built
	rm -rf bin

.PHONY: setup
setup:
	@.tools/setup nft=nftables ip=iproute2

# kube-proxy runs nft and conntrack.
.PHONY: setup-bench
setup-bench:
	@.tools/setup nft=nftables ip=iproute2 conntrack=conntrack

# A race detector needs a C compiler.
.PHONY: setup-test
setup-test:
	@.tools/setup nft=nftables ip=iproute2 iptables-nft=iptables conntrack=conntrack tcpdump=tcpdump gcc=gcc git=git \
		qemu-system-x86_64=qemu-system-x86 busybox=busybox-static ipvsadm=ipvsadm
	@[ -e /usr/include/stdlib.h ] || .tools/setup missing-libc-headers=libc6-dev
