# podnet: `make help` lists the targets. Everything is built into bin/.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= dev
# When this was made: the time of its commit, so that the same sources give the same packages.
DATE    ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
# Reproducible by whoever has the same Go: no paths, no build id, no C library, and what
# the environment says of processors does not count.
# The same flags everywhere let tests and builds share what is compiled.
export CGO_ENABLED := 0
export GOFLAGS := -trimpath -buildvcs=false
export GOAMD64 := v1
export GOARM64 := v8.0
export GOEXPERIMENT :=
LDFLAGS := -s -w -buildid= -X podnet.dev/internal/version.Version=$(VERSION)
GOBUILD := go build -ldflags '$(LDFLAGS)'

PROGRAMS := ./cmd/podnet ./cmd/podnet-tray ./cmd/podnet-helper ./cmd/podnet-gateway ./cmd/podnet-agent ./deploy/image ./e2e/lab ./e2e/bench

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort | column -t -s $$'\t'

.PHONY: build
build: ## Build every program into bin/
	@mkdir -p bin
	$(GOBUILD) -o bin/ $(PROGRAMS)

.PHONY: images
images: build ## Make the images of gateway and agent as bin/podnet-*.tar, named in bin/podnet-*.image
	@for what in gateway agent; do \
	  at=bin/podnet-$$what; name=podnet.dev/$$what:$$(sha256sum $$at | cut -c1-12); \
	  bin/image -o $$at.tar -name $$name $$at; echo $$name > $$at.image; \
	  printf '%s: %d KiB\n' $$name $$(( $$(stat -c %s $$at.tar) / 1024 )); done

.PHONY: test
test: lint programs ## Run every test there is, the lab's included
	go test ./...
	@$(MAKE) --no-print-directory e2e

.PHONY: unit
unit: ## Run the tests that need no lab and wait for nothing (under two minutes warm)
	go vet ./...
	go test -short ./...

.PHONY: programs
programs: build ## Build the lab's Kubernetes, which some tests start without a lab
	bin/lab build

.PHONY: e2e
e2e: images programs ## Run the tests that need the lab; boots one when none is up, and takes it down again
	go test -v -tags e2e -count=1 -p 1 -parallel 8 -timeout 60m ./e2e/lab ./e2e

.PHONY: long
long: images programs ## Tell the lab's stories in full length: ten minutes of misfortune, sleep and crowd (about an hour)
	PODNET_E2E_LONG=1 go test -v -tags e2e -count=1 -p 1 -parallel 8 -timeout 3h ./e2e
	PODNET_E2E_LONG=1 go test -v -run '^TestLargeCluster$$' -count=1 -timeout 1h ./gateway
	PODNET_E2E_LONG=1 go test -v -run '^TestOtherComputerSameBytes$$' -count=1 -timeout 1h ./cmd/packages

DURATION ?= 24h
.PHONY: soak
soak: images programs ## Use podnet in the lab in every way, for DURATION (24h), and see that nothing grows
	PODNET_E2E_SOAK=$(DURATION) go test -v -tags e2e -count=1 -timeout 0 -run '^TestSoak$$' ./e2e

PROMISES ?=
.PHONY: promises
promises: images programs ## Run the tests of docs/promises.md and write it anew (PROMISES='1-12 44': some; PROMISES=rest: the red ones; all: two and a half hours)
	go run ./e2e/promises $(PROMISES)

.PHONY: race
race: ## Run the unit tests under the race detector
	CGO_ENABLED=1 go test -race ./...

.PHONY: bench
bench: build ## Measure the data plane beside its yardsticks and the goals, and write bin/bench.json (bin/bench -h: more)
	bin/bench -json bin/bench.json

.PHONY: bench-compare
bench-compare: ## Compare bin/bench.json with OLD=FILE, an earlier one, by benchstat
	@test -n "$(OLD)" || { echo "say which file to compare with: make bench-compare OLD=FILE.json"; exit 1; }
	go tool benchstat -ignore kernel,goos,goarch $(OLD:.json=.txt) bin/bench.txt

