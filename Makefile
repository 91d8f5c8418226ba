# `make demo` shows what this is, `make test` says whether it works. The rest is what those two are made of.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-full test-engines bench fuzz engine packages lint build install deb docs unit demo-tests

# The command that runs the tests of the demo's agent, which need no engine.
DEMO_TESTS := python3 -B -m unittest discover -s examples/demo/tests

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: packages engine ## run the main job on examples/demo, on a real engine
	@examples/demo/run

test: packages engine lint demo-tests unit ## lints and all tests; of each long matrix, one sample
	@echo "make test: passed"

test-full: packages engine lint demo-tests ## lints and all tests, with every case of every matrix
	SANDBOX_TEST_FULL=1 cargo test --locked -- --include-ignored
	@$(MAKE) test-engines
	@echo "make test-full: passed"

# Programs of tests that are about what an engine does.
ENGINE_TESTS := attacks copy dockerfile_agent engine engines init kill_switch ports resilience session

test-engines: packages ## the tests of engines, on Docker Engine 26 and 28 with either image store; needs root
	@for name in $$(scripts/engines list); do \
		echo "Docker Engine $$name"; \
		scripts/engines run $$name cargo test --locked $(ENGINE_TESTS:%=--test %) || exit 1; \
	done

bench: packages engine ## measure against docker run, docker exec and a direct connection
	cargo bench --locked --bench sandbox

fuzz: ## every fuzz target for a minute; needs cargo-fuzz
	@scripts/fuzz

unit:
	cargo test --locked

demo-tests:
	@$(DEMO_TESTS)

engine: ## see to it that a Docker Engine answers, installing and starting one if need be
	@scripts/engine

packages: ## install the programs that build and tests need and that are missing
	@scripts/packages

lint: ## format, clippy, documentation, dependencies
	@scripts/lint
	@echo "lint: clean"

build: ## the release binary; prints its path
	@scripts/build release

PREFIX ?= /usr/local

install: ## the binary, its manual pages and completions, below PREFIX (/usr/local)
	@scripts/install '$(PREFIX)'

docs: ## the book of docs/, as a static site in target/book
	@scripts/docs

deb: ## a Debian package, in target/debian; prints its path
	@scripts/deb target/debian
