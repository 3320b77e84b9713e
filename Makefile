# Everything that is needed to work on Tocsin; `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help

TOOL := go tool -modfile=tools/go.mod
VERSION_PKG := github.com/prometheus/common/version
LDFLAGS := -X $(VERSION_PKG).Version=$(shell git describe --tags --always --dirty) -X $(VERSION_PKG).Branch=$(shell git rev-parse --abbrev-ref HEAD)
PROTOS := $(shell find proto -name '*.proto' | sed 's,^proto/,,')

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Labels share their strings: slower by little, and a third less memory for each series.
COLLECTOR_TAGS := dedupelabels

.PHONY: build
build: ## build all programs into bin/
	go build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...
	go build -tags $(COLLECTOR_TAGS) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/collector

.PHONY: test
test: lint checkgenerate programs ## everything that has to pass: lint, generated code, all tests under the race detector
	go test -race -timeout 60m ./...

.PHONY: programs
programs: ## build the servers that tests talk to, once: about 25 minutes of CPU time
	go test -timeout 80m -run TestPrograms ./test/program

.PHONY: test-short
test-short: ## tests without the race detector and without real processes
	go test -short ./...

.PHONY: lint
lint: ## go vet, golangci-lint, go.mod is tidy
	@# Iterators of Prometheus' chunks have a Seek that is not io.Seeker's.
	go vet -stdmethods=false ./...
	$(TOOL) golangci-lint run ./...
	go mod tidy -diff

.PHONY: generate
generate: protoc ## generate code from proto/, and deep copies and CustomResourceDefinitions from api/
	go tool -modfile=tools/controller-gen/go.mod controller-gen object paths=./api/v1
	go tool -modfile=tools/controller-gen/go.mod controller-gen crd paths=./api/... output:crd:dir=deploy/crds
	@mkdir -p .bin
	go build -modfile=tools/go.mod -o .bin/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	PATH="$(CURDIR)/.bin:$$PATH" protoc -I proto \
		--go_out=. --go_opt=module=github.com/tocsin-rules/tocsin \
		--go-grpc_out=. --go-grpc_opt=module=github.com/tocsin-rules/tocsin $(PROTOS)

.PHONY: checkgenerate
checkgenerate: ## generated code is current
	@rm -rf .bin/generated && mkdir -p .bin/generated/deploy && cp -r proto api .bin/generated/ && cp -r deploy/crds .bin/generated/deploy/
	@$(MAKE) --no-print-directory generate
	@for dir in proto api deploy/crds; do \
		diff -r $$dir .bin/generated/$$dir || { echo "$$dir: what is generated was not current; it is now, commit it" >&2; exit 1; }; \
	done

.PHONY: protoc
protoc:
	@command -v protoc >/dev/null || { echo 'protoc is missing: apt-get install protobuf-compiler' >&2; exit 1; }

.PHONY: rewrite
rewrite: ## rewrite the expected output of scripted and golden tests; read the diff
	go test ./ruler/rule ./ruler/schedule ./sharding ./sharding/handoff ./evaluator/plan ./alerting/alert ./up ./up/screen ./cmd/internal/cli ./deploy -rewrite

.PHONY: bench
bench: ## all benchmarks
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: soak
soak: ## ten minutes of `tocsin up` on real rule packs: make soak RULES=dir
	go run ./bench/soak --rules $(RULES)

.PHONY: chaos
chaos: ## faults of every kind, compared with a fleet in peace: make chaos ARGS='--scenario kill-3'
	go run ./bench/chaos $(ARGS)

.PHONY: sim
sim: ## simulate a cluster with many seeds: make sim SEEDS=1000 FROM=1
	go test ./test/sim -run TestSeeds -timeout 0 -seeds $(or $(SEEDS),1000) -from $(or $(FROM),1)

.PHONY: bench-scale
bench-scale: ## 100,000 rules on three members: make bench-scale ARGS='--groups 1000'
	go run ./bench/scale $(ARGS)

.PHONY: bench-alerts
bench-alerts: ## three members with 100,000 active alerts: make bench-alerts ARGS='--alerts 20000'
	go run ./bench/alerts $(ARGS)

.PHONY: bench-apiserver
bench-apiserver: ## what discovery costs the API server of Kubernetes: make bench-apiserver ARGS='-agents 50'
	go test ./bench/apiserver -run '^$$' -bench . -benchtime 1x -timeout 1h -v $(ARGS)

.PHONY: bench-collector
bench-collector: ## the collector beside Prometheus' agent mode and vmagent: make bench-collector ARGS='--interval 10s example'
	go run ./bench/collector $(ARGS)

.PHONY: bench-eval
bench-eval: ## what a rule evaluation costs, against other rulers: make bench-eval ARGS='--series 30k --rules 200'
	go run ./bench/eval $(ARGS)