FUZZTIME ?= 60s
.PHONY: fuzz
fuzz: ## Fuzz every parser of outside bytes, FUZZTIME (60s) each
	@grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do \
	  for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$dir/*_test.go | cut -c6-); do \
	    echo "== $$dir $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$dir; done; done

.PHONY: lint
lint: ## Check formatting, vet and staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "gofmt these: $$unformatted"; exit 1; }
	go vet -tags e2e ./...
	go tool staticcheck -tags e2e ./...

.PHONY: generate
generate: ## Regenerate deep copies, CRDs and goldens
	go tool controller-gen object paths=./api/... 
	go tool controller-gen crd paths=./api/... output:crd:dir=deploy/manifests/crds
	go test ./deploy -update
	go run ./e2e/promises -page

CROSS ?= linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
.PHONY: cross
cross: ## Build every program for the systems that it runs on, into bin/cross
	@for t in $(CROSS); do \
	  export GOOS=$${t%/*} GOARCH=$${t#*/}; to=bin/cross/$$GOOS-$$GOARCH/; mkdir -p $$to; echo "== $$t"; \
	  mains='./cmd/podnet ./cmd/podnet-helper'; \
	  case $$GOOS in \
	  linux) mains="$$mains ./cmd/podnet-tray ./cmd/podnet-gateway ./cmd/podnet-agent";; \
	  darwin) echo "podnet-tray: left out, an icon in the menu bar needs cgo and Apple's SDK";; \
	  windows) go build -ldflags '$(LDFLAGS) -H=windowsgui' -o $$to ./cmd/podnet-tray;; \
	  esac; \
	  $(GOBUILD) -o $$to $$mains; done

.PHONY: packages
packages: cross ## Make .deb, .rpm, archives, images, Helm chart, krew manifest, SBOMs and checksums of VERSION, into bin/packages
	go run ./cmd/packages -version '$(VERSION)' -date $(DATE) -targets '$(CROSS)'

.PHONY: release
release: ## Make the packages of VERSION from what is committed, if it has no known weakness; the SSH key of the file PODNET_RELEASE_KEY signs
	@test '$(VERSION)' != dev || { echo 'say which: make release VERSION=1.2.3'; exit 1; }
	@test -z "$$(git status --porcelain)" || { echo 'commit first: a release is made of what is committed'; git status --short; exit 1; }
	@$(MAKE) --no-print-directory vuln
	@$(MAKE) --no-print-directory packages

# Where known weaknesses of Go's modules are told; file:///DIR is a copy of it. In one that
# is not there govulncheck finds nothing, and says that there is nothing.
VULNDB ?= https://vuln.go.dev
RELEASED         := ./cmd/podnet ./cmd/podnet-helper
RELEASED-linux   := ./cmd/podnet-tray ./cmd/podnet-gateway ./cmd/podnet-agent
RELEASED-windows := ./cmd/podnet-tray
.PHONY: vuln
vuln: ## Look for known weaknesses that podnet's programs can reach; asks VULNDB (https://vuln.go.dev)
	@case '$(VULNDB)' in file://*) \
	  test -s '$(VULNDB:file://%=%)/index/modules.json' || { echo 'vuln: NOT LOOKED AT: $(VULNDB) is no copy of the database' >&2; exit 1; };; esac
	@go build -o bin/ golang.org/x/vuln/cmd/govulncheck
	@$(foreach system,linux darwin windows,echo "== $(system)"; \
	  GOOS=$(system) bin/govulncheck -db '$(VULNDB)' $(RELEASED) $(RELEASED-$(system)) || { \
	    test $$? = 3 && echo 'vuln: a known weakness can be reached' >&2 || echo 'vuln: NOT LOOKED AT: govulncheck did not come to its end. It asks $(VULNDB); VULNDB=URL names a copy' >&2; exit 1; };)

.PHONY: man
man: ## Write the man pages and the shells' completion into bin/man
	@rm -rf bin/man; mkdir -p bin
	go run ./cmd/packages -version '$(VERSION)' -date $(DATE) -written bin/man

.PHONY: demo
demo: images programs ## Boot a real Kubernetes, install podnet, connect a laptop and show it working
	e2e/demo.sh

.PHONY: lab-up lab-down lab-shell lab-status
lab-up: programs ## Boot the lab: Kubernetes, two laptops and a router
	bin/lab up
lab-down: build ## Take the lab down
	bin/lab down
lab-shell: build ## Open a shell on the laptop side
	bin/lab shell laptop
lab-status: build ## Say what of the lab runs
	bin/lab status

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin
