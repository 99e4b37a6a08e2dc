# make demo and make test install what they need into .venv, once.
SHELL := /bin/bash
.DEFAULT_GOAL := help
bin := .venv/bin
manifests := pyproject.toml producer/pyproject.toml scripts/install.sh

.PHONY: help demo test faults docs chaos check lint types imports clean
help: ## what each target does
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.venv/.runtime: $(manifests)
	@scripts/install.sh
	@touch $@

.venv/.dev: $(manifests)
	@scripts/install.sh dev
	@touch .venv/.runtime $@

demo: .venv/.runtime ## a real fleet on this machine: server, worker with vLLM, Flower; runs a job set and stops (ARGS="--model …")
	@$(bin)/fleet demo $(ARGS)

test: .venv/.dev ## the tests, with the real vLLM engine, a real server and real workers (ARGS="-k pool")
	@scripts/test.sh $(ARGS)

faults: .venv/.dev ## the slow tests: whole fleets are killed, frozen, cut off; engines of odd shapes (part of check)
	@scripts/test.sh slow

docs: .venv/.dev ## the documents' commands and Python blocks, typed one after the other beside a running fleet
	@$(bin)/pytest -q tests/follow_docs.py $(ARGS)

chaos: .venv/.dev ## faults on real processes, every scenario; reports in .fleet/chaos (ARGS="--scenario mixed --seed 7")
	@$(bin)/python -m tests.chaos $(ARGS)

lint: .venv/.dev
	@$(bin)/ruff check . && $(bin)/ruff format --check .

types: .venv/.dev
	@$(bin)/mypy

imports: .venv/.dev
	@$(bin)/lint-imports

check: lint types imports ## all that CI runs
	@scripts/test.sh all

clean: ## removes .venv and .fleet
	@rm -rf .venv .fleet
